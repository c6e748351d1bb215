"""BERT as Flax NNX modules, to be read beside Devlin et al. 2018 (arXiv:1810.04805).

A model is a pytree: pass it as an argument to plain `jax.jit`, `jax.grad` and `jax.vmap`. It computes in
the dtype of its parameters, so `jax.tree.map(lambda p: p.astype("bfloat16"), model)` is a bfloat16 model.
The encoder of Vaswani et al. 2017 (arXiv:1706.03762) that it builds on is read beside section 3 there.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from minqa.checkpoint import AS_IS, TRANSPOSED
from minqa.errors import InputError

# Tokens in one batch, by kind of device. On CPU small batches are as fast as large ones, need less padding
# and compile to few shapes, which a later search of few passages finds in the cache; an accelerator wants to
# be filled.
BATCH_TOKENS = {"cpu": 256, "accelerator": 16384}


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, named as in its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "BertConfig":
        """Read the sizes from the content of a `config.json`.

        Raises:
            InputError: a size is missing or absurd, or the settings describe another model than this one:
                the message names every such setting.
        """
        complaints = [
            f"{key} is {settings[key]!r}, but only {expected[-1]!r} is supported"
            for key, expected in _REPRESENTED.items()
            if settings.get(key, expected[-1]) not in expected
        ]
        sizes = {field.name: settings.get(field.name, field.default) for field in fields(cls)}
        for field in fields(cls):
            size = sizes[field.name]
            if size is MISSING:
                complaints.append(f"{field.name} is missing")
            elif field.type is int and not (type(size) is int and size > 0):
                complaints.append(f"{field.name} is {size!r}, but must be a whole number above 0")
            elif field.type is float and not (type(size) in (int, float) and 0 <= size < 1):
                complaints.append(f"{field.name} is {size!r}, but must be a number from 0 to below 1")
        if not complaints and sizes["hidden_size"] % sizes["num_attention_heads"]:
            complaints.append("hidden_size is no multiple of num_attention_heads")
        if complaints:
            raise InputError("This is no BERT that minqa can represent: " + "; ".join(complaints) + ".")
        return cls(**sizes)


# Settings that change what the model computes, with the values that this module computes; the last is the
# one that an absent setting means.
_REPRESENTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu",),
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}


class BertOutput(NamedTuple):
    """What a BERT returns.

    Attributes:
        hidden: the hidden states of every layer; `hidden[0]` is the embeddings.
        attention: on request, every layer's attention maps, from the first token axis to the second.
    """

    hidden: Float[Array, "layer+1 batch token dim"]
    attention: Float[Array, "layer batch head token token"] | None


class Bert(nnx.Module):
    """The encoder of Devlin et al. 2018, without a head.

    `layers` is one `Layer` whose parameters have a leading layer axis, so that one layer is traced and
    compiled however deep the model is; `jax.tree.map(lambda p: p[3], model.layers)` is the fourth.
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs=rngs)
        keys = jax.random.split(rngs.params(), config.num_hidden_layers)
        self.layers = jax.vmap(lambda key: Layer(config, rngs=nnx.Rngs(key)))(keys)
        self.num_layers = config.num_hidden_layers

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        mask: Bool[Array | np.ndarray, "batch token"],
        token_types: Int[Array | np.ndarray, "batch token"] | None = None,
        *,
        attention: bool = False,
        key: Array | None = None,
    ) -> BertOutput:
        """Encode a batch of token ids.

        Args:
            ids: token ids; at most `max_position_embeddings` a row.
            mask: True for real tokens; what stands where it is False changes no real token.
            token_types: 0 for the first text of a pair, 1 for the second; None is all 0.
            attention: whether to return the attention maps.
            key: a key turns dropout on, for training; None is deterministic inference.
        """
        token_types = jnp.zeros_like(ids) if token_types is None else token_types
        embeddings_key, layers_key = _split(key, 2)
        embedded = self.embeddings(ids, token_types, embeddings_key)

        def step(x, layer_and_key):
            layer, layer_key = layer_and_key
            x, weights = layer(x, mask, layer_key)
            return x, (x, weights if attention else None)

        layer_keys = None if key is None else jax.random.split(layers_key, self.num_layers)
        _, (hidden, maps) = jax.lax.scan(step, embedded, (self.layers, layer_keys))
        return BertOutput(jnp.concatenate([embedded[None], hidden]), maps)


