"""Files of weights → tensors by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from minqa.files.checkpoint import COMPLAINTS_NAMED, read_settings
from minqa.files.extras import needed
from minqa.text import InputError


@contextmanager
def open_hdf5(path: Path) -> Iterator[Mapping[str, Any]]:
    """The tensors of an HDF5 file by name, each with a shape and a dtype, and read when it is asked for.

    Raises:
        InputError: the file is missing, cut short or no HDF5.
    """
    import h5py

    if not path.exists():
        raise InputError(f"There is no file {path}.")
    broken = f"{path} cannot be read as HDF5, is it cut short?"
    tensors: dict[str, Any] = {}
    try:
        file = h5py.File(path, "r")
        file.visititems(lambda name, item: tensors.update({name: item} if hasattr(item, "shape") else {}))
    except Exception as error:  # h5py raises many kinds for a broken file
        raise InputError(f"{broken} ({error})") from error
    with file:
        try:
            yield tensors
        except OSError as error:  # a tensor that lies after the cut
            raise InputError(f"{broken} ({error})") from error


def read_tensors(path: Path) -> Mapping[str, Any]:
    """The tensors of a Hugging Face folder by name.

    `model.safetensors` or its shards are read or, if PyTorch is installed, `pytorch_model.bin` or its shards,
    without unpickling anything but tensors.

    Raises:
        InputError: there are no weights, or a file is missing, cut short or not what it claims to be.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / f"{name}.index.json").is_file():
            return _read_shards(path / f"{name}.index.json")
        if (path / name).is_file():
            return _read_file(path / name)
    raise InputError(f"{path} holds no weights: model.safetensors is needed.")


def _read_shards(index: Path) -> dict[str, Any]:
    names = read_settings(index).get("weight_map", dict)
    if not names:
        raise InputError(f"{index} names no tensors under weight_map.")
    tensors: dict[str, Any] = {}
    for shard in sorted({index.with_name(Path(str(shard)).name) for shard in names.values()}):
        if not shard.is_file():
            raise InputError(f"{shard.parent} holds no {shard.name}, which {index.name} names.")
        held = _read_file(shard)
        tensors |= {name: held[name] for name in held if names.get(name) == shard.name}
    if missing := sorted(names.keys() - tensors.keys())[:COMPLAINTS_NAMED]:
        raise InputError(f"{index} names tensors that no shard holds: {', '.join(missing)}.")
    return tensors


def _read_file(path: Path) -> dict[str, np.ndarray]:
    return _read_torch(path) if path.suffix == ".bin" else read_safetensors(path)[0]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file, and its metadata. Raises InputError if it is missing or no safetensors."""
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except Exception as error:  # besides its own error, safetensors lets NumPy's through
        raise InputError(f"{path} cannot be read as safetensors, is it cut short? ({error})") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = needed("torch", f"Reading {path}", instead="save the model as model.safetensors")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        short = {name: tensor.float() for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16}
        return {str(name): tensor.numpy() for name, tensor in (tensors | short).items()}
    except Exception as error:  # torch.load raises many kinds for a broken or unsafe file
        raise InputError(f"{path} cannot be read as PyTorch weights: {error}") from error
