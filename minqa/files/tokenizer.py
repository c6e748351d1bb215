"""The tokenizer in a model folder."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from minqa.files.checkpoint import Settings, first_line, read_settings
from minqa.files.extras import needed
from minqa.text import InputError
from minqa.tokens import TextTokenizer, Tokens, is_written, tokens_of_words

FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
# The words of BERT's tokenizer, of any text.
WORDS = pre_tokenizers.Sequence(
    [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")]
)


@dataclass(frozen=True)
class SubwordTokenizer(TextTokenizer):
    """A tokenizer whose tokens may hold spaces, marks and several words, such as RoBERTa's and XLM-R's.

    A token belongs to the word where its first letter or digit lies, or else its first mark: "▁world," says
    more of "world" than of the comma, which then is no word. Letters that have no token of their own belong
    to that word too: of the token "你好", no span and no heat loses 好. A token of spaces belongs to the word
    after it, as the space of "▁world," does.
    """

    def _placed(self, text, word, offsets):
        words = np.array([*(place for _, place in WORDS.pre_tokenize_str(text)), (0, 0)], np.int32)
        at = np.repeat(np.int32(-1), len(text) + 1)  # the number of each character's word
        for number, (start, end) in enumerate(words.tolist()):
            at[start:end] = number
        written = (at >= 0) & [*map({char: is_written(char) for char in {*text}}.get, text), False]

        def first(wanted):
            """The first wanted character of each token or after it; the end of the text if there is none."""
            places = np.append(np.flatnonzero(wanted), len(text))
            return places[np.searchsorted(places, offsets[:, 0])]

        letters = first(written)
        word = at[np.where(letters < offsets[:, 1], letters, first(at >= 0))]
        shared = np.where(written & ~np.isin(at, word), np.arange(1, len(at) + 1), 0)
        ends = np.maximum(words[word, 1], np.maximum.accumulate(np.append(0, shared))[offsets[:, 1]])
        return word, np.stack([words[word, 0], ends], axis=1)

    def read_words(self, words, prompt="") -> Tokens:
        """Tokens of a text given as a list of words, which are read as a text with spaces between them."""
        plain = tokens_of_words(words)
        encoding = self.backend.encode(prompt + plain.text)
        tokens = self.read(plain.text, encoding, prompt)
        item = np.searchsorted(plain.words[:, 0], tokens.words[:, 0], side="right") - 1
        word, in_prompt = np.append(item, -1)[tokens.word], np.arange(len(tokens)) < tokens.prompt_tokens
        return self._tokens(plain.text, plain.words, word, tokens.ids, self._windows(encoding), in_prompt)


def load_tokenizer(
    folder: Path, *, max_tokens: int | None, max_positions: int, lowercase: bool = False
) -> TextTokenizer:
    """The tokenizer of a model folder, which gives the ids that transformers' AutoTokenizer gives.

    It is `tokenizer.json`, if the other files say the same; else what transformers makes of them all.

    Args:
        folder: holds one of `FILES`, and may hold `tokenizer_config.json`.
        max_tokens: longest input, special tokens included; None takes the tokenizer's own limit.
        max_positions: the most tokens that the model can number.
        lowercase: whether to lower-case a text before the tokenizer's own normalization.

    Raises:
        InputError: there is no tokenizer, or it cannot be read, or its vocabulary lacks [UNK].
    """
    settings = read_settings(folder / "tokenizer_config.json", optional=True)
    present = [name for name in FILES if (folder / name).is_file()]
    if not present:
        raise InputError(f"{folder} holds no tokenizer: one of {', '.join(FILES)} is needed.")
    if present == [FILES[-1]]:
        needed("sentencepiece", f"The {FILES[-1]} in {folder}")
    try:
        backend = Tokenizer.from_file(str(folder / FILES[0])) if FILES[0] in present else None
        if backend is None or not _is_all(backend, folder, settings):
            # Importing it takes over a second, which most folders need not wait for.
            from transformers import AutoTokenizer

            backend = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
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
    has_words = isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    return (TextTokenizer if has_words else SubwordTokenizer)(backend, limit)


@lru_cache(16)
def truncated(tokenizer: TextTokenizer, max_tokens: int, **how: Any) -> TextTokenizer:
    """The tokenizer with windows of its own, which are part of a backend's state; a copy takes 15 ms."""
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    direction = (backend.truncation or {}).get("direction", "right")
    backend.enable_truncation(max_tokens, **{"direction": direction, **how})
    return replace(tokenizer, backend=backend, max_tokens=max_tokens)


def _is_all(backend: Tokenizer, folder: Path, settings: Settings) -> bool:
    """Whether the other files of the folder change nothing about `tokenizer.json`."""
    said = dict(settings.values)
    known = added = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
    if listed := settings.get("added_tokens_decoder", dict):
        added = {token["content"]: int(number) for number, token in listed.items()}
    else:  # two files that transformers wrote before version 4.34
        said |= read_settings(folder / "special_tokens_map.json", optional=True).values
        added = {**known, **read_settings(folder / "added_tokens.json", optional=True).values}
    roles = {key: content(value) for key, value in said.items() if key.endswith("_token")}
    lists = [said.get(key) or () for key in ("extra_special_tokens", "additional_special_tokens")]
    special = [*roles.values(), *map(content, chain(*lists))]
    if added != known or not all(token in known for token in special if isinstance(token, str)):
        return False
    if settings.get("tokenizer_class", str) in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return True
    # What BERT's tokenizer makes of its settings.
    cls, sep, unknown = (roles.get(f"{role}_token") or f"[{role.upper()}]" for role in ("cls", "sep", "unk"))
    ours, flags = backend.normalizer, ("do_lower_case", "tokenize_chinese_chars")
    lowercase, chinese = (settings.get(flag, bool) is not False for flag in flags)
    return (
        isinstance(ours, normalizers.BertNormalizer)
        and (ours.clean_text, ours.lowercase, ours.handle_chinese_chars) == (True, lowercase, chinese)
        and ours.strip_accents == settings.get("strip_accents", bool)
        and backend.encode("").tokens[:2] == [cls, sep]
        and getattr(backend.model, "unk_token", None) == unknown
    )


def content(token: Any) -> Any:
    """A token's text; some are written down with flags."""
    return token["content"] if isinstance(token, dict) else token
