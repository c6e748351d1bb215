# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Looking for a unit
#
# In 2015 Karpathy, Johnson and Li (arXiv:1506.02078) shaded text by single cells of an LSTM, and some of
# them could be read: one was on inside quotation marks, one fell steadily from the beginning of a line. A
# BERT has no cells, but the feed-forward network of each layer has units that are mostly silent and now and
# then are not. What do they wait for?

# %%
import re

import numpy as np

import minqa

encoder = minqa.load()
texts = [passage.text for passage in minqa.demo_passages()[:64]]
found = minqa.units(encoder, "She won 3 races in 1915, aged twenty.")
print(found.kind, "layers", found.layers, "[layer, word, unit]:", found.array.shape)

# %% [markdown]
# There are thousands of units, so looking at them one by one would take a while. Say what you look for
# instead: a number for each word. `find_units` ranks all units by their correlation with it.

# %%
numbers = minqa.find_units(encoder, texts, minqa.FEATURES["number"], k=3)
for one in numbers:
    print(f"unit {one.layer}.{one.number}  correlation {one.correlation:+.2f}, held out {one.held_out:+.2f}")

# %% [markdown]
# The second figure is of texts in which nobody searched. It has to be there: among thousands of units the
# best one correlates with anything. See for yourself, with a feature that is pure noise.

# %%
noise = np.random.default_rng(0)
for one in minqa.find_units(encoder, texts, lambda tokens: noise.random(len(tokens.words)), k=3):
    print(f"unit {one.layer}.{one.number}  correlation {one.correlation:+.2f}, held out {one.held_out:+.2f}")

# %% [markdown]
# ## What the unit really does
# A correlation is a summary. So shade some text by the unit, and look: a word in brackets is one that it is
# on at.


# %%
def shaded(unit, text):
    read = minqa.units(encoder, text)
    active = read.unit(unit.layer, unit.number)
    words = zip(read.tokens.word_texts, active, strict=True)
    return " ".join(f"[{word}]" if value > active.max() / 2 else word for word, value in words)


text = "In 1915 she won 3 races in 20 minutes, and 12 of 100 riders, born before 1890, gave up."
print(shaded(numbers[0], text))

# %% [markdown]
# In this sentence it is on at small numbers and off at years. One sentence shows little, so take the mean
# over all of the texts, of each of the three units.

# %%
kinds = {"one or two digits": r"\d{1,2}", "years": r"1\d{3}|20\d\d", "words without digits": r"\D+"}
read = [minqa.units(encoder, text) for text in texts]
words = [word for some in read for word in some.tokens.word_texts]
for one in numbers:
    active = np.concatenate([some.unit(one.layer, one.number) for some in read])
    for kind, pattern in kinds.items():
        chosen = np.array([re.fullmatch(pattern, word) is not None for word in words])
        print(f"unit {one.layer}.{one.number}  {active[chosen].mean():+.2f} at {chosen.sum()} {kind}")

# %% [markdown]
# Small numbers do move the first unit most, but over many texts it is not silent at years: they move it less.
# The second one hardly tells the two apart. The feature was ours; a unit has an idea of its own.
#
# ## The falling cell
# Is there a unit that counts how far a sentence has come?

# %%
for one in minqa.find_units(encoder, texts, minqa.FEATURES["position"], k=3):
    print(f"unit {one.layer}.{one.number}  correlation {one.correlation:+.2f}, held out {one.held_out:+.2f}")

# %% [markdown]
# Something of the kind, but nothing steady. An LSTM has to count if it wants to know; this model is told
# each word's position before it begins.
#
# ## A feature of your own
# Any function of the words will do: here, whether a word is a place where the compass points.


# %%
def compass(tokens):
    points = {"north", "south", "east", "west", "northern", "southern", "eastern", "western"}
    return np.array([word.lower() in points for word in tokens.word_texts], float)


[best] = minqa.find_units(encoder, texts, compass, k=1)
print(f"unit {best.layer}.{best.number}  correlation {best.correlation:+.2f}, held out {best.held_out:+.2f}")
print(shaded(best, "The river rises in the north of Italy, turns west, and ends in the Southern Ocean."))
