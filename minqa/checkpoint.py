"""Named tensors on disk → a filled model, strictly: every parameter once, nothing unknown."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors.numpy import load_file

from minqa.errors import InputError
from minqa.settings import read_settings

Model = TypeVar("Model")
Shape = tuple[int, ...]


class Layout(NamedTuple):
    """How a parameter lies on disk.

    Attributes:
        shape: from the parameter's shape to the tensor's.
        read: from the tensor to the parameter.
    """

    shape: Callable[[Shape], Shape]
    read: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(lambda shape: shape, lambda tensor: tensor)
TRANSPOSED = Layout(lambda shape: shape[::-1], np.transpose)


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


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file by its path in the file.

    Raises:
        InputError: the file is missing, cut short or no HDF5.
    """
    import h5py

    tensors: dict[str, np.ndarray] = {}

    def read(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[name] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(read)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except Exception as error:  # h5py raises many kinds for a broken file
        raise InputError(f"{path} cannot be read as HDF5, is it cut short? ({error})") from error
    return tensors


def fill(
    template: Model,
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, tuple[str, Layout]],
    *,
    settings: str,
    older_names: Mapping[str, str] | None = None,
    unused: str = "(?!)",
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Model:
    """Fill an empty model with the tensors of a checkpoint.

    Args:
        template: the model as `jax.eval_shape` gives it.
        tensors: as `read_tensors` or `read_hdf5` gives them.
        names: a parameter's path in the model, without numbers → its tensor's name and layout. In the name
            `{}` stands for the path's numbers, one after the other; where it holds `{stack}`, the tensors
            0, 1, ... are stacked along a leading axis.
        settings: the file that the template was made from, to be named in errors.
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
        for pattern, replacement in (older_names or {}).items():
            plain = re.sub(pattern, replacement, plain)
        if plain in sources:
            complaints.append(f"{name} and {sources[plain]} are the same parameter")
        sources[plain] = name
    used = set()

    def take(name: str, shape: Shape, layout: Layout) -> np.ndarray | None:
        if name not in sources:
            complaints.append(f"{name} is missing")
            return None
        used.add(name)
        tensor = tensors[sources[name]]
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            complaints.append(f"{name} is {tensor.dtype}, which is no floating point")
        elif tensor.shape != layout.shape(shape):
            complaints.append(f"{name} has shape {tensor.shape} instead of {layout.shape(shape)}")
        else:
            with np.errstate(over="ignore"):
                tensor = tensor.astype(dtype, copy=False)
            if np.isfinite(tensor).all():
                return layout.read(tensor)
            complaints.append(f"{name} holds numbers that are not finite")
        return None

    def assemble(path: tuple, leaf: jax.ShapeDtypeStruct) -> Array | jax.ShapeDtypeStruct:
        place, numbers = _place(path)
        name, layout = names[place]
        stacked = "{stack}" in name
        rows = [name.format(*numbers, stack=row) for row in range(leaf.shape[0] if stacked else 1)]
        shape = leaf.shape[1:] if stacked else leaf.shape
        taken = [tensor for row in rows if (tensor := take(row, shape, layout)) is not None]
        if len(taken) < len(rows):
            return leaf
        # Not jnp.asarray: it compiles a program for every shape.
        return jax.device_put(np.stack(taken) if stacked else taken[0])

    model = jax.tree_util.tree_map_with_path(assemble, template)
    unknown = [name for name in sources if name not in used and not re.match(unused, name)]
    complaints += [f"{sources[name]} is unknown" for name in unknown]
    if complaints:
        listed = "; ".join(dict.fromkeys(complaints))  # two parameters may share a tensor
        raise InputError(f"The weights do not fit {settings}: {listed}.")
    return model


def dump(model: Any, names: Mapping[str, tuple[str, Layout]]) -> dict[str, np.ndarray]:
    """A model's parameters as `fill` reads them, of layouts that undo themselves, as `TRANSPOSED` does."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        place, numbers = _place(path)
        name, layout = names[place]
        for row, tensor in enumerate(np.asarray(leaf) if "{stack}" in name else [np.asarray(leaf)]):
            tensors[name.format(*numbers, stack=row)] = np.array(layout.read(tensor), order="C")
    return tensors


def own_names(model: Any) -> dict[str, tuple[str, Layout]]:
    """The table of a model that is written down as it is."""
    places = [_place(path)[0] for path, _ in jax.tree_util.tree_leaves_with_path(model)]
    return {place: (place, AS_IS) for place in places}


def _place(path: tuple) -> tuple[str, list[int]]:
    """Where a parameter lies in its model: the attributes' names, and the numbers of the lists passed."""
    parts = path[:-1]  # behind them stands an nnx.Param's `value`
    numbers = [part.idx for part in parts if isinstance(part, jax.tree_util.SequenceKey)]
    names = [part.name for part in parts if isinstance(part, jax.tree_util.GetAttrKey)]
    return ".".join(names), numbers


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
