"""What each tab of the app shows, without a browser: from the state in the address alone."""

import re
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest
from conftest import indexed, make_bert_folder, make_elmo_folder

import minqa
from minqa.app.tabs import State, Tabs, _rerank
from minqa.app.work import Search

EVIL = "<script>war()</script> <img src=x onerror=war()> ${war()} {{war}} the world"
TEXTS = ["the theory of relativity was developed", "a war of the world", EVIL, "who played 7 of 9 ?"]


@pytest.fixture(scope="module")
def tabs(tmp_path_factory):
    """A tiny BERT and a tiny ELMo over the same four passages."""
    folder = tmp_path_factory.mktemp("tabs")
    encoders = [minqa.load(make_bert_folder(folder / "bert")), minqa.load(make_elmo_folder(folder / "elmo"))]
    return Tabs(
        [
            Search(one, index=indexed(one, TEXTS, folder / f"index{i}", store_tokens=not i))
            for i, one in enumerate(encoders)
        ]
    )


def show(tabs, tab="ask", **state):
    return tabs.show({"tab": tab, **state})[1]


def test_an_address_holds_the_state():
    state = State(q="who? & <why>", layer=3, influence=True, map="1.3", tab="ask", word=2)
    assert state.address == "?q=who%3F+%26+%3Cwhy%3E&layer=3&influence=1&word=2&map=1.3"
    assert State.of(dict(parse_qsl(state.address[1:]))) == state
    assert State().address == "?" and State.of({"unknown": "1"}) == State()
    with pytest.raises(minqa.InputError, match="The address says layer=x, but layer is a whole number"):
        State.of({"layer": "x"})


def test_ask_shows_passages_and_their_maps(tabs):
    shown = show(tabs, q="the war", k=2, word=1, map="2")
    assert shown.count('<p class="passage">') == 2 and shown.count("<details") == 2
    assert shown.count("<details data-rank=2 open>") == 1 and "<details data-rank=1>" in shown
    assert shown.count('aria-pressed="true"') == 2, "the word is kept in each passage"
    assert 'data-address="?q=the+war&amp;k=2&amp;word=1&amp;map=2"' in shown
    assert "4 passages" in shown and "layer 2" in shown
    assert "Influence of" not in shown and "Influence of" in show(tabs, q="the war", influence=True)


def test_settings_change_what_is_shown(tabs):
    shown = [
        show(tabs, q="the war of theory", k=1, **how)
        for how in (
            {},
            {"layer": 0},
            {"layer": 1, "weights": "none"},
            {"weights": "none"},
            {"model": tabs.names[1]},
        )
    ]
    scores = [re.search(r"score (-?\d\.\d+)", one)[1] for one in shown]
    assert len(set(scores)) == 5
    assert "layer 0 · centring none" in shown[1] and "elmo" in shown[4]


def test_a_form_that_changes_the_model_takes_what_is_usual_there(tabs):
    bert, elmo = tabs.names
    form = {"tab": "compare", "q": "the war", "drawn": bert, "model": elmo, "other": elmo, "k": "3"}
    assert tabs.moved(form) == {"tab": "compare", "q": "the war", "model": elmo}
    assert (
        tabs.initial(form)["other"] == bert and tabs.initial({"tab": "compare", "model": ""})["other"] == elmo
    )
    form = {"tab": "units", "drawn": bert, "model": elmo, "kind": "feed-forward", "layer": "1", "unit": "7"}
    assert "cell unit 1.7" in tabs.show(form)[1]
    form = {"tab": "ask", "q": "the war", "drawn": elmo, "model": bert, "layer": "2", "k": "2"}
    assert tabs.moved(form) == {"q": "the war", "k": "2"}
    assert tabs.moved(form | {"layer": "1"})["layer"] == "1"


def test_compare_sets_two_models_side_by_side(tabs):
    shown = show(tabs, "compare", q="the war", k=1)
    assert shown.count('class="side"') in (1, 2) and shown.count('class="minqa"') == 2 * shown.count('"side"')
    assert all(name in shown for name in tabs.names)
    alone = show(Tabs(tabs.searches[:1]), "compare", q="the war")
    assert "One model is loaded" in alone and "--model" in alone


