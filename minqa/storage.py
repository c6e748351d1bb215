"""Files that are whole or absent, whose every byte is known, and that are read where they lie."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minqa.errors import InputError

# What describes a folder, and is written last.
RECORD = "shard.json"
PARTIAL = ".partial-"
REPLACED = ".replaced"
# Where a processor reads a vector at its fastest, and JAX takes it as it lies.
ALIGNMENT = 64


def publish(
    folder: Path, record: Mapping[str, Any], write: Callable[[Path], None], *, writer: int = 0
) -> dict[str, Any]:
    """Make a folder of files at once: written aside, synced to the disk, renamed.

    Stop at any moment, and it is whole or absent. One of that name is replaced.

    Args:
        folder: its name.
        record: what is to be said of it.
        write: writes files into the folder that it is given.
        writer: writers at the same time have different numbers.

    Returns:
        The record, and in it under "files" each file's size and SHA-256.

    Raises:
        InputError: it cannot be written.
    """
    partial = folder.with_name(f"{folder.name}{PARTIAL}{writer}")
    with writing(folder.parent):
        try:
            partial.mkdir(parents=True)
            write(partial)
            paths = sorted(partial.iterdir())
            files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in paths}
            record = {**record, "files": files}
            write_json(partial / RECORD, record)
            for path in [*paths, partial]:
                _sync(path)
            if folder.exists():
                replaced = folder.with_name(f"{folder.name}{REPLACED}{PARTIAL}{writer}")
                folder.rename(replaced)
                partial.rename(folder)
                shutil.rmtree(replaced)
            else:
                partial.rename(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return record


def clear(folder: Path, is_mine: Callable[[int], bool]) -> None:
    """Remove what writers that were killed left half-written, and put back what they were about to replace.

    Args:
        folder: that they published in.
        is_mine: whether a writer's number is nobody else's now.
    """
    for left in folder.glob(f"*{PARTIAL}[0-9]*"):
        name, _, writer = left.name.rpartition(PARTIAL)
        if is_mine(int(writer)):
            whole = left.with_name(name.removesuffix(REPLACED))
            if name.endswith(REPLACED) and not whole.exists():
                left.rename(whole)
            else:
                shutil.rmtree(left, ignore_errors=True)


def check_files(folder: Path, record: Mapping[str, Any], *, every_byte: bool) -> None:
    """Raise InputError, which names the file, where a published folder is not as it was written.

    Args:
        folder: as `publish` made it.
        record: as `publish` returned it, or `read_json` reads it from the folder.
        every_byte: whether to read the files, and not only to look at their sizes.
    """
    for name, known in record["files"].items():
        path = folder / name
        try:
            same = path.stat().st_size == known["bytes"] and (
                not every_byte or digest(path) == known["sha256"]
            )
        except FileNotFoundError:
            same = False
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        if not same:
            raise InputError(
                f"{path} is missing, or is not what was written, by its checksum or size; the same `minqa "
                "index` makes it anew."
            )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object with a checksum of itself; whole, or what was there stays."""
    described = {**content, "checksum": _checksum(content)}
    write_file(path, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def read_json(path: Path, *, version: int) -> dict[str, Any]:
    """What `write_json` wrote, of this version or an earlier one.

    Raises:
        InputError: it is missing, or was edited since, or is of a later version.
    """
    try:
        content = json.loads(path.read_bytes())
        found, known = content["version"], content.pop("checksum")
        if found > version:
            raise InputError(
                f"{path} is of version {found}, and this minqa reads up to {version}: update minqa."
            )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except InputError:
        raise
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise InputError(f"{path} is broken: it is no JSON object with a version and a checksum.") from None
    if known != _checksum(content):
        raise InputError(
            f"{path} was edited by hand, or is broken: its checksum does not fit. Put the original back."
        )
    return content


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there. Raises OSError where that fails."""
    with aside(path) as place:
        place.write_bytes(content)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder, which takes the name `path` when it is done, or is removed."""
    place = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield place
        _sync(place)
        place.replace(path)
        _sync(path.parent)
    finally:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as safetensors; the first of them begins at a multiple of `ALIGNMENT` bytes."""
    content = memoryview(save(arrays))
    start = 8 + int.from_bytes(content[:8], "little")
    filled = -(-start // ALIGNMENT) * ALIGNMENT
    header = bytes(content[8:start]).ljust(filled - 8)  # spaces behind it belong to the format
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(content[start:])


def map_array(path: Path, name: str) -> np.memmap:
    """A float32 array of a safetensors file, memory-mapped. Raises InputError where it cannot be."""
    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
            described = json.loads(file.read(header))[name]
        kind = {"F32": np.float32}[described["dtype"]]
        start = 8 + header + described["data_offsets"][0]
        return np.memmap(path, kind, "r", start, tuple(described["shape"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def open_arrays(path: Path) -> Any:
    """A safetensors file, to read arrays or slices of them. Raises InputError where it cannot be read."""
    try:
        return safe_open(path, "numpy")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from None


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(folder: Path) -> None:
    """Make the folder and try it. Raises InputError where nothing can be written to it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or name another folder."
        ) from error


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
