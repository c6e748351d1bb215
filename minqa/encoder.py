"""A model's files → an encoder: model, tokenizer and the settings that belong to them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from minqa import bert, demo, elmo
from minqa.checkpoint import fill, read_hdf5, read_tensors
from minqa.errors import InputError, first_line
from minqa.settings import Settings, read_json, read_settings
from minqa.tokens import TextReader, Tokens, WordPiece, load_word_piece, make_speller

Role = Literal["query", "passage"]
Config = TypeVar("Config")
POOLING_MODES = ("mean", "cls", "max", "mean_sqrt_len_tokens")
# How sentence-transformers before 6 wrote the same down.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one vector, as a sentence-transformers folder says.

    Attributes:
        modes: some of `POOLING_MODES`; several are concatenated.
        normalize: whether the pooled vector is scaled to length 1.
        include_prompt: whether the prompt's tokens are pooled too.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    include_prompt: bool = True


@runtime_checkable
class Model(Protocol):
    """A pytree with `model(ids, mask).hidden`, the vectors of every layer: [layer+1, batch, token, dim].

    It is called as it is: what should be compiled, its whole `__call__` or parts of it, it decorates itself.
    """

    @property
    def num_layers(self) -> int: ...

    def __call__(self, ids, mask, /): ...


@dataclass(frozen=True)
class Encoder:
    """Everything that turns a text into vectors.

    Attributes:
        name: as it was asked for, to be shown.
        model: a pytree, called as `model(ids, mask)`; its output has `hidden`, the vectors of every layer.
        tokenizer: called as `tokenizer(texts, prompt)`.
        batch_tokens: how many tokens at once keep the model fastest, on "cpu" and on an "accelerator".
        pooling: how token vectors become one vector.
        prompts: texts read before a text, by name; see `prompt`.
        default_prompt: the name of the prompt for a text of no particular role.
        fingerprint: a hash of all of the above; two encoders that share it give the same vectors.
    """

    name: str
    model: Model
    tokenizer: TextReader
    batch_tokens: Mapping[str, int]
    pooling: Pooling
    prompts: Mapping[str, str]
    default_prompt: str
    fingerprint: str

    @cached_property
    def replicas(self) -> list[Model]:
        """The model on each device of this process, a copy on each but the one it is on."""
        return [jax.device_put(self.model, device) for device in jax.local_devices()]

    def tokenize(self, texts: Sequence[str], role: Role | None = None) -> list[Tokens]:
        """Tokens of each text, with the prompt for its role before it."""
        if isinstance(texts, str):
            raise TypeError("texts is one string; put it into a list.")
        return self.tokenizer(texts, self.prompt(role))

    def prompt(self, role: Role | None) -> str:
        """What is read before a text in this role, as sentence-transformers chooses it."""
        names = {
            "query": ["query"],
            "passage": ["document", "passage", "corpus"],
            None: [self.default_prompt],
        }
        return next((self.prompts[name] for name in names[role] if self.prompts.get(name)), "")


def load(source: str | Path = demo.MODEL, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Encoder:
    """Load an encoder.

    Args:
        source: a folder or a Hugging Face hub id of any BERT-architecture model, sentence-transformers' or
            plain (which is pooled by the mean), or of an ELMo, with the two files that `load_elmo` takes;
            the default is the model of the demo group.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: there is no such model, or it is broken, or it is neither a BERT nor an ELMo.
    """
    folder = model_folder(source)
    parts = {kind: sorted(folder.glob(f"*{kind}")) for kind in ("options.json", "weights.hdf5")}
    if any((folder / name).is_file() for name in ("config.json", "modules.json")):
        return _load_bert(folder, str(source), dtype)
    if not any(parts.values()):
        raise InputError(
            f"{folder} holds no config.json, as a BERT does, and no *options.json and *weights.hdf5, as an "
            "ELMo does."
        )
    for kind, files in parts.items():
        if len(files) != 1:
            found = ", ".join(path.name for path in files) or "none"
            raise InputError(f"{folder} should hold one *{kind}, as an ELMo is released, but holds {found}.")
    [options], [weights] = parts.values()
    return load_elmo(options, weights, name=str(source), dtype=dtype)


def load_elmo(
    options: str | Path,
    weights: str | Path,
    *,
    name: str | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Encoder:
    """Load an ELMo from the two files that it was released as; texts are pooled by the mean of their words.

    Args:
        options: the JSON file with its sizes.
        weights: the HDF5 file.
        name: to be shown, in place of that of the weights' file.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: a file is missing or broken, or they do not belong together.
    """
    options, weights = Path(options), Path(weights)
    config = _read_config(elmo.ElmoConfig.from_dict, options)
    tensors = read_hdf5(weights)
    template = jax.eval_shape(lambda: elmo.Elmo(config, rngs=nnx.Rngs(0)))
    tokenizer = make_speller(config.characters_per_word)
    return Encoder(
        name=name or weights.name,
        model=fill(template, tensors, elmo.TENSORS, settings=options.name, dtype=dtype),
        tokenizer=tokenizer,
        batch_tokens=elmo.BATCH_TOKENS,
        pooling=Pooling(),
        prompts={},
        default_prompt="",
        fingerprint=fingerprint_of((config, tokenizer.max_tokens, jnp.dtype(dtype).name), tokenizer, tensors),
    )


def _load_bert(folder: Path, name: str, dtype: jax.typing.DTypeLike) -> Encoder:
    transformer, pooling = _modules(folder)
    config, tokenizer, tensors = read_bert(transformer)
    prompts, default_prompt = _prompts(folder)
    model = fill(
        jax.eval_shape(lambda: bert.Bert(config, rngs=nnx.Rngs(0))),
        tensors,
        bert.TENSORS,
        settings="config.json",
        older_names=bert.OLDER_NAMES,
        unused=bert.UNUSED_TENSORS,
        dtype=dtype,
    )
    described = (config, tokenizer.max_tokens, pooling, prompts, default_prompt, jnp.dtype(dtype).name)
    return Encoder(
        name=name,
        model=model,
        tokenizer=tokenizer,
        batch_tokens=bert.BATCH_TOKENS,
        pooling=pooling,
        prompts=prompts,
        default_prompt=default_prompt,
        fingerprint=fingerprint_of(described, tokenizer, tensors),
    )


def read_bert(
    folder: Path, *, max_tokens: int | None = None
) -> tuple[bert.BertConfig, WordPiece, dict[str, np.ndarray]]:
    """Sizes, tokenizer and tensors of a folder; `max_tokens` takes the place of the limit that it sets.

    Raises:
        InputError: something is missing or broken, or they do not belong together.
    """
    config = _read_config(bert.BertConfig.from_dict, folder / "config.json")
    limits = read_settings(folder / "sentence_bert_config.json", optional=True)
    tokenizer = load_word_piece(
        folder,
        max_tokens=max_tokens or limits.get("max_seq_length", int),
        max_positions=config.max_position_embeddings,
        lowercase=limits.get("do_lower_case", bool) or False,
    )
    if max(tokenizer.backend.get_vocab().values()) >= config.vocab_size:
        raise InputError(f"The tokenizer in {folder} knows more tokens than vocab_size in config.json.")
    return config, tokenizer, read_tensors(folder)


def _read_config(read: Callable[[Mapping[str, Any]], Config], path: Path) -> Config:
    values = read_settings(path).values
    try:
        return read(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def model_folder(source: str | Path) -> Path:
    """The folder of a model: itself, or the installed default's, or one fetched from the Hugging Face hub.

    Raises:
        InputError: there is none.
    """
    if source == demo.MODEL and not Path(source).is_dir():
        return demo.model_folder()
    try:
        folder = Path(source).expanduser()
        if folder.is_dir():
            return folder
        exists = folder.exists()
    except (OSError, RuntimeError):  # a name too long, a user unknown
        raise InputError(f"There is no model folder {source}.") from None
    if exists:
        raise InputError(f"{source} is a file, but a model is a folder.")
    if not isinstance(source, str) or source.startswith((".", "/", "~")):
        raise InputError(f"There is no model folder {source}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.txt", "*.safetensors"]
    try:
        found = Path(snapshot_download(source, allow_patterns=wanted))
        if not any(found.rglob("*.safetensors")):
            found = Path(
                snapshot_download(source, allow_patterns=[*wanted, "pytorch_model.bin", "*weights.hdf5"])
            )
        return found
    except HFValidationError:
        raise InputError(f"{source} is neither a folder nor a Hugging Face hub id.") from None
    except Exception as error:  # the hub client raises many kinds, with advice of several lines
        reason = first_line(error).removeprefix("Got: ")
        raise InputError(
            f"{source} is no folder here and could not be fetched from the Hugging Face hub ({reason}); "
            f"without a network name a folder, or {demo.MODEL}, which is installed."
        ) from error


def _modules(folder: Path) -> tuple[Path, Pooling]:
    """Where the transformer of a sentence-transformers folder lies, and how it pools."""
    place = folder / "modules.json"
    if not place.is_file():
        return folder, Pooling()
    modules = [
        Settings(place, module if isinstance(module, dict) else {}) for module in read_json(place, list)
    ]
    kinds = [(module.get("type", str) or "nothing").rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        supported = "Transformer, Pooling and, at the end, Normalize"
        raise InputError(f"{place} chains {', '.join(kinds)}; supported are {supported}.")
    settings = read_settings(folder / (modules[1].get("path", str) or "1_Pooling") / "config.json")
    flagged = [mode for flag, mode in _POOLING_FLAGS.items() if settings.get(flag, bool)]
    modes = settings.values.get("pooling_mode") or flagged or "mean"
    modes = modes if isinstance(modes, list) else [modes]
    if any(mode not in POOLING_MODES for mode in modes):
        named = ", ".join(map(str, modes))
        raise InputError(f"{settings.place} pools by {named}; supported are {', '.join(POOLING_MODES)}.")
    include_prompt = settings.get("include_prompt", bool) is not False
    pooling = Pooling(tuple(modes), normalize="Normalize" in kinds, include_prompt=include_prompt)
    return folder / (modules[0].get("path", str) or ""), pooling


def _prompts(folder: Path) -> tuple[dict[str, str], str]:
    """The prompts of a sentence-transformers folder by name, and the name of the default one."""
    settings = read_settings(folder / "config_sentence_transformers.json", optional=True)
    prompts = Settings(settings.place, settings.get("prompts", dict) or {})
    default = settings.get("default_prompt_name", str) or ""
    if default and default not in prompts.values:
        raise InputError(
            f"{settings.place}: default_prompt_name is {default!r}, but there is no such prompt."
        )
    return {name: prompts.get(name, str) or "" for name in prompts.values}, default


def fingerprint_of(settings: tuple, tokenizer: TextReader, tensors: Mapping[str, np.ndarray]) -> str:
    """A hash of what a model is made of."""
    digest = hashlib.sha256(f"{settings}\n{tokenizer.backend.to_str()}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
