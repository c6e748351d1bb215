"""The index: whole or absent, the same bytes however it came about, nothing of another model or corpus."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet as parquet
import pytest
from conftest import contents, corpus_of, indexed, make_bert_folder, passages_of

import minqa
from minqa.corpus import embedded as embedded_module
from minqa.corpus import index as index_module
from minqa.corpus import shards, storage, writer
from minqa.corpus.articles import Corpus
from minqa.corpus.index import DiskIndex, open_index
from minqa.corpus.readers import open_corpus
from minqa.corpus.statistics import demo_statistics
from minqa.corpus.writer import write_index, write_shard

TEXTS = [*(f"theory {letter}" for letter in "abcdefghi"), "war " * 99]
SHARDS = ["000000", "000001", "000002"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(writer, "ARTICLES_PER_SHARD", 4)
    monkeypatch.setattr(index_module, "MIN_PASSAGES_FOR_STATISTICS", 5)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


def flip(path, at=-9):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def shards_in(folder):
    return sorted(path.stem for path in folder.glob("*.parquet"))


def refused(sentence, call, *arguments, **options):
    with pytest.raises(minqa.InputError, match=sentence) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_what_is_written_is_read(tiny, out):
    done = []
    folder = write_index(tiny, corpus_of(TEXTS), out, progress=lambda *one: done.append(one))
    assert [shard.path.stem for shard in folder.shards] == SHARDS == shards_in(out)
    index = open_index(out, tiny)
    assert index.complete and index.token_vectors is None
    assert (
        list(index.passages[:9]) == passages_of(TEXTS[:9])
        and "".join(one.text for one in index.passages[9:]) == TEXTS[9]
    )
    assert index.passages[-1] == index.passages[len(index.passages) - 1]
    with pytest.raises(IndexError):
        index.passages[len(index.passages)]
    expected = minqa.pool(minqa.embed(tiny, [one.text for one in index.passages], role="passage"))
    np.testing.assert_allclose(np.concatenate(list(index.vectors)), expected, atol=1e-5)
    assert not any(part.flags.owndata or part.ctypes.data % 64 for part in index.vectors)
    texts = [{one.text for one in index.passages[start : start + 4]} for start in (0, 4, 8)]
    assert sum(number for number, _ in done) == sum(map(len, texts)), "equal texts of a shard count once"
    read = [part for _, part in done]
    assert read == sorted(read) and read[0] == 0 and read[-1] == 1
    scores, rows = minqa.match(expected[:3], index.vectors, k=5)
    other_scores, other_rows = minqa.match(expected[:3], np.concatenate(list(index.vectors)), k=5)
    np.testing.assert_array_equal(rows, other_rows)
    np.testing.assert_array_equal(scores, other_scores)


def test_nothing_is_embedded_twice(tiny, out, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    monkeypatch.setattr(embedded_module, "hidden_states", None)
    done = []
    write_index(tiny, corpus_of(TEXTS), out, progress=lambda *one: done.append(one))
    assert {number for number, _ in done} == {0} and done[-1] == (0, 1) and contents(out) == before


@pytest.mark.parametrize("moment", [1, 5, 9])
def test_an_interrupted_run_keeps_whole_shards_and_goes_on_to_the_same_bytes(tiny, out, tmp_path, moment):
    def interrupt(done, read, left=[moment]):  # noqa: B006
        left[0] -= done
        if left[0] <= 0:
            raise KeyboardInterrupt

    write_index(tiny, corpus_of(TEXTS), tmp_path / "undisturbed", store_tokens=True)
    with pytest.raises(KeyboardInterrupt):
        write_index(tiny, corpus_of(TEXTS), out, store_tokens=True, progress=interrupt)
    assert shards_in(out) == SHARDS[: (moment - 1) // 4]
    if moment > 4:
        assert not open_index(out, tiny).complete
    else:
        refused("is no index", open_index, out, tiny)
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_process_killed_again_and_again_loses_and_doubles_nothing(bert_folder, tmp_path):
    """Three times by force, each a moment later than a shard more is there; README has 20 at random."""
    texts = tmp_path / "corpus.txt"
    texts.write_text("\n".join(f"theory {i} " * (i % 9 + 1) for i in range(240)))
    program = """if True:
        import sys, minqa, pathlib
        model, texts, cache, out = map(pathlib.Path, sys.argv[1:])
        corpus = minqa.open_corpus(texts)
        minqa.write_index(minqa.load(model), corpus, out, articles_per_shard=8, cache=cache)
    """
    command = [sys.executable, "-c", program, bert_folder, texts, tmp_path / "cache"]
    subprocess.run([*command, tmp_path / "undisturbed"], check=True, capture_output=True)
    out = tmp_path / "killed"
    for kill in range(3):
        process = subprocess.Popen([*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(shards_in(out)) < 5 * kill and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.013 * kill)
        assert process.poll() is None, "it was still at work"
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = subprocess.run([*command, out], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(tmp_path / "undisturbed")
    folder = DiskIndex(out)
    assert len({one.id for one in folder.passages}) == len(folder.passages)
    assert (
        "".join(one.text for one in folder.passages if one.id.startswith("9:")) == ("theory 8 " * 9).strip()
    )


def test_a_full_disk_is_told_and_gone_on_from(tiny, out, tmp_path, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), tmp_path / "undisturbed")
    written = shards.write_file

    def full(path, content):
        if path.name == f"{SHARDS[1]}.parquet":
            written(path.with_name(f".{path.name}.1.tmp"), b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, content)

    monkeypatch.setattr(shards, "write_file", full)
    refused(
        r"cannot be written \(No space left on device\): make room", write_index, tiny, corpus_of(TEXTS), out
    )
    assert shards_in(out) == SHARDS[:1] and len(open_index(out, tiny).passages) == 4
    monkeypatch.setattr(shards, "write_file", written)
    write_index(tiny, corpus_of(TEXTS), out)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_of_two_writers_the_second_turns_to_the_next_shard(tiny, out, tmp_path):
    """One holds a shard, and is then killed: the other says so, goes on, and comes back for it."""
    program = """if True:
        import sys, time, filelock
        with filelock.FileLock(sys.argv[1]):
            print("held", flush=True)
            time.sleep(600)
    """
    out.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", program, out / ".000001.lock"], stdout=subprocess.PIPE, text=True
    )
    notes, seen = [], []

    def progress(done, read):
        seen.append(shards_in(out))
        if seen[-1] == [SHARDS[0], SHARDS[2]]:
            holder.send_signal(signal.SIGKILL)

    try:
        assert holder.stdout.readline() == "held\n"
        write_index(tiny, corpus_of(TEXTS), out, note=notes.append, progress=progress)
    finally:
        holder.kill()
        holder.wait()
    assert notes == [f"{out / SHARDS[1]}.parquet is being written by another process."]
    assert [SHARDS[0], SHARDS[2]] in seen
    write_index(tiny, corpus_of(TEXTS), tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed") and not list(out.glob("*.lock"))


def test_what_another_process_wrote_meanwhile_is_not_embedded_again(tiny, out):
    embedded = []

    def meanwhile(done, read):
        if not embedded:
            embedded.append(0)
            write_shard(tiny, corpus_of(TEXTS), out, 1)
        embedded[0] += done

    write_index(tiny, corpus_of(TEXTS), out, progress=meanwhile)
    assert embedded[0] < len(DiskIndex(out).passages) and open_index(out, tiny).complete


def test_writers_that_know_nothing_of_each_other_share_an_index(tiny, out, tmp_path):
    """Each shard is a function of its number, whoever writes it and when."""
    write_index(tiny, corpus_of(TEXTS), tmp_path / "undisturbed")
    write_index(tiny, corpus_of(TEXTS), out, shards=range(1, sys.maxsize, 2))
    assert shards_in(out) == SHARDS[1:2] and not DiskIndex(out).complete
    write_shard(tiny, corpus_of(TEXTS), out, 2)
    write_shard(tiny, corpus_of(TEXTS), out, 7)  # there is none
    assert shards_in(out) == SHARDS[1:]
    write_index(tiny, corpus_of(TEXTS), out, shards=range(0, 1))
    assert contents(out) == contents(tmp_path / "undisturbed")


class Killed(BaseException):
    """Ends a run where it stands."""


def killed_at(moment, monkeypatch, call):
    """Run until the moment-th time that something reaches the disk, and clean up nothing; was it reached?"""
    left = [moment]

    def counted(real):
        def reach(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **options)

        return reach

    def unless_killed(real):
        return lambda *arguments, **options: None if left[0] < 0 else real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", counted(os.fsync))
        patch.setattr(storage.Path, "replace", counted(storage.Path.replace))
        patch.setattr(storage.Path, "unlink", unless_killed(storage.Path.unlink))
        try:
            call()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("change", ["begun", "tokens", "grown"])
def test_at_whatever_moment_a_run_is_killed_it_goes_on_to_the_same_bytes(
    tiny, out, tmp_path, monkeypatch, change
):
    """Also where shards are replaced, to hold tokens too, or since the corpus has grown."""

    def begin(path):
        write_index(tiny, corpus_of(TEXTS[:6]), path)

    def go_on(path):
        write_index(tiny, corpus_of(TEXTS), path, store_tokens=change == "tokens")

    begin(tmp_path / "undisturbed")
    go_on(tmp_path / "undisturbed")
    expected, moment, killed = contents(tmp_path / "undisturbed"), 0, True
    while killed:
        folder = tmp_path / f"killed-{moment}"
        if change == "begun":
            killed = killed_at(moment, monkeypatch, lambda folder=folder: begin(folder))
            begin(folder)
        else:
            begin(folder)
            killed = killed_at(moment, monkeypatch, lambda folder=folder: go_on(folder))
        go_on(folder)
        if change == "grown":  # what was embedded with other texts than before has other rounding
            assert list(DiskIndex(folder).passages) == list(DiskIndex(tmp_path / "undisturbed").passages)
            for shard, other in zip(
                DiskIndex(folder).shards, DiskIndex(tmp_path / "undisturbed").shards, strict=True
            ):
                np.testing.assert_allclose(shard.vectors, other.vectors, atol=1e-5)
            DiskIndex(folder).check()
            assert contents(folder).keys() == expected.keys()
        else:
            assert contents(folder) == expected, moment
        moment += 1
    assert moment > 10


def remove(path):
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink()


def test_a_lost_shard_is_made_again(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    remove(out / SHARDS[1])
    assert not open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS), out)
    assert contents(out) == before


def test_what_readers_have_open_goes_on_while_a_shard_is_repaired(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    expected = [list(array[0]) for array in open_index(out, tiny).vectors]
    flip(out / f"{SHARDS[1]}.npy")
    index, seen = open_index(out, tiny), []

    def meanwhile(done, read):
        seen.append(len(list(index.passages)) + len(list(index.vectors)) + len(index.token_vectors[5]))

    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True, progress=meanwhile)
    assert len(set(seen)) == 1 and [list(array[0]) for array in index.vectors] == expected


def test_what_was_replaced_since_it_was_opened_is_told(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    index, opened = open_index(out, tiny), DiskIndex(out).shards[1]
    assert index.passages[4].text == "theory e"
    changed = [*TEXTS[:5], "theory x", "theory y", TEXTS[7], *TEXTS[8:]]
    write_index(tiny, corpus_of(changed), out)
    refused(
        "000001.parquet was written again since it was opened",
        lambda: open_index(out, tiny) and opened.column("text"),
    )
    changed = [*TEXTS[:4], "theory " * 99, *TEXTS[5:]]
    write_index(tiny, corpus_of(changed), out)
    refused("000001.npy was written again since it was opened", index.vectors.__getitem__, 1)


def test_leftovers_of_the_dead_are_removed(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    for path in out.glob("*1.*"):
        path.rename(out / f".{path.name}.99.tmp")
    write_index(tiny, corpus_of(TEXTS), out)
    assert contents(out) == before


def test_more_is_added_behind(tiny, out):
    write_index(tiny, corpus_of(TEXTS[:6]), out)
    assert open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS[:9]), out)  # the corpus has grown at its end
    spans = [(shard.record["first"], shard.record["stop"]) for shard in DiskIndex(out).shards]
    assert spans == [(0, 4), (4, 8), (8, 9)]
    write_index(tiny, corpus_of(["a war", "the war"], "other"), out)
    index = open_index(out, tiny)
    assert index.complete
    others = [one._replace(id=f"other/{one.id}") for one in passages_of(["a war", "the war"])]
    assert list(index.passages) == passages_of(TEXTS[:9]) + others, "ids that tell them apart"
    assert index.statistics.documents == 11 and index.statistics.frequency["war"] == 2
    assert {name: len(shards) for name, shards in DiskIndex(out).corpora.items()} == {"corpus": 3, "other": 1}
    write_index(tiny, corpus_of(TEXTS[:9]), out)
    assert len(open_index(out, tiny).passages) == 11
    write_index(tiny, corpus_of(["a war", "the war", "the world"], "other"), out)
    assert len(open_index(out, tiny).passages) == 12
    grown = corpus_of([*TEXTS[:9], *TEXTS[:4]])
    refused(
        "corpus has grown, and other stands after it in .*: index it into another",
        write_index,
        tiny,
        grown,
        out,
    )


def test_a_second_corpus_waits_for_the_first(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out, shards=[0])
    other = (write_index, tiny, corpus_of(["a war"], "other"), out)
    refused("corpus is not whole in .*: `minqa index` it to its end before", *other)
    write_index(tiny, corpus_of(TEXTS), out)
    write_index(*other[1:])
    path = out / "000003.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    refused(
        "000003.parquet .*makes it again. Do that first, or remove the file",
        write_index,
        tiny,
        corpus_of(["x"], "third"),
        out,
    )
    refused("000003.parquet .* is broken", open_index, out, tiny)
    remove(path)
    write_index(*other[1:])
    assert open_index(out, tiny).complete and shards_in(out) == [*SHARDS, "000003"]


@pytest.mark.parametrize(
    ("changed", "written", "embedded"),
    [
        ([*TEXTS[:5], "a new theory", *TEXTS[6:]], ["000001"], ["a new theory"]),
        ([*TEXTS[:9]], ["000002"], []),
        (TEXTS[:8], ["000001"], []),  # it ends there now
        (TEXTS[:3], ["000000"], []),
        ([*TEXTS[:4], *TEXTS[5:]], ["000001", "000002"], ["theory i"]),
        (["new", *TEXTS], SHARDS, ["new", "theory d", "theory h"]),
    ],
)
def test_what_changed_in_a_corpus_is_embedded_and_its_shards_alone_are_written(
    tiny, out, tmp_path, changed, written, embedded, monkeypatch
):
    write_index(tiny, corpus_of(TEXTS), out)
    before, texts = contents(out), []
    real = embedded_module.hidden_states

    def watched(encoder, tokens, *arguments, **options):
        texts.extend(one.text for one in tokens)
        return real(encoder, tokens, *arguments, **options)

    monkeypatch.setattr(embedded_module, "hidden_states", watched)
    write_index(tiny, corpus_of(changed), out)
    assert texts == embedded
    after = contents(out)
    assert {path[:6] for path in after if path[0] == "0" and after[path] != before.get(path)} == {*written}
    write_index(tiny, corpus_of(changed), tmp_path / "fresh")
    updated, fresh = open_index(out, tiny), open_index(tmp_path / "fresh", tiny)
    assert list(updated.passages) == list(fresh.passages) and updated.complete
    for array, other in zip(updated.vectors, fresh.vectors, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)
    assert contents(out).keys() == contents(tmp_path / "fresh").keys()


def test_another_corpus_of_the_same_name_is_refused_and_what_was_indexed_stays(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    other = corpus_of(["a war of the world", "who played", "a", "b", "c"])
    refused(
        "corpus has nothing in common with what was indexed under that name", write_index, tiny, other, out
    )
    assert contents(out) == before and open_index(out, tiny).complete


def test_a_corpus_that_breaks_in_the_middle_keeps_what_was_whole(tiny, out):
    def read():
        yield from list(corpus_of(TEXTS).read())[:9]
        raise minqa.InputError("corpus is cut short.")

    broken = Corpus("corpus", read)
    refused("is cut short", write_index, tiny, broken, out)
    assert len(open_index(out, tiny).passages) == 8
    write_index(tiny, corpus_of(TEXTS), out)
    assert open_index(out, tiny).complete


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"]])
def test_a_corpus_without_a_passage_is_refused(tiny, out, texts):
    refused("corpus holds no passage", write_index, tiny, corpus_of(texts), out)
    write_index(tiny, corpus_of(TEXTS, "another"), out)
    assert open_index(out, tiny).complete


def test_a_corpus_that_cannot_be_read_leaves_nothing_behind(tiny, out):
    def read():
        raise minqa.InputError("corpus cannot be read.")
        yield

    refused("cannot be read", write_index, tiny, Corpus("corpus", read), out)
    assert not list(out.iterdir())


def test_articles_without_text_leave_no_gap(tiny, out):
    write_index(tiny, corpus_of(["", "", "", "", "a war", ""]), out, store_tokens=True)
    index = open_index(out, tiny)
    assert [one.text for one in index.passages] == ["a war"] and index.complete
    assert index.token_vectors[0].shape == (4, 32)
    spread = minqa.shard(index.vectors, minqa.similarity.jax.make_mesh((2,), ("x",)))
    assert len(spread) == 1
    for searched in (index.vectors, spread):
        assert minqa.match(np.ones((1, 32), np.float32), searched, k=3)[1].tolist() == [[0]]


FILES = [".parquet", ".npy", ".tokens.npy"]


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(path.read_bytes()[:-1]), os.remove])
def test_a_spoilt_file_is_named_and_its_shard_alone_made_again(tiny, out, suffix, spoil, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    before, name = contents(out), f"{SHARDS[1]}{suffix}"
    spoil(out / name)
    if not (out / name).exists() and suffix == ".parquet":
        assert not open_index(out, tiny).complete
    elif suffix != ".parquet" and spoil == flip:
        assert open_index(out, tiny).complete, "opening looks at sizes alone"
        refused(f"{name} is missing, or is not what was written", DiskIndex(out).check)
    else:
        refused(rf"{name} is (missing, or is not what was written|.*broken)", lambda: DiskIndex(out).check())
    notes, embedded = [], []
    real = embedded_module.hidden_states

    def watched(encoder, tokens, *arguments, **options):
        embedded.extend(one.text for one in tokens)
        return real(encoder, tokens, *arguments, **options)

    monkeypatch.setattr(embedded_module, "hidden_states", watched)
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True, note=notes.append)
    assert all(name in note and "again" in note for note in notes)
    assert len(notes) == (suffix != ".parquet" or spoil != os.remove)
    assert embedded == TEXTS[4:8]
    assert contents(out) == before


def test_every_bit_of_a_shard_is_checked(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    for suffix in FILES:
        path = out / f"{SHARDS[0]}{suffix}"
        content = path.read_bytes()
        for place in range(0, len(content), 1 + len(content) // 50):
            flip(path, place)
            refused(SHARDS[0], lambda: DiskIndex(out).check())
            path.write_bytes(content)
    DiskIndex(out).check()


def test_a_record_that_was_edited_is_told_and_made_again(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    before, path = contents(out), out / f"{SHARDS[1]}.parquet"
    content = path.read_bytes()

    def edited(name, old, new):
        place = content.index(old, content.rindex(name))
        return content[:place] + new + content[place + len(old) :]

    for changed, sentence in [
        (
            edited(b"minqa.version", b"5", b"4"),
            "is of version 4, and this minqa reads version 5: make the index",
        ),
        (edited(b"minqa.stop", b"8", b"x"), "is no shard of an index, or is broken .Expecting value"),
        (
            edited(b"minqa.last", b"false", b"12345"),
            r"is no shard of an index, or is broken \(something in its record is of another type\)",
        ),
        (
            edited(b"minqa.first", b"minqa.first", b"minqa.fIrst"),
            r"is no shard of an index, or is broken \('minqa.first' is missing\)",
        ),
        (
            edited(b"minqa.max_tokens", b"64", b"60"),
            "was made with another model, or with other settings, than",
        ),
        (content[:-1], "is no shard of an index, or is broken"),
        (b"", "is no shard of an index, or is broken"),
    ]:
        path.write_bytes(changed)
        refused(f"{path.name} {sentence}", open_index, out, tiny)
        if "settings" not in sentence:
            write_index(tiny, corpus_of(TEXTS), out)
            assert contents(out) == before
    path.write_bytes(content)
    assert open_index(out, tiny).complete


def test_a_shard_under_another_number_is_named(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    for suffix in (".npy", ".parquet"):
        shutil.copy(out / f"{SHARDS[1]}{suffix}", out / f"000007{suffix}")
    for call in (open_index, (lambda path, encoder: write_index(encoder, corpus_of(TEXTS), path))):
        refused("000007.parquet is a copy of shard 000001: remove it, with the .npy files", call, out, tiny)
    remove(out / "000007")
    assert open_index(out, tiny).complete


def test_nothing_of_another_model(tiny, out, tmp_path):
    other = minqa.load(make_bert_folder(tmp_path / "other", seed=5))
    write_index(tiny, corpus_of(TEXTS), out)
    write_index(other, corpus_of(TEXTS), tmp_path / "others")
    refused(r"was made with another model than .*other: name it with --model", open_index, out, other)
    refused("was made with another model", write_index, other, corpus_of(TEXTS), out)
    for path in (tmp_path / "others").glob(f"{SHARDS[1]}.*"):
        shutil.copy(path, out)
    refused(f"{SHARDS[1]}.parquet was made with another model", open_index, out, tiny)
    refused(f"{SHARDS[1]}.parquet was made with another model", write_index, tiny, corpus_of(TEXTS), out)
    remove(out / SHARDS[1])
    assert len(open_index(out, tiny).passages) > 4 and not open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS), out)
    assert open_index(out, tiny).complete


def test_other_settings_and_other_folders_are_refused(tiny, out, tmp_path):
    write_index(tiny, corpus_of(TEXTS), out, max_tokens=32, articles_per_shard=3)
    write_index(tiny, corpus_of(TEXTS), out)
    again = (write_index, tiny, corpus_of(TEXTS), out)
    refused("was made with --max-tokens 32: say the same", *again, max_tokens=16)
    refused("was made with --shard 3", *again, articles_per_shard=4)
    refused("is no index: it holds no 000000.parquet", open_index, tmp_path, tiny)
    refused("is there, and is no index", write_index, tiny, corpus_of(TEXTS), tmp_path)
    (tmp_path / "file").write_text("")
    refused("is no index, but a file", write_index, tiny, corpus_of(TEXTS), tmp_path / "file")
    refused("has room for", write_index, tiny, corpus_of(TEXTS), tmp_path / "new", max_tokens=2)
    assert not list((tmp_path / "new").glob("[!.]*"))


def test_an_index_inside_its_own_corpus_is_refused(tiny, out, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    columns = {name: ["a war", "b war"] for name in ("id", "title", "text")}
    parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    for inside in (folder, folder / "index", folder / "a" / "b"):
        refused("is inside .*, whose files are the corpus", write_index, tiny, open_corpus(folder), inside)
    assert [path.name for path in folder.iterdir()] == ["a.parquet"]
    write_index(tiny, open_corpus(folder), out)
    shutil.copytree(out, folder / "index")
    corpus = open_corpus(folder)
    refused("000000.parquet is part of an index: keep that in another folder", list, corpus.articles())
    refused("has nothing in common|is part of an index", write_index, tiny, corpus, out)


def test_several_may_write_the_same_file_at_once(tmp_path):
    """Each is whole, the last stays, and nothing else does."""
    path, opened = tmp_path / "file", threading.Barrier(4)
    written = [bytes([number]) * 2**16 for number in range(4)]

    def write(content):
        storage.write_file(path, lambda file: (opened.wait(60), file.write(content)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, written))
    assert [*tmp_path.iterdir()] == [path] and path.read_bytes() in written


def test_two_who_need_the_same_first_shard_wait_for_each_other(tiny, out):
    """As two first questions to the same corpus at the same time."""
    notes, begun, embedded = [], threading.Event(), []

    def first(done, read):
        begun.set()
        time.sleep(0 if notes else 0.1)

    def second():
        begun.wait(60)
        write_index(
            tiny, corpus_of(TEXTS), out, shards=[0], note=notes.append,
            progress=lambda done, read: embedded.append(done),
        )  # fmt: skip

    thread = threading.Thread(target=second)
    thread.start()
    write_index(tiny, corpus_of(TEXTS), out, shards=[0], progress=first)
    thread.join()
    assert notes in ([f"{out / SHARDS[0]}.parquet is being written by another process."], [])
    assert sum(embedded) == 0 and len(open_index(out, tiny).passages) == 4


def test_several_encoders_can_have_the_same_passages(tiny, either, out, tmp_path):
    one = indexed(tiny, TEXTS, out, max_tokens=16)
    other = indexed(either, TEXTS, tmp_path / "other", max_tokens=16, splitter=tiny)
    assert list(one.passages) == list(other.passages)
    if either.fingerprint != tiny.fingerprint:
        refused(
            "has the passages of another model", write_index, either, corpus_of(TEXTS), tmp_path / "other"
        )


def test_words_are_counted_over_all_shards(tiny, out, monkeypatch):
    index = indexed(tiny, TEXTS, out)
    statistics, texts = index.statistics, [one.text.split() for one in index.passages]
    assert statistics.documents == len(texts)
    words = {word for text in texts for word in text}
    assert statistics.frequency == {word: sum(word in text for text in texts) for word in words}
    monkeypatch.setattr(index_module, "MAX_WORDS_COUNTED", 2)
    (out / "statistics.safetensors").unlink()
    kept = open_index(out, tiny).statistics.frequency
    assert kept == {"theory": 9, "war": statistics.frequency["war"]}, "the commonest"


def test_a_small_corpus_is_judged_by_the_leads(tiny, out, leads):
    statistics = indexed(tiny, TEXTS[:3], out).statistics
    counted = demo_statistics(tiny, None)
    assert statistics.documents == counted.documents == 1024
    assert statistics.frequency == counted.frequency


def test_stored_tokens_come_back_in_8_bits(tiny, out):
    assert indexed(tiny, TEXTS, out).token_vectors is None
    before = contents(out)
    stored = indexed(tiny, TEXTS, out, store_tokens=True)
    changed = {path for path, known in contents(out).items() if before.get(path) != known}
    assert {path.partition(".")[2] for path in changed} == {"tokens.npy", "parquet", "safetensors"}
    texts = [one.text for one in stored.passages]
    for row, one in enumerate(minqa.embed(tiny, texts, role="passage")):
        array = stored.token_vectors[row]
        assert array.shape == one.array.shape and array.dtype == np.float32
        step = np.abs(one.array).max(1, keepdims=True) / 127
        assert (np.abs(array - one.array) <= 0.51 * step + 1e-5).all()


def test_markup_is_not_indexed(tiny, out, tmp_path):
    from test_wikipedia import HEAD, page

    pages = [page(f"T{i}", f"'''theory''' {{{{x}}}} of [[war|{i}]]", number=i) for i in range(9)]
    (tmp_path / "wiki.xml").write_text(HEAD + "".join(pages) + "</mediawiki>")
    write_index(tiny, open_corpus(tmp_path / "wiki.xml"), out)
    assert [one.text for one in open_index(out, tiny).passages] == [f"theory of {i}" for i in range(9)]


def test_an_index_is_read_without_minqa(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    passages, path = list(DiskIndex(out).passages)[:4], out / f"{SHARDS[0]}.parquet"
    record = {key: json.loads(value) for key, value in parquet.read_schema(path).metadata.items()}
    assert record[b"minqa.corpus"] == "corpus" and record[b"minqa.layer"] == 2
    assert [record[f"minqa.{name}".encode()] for name in ("first", "stop", "last")] == [0, 4, False]
    content = path.with_suffix(".npy").read_bytes()
    known = record[b"minqa.files"][".npy"]
    assert known == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    frame = pandas.read_parquet(path)
    assert frame["text"].tolist() == [one.text for one in passages] and frame["start"].tolist() == [0] * 4
    vectors, tokens = np.load(path.with_suffix(".npy")), np.load(path.with_suffix(".tokens.npy"))
    embedded = minqa.embed(tiny, frame["text"].tolist(), role="passage")
    np.testing.assert_allclose(vectors, minqa.pool(embedded), atol=1e-5)
    row = frame.iloc[2]
    rows = tokens[row["token_start"] : row["token_end"]]
    np.testing.assert_allclose(rows["vector"] * rows["scale"][:, None], embedded[2].array, atol=0.05)


def test_vectors_reach_jax_without_a_copy(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    vectors = open_index(out, tiny).vectors[1]
    assert not vectors.flags.owndata and vectors.dtype == np.float32
    assert jax.device_put(vectors).unsafe_buffer_pointer() == vectors.ctypes.data


def test_an_index_of_an_earlier_version_is_refused(tiny, out):
    out.mkdir()
    (out / "manifest.json").write_text('{"format": "minqa index", "version": 4}')
    sentence = (
        "is an index of an earlier version, which is not read: make it again, by `minqa index` with another"
    )
    refused(sentence, open_index, out, tiny)
    refused(sentence, write_index, tiny, corpus_of(TEXTS), out)


def test_words_that_the_model_reads_alike_are_counted_as_one(tiny, out):
    texts = ["naive war", "Na\u00efve war", "NAIVE NAI\u0308VE", *TEXTS[:4]]
    statistics = indexed(tiny, texts, out).statistics
    assert statistics.frequency["naive"] == 3
    [plain], [accented] = (
        [*statistics.idf(tokens.keys)] for tokens in tiny.tokenize(["naive", "Na\u00efve"])
    )
    assert plain == accented < statistics.idf(["unseen"])[0]
