"""Compiled code, kept from one process to the next."""

import warnings
from pathlib import Path

import jax


def cache(folder: str | Path) -> None:
    """Keep what JAX compiles in a folder, where a later process reads it; not if JAX has one already.

    Raises:
        OSError: the folder cannot be made.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
