"""Sentences, and text that can be encoded."""

from itertools import pairwise

from hypothesis import given
from test_tokens import ANY_TEXT

from minqa.text import sentences, well_formed


def split(text):
    return [text[start:end] for start, end in sentences(text)]


def test_sentences_by_hand():
    assert split("Fox runs. He jumps! Why? 7 dogs bark") == ["Fox runs.", "He jumps!", "Why?", "7 dogs bark"]
    assert split("The U.S. Army met J. R. Smith and Dr. No at 5 p.m. Then it left.") == [
        "The U.S. Army met J. R. Smith and Dr. No at 5 p.m. Then it left."
    ]
    assert split("It cost $1.5 million. and so on") == ["It cost $1.5 million. and so on"]
    assert split('He said "Go." "Why?" she asked.') == ['He said "Go."', '"Why?" she asked.']
    assert split("He wrote it.[3] It sold.") == ["He wrote it.[3]", "It sold."]


@given(ANY_TEXT)
def test_nothing_but_spaces_lies_between_sentences(text):
    places = sentences(text).tolist()
    assert places[0][0] == 0 and places[-1][1] == len(text)
    for (_, end), (start, _) in pairwise(places):
        assert end < start and text[end:start].isspace()


@given(ANY_TEXT)
def test_any_text_becomes_one_that_can_be_encoded(text):
    fit = well_formed(text)
    assert len(fit) == len(text)
    fit.encode("utf-8")
    assert all(
        a == b or (b == "\ufffd" and "\ud800" <= a <= "\udfff") for a, b in zip(text, fit, strict=True)
    )
