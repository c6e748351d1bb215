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
from minqa.files.dense import LAYER_TENSORS, DenseBert
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (
            _elmo_options(model) if isinstance(model, Elmo) else _bert_settings(encoder, model)
        ).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=1), "utf-8")
        if not isinstance(model, Elmo):
            encoder.tokenizer.backend.save(str(folder / "tokenizer.json"))
            for i, layer in enumerate(getattr(model, "dense", ()), 2):
                tensors = {LAYER_TENSORS[name]: tensor for name, tensor in dump(layer).items()}
                save_file(tensors, folder / f"{i}_Dense/model.safetensors")
            plain = model.bert if isinstance(model, DenseBert) else model
            names = bert.TENSORS[plain.config.model_type]
            save_file(dump(plain, names), folder / "model.safetensors")
        else:
            with h5py.File(folder / "weights.hdf5", "w") as file:
                for name, tensor in dump(model, elmo.TENSORS).items():
                    file[name] = tensor.astype(np.float32)  # HDF5 knows no bfloat16
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}).") from error


def _bert_settings(encoder: Encoder, model: Bert | DenseBert) -> dict[str, Any]:
    pooling, limit, backend = encoder.pooling, encoder.tokenizer.max_tokens, encoder.tokenizer.backend
    config, dense, _ = model.config if isinstance(model, DenseBert) else (model.config, (), False)
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * pooling.normalize]
    return {
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
            for i, kind in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "pooling_mode": list(pooling.modes),
            "include_prompt": pooling.include_prompt,
            "word_embedding_dimension": config.hidden_size,
        },
        **{
            f"{i}_Dense/config.json": {
                "in_features": sizes.inputs,
                "out_features": sizes.outputs,
                "activation_function": f"torch.nn.{sizes.activation}",
                "bias": sizes.bias,
                "use_residual": sizes.residual,
            }
            for i, sizes in enumerate(dense, 2)
        },
        "config_sentence_transformers.json": {
            "prompts": dict(encoder.prompts),
            "default_prompt_name": encoder.default_prompt or None,
            "similarity_fn_name": pooling.similarity,
            "truncate_dim": pooling.truncate_dim,
        },
    }


def _elmo_options(model: Elmo) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, check in elmo.CHECKS.items():
        *parts, last = check.key.split(".")
        place = options
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = getattr(model.config, name, check.default)
    return {"options.json": options}
