"""ELMo as Flax NNX modules, to be read beside Peters et al. 2018 (arXiv:1802.05365).

Two language models, one forward and one backward, read words that are spelled in characters, and all of their
layers are returned. The model is a pytree, as `minqa.bert.Bert` is. The word encoder is that of Kim et al.
2015 (arXiv:1508.06615), the LSTM with a projection that of Sak et al. 2014 (arXiv:1402.1128).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from minqa.devices import by_device

# Ids of characters after the 256 bytes, and how many ids there are, with 0, which is no character.
SENTENCE_START, SENTENCE_END, WORD_START, WORD_END, PADDING = range(256, 261)
CHARACTER_IDS = 262


@dataclass(frozen=True)
class ElmoConfig:
    """The sizes of an ELMo."""

    characters_per_word: int  # ids that a word is spelled with, its two marks included
    character_dim: int
    filters: tuple[tuple[int, int], ...]  # (width in characters, number) of each bank of convolutions
    activation: str  # "relu" or "tanh", after the convolutions
    num_highway_layers: int
    projection_dim: int  # of a word's vector, and of the output of each direction of a layer
    lstm_dim: int  # of an LSTM's cell
    num_layers: int  # of LSTMs
    cell_clip: float  # the largest absolute value in a cell
    projection_clip: float  # likewise in a projection
    skip_connections: bool  # whether a layer above the first adds its input to its output


class State(NamedTuple):
    """What the LSTMs remember from one text to the next; direction 0 is forward, 1 backward."""

    cell: Float[Array, "layer direction batch lstm_dim"]
    output: Float[Array, "layer direction batch projection_dim"]  # projected, before a skip connection


class ElmoOutput(NamedTuple):
    """What an ELMo returns; forward stands before backward.

    On request, the activations of units: "cell", of every LSTM, and "projection", its output before a skip
    connection adds to it.
    """

    hidden: Float[Array, "layer+1 batch token dim"]  # `hidden[0]` is the word encoder's vector twice over
    state: State  # after each text's last word, its end included; backward, after its start
    units: dict[str, Float[Array, "layer batch token _"]] | None


class Elmo(nnx.Module):
    """The biLM of section 3.1, to be mixed by a `ScalarMix` or taken layer by layer."""

    UNITS = ("cell", "projection")
    # A step of the LSTMs reads all of their weights, so many texts should share it.
    BATCH_TOKENS = MappingProxyType({"cpu": 2048, "accelerator": 16384})

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.words = WordEncoder(config, rngs=rngs)
        self.layers = nnx.List([BiLstm(config, rngs=rngs) for _ in range(config.num_layers)])
        self.num_layers = config.num_layers

    @partial(jax.jit, static_argnames="units")
    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token character"],
        mask: Bool[Array | np.ndarray, "batch token"],
        state: State | None = None,
        *,
        units: bool = False,
        scale: Float[Array, "batch token"] | None = None,
    ) -> ElmoOutput:
        """Encode a batch of texts.

        Args:
            ids: character ids of each word, as `minqa.files.elmo.spell` gives them.
            mask: True for a text's words, which stand at the beginning of its row.
            state: of the texts before, for results that depend on them as the original's do; None is zeros.
            units: whether to return the activations of units.
            scale: multiplies each word's vector, as in `Bert`; it must be 1 where the mask is False.
        """
        lengths = jnp.sum(mask, 1) + 2
        words = self.words(_with_boundaries(jnp.where(mask[..., None], ids, 0), lengths))
        words = words if scale is None else words.at[:, 1:-1].multiply(scale[..., None])
        # A text is a column from here on, so that weights stand on the left as in the papers; faster on CPU.
        x = jnp.stack([words, _reverse(words, lengths)])
        x = jnp.transpose(x, (0, 2, 3, 1))  # (direction, token, dim, batch)
        real = jnp.arange(x.shape[1])[:, None] < lengths[None, :]

        hidden, read = [x], []
        for number, layer in enumerate(self.layers):
            before = None if state is None else [part[number].mT for part in state]
            cell, output, after = layer(x, real, before)
            x = output + x if self.config.skip_connections and number else output
            hidden.append(x)
            read.append((cell, output, after))
        cells, projections, states = zip(*read, strict=True)
        kinds = {"cell": cells, "projection": projections} if units else {}
        return ElmoOutput(
            hidden=_by_text(hidden, lengths),
            state=State(*(jnp.stack(part).mT for part in zip(*states, strict=True))),
            units={kind: _by_text(layers, lengths) for kind, layers in kinds.items()} if units else None,
        )


class WordEncoder(nnx.Module):
    """Characters → a word's vector: convolutions, their maximum over the word, highways, a projection."""

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        width = sum(number for _, number in config.filters)
        self.characters = nnx.Embed(CHARACTER_IDS - 1, config.character_dim, rngs=rngs)
        bank = partial(nnx.Conv, config.character_dim, padding="VALID", rngs=rngs)
        self.convolutions = nnx.List([bank(number, (size,)) for size, number in config.filters])
        self.highways = nnx.List([Highway(width, rngs=rngs) for _ in range(config.num_highway_layers)])
        self.projection = nnx.Linear(width, config.projection_dim, rngs=rngs)
        self.activation = config.activation

    def __call__(self, ids: Int[Array | np.ndarray, "batch token character"]):
        # No row is learned for 0, the character of a word that is not there.
        table = jnp.pad(self.characters.embedding[...], ((1, 0), (0, 0)))

        def convolve(word: Int[Array, " character"]) -> Float[Array, " filter"]:
            return jnp.concatenate([bank(table[word]).max(0) for bank in self.convolutions])

        words = ids.reshape(-1, ids.shape[-1])
        # 0.4 MB of convolutions per word; all words of a batch at once took 1.4 times as long on CPU.
        at_once = min(by_device(cpu=32, accelerator=1024), len(words))
        x = jax.lax.map(convolve, words, batch_size=at_once)  # (word, filter)
        x = jax.nn.relu(x) if self.activation == "relu" else jnp.tanh(x)
        for highway in self.highways:
            x = highway(x)
        return self.projection(x).reshape(*ids.shape[:-1], -1)  # (batch, token, dim)