def test_heads_and_units_are_looked_at(tabs):
    text = "the war of the world"
    shown = show(tabs, "heads", text=text, layer=2, head=3)
    assert "Layer 2, head 3" in shown and shown.count("<svg") == 9
    words = {"source": "of", "first": "war", "second": "world"}
    shown = show(tabs, "heads", text=text, changed="the war of a world", **words)
    assert "How far the attention of of moves" in shown and shown.count('class="arcs"') == 2
    shown = show(tabs, "units", text=text, feature="position")
    assert "units that follow the feature position" in shown and shown.count('class="passage"') == 3
    assert "feed-forward unit 1.7" in show(tabs, "units", text=text, unit=7)
    assert "cell unit 2.7" in show(tabs, "units", text=text, layer=2, unit=7, model=tabs.names[1])


def test_foreign_text_is_shown_as_text(tabs):
    shown = [
        show(tabs, q=EVIL, influence=True, map="1.2.3"),
        show(tabs, "compare", q=EVIL),
        show(tabs, "heads", text=EVIL[:60]),
        show(tabs, "units", text=EVIL, unit=1),
        show(tabs, "heads", text="war", model=EVIL),
    ]
    for one in shown:
        assert "<script" not in one and "<img" not in one
        assert "&lt;" in one


@pytest.mark.parametrize(
    ("tab", "state", "sentence"),
    [
        ("ask", {"q": "..."}, "The query holds no word."),
        ("ask", {"q": "war", "layer": 9}, "The model has layers 0 to 2, but layer 9 was asked for."),
        ("ask", {"q": "war", "weights": "x"}, "There are no weights x: there are none, idf."),
        (
            "ask",
            {"q": "war", "layer": "x"},
            "The address says layer=x, but layer is a whole number of at most nine digits.",
        ),
        ("nothing", {}, "There is no tab nothing: there are ask, compare, heads, units."),
        ("ask", {"q": "war", "k": 99}, "The page shows 1 to 20 passages"),
        ("ask", {"q": "war", "answers": 0}, "The page shows 1 to 20 answers."),
        ("ask", {"q": "war", "model": "gpt"}, "The model gpt is not loaded here: there is"),
        ("ask", {"q": "war " * 900}, "The question is longer than 2,000 characters."),
        ("heads", {"text": " "}, "The text is empty: type one."),
        ("heads", {"text": "war", "changed": "a war"}, "There is no word &#34;it&#34;"),
        ("heads", {"text": "war", "layer": 7}, "There is no head 0 in layer 7"),
        ("units", {"text": "war", "feature": "colour"}, "There is no feature colour"),
        ("units", {"text": "war " * 900}, "The text is longer than 2,000 characters."),
    ],
)
def test_an_error_is_a_sentence_on_the_page(tabs, tab, state, sentence):
    status, shown = tabs.show({"tab": tab, **state})
    assert status == 400 and '<p class="error" role="alert">' in shown and sentence in shown


def test_a_fault_of_ours_is_a_sentence_too(tabs, monkeypatch, capsys):
    monkeypatch.setattr("minqa.app.work.ask", lambda *_, **__: 1 / 0)
    status, shown = tabs.show({"q": "war"})
    assert status == 500 and "This went wrong inside minqa (ZeroDivisionError)" in shown
    assert "Traceback" in capsys.readouterr().err


def test_a_passage_without_a_word_has_no_influence_and_spoils_nothing(tabs, monkeypatch):
    def refuse(*_, **__):
        raise minqa.InputError("The passage holds no word.")

    monkeypatch.setattr("minqa.views.look.saliency", refuse)
    shown = show(tabs, q="the war", influence=True)
    assert shown.count("The passage holds no word.") == shown.count('<p class="passage">') == 3


def test_the_foot_says_how_many_were_read_closely(tabs):
    assert "4 passages, 4 read closely" in show(tabs, q="war")
    assert "4 passages, 3 read closely" in show(tabs, q="war", k=3, rerank=1), "all that are shown"
    assert "4 passages, 0 read closely" in show(tabs, q="war", rerank=0)
    assert "4 passages, 3 read closely" in show(tabs, q="war", layer=1, rerank=3)
    assert [_rerank(tabs.searches[0], State(layer=layer)) for layer in (-1, 1)] == [100, 30]
    few = Tabs([replace(search, where="year > 3") for search in tabs.searches])
    assert "4 passages where year &gt; 3, 4 read closely" in show(few, q="war")


def test_nothing_was_asked_yet(tabs):
    assert "Type a question, or click one of the examples" in show(tabs)
    assert "Type a question" in show(tabs, "compare")


def test_words_that_the_model_does_not_know_are_named_below_the_answer(tabs):
    shown = show(tabs, q="war \u0e41\u0e21\u0e27")
    assert shown.index("does not know the word \u0e41\u0e21\u0e27") > shown.rindex('<p class="passage">')
    assert "does not know" not in show(tabs, q="war")
