"""A model folder or hub id → an encoder: model, tokenizer and the settings that belong to them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from minqa import demo
from minqa.bert import OLDER_NAMES, TENSOR_NAMES, UNUSED_TENSORS, Bert, BertConfig
from minqa.checkpoint import fill, read_tensors
from minqa.errors import InputError
from minqa.settings import Settings, read_json, read_settings
from minqa.tokens import Tokens, WordPiece, load_word_piece

Role = Literal["query", "passage"]
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


@dataclass(frozen=True)
class Encoder:
    """Everything that turns a text into vectors.

    Attributes:
        name: as it was asked for, to be shown.
        model: a pytree, called as `model(ids, mask)`.
        tokenizer: called as `tokenizer(texts, prompt)`.
        pooling: how token vectors become one vector.
        prompts: texts read before a text, by name; see `prompt`.
        default_prompt: the name of the prompt for a text of no particular role.
        fingerprint: a hash of all of the above; two encoders that share it give the same vectors.
    """

    name: str
    model: Bert
    tokenizer: WordPiece
    pooling: Pooling
    prompts: Mapping[str, str]
    default_prompt: str
    fingerprint: str

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


def load(source: str | Path | None = None, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Encoder:
    """Load a BERT encoder.

    Args:
        source: a folder or a Hugging Face hub id of any BERT-architecture model, sentence-transformers'
            or plain (which is pooled by the mean); None is the default model of the demo group.
        dtype: of parameters and computation, float32 or bfloat16.

    Raises:
        InputError: there is no such model, or it is broken, or it is not a BERT.
    """
    folder = demo.model_folder() if source is None else _folder(source)
    transformer, pooling = _modules(folder)
    try:
        config = BertConfig.from_dict(read_settings(transformer / "config.json").values)
    except InputError as error:
        raise InputError(f"{transformer / 'config.json'}: {error}") from None
    limits = read_settings(transformer / "sentence_bert_config.json", optional=True)
    tokenizer = load_word_piece(
        transformer,
        max_tokens=limits.get("max_seq_length", int),
        max_positions=config.max_position_embeddings,
        lowercase=limits.get("do_lower_case", bool) or False,
    )
    if max(tokenizer.backend.get_vocab().values()) >= config.vocab_size:
        raise InputError(f"The tokenizer in {transformer} knows more tokens than vocab_size in config.json.")
    prompts, default_prompt = _prompts(folder)
    tensors = read_tensors(transformer)
    model = fill(
        jax.eval_shape(lambda: Bert(config, rngs=nnx.Rngs(0))),
        tensors,
        TENSOR_NAMES,
        older_names=OLDER_NAMES,
        unused=UNUSED_TENSORS,
        dtype=dtype,
    )
    described = (config, tokenizer.max_tokens, pooling, prompts, default_prompt, jnp.dtype(dtype).name)
    return Encoder(
        name="all-MiniLM-L6-v2" if source is None else str(source),
        model=model,
        tokenizer=tokenizer,
        pooling=pooling,
        prompts=prompts,
        default_prompt=default_prompt,
        fingerprint=_fingerprint(described, tokenizer, tensors),
    )


def _folder(source: str | Path) -> Path:
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
            found = Path(snapshot_download(source, allow_patterns=[*wanted, "pytorch_model.bin"]))
        return found
    except HFValidationError:
        raise InputError(f"{source} is neither a folder nor a Hugging Face hub id.") from None
    except Exception as error:  # the hub client raises many kinds, with advice of several lines
        reason = (str(error).strip() or repr(error)).splitlines()[0].removeprefix("Got: ").rstrip(".")
        raise InputError(
            f"{source} is no folder here and could not be fetched from the Hugging Face hub ({reason}); "
            "without a network leave --model out, and the installed all-MiniLM-L6-v2 is used."
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


def _fingerprint(settings: tuple, tokenizer: WordPiece, tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{settings}\n{tokenizer.backend.to_str()}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
