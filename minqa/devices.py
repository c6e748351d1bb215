"""Sizes that depend on the kind of device."""

from typing import TypeVar

import jax

Size = TypeVar("Size")


def by_device(*, cpu: Size, accelerator: Size) -> Size:
    """The size for JAX's backend: a CPU wants what stays in its caches, an accelerator to be filled."""
    return cpu if jax.default_backend() == "cpu" else accelerator
