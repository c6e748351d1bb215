"""Passages from files, good and bad."""

import pytest

import minqa


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path):
    return [passage.text for passage in minqa.read_passages(path)]


def test_text_is_read_by_paragraph_or_by_line(tmp_path):
    assert texts(write(tmp_path / "a.txt", "one\ntwo\n\n \n three \n")) == ["one\ntwo", "three"]
    assert texts(write(tmp_path / "b.txt", "one\r\ntwo\r\n\r\nthree")) == ["one\ntwo", "three"]
    assert texts(write(tmp_path / "c.txt", "\ufeffone\ntwo\n")) == ["one", "two"]


def test_json_lines_are_read_with_their_titles(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"title": "A", "text": "a\u2028b", "id": 1}\n\n{"text": "c\\ud800"}\n'
    )
    assert minqa.read_passages(path) == [("A", "a\u2028b"), ("", "c\ufffd")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", "", "a.txt holds no passage"),
        ("a.txt", " \n\n ", "a.txt holds no passage"),
        ("a.txt", b"\xff\xfe\x00", "a.txt is not UTF-8 text: byte 0"),
        ("a.jsonl", "\n", "a.jsonl holds no passage"),
        ("a.jsonl", '{"text": "x"}\n{"title": "y"}', 'line 2: "text" is missing, empty or no string'),
        ("a.jsonl", '{"text": "x"}\n\n{"text": ""}', 'line 3: "text" is missing'),
        ("a.jsonl", '{"text": 3}', 'line 1: "text" is missing'),
        ("a.jsonl", '{"text": "x", "title": 3}', 'line 1: "title" is no string'),
        ("a.jsonl", '["x"]', 'line 1: an object with a "text" is needed'),
        ("a.jsonl", "{", "line 1: this is no JSON"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, sentence):
    with pytest.raises(minqa.InputError, match=sentence):
        minqa.read_passages(write(tmp_path / name, content))


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "nothing.txt", tmp_path):
        with pytest.raises(minqa.InputError, match="cannot be read"):
            minqa.read_passages(path)


def test_the_demo_corpus_begins_with_the_most_vital_articles(leads):
    assert len(leads) == 10033
    titles = [lead.title for lead in leads[:1000]]
    assert {"Albert Einstein", "Earth", "Mathematics", "World War II", "DNA"} <= set(titles)


def test_without_the_demo_group_a_sentence_says_so(monkeypatch):
    from minqa import demo

    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(minqa.InputError, match=r"install it with `uv sync --group demo`, or name a model"):
        minqa.load()
    with pytest.raises(minqa.InputError, match="or name a file with --corpus"):
        minqa.demo_passages()
