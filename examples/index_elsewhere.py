# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # An index without minqa
#
# `minqa index` writes files that other libraries read as they lie. Of each 1,024 articles, `000000.parquet`
# holds the passages, a row each, and `000000.npy` their vectors in the same order. Here is a small index, and
# what minqa finds in it.

# %%
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet

import minqa

encoder = minqa.load()
folder = Path(tempfile.mkdtemp()) / "leads"
minqa.write_index(encoder, minqa.open_corpus(), folder, articles_per_shard=40, shards=range(3))

[question] = minqa.embed(encoder, ["Who developed the theory of relativity?"], role="query")
index = minqa.open_index(folder, encoder)
cosines, rows = map(np.asarray, minqa.match(question.pooled, index.vectors, k=5))
expected = [index.passages[row].id for row in rows.tolist()]
print([index.passages[row].title for row in rows.tolist()])


def compare(library: str, ids: list[str]) -> None:
    assert ids == expected, f"{library} finds {ids}, minqa {expected}"
    print(f"{library} finds the same {len(ids)} passages")


# %% [markdown]
# ## NumPy and pandas
# All that a search needs: the vectors, which are of length 1 with this model, and a table of passages.

# %%
vectors = np.concatenate([np.load(path) for path in sorted(folder.glob("*[0-9].npy"))])
passages = pandas.concat(map(pandas.read_parquet, sorted(folder.glob("*.parquet"))), ignore_index=True)
compare("NumPy", passages.id[np.argsort(-vectors @ question.pooled, kind="stable")[:5]].tolist())

# %% [markdown]
# ## pyarrow
# A folder is one data set. Each shard's record, JSON in the metadata of its schema, says what it holds.

# %%
table = pyarrow.dataset.dataset(sorted(map(str, folder.glob("*.parquet")))).to_table(["id", "title"])
record = pyarrow.parquet.read_schema(folder / "000001.parquet").metadata
first, stop, name = (json.loads(record[f"minqa.{key}".encode()]) for key in ("first", "stop", "corpus"))
compare("pyarrow", table["id"].take(rows).to_pylist())
print(f"shard 000001 holds the articles {first} to {stop - 1} of {name}")

# %% [markdown]
# ## polars
# Reads all shards at once, and only the columns that are asked for.

# %%
if find_spec("polars"):
    import polars

    frame = polars.scan_parquet(folder / "*.parquet").select("id", "title").collect()
    compare("polars", frame["id"].gather(rows).to_list())
else:
    print("polars is not installed, so it is left out")

# %% [markdown]
# ## DuckDB
# Answers questions about words too, since each row lists the words of its passage.

# %%
if find_spec("duckdb"):
    import duckdb

    source = f"read_parquet('{folder}/*.parquet')"
    found = duckdb.sql(f"select title from {source} where list_contains(words, 'relativity')").fetchall()
    print(f"DuckDB finds 'relativity' in {len(found)} passages, the first of {found[0][0]}")
else:
    print("DuckDB is not installed, so it is left out")

# %% [markdown]
# ## FAISS
# Knows where not to look, which `match` does not. Here it is asked for an exact search, so that the answers
# can be compared; an index of the kind IVF or HNSW is one line more.

# %%
if find_spec("faiss"):
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    compare("FAISS", passages.id[flat.search(question.pooled[None], 5)[1][0]].tolist())
else:
    print("FAISS is not installed, so it is left out")

# %% [markdown]
# ## LanceDB
# A database on disk. What a library has written counts once it is read back.

# %%
if find_spec("lancedb"):
    import lancedb

    database = lancedb.connect(tempfile.mkdtemp())
    database.create_table("passages", passages[["id"]].assign(vector=list(vectors)))
    stored = database.open_table("passages")
    assert stored.count_rows() == len(passages)
    compare("LanceDB", [row["id"] for row in stored.search(question.pooled).limit(5).to_list()])
else:
    print("LanceDB is not installed, so it is left out")
