# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # ColBERT, word by word
#
# ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832) was trained to be compared token by token: its score
# is the sum, over all tokens of a query, of the highest similarity to any token of the passage. Which words
# is it made of? And what do the tokens that are no words add?
#
# Name a ColBERT of yours in the environment variable COLBERT: a folder or a hub id, as its authors, PyLate or
# sentence-transformers write one. Without it, one is made here that nobody has trained: all-MiniLM-L6-v2 and
# a random projection to 128 dimensions, which keeps most angles as they are.

# %%
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import minqa


def make_colbert(folder):
    """Files as ColBERT's authors write them."""
    minqa.save(minqa.load(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    (folder / "modules.json").unlink()
    said = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 32, "doc_maxlen": 180}
    (folder / "artifact.metadata").write_text(json.dumps({**said, "mask_punctuation": True}))
    tensors = load_file(folder / "model.safetensors")
    linear = np.random.default_rng(0).normal(size=(128, config["hidden_size"])).astype(np.float32)
    tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    save_file({**tensors, "linear.weight": linear}, folder / "model.safetensors")
    return folder


encoder = minqa.load(os.environ.get("COLBERT") or make_colbert(Path(tempfile.mkdtemp()) / "colbert"))
if not encoder.is_late:
    raise SystemExit(f"{encoder.name} is no ColBERT: its words are compared, see heat_map.py.")
texts = ["Who developed the theory of relativity?", "Einstein published it in 1915, a theory of gravity."]

# %% [markdown]
# ## What it reads
# After [CLS] stands a marker that says whether this is a query or a passage. A query is filled up with [MASK]
# to 32 tokens: these see the query and are asked what else it might have said ("query augmentation", section
# 3.2). In brackets: what is read but not compared, a passage's punctuation and what is beyond its length.

# %%
[query] = minqa.embed(encoder, texts[:1], role="query")
[passage] = minqa.embed(encoder, texts[1:], role="passage")
for tokens in (query.tokens, passage.tokens):
    names = [encoder.tokenizer.backend.id_to_token(number) for number in tokens.ids]
    read = [name if scored else f"({name})" for name, scored in zip(names, tokens.scored, strict=True)]
    print(len(tokens), "tokens:", *read)

# %% [markdown]
# ## Score
# Each token has a vector of length 1, so that a dot product is a cosine. The maximum of each row is what a
# token of the query adds, and their sum is the score (equation 3).

# %%
compared = [text.array[text.tokens.scored > 0] for text in (query, passage)]
similarity = compared[0] @ compared[1].T
score = similarity.max(1).sum()
print(f"{similarity.shape[0]} × {similarity.shape[1]} similarities, score {score:.3f}")

# %% [markdown]
# ## By word
# `heat_map` computes the same, and adds up what the tokens of each word contribute. What is left belongs to
# no word. Together they are the score, to the last digit.

# %%
heat = minqa.heat_map(query, passage)
assert abs(heat.score - score) < 1e-4
parts = [*zip(query.tokens.word_texts, heat.contributions.tolist(), strict=True), *heat.others]
for name, part in parts:
    print(f"{part:7.3f}  {name}")
assert np.float32([part for _, part in parts]).sum() == np.float32(heat.score)

# %% [markdown]
# A word counts as often as it has tokens, here once. The special tokens of a query of few words, most of all
# [MASK], are the larger part of its score. That is no fault: they stand for the query as a whole. But it says
# how little of such a score a picture of words alone would show.
#
# ## The heat map of words
# The vector of a word is the mean of its tokens'. A word of the passage is as hot as its highest similarity
# to a word of the query. In a notebook, `heat` as the last line of a cell is a picture of it.

# %%
for word, degree in zip(passage.tokens.word_texts, heat.heat, strict=True):
    print(f"{word:10} {'█' * max(0, int(40 * degree)) if np.isfinite(degree) else ''}")

# %% [markdown]
# ## Without the [MASK] tokens
# How a query is read is a field of the tokenizer. Filled up to 0 tokens it ends with [SEP]. Divided by the
# number of tokens that count, scores with and without can be compared.

# %%
of_queries, of_passages = encoder.tokenizer.readings
plain = replace(encoder.tokenizer, readings=(replace(of_queries, filled=0), of_passages))
more = ["The theory of evolution was developed by Darwin.", "A developer of software.", *texts[1:]]
passages = minqa.embed(encoder, more, role="passage")
print("per token    evolution  software  Einstein")
for how, reader in (("with", encoder), ("without", replace(encoder, tokenizer=plain))):
    [query] = minqa.embed(reader, texts[:1], role="query")
    scores = minqa.rank(query, passages) / query.tokens.scored.sum()
    print(f"{how:8} [MASK]" + "".join(f"{score:9.3f}" for score in scores))

# %% [markdown]
# Of the ColBERT made here, nobody has trained [MASK] to ask for anything: with it the passage on evolution,
# which repeats most of the question, comes first; without it, Einstein's does. A trained one gains from it.
