"""Files that are whole or absent, and what is said where they cannot be written."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minqa.text import InputError


def write_file(path: Path, content: bytes | Callable[[BinaryIO], object] | None) -> None:
    """Write a file whole, from bytes or by a function that writes it; or leave what was there.

    None only tries whether it can be written.

    Raises:
        OSError: it cannot be written.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"  # several may write the same file
    partial = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        with open(partial, "wb") as file:
            if content is None:
                return
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        with suppress(PermissionError):  # Windows opens no folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one sentence that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or name another folder."
        ) from error
