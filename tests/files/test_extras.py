"""Optional packages: imported where they are needed, or named in one sentence."""

import json
import sys

import pytest

import minqa
from minqa.files.extras import needed


def test_what_is_installed_is_imported():
    assert needed("json", "This") is json
    assert needed("os.path", "This").join is not None


@pytest.mark.parametrize(
    ("arguments", "how", "sentence"),
    [
        (
            ("sklearn.decomposition", "A factorization", "factors"),
            {},
            "A factorization needs scikit-learn: install it with `uv sync --extra factors`.",
        ),
        (
            ("pyarrow", "Parquet", "corpus"),
            {},
            "Parquet needs pyarrow: install it with `uv sync --extra corpus`.",
        ),
        (("torch", "Reading x"), {"instead": "do y"}, "Reading x needs PyTorch: install it, or do y."),
    ],
)
def test_what_is_missing_is_named(monkeypatch, arguments, how, sentence):
    monkeypatch.setitem(sys.modules, arguments[0], None)
    with pytest.raises(minqa.InputError) as error:
        needed(*arguments, **how)
    assert str(error.value) == sentence
