"""Passages + encoder → vectors on disk, and back.

The vectors are a pure function of encoder and texts, and are kept as one: a shard holds the vectors of
`SHARD` passages in a file named by a hash of exactly that, the encoder and the texts. So what another model
made, or another version of this format, or an earlier state of a corpus, is never found, let alone mixed in.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from minqa.corpus import Passage
from minqa.embedding import embed_pooled
from minqa.encoder import Encoder
from minqa.errors import InputError

SHARD = 1024
# Part of every shard's name: raise it when what a shard holds changes.
VERSION = 1


class Index(NamedTuple):
    """What is known of a corpus, passage by passage.

    Attributes:
        vectors: float32 [passage, dim], pooled.
        truncated: bool [passage], whether the passage was longer than the model's maximum, so that its
            vector knows the beginning alone.
    """

    vectors: Float[np.ndarray, "passage dim"]
    truncated: Bool[np.ndarray, " passage"]


def read_index(encoder: Encoder, passages: Sequence[Passage], cache: Path) -> Index | None:
    """The index of the first passages, as many as are on disk without a gap; None where none are."""
    shards = []
    for path, texts in _shards(encoder, passages, cache):
        shard = _read(path, len(texts))
        if shard is None:
            break
        shards.append(shard)
    return _join(shards) if shards else None


def write_index(
    encoder: Encoder,
    passages: Sequence[Passage],
    cache: Path,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Index:
    """The index of all passages: what is not on disk yet is embedded and kept there.

    A shard is written aside and then renamed, so it is whole or absent: stop at any moment, call again, and
    it goes on behind the last whole shard. `progress` is called with the number of passages just done.

    Raises:
        InputError: the cache folder cannot be written.
    """
    shards = []
    for path, texts in _shards(encoder, passages, cache):
        shard = _read(path, len(texts))
        if shard is None:
            check_writable(path.parent)  # better told before the work than after it
            tokens = encoder.tokenize(texts, "passage")
            vectors = embed_pooled(encoder, tokens, progress=progress)
            shard = Index(vectors, np.array([one.truncated for one in tokens]))
            _write(path, shard)
        else:
            progress(len(texts))
        shards.append(shard)
    return _join(shards)


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


def _read(path: Path, size: int) -> Index | None:
    try:
        content = load_file(path)
        digest, shard = content.pop("digest"), Index(**content)
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return shard if len(shard.vectors) == size and np.array_equal(digest, _digest(shard)) else None


def _write(path: Path, shard: Index) -> None:
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with _writing(path.parent):
        try:
            with open(aside, "wb") as file:
                file.write(save(shard._asdict() | {"digest": _digest(shard)}))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _digest(shard: Index) -> np.ndarray:
    digest = hashlib.sha256(shard.vectors.tobytes() + shard.truncated.tobytes()).digest()
    return np.frombuffer(digest, np.uint8)


def _join(shards: Sequence[Index]) -> Index:
    return Index(*map(np.concatenate, zip(*shards, strict=True)))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The cache folder {folder} cannot be written ({error.strerror}): name another with --cache."
        ) from error
