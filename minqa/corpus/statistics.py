"""What is usual in a corpus → a file, and back."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from minqa.corpus.calibration import calibrate
from minqa.corpus.readers import demo_passages
from minqa.corpus.storage import write_file
from minqa.encoder import Encoder, Statistics

# The first passages of a corpus stand for all of it, but for the frequencies of words.
PASSAGES_SAMPLED = 1024
# Raised whenever `calibrate` gives other numbers, so that kept ones are made again.
CALIBRATION = 1
_ARRAYS = ("mean", "deviation", "baseline", "identical")


def demo_statistics(encoder: Encoder, cache: Path | None) -> Statistics:
    """What is usual in the first Wikipedia leads; kept in the cache, if there is one that can be written."""
    texts = [passage.text for passage in demo_passages()[:PASSAGES_SAMPLED]]
    source = hashlib.sha256("\n".join([encoder.fingerprint, *texts]).encode()).hexdigest()
    path = cache / "statistics" / f"{source[:32]}.safetensors" if cache else None
    statistics = read_statistics(path, source) if path else None
    if statistics is None:
        statistics = calibrate(encoder, texts).statistics
        assert statistics is not None
        if path:
            with suppress(OSError):  # it is made again the next time
                path.parent.mkdir(parents=True, exist_ok=True)
                write_statistics(path, statistics, source)
    return statistics


def write_statistics(path: Path, statistics: Statistics, source: str) -> None:
    """Keep statistics, and that they were made from `source`, a hash. Raises OSError where that fails."""
    arrays = {
        "documents": np.array(statistics.documents),
        **{name: getattr(statistics, name) for name in _ARRAYS},
        "words": np.frombuffer("\n".join(statistics.frequency).encode("utf-8"), np.uint8),
        "counts": np.array([*statistics.frequency.values()], np.int32),
    }
    write_file(path, save({**arrays, "digest": _digest(arrays, source)}))


def read_statistics(path: Path, source: str) -> Statistics | None:
    """What `write_statistics` kept; None if it is missing, broken, or made from something else."""
    try:
        arrays = load_file(path)
        if not np.array_equal(arrays.pop("digest"), _digest(arrays, source)):
            return None
        words = arrays["words"].tobytes().decode("utf-8").split("\n")  # no word holds a line feed
        frequency = dict(zip(words, arrays["counts"].tolist(), strict=False))
        return Statistics(int(arrays["documents"]), frequency, **{name: arrays[name] for name in _ARRAYS})
    except (OSError, SafetensorError, KeyError):
        return None


def _digest(arrays: Mapping[str, np.ndarray], source: str) -> np.ndarray:
    digest = hashlib.sha256(f"{CALIBRATION} {source}".encode())
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
