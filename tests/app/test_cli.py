"""The command line: what it prints, and one sentence for whatever is wrong."""

import base64
import errno
import hashlib
import html
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import transformers
from conftest import edit_json, make_bert_folder, stanford_folder
from safetensors.numpy import load_file, save_file

import minqa
from minqa.app import cli
from minqa.corpus import storage, writer
from minqa.corpus.statistics import demo_statistics
from minqa.files.loading import DEMO_MODEL


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command line with its cache in `tmp_path`; returns status, stdout and stderr."""

    def run(command, *arguments):
        capsys.readouterr()
        words = [command, *map(str, arguments)]
        at = 2 if command == "look" else 1
        status = cli.main([*words[:at], "--cache", str(tmp_path / "cache"), *words[at:]])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    records = [
        {"title": "Relativity", "text": "The theory of relativity was developed."},
        {"title": "War", "text": "A war of the world, \x1b[31mred\x1b[0m. " + "war " * 80},
        {"text": "the"},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


SCHEMA = json.loads((Path(minqa.__file__).parent / "views" / "schema.json").read_text("utf-8"))


def parsed(out):
    """What --json printed, which is one line, and as its schema says."""
    assert out.count("\n") == 1
    shown = json.loads(out)
    jsonschema.validate(shown, SCHEMA)
    return shown


def assert_sentence(result, text):
    status, out, err = result
    assert status == 1 and out == ""
    assert err.startswith("minqa: ") and text in err and "Traceback" not in err
    assert err.count("\n") == 1, "one sentence, one line"


def assert_refused(result, text):
    """An option that cannot be: one sentence too, with where to read more."""
    status, out, err = result
    assert status == 2 and out == ""
    assert err.startswith("minqa: ") and text in err and "--help` says more." in err
    assert err.count("\n") == 1


def test_ask_prints_json_as_documented(run, bert_folder, corpus):
    status, out, err = run(
        "ask", "who developed the theory?", "--model", bert_folder, "--corpus", corpus, "--json"
    )
    answer = parsed(out)
    assert status == 0
    [model] = answer["models"]
    assert set(answer) == {"query", "overall", "results", "models"} and model["model"] == str(bert_folder)
    assert answer["overall"] == [None], "no answer was looked for"
    assert (answer["query"], model["searched"], model["complete"]) == ("who developed the theory?", 4, True)
    found = [result["by_model"][0] for result in answer["results"]]
    assert [one["rank"] for one in found] == [1, 2, 3]
    scores = [one["score"] for one in found]
    assert (np.diff(scores) <= 1e-4).all()
    for result, one in zip(answer["results"], found, strict=True):
        assert len(result["by_model"]) == 1 and result["agreement"] is None
        for word in [*result["words"], one["span"], one["sentence"]]:
            assert result["text"][word["start"] : word["end"]] == word["text"]
        shares = one["contributions"]
        assert [share["text"] for share in shares] == ["who", "developed", "the", "theory", "?"]
        assert abs(sum(share["contribution"] for share in shares) - one["score"]) < 1e-5
        assert abs(sum(share["weight"] for share in shares) - 1) < 1e-5 and shares[-1]["weight"] == 0
        assert not one["truncated"] and result["id"].endswith(f":{result['start']}")
        heats = [heat for word in result["words"] for heat in word["heat"]]
        assert all(-1 <= heat <= 1 for heat in heats if heat is not None)
    assert err.count("\n") <= 1, "the progress bar alone"
    assert set(model["seconds"]) >= {"load", "embed query", "match", "rank", "heat maps", "spans", "compile"}


def test_ask_prints_passages_safely(run, bert_folder, corpus):
    status, out, _ = run("ask", "war", "--model", bert_folder, "--corpus", corpus, "-k", "2")
    assert status == 0
    assert "[[" in out and "]]" in out
    assert "\x1b" not in out and "\ufffd[31mred" in out
    assert "embed query" in out
    assert out.count("→") == 2


def test_ask_searches_the_first_part_and_index_does_the_rest(run, bert_folder, corpus, monkeypatch):
    monkeypatch.setattr(writer, "ARTICLES_PER_SHARD", 2)
    ask = ("ask", "war", "--model", bert_folder, "--corpus", corpus, "--json")
    _, out, err = run(*ask)
    [model] = parsed(out)["models"]
    assert model["searched"] == 3 and not model["complete"]
    assert f"searched 3 passages, and these are not all: `uv run minqa index {corpus}`, with" in err
    status, out, err = run("index", corpus, "--model", bert_folder)
    assert status == 0 and out.startswith("Embedded 4 passages of 3 articles, in")
    _, out, err = run(*ask)
    assert parsed(out)["models"][0]["searched"] == 4 and "these are not all" not in err


def test_heat_needs_no_corpus(run, bert_folder):
    status, out, _ = run("heat", "theory", "the war theory", "--model", bert_folder, "--json")
    [result] = parsed(out)["results"]
    assert status == 0 and [word["text"] for word in result["words"]] == ["the", "war", "theory"]
    status, out, _ = run("heat", "theory", "the war theory", "--model", bert_folder)
    assert status == 0
    assert "[[" in out
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    status, out, _ = run("heat", "theory", "...", "--model", bert_folder)
    assert status == 0
    assert "inf" not in out
    assert "no phrase stands out" in out


def test_a_reader_finds_the_answers(run, bert_folder, tmp_path):
    reader = make_bert_folder(tmp_path / "reader", kind=transformers.BertForQuestionAnswering)
    heat = ("heat", "who developed it?", "a theory of war", "--model", bert_folder, "--json")
    [without] = parsed(run(*heat)[1])["results"][0]["by_model"]
    assert not without["answered"] and without["span"]["probability"] is None, "no head fits this encoder"
    status, out, _ = run(*heat, "--reader", reader)
    answer = parsed(out)
    assert status == 0 and f"answers of {reader}" in answer["models"][0]["settings"]
    [result] = answer["results"][0]["by_model"]
    [found] = minqa.answer(minqa.load_reader(reader), "who developed it?", ["a theory of war"])
    assert result["answered"]
    assert (result["span"] and result["span"]["text"]) == (found[0].text if found else None)
    [together] = answer["overall"]
    assert len(together["answers"]) == 1 and together["answer"] in (None, together["answers"][0]["text"])
    head = Path(minqa.__file__).parent / "answers" / "span_head.safetensors"
    status, _, err = run(*heat, "--reader", head)
    assert status == 1 and f"The span head was not trained on vectors of {bert_folder}." in err
    status, _, err = run(*heat, "--reader", bert_folder)
    assert status == 1 and "qa_outputs.weight is missing" in err and err.count("\n") == 1


def test_several_answers_on_request_are_distinct_and_likeliest_first(run, bert_folder, corpus, tmp_path):
    reader = make_bert_folder(tmp_path / "reader", kind=transformers.BertForQuestionAnswering)
    ask = ("ask", "who developed it?", "--model", bert_folder, "--corpus", corpus, "--reader", reader)
    status, out, _ = run(*ask, "--answers", "4", "--json")
    answer = parsed(out)
    [together] = answer["overall"]
    probabilities = [one["probability"] for one in together["answers"]]
    assert status == 0 and len(probabilities) == 4 and probabilities == sorted(probabilities)[::-1]
    assert len({one["text"] for one in together["answers"]}) == 4
    assert sum(probabilities) + together["no_answer"] <= 1 + 1e-4
    for one in together["answers"]:
        text = next(r["text"] for r in answer["results"] if r["by_model"][0]["rank"] == one["rank"])
        assert text[one["span"]["start"] : one["span"]["end"]] == one["text"]
    first = together["answers"][0]["text"] if together["answer"] else "No answer found"
    assert run(*ask)[1].startswith(first), "the answer stands before the passages"
    assert_refused(run(*ask, "--answers", "0"), "must be a whole number above 0")


def test_two_models_answer_side_by_side(run, bert_folder, elmo_folder, corpus):
    models = ("--model", bert_folder, "--model", elmo_folder)
    status, out, _ = run("ask", "war theory", *models, "--corpus", corpus, "-k", "1")
    lines = out.splitlines()
    assert status == 0 and lines == [line.rstrip() for line in lines]
    assert str(bert_folder)[:20] in lines[0] and lines[0].count(str(bert_folder)[:20]) == 2
    assert "both: " in out and "\x1b" not in out
    status, out, _ = run("ask", "war theory", *models, "--corpus", corpus, "--json", "-k", "1")
    answer = parsed(out)
    assert status == 0 and set(answer) == {"query", "overall", "results", "models"}
    assert [model["model"] for model in answer["models"]] == [str(bert_folder), str(elmo_folder)]
    for model in answer["models"]:
        assert set(model) == {"model", "settings", "searched", "complete", "seconds"}
        assert (model["searched"], model["complete"]) == (4, True), "both have the passages of the first"
    firsts = [[one["by_model"][i]["rank"] for one in answer["results"]] for i in range(2)]
    assert all(ranks.count(1) == 1 and set(ranks) <= {1, None} for ranks in firsts)
    for one in answer["results"]:
        assert one["agreement"] is not None
        for word in one["words"]:
            assert one["text"][word["start"] : word["end"]] == word["text"]
            assert len(word["heat"]) == len(word["hot"]) == 2


def test_compare_needs_no_corpus_but_two_models(run, bert_folder, elmo_folder):
    texts = ("who played the theory?", "the war theory")
    both = ("--model", bert_folder, "--model", elmo_folder)
    status, out, _ = run("compare", *texts, *both, "--json")
    assert status == 0
    [one] = parsed(out)["results"]
    assert [word["text"] for word in one["words"]] == ["the", "war", "theory"]
    alone = [json.loads(run("heat", *texts, "--model", model, "--json")[1]) for model in both[1::2]]
    for column, answer in enumerate(alone):
        for word, expected in zip(one["words"], answer["results"][0]["words"], strict=True):
            assert word["heat"][column] == pytest.approx(expected["heat"][0], abs=1e-5)
    status, out, _ = run("compare", *texts, *both)
    assert status == 0 and out.count("→") == 2
    for models in ((), ("--model", bert_folder)):
        assert_sentence(run("compare", *texts, *models), "name two models or more")
    assert_sentence(run("compare", " ", "x", *both), "The query is empty")
    assert_sentence(run("ask"), "The query is empty")  # nobody types: standard input is no terminal


def test_one_model_may_stand_twice_and_no_name_steers_the_terminal(run, elmo_folder, tmp_path):
    evil = elmo_folder.rename(tmp_path / "b\x1b[31m\nX")
    status, out, _ = run("compare", "theory", "the theory", "--model", evil, "--model", evil)
    assert status == 0 and "\x1b" not in out
    assert len(re.findall(r"\d m?s ·", out)) == 1, "a time for each"


def test_all_models_are_there_before_any_work(run, bert_folder, corpus, tmp_path):
    models = ("--model", bert_folder, "--model", tmp_path / "typo")
    for command in (("index", corpus), ("ask", "war", "--corpus", corpus)):
        assert_sentence(run(*command, *models), "There is no model folder")
    assert not (tmp_path / "cache" / "index").exists()


def test_an_elmo_answers_as_a_bert_does(run, elmo_folder, corpus):
    status, out, _ = run("ask", "war theory", "--model", elmo_folder, "--corpus", corpus, "--json")
    assert status == 0 and parsed(out)["results"][0]["words"]
    status, out, _ = run("index", corpus, "--model", elmo_folder)
    assert status == 0 and "Embedded 3 passages of 3 articles" in out
    (elmo_folder / "weights.hdf5").write_bytes(b"no")
    assert_sentence(run("ask", "war", "--model", elmo_folder, "--corpus", corpus), "cannot be read as HDF5")


def test_an_index_of_ones_own_is_made_described_and_searched(run, bert_folder, corpus, tmp_path):
    out = tmp_path / "index"
    status, printed, _ = run("index", corpus, "--out", out, "--model", bert_folder, "--max-tokens", "30")
    assert status == 0 and printed == f"Embedded 6 passages of 3 articles, in {out}.\n"
    status, printed, _ = cli_without_cache("index-info", out)
    assert status == 0 and "6 of at most 30 tokens" in printed and "3 articles in 1 shard\n" in printed
    assert re.search(r"complete +yes\nchecksums +all agree", printed)
    shared = run("index", corpus, "--out", out, "--model", bert_folder, "--shards", "1::4")
    assert shared[0] == 0, "there are none"
    status, printed, _ = run("ask", "war theory", "--index", out, "--json")  # the model is the index's own
    answer = parsed(printed)
    [model] = answer["models"]
    assert status == 0 and (model["searched"], model["complete"]) == (6, True)
    assert model["model"] == str(bert_folder)
    path = out / "000000.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"spam")
    status, _, err = cli_without_cache("index-info", out)
    assert status == 1 and f"minqa: {path} is missing, or is not what was written" in err
    assert run("ask", "war", "--index", out)[0] == 0, "opening looks at sizes alone"
    status, _, err = run("index", corpus, "--out", out, "--model", bert_folder)
    assert status == 0 and "makes it again" in err
    assert cli_without_cache("index-info", out)[0] == 0


def cli_without_cache(*arguments):
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = cli.main([str(argument) for argument in arguments])
    return status, output.getvalue(), errors.getvalue()


def test_what_cannot_be_indexed_or_searched_is_told(run, bert_folder, elmo_folder, corpus, tmp_path):
    model = ("--model", bert_folder)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "page.xml").write_text("<html><body>404</body></html>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("")
    for arguments, sentence in [
        (("index", tmp_path / "no", *model), "there is no such file"),
        (("index", tmp_path / "empty.txt", *model), "holds no passage"),
        (("index", tmp_path / "page.xml", *model), "is no MediaWiki dump"),
        (("index", tmp_path / "folder", *model), "is a folder without a Parquet file"),
        (("index", corpus, *model, "--out", tmp_path / "folder"), "is there, and is no index"),
        (("index", corpus, *model, "--model", elmo_folder, "--out", tmp_path / "new"), "name one --model"),
        (("index", corpus, *model, "--max-tokens", "99"), "has room for 3 to 64"),
        (("ask", "x", *model, "--index", tmp_path, "--corpus", corpus), "name one"),
        (("ask", "x", "--index", tmp_path / "folder"), "is no index: it holds no 000000.parquet"),
    ]:
        assert_sentence(run(*arguments), sentence)
    assert_sentence(cli_without_cache("index-info", tmp_path), "is no index")
    assert not (tmp_path / "new").exists()


def test_a_line_that_cannot_be_read_is_told_and_left_out(run, bert_folder, tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a war"}\n{\n{"text": "the theory"}\n')
    index = ("index", path, "--model", bert_folder)
    assert_sentence(run(*index, "--strict"), "lines.jsonl, line 2: this is no JSON")
    status, out, err = run(*index)
    assert status == 0 and "2 passages of 2 articles" in out
    assert "lines.jsonl, line 2: this is no JSON" in err and "It is left out." in err


def test_a_long_question_is_read_whole(run, bert_folder, corpus):
    status, out, err = run("ask", "theory " * 99, "--model", bert_folder, "--corpus", corpus, "--json")
    assert status == 0 and "its beginning alone picks the candidates" in err
    assert len(parsed(out)["results"][0]["by_model"][0]["contributions"]) == 99


def test_how_words_are_compared_can_be_chosen(run, bert_folder, corpus):
    def told(out):
        answer = parsed(out)
        [model], [first, *_] = answer["models"], answer["results"]
        return model["settings"], first["by_model"][0]["score"]

    ask = ("ask", "war theory", "--model", bert_folder, "--corpus", corpus, "--json")
    settings, score = told(run(*ask)[1])
    assert "layer 2 · centring none · weights idf" in settings
    for options, said in [
        (("--layer", "0"), "layer 0 ·"),
        (("--layer", "-2"), "layer 1 ·"),
        (("--weights", "none"), "weights none ·"),
    ]:
        status, out, _ = run(*ask, *options)
        others, other = told(out)
        assert status == 0 and said in others
        assert others.split()[-1] != settings.split()[-1]
        assert other != score
    status, out, _ = run(*ask, "--rerank", "0")
    cosines = [result["by_model"][0]["cosine"] for result in parsed(out)["results"]]
    assert status == 0 and cosines == sorted(cosines, reverse=True)
    assert_sentence(run(*ask, "--layer", "3"), "has layers 0 to 2, but layer 3 was asked for")


@pytest.mark.parametrize(
    "option", [("--layer", "last"), ("--layer", "4,6"), ("--rerank", "-1"), ("--weights", "tf")]
)
def test_odd_options_are_refused(run, option):
    assert_refused(run("ask", "x", *option), option[0])


def test_token_vectors_are_stored_where_index_is_told_to(run, bert_folder, corpus):
    ask = ("ask", "war theory", "--model", bert_folder, "--corpus", corpus, "--json")
    index = ("index", corpus, "--model", bert_folder)
    assert run(*index)[0] == 0
    before = parsed(run(*ask)[1])
    steps = before["models"][0]["seconds"]
    assert "embed passages" in steps and "read vectors" not in steps
    assert run(*index, "--store-tokens")[0] == 0
    after = parsed(run(*ask)[1])
    steps = after["models"][0]["seconds"]
    assert "read vectors" in steps and "embed passages" not in steps
    assert [one["title"] for one in after["results"]] == [one["title"] for one in before["results"]]


def test_what_ask_embeds_itself_it_keeps_with_its_token_vectors(run, bert_folder, corpus):
    ask = ("ask", "war theory", "--model", bert_folder, "--corpus", corpus, "--json")
    for _ in range(2):
        assert "read vectors" in parsed(run(*ask)[1])["models"][0]["seconds"]


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing_foreign(run, bert_folder, tmp_path):
    page = tmp_path / "page.html"
    evil = "theory <script>alert(1)</script> </script> & \x1b[31m \u202e"
    status, _, _ = run("heat", evil, "the war " + evil, "--model", bert_folder, "--html", page)
    text = page.read_text("utf-8")
    assert status == 0
    assert text.count("<script") == 1, "the page's own"
    script = text.split("<script>")[1].split("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text
    assert "&lt;script" in text or "&lt;</b>" in text
    assert not {"\x1b", "\u202e"} & set(text)
    assert "http:" not in text and "https:" not in text and "src=" not in text
    data = json.loads(html.unescape(text.split(' data-map="')[1].split('"')[0]))
    assert len(data["rows"][0]) == len(data["heat"]) == len(data["partner"])
    assert "layer 2 · centring none" in text
    (tmp_path / "no").write_text("")
    for path in (tmp_path / "no" / "page.html", tmp_path, ".", "/"):
        asked = run("heat", "theory", "war", "--model", bert_folder, "--html", path)
        assert_sentence(asked, "cannot be written")
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == []


def test_pages_of_one_and_of_several_models(run, bert_folder, elmo_folder, corpus, tmp_path):
    page = tmp_path / "page.html"
    both = ("--model", bert_folder, "--model", elmo_folder)
    status, _, _ = run("ask", "war theory", *both, "--corpus", corpus, "--html", page)
    text = page.read_text("utf-8")
    assert status == 0 and text.count('class="query"') == 6
    assert "Relativity" in text and str(elmo_folder) in text
    run("ask", "war theory", "--model", bert_folder, "--corpus", corpus, "--html", page, "-k", "2")
    assert page.read_text("utf-8").count('class="query"') == 2


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_of_the_matrix(run, bert_folder, tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="the extra figure is not installed")
    picture = tmp_path / f"map.{suffix}"
    status, _, err = run("heat", "theory $x", "the $ war_{2} $", "--model", bert_folder, "--png", picture)
    assert status == 0 and "Traceback" not in err
    assert picture.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])
    heat = ("heat", "theory", "war", "--model", bert_folder)
    assert_sentence(run(*heat, "--png", tmp_path / "map.doc"), "should end in .png, .svg, .pdf")
    assert_sentence(run(*heat, "--png", tmp_path / "no" / "map.png"), "cannot be written")
    status, _, _ = run(*heat, "--model", bert_folder, "--png", tmp_path / f"two.{suffix}")
    assert status == 0 and (tmp_path / f"two.{suffix}").stat().st_size > picture.stat().st_size


@pytest.mark.parametrize("question", ["", "  \n", "?!"])
def test_an_empty_question(run, bert_folder, corpus, question):
    assert_sentence(
        run("ask", question, "--model", bert_folder, "--corpus", corpus),
        " holds no word" if question.strip() else "is empty",
    )


@pytest.mark.parametrize("texts", [("", "x"), ("x", " ")])
def test_empty_texts(run, texts):
    assert_sentence(run("heat", *texts), "is empty")


def test_bad_models_and_corpora(run, bert_folder, corpus, tmp_path):
    assert_sentence(run("ask", "x", "--model", tmp_path / "no"), "There is no model folder")
    assert_sentence(run("ask", "x", "--model", corpus), "is a file, but a model is a folder")
    assert_sentence(run("ask", "x", "--model", "some/bert"), "without a network name a folder")
    assert_sentence(run("ask", "x", "--model", tmp_path), "holds no config.json")
    assert_sentence(run("ask", "x", "--model", bert_folder, "--corpus", tmp_path / "no"), "cannot be read")
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{}')
    assert_sentence(run("index", tmp_path / "bad.jsonl", "--strict", "--model", bert_folder), "line 2")
    edit_json(bert_folder / "config.json", model_type="electra")
    assert_sentence(run("ask", "x", "--model", bert_folder), "model_type is 'electra'")


@pytest.mark.parametrize("k", ["0", "-1", "two", "1.5"])
def test_k_is_above_zero(run, k):
    assert_refused(run("ask", "x", "-k", k), f"'-k': must be a whole number above 0, not '{k}'")


@pytest.mark.parametrize("option", ["--model", "--corpus", "--cache"])
def test_an_empty_option_is_not_taken_for_the_current_folder(run, option):
    assert_refused(run("ask", "x", option, ""), f"'{option}': must not be empty")


def test_a_query_needs_no_quotes(run, bert_folder, corpus):
    _, out, _ = run(
        "ask", "who", "developed", "the theory?", "--model", bert_folder, "--corpus", corpus, "--json"
    )
    assert parsed(out)["query"] == "who developed the theory?"


def test_k_above_the_corpus_gives_the_corpus(run, bert_folder, corpus):
    _, out, _ = run("ask", "war", "--model", bert_folder, "--corpus", corpus, "--json", "-k", "50")
    assert len(parsed(out)["results"]) == 4


def test_a_cache_that_cannot_be_written(run, bert_folder, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ("ask", "war", "--model", bert_folder, "--corpus", corpus)
    assert_sentence(run(*arguments, "--cache", tmp_path / "file"), "cannot be written")


def test_heat_needs_no_cache(run, bert_folder, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    status, out, err = run("heat", "theory", "the theory", "--model", bert_folder)
    assert (status, err) == (0, "")
    assert "[[theory]]" in out


def test_errors_cannot_steer_the_terminal(run, bert_folder):
    evil = "\x1b]0;owned\x07\nminqa: ok \u202e"
    edit_json(bert_folder / "config.json", hidden_act=evil)
    assert_sentence(run("ask", "x", "--model", bert_folder), "hidden_act")
    weights = load_file(bert_folder / "model.safetensors")
    edit_json(bert_folder / "config.json", hidden_act="gelu")
    save_file(weights | {evil: np.zeros(1, np.float32)}, bert_folder / "model.safetensors")
    result = run("ask", "x", "--model", bert_folder)
    assert_sentence(result, "is unknown")
    assert not {"\x1b", "\x07", "\u202e"} & set(result[2])


def test_json_is_ascii_and_any_output_can_be_encoded(run, bert_folder, tmp_path):
    (tmp_path / "odd.jsonl").write_text('{"text": "war \\ud800 \\u009b31m \\u202e", "title": "\\ud800"}')
    arguments = ("ask", "war", "--model", bert_folder, "--corpus", tmp_path / "odd.jsonl")
    _, out, _ = run(*arguments, "--json")
    assert out.isascii()
    assert parsed(out)["results"][0]["text"] == "war \ufffd \x9b31m \u202e"
    _, out, _ = run(*arguments)
    out.encode()


def test_a_full_disk(run, bert_folder, corpus, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    status, _, err = run("ask", "x", "--model", bert_folder, "--corpus", corpus)
    assert status == 1 and "cannot be written (No space left on device)" in err
    left = [path.name for path in (tmp_path / "cache" / "index").rglob("*") if path.is_file()]
    assert left in ([], [".000000.lock"])


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_only_what_meets_every_condition_is_searched(run, bert_folder, tmp_path):
    (tmp_path / "a.csv").write_text("text,year,lang\na war,1914,en\nthe war,1939,de\nwho,1990,en\nwar,,en\n")
    asked = ("ask", "war", "--model", bert_folder, "--corpus", tmp_path / "a.csv", "--json")
    status, output, _ = run(*asked, "--where", "year < 1950", "--where", 'lang == "en" or lang == "fr"')
    [result] = json.loads(output)["results"]
    assert status == 0 and (result["text"], result["extra"]) == ("a war", {"year": 1914, "lang": "en"})
    assert_sentence(
        run(*asked, "--where", "year = 3"), "The condition (year = 3) cannot be read: write one as"
    )
    assert_sentence(run(*asked, "--where", "lang == de"), "There is no column de")


def test_help_answers_with_neither_jax_nor_rich():
    code = """if True:
        import sys
        from minqa.app.cli import main
        statuses = [main(["--help"]), main(["ask", "--help"]), main(["ask", "x", "-k", "0"])]
        assert statuses == [0, 0, 2]
        assert not {"jax", "rich", "starlette"} & set(sys.modules)
    """
    done = python(code)
    assert done.returncode == 0 and "ask" in done.stdout and done.stderr.startswith("minqa: Invalid value")


COMMANDS = [
    "ask",
    "index",
    "index-info",
    "heat",
    "compare",
    "align",
    "look heads",
    "look units",
    "look influence",
    "app",
    "schema",
]


@pytest.mark.parametrize("command", ["", "look", *COMMANDS])
def test_help_fits_a_screen(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: minqa {command}".rstrip()) and out.count("\n") <= 50
    assert max(map(len, out.splitlines())) <= 80


def test_help_names_every_command(capsys):
    cli.main(["--help"])
    groups = capsys.readouterr().out
    cli.main(["look", "--help"])
    groups += capsys.readouterr().out
    assert all(f"\n  {command.split()[-1]} " in groups for command in COMMANDS)


def test_help_names_the_default_model(capsys):
    assert cli.main(["ask", "--help"]) == 0
    assert DEMO_MODEL in capsys.readouterr().out.replace("-\n", "-").replace(" ", "")


def test_a_typing_error_is_told_with_what_was_meant(capsys):
    assert cli.main(["aks", "x"]) == 2
    assert (
        capsys.readouterr().err
        == "minqa: No such command 'aks'. Did you mean 'ask': `minqa --help` says more.\n"
    )


def test_the_schema_is_printed(capsys):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


NEEDED = {
    "rich": "The command line needs rich",
    "platformdirs": "The command line needs platformdirs",
    "jinja2": "HTML needs Jinja2",
}


def without(package, *options):
    return python(f"""if True:
        import sys
        sys.modules["{package}"] = None
        from minqa.app.cli import main
        sys.exit(main(["heat", "theory", "war", *{options}]))
    """)


@pytest.mark.parametrize("package", NEEDED)
def test_what_is_not_installed_is_told(package, tmp_path):
    done = without(package, *(["--html", str(tmp_path / "page.html")] if package == "jinja2" else []))
    sentence = f"minqa: {NEEDED[package]}: install it with `uv sync --extra app`.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_the_terminal_does_without_what_only_html_needs():
    done = without("jinja2")
    assert (done.returncode, done.stderr) == (0, "") and "theory" in done.stdout


def test_a_fault_of_ours_is_a_sentence_too_and_no_missing_package(monkeypatch, capsys):
    def fail(path):
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    monkeypatch.setattr("minqa.app.corpora.describe_index", fail)
    assert cli.main(["index-info", "x"]) == 1
    cause = "minqa: This went wrong inside minqa (ModuleNotFoundError: No module named 'nothing'); "
    assert capsys.readouterr().err == f"{cause}with MINQA_TRACEBACK=1 it says where.\n"
    monkeypatch.setenv("MINQA_TRACEBACK", "1")
    assert cli.main(["index-info", "x"]) == 1
    assert "in fail" in capsys.readouterr().err


def test_words_that_the_model_does_not_know_are_named_after_the_results(run, bert_folder, corpus, tmp_path):
    page = tmp_path / "page.html"
    ask = ("ask", "แมว", "war", "--model", bert_folder, "--corpus", corpus)
    status, out, err = run(*ask, "--html", page)
    assert status == 0 and "War" in out
    sentence = err.splitlines()[-1]
    assert f"{bert_folder} does not know the word แมว" in sentence
    assert "does not know the word" in page.read_text("utf-8")
    assert "does not know" in run(*ask, "--json")[2]
    assert "does not know" not in run("ask", "war", "--model", bert_folder, "--corpus", corpus)[2]
    status, out, err = run("heat", "แมว", "หมา", "--model", bert_folder, "--json")
    assert status == 0 and parsed(out)["results"][0]["by_model"][0]["score"] < 0.5
    assert "แมว" in err and "หมา" in err, "the user gave the passage too"


def start(tmp_path, bert_folder, *arguments):
    command = [
        sys.executable,
        "-c",
        "import sys; from minqa.app.cli import main; sys.exit(main())",
        *arguments,
    ]
    return subprocess.Popen(
        [*command, "--model", bert_folder, "--cache", tmp_path / "cache"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have it ignored
    )  # fmt: skip


def test_ctrl_c_while_indexing_leaves_no_traceback_and_nothing_half_written(tmp_path, bert_folder):
    (tmp_path / "many.txt").write_text("\n".join(f"theory {i} " * 30 for i in range(20000)))
    out = tmp_path / "index"
    process = start(tmp_path, bert_folder, "index", tmp_path / "many.txt", "--out", out)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(out.glob("*.parquet")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "minqa: stopped" in err and "Traceback" not in err
    assert list(out.glob("*.parquet")) and not list(out.glob("*.tmp"))


def test_a_reader_that_stops_early_is_no_error(tmp_path, bert_folder, corpus):
    process = start(tmp_path, bert_folder, "ask", "war", "--json", "--corpus", corpus)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=120) == 0 and "Traceback" not in err and "BrokenPipe" not in err


def test_look_shows_heads_and_units(run, bert_folder, corpus, tmp_path):
    model = ("--model", bert_folder)
    status, out, _ = run("look", "heads", "the war of the world", *model, "--json")
    shown = parsed(out)
    assert status == 0 and shown["text"] == "the war of the world" and len(shown["views"]) == 2
    page = tmp_path / "look.html"
    status, out, _ = run("look", "heads", "the war", *model, "--head", "2.3", "--html", page)
    assert status == 0 and "Layer 2, head 3" in out and "<svg" in page.read_text("utf-8")
    flip = ("--flip", "the war of a world", "--from", "of", "--to", "war", "world")
    status, out, _ = run("look", "heads", "the war of the world", *model, *flip)
    assert status == 0 and "How far the attention of of moves between war / world" in out
    status, out, err = run("look", "units", "the war 2", *model, "--corpus", corpus, "--feature", "quotes")
    assert_sentence((status, out, err[err.rindex("minqa: ") :]), "The feature is the same for every word")
    status, out, _ = run("look", "units", "the war 2", *model, "--corpus", corpus)
    assert status == 0 and "feed-forward units that follow the feature position" in out
    status, out, _ = run("look", "units", "the war 2", *model, "--unit", "1.7", "--unit", "2.0", "--json")
    titles = [view["title"] for view in parsed(out)["views"]]
    assert titles == ["feed-forward unit 1.7", "feed-forward unit 2.0"]
    status, out, _ = run("look", "units", "the war 2", *model, "--factors", 2, "--kind", "hidden")
    assert status == 0 and "factor 1 of hidden units" in out


@pytest.mark.parametrize("what", ["heads", "heads --head 1.1", "units --unit 1.2 --unit 2.3"])
def test_look_draws_figures(run, bert_folder, tmp_path, what):
    pytest.importorskip("matplotlib", reason="the extra figure is not installed")
    kind, *options = what.split()
    path = tmp_path / "look.png"
    status, _, _ = run("look", kind, "the $war$ of", "--model", bert_folder, *options, "--png", path)
    assert status == 0 and path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["heads", " "], "The text is empty"),
        (["heads", "war", "--head", "3.0"], "There is no head 0 in layer 3: layers are 1 to 2, heads 0 to 3"),
        (["heads", "war", "--from", "war"], "--from and --to belong to --flip"),
        (["heads", "war", "--flip", "a war"], "--flip needs the word that attends"),
        (
            ["heads", "war", "--flip", "a", "--head", "1.0", "--from", "a", "--to", "b", "c"],
            "--head and --flip are two things",
        ),
        (["units", "war", "--unit", "1.99"], "There is no feed-forward unit 99 in layer 1"),
        (["units", "war", "--unit", "1.9", "--factors", "2"], "--unit and --factors are two things"),
        (["units", "war", "--kind", "gate", "--unit", "1.9"], "no units of the kind gate"),
        (["units", "war", "--feature", "colour"], "There is no feature colour"),
        (["heads", "war", "--png", "x.txt"], "should end in .png"),
    ],
)
def test_look_refuses_in_one_sentence(run, bert_folder, corpus, arguments, sentence):
    more = ["--corpus", corpus] if arguments[0] == "units" else []
    assert_sentence(run("look", arguments[0], "--model", bert_folder, *more, *arguments[1:]), sentence)


def test_the_app_says_what_it_needs(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "minqa.app.browser", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, output, error = run("app")
    assert (status, output) == (1, "") and "Traceback" not in error
    assert error.endswith("minqa: The page needs uvicorn: install it with `uv sync --extra app`.\n")


LONG, NUL, NOBODY, UMLAUT = "x" * 5000, "a\0b", "~nouser/x", "\udcff"


@pytest.mark.parametrize("name", [LONG, NUL, NOBODY, UMLAUT], ids=["long", "NUL", "no user", "no Unicode"])
@pytest.mark.parametrize(
    "command",
    [
        "ask war --model", "ask war --corpus", "ask war --index", "ask war --reader", "index --out", "index",
        "index-info", "heat a b --html", "heat a b --png", "look heads war --model",
    ],
)  # fmt: skip
def test_no_name_ends_in_a_traceback(command, name, bert_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in command or command == "index-info" else ["--model", str(bert_folder)]
    status, out, err = cli_without_cache(*command.split(), name, *model)
    assert status in (1, 2) and out == ""
    assert err.startswith("minqa: ") and err.count("\n") == 1 and "inside minqa" not in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["index", "--shard", "1" + "0" * 30], "must be a whole number above 0"),
        (["ask", "x", "--layer", "9" * 40], "must be a whole number"),
        (["look", "heads", "x", "--head", "1." + "9" * 40], "must be a layer and a number, as 4.1"),
        (["index", "--shards", "1-2"], "must be START:STOP or START:STOP:STEP"),
        (["app", "--port", "0"], "must be a whole number above 0"),
        (["heat"], "Missing argument 'QUERY'"),
        ([], "Missing command"),
        (["ask", "x", "--modle", "y"], "No such option: --modle"),
        (["look", "heads", "x", "--to", "one"], "requires 2 arguments"),
    ],
)
def test_odd_command_lines_are_refused(arguments, sentence):
    assert_refused(cli_without_cache(*arguments), sentence)


def test_files_are_tried_before_the_work(run, bert_folder, tmp_path, monkeypatch):
    def load(name):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("minqa.app.work.load", load)
    (tmp_path / "file").write_text("mine")
    for option in ("--html", "--png"):
        name = tmp_path / "file" / "page.png"
        assert_sentence(run("heat", "a", "b", option, name), f"{name} cannot be written")
    out = tmp_path / "file" / "index"
    assert_sentence(run("index", "--out", out), f"{out} cannot be written: {tmp_path / 'file'} is a file")
    status, _, err = run("heat", "a", "b", "--html", tmp_path / "file")
    assert status == 1 and "the work has begun" in err
    assert (tmp_path / "file").read_text() == "mine", "what was there stays until there is something new"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("redirection", "sentence"),
    [("> /dev/full", "cannot be read or written (No space left on device)"), (">&-", "is closed")],
)
def test_output_that_goes_nowhere_is_told(redirection, sentence):
    command = f'"{sys.executable}" -m minqa schema {redirection}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("minqa: Standard output ") and sentence in done.stderr
    assert done.stderr.count("\n") == 1


def press(*_):
    signal.raise_signal(signal.SIGINT)


class Dropped:
    """Python drops what is raised in here."""

    def __del__(self):
        press()


def in_a_destructor(path):
    Dropped()
    time.sleep(5)
    raise AssertionError("Ctrl-C was lost")


def in_an_import(path):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "is_pressed.py").write_text(
            "import signal\n"
            "try:\n"
            "    signal.raise_signal(signal.SIGINT)\n"
            "except KeyboardInterrupt:\n"
            "    raise SystemExit('in a library that is not ready') from None\n"
        )
        sys.path.insert(0, folder)
        importlib.import_module("is_pressed")
    time.sleep(5)
    raise AssertionError("Ctrl-C was lost")


def by_a_library_that_raises_another(path):
    try:
        press()
    except KeyboardInterrupt:
        raise RuntimeError("XLA") from None


def by_a_library_that_goes_on(path):
    with suppress(KeyboardInterrupt):
        press()


@pytest.mark.parametrize(
    "lost", [in_a_destructor, in_an_import, by_a_library_that_raises_another, by_a_library_that_goes_on]
)
def test_ctrl_c_is_never_lost(lost, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("minqa.app.corpora.describe_index", lost)
    start = time.monotonic()
    assert cli_without_cache("index-info", "x") == (130, "", "minqa: stopped.\n")
    assert time.monotonic() - start < 3
    assert signal.getsignal(signal.SIGINT) is before


def test_prompts_are_read_before_texts_and_belong_to_the_index(run, bert_folder, corpus, tmp_path):
    heat = ("heat", "theory", "the war theory", "--model", bert_folder, "--json")
    plain = parsed(run(*heat)[1])
    asked = parsed(run(*heat, "--query-prompt", "who played ", "--passage-prompt", "world of ")[1])
    [score], [other] = (answer["results"][0]["by_model"] for answer in (plain, asked))
    assert score["score"] != other["score"]
    assert [word["text"] for word in asked["results"][0]["words"]] == ["the", "war", "theory"]
    out, prompts = tmp_path / "index", ("--query-prompt", "who ", "--passage-prompt", "a ")
    assert run("index", corpus, "--out", out, "--model", bert_folder, *prompts)[0] == 0
    ask = ("ask", "war", "--index", out)
    assert_sentence(run(*ask), "another model")
    assert run(*ask, *prompts)[0] == 0


def test_align_pairs_words_with_a_score_each(run, bert_folder, tmp_path):
    texts = ("align", "the war of theory", "the war of theory")
    status, out, _ = run(*texts, "--model", bert_folder, "--json", "--html", tmp_path / "page.html")
    assert status == 0
    pairs, grid = parsed(out)["views"]
    assert pairs["rows"][1] == {
        "first text": "war", "second text": "war", "similarity": "1.00", "numbers": "1-1"
    }  # fmt: skip
    assert len(pairs["rows"]) == 4
    assert (grid["rows"], grid["columns"]) == (texts[1].split(), texts[2].split())
    assert "Words that say the same" in (tmp_path / "page.html").read_text()
    assert_sentence(run("align", "war", " ", "--model", bert_folder), "The passage is empty")


def test_influence_shades_both_texts_in_every_form(run, bert_folder, tmp_path):
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    texts = ("look", "influence", "the war of theory", "a world war", "--model", bert_folder)
    status, out, _ = run(*texts, "--json", "--html", page, "--png", picture)
    assert status == 0 and picture.stat().st_size
    views = parsed(out)["views"]
    assert [view["words"] for view in views] == [texts[2].split(), texts[3].split()]
    encoder = minqa.load(bert_folder)
    encoder = replace(encoder, statistics=demo_statistics(encoder, None))
    expected = minqa.saliency(encoder, *texts[2:4])
    assert views[0]["values"] == pytest.approx(expected.query_words.tolist(), rel=1e-3, abs=1e-6)
    assert views[1]["values"] == pytest.approx(expected.passage_words.tolist(), rel=1e-3, abs=1e-6)
    assert "Influence of the passage" in page.read_text()
    assert "Influence of the query" in run(*texts)[1]
    assert_sentence(run("look", "influence", "war", " ", "--model", bert_folder), "The passage is empty")


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.2])
def test_ctrl_c_leaves_no_traceback_whenever_it_comes(seconds):
    code = """if True:
        import signal, sys
        from minqa.app import start
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        sys.argv[1:] = ["heat", "war", "war"]
        print("begun", flush=True)
        start.run()
    """
    program = [sys.executable, "-c", code]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert err in ("", "minqa: stopped.\n")


def test_the_command_line_takes_a_colbert(run, tmp_path):
    folder = stanford_folder(tmp_path / "colbert", metadata=None)
    status, out, err = run("heat", "who played?", "The war.", "--model", folder)
    shown = " ".join(out.split())
    assert (
        status == 0 and "[unused0] " in shown and "[MASK] × 25 " in shown and "the sum over tokens" in shown
    )
    assert "holds no artifact.metadata" in err and "Warning" not in err
    page, picture = tmp_path / "heat.html", tmp_path / "heat.png"
    status, out, err = run(
        "heat", "who played?", "The war.", "--model", folder, "--json", "--html", page, "--png", picture
    )
    [shown] = parsed(out)["results"][0]["by_model"]
    parts = [part["contribution"] for part in (*shown["contributions"], *shown["others"])]
    assert sum(parts) == pytest.approx(shown["score"], abs=1e-4)
    assert "[MASK] × 25<sub>" in page.read_text() and picture.stat().st_size > 1000
    (tmp_path / "notes.txt").write_text("The theory of relativity.\n\nA world war.")
    status, out, err = run(
        "index", tmp_path / "notes.txt", "--out", tmp_path / "index", "--model", folder, "--store-tokens"
    )
    assert status == 0, err
    status, out, err = run("ask", "who played?", "--index", tmp_path / "index", "--model", folder, "--json")
    assert status == 0 and len(parsed(out)["results"]) >= 1, err
