"""ELMo's files: sizes in `options.json`, names in the HDF5 file, and the characters that stand for a word."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from minqa.elmo import CHARACTER_IDS, PADDING, WORD_END, WORD_START, ElmoConfig
from minqa.files.checkpoint import AS_IS, TRANSPOSED, Check, Settings, checked, number, only, typed, whole
from minqa.text import InputError
from minqa.tokens import TextTokenizer


def read_elmo_config(options: Settings) -> ElmoConfig:
    """Read the sizes from an `options.json`.

    Raises:
        InputError: an option is missing or absurd, or describes another model than this one.
    """
    values = checked(options, CHECKS, "ELMo")
    if max(width for width, _ in values["filters"]) > values["characters_per_word"]:
        raise InputError(f"{options.place}: char_cnn.filters are wider than max_characters_per_token.")
    values["filters"] = tuple(map(tuple, values["filters"]))
    values |= {name: float(values[name]) for name in ("cell_clip", "projection_clip")}
    return ElmoConfig(**{field.name: values[field.name] for field in fields(ElmoConfig)})


def _are_filters(value: Any) -> bool:
    def is_filter(pair: Any) -> bool:
        return isinstance(pair, list) and [*map(type, pair)] == [int, int] and min(pair) > 0

    return isinstance(value, list) and 0 < len(value) <= 64 and all(map(is_filter, value))


# Name here → option. No tensor's shape would check the numbers bounded by 64.
CHECKS = {
    "characters_per_word": whole("char_cnn.max_characters_per_token", 3, 1000),
    "character_dim": whole("char_cnn.embedding.dim"),
    "filters": Check("char_cnn.filters", _are_filters, "must be a list of up to 64 [width, number]"),
    "activation": Check("char_cnn.activation", ("relu", "tanh").__contains__, "must be 'relu' or 'tanh'"),
    "num_highway_layers": whole("char_cnn.n_highway", high=64),
    "projection_dim": whole("lstm.projection_dim"),
    "lstm_dim": whole("lstm.dim"),
    "num_layers": whole("lstm.n_layers", high=64),
    "cell_clip": number("lstm.cell_clip", 1e-9, 1e38),
    "projection_clip": number("lstm.proj_clip", 1e-9, 1e38),
    "skip_connections": typed("lstm.use_skip_connections", bool),
    "n_characters": only("char_cnn.n_characters", CHARACTER_IDS),
    "bidirectional": only("bidirectional", True),
}


# How a released file names these parameters: path here → name there, and how its TensorFlow layout, `x @ W`,
# becomes ours.
_LSTM = "RNN_{}/RNN/MultiRNNCell/Cell{{}}/LSTMCell"
# The rows of one matrix are first those for the input, then those for the last output.
_HALF = lambda shape: (2 * shape[1], shape[0])  # noqa: E731
_INPUT_ROWS = TRANSPOSED._replace(shape=_HALF, read=lambda rows: np.split(rows, 2)[0].T)
_OUTPUT_ROWS = TRANSPOSED._replace(shape=_HALF, read=lambda rows: np.split(rows, 2)[1].T)
_CONVOLUTION = AS_IS._replace(
    shape=lambda shape: (1, *shape), read=lambda kernel: kernel[0], write=lambda kernel: kernel[None]
)
TENSORS = {
    "words.characters.embedding": ("char_embed", AS_IS),
    "words.convolutions.kernel": ("CNN/W_cnn_{}", _CONVOLUTION),
    "words.convolutions.bias": ("CNN/b_cnn_{}", AS_IS),
    "words.highways.gate.kernel": ("CNN_high_{}/W_carry", AS_IS),
    "words.highways.gate.bias": ("CNN_high_{}/b_carry", AS_IS),
    "words.highways.transform.kernel": ("CNN_high_{}/W_transform", AS_IS),
    "words.highways.transform.bias": ("CNN_high_{}/b_transform", AS_IS),
    "words.projection.kernel": ("CNN_proj/W_proj", AS_IS),
    "words.projection.bias": ("CNN_proj/b_proj", AS_IS),
} | {
    f"layers.{way}.{parameter}": (f"{_LSTM.format(number)}/{name}", layout)
    for number, way in enumerate(("forward", "backward"))
    for parameter, name, layout in (
        ("input", "W_0", _INPUT_ROWS),
        ("recurrent", "W_0", _OUTPUT_ROWS),
        ("bias", "B", AS_IS),
        ("projection", "W_P_0", TRANSPOSED),
    )
}


@dataclass(frozen=True)
class CharacterTokenizer(TextTokenizer):
    """ELMo's tokenizer: every word is a token, spelled in `characters_per_word` ids."""

    characters_per_word: int

    @classmethod
    def make(cls, characters_per_word: int, *, max_tokens: int = 512) -> "CharacterTokenizer":
        """A tokenizer with the same words as BERT's; windows bound the memory, and the shapes to compile."""
        backend = Tokenizer(models.WordLevel({"word": 0}, unk_token="word"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        # Of all that BERT's does, only that a Chinese character is a word.
        what = {"clean_text": False, "strip_accents": False, "lowercase": False}
        backend.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True, **what)
        backend.enable_truncation(max_tokens)
        return cls(backend, max_tokens, characters_per_word)

    def _ids(self, windows, sources: Callable[[], list[str]]) -> Int[np.ndarray, "token character"]:
        return spell(sources(), self.characters_per_word)

    @cached_property
    def _backend_of_words(self) -> Tokenizer:
        backend = Tokenizer(self.backend.model)  # which splits no word
        backend.enable_truncation(self.max_tokens)
        return backend


def spell(words: Sequence[str], width: int = 50) -> Int[np.ndarray, "word character"]:
    """Words → the character ids that ELMo spells them with: UTF-8 bytes between two marks, padded to `width`.

    Bytes that do not fit are left out. All ids are one higher than in the files: 0 stands where no word is.
    """
    ids = np.full((len(words), width), PADDING, np.int32)
    for row, word in zip(ids, words, strict=True):
        code = word.encode()[: width - 2]
        row[: len(code) + 2] = [WORD_START, *code, WORD_END]
    return ids + 1
