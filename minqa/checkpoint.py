"""Named tensors on disk → a filled model, strictly: every parameter once, nothing unknown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors.numpy import load_file

from minqa.errors import InputError
from minqa.settings import read_settings

Model = TypeVar("Model")


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a Hugging Face model folder by name.

    Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names, or, where PyTorch
    is installed, `pytorch_model.bin` without unpickling anything but tensors.

    Raises:
        InputError: there are no weights, or a file is missing, cut short or not what it claims to be.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_settings(index).get("weight_map", dict)
        if not names:
            raise InputError(f"{index} names no tensors under weight_map.")
        tensors: dict[str, np.ndarray] = {}
        for shard in sorted({Path(str(shard)).name for shard in names.values()}):
            content = _read_safetensors(folder / shard)
            if misplaced := [name for name in content if names.get(name) != shard]:
                raise InputError(
                    f"{folder / shard} holds what {index.name} puts elsewhere: {', '.join(misplaced)}."
                )
            tensors |= content
        if missing := names.keys() - tensors.keys():
            raise InputError(f"{index} names tensors that no shard holds: {', '.join(sorted(missing))}.")
        return tensors
    if (folder / "model.safetensors").is_file():
        return _read_safetensors(folder / "model.safetensors")
    if (folder / "pytorch_model.bin").is_file():
        return _read_torch(folder / "pytorch_model.bin")
    raise InputError(f"{folder} holds no weights: model.safetensors is needed.")


def fill(
    template: Model,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    *,
    older_names: Mapping[str, str],
    unused: str,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Model:
    """Fill an empty model with the tensors of a PyTorch checkpoint.

    Linear layers are transposed on the way, as PyTorch keeps [output, input].

    Args:
        template: the model as `jax.eval_shape` gives it.
        tensors: as `read_tensors` gives them.
        names: module path in the model → prefix of its tensors; where the prefix holds `{}`, for a layer's
            number, the layers' tensors are stacked along a leading axis.
        older_names: pattern → replacement, applied to the names on disk.
        unused: pattern of the tensors that the model has no use for.
        dtype: of the filled parameters.

    Raises:
        InputError: a tensor is missing, doubled, unknown, misshapen or no floating point; the message
            lists every complaint.
    """
    complaints = []
    sources: dict[str, str] = {}
    for name in tensors:
        plain = name
        for pattern, replacement in older_names.items():
            plain = re.sub(pattern, replacement, plain)
        if plain in sources:
            complaints.append(f"{name} and {sources[plain]} are the same parameter")
        sources[plain] = name

    def take(name: str, shape: tuple[int, ...], transpose: bool) -> np.ndarray | None:
        if name not in sources:
            complaints.append(f"{name} is missing")
            return None
        tensor = tensors[sources.pop(name)]
        expected = shape[::-1] if transpose else shape
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            complaints.append(f"{name} is {tensor.dtype}, which is no floating point")
        elif tensor.shape != expected:
            complaints.append(f"{name} has shape {tensor.shape} instead of {expected}")
        elif not np.isfinite(tensor).all():
            complaints.append(f"{name} holds numbers that are not finite")
        else:
            return tensor.T if transpose else tensor
        return None

    def assemble(path: tuple, leaf: jax.ShapeDtypeStruct) -> Array | jax.ShapeDtypeStruct:
        *module, kind = [part.name for part in path[:-1]]  # behind them stands an nnx.Param's `value`
        name = f"{names['.'.join(module)]}.{'bias' if kind == 'bias' else 'weight'}"
        stacked = "{}" in name
        layers = [name.format(i) for i in range(leaf.shape[0])] if stacked else [name]
        shape = leaf.shape[1:] if stacked else leaf.shape
        taken = [take(layer, shape, transpose=kind == "kernel") for layer in layers]
        parts = [part for part in taken if part is not None]
        if len(parts) < len(layers):
            return leaf
        return jnp.asarray(np.stack(parts) if stacked else parts[0], dtype)

    model = jax.tree_util.tree_map_with_path(assemble, template)
    complaints += [f"{sources[name]} is unknown" for name in sources if not re.match(unused, name)]
    if complaints:
        raise InputError(f"The weights do not fit config.json: {'; '.join(complaints)}.")
    return model


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}, which its index names.") from None
    except Exception as error:  # besides its own error, safetensors lets NumPy's through
        raise InputError(f"{path} cannot be read as safetensors, is it cut short? ({error})") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} needs PyTorch to be read: install torch, or save the model as model.safetensors."
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {
            str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            for name, tensor in tensors.items()
        }
    except Exception as error:  # torch.load raises many kinds for a broken or unsafe file
        raise InputError(f"{path} cannot be read as PyTorch weights: {error}") from error
