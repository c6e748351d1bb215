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

from minqa.checkpoint import AS_IS
from minqa.errors import InputError

# Tokens in one batch, by kind of device. On CPU small batches are as fast as large ones, need less padding
# and compile to few shapes, which a later search of few passages finds in the cache; an accelerator wants to
# be filled.
BATCH_TOKENS = {"cpu": 256, "accelerator": 16384}
# Similarities of tokens that attention compares at once, head after head, by kind of device: on CPU 12 heads
# of 384 × 384 at once took three times as long as what stays in a processor's cache.
SCORES_AT_ONCE = {"cpu": 2**18, "accelerator": 2**30}


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
        units: on request, activations by the kinds of `Bert.UNITS`: "feed-forward", behind GELU, of every
            layer; "hidden", again, is `hidden`.
    """

    hidden: Float[Array, "layer+1 batch token dim"]
    attention: Float[Array, "layer batch head token token"] | None
    units: dict[str, Float[Array, "_ batch token _"]] | None


class Bert(nnx.Module):
    """The encoder of Devlin et al. 2018, without a head.

    Its parts are compiled, not the whole: all layers are one program, however deep the model is, and no
    weight is copied on its way in, as `jax.lax.scan` over layers would. Inside a `jax.jit` of your own, as in
    training, every layer is compiled anew, which takes the longer the deeper the model is.
    """

    UNITS = ("feed-forward", "hidden")

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.embeddings = Embeddings(config, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_heads(self) -> int:
        return self.layers[0].attention.num_heads

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        mask: Bool[Array | np.ndarray, "batch token"],
        token_types: Int[Array | np.ndarray, "batch token"] | None = None,
        *,
        attention: bool = False,
        units: bool = False,
        scale: Float[Array, "batch token"] | None = None,
        key: Array | None = None,
    ) -> BertOutput:
        """Encode a batch of token ids.

        Args:
            ids: token ids; at most `max_position_embeddings` a row.
            mask: True for real tokens; what stands where it is False changes no real token.
            token_types: 0 for the first text of a pair, 1 for the second; None is all 0.
            attention: whether to return the attention maps.
            units: whether to return the activations of units.
            scale: multiplies each token's word embedding, so that the gradient in it, at 1, is gradient ×
                input; None leaves them as they are.
            key: a key turns dropout on, for training; None is deterministic inference.
        """
        embeddings_key, *layer_keys = _split(key, 1 + self.num_layers)
        hidden = [_embed(self.embeddings, ids, token_types, scale, embeddings_key)]
        maps, expanded = [], []
        for layer, layer_key in zip(self.layers, layer_keys, strict=True):
            x, weights, forward = _encode(
                layer, hidden[-1], mask, layer_key, attention=attention, units=units
            )
            hidden.append(x)
            maps.append(weights)
            expanded.append(forward)
        stacked = _stack(hidden)
        return BertOutput(
            hidden=stacked,
            attention=_stack(maps) if attention else None,
            units={"feed-forward": _stack(expanded), "hidden": stacked} if units else None,
        )


class BertForQuestionAnswering(nnx.Module):
    """A BERT that reads question and passage together and marks the answer (section 4.2)."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.encoder = Bert(config, rngs=rngs)
        self.output = Linear(config.hidden_size, 2, rngs=rngs)

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

    def __call__(self, ids, token_types, scale, key):
        token_types = jnp.zeros_like(ids) if token_types is None else token_types
        # The tables are read directly: nnx.Embed would convert what it finds to the dtype it was built with.
        word, position = self.word.embedding[ids], self.position.embedding[None, : ids.shape[1]]
        word = word if scale is None else word * scale[..., None]
        x = word + position + self.token_type.embedding[token_types]
        return self.dropout(self.norm(x), deterministic=key is None, rngs=key)


