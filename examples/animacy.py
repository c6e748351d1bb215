# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Where does "it" look?
#
# "The animal didn't cross the street because it was too tired." What was tired? The animal. Say "too wide"
# instead, and it was the street. One word at the end decides what "it" means, and some attention heads of
# Transformers (Vaswani et al. 2017, arXiv:1706.03762) seem to know. Does the small model that minqa searches
# with have such a head? It was trained to find similar sentences, not to resolve pronouns.

# %%
import numpy as np

import minqa

encoder = minqa.load()
tired = "The animal didn't cross the street because it was too tired."
wide = "The animal didn't cross the street because it was too wide."

# %% [markdown]
# `flip` reads both sentences and ranks all heads by how far the attention of "it" moves between "animal"
# and "street". `moved` is the attention to the animal less that to the street in the first sentence, less the
# same difference in the second.

# %%
for flip in minqa.flip(encoder, tired, wide, "it", ("animal", "street"))[:3]:
    weights = " then ".join(f"{a:.2f} to animal, {b:.2f} to street" for a, b in (flip.first, flip.second))
    print(f"head {flip.layer}.{flip.head}  moved {flip.moved:+.2f}: {weights}")

# %% [markdown]
# One pair proves nothing: the best of 72 heads always looks good. So here are seven more pairs, written
# before any head was looked at, each with an adjective for the first noun and one for the second.

# %%
pairs = [
    ("The animal didn't cross the street because it was too {}.", "animal", "street", "tired", "wide"),
    ("The trophy didn't fit in the suitcase because it was too {}.", "trophy", "suitcase", "large", "small"),
    ("The dog could not reach the bone because it was too {}.", "dog", "bone", "short", "high"),
    ("The bird left the branch because it was too {}.", "bird", "branch", "hungry", "thin"),
    ("The horse refused the bridge because it was too {}.", "horse", "bridge", "nervous", "narrow"),
    ("The cat avoided the box because it was too {}.", "cat", "box", "shy", "wet"),
    ("The child ignored the book because it was too {}.", "child", "book", "sleepy", "long"),
    ("The cow would not enter the barn because it was too {}.", "cow", "barn", "frightened", "dark"),
]


def moves(text_a, text_b, first, second):
    """How far each head moves, [layer, head]."""
    moved = np.zeros((encoder.model.num_layers, encoder.model.num_heads))
    for flip in minqa.flip(encoder, text_a, text_b, "it", (first, second)):
        moved[flip.layer - 1, flip.head] = flip.moved
    return moved


by_pair = np.stack([moves(text.format(a), text.format(b), *names) for text, *names, a, b in pairs])

# %% [markdown]
# A control: the adjective stays, and "too" becomes "very". What "it" means does not change, so a head that
# follows the meaning should hardly move.

# %%
control = np.stack(
    [moves(text.format(a), text.replace(" too ", " very ").format(a), *names) for text, *names, a, _ in pairs]
)

for place in np.argsort(-np.abs(by_pair.mean(0)), axis=None)[:3]:
    layer, head = np.unravel_index(place, by_pair.shape[1:])
    expected = int((by_pair[:, layer, head] > 0).sum())
    print(
        f"head {layer + 1}.{head}  moves {by_pair[:, layer, head].mean():+.3f} on average, as expected in "
        f"{expected} of {len(pairs)} pairs; control {np.abs(control[:, layer, head]).mean():.3f} either way"
    )

# %% [markdown]
# Head 4.1 moves much further than any other, and seldom against the meaning. It was chosen among 72 on these
# very pairs, so its average is too high; the distance to the second head is the evidence. The pair that it
# misses has a trophy, which is not alive: perhaps this head asks what can be tired rather than what fits.

# %%
layer, head = np.unravel_index(np.abs(by_pair.mean(0)).argmax(), by_pair.shape[1:])
for (_, first, second, a, b), moved in zip(pairs, by_pair[:, layer, head], strict=True):
    print(f"{moved:+.2f}  {first} or {second}: {a}, {b}")
