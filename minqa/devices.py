"""Sizes that depend on the kind of device."""

import jax


def by_device(*, cpu: int, accelerator: int) -> int:
    """The size for JAX's backend: a CPU wants what stays in its caches, an accelerator to be filled."""
    return cpu if jax.default_backend() == "cpu" else accelerator
