"""Text → token ids, and where each token and each word stands in the text."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from tokenizers import Encoding, Tokenizer

from minqa.text import well_formed

# Unicode categories of punctuation, of spaces and controls, and of signs like +, $ and ^; an emoji is none.
MARKS = {"P", "Z", "C", "Sm", "Sc", "Sk"}
Text: TypeAlias = str | Sequence[str]  # a text, or its words


@dataclass(frozen=True)
class Tokens:
    """One text as a model reads it.

    A word is a run of letters and digits, a punctuation mark or a Chinese character; or an item of a list.
    """

    text: str  # `well_formed`; the items of a list, joined by spaces
    ids: Int[np.ndarray, "token ..."]  # subwords and special tokens; or [token, character], spelled words
    word: Int[np.ndarray, " token"]  # the number of each token's word, or -1
    words: Int[np.ndarray, "word 2"]  # start and end of each word, in characters of `text`
    keys: tuple[str, ...]  # words as the model sees them, in lower case; equal keys are the same word
    unknown: Bool[np.ndarray, " word"]  # whether all that the model sees of a word is [UNK]
    windows: tuple[int, ...]  # tokens in each window; several if the text exceeds the model's maximum
    types: Int[np.ndarray, " token"]  # 0, or 1 in the second text of a pair
    prompt_tokens: int = 0  # how many leading tokens stand for the prompt, [CLS] included; or 0
    pooled_window: int = 0  # the window that truncation would keep
    # In late interaction, as ColBERT's, tokens are compared instead of words: how much each counts, which of
    # them others attend to, and what those are called that count and belong to no word ("" for all others).
    scored: Float[np.ndarray, " token"] | None = None
    attended: Bool[np.ndarray, " token"] | None = None
    specials: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def word_texts(self) -> list[str]:
        return [self.text[start:end] for start, end in self.words.tolist()]

    @cached_property
    def is_word(self) -> Bool[np.ndarray, " word"]:
        """bool [word]: whether a word has a token and is more than punctuation and signs."""
        word = self.word if self.scored is None else np.where(self.scored > 0, self.word, -1)
        return _has(word, len(self.words)) & np.array([*map(is_written, self.word_texts)], bool)

    @property
    def may_match(self) -> Bool[np.ndarray, " row"]:
        """bool [word] or, in late interaction, [token]: whether a query's may match it."""
        return self.is_word if self.scored is None else self.scored > 0


def is_written(word: str) -> bool:
    """Whether a word, or a character, is more than punctuation and signs."""
    return word.isalnum() or any(not {kind, kind[0]} & MARKS for kind in map(unicodedata.category, word))


def comparable(query: Tokens, passage: Tokens) -> Bool[np.ndarray, "query_word passage_word"]:
    """Which words may match: a word that the model does not know matches only a word with the same key."""
    pairs = ~query.unknown[:, None] & ~passage.unknown[None, :]
    for row in np.flatnonzero(query.unknown):
        pairs[row] = [key == query.keys[row] for key in passage.keys]
    return pairs


def tokens_of_words(words: Sequence[str]) -> Tokens:
    """Tokens of words that no tokenizer has read: one token per word."""
    starts = np.cumsum([0, *(len(word) + 1 for word in words)], dtype=np.int32)
    places, number = np.stack([starts[:-1], starts[1:] - 1], axis=1), np.arange(len(words), dtype=np.int32)
    keys, unknown, types = tuple(map(str.lower, words)), np.zeros(len(words), bool), np.zeros_like(number)
    return Tokens(" ".join(words), number, number, places, keys, unknown, (len(words),), types)


