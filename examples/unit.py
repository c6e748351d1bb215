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
# In 2015 Karpathy, Johnson and Li (arXiv:1506.02078) shaded text by single cells of an LSTM, and a few had a
# meaning: one was on inside quotation marks, one fell steadily from the beginning of a line. A BERT has no
# cells, but the feed-forward network of each layer has units that are mostly silent. What activates them?

# %%
import re

import numpy as np

import minqa

encoder = minqa.load()
texts = [passage.text for passage in minqa.demo_passages()[:40]]
units = minqa.units(encoder, "She won 3 races in 1915, aged twenty.")
print(units.kind, "layers", units.layers, "[layer, word, unit]:", units.array.shape)

# %% [markdown]
# There are thousands of units, too many to look at one by one. Define a feature instead, a number for each
# word: `find_units` ranks all units by their correlation with it.


# %%
def show(units):
    for kind, layer, number, correlation, held_out in units:
        print(f"{kind} unit {layer}.{number}  correlation {correlation:+.2f}, held out {held_out:+.2f}")


show(numbers := minqa.find_units(encoder, texts, minqa.FEATURES["number"], k=3))

# %% [markdown]
# The second figure comes from texts that were not searched. It is needed because the best of thousands of
# units correlates with anything, even with a feature that is pure noise:

# %%
noise = np.random.default_rng(0)
show(minqa.find_units(encoder, texts, lambda tokens: noise.random(len(tokens.words)), k=3))

# %% [markdown]
# ## What the unit really does
# A correlation is a summary. So shade some text by the unit: words in brackets are those where it is on.


# %%
def shaded(unit, text):
    units = minqa.units(encoder, text)
    active = units.unit(unit.layer, unit.number)
    words = zip(units.tokens.word_texts, active, strict=True)
    return " ".join(f"[{word}]" if value > active.max() / 2 else word for word, value in words)


text = "In 1915 she won 3 races in 20 minutes, and 12 of 100 riders, born before 1890, gave up."
print(shaded(numbers[0], text))

# %% [markdown]
# In this sentence it is on at years and off at small numbers. One sentence shows little, so here are the
# means of the three units over all of the texts.

# %%
kinds = {"one or two digits": r"\d{1,2}", "years": r"1\d{3}|20\d\d", "words without digits": r"\D+"}
read = [minqa.units(encoder, text) for text in texts]
words = [word for units in read for word in units.tokens.word_texts]
for unit in numbers:
    active = np.concatenate([units.unit(unit.layer, unit.number) for units in read])
    for kind, pattern in kinds.items():
        chosen = np.array([re.fullmatch(pattern, word) is not None for word in words])
        print(f"unit {unit.layer}.{unit.number}  {active[chosen].mean():+.2f} at {chosen.sum()} {kind}")

# %% [markdown]
# Years activate the first unit, small numbers the second, and the third hardly distinguishes the two. The
# feature was ours; what a unit encodes need not be the same. The first unit correlates best in the texts that
# were searched, and worst of the three in those held out.
#
# ## The falling cell
# Is there a unit that counts the words of a sentence?

# %%
show(minqa.find_units(encoder, texts, minqa.FEATURES["position"], k=3))

# %% [markdown]
# Something like it, but nothing steady. An LSTM must count to know a word's position; this model is given it
# as an input.
#
# ## A feature of your own
# Any function of the words will do: here, whether a word is a point of the compass.


# %%
def compass(tokens):
    points = {"north", "south", "east", "west", "northern", "southern", "eastern", "western"}
    return np.array([word.lower() in points for word in tokens.word_texts], float)


[best] = minqa.find_units(encoder, texts, compass, k=1)
show([best])
print(shaded(best, "The river rises in the north of Italy, turns west, and ends in the Southern Ocean."))
