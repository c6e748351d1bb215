"""Text → token ids, and where every token sits in the text."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers

from minqa.characters import spell
from minqa.errors import InputError
from minqa.settings import read_settings
from minqa.text import well_formed


@dataclass(frozen=True)
class Tokens:
    """One text as a model reads it.

    A word is a run of letters and digits, or one punctuation mark. `text[start:end]` for a row of `words` is
    the word as it was written.

    Attributes:
        text: the text, `well_formed`.
        ids: int32 [token] of word pieces, special tokens included, or [token, character] of spelled words.
        word: int32 [token], the number of the word that the token belongs to, -1 for none.
        words: int32 [word, 2], start and end of each word, in characters of `text`.
        prompt_tokens: how many leading tokens stand for the prompt, [CLS] included; 0 without one.
        windows: how many tokens the model reads at once, window by window; more than one where the text is
            longer than the model's maximum.
    """

    text: str
    ids: Int[np.ndarray, "token ..."]
    word: Int[np.ndarray, " token"]
    words: Int[np.ndarray, "word 2"]
    prompt_tokens: int
    windows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def word_texts(self) -> list[str]:
        return [self.text[start:end] for start, end in self.words]

    @cached_property
    def spelled(self) -> Bool[np.ndarray, " word"]:
        """Which words are more than punctuation and signs like $ or +; an emoji is."""
        marks = {"P", "Z", "C", "Sm", "Sc", "Sk"}

        def is_spelled(word: str) -> bool:
            kinds = map(unicodedata.category, word)
            return word.isalnum() or any(not {kind, kind[0]} & marks for kind in kinds)

        return np.array([is_spelled(word) for word in self.word_texts], bool)


@dataclass(frozen=True)
class TextReader(ABC):
    """Texts of any Unicode → `Tokens`.

    Attributes:
        backend: splits a text into words and tokens, and a long text into windows.
        max_tokens: the most tokens of a window, special tokens included.
    """

    backend: Tokenizer
    max_tokens: int

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Tokens of each text; `prompt` is read before each text, but none of it counts as a word."""
        texts, prompt = [well_formed(text) for text in texts], well_formed(prompt)
        encodings = self.backend.encode_batch([prompt + text for text in texts])
        return [
            self._tokens(text, prompt, [code, *code.overflowing])
            for text, code in zip(texts, encodings, strict=True)
        ]

    def _tokens(self, text: str, prompt: str, windows: Sequence[Encoding], sequence: int = 0) -> Tokens:
        """The windows of one text, or of a pair of texts, of which `sequence` says which one is meant."""
        word = np.array(
            [
                w if s == sequence else -1
                for one in windows
                for w, s in zip(one.word_ids, one.sequence_ids, strict=True)
            ],
            np.int32,
        )
        offsets = np.array([place for one in windows for place in one.offsets], np.int32).reshape(-1, 2)
        offsets -= len(prompt)
        in_prompt = (word >= 0) & (offsets[:, 1] <= 0)
        word[in_prompt] = -1

        real = np.flatnonzero(word >= 0)
        numbers, word[real] = np.unique(word[real], return_inverse=True)
        words = np.tile(np.array([len(text), 0], np.int32), (len(numbers), 1))
        np.minimum.at(words[:, 0], word[real], offsets[real, 0].clip(0))
        np.maximum.at(words[:, 1], word[real], offsets[real, 1])
        return Tokens(
            text=text,
            ids=np.concatenate([self.ids(prompt + text, one) for one in windows]),
            word=word,
            words=words if text.isascii() else _with_marks(text, words),
            prompt_tokens=int(np.flatnonzero(in_prompt)[-1]) + 1 if in_prompt.any() else 0,
            windows=tuple(map(len, windows)),
        )

    @abstractmethod
    def ids(self, text: str, encoding: Encoding) -> Int[np.ndarray, "token ..."]:
        """What the model reads, token by token."""


