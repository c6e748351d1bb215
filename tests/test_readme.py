"""What the README shows works as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import make_elmo_folder

import minqa

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
COURSE = (ROOT / "examples" / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README + COURSE, re.DOTALL)


def test_the_python_block_runs_as_it_stands(minilm, leads, capsys):
    names = {}
    exec(BLOCKS[0], names)
    said = capsys.readouterr().out
    first, second = said.splitlines()
    assert "Span(text='theory of relativity'" in first and first.endswith(")]")
    assert second.startswith("Answer(text='Albert Einstein', probability=0.9")
    assert names["cosines"].shape == names["rows"].shape == names["scores"].shape == (20,)
    best = names["passages"][int(names["rows"][names["scores"].argmax()])]
    assert best.title == "Albert Einstein"
    assert names["heat"].score == pytest.approx(names["scores"].max(), abs=1e-5)


def test_the_answer_block_finds_who(minilm, capsys):
    exec(BLOCKS[1], {})
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Albert Einstein 0 15 0.")


def test_the_state_is_carried_as_the_elmo_block_says(tmp_path, monkeypatch):
    folder = make_elmo_folder(tmp_path / "small-elmo")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(BLOCKS[2], names)
    first, second = minqa.load(folder).tokenize(["A text.", "And the next one."])
    model = minqa.load(folder).model
    _, state, _ = model(first.ids[None], np.ones((1, len(first)), bool))
    expected, *_ = model(second.ids[None], np.ones((1, len(second)), bool), state)
    np.testing.assert_allclose(names["hidden"], expected, atol=1e-6)


def test_a_corpus_of_ones_own_is_indexed_and_searched(minilm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("A war.\n\nEinstein developed relativity.\n\nWho knows?")
    exec(BLOCKS[3], {})
    found = capsys.readouterr().out.splitlines()
    assert len(found) == 3 and "Einstein" in found[0] and "id='2:0'" in found[0]


def test_the_mesh_block_finds_what_one_device_does():
    names = {}
    exec(BLOCKS[4], names)
    expected = minqa.match(names["vectors"][:2], names["vectors"], k=10)
    np.testing.assert_array_equal(names["rows"], expected[1])
    np.testing.assert_array_equal(names["cosines"], expected[0])


def test_every_file_of_the_heart_and_every_wing_is_on_the_map_and_every_name_is_there():
    named = re.findall(r"^\| `minqa/(\w+)(?:\.py|/)`", README, re.MULTILINE)
    paths = [
        path
        for path in (ROOT / "minqa").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    assert sorted(named) == sorted(path.stem for path in paths if path.stem[:2] != "__")
    assert all(getattr(minqa, name) for name in minqa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minqa.nothing  # noqa: B018
