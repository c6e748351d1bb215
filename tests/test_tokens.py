"""Words, their keys and their tokens; offsets that reproduce the text."""

import unicodedata

import numpy as np
import pytest
from conftest import VOCABULARY
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.elmo import boundaries
from minqa.files.elmo import CharacterTokenizer, spell
from minqa.tokens import comparable, tokens_of_words

# Hypothesis draws lone surrogates only when asked to.
ANY_TEXT = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=60)


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
    assert max(tokens.windows, default=0) <= either.tokenizer.max_tokens
    assert len(tokens.keys) == len(tokens.unknown) == len(tokens.is_word) == len(tokens.words)
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


CAT, DOG = "แมว", "หมา"  # no piece of either is in the vocabulary


def test_an_unknown_word_may_match_itself_alone(tiny):
    cat, dog, both = tiny.tokenize([CAT, DOG, f"{CAT} war {DOG}, {CAT}"])
    assert cat.ids.tolist() == dog.ids.tolist(), "the model sees [UNK] of both"
    assert cat.unknown.tolist() == [True] and both.unknown.tolist() == [True, False, True, False, True]
    assert comparable(cat, dog).tolist() == [[False]]
    assert comparable(cat, both).tolist() == [[True, False, False, False, True]]
    assert comparable(both, dog).tolist() == [[False], [False], [True], [False], [False]]
    [known] = tiny.tokenize(["war theory"])
    assert comparable(known, both)[0].tolist() == [False, True, False, True, False]


def test_elmo_knows_every_word():
    [cat] = CharacterTokenizer.make(50)([f"{CAT} \ue000"])
    assert not cat.unknown.any()


@given(
    st.lists(st.sampled_from([CAT, DOG, "war", "👩‍🚀", "❤️", "ж", "Ж", "x" * 101, "-"]), max_size=6), ANY_TEXT
)
def test_words_of_unknown_tokens_are_those_of_nothing_else(tiny, words, text):
    [tokens] = tiny.tokenize([" ".join([*words, text])])
    unknown = VOCABULARY.index("[UNK]")
    for number, flag in enumerate(tokens.unknown.tolist()):
        assert flag == (tokens.ids[tokens.word == number] == unknown).all()
    pairs = comparable(tokens, tokens)
    assert pairs.diagonal().all() and (pairs == pairs.T).all()
    for (a, b), pair in np.ndenumerate(pairs):
        same = tokens.keys[a] == tokens.keys[b]
        assert pair == (same or not (tokens.unknown[a] or tokens.unknown[b]))


def variants(word):
    forms = {unicodedata.normalize(form, word) for form in ("NFC", "NFD")}
    return sorted(
        forms
        | {one.upper() for one in forms}
        | {one.title() for one in forms}
        | {f"{word[0]}\u0301{word[1:]}"}
    )


STEMS = ["está", "naïve", "theory", "Ångström", "ελλάδα", "straße", "İx", "ﬁx"]


@given(st.lists(st.sampled_from([form for stem in STEMS for form in variants(stem)]), max_size=12), ANY_TEXT)
def test_equal_ids_have_equal_keys_and_no_others(tiny, words, text):
    [tokens] = tiny.tokenize([" ".join([*words, text])])
    pieces = [tuple(tokens.ids[tokens.word == number]) for number in range(len(tokens.words))]
    for a in np.flatnonzero(~tokens.unknown):
        for b in np.flatnonzero(~tokens.unknown):
            assert (tokens.keys[a] == tokens.keys[b]) == (pieces[a] == pieces[b])


def test_keys_are_words_as_the_model_sees_them(tiny):
    [tokens] = tiny.tokenize(["Está esta ESTA\u0301 café!"])
    assert tokens.keys == ("esta", "esta", "esta", "cafe", "!")
    cased = CharacterTokenizer.make(50)(["Está esta ESTA"])[0]
    assert cased.keys == ("está", "esta", "esta")


def test_a_list_holds_the_words_whatever_the_tokenizer_thinks(either):
    given = ["Barack", "Obama", "'s", "New York", "", "!?", "\u0301", "theory"]
    [tokens] = either.tokenize([given])
    assert tokens.word_texts == given and tokens.text == " ".join(given)
    assert len(tokens.keys) == len(tokens.unknown) == len(given)
    assert tokens.is_word.tolist()[:4] == [True] * 4 and not tokens.is_word[5]
    assert not tokens.is_word[4]


@given(st.lists(ANY_TEXT, max_size=30), st.sampled_from(["", "who played: "]))
def test_any_list_keeps_its_words(either, words, prompt):
    [tokens] = either.tokenizer([words], prompt)
    assert len(tokens.words) == len(words)
    for number, (start, end) in enumerate(tokens.words):
        assert end - start == len(words[number])
        if number not in tokens.word:
            assert not tokens.is_word[number] and not tokens.unknown[number]
    assert sum(tokens.windows) == len(tokens) and max(tokens.windows) <= either.tokenizer.max_tokens
    real = tokens.word[tokens.word >= 0]
    assert (np.diff(real) >= 0).all()
    assert (tokens.prompt_tokens > 0) == (prompt != "")