class WordPiece(TextReader):
    """BERT's tokenizer (Devlin et al. 2018, section 3)."""

    def ids(self, text: str, encoding: Encoding) -> Int[np.ndarray, " token"]:
        return np.array(encoding.ids, np.int32)

    @cached_property
    def _for_pairs(self) -> Tokenizer:
        # Truncation is a tokenizer's state, and copying one takes 20 ms.
        return Tokenizer.from_str(self.backend.to_str())

    def pairs(
        self, question: str, passages: Sequence[str], *, overlap: int
    ) -> list[tuple[Tokens, Int[np.ndarray, " token"]]]:
        """A question before each passage: the passage's tokens, and 0 or 1 for the text a token is of.

        Windows of a long passage share `overlap` tokens of it, half of their room at most; each begins with
        the question, whose tokens, like special ones, belong to no word.

        Raises:
            InputError: the question leaves no room for a passage.
        """
        question, passages = well_formed(question), [well_formed(passage) for passage in passages]
        backend = self._for_pairs
        backend.no_truncation()
        room = self.max_tokens - len(backend.encode(question, "").ids)
        if room < 1:
            raise InputError(
                f"The question is too long: at most {self.max_tokens} tokens are read at once, and it leaves "
                "none for the passage."
            )
        backend.enable_truncation(self.max_tokens, stride=min(overlap, room // 2), strategy="only_second")
        encodings = backend.encode_batch([(question, passage) for passage in passages])
        windows = [[code, *code.overflowing] for code in encodings]
        return [
            (self._tokens(text, "", some, 1), np.array([i for one in some for i in one.type_ids], np.int32))
            for text, some in zip(passages, windows, strict=True)
        ]


@dataclass(frozen=True)
class Speller(TextReader):
    """ELMo's tokenizer: every word is a token, spelled in `characters_per_word` ids."""

    characters_per_word: int

    def ids(self, text: str, encoding: Encoding) -> Int[np.ndarray, "token character"]:
        return spell([text[start:end] for start, end in encoding.offsets], self.characters_per_word)


def make_speller(characters_per_word: int, *, max_tokens: int = 512) -> Speller:
    """A tokenizer that splits words and punctuation apart as BERT's does: both know the same words.

    ELMo itself reads texts of any length; windows bound the memory and the shapes to be compiled.
    """
    backend = Tokenizer(models.WordLevel({"word": 0}, unk_token="word"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Of all that BERT's does, only that a Chinese character is a word.
    backend.normalizer = normalizers.BertNormalizer(clean_text=False, strip_accents=False, lowercase=False)
    backend.enable_truncation(max_tokens)
    return Speller(backend, max_tokens, characters_per_word)


def load_word_piece(
    folder: Path, *, max_tokens: int | None, max_positions: int, lowercase: bool = False
) -> WordPiece:
    """transformers' fast tokenizer of a model folder.

    `tokenizer.json` is that tokenizer written down, so it is read without importing transformers, which
    takes over a second; only a folder with the older `vocab.txt` alone needs the conversion.

    Args:
        folder: holds `tokenizer.json` or `vocab.txt`, and may hold `tokenizer_config.json`.
        max_tokens: longest input, special tokens included; None takes the tokenizer's own limit.
        max_positions: the most tokens that the model can number.
        lowercase: whether to lower-case a text before the tokenizer's own normalization.

    Raises:
        InputError: there is no tokenizer, or it cannot be read.
    """
    settings = read_settings(folder / "tokenizer_config.json", optional=True)
    try:
        if (folder / "tokenizer.json").is_file():
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            from transformers import AutoTokenizer

            backend = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        else:
            raise InputError(f"{folder} holds no tokenizer: tokenizer.json or vocab.txt is needed.")
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise InputError(f"The tokenizer in {folder} cannot be read: {error}") from error
    if lowercase:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), *filter(None, [backend.normalizer])]
        )
    backend.no_padding()
    limit = min(max_tokens or settings.get("model_max_length", int) or max_positions, max_positions)
    specials = len(backend.encode("").ids)
    if not 0 < specials < limit:
        raise InputError(f"The tokenizer in {folder} has {specials} special tokens and room for {limit}.")
    backend.enable_truncation(limit)
    return WordPiece(backend, limit)


def _with_marks(text: str, words: np.ndarray) -> np.ndarray:
    """Give each word the accents and joiners behind it, which the tokenizer drops without a trace."""
    words = words.copy()
    limits = np.append(words[1:, 0], len(text))
    for row, limit in zip(words, limits, strict=False):
        while row[1] < limit and unicodedata.category(text[row[1]]) in ("Mn", "Mc", "Me", "Cf"):
            row[1] += 1
    return words
