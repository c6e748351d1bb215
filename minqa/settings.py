"""JSON files beside a model → settings of the type that they should have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from minqa.errors import InputError

Value = TypeVar("Value")


class Settings(NamedTuple):
    """An object of a JSON file, and where it stood.

    Attributes:
        place: the file, to be named in errors.
        values: its content.
    """

    place: Path
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[Value]) -> Value | None:
        """The setting, None where it is absent or null. Raises InputError where it is of another type."""
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise InputError(f"{self.place}: {key} is {value!r}, but {_NAMES[kind]} is needed.")
        return value


_NAMES = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object"}


def read_settings(path: Path, *, optional: bool = False) -> Settings:
    """The settings in a JSON file; none, where the file is `optional` and missing.

    Raises:
        InputError: the file is missing, unreadable, or holds no object.
    """
    if optional and not path.is_file():
        return Settings(path, {})
    return Settings(path, read_json(path, dict))


def read_json(path: Path, kind: type[Value]) -> Value:
    """The content of a JSON file, which must be an object (kind `dict`) or an array (`list`).

    Raises:
        InputError: the file is missing, unreadable, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, kind):
        raise InputError(f"{path} holds no JSON {'object' if kind is dict else 'array'}.")
    return content
