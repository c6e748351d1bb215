"""ELMo as Flax NNX modules, to be read beside Peters et al. 2018 (arXiv:1802.05365).

The model is a biLM: words, spelled in characters, are read by two language models, one forward and one
backward, and every layer of them is returned. It is a pytree, as `minqa.bert.Bert` is, and computes in the
dtype of its parameters. The word encoder is that of Kim et al. 2015 (arXiv:1508.06615), the LSTM with a
projection that of Sak et al. 2014 (arXiv:1402.1128).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from minqa.characters import VOCABULARY, boundaries
from minqa.checkpoint import AS_IS, TRANSPOSED, Layout
from minqa.errors import InputError

# Words in one batch, by kind of device: a step of the LSTMs reads all of their weights, so many texts should
# share it.
BATCH_TOKENS = {"cpu": 2048, "accelerator": 16384}
# Words whose convolutions are computed at once, 0.4 MB each at the released size. On CPU all words of a batch
# at once took 1.4 times as long as what stays in a processor's cache.
WORDS_AT_ONCE = {"cpu": 32, "accelerator": 1024}


@dataclass(frozen=True)
class ElmoConfig:
    """The sizes of an ELMo.

    Attributes:
        characters_per_word: ids that a word is spelled with, its two marks included.
        character_dim: of a character's vector.
        filters: (width in characters, number) of each bank of convolutions.
        activation: "relu" or "tanh", behind the convolutions.
        num_highway_layers: behind that.
        projection_dim: of a word's vector, and of what each direction of a layer puts out.
        lstm_dim: of an LSTM's cell.
        num_layers: of LSTMs.
        cell_clip: the largest absolute value in a cell.
        projection_clip: likewise in a projection.
        skip_connections: whether a layer above the first adds its input to its output.
    """

    characters_per_word: int
    character_dim: int
    filters: tuple[tuple[int, int], ...]
    activation: str
    num_highway_layers: int
    projection_dim: int
    lstm_dim: int
    num_layers: int
    cell_clip: float
    projection_clip: float
    skip_connections: bool

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "ElmoConfig":
        """Read the sizes from the content of an `options.json`.

        Raises:
            InputError: an option is missing or absurd, or describes another model than this one: the message
                names every such option.
        """
        values, complaints = {}, []
        for name, (key, valid, needed) in _OPTIONS.items():
            values[name] = value = _look_up(options, key)
            if value is None:
                complaints.append(f"{key} is missing")
            elif not valid(value):
                complaints.append(f"{key} is {value!r}, but must be {needed}")
        for key, only in (("char_cnn.n_characters", VOCABULARY), ("bidirectional", True)):
            if (value := _look_up(options, key, only)) != only:
                complaints.append(f"{key} is {value!r}, but only {only!r} is supported")
        if not complaints and max(width for width, _ in values["filters"]) > values["characters_per_word"]:
            complaints.append("char_cnn.filters are wider than max_characters_per_token")
        if complaints:
            raise InputError("This is no ELMo that minqa can represent: " + "; ".join(complaints) + ".")
        values["filters"] = tuple(map(tuple, values["filters"]))
        return cls(**values | {name: float(values[name]) for name in ("cell_clip", "projection_clip")})


def _look_up(options: Mapping[str, Any], key: str, default: Any = None) -> Any:
    *parts, last = key.split(".")
    for part in parts:
        inner = options.get(part)
        options = inner if isinstance(inner, dict) else {}
    return options.get(last, default)


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_filter(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_size, value))


_SIZE = _is_size, "a whole number above 0"
# What no tensor's shape would check.
_COUNT = lambda value: _is_size(value) and value <= 64, "a whole number from 1 to 64"
_CLIP = lambda value: type(value) in (int, float) and 0 < value < 1e38, "a number above 0"
# Name here → name in `options.json`, what a value must pass, and how that is called.
_OPTIONS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "characters_per_word": (
        "char_cnn.max_characters_per_token",
        lambda value: _is_size(value) and 3 <= value <= 1000,
        "a whole number from 3 to 1000",
    ),
    "character_dim": ("char_cnn.embedding.dim", *_SIZE),
    "filters": (
        "char_cnn.filters",
        lambda value: isinstance(value, list) and 0 < len(value) <= 64 and all(map(_is_filter, value)),
        "a list of up to 64 [width, number]",
    ),
    "activation": ("char_cnn.activation", lambda value: value in ("relu", "tanh"), "'relu' or 'tanh'"),
    "num_highway_layers": ("char_cnn.n_highway", *_COUNT),
    "projection_dim": ("lstm.projection_dim", *_SIZE),
    "lstm_dim": ("lstm.dim", *_SIZE),
    "num_layers": ("lstm.n_layers", *_COUNT),
    "cell_clip": ("lstm.cell_clip", *_CLIP),
    "projection_clip": ("lstm.proj_clip", *_CLIP),
    "skip_connections": ("lstm.use_skip_connections", lambda value: type(value) is bool, "true or false"),
}


class State(NamedTuple):
    """What the LSTMs remember from one text to the next.

    Attributes:
        cell: of each layer and direction (0 is forward, 1 backward).
        output: the projected output, without what a skip connection adds.
    """

    cell: Float[Array, "layer 2 batch lstm_dim"]
    output: Float[Array, "layer 2 batch projection_dim"]


class ElmoOutput(NamedTuple):
    """What an ELMo returns.

    Attributes:
        hidden: every layer's vectors of the words, forward and backward side by side; `hidden[0]` is the
            word encoder's vector twice over.
        state: behind each text's last word, its end included; backward, behind its start.
        units: on request, activations by the kinds of `Elmo.UNITS`, those of the forward direction before
            those of the backward one: "cell", of every LSTM; "projection", what it puts out, without what a
            skip connection adds.
    """

    hidden: Float[Array, "layer+1 batch token dim"]
    state: State
    units: dict[str, Float[Array, "layer batch token _"]] | None


class Elmo(nnx.Module):
    """The biLM of section 3.1, to be mixed by a `ScalarMix` or taken layer by layer."""

    UNITS = ("cell", "projection")

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        self.words = WordEncoder(config, rngs=rngs)
        self.layers = nnx.List([_both_directions(config, rngs) for _ in range(config.num_layers)])
        self.num_layers = config.num_layers
        self.skip_connections = config.skip_connections

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
            ids: character ids of each word, as `minqa.characters.spell` gives them.
            mask: True for a text's words, which stand at the beginning of its row; what stands where it is
                False changes no word.
            state: as the call for as many texts before these returned it, for results that depend on them
                as those of the original do; None starts from zero, so that a text's vectors are its own.
            units: whether to return the activations of units.
            scale: multiplies what the word encoder makes of each word, so that the gradient in it, at 1, is
                gradient × input; None leaves it as it is. It is 1 where the mask is False.
        """
        lengths = jnp.sum(mask, 1) + 2
        words = self.words(_with_boundaries(jnp.where(mask[..., None], ids, 0), lengths))
        words = words if scale is None else words.at[:, 1:-1].multiply(scale[..., None])
        # From here on a text is a column, so that weights stand on the left as in the papers. On CPU a step
        # of 32 texts takes two thirds of the time that it takes with a text a row.
        x = jnp.stack([words, _reverse(words, lengths)])
        x = jnp.transpose(x, (2, 0, 3, 1))  # token, direction, dim, batch
        real = jnp.arange(len(x))[:, None] < lengths[None, :]

        hidden, states, cells, projections = [x], [], [], []
        for number, layer in enumerate(self.layers):
            before = _zeros(layer, x) if state is None else tuple(part[number].mT for part in state)
            (cell, output), after = _run(layer, before, x, real)
            x = output + x if self.skip_connections and number else output
            hidden.append(x)
            states.append(after)
            cells.append(cell)
            projections.append(output)

        kinds = {"cell": cells, "projection": projections} if units else {}
        return ElmoOutput(
            hidden=_by_text(hidden, lengths),
            state=State(*(jnp.stack(part).mT for part in zip(*states, strict=True))),
            units={kind: _by_text(some, lengths) for kind, some in kinds.items()} if units else None,
        )


