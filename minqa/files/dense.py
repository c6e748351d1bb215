"""A BERT and the dense layers after it, on its pooled vectors or on each token's; and their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from minqa.bert import Bert, BertConfig, BertOutput
from minqa.files import bert
from minqa.files.checkpoint import AS_IS, Names, read_settings
from minqa.files.weights import read_tensors
from minqa.text import InputError

ACTIVATIONS = {"Identity": lambda x: x, "Tanh": jnp.tanh, "ReLU": jax.nn.relu, "Sigmoid": jax.nn.sigmoid}
ACTIVATIONS |= {"GELU": lambda x: jax.nn.gelu(x, approximate=False), "SiLU": jax.nn.silu}


class DenseConfig(NamedTuple):
    """The sizes of a dense layer, and what it computes."""

    inputs: int
    outputs: int
    activation: str = "Identity"
    bias: bool = False
    residual: bool = False


class Dense(nnx.Module):
    """f(x Wᵀ + b) and, with a residual, + x or, if the sizes differ, + x Vᵀ: sentence-transformers' Dense."""

    def __init__(self, config: DenseConfig, *, rngs: nnx.Rngs):
        self.config, shape = config, (config.outputs, config.inputs)
        initial = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(config.outputs)) if config.bias else None
        projects = config.residual and config.inputs != config.outputs
        self.residual = nnx.Param(initial(rngs.params(), shape)) if projects else None

    def __call__(self, x):
        x = x.astype(self.kernel.dtype)  # (b, t, inputs)
        y = jnp.einsum("bti,oi->bto", x, self.kernel[...])
        y = ACTIVATIONS[self.config.activation](y + self.bias[None, None] if self.config.bias else y)
        if not self.config.residual:
            return y
        return y + (jnp.einsum("bti,oi->bto", x, self.residual[...]) if self.residual else x)


class DenseBert(nnx.Module):
    """A BERT and dense layers, for what `encode` pools or, in late interaction, for each token's vector.

    There its hidden states are one layer: the token vectors projected, and scaled to length 1 (Khattab and
    Zaharia 2020, arXiv:2004.12832, section 3.2). See `Bert` for all else.
    """

    UNITS, BATCH_TOKENS = Bert.UNITS, Bert.BATCH_TOKENS
    packs = compiles_itself = True

    def __init__(self, config: BertConfig, dense: Sequence[DenseConfig], late: bool, *, rngs: nnx.Rngs):
        self.config, self.late = (config, tuple(dense), late), late
        self.bert = Bert(config, rngs=rngs)
        self.dense = nnx.List([Dense(sizes, rngs=rngs) for sizes in dense])
        self.depth, self.num_heads = self.bert.num_layers, self.bert.num_heads
        self.num_layers = 0 if late else self.depth

    @property
    def after_pooling(self) -> Sequence[Dense]:
        return () if self.late else self.dense

    def __call__(self, *arrays: Any, **wanted: Any) -> BertOutput:
        output = self.bert(*arrays, **wanted)
        return output._replace(hidden=_project(self.dense, output.hidden[-1])) if self.late else output


@jax.jit
def _project(dense, x):
    for layer in dense:
        x = layer(x)  # (b, t, dim)
    x = x.astype(jnp.float32)
    return (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12))[None]


# How files name a layer's `DenseConfig`, in its order, and its parameters; those of BERT as ever.
LAYER_SETTINGS = ("in_features", "out_features", "activation_function", "bias", "use_residual")
LAYER_TENSORS = {"kernel": "linear.weight", "bias": "linear.bias", "residual": "residual.weight"}


def tensor_names(config: BertConfig) -> Names:
    """How checkpoints name the parameters of `DenseBert`."""
    return {f"bert.{path}": tensor for path, tensor in bert.TENSORS[config.model_type].items()} | {
        f"dense.{path}": (f"dense.{{}}.{name}", AS_IS) for path, name in LAYER_TENSORS.items()
    }


def read_dense(folders: Sequence[Path], inputs: int) -> tuple[list[DenseConfig], dict[str, Any]]:
    """The sizes of Dense modules, the first of which takes so many inputs, and their tensors.

    Raises:
        InputError: the sizes do not chain, or an activation function is unknown, or a file is broken.
    """
    layers, tensors = list[DenseConfig](), dict[str, Any]()
    for i, folder in enumerate(folders):
        settings = read_settings(folder / "config.json")
        given, outputs = (settings.get(f"{way}_features", int) or 0 for way in ("in", "out"))
        activation = (settings.get("activation_function", str) or "torch.nn.Tanh").rpartition(".")[2]
        if given != inputs or outputs < 1:
            sizes = f"in_features is {given} and out_features {outputs}, but {inputs} numbers come in"
            raise InputError(f"{settings.place}: {sizes}, and some must go out.")
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InputError(f"{settings.place}: activation_function is {activation}; supported are {known}.")
        flags = settings.get("bias", bool) is not False, settings.get("use_residual", bool) or False
        layers.append(DenseConfig(inputs, outputs, activation, *flags))
        tensors |= {f"dense.{i}.{name}": tensor for name, tensor in read_tensors(folder).items()}
        inputs = outputs
    return layers, tensors
