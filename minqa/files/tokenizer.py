"""The tokenizer in a model folder."""

from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from minqa.files.checkpoint import Settings, first_line, read_settings
from minqa.text import InputError
from minqa.tokens import TextTokenizer


def load_tokenizer(
    folder: Path, *, max_tokens: int | None, max_positions: int, lowercase: bool = False
) -> TextTokenizer:
    """The tokenizer of a model folder, which gives the ids that transformers' AutoTokenizer gives.

    Args:
        folder: holds `tokenizer.json` or `vocab.txt`, and may hold `tokenizer_config.json`.
        max_tokens: longest input, special tokens included; None takes the tokenizer's own limit.
        max_positions: the most tokens that the model can number.
        lowercase: whether to lower-case a text before the tokenizer's own normalization.

    Raises:
        InputError: there is no tokenizer, or it cannot be read, or its vocabulary lacks [UNK].
    """
    settings = read_settings(folder / "tokenizer_config.json", optional=True)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(f"{folder} holds no tokenizer: tokenizer.json or vocab.txt is needed.")
    try:
        backend = _read_backend(folder, settings)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise InputError(f"The tokenizer in {folder} cannot be read: {first_line(error)}.") from error
    unknown, vocabulary = getattr(backend.model, "unk_token", None), backend.get_vocab(False)
    if not vocabulary or (unknown and unknown not in vocabulary):
        raise InputError(f"The vocabulary of the tokenizer in {folder} lacks {unknown or 'every token'}.")
    if lowercase:
        before = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    limit = min(max_tokens or settings.get("model_max_length", int) or max_positions, max_positions)
    backend.no_padding()
    specials = len(backend.encode("").ids)
    if not 0 < specials < limit:
        raise InputError(f"The tokenizer in {folder} has {specials} special tokens and room for {limit}.")
    side = settings.get("truncation_side", str) or (backend.truncation or {}).get("direction", "right")
    if side not in ("left", "right"):
        raise InputError(f"{settings.place}: truncation_side is {side!r}, but must be 'left' or 'right'.")
    backend.enable_truncation(limit, direction=side)
    return TextTokenizer(backend, limit)


def _read_backend(folder: Path, settings: Settings) -> Tokenizer:
    """`tokenizer.json`, if the other files say the same; else what transformers makes of them all.

    Importing transformers takes over a second, which most folders need not wait for.
    """
    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if _is_all(backend, folder, settings):
            return backend
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer


def _is_all(backend: Tokenizer, folder: Path, settings: Settings) -> bool:
    """Whether the other files of the folder change nothing about `tokenizer.json`."""
    said = dict(settings.values)
    known = added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    if listed := settings.get("added_tokens_decoder", dict):
        added = {token["content"]: int(number) for number, token in listed.items()}
    else:  # two files that transformers wrote before version 4.34
        said |= read_settings(folder / "special_tokens_map.json", optional=True).values
        added = {**known, **read_settings(folder / "added_tokens.json", optional=True).values}
    roles = {key: _content(value) for key, value in said.items() if key.endswith("_token")}
    lists = [said.get(key) or () for key in ("extra_special_tokens", "additional_special_tokens")]
    special = [*roles.values(), *map(_content, chain(*lists))]
    if added != known or not all(token in known for token in special if isinstance(token, str)):
        return False
    if settings.get("tokenizer_class", str) in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return True
    # What BERT's tokenizer makes of its settings.
    cls, sep, unknown = (roles.get(f"{role}_token") or f"[{role.upper()}]" for role in ("cls", "sep", "unk"))
    lowercase, chinese = (
        settings.get(key, bool) is not False for key in ("do_lower_case", "tokenize_chinese_chars")
    )
    ours = backend.normalizer
    return (
        isinstance(ours, normalizers.BertNormalizer)
        and (ours.clean_text, ours.lowercase, ours.handle_chinese_chars) == (True, lowercase, chinese)
        and ours.strip_accents == settings.get("strip_accents", bool)
        and backend.encode("").tokens[:2] == [cls, sep]
        and getattr(backend.model, "unk_token", None) == unknown
    )


def _content(token: Any) -> Any:
    """A token's text; some are written down with flags."""
    return token["content"] if isinstance(token, dict) else token