class Highway(nnx.Module):
    """Part the transformed input, part the input itself (Srivastava et al. 2015, arXiv:1505.00387, eq. 3)."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(dim, dim, rngs=rngs)
        self.transform = nnx.Linear(dim, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "word dim"]) -> Float[Array, "word dim"]:
        gate = jax.nn.sigmoid(self.gate(x))
        return gate * jax.nn.relu(self.transform(x)) + (1 - gate) * x


class BiLstm(nnx.Module):
    """One layer: an LSTM that reads the text forward, and one that reads it backward, side by side."""

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        self.forward = Lstm(config, rngs=rngs)
        self.backward = Lstm(config, rngs=rngs)

    def __call__(self, x, real, state):
        """Read all words `x` [direction, token, dim, batch], each direction's in its own order.

        `real` [token, batch] is False after a text's end; `state` is before the first word, or None. Returns
        the cells and the outputs after each word, and the state after each text's end.
        """
        both = self.forward, self.backward
        if state is None:
            sizes = self.forward.projection.shape[::-1]  # of a cell, and of an output
            state = [jnp.zeros((2, size, x.shape[-1]), x.dtype) for size in sizes]
        # The part of the gates that the words alone decide is computed for all of them at once.
        gates = [
            jnp.einsum("nd,tdb->tnb", lstm.input[...], words) + lstm.bias[None, :, None]
            for lstm, words in zip(both, x, strict=True)
        ]

        def step(states, word):
            gates, real = word
            parts = zip(both, states, gates, strict=True)
            after = [lstm.step(*state, gate, real) for lstm, state, gate in parts]
            return after, after

        after, each = jax.lax.scan(step, [tuple(part[i] for part in state) for i in range(2)], (gates, real))
        cells, outputs = (jnp.stack(parts) for parts in zip(*each, strict=True))
        return cells, outputs, [jnp.stack(parts) for parts in zip(*after, strict=True)]


class Lstm(nnx.Module):
    """One layer in one direction: an LSTM whose output is projected, both clipped (Sak et al. 2014)."""

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        gates = (4 * config.lstm_dim, config.projection_dim)
        init = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.input = nnx.Param(init(rngs.params(), gates))
        self.recurrent = nnx.Param(init(rngs.params(), gates))
        self.bias = nnx.Param(jnp.zeros(gates[0]))
        self.projection = nnx.Param(init(rngs.params(), (config.projection_dim, config.lstm_dim)))
        self.clips = (config.cell_clip, config.projection_clip)

    def step(self, cell, output, gates, real):
        """Read one word of each text: `gates` [4 * lstm_dim, batch] is W x + b of it.

        `cell` [lstm_dim, batch] and `output` [projection_dim, batch] are those after the word before; where
        `real` [batch] is False, a text has ended, and they stay as they are.
        """
        cell_clip, projection_clip = self.clips
        # In TensorFlow's order: input gate, candidate, forget gate, output gate.
        i, j, f, o = jnp.split(gates + self.recurrent[...] @ output, 4)
        # The 1 keeps the forget gate open when training starts, and is not in the file.
        new_cell = jax.nn.sigmoid(f + 1) * cell + jax.nn.sigmoid(i) * jnp.tanh(j)
        new_cell = jnp.clip(new_cell, -cell_clip, cell_clip)
        new_output = self.projection[...] @ (jax.nn.sigmoid(o) * jnp.tanh(new_cell))
        new_output = jnp.clip(new_output, -projection_clip, projection_clip)
        return jnp.where(real, new_cell, cell), jnp.where(real, new_output, output)


class ScalarMix(nnx.Module):
    """One vector of all layers, weighted as a task learns it (equation 1); untrained it is their mean."""

    def __init__(self, num_layers: int):
        self.weights = nnx.Param(jnp.zeros(num_layers + 1))
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, hidden: Float[Array, "layer ..."]) -> Float[Array, "..."]:
        """γ Σₖ softmax(w)ₖ hiddenₖ."""
        return self.scale[...] * jnp.tensordot(jax.nn.softmax(self.weights[...]), hidden, 1)


def _by_text(layers: Sequence[Array], lengths: Int[Array, " batch"]) -> Float[Array, "layer batch token dim"]:
    """Layers of [direction, token, dim, batch] as callers know them, without the texts' boundaries."""
    stacked = jnp.transpose(jnp.stack(layers), (0, 1, 4, 2, 3))  # (layer, direction, batch, token, dim)
    backward = jax.vmap(_reverse, (0, None))(stacked[:, 1], lengths)
    return jnp.concatenate([stacked[:, 0], backward], -1)[:, :, 1:-1]


def boundaries(width: int = 50) -> Int[np.ndarray, "2 character"]:
    """The ids of the two words that stand for a sentence's start and its end."""
    ids = np.full((2, width), PADDING, np.int32)
    ids[:, :3] = [[WORD_START, mark, WORD_END] for mark in (SENTENCE_START, SENTENCE_END)]
    return ids + 1


def _with_boundaries(ids, lengths):
    """[batch, token + 2, character]: the sentence's start before each text, its end after the last word."""
    start, end = boundaries(ids.shape[-1])
    ids = jnp.pad(ids, ((0, 0), (1, 1), (0, 0)))
    return ids.at[:, 0].set(start).at[jnp.arange(len(ids)), lengths - 1].set(end)


def _reverse(x: Float[Array, "batch token dim"], lengths: Int[Array, " batch"]):
    """Each text back to front; padding stays at the end."""
    place, length = jnp.arange(x.shape[1])[None, :], lengths[:, None]
    order = jnp.where(place < length, length - 1 - place, place)
    return jnp.take_along_axis(x, order[..., None], axis=1)
