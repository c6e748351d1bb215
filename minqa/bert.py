"""BERT as Flax NNX modules, to be read beside Devlin et al. 2018 (arXiv:1810.04805).

RoBERTa (arXiv:1907.11692), XLM-R (arXiv:1911.02116) and DistilBERT (arXiv:1910.01108) are the same modules.
A model is a pytree: pass it as an argument to plain `jax.jit`, `jax.grad` and `jax.vmap`. It computes in
the dtype of its parameters, so `jax.tree.map(lambda p: p.astype("bfloat16"), model)` is a bfloat16 model.
The encoder of Vaswani et al. 2017 (arXiv:1706.03762) that it builds on is read beside section 3 there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from minqa.devices import by_device


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, named as in its `config.json`; a DistilBERT has no token types."""

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
    hidden_act: str = field(default="gelu", repr=False)  # one of `ACTIVATIONS`
    first_position: int = field(default=0, repr=False)  # of a text; RoBERTa's table begins with padding
    model_type: str = field(default="bert", repr=False)  # how its files name all this

    def __repr__(self) -> str:
        """What fingerprints, and so indexes, are made of: BERT's sizes, and what is not as in BERT."""
        shown = [each for each in fields(self) if each.repr or getattr(self, each.name) != each.default]
        return f"BertConfig({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in shown)})"


class BertOutput(NamedTuple):
    """What a BERT returns; `hidden[0]` is the embeddings.

    On request, attention maps, from the first token axis to the second, and the activations of units:
    "feed-forward", after the activation, of every layer; "hidden", which is `hidden` again.
    """

    hidden: Float[Array, "layer+1 batch token dim"]
    attention: Float[Array, "layer batch head token token"] | None
    units: dict[str, Float[Array, "_ batch token _"]] | None


# The fast variance, E[x²] - E[x]², loses too many digits to match the original.
LayerNorm = partial(nnx.LayerNorm, use_fast_variance=False)


class Bert(nnx.Module):
    """The encoder of Devlin et al. 2018, without a head."""

    UNITS = ("feed-forward", "hidden")
    BATCH_TOKENS = MappingProxyType({"cpu": 512, "accelerator": 16384})
    packs = compiles_itself = True

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = Embeddings(config, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])
        self.num_layers, self.num_heads = config.num_hidden_layers, config.num_attention_heads

    def __call__(
        self,
        ids: Int[Array | np.ndarray, "batch token"],
        segments: Int[Array | np.ndarray, "batch token"] | Bool[Array | np.ndarray, "batch token"],
        types: Int[Array | np.ndarray, "batch token"] | None = None,
        positions: Int[Array | np.ndarray, "batch token"] | None = None,
        *,
        attention: bool = False,
        units: bool = False,
        scale: Float[Array, "batch token"] | None = None,
        key: Array | None = None,
    ) -> BertOutput:
        """Encode a batch of token ids.

        Args:
            ids: token ids; at most `max_position_embeddings - first_position` per text.
            segments: a number for each text in a row: a token sees those of its own number alone, and one of
                a negative number sees its text and is not seen. One text per row needs no more than a mask,
                True for its tokens and False for padding.
            types: 0 for the first text of a pair, 1 for the second, if the model has types; None is all 0.
            positions: within each text, from 0; None numbers the tokens of a row.
            attention, units: whether to return the attention maps, and the activations of units.
            scale: multiplies each token's word embedding, so that the gradient with respect to it, at 1, is
                gradient × input; None leaves the embeddings as they are.
            key: turns dropout on, for training; None is deterministic.
        """
        embeddings_key, *layer_keys = _split(key, 1 + self.num_layers)
        x = _embed(self.embeddings, ids, types, positions, scale, embeddings_key)  # (batch, token, dim)
        # Plain calls share one compiled layer, however deep the model is, and copy no weights. In a function
        # that JAX traces, as in training, a scan keeps compiling as short; it costs a copy of the weights.
        run = _scan_layers if isinstance(x, jax.core.Tracer) else _call_layers
        hidden, maps, expanded = run(self.layers, x, segments, layer_keys, attention=attention, units=units)
        return BertOutput(hidden, maps, {"feed-forward": expanded, "hidden": hidden} if units else None)


