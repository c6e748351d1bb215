"""A condition on a corpus's columns, such as `year >= 1990 and lang == "en"` → the passages that meet it."""

import ast
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Int

from minqa.corpus.shards import Shard
from minqa.files.extras import needed
from minqa.text import InputError

_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip

# What passages have beside the corpus's further columns; "" where there is none.
TITLES = {"title", "section"}


def rows_where(condition: str, shards: Sequence[Shard]) -> list[Int[np.ndarray, " row"]]:
    """The rows of each shard that meet a condition: comparisons of columns, as Python writes them.

    Columns are the corpus's further ones, title and section. An article without a column, or with nothing in
    it, meets neither a comparison of it nor the opposite; it meets `year is None`. A shard in which a number
    would be compared with text has no row that meets the condition.

    Raises:
        InputError: the condition cannot be read, names a column that no shard has, or compares a number with
            text in every shard.
    """
    try:
        tree = ast.parse(condition.strip(), mode="eval").body
        expression = _expression(tree)
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError):
        example = 'year >= 1990 and lang == "en", or year is None'
        told = " ".join(condition.split())
        raise InputError(f"The condition {told} cannot be read: write one as {example}.") from None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = sorted({*TITLES, *(name for shard in shards for name in shard.columns)})
    if missing := sorted(names - {*known}):
        others = f"there are {', '.join(known)}"
        raise InputError(f"There is no column {missing[0]}: {others}; a text stands in quotes.")
    rows = [_rows(shard, names, expression) for shard in shards]
    if all(matching is None for matching in rows):
        raise InputError(f"{condition.strip()} compares what cannot be compared, such as a number with text.")
    return [np.zeros(0, np.int64) if matching is None else matching for matching in rows]


def _rows(shard: Shard, names: set[str], expression: Any) -> Int[np.ndarray, " row"] | None:
    """The rows of a shard that meet a condition; None if its columns cannot be compared so."""
    pyarrow = needed("pyarrow", "Reading an index", "corpus")
    compute = needed("pyarrow.compute", "Reading an index", "corpus")
    known = names & {*TITLES, *shard.columns}
    table = shard.read(lambda file: file.read(columns=[*known]))
    columns = {name: table[name] if name in known else pyarrow.nulls(shard.passages) for name in names}
    for name in names & TITLES:
        columns[name] = compute.if_else(compute.not_equal(columns[name], ""), columns[name], None)
    columns["minqa row"] = np.arange(shard.passages)
    try:
        return pyarrow.table(columns).filter(expression)["minqa row"].to_numpy()
    except pyarrow.ArrowException:
        return None


def _expression(node: ast.expr) -> Any:
    """A condition as pyarrow computes it. Raises ValueError if it is something else."""
    match node:
        case ast.BoolOp(op=op, values=values):
            return reduce(
                operator.and_ if isinstance(op, ast.And) else operator.or_, map(_expression, values)
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_expression(operand)
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[values]):
            if not isinstance(values, ast.List | ast.Tuple | ast.Set) or not values.elts:
                raise ValueError("in a list of values is meant")
            found = reduce(operator.or_, [_side(left) == _side(value) for value in values.elts])
            return found if isinstance(op, ast.In) else ~found
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot() as op], comparators=[ast.Constant(None)]):
            missing = _side(left).is_null()
            return missing if isinstance(op, ast.Is) else ~missing
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            sides = [*map(_side, (left, *others))]
            pairs = zip(ops, sides[:-1], sides[1:], strict=True)
            return reduce(operator.and_, [_COMPARE[type(op)](one, other) for op, one, other in pairs])
    raise ValueError(f"{ast.unparse(node)} compares nothing")


def _side(node: ast.expr) -> Any:
    """A column, or a value that it is compared with."""
    compute = needed("pyarrow.compute", "Reading an index", "corpus")
    if isinstance(node, ast.Name):
        return compute.field(node.id)
    if (value := ast.literal_eval(node)) is None:  # to which nothing compares
        raise ValueError("`is None` is meant")
    return compute.scalar(value)
