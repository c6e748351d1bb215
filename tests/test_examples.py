"""The examples that read like articles run, say what they say, and open as notebooks."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAID = {
    "heat_map": "score 0.",
    "ranking": "first place is right: ",
    "unit": "unit 1.787",
    "colbert": "[MASK] × 22",
    "animacy": "head 4.1  moves +0.26",
    "index_elsewhere": "FAISS finds the same 5 passages",
}


@pytest.mark.parametrize("name", SAID)
def test_an_article_runs(minilm, leads, capsys, name):
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert SAID[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", SAID)
def test_an_article_opens_as_a_notebook(name):
    jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed")
    kinds = [cell.cell_type for cell in jupytext.read(EXAMPLES / f"{name}.py").cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2) + ["markdown"] * (len(kinds) % 2)
    assert len(kinds) >= 8
