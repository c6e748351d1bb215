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
# A search wants one number for each passage. Here are two ways to get it: one vector for a whole text,
# which is fast, and a heat map of every word with every word, which is closer to what was asked.

# %%
import numpy as np

import minqa

encoder = minqa.load()
passages = minqa.demo_passages()[:600]
texts = [passage.text for passage in passages]
statistics, measure = minqa.gather(encoder, texts), minqa.RANKING
how = {"measure": measure, "statistics": statistics}
vectors = minqa.embed(encoder, texts, role="passage", **how)
pooled = minqa.pool(vectors)

# %% [markdown]
# ## One vector a text
# The pooled vector is the mean of a text's tokens. `match` finds the passages whose pooled vectors point
# where the question's does.

# %%
question = "Which emperor was exiled to an island?"
[query] = minqa.embed(encoder, [question], role="query", **how)
cosines, rows = minqa.match(query.pooled[None], pooled, k=20)
candidates = np.asarray(rows)[0]
for place, row in enumerate(candidates[:5].tolist(), 1):
    print(f"{place}  {float(cosines[0, place - 1]):.3f}  {passages[row].title}")

# %% [markdown]
# ## Every word with every word
# Now the 20 candidates are read closely. In a heat map each word of the question looks for its best match,
# and what it finds, times its weight, is its contribution. The score is the sum of the contributions.

# %%
maps = {row: minqa.heat_map(query, vectors[row], **how) for row in candidates.tolist()}
reordered = sorted(maps, key=lambda row: -maps[row].score)
for place, row in enumerate(reordered[:5], 1):
    print(f"{place}  {maps[row].score:.3f}  {passages[row].title}")

assert passages[reordered[0]].title == "Napoleon"

# %% [markdown]
# ## Why?
# A sum can be taken apart again. This is what each word of the question adds, for the two passages that the
# two ways put first.

# %%
for row in dict.fromkeys([reordered[0], int(candidates[0])]):
    heat = maps[row]
    words = zip(query.tokens.word_texts, heat.contributions, strict=True)
    print(f"{passages[row].title}: " + ", ".join(f"{word} {share:.3f}" for word, share in words))

# %% [markdown]
# ## Is it better?
# One question shows nothing, and this one was picked because the order improves; with idf from other passages
# it need not. Take the first words of each passage's second sentence as a question, and ask
# which of the two ways finds the passage that it came from. That test favours the heat map, which is good at
# finding the same words again, and it is not how people ask; on SQuAD's questions, which people did ask, the
# README has the figures.

# %%
pairs = []
for row, text in enumerate(texts):
    first, *others = text.split(". ")
    if others and len(others[0].split()) >= 8:
        pairs.append((row, " ".join(others[0].split()[1:9])))
pairs = pairs[:30]
queries = minqa.embed(encoder, [words for _, words in pairs], role="query", **how)
_, found = minqa.match(minqa.pool(queries), pooled, k=10)
by_vector = by_heat = present = 0
for (row, _), asked, some in zip(pairs, queries, np.asarray(found).tolist(), strict=True):
    present += row in some
    by_vector += some[0] == row
    by_heat += max(some, key=lambda one: minqa.heat_map(asked, vectors[one], **how).score) == row
print(f"first place is right: {by_vector} of {len(pairs)} by one vector, {by_heat} by heat map")
print(f"among the candidates at all: {present}")

# %% [markdown]
# ## Where it does not help
# The heat map only reorders what the pooled vectors have found: a passage that is not among the candidates
# stays lost. And every word looks for a match of its own, so a strong one can outweigh the rest.

# %%
[query] = minqa.embed(encoder, ["Which queen ruled Egypt last?"], role="query", **how)
_, rows = minqa.match(query.pooled[None], pooled, k=20)
candidates = np.asarray(rows)[0].tolist()
reordered = sorted(candidates, key=lambda row: -minqa.heat_map(query, vectors[row], **how).score)
print("by one vector:", ", ".join(passages[row].title for row in candidates[:3]))
print("by heat map:  ", ", ".join(passages[row].title for row in reordered[:3]))

# %% [markdown]
# One vector has Ancient Egypt first. The heat map has a queen first, and she is of another country.
