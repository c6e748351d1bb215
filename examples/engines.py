"""An index, handed over to engines that search millions in a moment: do they find what `match` finds?

    uv run --extra faiss --extra lance python examples/engines.py DIR "Who developed relativity?"

`match` compares a question with every passage. That is exact, and the time it takes grows with the corpus.
Beyond what you are ready to wait for, hand the vectors to an engine that knows where not to look. Here both
are asked for an exact search, so that the answers can be compared; an index of theirs, IVF or HNSW, is then
one line more.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import faiss
import lancedb
import numpy as np

import minqa
from minqa.index import Folder

K = 10


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare engines on an index.")
    parser.add_argument("index", type=Path, help="a folder that `minqa index --out` made")
    parser.add_argument("question")
    parser.add_argument("--model", help="folder or hub id (default: what the index was made with)")
    options = parser.parse_args()
    folder = Folder(options.index)
    encoder = minqa.load(options.model or folder.manifest.model)
    index = minqa.open_index(options.index, encoder)

    [question] = minqa.embed(encoder, [options.question], role="query")
    [cosines], [rows] = minqa.match(question.pooled[None], index.vectors, k=K)
    for row, cosine in zip(np.asarray(rows), np.asarray(cosines), strict=True):
        passage = index.passages[row]
        print(f"{cosine:.3f}  {passage.title}: {passage.text[:60]!r}")
    ids = [index.passages[row].id for row in np.asarray(rows)]

    with tempfile.TemporaryDirectory() as name:
        # FAISS numbers its vectors as the index does.
        minqa.export(folder, "faiss", Path(name) / "index.faiss")
        flat = faiss.read_index(str(Path(name) / "index.faiss"))
        _, [found] = flat.search(question.pooled[None], K)
        same = compare("FAISS", [index.passages[row].id for row in found], ids)

        # LanceDB keeps the passages beside their vectors.
        minqa.export(folder, "lance", Path(name) / "index.lance")
        table = lancedb.connect(Path(name) / "index.lance").open_table("passages")
        nearest = table.search(question.pooled).distance_type("cosine").limit(K).to_list()
        same &= compare("LanceDB", [one["id"] for one in nearest], ids)
    return 0 if same else 1


def compare(engine: str, found: list[str], expected: list[str]) -> bool:
    same = found == expected
    print(f"{engine}: {'the same' if same else 'not the same'} {len(expected)} passages, in order")
    return same


if __name__ == "__main__":
    sys.exit(main())