class Layer(nnx.Module):
    """Self-attention, then a feed-forward network, each with a residual and layer norm *after* it."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs=rngs)
        self.attention_norm = _layer_norm(config, rngs)
        self.expand = Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.contract = Linear(config.intermediate_size, config.hidden_size, rngs=rngs)
        self.output_norm = _layer_norm(config, rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(self, x, mask, key, *, attention, units):
        keys = _split(key, 3)
        attended, weights = self.attention(x, mask, keys[0], attention=attention)
        x = self.attention_norm(x + self.dropout(attended, deterministic=key is None, rngs=keys[1]))
        # BERT's GELU is the exact one; jax.nn.gelu is its tanh approximation unless told otherwise.
        expanded = jax.nn.gelu(self.expand(x), approximate=False)
        forward = self.dropout(self.contract(expanded), deterministic=key is None, rngs=keys[2])
        return self.output_norm(x + forward), weights, expanded if units else None


class SelfAttention(nnx.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, equation 1 and section 3.2.2)."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = Linear(dim, dim, rngs=rngs)
        self.key = Linear(dim, dim, rngs=rngs)
        self.value = Linear(dim, dim, rngs=rngs)
        self.output = Linear(dim, dim, rngs=rngs)
        self.dropout = nnx.Dropout(config.attention_probs_dropout_prob)

    def __call__(self, x, mask, key, *, attention):
        batch, token, dim = x.shape

        def one_head(inputs):
            query, keys, values, dropout_key = inputs
            # Softmax runs down the columns: XLA's CPU code adds up rows one number at a time.
            scores = jnp.einsum("btd,bqd->btq", keys, query * query.shape[-1] ** -0.5)
            # The lowest number instead of -inf: a row of padding alone stays finite.
            scores = jnp.where(mask[:, :, None], scores, jnp.finfo(scores.dtype).min)
            weights = jax.nn.softmax(scores.astype(jnp.float32), axis=1).astype(x.dtype)
            kept = self.dropout(weights, deterministic=key is None, rngs=dropout_key)
            context = jnp.einsum("btq,btd->bqd", kept, values)
            return context, weights.mT if attention else None

        heads = [
            jnp.moveaxis(project(x).reshape(batch, token, self.num_heads, -1), 2, 0)
            for project in (self.query, self.key, self.value)
        ]
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        at_once = max(1, min(self.num_heads, SCORES_AT_ONCE[kind] // (batch * token**2)))
        keys = None if key is None else jax.random.split(key, self.num_heads)
        context, weights = jax.lax.map(one_head, (*heads, keys), batch_size=at_once)
        attended = self.output(jnp.moveaxis(context, 0, 2).reshape(batch, token, dim))
        return attended, jnp.moveaxis(weights, 0, 1) if attention else None


class Linear(nnx.Module):
    """x Wᵀ + b, with W as PyTorch keeps it, [output, input]: a copy the other way round is slower on CPU."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        initial = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.kernel = nnx.Param(initial(rngs.params(), (outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        return jnp.einsum("bti,oi->bto", x, self.kernel[...]) + self.bias[None, None]


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance, E[x²] - E[x]², loses too many digits to match the original.
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs
    )


def _split(key: Array | None, number: int):
    return (None,) * number if key is None else jax.random.split(key, number)


_embed = jax.jit(Embeddings.__call__)
_encode = jax.jit(Layer.__call__, static_argnames=("attention", "units"))
_stack = jax.jit(jnp.stack)


# How checkpoints name these modules: path here → prefix there, `{}` for the layer's number.
_PREFIXES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.attention.query": "encoder.layer.{}.attention.self.query",
    "layers.attention.key": "encoder.layer.{}.attention.self.key",
    "layers.attention.value": "encoder.layer.{}.attention.self.value",
    "layers.attention.output": "encoder.layer.{}.attention.output.dense",
    "layers.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers.expand": "encoder.layer.{}.intermediate.dense",
    "layers.contract": "encoder.layer.{}.output.dense",
    "layers.output_norm": "encoder.layer.{}.output.LayerNorm",
}
_SUFFIXES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
TENSORS = {
    f"{path}.{kind}": (f"{prefix}.{suffix}", AS_IS)
    for path, prefix in _PREFIXES.items()
    for kind, suffix in _SUFFIXES.items()
}
QA_TENSORS = {f"encoder.{path}": tensor for path, tensor in TENSORS.items()} | {
    "output.kernel": ("qa_outputs.weight", AS_IS),
    "output.bias": ("qa_outputs.bias", AS_IS),
}
OLDER_NAMES = {r"^bert\.": "", r"\.gamma$": ".weight", r"\.beta$": ".bias"}
# Heads that are of no use, and two buffers that old transformers wrote down.
QA_UNUSED_TENSORS = r"(pooler|cls|classifier)\.|embeddings\.(position_ids|token_type_ids)$"
UNUSED_TENSORS = rf"qa_outputs\.|{QA_UNUSED_TENSORS}"
