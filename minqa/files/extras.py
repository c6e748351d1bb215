"""Packages that not everybody installs."""

from importlib import import_module
from typing import Any

from minqa.text import InputError

# What packages call themselves, where it is not the name of their module.
NAMES = {"jinja2": "Jinja2", "matplotlib": "Matplotlib", "sklearn": "scikit-learn", "torch": "PyTorch"}


def needed(module: str, purpose: str, extra: str = "", *, instead: str = "") -> Any:
    """Import a module of an optional package, which an `extra` installs, if one is given.

    Raises InputError without it, which begins with the purpose and says what can be done `instead`.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        how = f"install it with `uv sync --extra {extra}`" if extra else "install it"
        how += f", or {instead}" if instead else ""
        raise InputError(f"{purpose} needs {NAMES.get(package, package)}: {how}.") from None
