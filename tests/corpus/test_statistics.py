"""What is usual in a corpus, written and read back."""

import numpy as np

import minqa
from minqa.corpus.statistics import demo_statistics, read_statistics, write_statistics


def test_statistics_are_kept_whole_and_for_what_they_are_of(tiny, tmp_path):
    statistics = minqa.calibrate(tiny, ["the theory of relativity", "world war"]).statistics
    path = tmp_path / "statistics.safetensors"
    write_statistics(path, statistics, "a")
    read = read_statistics(path, "a")
    assert (read.documents, read.frequency) == (2, statistics.frequency)
    for name in ("mean", "deviation", "baseline", "identical"):
        np.testing.assert_array_equal(getattr(read, name), getattr(statistics, name))
    assert read_statistics(path, "b") is None
    content = path.read_bytes()
    for spoilt in (content[:-1], b"", content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]):
        path.write_bytes(spoilt)
        assert read_statistics(path, "a") is None


def test_the_leads_statistics_are_made_once(tiny, tmp_path, leads, monkeypatch):
    made = demo_statistics(tiny, tmp_path)
    assert made.documents == 1024 and list(tmp_path.glob("statistics/*.safetensors"))
    monkeypatch.setattr("minqa.corpus.statistics.calibrate", None)
    assert demo_statistics(tiny, tmp_path).frequency == made.frequency
