"""Passages + encoder → vectors and statistics on disk, and back.

The vectors are a pure function of encoder and texts, and are kept as one: a shard holds the vectors of
`SHARD` passages in a file named by a hash of exactly that, the encoder and the texts. So what another model
made, or another version of this format, or an earlier state of a corpus, is never found, let alone mixed in.
Statistics, and token vectors if they are stored, lie beside a shard, under its name.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from minqa.corpus import Passage, demo_passages
from minqa.embedding import embed_layers, embed_pooled
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.statistics import Statistics, frequencies
from minqa.survey import gather

SHARD = 1024
# Part of every shard's name: raise it when what a shard holds changes.
VERSION = 2
Arrays = Mapping[str, np.ndarray]
# A corpus of fewer passages does not tell what is usual, so the demo's statistics serve in its place.
FEW = 128


class TokenStore:
    """Token vectors of the last layer on disk, in 8 bits with a scale for each vector; read memory-mapped."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._files = files

    def __getitem__(self, row: int) -> Float[np.ndarray, "token dim"]:
        """The vectors of all tokens of a passage, special tokens included."""
        vectors, scales, ends = map(self._files[row // SHARD].get_slice, ("vectors", "scales", "ends"))
        start, end = (int(ends[i]) if i >= 0 else 0 for i in (row % SHARD - 1, row % SHARD))
        return vectors[start:end] * scales[start:end][:, None]


@dataclass(frozen=True)
class Index:
    """What is known of the first passages of a corpus.

    Attributes:
        vectors: float32 [passage, dim], pooled.
        truncated: bool [passage], whether the passage is longer than the model's maximum, so that its pooled
            vector knows the beginning alone.
        statistics: what is usual in the corpus.
        tokens: the token vectors of each passage, where they are stored.
    """

    vectors: Float[np.ndarray, "passage dim"]
    truncated: Bool[np.ndarray, " passage"]
    statistics: Statistics
    tokens: TokenStore | None = None


def read_index(encoder: Encoder, passages: Sequence[Passage], cache: Path) -> Index | None:
    """The index of the first passages, as many as are on disk without a gap; None where none are."""
    found = []
    for path, texts in _shards(encoder, passages, cache):
        shard = _read(path, len(texts))
        if shard is None:
            break
        found.append((path, shard))
    return _join(encoder, passages, cache, found) if found else None


def write_index(
    encoder: Encoder,
    passages: Sequence[Passage],
    cache: Path,
    *,
    store_tokens: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Index:
    """The index of all passages: what is not on disk yet is embedded and kept there.

    A shard is written aside and then renamed, so it is whole or absent: stop at any moment, call again, and
    it goes on behind the last whole shard. `progress` is called with the number of passages just done.
    With `store_tokens` the vectors of all tokens are kept as well, at a byte for each of their dimensions.

    Raises:
        InputError: the cache folder cannot be written.
    """
    found = []
    for path, texts in _shards(encoder, passages, cache):
        shard = _read(path, len(texts))
        store = store_tokens and _open_tokens(path) is None
        if shard is not None and not store:
            progress(len(texts))
        else:
            check_writable(path.parent)  # better told before the work than after it
            tokens = encoder.tokenize(texts, "passage")
            if store:
                last = (encoder.model.num_layers,)
                hidden, vectors = embed_layers(encoder, tokens, last, progress=progress)
                _write(_tokens_path(path), compact([one[0] for one in hidden]))
                pooled = np.stack(vectors)
            else:
                pooled = embed_pooled(encoder, tokens, progress=progress)
            if shard is None:
                truncated = np.array([len(one.windows) > 1 for one in tokens])
                shard = {"vectors": pooled, "truncated": truncated, **_as_arrays(frequencies(tokens))}
                _write(path, shard)
        found.append((path, shard))
    return _join(encoder, passages, cache, found)


def demo_statistics(encoder: Encoder, cache: Path) -> Statistics:
    """What is usual in the first Wikipedia leads; made once and kept, if the cache can be written.

    Raises:
        InputError: the leads are not installed.
    """
    passages = demo_passages()[:SHARD]
    path, _ = next(_shards(encoder, passages, cache))
    return _statistics(encoder, passages, path)


def check_writable(folder: Path) -> None:
    """Make the folder and try it. Raises InputError where nothing can be written to it."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def _shards(encoder: Encoder, passages: Sequence[Passage], cache: Path) -> Iterator[tuple[Path, list[str]]]:
    folder = cache / "vectors" / f"{encoder.fingerprint[:16]}-v{VERSION}"
    for start in range(0, len(passages), SHARD):
        texts = [passage.text for passage in passages[start : start + SHARD]]
        name = hashlib.sha256(json.dumps([encoder.fingerprint, *texts]).encode()).hexdigest()
        yield folder / f"{name[:32]}.safetensors", texts


def _join(
    encoder: Encoder, passages: Sequence[Passage], cache: Path, found: Sequence[tuple[Path, Arrays]]
) -> Index:
    paths, shards = zip(*found, strict=True)
    vectors, truncated = (np.concatenate([one[name] for one in shards]) for name in ("vectors", "truncated"))
    try:
        few = demo_statistics(encoder, cache) if len(vectors) < FEW else None
    except InputError:  # without the demo a small corpus has to do
        few = None
    statistics = few or _statistics(encoder, passages[:SHARD], paths[0])
    if few is None and len(shards) > 1:
        frequency = sum((_as_counts(one) for one in shards), Counter())
        statistics = replace(statistics, documents=len(vectors), frequency=frequency)
    stored = [_open_tokens(path) for path in paths]
    return Index(vectors, truncated, statistics, None if None in stored else TokenStore(stored))


def _statistics(encoder: Encoder, passages: Sequence[Passage], shard: Path) -> Statistics:
    path = shard.with_suffix(".statistics.safetensors")
    arrays = _read(path, None)
    if arrays is None:
        statistics = gather(encoder, [passage.text for passage in passages])
        arrays = {
            "documents": np.array(statistics.documents),
            "mean": statistics.mean,
            "deviation": statistics.deviation,
            "unrelated": statistics.unrelated,
            **_as_arrays(statistics.frequency),
        }
        with suppress(InputError):  # another time will do
            check_writable(path.parent)
            _write(path, arrays)
    return Statistics(
        documents=int(arrays["documents"]),
        frequency=_as_counts(arrays),
        mean=arrays["mean"],
        deviation=arrays["deviation"],
        unrelated=arrays["unrelated"],
    )


def compact(vectors: Sequence[Float[np.ndarray, "_ dim"]]) -> Arrays:
    """What a `TokenStore` reads: all vectors as int8, the scale of each, and where each text's end."""
    joined = np.concatenate(vectors)
    scales = np.maximum(np.abs(joined).max(1), 1e-9) / 127
    return {
        "vectors": np.round(joined / scales[:, None]).astype(np.int8),
        "scales": scales.astype(np.float32),
        "ends": np.cumsum([len(one) for one in vectors]),
    }


def _as_arrays(frequency: Mapping[str, int]) -> Arrays:
    words = "\n".join(frequency).encode("utf-8")  # no word holds a line feed
    return {"words": np.frombuffer(words, np.uint8), "counts": np.array([*frequency.values()], np.int32)}


def _as_counts(arrays: Arrays) -> Counter[str]:
    words = arrays["words"].tobytes().decode("utf-8").split("\n")
    return Counter(dict(zip(words, arrays["counts"].tolist(), strict=False)))


def _tokens_path(shard: Path) -> Path:
    return shard.with_suffix(".tokens.safetensors")


def _open_tokens(shard: Path) -> Any:
    """The stored tokens of a shard, memory-mapped; None where there are none, or not all of them."""
    try:
        return safe_open(_tokens_path(shard), "numpy")
    except (OSError, SafetensorError):
        return None


def _read(path: Path, passages: int | None) -> Arrays | None:
    try:
        arrays = load_file(path)
        whole = np.array_equal(arrays.pop("digest"), _digest(arrays))
        whole = whole and passages in (None, len(arrays.get("vectors", ())))
    except (OSError, SafetensorError, KeyError):
        return None
    return arrays if whole else None


def _write(path: Path, arrays: Arrays) -> None:
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with _writing(path.parent):
        try:
            with open(aside, "wb") as file:
                file.write(save({**arrays, "digest": _digest(arrays)}))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _digest(arrays: Arrays) -> np.ndarray:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The cache folder {folder} cannot be written ({error.strerror}): name another with --cache."
        ) from error
