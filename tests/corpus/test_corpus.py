"""Articles from files, good and bad."""

import bz2
import gzip
import json
import lzma
import os
import re
import subprocess
import sys
import tracemalloc
from datetime import date
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet as parquet
import pytest
from conftest import indexed

import minqa
from minqa.corpus import articles as articles_module
from minqa.corpus.articles import Article
from minqa.corpus.index import DiskIndex
from minqa.corpus.readers import open_corpus
from minqa.corpus.wikipedia import plain


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def articles(source):
    return list(open_corpus(source).articles())


def texts(path):
    return [article.text for article in articles(path)]


def write_parquet(path, columns):
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_text_is_read_by_paragraph_or_by_line(tmp_path):
    assert texts(write(tmp_path / "a.txt", "one\ntwo\n\n \n three \n")) == ["one\ntwo", "three"]
    assert texts(write(tmp_path / "b.txt", "one\r\ntwo\r\n\r\nthree")) == ["one\ntwo", "three"]
    assert texts(write(tmp_path / "c.txt", "\ufeffone\ntwo\n")) == ["one", "two"]
    assert texts(write(tmp_path / "d.txt", "\n\none\ntwo\n\n")) == ["one", "two"]
    assert texts(write(tmp_path / "e.txt", " \n\n ")) == []


def test_json_lines_are_read_with_their_titles(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"title": "A", "text": "a\u2028b", "id": "x"}\n\n{"text": "c\\ud800"}\n'
    )
    assert articles(path) == [("x", "A", "a\u2028b", (), ()), ("3", "", "c\ufffd", (), ())]


def test_how_much_is_read_rises_to_all(tmp_path):
    text = write(tmp_path / "a.txt", "one\n\ntwo\n\nthree")
    lines = write(tmp_path / "a.jsonl", '{"text": "a"}\n' * 5)
    table = write_parquet(tmp_path / "a.parquet", {name: ["a", "b", "c"] for name in ("id", "title", "text")})
    for source in (text, lines, table):
        read = [part for _, part in open_corpus(source).read()]
        assert read == sorted(read) and 0 < read[0] < 1 and read[-1] == 1


def test_parquet_is_read_as_the_hub_has_wikipedia(tmp_path):
    columns = {"id": ["12", "25", "3"], "url": ["u"] * 3, "title": ["A", None, "C"], "text": ["a", "b", None]}
    (tmp_path / "part").mkdir()
    write_parquet(tmp_path / "part" / "0.parquet", columns)
    write_parquet(tmp_path / "part" / "1.parquet", {**columns, "id": [1, 2, 3]})
    url = (("url", "u"),)
    expected = [("12", "A", "a", (), url), ("25", "", "b", (), url)]  # the third has no text
    assert articles(tmp_path / "part" / "0.parquet") == expected
    assert articles(tmp_path) == [*expected, ("1", "A", "a", (), url), ("2", "", "b", (), url)]
    write_parquet(tmp_path / "b.PARQUET", {**columns, "id": [None, 7.5, None]})
    assert [one.id for one in articles(tmp_path / "b.PARQUET")] == ["1", "7.5"], (
        "numbered where there is none"
    )


