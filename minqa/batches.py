"""Texts → batches of few shapes → what a model makes of them, text by text."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from minqa.devices import by_device, lay_out, local_mesh
from minqa.tokens import TextTokenizer, Tokens

# Tokens of a row that texts share, unless one is longer: each is compared with all of its row, so that wider
# rows are slower on CPU. A row that is alone may be as short as the second number.
ROW_TOKENS, MIN_ROW_TOKENS = 256, 64
MAX_SEGMENTS = 64  # in a row
# Rows of a batch on each device, for a model that does not say what keeps it fastest.
BATCH_ROWS = {"cpu": 8, "accelerator": 64}
# Batches handed to the devices before the first result is waited for, so that they work while Python does.
BATCHES_AHEAD = 8
Window: TypeAlias = tuple[int, int]  # the number of a text, and of one of its windows


class Batch(NamedTuple):
    """Windows of texts in rows of one length: one in each or, if the model `packs`, several."""

    ids: Int[Array | np.ndarray, "row token ..."]
    segments: Int[Array | np.ndarray, "row token"]  # the number of a window in its row, from 1; 0 for padding
    types: Int[Array | np.ndarray, "row token"]  # 0, or 1 in the second text of a pair
    positions: Int[Array | np.ndarray, "row token"]  # in the window, from 0
    pooled: Int[Array | np.ndarray, "row token"]  # `segments`, with 0 for what is not pooled

    @property
    def mask(self) -> Bool[Array | np.ndarray, "row token"]:
        """True for real tokens."""
        return self.segments > 0


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
    mesh = mesh or local_mesh()
    number = mesh.size * by_device(**getattr(model, "BATCH_ROWS", BATCH_ROWS))
    most = None if packs(model) else tokenizer.max_tokens
    rows, waiting = pack(tokens, packs(model)), deque[Any]()
    parts: dict[int, dict[int, tuple]] = {}
    while (batch := list(islice(rows, number))) or waiting:
        if batch:
            arrays = as_batch(tokens, batch, number, most, include_prompt)
            # A row alone has one device to itself.
            waiting.append(
                (batch, run(*((model, arrays) if len(batch) == 1 else lay_out(model, arrays, mesh))))
            )
            if len(waiting) <= BATCHES_AHEAD:
                continue
        batch, (states, pooled) = waiting.popleft()
        states, pooled = np.asarray(states), pooled if pooled is None else np.asarray(pooled)
        for i, row in enumerate(batch):
            end = 0
            for segment, (text, window) in enumerate(row):
                windows, done = tokens[text].windows, parts.setdefault(text, {})
                start, end = end, end + windows[window]
                done[window] = states[:, i, start:end], pooled if pooled is None else pooled[i, segment]
                if len(done) == len(windows):
                    joined = np.concatenate([done[window][0] for window in range(len(windows))], axis=1)
                    yield text, (joined, parts.pop(text)[tokens[text].pooled_window][1])


def packs(model: Callable) -> bool:
    """Whether a model keeps several texts in a row apart, called with segments and positions as `Bert` is."""
    return getattr(model, "packs", False)


def pack(tokens: Sequence[Tokens], several: bool) -> Iterator[list[Window]]:
    """The windows in each row: the longest that is left and, if several may share it, what still fits."""
    windows = ((i, window) for i, text in enumerate(tokens) for window in range(len(text.windows)))
    left = sorted((tokens[text].windows[window], text, window) for text, window in windows)
    while left:
        length, *window = left.pop()
        row, room = [tuple(window)], max(ROW_TOKENS, padded_length(length, steps=1)) - length
        while several and len(row) < MAX_SEGMENTS:
            if not (fitting := bisect_right(left, room, key=lambda item: item[0])):
                break
            length, *window = left.pop(fitting - 1)
            row, room = [*row, tuple(window)], room - length
        yield row


def as_batch(
    tokens: Sequence[Tokens],
    rows: Sequence[Sequence[Window]],
    number: int = 1,
    most: int | None = None,
    include_prompt: bool = True,
) -> Batch:
    """Rows of windows as arrays of few shapes: a row, or `number` of them, a power of two long or `most`."""
    longest = max(sum(tokens[text].windows[window] for text, window in row) for row in rows)
    width = (
        max(padded_length(longest, steps=1), MIN_ROW_TOKENS)
        if most is None
        else min(padded_length(longest, steps=1), most)
    )
    shape = number if len(rows) > 1 else 1, width
    ids = np.zeros((*shape, *tokens[0].ids.shape[1:]), np.int32)
    batch = Batch(ids, *np.zeros((4, *shape), np.int32))
    for i, row in enumerate(rows):
        end = 0
        for segment, (text, window) in enumerate(row, 1):
            read, length = tokens[text], tokens[text].windows[window]
            source = slice(sum(read.windows[:window]), sum(read.windows[:window]) + length)
            start, end = end, end + length
            batch.ids[i, start:end] = read.ids[source]
            batch.types[i, start:end] = read.types[source]
            batch.segments[i, start:end] = segment
            batch.positions[i, start:end] = np.arange(length)
            batch.pooled[i, start if include_prompt or window else start + read.prompt_tokens : end] = segment
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


def padded_length(length: int, steps: int = 8) -> int:
    """The length that arrays are padded to: a multiple of 1/steps of the next power of two, at least 16.

    Each is one more shape to compile: 16 up to 512 in 8 steps, 6 in 1 step.
    """
    step = max(16, 2 ** (max(length, 1) - 1).bit_length() // steps)
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
