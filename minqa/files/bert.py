"""BERT's files, and its relatives': sizes in `config.json`, and how checkpoints name the parameters."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from minqa.bert import ACTIVATIONS, BertConfig
from minqa.files.checkpoint import AS_IS, Check, Names, Settings, checked, number, one_of, only, whole
from minqa.text import InputError


def read_bert_config(settings: Settings) -> BertConfig:
    """Read the sizes from a `config.json`.

    Raises:
        InputError: a size is missing or absurd, or the settings describe another model than these.
    """
    kind = checked(settings, {"model_type": one_of("model_type", [*FAMILIES], "bert")}, "BERT")["model_type"]
    values = checked(settings, FAMILIES[kind].checks, "BERT") | {"model_type": kind}
    if values["hidden_size"] % values["num_attention_heads"]:
        raise InputError(f"{settings.place}: hidden_size is no multiple of num_attention_heads.")
    values["first_position"] = values.get("padding", -1) + 1
    return BertConfig(**{field.name: values[field.name] for field in fields(BertConfig)})


def bert_settings(config: BertConfig) -> dict[str, Any]:
    """What `read_bert_config` reads."""
    checks = FAMILIES[config.model_type].checks
    values = {**vars(config), "padding": config.first_position - 1}
    keys = {check.key: values[name] for name, check in checks.items() if name in values}
    return {"model_type": config.model_type, **keys}


_CHECKS = {field.name: whole(field.name) for field in fields(BertConfig) if field.default is MISSING} | {
    "num_hidden_layers": whole("num_hidden_layers", high=256),
    "layer_norm_eps": number("layer_norm_eps", 0.0, 1.0, 1e-12),
    "hidden_dropout_prob": number("hidden_dropout_prob", 0.0, 1.0, 0.1),
    "attention_probs_dropout_prob": number("attention_probs_dropout_prob", 0.0, 1.0, 0.1),
    "hidden_act": one_of("hidden_act", [*ACTIVATIONS], "gelu"),
    # Not represented, but they would change what the model computes.
    "position_embedding_type": only("position_embedding_type", "absolute", None),
    "is_decoder": only("is_decoder", False),
    "add_cross_attention": only("add_cross_attention", False),
    "pruned_heads": only("pruned_heads", {}),
}


# How checkpoints name these modules: path here → prefix there, `{}` for the layer's number.
_PREFIXES = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.attention.query": "encoder.layer.{}.attention.self.query",
    "layers.attention.key": "encoder.layer.{}.attention.self.key",
    "layers.attention.value": "encoder.layer.{}.attention.self.value",
    "layers.attention.output": "encoder.layer.{}.attention.output.dense",
    "layers.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers.expand": "encoder.layer.{}.intermediate.dense",
    "layers.contract": "encoder.layer.{}.output.dense",
    "layers.output_norm": "encoder.layer.{}.output.LayerNorm",
}
_DISTILBERT_PREFIXES = {
    "layers.attention.query": "transformer.layer.{}.attention.q_lin",
    "layers.attention.key": "transformer.layer.{}.attention.k_lin",
    "layers.attention.value": "transformer.layer.{}.attention.v_lin",
    "layers.attention.output": "transformer.layer.{}.attention.out_lin",
    "layers.attention_norm": "transformer.layer.{}.sa_layer_norm",
    "layers.expand": "transformer.layer.{}.ffn.lin1",
    "layers.contract": "transformer.layer.{}.ffn.lin2",
    "layers.output_norm": "transformer.layer.{}.output_layer_norm",
}
_SUFFIXES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def _tensors(prefixes: Mapping[str, str]) -> Names:
    return {
        f"{path}.{kind}": (f"{prefix}.{suffix}", AS_IS)
        for path, prefix in prefixes.items()
        for kind, suffix in _SUFFIXES.items()
    }


TENSORS = _tensors(_PREFIXES)
OLDER_NAMES = {r"^(bert|roberta|distilbert)\.": "", r"\.gamma$": ".weight", r"\.beta$": ".bias"}
# Heads that are of no use, and two buffers that old transformers wrote down.
UNUSED_TENSORS = (
    r"(qa_outputs|pooler|cls|classifier|lm_head|pre_classifier|vocab_(transform|layer_norm|projector))\."
    r"|embeddings\.(position_ids|token_type_ids)$"
)


class Family(NamedTuple):
    """How the files of one `model_type` say what a BERT is."""

    checks: Mapping[str, Check]  # of its settings, by their names in BertConfig
    tensors: Names = TENSORS


# The table of positions begins with those up to the padding's id, which no token has.
_ROBERTA = Family(_CHECKS | {"padding": whole("pad_token_id", 0)._replace(default=1)})
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_act": "activation",
}
_DISTILBERT_CHECKS = {name: _CHECKS[name]._replace(key=key) for name, key in _DISTILBERT_KEYS.items()}
FAMILIES = {
    "bert": Family(_CHECKS),
    "distilbert": Family(
        _CHECKS | _DISTILBERT_CHECKS | {"type_vocab_size": only("type_vocab_size", 0)},
        _tensors(_PREFIXES | _DISTILBERT_PREFIXES),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