def test_bad_parquet_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"id": ["1"], "body": ["x"]})
    with pytest.raises(minqa.InputError, match=r"has no column title and no text; it has id, body\."):
        articles(path)
    path = write_parquet(tmp_path / "a.parquet", {"id": ["1"], "title": [3], "text": ["x"]})
    with pytest.raises(minqa.InputError, match='row 1: "title" is no string'):
        articles(path)
    with pytest.raises(minqa.InputError, match="cannot be read as Parquet"):
        articles(write(tmp_path / "b.parquet", b"PAR1 no"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(minqa.InputError, match="is a folder without a Parquet file"):
        open_corpus(tmp_path / "empty")
    for name in ("a.txt.zst", "a.ZIP"):
        with pytest.raises(minqa.InputError, match="unpack it"):
            open_corpus(write(tmp_path / name, b""))


def test_a_data_set_of_the_hub_is_streamed(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        if arguments[0] == "some/none":
            raise FileNotFoundError("no such set.\nAdvice.")
        rows = [{"id": str(i), "url": "", "title": "T", "text": f"text {i}"} for i in range(3)]
        return rows if arguments[0] == "some/wiki" else [{"content": "x"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [one.text for one in articles("some/wiki:2023.en")] == ["text 0", "text 1", "text 2"]
    assert asked == [(("some/wiki", "2023.en"), {"split": "train", "streaming": True})]
    with pytest.raises(minqa.InputError, match="other/set has no column id and no title and no text"):
        articles("other/set")
    with pytest.raises(minqa.InputError, match=r"cannot be read from the hub \(no such set\)\.$"):
        articles("some/none")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(minqa.InputError, match="install the package datasets"):
        open_corpus("some/wiki")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"\xff\xfe\x00", "a.txt is no UTF-8 text: line 1 holds a zero byte"),
        ("a.txt", b"one\ntwo \xff\n", "a.txt, line 2: byte 4 is not UTF-8"),
        ("a.pdf", b"%PDF-1.4\n\x00\x01", "a.pdf is no UTF-8 text"),
        ("a.html", b" <!DOCTYPE HTML><p>x", "a.html is a page in HTML: save it as text"),
        ("a.txt", b"<html>\n<p>x", "a.txt is a page in HTML"),
        ("a.json", '[{"text": "x"}, 3]', 'article 2: an object with a "text" is needed'),
        ("a.json", '["x"]', "article 1: an object with a"),
        ("a.jsonl", '{"text": "x"}\n"byte 7 is not UTF-8"\n', 'line 2: an object with a "text" is needed'),
        ("a.json", '[{"text": "x"},', "a.json is no JSON"),
        ("a.csv", "title,body\nx,y", "a.csv has no column text; its first line has title, body"),
        ("a.csv", "title,text\nx,y,z", "a.csv, line 2: it has not 2 cells"),
        ("a.csv", "title,text\nx", "a.csv, line 2: it has not 2 cells"),
        ("a.tsv", "", "a.tsv has no column text"),
        ("a.jsonl.gz", b"no", "a.jsonl.gz cannot be read: it is no .gz file, or is broken"),
        ("a.jsonl", '{"text": "x", "id": {}}', 'line 1: "id" is no string'),
        ("a.jsonl", '{"text": "x"}\n{"title": "y"}', 'line 2: "text" is missing, empty or no string'),
        ("a.jsonl", '{"text": "x"}\n\n{"text": ""}', 'line 3: "text" is missing'),
        ("a.jsonl", '{"text": 3}', 'line 1: "text" is missing'),
        ("a.jsonl", '{"text": "x", "title": 3}', 'line 1: "title" is no string'),
        ("a.jsonl", '{"text": "x", "id": [3]}', 'line 1: "id" is no string'),
        ("a.jsonl", '["x"]', 'line 1: an object with a "text" is needed'),
        ("a.jsonl", "{", "line 1: this is no JSON"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, sentence):
    with pytest.raises(minqa.InputError, match=sentence):
        articles(write(tmp_path / name, content))


COLUMNS = ["x", "A", "a war,\nthe war"], ["2", "", "who"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"id": "x", "title": "A", "text": "a war,\\nthe war"}, {"text": "who"}]'),
        ("b.json", '{"id": "x", "title": "A", "text": "a war,\\nthe war"}\n{"text": "who"}'),
        (
            "a.NDJSON",
            '\ufeff{"id": "x", "title": "A", "text": "a war,\\nthe war"}\n{"text": "who", "id": null}',
        ),
        ("a.csv", 'id,title,text,url\nx,A,"a war,\nthe war",u\n2,,who,'),
        ("a.TSV", 'text\tid\ttitle\r\n"a war,\nthe war"\tx\tA\r\nwho\t2\t\r\n'),
    ],
)
@pytest.mark.parametrize("pack", [None, gzip, bz2, lzma])
def test_objects_and_tables_are_read_whatever_their_form(tmp_path, name, content, pack):
    suffix = {None: "", gzip: ".gz", bz2: ".BZ2", lzma: ".xz"}[pack]
    content = pack.compress(content.encode()) if pack else content
    path = write(tmp_path / f"{name}{suffix}", content)
    assert [tuple(article[:3]) for article in articles(path)] == [*map(tuple, COLUMNS)]
    read = [part for _, part in open_corpus(path).read()]
    assert read == sorted(read) and read[-1] == 1


def test_what_cannot_be_read_is_left_out_and_told(tmp_path):
    notes, lines = [], ['{"text": "one"}', "{", '{"text": ""}', b"\xff", "[]", '{"text": "two"}', "{}"]
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    path = write(tmp_path / "a.jsonl", content)
    assert [(one.id, one.text) for one in open_corpus(path, note=notes.append).articles()] == [
        ("1", "one"), ("6", "two")
    ]  # fmt: skip
    assert len(notes) == 4 and all(note.endswith(" It is left out.") for note in notes[:3])
    assert f"{path}, line 2: this is no JSON" in notes[0] and "line 4: byte 0 is not UTF-8" in notes[2]
    assert notes[3] == f"5 articles of {path} cannot be read, and are left out."
    path = write(tmp_path / "b.jsonl", '{"text": "one", "id": 7}\n{"text": "two", "id": "7"}\n')
    assert [one.text for one in open_corpus(path, note=notes.append).articles()] == ["one"]
    assert "line 2: an article before it has the same id, 7. It is left out." in notes[-1]
    text = write(tmp_path / "a.txt", b"one\n\ntwo\n\xff\n\nthree\n")
    assert [(one.id, one.text) for one in open_corpus(text, note=notes.append).articles()] == [
        ("1", "one"), ("3", "three")
    ]  # fmt: skip
    table = pyarrow.table(
        {
            "id": pyarrow.array([1, 2**62], pyarrow.timestamp("ms")),
            "title": ["A", "B"],
            "text": pyarrow.array([b"a", b"b\xff"]).view(pyarrow.string()),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [one.text for one in open_corpus(tmp_path / "a.parquet", note=notes.append).articles()] == ["a"]
    assert "row 2: it cannot be read" in notes[-1]


def test_a_text_or_line_that_is_too_long_is_left_out_in_little_memory(tmp_path):
    notes, most = [], articles_module.MAX_CHARACTERS
    path = write(tmp_path / "a.txt", b"one\n" + b"x" * (20 * most) + b"\ntwo\n")
    tracemalloc.start()
    try:
        assert [one.text for one in open_corpus(path, note=notes.append).articles()] == ["one", "two"]
        assert tracemalloc.get_traced_memory()[1] < 5 * most
    finally:
        tracemalloc.stop()
    assert notes == [f"{path}, line 2: it is longer than {most:,} bytes. It is left out."] * len(notes)
    path = write(tmp_path / "a.json", json.dumps([{"text": "x" * (most + 1)}, {"text": "two"}]))
    assert [one.text for one in open_corpus(path, note=notes.append).articles()] == ["two"]
    assert "article 1: the text is longer than" in notes[-1]


def test_what_cannot_be_read_twice_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader, writer = os.pipe()
    try:
        for path in (tmp_path / "pipe", f"/dev/fd/{reader}", "/dev/null"):
            with pytest.raises(minqa.InputError, match="what cannot be read twice is no corpus: save it"):
                open_corpus(path)
    finally:
        os.close(reader)
        os.close(writer)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "nothing.txt", "nothing.txt", f"./{'n' * 300}"):
        with pytest.raises(minqa.InputError, match="cannot be read: there is no such file"):
            open_corpus(path)


def test_the_demo_corpus_begins_with_the_most_vital_articles(leads):
    assert len(leads) == 10033
    titles = [lead.title for lead in leads[:1000]]
    assert {"Albert Einstein", "Earth", "Mathematics", "World War II", "DNA"} <= set(titles)


def test_without_the_demo_group_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr("minqa.files.extras.find_spec", lambda name: None)
    with pytest.raises(minqa.InputError, match=r"install it with `uv sync --group demo`, or name a model"):
        minqa.load()
    with pytest.raises(minqa.InputError, match="or name a file with --corpus"):
        minqa.demo_passages()
    with pytest.raises(minqa.InputError, match="or name a file with --corpus"):
        open_corpus()


MODULES = "articles readers wikipedia passages statistics storage".split()
MODULES += "shards index embedded writer vectors".split()
EXTRA = ("pyarrow", "filelock", "mwxml", "mwparserfromhell")


def test_the_extra_is_not_needed_to_import_a_corpus_or_to_read_the_demo(leads):
    program = f"""if True:
        import sys
        sys.modules |= dict.fromkeys({EXTRA})
        import importlib, minqa
        for module in {MODULES}:
            importlib.import_module(f"minqa.corpus.{{module}}")
        print(len(minqa.demo_passages()), len(list(minqa.open_corpus().articles())))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "10033 10033\n", done.stderr


@pytest.mark.parametrize(
    ("hidden", "purpose", "use"),
    [
        ("pyarrow", "Reading Parquet", lambda tiny, path: articles(path / "a.parquet")),
        ("mwxml", "Reading a MediaWiki dump", lambda tiny, path: open_corpus(path / "a.xml")),
        ("mwparserfromhell", "Reading a MediaWiki dump", lambda tiny, path: plain(Article("1", "", "x"))),
        ("filelock", "Writing an index", lambda tiny, path: indexed(tiny, ["a war"], path / "new")),
        ("pyarrow", "Writing an index", lambda tiny, path: indexed(tiny, ["a war"], path / "new")),
        ("pyarrow", "Reading an index", lambda tiny, path: DiskIndex(path / "index")),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_has_it(
    tiny, tmp_path, monkeypatch, hidden, purpose, use
):
    for name in ("a.parquet", "a.xml"):
        (tmp_path / name).touch()
    indexed(tiny, ["a war"], tmp_path / "index")
    for module in [name for name in sys.modules if name.partition(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, hidden, None)
    sentence = f"{purpose} needs {hidden}: install it with `uv sync --extra corpus`."
    with pytest.raises(minqa.InputError, match=f"^{re.escape(sentence)}$"):
        use(tiny, tmp_path)


def test_further_columns_are_kept_as_numbers_and_text(tmp_path):
    rows = [
        {
            "text": "a war",
            "year": 1914,
            "lang": "en",
            "ok": True,
            "tags": ["x"],
            "none": None,
            "big": 10**400,
        },
        {"text": "a play", "year": 1.5, "bad": float("nan"), "lang": "\ud800", "long": "x" * 1001},
    ]
    rows[1] |= {f"column {i}": i for i in range(99)}
    extra = [article.extra for article in articles(write(tmp_path / "a.json", json.dumps(rows)))]
    assert extra == [
        (("year", 1914), ("lang", "en"), ("ok", True), ("big", 10**400)),
        (("year", 1.5), ("lang", "\ufffd"), *((f"column {i}", i) for i in range(62))),
    ]
    table = write(tmp_path / "a.csv", "text,year,zip,part\n1984,1984,0123,-2.50\n1985,,1e5,x\n")
    [first, second] = articles(table)
    assert (first.text, first.extra) == ("1984", (("year", 1984), ("zip", "0123"), ("part", -2.5)))
    assert second.extra == (("zip", "1e5"), ("part", "x"))
    columns = {"id": [1], "title": ["T"], "text": ["a war"], "born": [date(1879, 3, 14)], "url": ["x.org"]}
    late = pyarrow.array([10**12], pyarrow.timestamp("s"))  # it is no date of Python's
    write_parquet(tmp_path / "a.parquet", columns | {"parts": [[1, 2]], "raw": [b"x"], "late": late})
    [article] = articles(tmp_path / "a.parquet")
    assert article.extra == (("born", "1879-03-14"), ("url", "x.org")), "in the order of the file"