class Embeddings(nnx.Module):
    """The sum of token, segment and position embeddings (section 3, figure 2), then layer norm."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.word = nnx.Embed(config.vocab_size, config.hidden_size, rngs=rngs)
        self.position = nnx.Embed(config.max_position_embeddings, config.hidden_size, rngs=rngs)
        types = config.type_vocab_size
        self.token_type = nnx.Embed(types, config.hidden_size, rngs=rngs) if types else None
        self.first_position = config.first_position
        self.norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(self, ids, types, positions, scale, key):
        types = jnp.zeros_like(ids) if types is None else types
        positions = jnp.arange(ids.shape[1])[None] if positions is None else positions
        # The tables are read directly: nnx.Embed would convert what it finds to the dtype it was built with.
        word, position = self.word.embedding[ids], self.position.embedding[positions + self.first_position]
        x = (word if scale is None else word * scale[..., None]) + position
        x = x if self.token_type is None else x + self.token_type.embedding[types]
        return self.dropout(self.norm(x), deterministic=key is None, rngs=key)


# BERT's GELU is the exact one; "gelu_new" approximates it (Hendrycks and Gimpel 2016, arXiv:1606.08415).
ACTIVATIONS: Mapping[str, Callable] = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class Layer(nnx.Module):
    """Self-attention, then a feed-forward network, each with a residual and layer norm *after* it."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs=rngs)
        self.attention_norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.expand = Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.contract = Linear(config.intermediate_size, config.hidden_size, rngs=rngs)
        self.output_norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, rngs=rngs)
        self.hidden_act = config.hidden_act
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(self, x, segments, key, *, attention, units):
        keys = _split(key, 3)
        attended, maps = self.attention(x, segments, keys[0], attention=attention)
        x = self.attention_norm(x + self.dropout(attended, deterministic=key is None, rngs=keys[1]))
        expanded = ACTIVATIONS[self.hidden_act](self.expand(x))
        forward = self.dropout(self.contract(expanded), deterministic=key is None, rngs=keys[2])
        return self.output_norm(x + forward), maps, expanded if units else None


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

    def __call__(self, x, segments, key, *, attention):
        b, t, dim = x.shape
        same_text = segments[:, :, None] == jnp.abs(segments)[:, None, :]  # (b, t, q)
        projected = [project(x) for project in (self.query, self.key, self.value)]
        q, k, v = (y.reshape(b, t, self.num_heads, -1) for y in projected)  # (b, t, h, dim / h)

        def attend(head):
            """softmax(QKᵀ/√d)V of one head."""
            q, k, v, dropout_key = head
            # Keys come first: XLA's CPU code is fast at a softmax down columns, and slow at one along rows.
            scores = jnp.einsum("btd,bqd->btq", k, q * q.shape[-1] ** -0.5)
            scores = jnp.where(same_text, scores, -jnp.inf)
            weights = jax.nn.softmax(scores.astype(jnp.float32), axis=1).astype(x.dtype)
            kept = self.dropout(weights, deterministic=key is None, rngs=dropout_key)
            # 0 × inf is not 0: a value that is not finite stays with its own token, and off other texts.
            finite = jnp.isfinite(v)
            context = jnp.einsum("btq,btd->bqd", kept, jnp.where(finite, v, 0))
            return jnp.where(finite, context, v), weights.mT if attention else None

        def by_head(q, k, v):
            heads = [jnp.moveaxis(head, 2, 0) for head in (q, k, v)]  # (h, b, t, dim / h)
            keys = None if key is None else jax.random.split(key, self.num_heads)
            # On CPU, 12 heads of 384 × 384 scores at once took three times as long as in turn.
            at_once = max(1, by_device(cpu=2**18, accelerator=2**30) // (b * t * t))
            in_turn = partial(jax.lax.map, attend, batch_size=at_once)  # takes longer to compile
            context, maps = (in_turn if at_once < self.num_heads else jax.vmap(attend))((*heads, keys))
            return jnp.moveaxis(context, 0, 2), maps  # (b, q, h, dim / h)

        def by_cudnn(q, k, v):
            # Its mask is added to scores: what is not finite would reach other texts, so that it becomes NaN.
            finite = [jnp.isfinite(head) for head in (q, k, v)]
            arrays = [jnp.where(known, head, 0) for known, head in zip(finite, (q, k, v), strict=True)]
            mask = same_text.mT[:, None]  # (b, 1, q, t)
            context = jax.nn.dot_product_attention(*arrays, mask=mask, implementation="cudnn")
            return jnp.where(finite[0] & finite[1] & finite[2], context, jnp.nan), None

        if key is None and not attention and uses_cudnn(q):
            context, maps = jax.lax.platform_dependent(q, k, v, cuda=by_cudnn, default=by_head)
        else:
            context, maps = by_head(q, k, v)
        attended = self.output(context.reshape(b, t, dim))
        return attended, jnp.moveaxis(maps, 0, 1) if attention else None  # (b, h, q, t)


def uses_cudnn(head: Float[Array, "batch token head dim"]) -> bool:
    """Whether cuDNN's fused attention knows the dtype, the sizes and the device: NVIDIA's since Ampere."""
    (_, length, _, dim), device = head.shape, jax.local_devices()[0]
    fits = head.dtype.itemsize == 2 and length % 2 == 0 and dim % 8 == 0 and dim <= 128
    is_nvidia = device.platform == "gpu" and "cuda" in device.client.platform_version
    return fits and is_nvidia and float(device.compute_capability) >= 8


class Linear(nnx.Module):
    """x Wᵀ + b, with W as PyTorch keeps it, [output, input]: a copy the other way round is slower on CPU."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        initial = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.kernel = nnx.Param(initial(rngs.params(), (outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x):
        return jnp.einsum("bti,oi->bto", x, self.kernel[...]) + self.bias[None, None]


def _split(key: Array | None, number: int):
    return (None,) * number if key is None else jax.random.split(key, number)


_embed = jax.jit(Embeddings.__call__)
_encode = jax.jit(Layer.__call__, static_argnames=("attention", "units"))
_stack = jax.jit(lambda trees: jax.tree.map(lambda *parts: jnp.stack(parts), *trees))


def _call_layers(layers, x, segments, keys, **wanted):
    hidden, others = [x], []
    for layer, key in zip(layers, keys, strict=True):
        x, *more = _encode(layer, x, segments, key, **wanted)
        hidden.append(x)
        others.append(more)
    return _stack(hidden), *_stack(others)


@partial(jax.jit, static_argnames=("attention", "units"))
def _scan_layers(layers, x, segments, keys, **wanted):
    def step(x, inputs):
        layer, key = inputs
        output = layer(x, segments, key, **wanted)
        return output[0], output

    stacked = _stack(list(layers)), None if keys[0] is None else jnp.stack(keys)
    hidden, maps, expanded = jax.lax.scan(step, x, stacked)[1]
    return jnp.concatenate([x[None], hidden]), maps, expanded