class BertForQuestionAnswering(nnx.Module):
    """A BERT that reads question and passage together and marks the answer (section 4.2)."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.encoder = Bert(config, rngs=rngs)
        self.output = nnx.Linear(config.hidden_size, 2, rngs=rngs)

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        mask: Bool[Array | np.ndarray, "batch token"],
        token_types: Int[Array | np.ndarray, "batch token"],
        *,
        key: Array | None = None,
    ) -> tuple[Float[Array, "batch token"], Float[Array, "batch token"]]:
        """How well each token begins the answer, and how well it ends it; see `Bert`."""
        logits = self.output(self.encoder(ids, mask, token_types, key=key).hidden[-1])
        return logits[..., 0], logits[..., 1]


class Embeddings(nnx.Module):
    """The sum of token, segment and position embeddings (section 3, figure 2), then layer norm."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.word = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)
        self.token_type = nnx.Embed(config.type_vocab_size, config.hidden_size, rngs=rngs)
        self.norm = _layer_norm(config, rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(self, ids, token_types, key):
        # The tables are read directly: nnx.Embed would convert what it finds to the dtype it was built with.
        word, position = self.word.embedding[ids], self.position.embedding[None, : ids.shape[1]]
        x = word + position + self.token_type.embedding[token_types]
        return self.dropout(self.norm(x), deterministic=key is None, rngs=key)


class Layer(nnx.Module):
    """Self-attention, then a feed-forward network, each with a residual and layer norm *after* it."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs=rngs)
        self.attention_norm = _layer_norm(config, rngs)
        self.expand = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.contract = nnx.Linear(config.intermediate_size, config.hidden_size, rngs=rngs)
        self.output_norm = _layer_norm(config, rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(self, x, mask, key):
        keys = _split(key, 3)
        attended, weights = self.attention(x, mask, keys[0])
        x = self.attention_norm(x + self.dropout(attended, deterministic=key is None, rngs=keys[1]))
        # BERT's GELU is the exact one; jax.nn.gelu is its tanh approximation unless told otherwise.
        forward = self.contract(jax.nn.gelu(self.expand(x), approximate=False))
        x = self.output_norm(x + self.dropout(forward, deterministic=key is None, rngs=keys[2]))
        return x, weights


class SelfAttention(nnx.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, equation 1 and section 3.2.2)."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = nnx.Linear(dim, dim, rngs=rngs)
        self.key = nnx.Linear(dim, dim, rngs=rngs)
        self.value = nnx.Linear(dim, dim, rngs=rngs)
        self.output = nnx.Linear(dim, dim, rngs=rngs)
        self.dropout = nnx.Dropout(config.attention_probs_dropout_prob)

    def __call__(self, x, mask, key):
        batch, token, _ = x.shape
        heads = (batch, token, self.num_heads, -1)
        query, keys, value = (project(x).reshape(heads) for project in (self.query, self.key, self.value))
        scores = jnp.einsum("bqhd,bthd->bhqt", query, keys) * query.shape[-1] ** -0.5
        # The lowest number instead of -inf: a row of padding alone stays finite.
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(x.dtype)
        kept = self.dropout(weights, deterministic=key is None, rngs=key)
        context = jnp.einsum("bhqt,bthd->bqhd", kept, value).reshape(x.shape)
        return self.output(context), weights


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x²] - E[x]², loses too many digits to match the original.
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs
    )


def _split(key: Array | None, number: int):
    return (None,) * number if key is None else jax.random.split(key, number)


# How checkpoints name these modules: path here → prefix there, `{stack}` for the layer's number.
_PREFIXES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.attention.query": "encoder.layer.{stack}.attention.self.query",
    "layers.attention.key": "encoder.layer.{stack}.attention.self.key",
    "layers.attention.value": "encoder.layer.{stack}.attention.self.value",
    "layers.attention.output": "encoder.layer.{stack}.attention.output.dense",
    "layers.attention_norm": "encoder.layer.{stack}.attention.output.LayerNorm",
    "layers.expand": "encoder.layer.{stack}.intermediate.dense",
    "layers.contract": "encoder.layer.{stack}.output.dense",
    "layers.output_norm": "encoder.layer.{stack}.output.LayerNorm",
}
# PyTorch keeps [output, input].
_SUFFIXES = {
    "kernel": ("weight", TRANSPOSED),
    "scale": ("weight", AS_IS),
    "embedding": ("weight", AS_IS),
    "bias": ("bias", AS_IS),
}
TENSORS = {
    f"{path}.{kind}": (f"{prefix}.{suffix}", layout)
    for path, prefix in _PREFIXES.items()
    for kind, (suffix, layout) in _SUFFIXES.items()
}
QA_TENSORS = {f"encoder.{path}": tensor for path, tensor in TENSORS.items()} | {
    "output.kernel": ("qa_outputs.weight", TRANSPOSED),
    "output.bias": ("qa_outputs.bias", AS_IS),
}
OLDER_NAMES = {r"^bert\.": "", r"\.gamma$": ".weight", r"\.beta$": ".bias"}
# Heads that are of no use, and two buffers that old transformers wrote down.
QA_UNUSED_TENSORS = r"(pooler|cls|classifier)\.|embeddings\.(position_ids|token_type_ids)$"
UNUSED_TENSORS = rf"qa_outputs\.|{QA_UNUSED_TENSORS}"
