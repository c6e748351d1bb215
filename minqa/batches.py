"""Texts → batches of few shapes → what a model makes of them, text by text."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from minqa.devices import by_device, lay_out
from minqa.tokens import TextTokenizer, Tokens

# Tokens of a row that texts share, unless one is longer: each is compared with all of its row, so that wider
# rows are slower on CPU. A row that is alone may be as short as the second number.
ROW_TOKENS, MIN_ROW_TOKENS = 256, 64
MAX_SEGMENTS = 64  # in a row
# Tokens of a batch on each device, for a model that does not say what keeps it fastest.
BATCH_TOKENS = {"cpu": 512, "accelerator": 16384}
# Batches handed to the devices before the first result is waited for, so that they work while Python does.
BATCHES_AHEAD = 8


class Window(NamedTuple):
    """So many tokens of a text that the model reads at once."""

    length: int
    text: int
    number: int  # in its text


class Batch(NamedTuple):
    """Windows of texts in rows of one length: one in each or, if the model `packs`, several."""

    ids: Int[Array | np.ndarray, "row token ..."]
    # The number of a window in its row, from 1, and 0 for padding; negative where others do not attend.
    segments: Int[Array | np.ndarray, "row token"]
    types: Int[Array | np.ndarray, "row token"]  # 0, or 1 in the second text of a pair
    positions: Int[Array | np.ndarray, "row token"]  # in the window, from 0
    pooled: Int[Array | np.ndarray, "row token"]  # the window's number, or 0 for what is not pooled

    @property
    def mask(self) -> Bool[Array | np.ndarray, "row token"]:
        """True for real tokens."""
        return self.segments != 0


def by_text(
    model: Callable,
    tokenizer: TextTokenizer,
    tokens: Sequence[Tokens],
    run: Callable[[Any, Batch], tuple[Any, Any]],
    *,
    include_prompt: bool = True,
    mesh: Mesh | None = None,
) -> Iterator[tuple[int, tuple[Float[np.ndarray, "layer token ..."], Any]]]:
    """Run something on all windows of texts, batch by batch, longest first.

    `run(model, batch)` returns states [layer, row, token, ...] and pooled vectors [row, segment, dim], or
    None. As a text is done, its number and its result are yielded: its windows' states, joined, and its
    pooled vector. The rows of a batch lie over all devices of the mesh; None is those of this process.
    """
    mesh = mesh or Mesh(np.array(jax.local_devices()), ("batch",))
    batches, waiting = cut(model, tokenizer, tokens, mesh.size), deque[Any]()
    parts: dict[int, dict[int, tuple]] = {}
    while (batch := next(batches, None)) or waiting:
        if batch:
            rows, shape = batch
            inputs = lay_out(model, as_batch(tokens, rows, shape, include_prompt), mesh)
            waiting.append((rows, run(*inputs)))
            if len(waiting) <= BATCHES_AHEAD:
                continue
        rows, (states, pooled) = waiting.popleft()
        states, pooled = np.asarray(states), pooled if pooled is None else np.asarray(pooled)
        for i, row in enumerate(rows):
            end = 0
            for segment, (length, text, number) in enumerate(row):
                windows, done = tokens[text].windows, parts.setdefault(text, {})
                start, end = end, end + length
                done[number] = states[:, i, start:end], pooled if pooled is None else pooled[i, segment]
                if len(done) == len(windows):
                    joined = np.concatenate([done[window][0] for window in range(len(windows))], axis=1)
                    yield text, (joined, parts.pop(text)[tokens[text].pooled_window][1])


def cut(
    model: Callable, tokenizer: TextTokenizer, tokens: Sequence[Tokens], devices: int
) -> Iterator[tuple[list[list[Window]], tuple[int, int]]]:
    """Rows of windows in batches, and the shape [row, token] of each: one of few, as each is compiled."""
    several, budget = packs(model), by_device(**getattr(model, "BATCH_TOKENS", BATCH_TOKENS))
    rows, start = [*pack(tokens, several)], 0
    alone, step = len(rows) == 1, MIN_ROW_TOKENS if several else 16
    narrowest = ROW_TOKENS if several and not alone else 0  # so that the last row needs no shape of its own
    lengths = (sum(window.length for window in row) for row in reversed(rows))
    longest = [*accumulate(lengths, max)][::-1]  # of each row and those after it
    while (left := len(rows) - start) > 0:
        width = max(narrowest, padded_length(longest[start], steps=4, least=step))
        width = width if several else min(width, tokenizer.max_tokens)
        # A device's rows: a power of two, as each number is one more shape to compile, and two at least.
        share = min(max(1, budget // width), padded_length(-(-left // devices), steps=1, least=2))
        number = 1 if alone else devices * share
        yield rows[start : start + number], (number, width)
        start += number


def packs(model: Callable) -> bool:
    """Whether a model keeps several texts in a row apart, called with segments and positions as `Bert` is."""
    return getattr(model, "packs", False)


def pack(tokens: Sequence[Tokens], several: bool) -> Iterator[list[Window]]:
    """The windows in each row: the longest that is left and, if several may share it, what still fits."""
    windows = ((i, j, length) for i, text in enumerate(tokens) for j, length in enumerate(text.windows))
    left = sorted(Window(length, i, j) for i, j, length in windows)
    while left:
        row = [left.pop()]
        room = max(ROW_TOKENS, padded_length(row[0].length, steps=4, least=MIN_ROW_TOKENS)) - row[0].length
        while several and len(row) < MAX_SEGMENTS and (fitting := bisect_right(left, (room + 1,))):
            row.append(left.pop(fitting - 1))
            room -= row[-1].length
        yield row


def as_batch(
    tokens: Sequence[Tokens],
    rows: Sequence[Sequence[Window]] | None = None,
    shape: tuple[int, int] | None = None,
    include_prompt: bool = True,
) -> Batch:
    """Rows of windows as arrays [row, token], padded with zeros; None is the first window of each text."""
    rows = rows or [[Window(text.windows[0], i, 0)] for i, text in enumerate(tokens)]
    shape = shape or (len(rows), max(padded_length(row[0].length, steps=4) for row in rows))
    ids = np.zeros((*shape, *tokens[0].ids.shape[1:]), np.int32)
    batch = Batch(ids, *np.zeros((4, *shape), np.int32))
    for i, row in enumerate(rows):
        end = 0
        for segment, (length, text, number) in enumerate(row, 1):
            start, end, read = end, end + length, tokens[text]
            before = sum(read.windows[:number])
            batch.ids[i, start:end] = read.ids[before : before + length]
            batch.types[i, start:end] = read.types[before : before + length]
            seen = True if read.attended is None else read.attended[before : before + length]
            batch.segments[i, start:end] = np.where(seen, segment, -segment)
            batch.positions[i, start:end] = np.arange(length)
            batch.pooled[i, start if include_prompt or number else start + read.prompt_tokens : end] = segment
    return batch


def run_model(model: Callable, batch: Batch, **wanted: Any) -> Any:
    """Call a model. It is compiled here, whole, unless it compiles itself, as `Bert` does layer by layer."""
    call = type(model).__call__ if getattr(model, "compiles_itself", False) else _call
    arrays = batch[:4] if packs(model) else (batch.ids, batch.mask)
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits unless asked
        return call(model, *arrays, **wanted)


@partial(jax.jit, static_argnames=("attention", "units"))
def _call(model, *arrays, **wanted):
    return model(*arrays, **wanted)


def padded_length(length: int, steps: int = 8, least: int = 16) -> int:
    """The length to pad to, one of few: a multiple of 1/steps of the next power of two, and of `least`."""
    step = max(least, 2 ** (max(length, 1) - 1).bit_length() // steps)
    return -(-max(length, 1) // step) * step


def pad(array: np.ndarray, *lengths: int) -> np.ndarray:
    """The array, its first axes padded with zeros to these lengths."""
    return pad_all([array], *lengths)[0]


def pad_all(arrays: Sequence[np.ndarray], *lengths: int, value: float = 0) -> np.ndarray:
    """Arrays of several sizes as one, their first axes padded to these lengths."""
    padded = np.full((len(arrays), *lengths, *arrays[0].shape[len(lengths) :]), value, arrays[0].dtype)
    for place, array in zip(padded, arrays, strict=True):
        place[tuple(map(slice, array.shape))] = array
    return padded
