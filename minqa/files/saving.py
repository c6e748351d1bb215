"""An encoder → the files that `minqa.load` reads."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save_file

from minqa.bert import Bert
from minqa.elmo import Elmo
from minqa.encoder import Encoder, Pooling
from minqa.files import bert, elmo
from minqa.files.checkpoint import dump
from minqa.files.dense import LAYER_SETTINGS, LAYER_TENSORS, DenseBert
from minqa.text import InputError

MODULES = "sentence_transformers.models"


def save(encoder: Encoder, folder: str | Path) -> None:
    """Write a sentence-transformers folder, or the two files of an ELMo.

    What belongs to a corpus or a comparison (layer, centring, weights, statistics) is not written.

    Raises:
        InputError: the model is neither a BERT nor an ELMo of minqa, or the folder cannot be written.
    """
    folder, model = Path(folder), encoder.model
    if encoder.is_late:
        raise InputError(f"{encoder.name} is a ColBERT, which can be loaded, but not saved.")
    if not isinstance(model, Bert | DenseBert | Elmo):
        raise InputError(
            f"{encoder.name} is neither a BERT nor an ELMo, so no format is known for its files."
        )
    if isinstance(model, Elmo) and (encoder.prompts or encoder.pooling != Pooling()):
        raise InputError(f"An ELMo's files hold no prompts and no pooling: {encoder.name}'s would be lost.")
    files = _elmo_files(model) if isinstance(model, Elmo) else _bert_files(encoder, model)
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                save_file(content, path)
            elif path.suffix == ".hdf5":
                with h5py.File(path, "w") as file:
                    for key, tensor in content.items():
                        file[key] = tensor.astype(np.float32)  # HDF5 knows no bfloat16
            else:
                text = content if isinstance(content, str) else json.dumps(content, indent=1)
                path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}).") from error


def _bert_files(encoder: Encoder, model: Bert | DenseBert) -> dict[str, Any]:
    pooling, limit, backend = encoder.pooling, encoder.tokenizer.max_tokens, encoder.tokenizer.backend
    plain, dense = (model.bert, model.dense) if isinstance(model, DenseBert) else (model, ())
    config, kinds = plain.config, ["Transformer", "Pooling", *["Dense"] * len(dense)]
    files = {
        "model.safetensors": dump(plain, bert.TENSORS[config.model_type]),
        "tokenizer.json": backend.to_str(pretty=True),
        "config.json": bert.bert_settings(config),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": limit,
            "pad_token": backend.id_to_token(max(config.first_position, 1) - 1),  # it is masked
            "sep_token": backend.encode("").tokens[-1],
        },
        "sentence_bert_config.json": {"max_seq_length": limit},
        "modules.json": [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" * (i > 0), "type": f"{MODULES}.{kind}"}
            for i, kind in enumerate(kinds + ["Normalize"] * pooling.normalize)
        ],
        "1_Pooling/config.json": {
            "pooling_mode": list(pooling.modes),
            "include_prompt": pooling.include_prompt,
            "word_embedding_dimension": config.hidden_size,
        },
        "config_sentence_transformers.json": {
            "prompts": dict(encoder.prompts),
            "default_prompt_name": encoder.default_prompt or None,
            "similarity_fn_name": pooling.similarity,
            "truncate_dim": pooling.truncate_dim,
        },
    }
    for i, layer in enumerate(dense, 2):
        tensors = {LAYER_TENSORS[name]: tensor for name, tensor in dump(layer).items()}
        files[f"{i}_Dense/model.safetensors"] = tensors
        sizes = layer.config._replace(activation=f"torch.nn.{layer.config.activation}")
        files[f"{i}_Dense/config.json"] = dict(zip(LAYER_SETTINGS, sizes, strict=True))
    return files


def _elmo_files(model: Elmo) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, check in elmo.CHECKS.items():
        *parts, last = check.key.split(".")
        place = options
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = getattr(model.config, name, check.default)
    return {"options.json": options, "weights.hdf5": dump(model, elmo.TENSORS)}
