"""Packages that not everybody installs."""

from importlib import import_module
from typing import Any

from minqa.text import InputError

# What packages call themselves, where it is not the name of their module.
NAMES = {"jinja2": "Jinja2", "matplotlib": "Matplotlib", "sklearn": "scikit-learn", "torch": "PyTorch"}


def needed(module: str, purpose: str, extra: str = "", *, instead: str = "") -> Any:
    """Import a module of an optional package.

    Args:
        module: such as "sklearn.decomposition".
        purpose: what it is needed for, which begins the sentence if it is missing.
        extra: the extra that installs it, if there is one.
        instead: what else can be done.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        how = f"install it with `uv sync --extra {extra}`" if extra else "install it"
        how += f", or {instead}" if instead else ""
        raise InputError(f"{purpose} needs {NAMES.get(package, package)}: {how}.") from None
