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
# A sum can be taken apart again. These are the words of the question that decided, for the two passages
# that each way puts first.

# %%
for row in dict.fromkeys([reordered[0], int(candidates[0])]):
    heat = maps[row]
    strongest = np.argsort(-heat.contributions)[:4]
    words = ", ".join(f"{query.tokens.word_texts[i]} {heat.contributions[i]:.3f}" for i in strongest)
    print(f"{passages[row].title}: {words}")

# %% [markdown]
# ## Is it better?
# One question shows nothing. Take the first words of each passage's second sentence as a question, and ask
# which of the two ways finds the passage that it came from. That is an easy test, and it is not how people
# ask; on SQuAD's questions, which people did ask, the README has the figures.

# %%
pairs = []
for row, text in enumerate(texts):
    first, *others = text.split(". ")
    if others and len(others[0].split()) >= 8:
        pairs.append((row, " ".join(others[0].split()[1:9])))
pairs = pairs[:60]
queries = minqa.embed(encoder, [words for _, words in pairs], role="query", **how)
_, found = minqa.match(minqa.pool(queries), pooled, k=10)
by_vector = by_heat = 0
for (row, _), asked, some in zip(pairs, queries, np.asarray(found).tolist(), strict=True):
    by_vector += some[0] == row
    by_heat += max(some, key=lambda one: minqa.heat_map(asked, vectors[one], **how).score) == row
print(f"first place is right: {by_vector} of {len(pairs)} by one vector, {by_heat} by heat map")

# %% [markdown]
# Where it does not help: ask which queen ruled Egypt last, and the heat map prefers the queen of another
# country, as every word counts for itself. It only reorders what the pooled vectors have found, so a passage
# that is not among the candidates stays lost.