class WordEncoder(nnx.Module):
    """Characters → a word's vector: convolutions, their maximum over the word, highways, a projection."""

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        width = sum(number for _, number in config.filters)
        self.characters = nnx.Embed(VOCABULARY - 1, config.character_dim, rngs=rngs)
        self.convolutions = nnx.List(
            [
                nnx.Conv(config.character_dim, number, (width,), padding="VALID", rngs=rngs)
                for width, number in config.filters
            ]
        )
        self.highways = nnx.List([Highway(width, rngs=rngs) for _ in range(config.num_highway_layers)])
        self.projection = nnx.Linear(width, config.projection_dim, rngs=rngs)
        self.activation = config.activation

    def __call__(
        self, ids: Int[Array | np.ndarray, "batch token character"]
    ) -> Float[Array, "batch token dim"]:
        # No row is learned for 0, the character of a word that is not there.
        table = jnp.pad(self.characters.embedding[...], ((1, 0), (0, 0)))

        def convolve(word: Int[Array, " character"]) -> Float[Array, " filter"]:
            return jnp.concatenate([bank(table[word]).max(0) for bank in self.convolutions])

        words = ids.reshape(-1, ids.shape[-1])
        at_once = WORDS_AT_ONCE["cpu" if jax.default_backend() == "cpu" else "accelerator"]
        x = jax.lax.map(convolve, words, batch_size=min(at_once, len(words)))
        x = jax.nn.relu(x) if self.activation == "relu" else jnp.tanh(x)
        for highway in self.highways:
            x = highway(x)
        return self.projection(x).reshape(*ids.shape[:-1], -1)


