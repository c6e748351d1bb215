"""Tokens against transformers' tokenizer, and offsets that reproduce the text."""

import unicodedata

import numpy as np
import pytest
import transformers
from conftest import VOCABULARY, edit_json
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.characters import boundaries, spell
from minqa.tokens import load_word_piece, make_speller

TEXTS = [
    "Who developed the theory?",
    "CAFÉ  naïve",
    "e\u0301e\u0301 x",
    "",
    "  ",
    "ab‐cd\tef\ngh",
    "日本 [SEP] x",
]
# Hypothesis draws lone surrogates only when asked to.
ANY_TEXT = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=60)


@pytest.fixture(params=["tokenizer.json", "vocab.txt", "cased"])
def folder(request, bert_folder):
    """Folders in which the tokenizer is written down differently."""
    if request.param == "vocab.txt":
        (bert_folder / "tokenizer.json").unlink()
    else:
        (bert_folder / "vocab.txt").unlink()
    if request.param == "cased":
        tokenizer = transformers.BertTokenizerFast(
            {piece: i for i, piece in enumerate(VOCABULARY)}, do_lower_case=False
        )
        tokenizer.save_pretrained(bert_folder)
    return bert_folder


def test_ids_equal_transformers(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text, ours in zip(
        TEXTS, load_word_piece(folder, max_tokens=64, max_positions=64)(TEXTS), strict=True
    ):
        assert ours.ids.tolist() == theirs(text)["input_ids"]


def test_words_are_runs_of_letters_and_single_marks(tiny):
    [tokens] = tiny.tokenize(["Who played, caf\u00e9-theory’s Relativity?"])
    assert tokens.word_texts == [
        "Who",
        "played",
        ",",
        "caf\u00e9",
        "-",
        "theory",
        "’",
        "s",
        "Relativity",
        "?",
    ]
    pieces = [tiny.tokenizer.backend.id_to_token(i) for i in tokens.ids]
    assert pieces[0] == "[CLS]" and pieces[-1] == "[SEP]"
    assert [pieces[i] for i in np.flatnonzero(tokens.word == 8)] == ["relativ", "##ity"]
    assert tokens.word[[0, -1]].tolist() == [-1, -1]


def test_a_word_keeps_its_accents(either):
    [tokens] = either.tokenize(["a\u0300 e\u0301e\u0301\u0302! b"])
    assert tokens.word_texts == ["a\u0300", "e\u0301e\u0301\u0302", "!", "b"]


@given(ANY_TEXT)
def test_offsets_reproduce_the_text(either, text):
    [tokens] = either.tokenize([text])
    assert len(tokens.text) == len(text)
    ends = 0
    for number, (start, end) in enumerate(tokens.words):
        assert ends <= start < end <= len(text)
        assert number in tokens.word
        assert _unread(tokens.text[ends:start])
        ends = end
    assert _unread(tokens.text[ends:])
    assert sum(tokens.windows) == len(tokens)
    real = tokens.word[tokens.word >= 0]
    assert (np.diff(real) >= 0).all() and set(real) == set(range(len(tokens.words)))


def _unread(text):
    """Spaces, and what BERT's tokenizer drops: control and private characters, stray accents."""
    return all(char.isspace() or unicodedata.category(char)[0] in "ZCM" or char == "\ufffd" for char in text)


def test_a_long_text_is_read_in_windows(tiny):
    cls, sep = (VOCABULARY.index(f"[{name}]") for name in ("CLS", "SEP"))
    short, long = tiny.tokenize(["a " * 62, "a " * 60 + "relativity b"])
    assert (len(short), short.windows) == (64, (64,))
    assert long.windows == (64, 3), "and the third piece of 62 and 63 opens the next"
    assert long.ids[[0, 63, 64, 66]].tolist() == [cls, sep, cls, sep]
    assert len(long.words) == 62 and long.word_texts[-2:] == ["relativity", "b"]
    assert long.word[61:66].tolist() == [60, 60, -1, -1, 61]


def test_max_tokens_is_the_smallest_of_all_limits(bert_folder):
    edit_json(bert_folder / "tokenizer_config.json", model_max_length=50)
    assert load_word_piece(bert_folder, max_tokens=None, max_positions=64).max_tokens == 50
    assert load_word_piece(bert_folder, max_tokens=20, max_positions=64).max_tokens == 20
    assert load_word_piece(bert_folder, max_tokens=99, max_positions=64).max_tokens == 64


def test_padding_and_truncation_written_into_the_tokenizer_do_not_count(bert_folder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bert_folder / "tokenizer.json"))
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(10)
    tokenizer.save(str(bert_folder / "tokenizer.json"))
    [tokens] = load_word_piece(bert_folder, max_tokens=20, max_positions=64)(["war " * 12])
    assert tokens.windows == (14,)


def test_a_prompt_is_read_but_is_no_word(tiny):
    [tokens] = tiny.tokenizer(["the theory"], "who played: ")
    assert tokens.word_texts == ["the", "theory"]
    assert tokens.text == "the theory"
    assert tokens.word.tolist() == [-1, -1, -1, -1, -1, 0, 1, -1]
    assert tokens.prompt_tokens == 5  # [CLS] who play ##ed :
    assert tokens.ids.tolist() == tiny.tokenize(["who played: the theory"])[0].ids.tolist()


def test_words_are_spelled_one_token_each():
    text = "Don't stop, caf\u00e9 \u65e5\u672c!"
    [tokens] = make_speller(50)([text])
    words = ["Don", "'", "t", "stop", ",", "caf\u00e9", "\u65e5", "\u672c", "!"]
    assert tokens.word_texts == words
    assert tokens.word.tolist() == list(range(9))
    np.testing.assert_array_equal(tokens.ids, spell(tokens.word_texts))


def test_characters_are_utf8_bytes_between_marks():
    ids = spell(["a\u00e9", "x" * 60, ""])
    assert ids.shape == (3, 50)
    assert ids[0, :6].tolist() == [259, 98, 0xC3 + 1, 0xA9 + 1, 260, 261]
    assert ids[1].tolist() == [259, *[121] * 48, 260], "48 bytes are read of a longer word"
    assert ids[2].tolist() == [259, 260, *[261] * 48]
    start, end = boundaries()
    assert start.tolist() == [259, 257, 260, *[261] * 47] and end.tolist() == [259, 258, 260, *[261] * 47]


def test_a_prompt_is_spelled_but_is_no_word():
    [plain, prompted] = [make_speller(50)(["the theory"], prompt)[0] for prompt in ("", "who: ")]
    assert prompted.word_texts == plain.word_texts
    assert prompted.word.tolist() == [-1, -1, 0, 1] and prompted.prompt_tokens == 2
    np.testing.assert_array_equal(prompted.ids[2:], plain.ids)


def test_windows_of_words():
    short, long = make_speller(50, max_tokens=3)(["a b c", "a b c d"])
    assert (short.windows, long.windows) == ((3,), (3, 1))
    assert long.word.tolist() == [0, 1, 2, 3] and long.ids.shape == (4, 50)


def test_one_string_is_not_taken_for_a_list(either):
    with pytest.raises(TypeError, match="put it into a list"):
        either.tokenize("the theory")


def test_broken_tokenizers_are_refused(bert_folder):
    (bert_folder / "tokenizer.json").write_text("{")
    with pytest.raises(minqa.InputError, match=r"tokenizer in .* cannot be read"):
        minqa.load(bert_folder)
    (bert_folder / "tokenizer.json").unlink()
    (bert_folder / "vocab.txt").unlink()
    with pytest.raises(minqa.InputError, match="holds no tokenizer"):
        minqa.load(bert_folder)
