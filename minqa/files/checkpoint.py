"""Files of a model → its settings and its parameters, strictly: every parameter once, nothing unknown."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from minqa.text import InputError

Model = TypeVar("Model")
Value = TypeVar("Value")
Shape = tuple[int, ...]
# An error names so many complaints, and how many more there are.
COMPLAINTS_NAMED = 3
# What a setting of a type is called.
KINDS = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object", list: "a list"}


class Settings(NamedTuple):
    """A JSON object and the file that it stands in."""

    place: Path
    values: Mapping[str, Any]

    def get(self, key: str, kind: type[Value]) -> Value | None:
        """The setting; None if it is absent or null. Raises InputError if it is of another type."""
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise InputError(f"{self.place}: {key} is {value!r}, but {KINDS[kind]} is needed.")
        return value


def read_settings(path: Path, *, optional: bool = False) -> Settings:
    """The object in a JSON file, or an empty one if the file is `optional` and missing; see `read_json`."""
    return Settings(path, {} if optional and not path.is_file() else read_json(path, dict))


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


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, without its full stop."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")


class Check(NamedTuple):
    """What a setting must be: its key ("a.b" is b in a), whether a value will do, what to say if it will not.

    An absent setting means the default, which will do; ... if it must be there.
    """

    key: str
    valid: Callable[[Any], bool]
    needed: str
    default: Any = ...


def typed(key: str, kind: type, default: Any = ...) -> Check:
    return Check(key, lambda value: type(value) is kind, f"must be {KINDS[kind]}", default)


def whole(key: str, low: int = 1, high: int = 2**63, default: Any = ...) -> Check:
    needed = f"must be a whole number {f'from {low} to {high}' if high < 2**63 else f'above {low - 1}'}"
    return Check(key, lambda value: type(value) is int and low <= value <= high, needed, default)


def number(key: str, low: float, high: float, default: Any = ...) -> Check:
    needed = f"must be a number from {low:g} to below {high:g}"
    return Check(key, lambda value: type(value) in (int, float) and low <= value < high, needed, default)


def only(key: str, value: Any, *same: Any) -> Check:
    return Check(key, lambda given: given in (value, *same), f"only {value!r} is supported", value)


def one_of(key: str, values: Sequence[str], default: Any = ...) -> Check:
    return Check(key, values.__contains__, f"only {', '.join(map(repr, values))} are supported", default)


def checked(settings: Settings, checks: Mapping[str, Check], kind: str) -> dict[str, Any]:
    """Settings by their names in `checks`. Raises InputError, which names every setting that will not do."""
    values, complaints = {}, []
    for name, check in checks.items():
        value: Any = settings.values
        for part in check.key.split("."):
            value = value.get(part, check.default) if isinstance(value, Mapping) else check.default
        values[name] = value
        if value is ...:
            complaints.append(f"{check.key} is missing")
        elif value is not check.default and not check.valid(value):
            complaints.append(f"{check.key} is {value!r}, but {check.needed}")
    if complaints:
        model = f"{settings.place} describes no {kind} that minqa can represent"
        raise InputError(f"{model}: {'; '.join(complaints)}.")
    return values


class Layout(NamedTuple):
    """How a parameter is stored: its shape in the file, and how it, or its rows, are read and written."""

    shape: Callable[[Shape], Shape]
    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


AS_IS = Layout(lambda shape: shape, lambda tensor: tensor, lambda parameter: parameter)
TRANSPOSED = Layout(lambda shape: shape[::-1], np.transpose, np.transpose)
# A parameter's path in its model, without numbers → its tensor's name, with {} for each number, and layout.
Names = Mapping[str, tuple[str, Layout]]


def load_parameters(
    make: Callable[..., Model],
    tensors: Mapping[str, Any],
    names: Names | None = None,
    *,
    settings: str,
    older_names: Mapping[str, str] | None = None,
    unused: str = "(?!)",
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Model:
    """A model with the parameters of a checkpoint. No tensor is read before all of them fit.

    Args:
        make: makes the model, given `rngs`; none of it is computed.
        tensors: by name, with shapes and dtypes.
        names: of the tensors; None if they are stored as they are, under the parameters' own paths.
        settings: the file that tells the model's sizes, to be named in errors.
        older_names: pattern → replacement, applied to the names in the file.
        unused: pattern of the tensors that the model has no use for.
        dtype: of the parameters.

    Raises:
        InputError: a tensor is missing, doubled, unknown, misshapen, not finite or no floating point.
    """
    complaints: list[str] = []
    sources: dict[str, str] = {}  # name → name in the file
    for source in tensors:
        name = source
        for pattern, replacement in (older_names or {}).items():
            name = re.sub(pattern, replacement, name)
        if name in sources:
            complaints.append(f"{source} and {sources[name]} are the same parameter")
        sources[name] = source
    template = jax.eval_shape(lambda: make(rngs=_OneKey(0)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    parameters = [(*_tensor(path, names), leaf.shape) for path, leaf in leaves]
    wanted = {name: layout.shape(shape) for name, layout, shape in parameters}
    for name, shape in wanted.items():
        tensor = tensors[sources[name]] if name in sources else None
        if tensor is None:
            complaints.append(f"{name} is missing")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            complaints.append(f"{name} is {tensor.dtype}, which is no floating point")
        elif tensor.shape != shape:
            complaints.append(f"{name} has shape {tensor.shape} instead of {shape}")
    unknown = [name for name in sources if name not in wanted and not re.match(unused, name)]
    complaints += [f"{sources[name]} is unknown" for name in unknown]
    _refuse(complaints, settings)

    arrays = []
    for name, layout, _ in parameters:
        with np.errstate(over="ignore"):
            tensor = np.asarray(tensors[sources[name]]).astype(dtype, copy=False)
        if not np.isfinite(tensor).all():
            complaints.append(f"{name} holds numbers that are not finite")
        arrays.append(jax.device_put(layout.read(tensor)))  # jnp.asarray would compile one program per shape
    _refuse(complaints, settings)
    return jax.tree.unflatten(structure, arrays)


class _OneKey(nnx.Rngs):
    """One key for all parameters: nothing is drawn with it, and to trace new ones took half of loading."""

    def params(self):
        return self.default.key[...]


def dump(model: Any, names: Names | None = None) -> dict[str, np.ndarray]:
    """Parameters as `load_parameters` reads them; those that share a tensor are its rows, in order."""
    tensors: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        name, layout = _tensor(path, names)
        tensors.setdefault(name, []).append(layout.write(np.asarray(leaf)))
    return {
        name: np.concatenate(rows) if rows[1:] else np.array(rows[0], order="C")
        for name, rows in tensors.items()
    }


def _tensor(path: tuple, names: Names | None) -> tuple[str, Layout]:
    """The name and the layout of the tensor that holds a parameter, given the parameter's path."""
    # Without its end, an nnx.Param's `value`.
    place = jax.tree_util.keystr(path[:-1], simple=True, separator=".")
    if names is None:
        return place, AS_IS
    name, layout = names[re.sub(r"\.\d+", "", place)]
    return name.format(*re.findall(r"\.(\d+)", place)), layout


def _refuse(complaints: list[str], settings: str) -> None:
    if complaints:
        more = len(complaints) - COMPLAINTS_NAMED
        named = complaints[:COMPLAINTS_NAMED] + [f"and {more:,} more complaints"] * (more > 0)
        raise InputError(f"The weights do not fit {settings}: {'; '.join(named)}.")
