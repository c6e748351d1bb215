# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From text to heat map
#
# A question is echoed in a passage: where, and by which words? Here two texts become a heat map, with nothing
# but arrays. First, a model that turns words into vectors.

# %%
from dataclasses import replace

import numpy as np

import minqa

encoder = minqa.load()
texts = ["Who developed the theory of relativity?", "Einstein published it in 1915, a theory of gravity."]

# %% [markdown]
# ## Tokens and words
# The tokenizer splits a text into tokens: whole words, or pieces of a rarer word, with a special token at
# either end. It keeps track of the word that each token belongs to; -1 is none.

# %%
for tokens in encoder.tokenize(texts):
    print(len(tokens), "tokens", tokens.word.tolist())

# %% [markdown]
# ## Vectors
# Each token gets a vector that depends on the words around it. A word's vector is the mean of its tokens', a
# row of `words`.

# %%
query, passage = minqa.embed(encoder, texts)
print(query.tokens.word_texts, query.words.shape)
print(passage.tokens.word_texts, passage.words.shape)

# %% [markdown]
# ## Similarity
# How similar are two vectors? Take the cosine of the angle between them: scale both to length 1 and multiply.
# For all pairs at once that is one matrix product.


# %%
def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


similarity = unit(query.words) @ unit(passage.words).T
assert np.allclose(similarity, minqa.cosine(query.words, passage.words), atol=1e-5)

# %% [markdown]
# ## Heat
# A word of the passage is hot if any word of the query is similar to it: the maximum of its column.
# Punctuation is left out.

# %%
query_words, passage_words = query.tokens.is_word, passage.tokens.is_word
heat = np.where(passage_words, similarity[query_words].max(0), -np.inf)
for word, degree in zip(passage.tokens.word_texts, heat, strict=True):
    print(f"{word:10} {'█' * max(0, int(40 * degree)) if np.isfinite(degree) else ''}")

# %% [markdown]
# "theory" is the hottest, as it should be. "Einstein" is far cooler, although he is the answer: the
# similarity shows where the question is echoed, and the answer is beside it. But "a" and "of" are hot too,
# only because the question has small words of its own. More about that below.
#
# ## Score
# The maximum of a row says how well a word of the query is matched. The mean of these maxima is MaxSim
# (Khattab and Zaharia 2020, arXiv:2004.12832), and it ranks passages.

# %%
weights = query_words / query_words.sum()
contributions = weights * similarity[:, passage_words].max(1)
score = contributions.sum()


def show(how, score, contributions):
    words = zip(query.tokens.word_texts, contributions, strict=True)
    print(f"{how}score {score:.3f}: " + ", ".join(f"{word} {share:.3f}" for word, share in words))


show("", score, contributions)

# %% [markdown]
# ## The same from the library
# `heat_map` computes the same, and keeps the parts. By default it also prefers matches that are close to each
# other; `window` and `neighbours` of 0 turn that off.

# %%
plain = minqa.heat_map(query, passage, window=0, neighbours=0.0)
assert np.allclose(plain.word_similarity, similarity, atol=1e-5)
assert np.allclose(plain.heat[passage_words], heat[passage_words], atol=1e-5)
assert np.allclose(plain.contributions, contributions, atol=1e-5) and abs(plain.score - score) < 1e-5

# %% [markdown]
# ## Two refinements
# "the" is in every text, so a word should count by how rare it is (idf). And the vectors of a model share a
# direction that says nothing: centring subtracts the corpus's mean. Both need a corpus, hence `calibrate`.

# %%
encoder = minqa.calibrate(encoder, [passage.text for passage in minqa.demo_passages()[:200]])
for centring in ("none", "mean"):
    refined = minqa.heat_map(*minqa.embed(replace(encoder, centring=centring), texts))
    show(f"centring {centring}, ", refined.score, refined.contributions)
