# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Ranking by heat map
#
# A search needs one number for each passage. Here are two ways to compute it: one vector for a whole text,
# which is fast, and a heat map of every word with every word, which is closer to the question.

# %%
import numpy as np

import minqa

encoder = minqa.load()
passages = minqa.demo_passages()[360:620]
texts = [passage.text for passage in passages]
encoder = minqa.calibrate(encoder, texts)
vectors = minqa.embed(encoder, texts, role="passage")
pooled = minqa.pool(vectors)

# %% [markdown]
# ## One vector per text
# The pooled vector is the mean of a text's token vectors. `match` finds the passages whose pooled vectors are
# most similar to the question's.

# %%
question = "Which emperor was exiled to an island?"
[query] = minqa.embed(encoder, [question], role="query")
cosines, candidates = map(np.asarray, minqa.match(query.pooled, pooled, k=20))
for place, row in enumerate(candidates[:5].tolist(), 1):
    print(f"{place}  {cosines[place - 1]:.3f}  {passages[row].title}")

# %% [markdown]
# ## Every word with every word
# Now the 20 candidates are compared word by word. In a heat map each word of the question finds its best
# match; that similarity times the word's weight is its contribution, and the score is their sum.

# %%
maps = {row: minqa.heat_map(query, vectors[row]) for row in candidates.tolist()}
reordered = sorted(maps, key=lambda row: -maps[row].score)
for place, row in enumerate(reordered[:5], 1):
    print(f"{place}  {maps[row].score:.3f}  {passages[row].title}")

assert passages[reordered[0]].title == "Napoleon"

# %% [markdown]
# ## Why?
# A sum can be taken apart. This is what each word of the question adds, for the passage that either way puts
# first.

# %%
for row in dict.fromkeys([reordered[0], int(candidates[0])]):
    heat = maps[row]
    words = zip(query.tokens.word_texts, heat.contributions, strict=True)
    print(f"{passages[row].title}: " + ", ".join(f"{word} {share:.3f}" for word, share in words))

# %% [markdown]
# ## Is it better?
# One question shows nothing, and this one was picked because the order improves; with idf from other passages
# it need not. So take the first words of a passage's second sentence as a question: which of the two ways
# finds the passage that they came from? This test favours the heat map, which is good at finding the same
# words, and it is not how people ask; the README has figures for SQuAD's questions, which people did ask.

# %%
pairs = []
for row, text in enumerate(texts):
    first, *others = text.split(". ")
    if others and len(others[0].split()) >= 8:
        pairs.append((row, " ".join(others[0].split()[1:9])))
pairs = pairs[:30]
queries = minqa.embed(encoder, [words for _, words in pairs], role="query")
_, matches = minqa.match(minqa.pool(queries), pooled, k=10)
by_vector = by_heat = present = 0
for (row, _), query, candidates in zip(pairs, queries, np.asarray(matches), strict=True):
    present += row in candidates
    by_vector += candidates[0] == row
    by_heat += candidates[minqa.rank(query, [vectors[i] for i in candidates]).argmax()] == row
print(f"first place is right: {by_vector} of {len(pairs)} by one vector, {by_heat} by heat map")
print(f"among the candidates at all: {present}")

# %% [markdown]
# ## Where it does not help
# The heat map only reorders what the pooled vectors have found: a passage that is not among the candidates
# stays lost.

# %%
[query] = minqa.embed(encoder, ["Which queen ruled Egypt last?"], role="query")
candidates = np.asarray(minqa.match(query.pooled, pooled, k=20)[1])
reordered = candidates[np.argsort(-minqa.rank(query, [vectors[row] for row in candidates]))]
print("by one vector:", ", ".join(passages[row].title for row in candidates[:3]))
print("by heat map:  ", ", ".join(passages[row].title for row in reordered[:3]))

# %% [markdown]
# Cleopatra is not among these passages. Both ways put Ancient Egypt first, and neither says that the answer
# is missing.