class Highway(nnx.Module):
    """Part the transformed input, part the input itself (Srivastava et al. 2015, arXiv:1505.00387, eq. 3)."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.gate = nnx.Linear(dim, dim, rngs=rngs)
        self.transform = nnx.Linear(dim, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "word dim"]) -> Float[Array, "word dim"]:
        gate = jax.nn.sigmoid(self.gate(x))
        return gate * jax.nn.relu(self.transform(x)) + (1 - gate) * x


class Lstm(nnx.Module):
    """One layer in one direction: an LSTM whose output is projected, both clipped (Sak et al. 2014).

    `input` and `recurrent` are [4 * lstm_dim, projection_dim], `bias` [4 * lstm_dim], `projection`
    [projection_dim, lstm_dim].
    """

    def __init__(self, config: ElmoConfig, *, rngs: nnx.Rngs):
        gates = (4 * config.lstm_dim, config.projection_dim)
        init = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.input = nnx.Param(init(rngs.params(), gates))
        self.recurrent = nnx.Param(init(rngs.params(), gates))
        self.bias = nnx.Param(jnp.zeros(gates[0]))
        self.projection = nnx.Param(init(rngs.params(), (config.projection_dim, config.lstm_dim)))
        self.clips = (config.cell_clip, config.projection_clip)

    def step(self, cell, output, gates, real):
        """Read one word of each text.

        Args:
            cell: [lstm_dim, batch], behind the word before.
            output: [projection_dim, batch], likewise.
            gates: [4 * lstm_dim, batch], what `input` and `bias` make of the word.
            real: [batch], False for a text that has ended, whose cell and output stay as they are.
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
    """One vector of all layers, weighted as a task learns it (equation 1); untrained it is their mean.

    `num_layers` is the model's, the LSTMs alone; the word encoder's layer is mixed in as well.
    """

    def __init__(self, num_layers: int):
        self.weights = nnx.Param(jnp.zeros(num_layers + 1))
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, hidden: Float[Array, "layer ..."]) -> Float[Array, "..."]:
        """γ Σₖ softmax(w)ₖ hiddenₖ."""
        return self.scale[...] * jnp.tensordot(jax.nn.softmax(self.weights[...]), hidden, 1)


def _both_directions(config: ElmoConfig, rngs: nnx.Rngs) -> Lstm:
    """An `Lstm` whose parameters have a leading axis of direction."""
    return jax.vmap(lambda key: Lstm(config, rngs=nnx.Rngs(key)))(jax.random.split(rngs.params(), 2))


