"""Packages that only corpora need."""

from importlib import import_module
from typing import Any

from minqa.text import InputError


def needed(module: str, purpose: str) -> Any:
    """Import a module of the extra `corpus`. Raises InputError, which begins with the purpose, without it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(f"{purpose} needs {package}: install it with `uv sync --extra corpus`.") from None
