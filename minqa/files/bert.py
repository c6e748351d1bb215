"""BERT's files: the sizes in `config.json`, and how checkpoints name its parameters."""

from dataclasses import fields

from minqa.bert import BertConfig
from minqa.files.checkpoint import AS_IS, Settings, checked, number, only, whole
from minqa.text import InputError


def read_bert_config(settings: Settings) -> BertConfig:
    """Read the sizes from a `config.json`.

    Raises:
        InputError: a size is missing or absurd, or the settings describe another model than this one.
    """
    values = checked(settings, _CHECKS, "BERT")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise InputError(f"{settings.place}: hidden_size is no multiple of num_attention_heads.")
    return BertConfig(**{field.name: values[field.name] for field in fields(BertConfig)})


_CHECKS = {field.name: whole(field.name) for field in fields(BertConfig) if field.type is int} | {
    "num_hidden_layers": whole("num_hidden_layers", high=256),
    "layer_norm_eps": number("layer_norm_eps", 0.0, 1.0, 1e-12),
    "hidden_dropout_prob": number("hidden_dropout_prob", 0.0, 1.0, 0.1),
    "attention_probs_dropout_prob": number("attention_probs_dropout_prob", 0.0, 1.0, 0.1),
    # Not represented, but they would change what the model computes.
    "model_type": only("model_type", "bert"),
    "hidden_act": only("hidden_act", "gelu"),
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
_SUFFIXES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
TENSORS = {
    f"{path}.{kind}": (f"{prefix}.{suffix}", AS_IS)
    for path, prefix in _PREFIXES.items()
    for kind, suffix in _SUFFIXES.items()
}
OLDER_NAMES = {r"^bert\.": "", r"\.gamma$": ".weight", r"\.beta$": ".bias"}
# Heads that are of no use, and two buffers that old transformers wrote down.
UNUSED_TENSORS = r"(qa_outputs|pooler|cls|classifier)\.|embeddings\.(position_ids|token_type_ids)$"
