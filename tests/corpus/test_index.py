"""The index: whole or absent, the same bytes however it came about, nothing of another model or corpus."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import contents, corpus_of, indexed, make_bert_folder, passages_of

import minqa
from minqa.corpus import index as index_module
from minqa.corpus import storage, writer
from minqa.corpus.articles import Corpus
from minqa.corpus.index import DiskIndex, open_index
from minqa.corpus.readers import open_corpus
from minqa.corpus.statistics import demo_statistics
from minqa.corpus.writer import Process, write_index

TEXTS = [*(f"theory {letter}" for letter in "abcdefghi"), "war " * 99]
SHARDS = ["0000-0000000000", "0000-0000000004", "0000-0000000008"]


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


def refused(sentence, call, *arguments, **options):
    with pytest.raises(minqa.InputError, match=sentence) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_what_is_written_is_read(tiny, out):
    done = []
    folder = write_index(tiny, corpus_of(TEXTS), out, progress=lambda *one: done.append(one))
    assert [shard.folder.name for shard in folder.shards] == SHARDS
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
    assert all(isinstance(part, np.memmap) and part.ctypes.data % 64 == 0 for part in index.vectors)
    assert sum(number for number, _ in done) == len(index.passages)
    read = [part for _, part in done]
    assert read == sorted(read) and read[0] == 0 and read[-1] == 1
    scores, rows = minqa.match(expected[:3], index.vectors, k=5)
    other_scores, other_rows = minqa.match(expected[:3], np.concatenate(list(index.vectors)), k=5)
    np.testing.assert_array_equal(rows, other_rows)
    np.testing.assert_array_equal(scores, other_scores)


def test_nothing_is_embedded_twice(tiny, out, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    monkeypatch.setattr(writer, "embed_pooled", None)
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
    assert [path.name for path in sorted(out.glob("[0-9]*-*"))] == SHARDS[: (moment - 1) // 4]
    if moment > 4:
        assert not open_index(out, tiny).complete
    else:
        refused("is no index", open_index, out, tiny)
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_process_killed_again_and_again_loses_and_doubles_nothing(bert_folder, tmp_path):
    """Seven times by force, each a moment later than a shard more is there; README has 20 at random."""
    texts = tmp_path / "corpus.txt"
    texts.write_text("\n".join(f"theory {i} " * (i % 9 + 1) for i in range(480)))
    program = """if True:
        import sys, minqa, pathlib
        model, texts, cache, out = map(pathlib.Path, sys.argv[1:])
        corpus = minqa.open_corpus(texts)
        minqa.write_index(minqa.load(model), corpus, out, articles_per_shard=8, cache=cache)
    """
    command = [sys.executable, "-c", program, bert_folder, texts, tmp_path / "cache"]
    subprocess.run([*command, tmp_path / "undisturbed"], check=True, capture_output=True)
    out = tmp_path / "killed"
    for kill in range(7):
        process = subprocess.Popen([*command, out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(out.glob("[0-9]*-*/shard.json"))) < 3 * kill and time.monotonic() < deadline:
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
    written = storage.write_arrays

    def full(path, arrays):
        if SHARDS[1] in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, arrays)

    monkeypatch.setattr(writer, "write_arrays", full)
    refused(
        r"cannot be written \(No space left on device\): make room", write_index, tiny, corpus_of(TEXTS), out
    )
    assert [path.name for path in out.glob("[0-9]*-*")] == SHARDS[:1]
    assert len(open_index(out, tiny).passages) == 4
    monkeypatch.setattr(writer, "write_arrays", written)
    write_index(tiny, corpus_of(TEXTS), out)
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_of_two_writers_the_second_is_refused(tiny, out):
    asked = []

    def second(done, read):
        asked.append(done)
        refused("is being written by another process", write_index, tiny, corpus_of(TEXTS), out)

    write_index(tiny, corpus_of(TEXTS), out, progress=second)
    assert asked and open_index(out, tiny).complete


def test_one_of_several_processes_that_outlived_the_first_keeps_others_out(tiny, out):
    write_index(tiny, corpus_of(TEXTS[:4]), out)
    left = out / f"{SHARDS[1]}.partial-1"
    left.mkdir()
    lock = writer._lock(out, 1)
    refused("is being written by another process", write_index, tiny, corpus_of(TEXTS), out)
    assert left.exists()
    lock.release()
    write_index(tiny, corpus_of(TEXTS), out)
    assert not left.exists() and open_index(out, tiny).complete


def test_a_process_that_stopped_early_is_told(tiny, out):
    again = (write_index, tiny, corpus_of(TEXTS), out)
    refused("Another process has stopped early", *again, process=Process(0, 2))
    assert [shard.folder.name for shard in DiskIndex(out).shards] == [SHARDS[0], SHARDS[2]]


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
        patch.setattr(storage.Path, "rename", counted(storage.Path.rename))
        patch.setattr(storage.Path, "replace", counted(storage.Path.replace))
        patch.setattr(storage.shutil, "rmtree", unless_killed(shutil.rmtree))
        patch.setattr(storage.Path, "unlink", unless_killed(storage.Path.unlink))
        try:
            call()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("store_tokens", [False, True])
def test_at_whatever_moment_a_run_is_killed_it_goes_on_to_the_same_bytes(
    tiny, out, tmp_path, monkeypatch, store_tokens
):
    """Also where shards of a grown corpus are replaced, to hold tokens too."""

    def begin(path):
        write_index(tiny, corpus_of(TEXTS[:6]), path)

    def go_on(path):
        write_index(tiny, corpus_of(TEXTS), path, store_tokens=store_tokens)

    begin(tmp_path / "undisturbed")
    go_on(tmp_path / "undisturbed")
    expected, moment, killed = contents(tmp_path / "undisturbed"), 0, True
    while killed:
        folder = tmp_path / f"killed-{moment}"
        if store_tokens:
            begin(folder)
            killed = killed_at(moment, monkeypatch, lambda folder=folder: go_on(folder))
        else:
            killed = killed_at(moment, monkeypatch, lambda folder=folder: begin(folder))
            begin(folder)
        go_on(folder)
        assert contents(folder) == expected, moment
        moment += 1
    assert moment > 20


def test_a_lost_shard_ends_where_the_next_begins(tiny, out):
    write_index(tiny, corpus_of(TEXTS[:6]), out)
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    shutil.rmtree(out / SHARDS[1])
    assert not open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS), out)
    assert open_index(out, tiny).complete
    changed = {path for path, known in contents(out).items() if before.get(path) != known}
    assert changed <= {f"{SHARDS[1]}/shard.json"}, "which says no longer that the corpus ends there"


def test_a_large_index_is_repaired_as_well(tiny, out, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    monkeypatch.setattr(index_module, "MAX_BYTES_CHECKED_ON_OPENING", 10)
    flip(out / SHARDS[1] / "vectors.safetensors")
    open_index(out, tiny)  # looks at sizes alone
    write_index(tiny, corpus_of(TEXTS), out)
    assert contents(out) == before


def test_several_processes_write_what_one_would(tiny, out, tmp_path):
    write_index(tiny, corpus_of(TEXTS), tmp_path / "undisturbed")
    with pytest.raises(ZeroDivisionError):  # the first makes the folder, and waits
        write_index(tiny, corpus_of(TEXTS), out, process=Process(0, 2, lambda: 1 / 0))
    write_index(tiny, corpus_of(TEXTS), out, process=Process(1, 2))
    assert [path.name for path in sorted(out.glob("[0-9]*-*"))] == SHARDS[1:2]
    write_index(tiny, corpus_of(TEXTS), out, process=Process(0, 2))
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_leftovers_of_the_dead_are_removed_and_others_stay(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    for number in (0, 1, 5):
        (out / f"{SHARDS[0]}.partial-{number}").mkdir()
    write_index(tiny, corpus_of(TEXTS), out, process=Process(0, 2))
    assert [path.name for path in out.glob("*.partial-*")] == [f"{SHARDS[0]}.partial-1"]
    assert len(open_index(out, tiny).passages) == len(DiskIndex(out).passages), "what is partial is not read"


def test_more_is_added_behind(tiny, out):
    write_index(tiny, corpus_of(TEXTS[:6]), out)
    assert open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS[:9]), out)  # the corpus has grown at its end
    starts = [(shard.start, shard.stop) for shard in DiskIndex(out).shards]
    assert starts == [(0, 4), (4, 6), (6, 9)]
    write_index(tiny, corpus_of(["a war", "the war"], "other"), out)
    index = open_index(out, tiny)
    assert index.complete
    assert list(index.passages) == passages_of(TEXTS[:9]) + passages_of(["a war", "the war"])
    assert index.statistics.documents == 11 and index.statistics.frequency["war"] == 2
    write_index(tiny, corpus_of(TEXTS[:9]), out)
    assert len(open_index(out, tiny).passages) == 11


@pytest.mark.parametrize("changed", [["x", *TEXTS[1:]], TEXTS[:5], TEXTS[:8], ["new", *TEXTS]])
def test_a_corpus_that_changed_is_refused_and_what_was_indexed_stays(tiny, out, changed):
    write_index(tiny, corpus_of(TEXTS), out)
    before = contents(out)
    refused("corpus is not what it was when it was indexed", write_index, tiny, corpus_of(changed), out)
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
    assert [path.name for path in out.iterdir()] == [".writer-0.lock"]


def test_articles_without_text_leave_no_gap(tiny, out):
    write_index(tiny, corpus_of(["", "", "", "", "a war", ""]), out, store_tokens=True)
    index = open_index(out, tiny)
    assert [one.text for one in index.passages] == ["a war"] and index.complete
    assert index.token_vectors[0].shape == (4, 32)
    assert minqa.match(np.ones((1, 32), np.float32), index.vectors, k=3)[1].tolist() == [[0]]
    assert len(minqa.shard(index.vectors, minqa.similarity.jax.make_mesh((2,), ("x",))).array) == 2


FILES = ["passages.parquet", "vectors.safetensors", "words.safetensors", "tokens.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", [flip, lambda path: path.write_bytes(path.read_bytes()[:-1]), os.remove])
def test_a_spoilt_file_is_named_and_its_shard_alone_made_again(tiny, out, name, spoil, monkeypatch):
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True)
    before = contents(out)
    spoil(out / SHARDS[1] / name)
    sentence = f"{SHARDS[1]}/{name} is missing, or is not what was written"
    refused(sentence, open_index, out, tiny)
    refused(sentence, DiskIndex(out).check, every_byte=True)
    notes, embedded = [], []
    real = writer.hidden_states

    def watched(encoder, tokens, *arguments, **options):
        embedded.extend(one.text for one in tokens)
        return real(encoder, tokens, *arguments, **options)

    monkeypatch.setattr(writer, "hidden_states", watched)
    write_index(tiny, corpus_of(TEXTS), out, store_tokens=True, note=notes.append)
    assert len(notes) == 1 and name in notes[0] and "again" in notes[0]
    assert embedded == TEXTS[4:8]
    assert contents(out) == before


def test_a_manifest_or_record_that_was_edited_is_refused(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    for path in (out / "manifest.json", out / SHARDS[0] / "shard.json"):
        content = path.read_text()
        for changed, sentence in [
            (content.replace('": ', '":  ', 1).replace("64", "60", 1), "was edited by hand, or is broken"),
            (
                content.replace('"version": 4', '"version": 99'),
                "is of version 99, and this minqa reads up to 4",
            ),
            (content[:50], "cannot be read: Unterminated string"),
            ("[]", "holds no JSON object"),
            ("{}", "is broken: it is no JSON object with a version and a checksum"),
            ("", "cannot be read: Expecting value"),
        ]:
            path.write_text(changed)
            refused(sentence, open_index, out, tiny)
            refused(sentence, write_index, tiny, corpus_of(TEXTS), out)
        path.write_text(content)
    assert open_index(out, tiny).complete
    record = out / SHARDS[0] / "shard.json"
    storage.write_json(record, {"version": 4})
    refused("does not say what a shard needs: take .* out", open_index, out, tiny)
    record.write_text(content)
    storage.write_json(out / "manifest.json", {"version": 4, "format": "minqa index"})
    refused("does not say what an index needs", open_index, out, tiny)
    storage.write_json(out / "manifest.json", {"version": 4, "format": "another"})
    refused("is not that of an index of version 4", open_index, out, tiny)


def test_nothing_of_another_model(tiny, out, tmp_path):
    other = minqa.load(make_bert_folder(tmp_path / "other", seed=5))
    write_index(tiny, corpus_of(TEXTS), out)
    write_index(other, corpus_of(TEXTS), tmp_path / "others")
    refused(r"was made with another model than .*other: name it with --model", open_index, out, other)
    refused("was made with another model", write_index, other, corpus_of(TEXTS), out)
    shutil.rmtree(out / SHARDS[1])
    shutil.copytree(tmp_path / "others" / SHARDS[1], out / SHARDS[1])
    refused(f"{SHARDS[1]} is a shard of another model", open_index, out, tiny)
    refused(f"{SHARDS[1]} is a shard of another model", write_index, tiny, corpus_of(TEXTS), out)
    shutil.rmtree(out / SHARDS[1])
    assert len(open_index(out, tiny).passages) > 4 and not open_index(out, tiny).complete
    write_index(tiny, corpus_of(TEXTS), out)
    assert open_index(out, tiny).complete


def test_other_settings_and_other_folders_are_refused(tiny, out, tmp_path):
    write_index(tiny, corpus_of(TEXTS), out, max_tokens=32, articles_per_shard=3)
    write_index(tiny, corpus_of(TEXTS), out)
    again = (write_index, tiny, corpus_of(TEXTS), out)
    refused("was made with --max-tokens 32: say the same", *again, max_tokens=16)
    refused("was made with --shard 3", *again, articles_per_shard=4)
    refused("is no index: it holds no manifest.json", open_index, tmp_path, tiny)
    refused("is there, and is no index", write_index, tiny, corpus_of(TEXTS), tmp_path)
    (tmp_path / "file").write_text("")
    refused("is there, and is no index", write_index, tiny, corpus_of(TEXTS), tmp_path / "file")
    refused("has room for", write_index, tiny, corpus_of(TEXTS), tmp_path / "new", max_tokens=2)
    assert not list((tmp_path / "new").glob("[!.]*"))


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
    assert {path.rpartition("/")[2] for path in changed} == {
        "tokens.safetensors", "shard.json", "statistics.safetensors"
    }  # fmt: skip
    texts = [one.text for one in stored.passages]
    for row, one in enumerate(minqa.embed(tiny, texts, role="passage")):
        array = stored.token_vectors[row]
        assert array.shape == one.array.shape and array.dtype == np.float32
        step = np.abs(one.array).max(1, keepdims=True) / 127
        assert (np.abs(array - one.array) <= 0.51 * step + 1e-5).all()


def test_markup_is_taken_off_by_workers(tiny, out, tmp_path):
    from test_wikipedia import HEAD, page

    pages = [page(f"T{i}", f"'''theory''' {{{{x}}}} of [[war|{i}]]", number=i) for i in range(9)]
    (tmp_path / "wiki.xml").write_text(HEAD + "".join(pages) + "</mediawiki>")
    corpus = open_corpus(tmp_path / "wiki.xml")
    write_index(tiny, corpus, out, workers=2)
    assert [one.text for one in open_index(out, tiny).passages] == [f"theory of {i}" for i in range(9)]
    write_index(tiny, corpus, tmp_path / "alone")
    assert contents(out) == contents(tmp_path / "alone")


def test_records_are_json_that_anyone_can_read(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    record = json.loads((out / SHARDS[0] / "shard.json").read_text())
    assert record["articles"] == [0, 4] and record["passages"] == 4 and record["corpus"] == "corpus"
    known = record["files"]["vectors.safetensors"]
    content = (out / SHARDS[0] / "vectors.safetensors").read_bytes()
    assert known == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    from safetensors.numpy import load

    assert load(content)["vectors"].shape == (4, 32)


def test_an_index_of_an_earlier_version_is_refused(tiny, out):
    write_index(tiny, corpus_of(TEXTS), out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["checksum"]
    storage.write_json(out / "manifest.json", manifest | {"version": 3})
    refused("is not that of an index of version 4: make it again with `minqa index`", open_index, out, tiny)


def test_words_that_the_model_reads_alike_are_counted_as_one(tiny, out):
    texts = ["naive war", "Na\u00efve war", "NAIVE NAI\u0308VE", *TEXTS[:4]]
    statistics = indexed(tiny, texts, out).statistics
    assert statistics.frequency["naive"] == 3
    [plain], [accented] = (
        [*statistics.idf(tokens.keys)] for tokens in tiny.tokenize(["naive", "Na\u00efve"])
    )
    assert plain == accented < statistics.idf(["unseen"])[0]
