"""What a config.json must say to be a BERT's."""

import re
from pathlib import Path

import pytest

import minqa
from minqa.files.bert import read_bert_config
from minqa.files.checkpoint import Settings

SIZES = dict(
    vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
    max_position_embeddings=8, type_vocab_size=2,
)  # fmt: skip


SUPPORTED = "'bert', 'distilbert', 'roberta', 'xlm-roberta'"
OTHERS = [
    "mpnet",
    "electra",
    "albert",
    "nomic_bert",
    "modernbert",
    "camembert",
    "gpt2",
    "",
    None,
    ["bert"],
    3,
]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        *(
            (dict(model_type=kind), f"model_type is {re.escape(repr(kind))}, but only {SUPPORTED} are")
            for kind in OTHERS
        ),
        (dict(hidden_act="silu"), "hidden_act is 'silu', but only 'relu', 'gelu', 'gelu_new', .* are"),
        (dict(hidden_act=None), "hidden_act is None"),
        (dict(hidden_act=["gelu"]), "hidden_act is"),
        (dict(type_vocab_size=0), "type_vocab_size is 0"),
        (dict(model_type="roberta", pad_token_id=None), "pad_token_id is None, but must be a whole number"),
        (dict(model_type="distilbert"), "dim is missing; n_layers is missing; n_heads is missing"),
        (dict(position_embedding_type="relative_key"), "only 'absolute' is supported"),
        (dict(is_decoder=True), "is_decoder is True"),
        (dict(add_cross_attention=True), "add_cross_attention"),
        (dict(pruned_heads={"0": [1]}), "pruned_heads"),
        (dict(num_attention_heads=3), "no multiple"),
        (dict(hidden_size="8"), "hidden_size is '8', but must be a whole number"),
        (dict(num_hidden_layers=0), "num_hidden_layers is 0"),
        (dict(num_hidden_layers=10**9), "num_hidden_layers is 1000000000, but must be"),
        (dict(vocab_size=True), "vocab_size is True"),
        (dict(layer_norm_eps=float("nan")), "layer_norm_eps is nan, but must be a number from 0"),
        (dict(layer_norm_eps=10**400), "layer_norm_eps"),
        (dict(hidden_dropout_prob=True), "hidden_dropout_prob is True"),
        (dict(attention_probs_dropout_prob=1.5), "attention_probs_dropout_prob is 1.5"),
    ],
    ids=str,
)
def test_a_config_that_is_not_represented_is_refused(changes, complaint):
    with pytest.raises(minqa.InputError, match=complaint) as error:
        read_config(SIZES | changes)
    assert "config.json" in str(error.value)


def read_config(values):
    return read_bert_config(Settings(Path("config.json"), values))


def test_every_missing_key_is_named():
    with pytest.raises(minqa.InputError, match=r"vocab_size is missing; .*type_vocab_size is missing"):
        read_config({"model_type": "bert"})
    for key in SIZES:
        with pytest.raises(minqa.InputError, match=f"{key} is missing"):
            read_config({name: size for name, size in SIZES.items() if name != key})
    config = read_config(SIZES)
    assert config.layer_norm_eps == 1e-12 and config.hidden_dropout_prob == 0.1