def _run(layer: Lstm, state: tuple, x, real) -> tuple:
    """Run a layer over all words, in both directions at once: half the steps of one after the other.

    On CPU both ways took the same time, within 7 % at 1, 8 and 32 texts of 26 words.

    Args:
        layer: parameters with a leading axis of direction.
        state: cell and output before the first word, [direction, dim, batch].
        x: [token, direction, dim, batch].
        real: [token, batch], False behind a text's end.

    Returns:
        The cells and the outputs behind each word, like x, and the state behind each text's end.
    """
    # What depends on the words alone is computed for all of them at once, the rest word after word.
    gates = jnp.einsum("gnd,tgdb->tgnb", layer.input[...], x) + layer.bias[None, :, :, None]

    def step(state, word):
        state = jax.vmap(Lstm.step, (0, 0, 0, 0, None))(layer, *state, *word)
        return state, state

    state, all_states = jax.lax.scan(step, state, (gates, real))
    return all_states, state


def _by_text(layers: list[Array], lengths: Int[Array, " batch"]) -> Float[Array, "layer batch token dim"]:
    """Layers of [token, direction, dim, batch] as callers know them, without the texts' boundaries."""
    stacked = jnp.transpose(jnp.stack(layers), (0, 2, 4, 1, 3))  # layer, direction, batch, token, dim
    backward = jax.vmap(_reverse, (0, None))(stacked[:, 1], lengths)
    return jnp.concatenate([stacked[:, 0], backward], -1)[:, :, 1:-1]


def _zeros(layer: Lstm, x) -> tuple:
    _, dim, lstm_dim = layer.projection.shape
    return tuple(jnp.zeros((2, size, x.shape[-1]), x.dtype) for size in (lstm_dim, dim))


def _with_boundaries(ids, lengths):
    """[batch, token + 2, character]: the sentence's start before each text, its end behind the last word."""
    start, end = boundaries(ids.shape[-1])
    ids = jnp.pad(ids, ((0, 0), (1, 1), (0, 0)))
    return ids.at[:, 0].set(start).at[jnp.arange(len(ids)), lengths - 1].set(end)


def _reverse(x: Float[Array, "batch token dim"], lengths: Int[Array, " batch"]):
    """Each text back to front; what stands behind its end stays there."""
    place, length = jnp.arange(x.shape[1])[None, :], lengths[:, None]
    order = jnp.where(place < length, length - 1 - place, place)
    return jnp.take_along_axis(x, order[..., None], axis=1)


# How a released file names these parameters: path here → name there, with `{}` for the number in a list and
# `{stack}` for the direction, and how its TensorFlow layout, `x @ W`, becomes ours.
_LSTM = "RNN_{stack}/RNN/MultiRNNCell/Cell{}/LSTMCell"
# The rows of one matrix are first those for the input, then those for the last output.
_INPUT_ROWS = Layout(lambda shape: (2 * shape[1], shape[0]), lambda rows: rows[: len(rows) // 2].T)
_OUTPUT_ROWS = Layout(lambda shape: (2 * shape[1], shape[0]), lambda rows: rows[len(rows) // 2 :].T)
_CONVOLUTION = Layout(lambda shape: (1, *shape), lambda kernel: kernel[0])
TENSORS = {
    "words.characters.embedding": ("char_embed", AS_IS),
    "words.convolutions.kernel": ("CNN/W_cnn_{}", _CONVOLUTION),
    "words.convolutions.bias": ("CNN/b_cnn_{}", AS_IS),
    "words.highways.gate.kernel": ("CNN_high_{}/W_carry", AS_IS),
    "words.highways.gate.bias": ("CNN_high_{}/b_carry", AS_IS),
    "words.highways.transform.kernel": ("CNN_high_{}/W_transform", AS_IS),
    "words.highways.transform.bias": ("CNN_high_{}/b_transform", AS_IS),
    "words.projection.kernel": ("CNN_proj/W_proj", AS_IS),
    "words.projection.bias": ("CNN_proj/b_proj", AS_IS),
    "layers.input": (f"{_LSTM}/W_0", _INPUT_ROWS),
    "layers.recurrent": (f"{_LSTM}/W_0", _OUTPUT_ROWS),
    "layers.bias": (f"{_LSTM}/B", AS_IS),
    "layers.projection": (f"{_LSTM}/W_P_0", TRANSPOSED),
}
