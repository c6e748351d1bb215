"""Articles → passages: whole sentences, nothing lost, no word cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minqa
from minqa.records import Article
from minqa.text import sentences, well_formed

PIECES = [*"The war. |Who played? |\n|a |theory|developed |漢字|\x0b|. |é́ |—".split("|"), "x" * 30]


def words_of(encoder, text):
    [tokens] = encoder.tokenizer([text])
    return tokens.words.tolist()


@given(
    parts=st.lists(st.one_of(st.text(max_size=8), st.sampled_from(PIECES)), max_size=40),
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