@dataclass(frozen=True)
class TextTokenizer:
    """Texts of any Unicode → `Tokens` of pieces of words, such as BERT's (Devlin et al. 2018, section 3)."""

    backend: Tokenizer  # splits a text into words and tokens, and a long text into windows
    max_tokens: int  # in a window, special tokens included

    def __call__(self, texts: Sequence[Text], prompt: str = "", role: str | None = None) -> list[Tokens]:
        """Tokens of each text, or list of words; `prompt` is read before it and is none of its words."""
        prompt = well_formed(prompt)
        texts = [well_formed(text) if isinstance(text, str) else [*map(well_formed, text)] for text in texts]
        strings = [prompt + text for text in texts if isinstance(text, str)]
        encodings = iter(self.backend.encode_batch(strings))
        return [
            self.read(text, next(encodings), prompt)
            if isinstance(text, str)
            else self.read_words(text, prompt)
            for text in texts
        ]

    def read(self, text: str, encoding: Encoding, prompt: str = "", sequence: int = 0) -> Tokens:
        """Tokens of an encoded text; of an encoded pair, those of its first (`sequence` 0) or second text."""
        windows = self._windows(encoding)
        word = _word_ids(windows, sequence)
        offsets = np.array([place for window in windows for place in window.offsets], np.int32).reshape(-1, 2)
        ids = self._ids(windows, lambda: [(prompt + text)[start:end] for start, end in offsets.tolist()])
        offsets -= len(prompt)
        in_prompt = (word >= 0) & (offsets[:, 1] <= 0) & bool(prompt)
        word[in_prompt] = -1
        real = np.flatnonzero(word >= 0)
        word[real], offsets[real] = self._placed(text, word[real], offsets[real])
        real = np.flatnonzero(word >= 0)
        numbers, word[real] = np.unique(word[real], return_inverse=True)
        words = np.tile(np.array([len(text), 0], np.int32), (len(numbers), 1))
        np.minimum.at(words[:, 0], word[real], offsets[real, 0].clip(0))
        np.maximum.at(words[:, 1], word[real], offsets[real, 1])
        _take_marks(text, words)
        return self._tokens(text, words, word, ids, windows, in_prompt)

    def read_words(self, words: Sequence[str], prompt: str = "") -> Tokens:
        """Tokens of a text given as a list of words; a word without a token keeps its row."""
        given = [*(self([prompt])[0].word_texts if prompt else []), *words]
        windows = self._windows(self._backend_of_words.encode(given, is_pretokenized=True))
        word = _word_ids(windows, 0)
        ids = self._ids(windows, lambda: [given[number] for number in word])
        before = len(given) - len(words)
        in_prompt = (word >= 0) & (word < before)
        plain = tokens_of_words(words)
        return self._tokens(plain.text, plain.words, np.maximum(word - before, -1), ids, windows, in_prompt)

    def _tokens(self, text, words, word, ids, windows, in_prompt) -> Tokens:
        known = word if ids.ndim > 1 else np.where(np.isin(ids, self._unknown_ids), -1, word)
        keys = tuple(self._key(text[start:end]) for start, end in words.tolist())
        unknown = _has(word, len(words)) & ~_has(known, len(words))
        types = np.array([kind for window in windows for kind in window.type_ids], np.int32)
        types *= max(windows[0].type_ids, default=0)  # the library gives second texts in later windows type 1
        prompt_tokens = int(np.flatnonzero(in_prompt)[-1]) + 1 if in_prompt.any() else 0
        lengths, pooled = tuple(map(len, windows)), len(windows) - 1 if self._truncates_left else 0
        return Tokens(text, ids, word, words, keys, unknown, lengths, types, prompt_tokens, pooled)

    def _placed(self, text: str, word, offsets):
        """The number of each token's word, or -1, and where in the text the token stands for it."""
        return word, offsets

    def _windows(self, encoding: Encoding) -> list[Encoding]:
        windows = [encoding, *encoding.overflowing]
        return windows[::-1] if self._truncates_left else windows

    def _ids(self, windows, sources: Callable[[], list[str]]) -> Int[np.ndarray, "token ..."]:
        """What the model reads, token by token; `sources` gives the text that each token stands for."""
        return np.array([i for window in windows for i in window.ids], np.int32)

    @property
    def _backend_of_words(self) -> Tokenizer:
        return self.backend

    @property
    def _truncates_left(self) -> bool:
        return (self.backend.truncation or {}).get("direction") == "left"

    @cached_property
    def _unknown_ids(self) -> list[int]:
        """Ids that tell nothing of a word: of SentencePiece's space, and of what is no character."""
        return [token.id for token in self.backend.model.tokenize("▁\U0010ffff")]

    @cached_property
    def _key(self) -> Callable[[str], str]:
        normalize = self.backend.normalizer.normalize_str if self.backend.normalizer else str
        return lru_cache(2**16)(lambda word: " ".join(normalize(word).split()).lower())


def _has(word: Int[np.ndarray, " token"], number: int) -> Bool[np.ndarray, " word"]:
    """Which of so many words have a token."""
    return np.bincount(word[word >= 0], minlength=number) > 0


def _word_ids(windows: Sequence[Encoding], sequence: int) -> Int[np.ndarray, " token"]:
    """The number of each token's word in one text of a pair, or -1."""
    pairs = (pair for window in windows for pair in zip(window.word_ids, window.sequence_ids, strict=True))
    return np.array([word if number == sequence else -1 for word, number in pairs], np.int32)


def _take_marks(text: str, words: Int[np.ndarray, "word 2"]) -> None:
    """Extend each word to the accents and joiners after it, which the tokenizer drops without a trace."""
    limits = [] if text.isascii() else [*words[1:, 0], len(text)]
    for row, limit in zip(words, limits, strict=False):
        while row[1] < limit and unicodedata.category(text[row[1]]) in ("Mn", "Mc", "Me", "Cf"):
            row[1] += 1