@given(st.lists(ANY_TEXT, max_size=20))
def test_ids_of_a_list_are_the_tokenizers_librarys(tiny, words):
    words = [word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in words]
    [tokens] = tiny.tokenizer([words])
    expected = tiny.tokenizer.backend.encode(words, is_pretokenized=True)
    windows = [expected, *expected.overflowing]
    assert tokens.ids.tolist() == [i for window in windows for i in window.ids]
    numbers = [-1 if word is None else word for window in windows for word in window.word_ids]
    assert tokens.word.tolist() == numbers


def test_a_prompt_before_a_list_is_read_but_is_no_word(either):
    given = ["the", "theory"]
    [listed] = either.tokenizer([given], "who played ")
    [joined] = either.tokenizer(["the theory"], "who played ")
    assert listed.word_texts == given
    np.testing.assert_array_equal(listed.ids, joined.ids)
    np.testing.assert_array_equal(listed.word, joined.word)
    assert listed.prompt_tokens == joined.prompt_tokens > 0


def test_a_listed_word_is_one_token_of_elmo():
    given = ["Don't", "New York", "naïve-ish", "日本", " ", "x" * 60, ""]
    tokenizer = CharacterTokenizer.make(50, max_tokens=4)
    [tokens] = tokenizer([given])
    assert tokens.word.tolist() == list(range(6)) and tokens.windows == (4, 2), "nothing spells an empty word"
    np.testing.assert_array_equal(tokens.ids, spell(given[:-1]))
    [prompted] = tokenizer([given], "who: ")
    assert prompted.prompt_tokens == 2 and prompted.windows == (4, 4)
    np.testing.assert_array_equal(prompted.ids, spell(["who", ":", *given[:-1]]))


def test_lists_and_texts_may_be_mixed(either):
    mixed = either.tokenize(["the theory", ["war", "world"], ("who",), []])
    assert [tokens.word_texts for tokens in mixed] == [["the", "theory"], ["war", "world"], ["who"], []]


def test_tokens_of_words_that_no_tokenizer_has_read():
    tokens = tokens_of_words(["Fox", "", "runs", "!"])
    assert tokens.text == "Fox  runs !" and tokens.word_texts == ["Fox", "", "runs", "!"]
    assert tokens.keys == ("fox", "", "runs", "!") and tokens.word.tolist() == [0, 1, 2, 3]
    assert tokens.is_word.tolist() == [True, False, True, False]
    assert not tokens.unknown.any() and tokens.windows == (4,) and len(tokens) == 4
    assert len(tokens_of_words([]).words) == 0


def test_a_prompt_is_read_but_is_no_word(tiny):
    [tokens] = tiny.tokenizer(["the theory"], "who played: ")
    assert tokens.word_texts == ["the", "theory"]
    assert tokens.text == "the theory"
    assert tokens.word.tolist() == [-1, -1, -1, -1, -1, 0, 1, -1]
    assert tokens.prompt_tokens == 5  # [CLS] who play ##ed :
    assert tokens.ids.tolist() == tiny.tokenize(["who played: the theory"])[0].ids.tolist()


def test_words_are_spelled_one_token_each():
    text = "Don't stop, caf\u00e9 \u65e5\u672c!"
    [tokens] = CharacterTokenizer.make(50)([text])
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
    [plain, prompted] = [CharacterTokenizer.make(50)(["the theory"], prompt)[0] for prompt in ("", "who: ")]
    assert prompted.word_texts == plain.word_texts
    assert prompted.word.tolist() == [-1, -1, 0, 1] and prompted.prompt_tokens == 2
    np.testing.assert_array_equal(prompted.ids[2:], plain.ids)


def test_windows_of_words():
    short, long = CharacterTokenizer.make(50, max_tokens=3)(["a b c", "a b c d"])
    assert (short.windows, long.windows) == ((3,), (3, 1))
    assert long.word.tolist() == [0, 1, 2, 3] and long.ids.shape == (4, 50)


def test_one_string_is_not_taken_for_a_list(either):
    with pytest.raises(minqa.InputError, match="put it into a list"):
        either.tokenize("the theory")


@pytest.mark.parametrize(
    "text", [None, 3, b"war", ["war", None], [["war"]], {"war": 1}, np.array(["war"])], ids=str
)
def test_what_is_no_text_is_refused_in_one_sentence(either, unchecked, text):
    with pytest.raises(minqa.InputError, match="Text 1 is ") as error:
        either.tokenize(["war", text])
    assert str(error.value).endswith("but a text is a string or a list of words.")
    assert "\n" not in str(error.value)
    with pytest.raises(minqa.InputError, match="Text 0 is"):
        minqa.embed(either, [text])
