"""A condition on a corpus's columns, such as `year >= 1990 and lang == "en"` → the passages that meet it."""

import ast
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Int

from minqa.corpus.shards import Shard
from minqa.files.checkpoint import first_line
from minqa.files.extras import needed
from minqa.text import InputError

_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def rows_where(condition: str, shards: Sequence[Shard]) -> list[Int[np.ndarray, " row"]]:
    """The rows of each shard that meet a condition: comparisons of columns, as Python writes them.

    A passage whose article has no such column, or nothing in it, does not meet it.

    Raises:
        InputError: the condition cannot be read, names a column that no shard has, or compares a number with
            text.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        expression = _expression(tree)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        example = 'year >= 1990 and lang == "en"'
        raise InputError(f"The condition {condition} cannot be read: write one as {example}.") from None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = {name for shard in shards for name in shard.columns}
    if missing := sorted(names - known):
        raise InputError(f"There is no column {missing[0]}: there are {', '.join(sorted(known))}.")
    return [_rows(shard, names, expression, condition) for shard in shards]


def _rows(shard: Shard, names: set[str], expression: Any, condition: str) -> Int[np.ndarray, " row"]:
    pyarrow = needed("pyarrow", "Reading an index", "corpus")
    if not names <= {*shard.columns}:
        return np.zeros(0, np.int64)
    table = shard.read(lambda file: file.read(columns=sorted(names)))
    table = table.append_column("minqa row", pyarrow.array(range(shard.passages), pyarrow.int64()))
    try:
        return table.filter(expression)["minqa row"].to_numpy()
    except pyarrow.ArrowException as error:
        raise InputError(f"{condition} cannot be compared: {first_line(error)}.") from None


def _expression(node: ast.expr) -> Any:
    """A condition as pyarrow computes it. Raises ValueError if it is something else."""
    compute = needed("pyarrow.compute", "Reading an index", "corpus")
    match node:
        case ast.BoolOp(op=op, values=values):
            return reduce(
                operator.and_ if isinstance(op, ast.And) else operator.or_, map(_expression, values)
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_expression(operand)
        case ast.Compare(left=ast.Name(id=name), ops=[ast.In()], comparators=[values]):
            return compute.field(name).isin(ast.literal_eval(values))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            sides = [
                compute.field(side.id)
                if isinstance(side, ast.Name)
                else compute.scalar(ast.literal_eval(side))
                for side in (left, *others)
            ]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            return reduce(operator.and_, [_COMPARE[type(op)](one, other) for op, one, other in pairs])
    raise ValueError(f"{ast.unparse(node)} compares nothing")
