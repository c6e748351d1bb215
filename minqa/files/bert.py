"""BERT's files, and its relatives': sizes in `config.json`, and how checkpoints name the parameters."""

from dataclasses import MISSING, fields
from typing import Any

from minqa.bert import ACTIVATIONS, BertConfig
from minqa.files.checkpoint import AS_IS, Names, Settings, checked, number, one_of, only, whole
from minqa.text import InputError

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")  # values of `model_type`


def read_bert_config(settings: Settings) -> BertConfig:
    """Read the sizes from a `config.json`.

    Raises:
        InputError: a size is missing or absurd, or the settings describe another model than these.
    """
    kind = checked(settings, {"model_type": _CHECKS["model_type"]}, "BERT")["model_type"]
    values = checked(settings, CHECKS[kind], "BERT")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise InputError(f"{settings.place}: hidden_size is no multiple of num_attention_heads.")
    values["first_position"] = values.get("padding", -1) + 1
    values |= _DISTILBERT_SIZES if kind == "distilbert" else {}
    return BertConfig(**{field.name: values[field.name] for field in fields(BertConfig)})


def bert_settings(config: BertConfig) -> dict[str, Any]:
    """What `read_bert_config` reads."""
    values = {**vars(config), "padding": config.first_position - 1}
    return {check.key: values[name] for name, check in CHECKS[config.model_type].items() if name in values}


_CHECKS = {field.name: whole(field.name) for field in fields(BertConfig) if field.default is MISSING} | {
    "num_hidden_layers": whole("num_hidden_layers", high=256),
    "layer_norm_eps": number("layer_norm_eps", 0.0, 1.0, 1e-12),
    "hidden_dropout_prob": number("hidden_dropout_prob", 0.0, 1.0, 0.1),
    "attention_probs_dropout_prob": number("attention_probs_dropout_prob", 0.0, 1.0, 0.1),
    "hidden_act": one_of("hidden_act", [*ACTIVATIONS], "gelu"),
    "model_type": one_of("model_type", FAMILIES, "bert"),
    # Not represented, but they would change what the model computes.
    "position_embedding_type": only("position_embedding_type", "absolute", None),
    "is_decoder": only("is_decoder", False),
    "add_cross_attention": only("add_cross_attention", False),
    "pruned_heads": only("pruned_heads", {}),
}
# RoBERTa's table of positions begins with those up to the padding's id, which no token has.
_PADDING = {"padding": whole("pad_token_id", 0, default=1)}
_DISTILBERT_KEYS = dict(
    hidden_size="dim", num_hidden_layers="n_layers", num_attention_heads="n_heads", hidden_act="activation",
    intermediate_size="hidden_dim", hidden_dropout_prob="dropout",
    attention_probs_dropout_prob="attention_dropout",
)  # fmt: skip
_DISTILBERT = {name: _CHECKS[name]._replace(key=key) for name, key in _DISTILBERT_KEYS.items()}
CHECKS = {kind: _CHECKS | (_PADDING if "roberta" in kind else {}) for kind in FAMILIES}
# What DistilBERT always has, whatever its file says, as in transformers.
_DISTILBERT_SIZES = {"type_vocab_size": 0, "layer_norm_eps": 1e-12}
CHECKS["distilbert"] = {
    name: check for name, check in (_CHECKS | _DISTILBERT).items() if name not in _DISTILBERT_SIZES
}


# How checkpoints name these modules: path here → prefix there, `{}` for the layer's number.
_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
_LAYERS = {  # BERT's and RoBERTa's, and DistilBERT's
    "attention.query": ("attention.self.query", "attention.q_lin"),
    "attention.key": ("attention.self.key", "attention.k_lin"),
    "attention.value": ("attention.self.value", "attention.v_lin"),
    "attention.output": ("attention.output.dense", "attention.out_lin"),
    "attention_norm": ("attention.output.LayerNorm", "sa_layer_norm"),
    "expand": ("intermediate.dense", "ffn.lin1"),
    "contract": ("output.dense", "ffn.lin2"),
    "output_norm": ("output.LayerNorm", "output_layer_norm"),
}
_SUFFIXES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def _tensors(layer: str, column: int) -> Names:
    layers = {f"layers.{path}": f"{layer}.{names[column]}" for path, names in _LAYERS.items()}
    return {
        f"{path}.{kind}": (f"{prefix}.{suffix}", AS_IS)
        for path, prefix in (_EMBEDDINGS | layers).items()
        for kind, suffix in _SUFFIXES.items()
    }


TENSORS = dict.fromkeys(FAMILIES, _tensors("encoder.layer.{}", 0))
TENSORS["distilbert"] = _tensors("transformer.layer.{}", 1)
OLDER_NAMES = {r"^(bert|roberta|distilbert)\.": "", r"\.gamma$": ".weight", r"\.beta$": ".bias"}
# Heads that are of no use, and two buffers that old transformers wrote down.
UNUSED_TENSORS = (
    r"(qa_outputs|pooler|cls|classifier|lm_head|pre_classifier|vocab_(transform|layer_norm|projector))\."
    r"|embeddings\.(position_ids|token_type_ids)$"
)
