"""The tokenizer in a model folder."""

from pathlib import Path

from tokenizers import Tokenizer, normalizers

from minqa.files.checkpoint import Settings, read_settings
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
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise InputError(f"The tokenizer in {folder} cannot be read: {error}") from error
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
    """`tokenizer.json`, if `tokenizer_config.json` says the same; else what transformers makes of both.

    Importing transformers takes over a second, which most folders need not wait for.
    """
    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if settings.get("tokenizer_class", str) in ("PreTrainedTokenizerFast", "TokenizersBackend"):
            return backend
        ours, get = backend.normalizer, settings.values.get
        wanted = [
            settings.get(key, bool) for key in ("do_lower_case", "tokenize_chinese_chars", "strip_accents")
        ]
        added = {str(number): token.content for number, token in backend.get_added_tokens_decoder().items()}
        listed = {number: token["content"] for number, token in (get("added_tokens_decoder") or {}).items()}
        special = [get(f"{role}_token") or f"[{role.upper()}]" for role in ("cls", "sep", "unk")]
        special += [*(get("extra_special_tokens") or ()), *(get("additional_special_tokens") or ())]
        if (
            isinstance(ours, normalizers.BertNormalizer)
            and (ours.lowercase, ours.handle_chinese_chars)
            == tuple(value is not False for value in wanted[:2])
            and (ours.clean_text, ours.strip_accents) == (True, wanted[2])
            and listed in ({}, added)
            and all(token in added.values() for token in special)
        ):
            return backend
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
