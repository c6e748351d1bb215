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
# A question is echoed in a passage: where, and by which words? This takes two texts to a heat map with
# nothing but arrays. First a model that turns words into vectors.

# %%
import numpy as np

import minqa

encoder = minqa.load()
texts = ["Who developed the theory of relativity?", "Einstein published it in 1915, a theory of gravity."]

# %% [markdown]
# ## Tokens and words
# The tokenizer cuts a text into tokens: whole words, or pieces of a rarer word, with a special token at
# either end. It remembers which word each token belongs to; -1 says to none.

# %%
for tokens in encoder.tokenize(texts):
    print(len(tokens), "tokens", tokens.word.tolist())

# %% [markdown]
# ## Vectors
# Each token gets a vector that depends on the words around it. A word's vector is the mean of its tokens'.
# That is `words`: one row a word.

# %%
query, passage = minqa.embed(encoder, texts)
print(query.tokens.word_texts, query.words.shape)
print(passage.tokens.word_texts, passage.words.shape)

# %% [markdown]
# ## Similarity
# How alike are two vectors? Take the cosine of the angle between them: scale both to length 1 and multiply.
# Of all pairs at once that is one matrix product.


# %%
def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


similarity = unit(query.words) @ unit(passage.words).T
assert np.allclose(similarity, minqa.cosine(query.words, passage.words), atol=1e-5)

# %% [markdown]
# ## Heat
# A word of the passage is hot where any word of the query is near it: the maximum down its column.
# Punctuation takes no part.

# %%
asked, given = query.tokens.spelled, passage.tokens.spelled
heat = np.where(given, similarity[asked].max(0), -np.inf)
for word, degree in zip(passage.tokens.word_texts, heat, strict=True):
    print(f"{word:10} {'█' * max(0, int(40 * degree)) if np.isfinite(degree) else ''}")

# %% [markdown]
# "theory" is the hottest, as it should be. "Einstein" is far cooler, although he is the answer: the
# similarity shows where the question is echoed, and the answer stands beside it. But "a" and "of" are hot
# too, only because the question has small words of its own. More of that below.
#
# ## Score
# Along the rows the maximum says how well each word of the query is met. Their mean, all words counting
# alike, is MaxSim (Khattab and Zaharia 2020, arXiv:2004.12832), and it ranks passages.

# %%
weights = asked / asked.sum()
contributions = weights * similarity[:, given].max(1)
score = contributions.sum()


def told(shares):
    return ", ".join(
        f"{word} {share:.3f}" for word, share in zip(query.tokens.word_texts, shares, strict=True)
    )


print(f"score {score:.3f}: {told(contributions)}")

# %% [markdown]
# ## The same from the library
# `heat_map` does just this, and keeps the parts.

# %%
plain = minqa.heat_map(query, passage)
assert np.allclose(plain.word_similarity, similarity, atol=1e-5)
assert np.allclose(plain.heat[given], heat[given], atol=1e-5)
assert np.allclose(plain.contributions, contributions, atol=1e-5) and abs(plain.score - score) < 1e-5

# %% [markdown]
# ## Two refinements
# "the" is met in every text, so a word should count by how rare it is (idf). And vectors of one model share
# a direction that says nothing: centring takes the corpus's mean off them. Both need to know what is usual.

# %%
statistics = minqa.gather(encoder, [one.text for one in minqa.demo_passages()[:200]])
for measure in (minqa.Measure(weights="idf"), minqa.Measure(weights="idf", centring="mean")):
    how = {"measure": measure, "statistics": statistics}
    pair = minqa.embed(encoder, texts, **how)
    refined = minqa.heat_map(*pair, **how)
    print(f"centring {measure.centring}: score {refined.score:.3f}: {told(refined.contributions)}")
