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
from safetensors.numpy import save

from minqa.files import checkpoint
from minqa.text import InputError

# Describes a folder, and is written last.
RECORD = "shard.json"
PARTIAL = ".partial-"
REPLACED = ".replaced"
# A processor reads vectors fastest from such addresses, and JAX takes them without a copy.
ALIGNMENT_BYTES = 64


def publish(
    folder: Path, record: Mapping[str, Any], write: Callable[[Path], None], *, writer: int = 0
) -> dict[str, Any]:
    """Make a folder of files at once: written under another name, synced to the disk, renamed.

    It is whole or absent, whenever the process is stopped. A folder of that name is replaced.

    Args:
        folder: its name.
        record: describes it; written, and returned, with each file's size and SHA-256 under "files".
        write: writes files into the folder that it is given.
        writer: different for each of several writers at the same time.
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


def clear(folder: Path, is_free: Callable[[int], bool]) -> None:
    """Remove what killed writers left, if no other process has their number now.

    What they were about to replace is put back: a shard of fewer articles than others must stay one.
    """
    for left in folder.glob(f"*{PARTIAL}[0-9]*"):
        name, _, writer = left.name.rpartition(PARTIAL)
        if is_free(int(writer)):
            whole = left.with_name(name.removesuffix(REPLACED))
            if name.endswith(REPLACED) and not whole.exists():
                left.rename(whole)
            else:
                shutil.rmtree(left, ignore_errors=True)


def check_files(folder: Path, record: Mapping[str, Any], *, every_byte: bool) -> None:
    """Raise InputError, which names the file, where a published folder is not as its record says.

    Without `every_byte` only the sizes of its files are read.
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
                "index` makes it again."
            )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object with a checksum of itself; it is whole, or the file stays as it was."""
    described = {**content, "checksum": _checksum(content)}
    write_file(path, (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def read_json(path: Path, *, version: int) -> dict[str, Any]:
    """What `write_json` wrote. Raises InputError where it was edited since, or is of a later version."""
    content = checkpoint.read_json(path, dict)
    written, known = content.get("version"), content.pop("checksum", None)
    if type(written) is not int or known is None:
        raise InputError(f"{path} is broken: it is no JSON object with a version and a checksum.")
    if written > version:
        raise InputError(
            f"{path} is of version {written}, and this minqa reads up to {version}: update minqa."
        )
    if known != _checksum(content):
        raise InputError(
            f"{path} was edited by hand, or is broken: its checksum does not fit. Put the original back."
        )
    return content


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there. Raises OSError where that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as safetensors; the first begins at a multiple of `ALIGNMENT_BYTES`."""
    content = memoryview(save(arrays))
    start = 8 + int.from_bytes(content[:8], "little")
    aligned = -(-start // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    header = bytes(content[8:start]).ljust(aligned - 8)  # the format allows spaces after it
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(content[start:])


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, memory-mapped. Raises InputError where they cannot be."""
    kinds = {"F32": np.float32, "I8": np.int8, "U8": np.uint8, "I32": np.int32, "I64": np.int64}
    try:
        content = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(content[:8], "little")
        arrays = {}
        for name, described in json.loads(bytes(content[8:start])).items():
            first, end = described["data_offsets"]
            array = content[start + first : start + end].view(kinds[described["dtype"]])
            arrays[name] = array.reshape(described["shape"])
        return arrays
    except (OSError, ValueError, KeyError, TypeError) as error:
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
