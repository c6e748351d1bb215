"""Articles → passages: whole sentences, nothing lost, no word cut."""

import random
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minqa
from minqa.corpus.articles import Article
from minqa.text import sentences, well_formed

PIECES = [*"The war. |Who played? |\n|a |theory|developed |漢字|\x0b|. |é́ |—".split("|"), "x" * 30]

# Characters that are read where they stand: no combining marks, which are reordered, nothing unassigned.
STEADY = st.characters(exclude_categories=("M", "Cn", "Cs"))
# Marks of several combining classes, joiners, private use, and marks that tokenizers do not know as such.
ODD = [*"\u0301\u0323\u033c\u05b0\u064b\u0903\u20e3\u1c94\ufe0f\u200d\u200b\xad\ue000\x00\u0378"]
ODD += [*"\ua981\U0001e002\U0001e948\U00011cb2\U000e0146\U0010fffd", "a", ".", " ", "the ", "漢", "é"]


def words_of(encoder, text):
    [tokens] = encoder.tokenizer([text])
    return tokens.words.tolist()


@given(
    parts=st.lists(st.one_of(st.text(STEADY, max_size=8), st.sampled_from(PIECES)), max_size=40),
    borders=st.sets(st.integers(1, 39)),
    max_tokens=st.integers(3, 40),
)
def test_passages_give_the_text_back_and_cut_no_word(tiny, parts, borders, max_tokens):
    parts = [well_formed(part) + "\n" * (number in borders) for number, part in enumerate(parts, 1)]
    text = "".join(parts)
    starts = [len("".join(parts[:border])) for border in sorted(borders)]
    sections = [(start, f"from {start}") for start in starts if start < len(text)]
    [passages] = minqa.split(tiny, [Article("7", "A title", text, tuple(sections))], max_tokens=max_tokens)
    assert "".join(one.text for one in passages) == (text if text.strip() else "")
    cuts = [one.start for one in passages]
    assert not any(start < cut < end for cut in cuts for start, end in words_of(tiny, text))
    for one in passages:
        assert text[one.start :].startswith(one.text)
        assert (one.title, one.id) == ("A title", f"7:{one.start}")
        assert one.section == max([(0, ""), *(pair for pair in sections if pair[0] <= one.start)])[1]
        ends = [start for start, _ in sections if start > one.start] or [len(text)]
        assert one.start + len(one.text) <= ends[0]
        [tokens] = tiny.tokenize([one.text], "passage")
        assert len(tokens) <= max_tokens or len(tokens.words) == 1


@given(
    text=st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=3)), max_size=120).map("".join),
    max_tokens=st.integers(3, 32),
)
@example(text="the.\U000e0146\ua981\u0956\U0001e002\u033c", max_tokens=3)
@example(text=". \u033c" * 40, max_tokens=16)
def test_no_passage_of_several_words_is_too_long_whatever_the_unicode(tiny, text, max_tokens):
    text = well_formed(text)
    [passages] = minqa.split(tiny, [Article("1", "", text)], max_tokens=max_tokens)
    assert "".join(passage.text for passage in passages) == (text if text.strip() else "")
    for tokens in tiny.tokenize([passage.text for passage in passages], "passage"):
        assert len(tokens) <= max_tokens or len(tokens.words) == 1


def test_odd_unicode_fits_the_default_model_too(minilm):
    rng = random.Random(0)
    articles = [Article("1", "", "".join(rng.choices(ODD, k=100))) for _ in range(150)]
    for max_tokens in (3, 8, 32):
        passages = list(chain.from_iterable(minqa.split(minilm, articles, max_tokens=max_tokens)))
        texts = [passage.text for passage in passages]
        for tokens in minilm.tokenize(texts, "passage"):
            assert len(tokens) <= max_tokens or len(tokens.words) == 1


@pytest.mark.parametrize("dropped", ["\ue000", "\u200d", "\x13"])
def test_what_the_tokenizer_drops_parts_no_words(tiny, dropped):
    word = dropped.join(["the"] * 20)
    [passages] = minqa.split(tiny, [Article("1", "", f"the world {word} the war")], max_tokens=12)
    assert [passage.text for passage in passages] == ["the world ", f"{word} ", "the war"]
    [tokens] = tiny.tokenize([word], "passage")
    assert len(tokens) > 12 and tokens.keys == ("the" * 20,)


def test_sentences_stay_whole_where_they_fit(tiny):
    text = "The war. Who played? A theory of the world. " * 20 + "the " * 90 + "end. A war."
    [passages] = minqa.split(tiny, [Article("1", "", text)], max_tokens=24)
    starts = set(sentences(text)[:, 0].tolist())
    long = text.index("the the")
    for behind in passages[1:]:
        if behind.start <= long:
            assert behind.start in starts
        assert text[behind.start - 1] == " ", "even a long sentence is cut between words"
    counts = [len(tokens) for tokens in tiny.tokenize([one.text for one in passages], "passage")]
    assert max(counts) == 24
    assert min(counts[:10]) > 24 - 9, "as many sentences as fit"


def test_a_line_ends_a_sentence_and_a_section_ends_a_passage(tiny):
    text = "war\ntheory\nwho\nplayed\nworld"
    sections = ((0, ""), (text.index("who"), "Who"))
    [passages] = minqa.split(tiny, [Article("1", "T", text, sections)], max_tokens=64)
    assert [(one.text, one.section, one.start) for one in passages] == [
        ("war\ntheory\n", "", 0), ("who\nplayed\nworld", "Who", 11)
    ]  # fmt: skip
    [passages] = minqa.split(tiny, [Article("1", "T", text, sections)], max_tokens=3)
    assert [one.text for one in passages] == ["war\n", "theory\n", "who\n", "played\n", "world"]


def test_the_prompt_takes_its_room(tmp_path):
    import json

    from conftest import make_bert_folder

    folder = make_bert_folder(tmp_path / "prompted")
    prompts = {"prompts": {"document": "war of the world: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = minqa.load(folder)
    [passages] = minqa.split(encoder, [Article("1", "", "who " * 30)], max_tokens=17)
    assert {len(tokens) for tokens in encoder.tokenize([one.text for one in passages], "passage")} == {17}
    with pytest.raises(minqa.InputError, match="has room for 8 to 64"):
        minqa.split(encoder, [], max_tokens=7)
    with pytest.raises(minqa.InputError, match="65 tokens are asked for"):
        minqa.split(encoder, [], max_tokens=65)
