"""Packages that not everybody installs."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minqa.text import InputError

# What packages call themselves, where it is not the name of their module.
NAMES = {"jinja2": "Jinja2", "matplotlib": "Matplotlib", "sklearn": "scikit-learn", "torch": "PyTorch"}
# What JAX needs for a kind of device, and the extra that installs it.
PLUGINS = {"jax_cuda12_plugin": "cuda12", "jax_cuda13_plugin": "cuda13", "libtpu": "tpu"}


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


def package_folder(name: str, instead: str) -> Path:
    """Where a package of the demo group keeps its data. Raises InputError if it is not installed."""
    # The packages are found but not imported: only their data is wanted.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        how = f"install it with `uv sync --group demo`, or name {instead}"
        raise InputError(f"The default needs the package {name.replace('_', '-')}: {how}.")
    return Path(spec.submodule_search_locations[0])


def check_accelerator() -> None:
    """Raise InputError if JAX is installed for an accelerator but uses the CPU, and nobody asked for that."""
    import jax

    extras = [extra for package, extra in PLUGINS.items() if find_spec(package)]
    is_meant = (getattr(jax.config, "jax_platforms", None) or "").startswith("cpu")
    if extras and not is_meant and jax.default_backend() == "cpu":
        raise InputError(
            f"minqa[{', '.join(extras)}] is installed, but JAX finds no such device and would use the CPU: "
            "look for the driver (nvidia-smi, tpu-info), or set JAX_PLATFORMS=cpu if you mean the CPU."
        )
