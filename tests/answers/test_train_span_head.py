"""The training example: what it learns from, that it goes on where it stopped, and what it leaves behind."""

import importlib.util
import json
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import make_bert_folder

import minqa
from examples.cloze import cloze_questions
from minqa.answers.overall import Trust, overall, signs

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_span_head.py"


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(EXAMPLE.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("train_span_head", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(EXAMPLE.parent))
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    """Six articles of two paragraphs; the answer to each question is a word of it.

    Every word is one token, so that all batches have one shape.
    """
    rng = np.random.default_rng(0)
    words = "theory war world relativ play naive develop caf".split()
    data = []
    for i in range(6):
        paragraphs = []
        for _ in range(2):
            context = " ".join(rng.choice(words, 8))
            at = context.index(" ") + 1
            answer = {"text": context[at:].split()[0], "answer_start": at}
            qas = [{"question": f"who {word}?", "answers": [answer]} for word in words[:3]]
            paragraphs.append({"context": context, "qas": qas})
        data.append({"title": str(i), "paragraphs": paragraphs})
    path = tmp_path_factory.mktemp("data") / "squad.json"
    path.write_text(json.dumps({"data": data}))
    return path


@pytest.fixture
def run(example, folder, squad, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # other tests would compile again

    def run(out, *options):
        monkeypatch.setattr(
            sys,
            "argv",
            [
                *("train_span_head", str(squad), "--out", str(out), "--model", str(folder), "--layer", "1"),
                *("--hidden", "4", "--batch", "4", "--validation", "1", "--test", "1", "--leads", "0"),
                *("--generations", "1", *options),
            ],
        )
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax needs it
            example.main()

    return run


def test_a_run_that_was_stopped_ends_like_one_that_was_not(example, run, tmp_path, monkeypatch, capsys):
    twice = ("--epochs", "2", "--generations", "2")
    run(tmp_path / "whole", *twice)
    told = " ".join(capsys.readouterr())
    assert "epoch 2: loss" in told and "6 questions on 1 articles" in told and "AUROC" in told
    calls = Counter()
    step = example.train_step

    def stop(*arguments, **options):
        calls["step"] += 1
        if calls["step"] == 22:  # in the second epoch of the second head
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments, **options)

    monkeypatch.setattr(example, "train_step", stop)
    with pytest.raises(SystemExit, match="Stopped: the same command goes on"):
        run(tmp_path / "halted", *twice)
    run(tmp_path / "halted", *twice)
    heads = [minqa.load_span_head(tmp_path / name / "span_head.safetensors") for name in ("whole", "halted")]
    for leaf, same in zip(*map(jax.tree.leaves, heads), strict=True):
        np.testing.assert_array_equal(leaf, same)
    with pytest.raises(SystemExit, match="belongs to a run with other settings"):
        run(tmp_path / "halted", "--epochs", "3")


def test_a_second_head_learns_from_the_first_and_from_leads(example, run, folder, squad, tmp_path):
    run(tmp_path, "--epochs", "1", "--generations", "2", "--leads", "12")
    first, second = (minqa.load_span_head(path / "span_head.safetensors") for path in _heads(tmp_path))
    assert not np.array_equal(first.project.kernel, second.project.kernel)
    leads = minqa.demo_passages()[:12]
    data, options = example.Data(squad, split=0, validation=1, test=1, leads=leads), _options(folder)
    task, rng = example.HeadTask(data, options), np.random.default_rng(0)
    assert data.asked_of_leads and task.known(rng) == task.marked, "nobody teaches it yet"
    before, (asked, *_) = task.batch(task.marked[:4])[1], data.asked_of_leads
    task.teachers = (first,)
    of_leads = [example for example in task.known(rng) if example.question >= data.asked]
    assert sorted(of_leads) == data.asked_of_leads
    batch, after = task.batch(task.marked[:4])
    believed = np.asarray(example.beliefs(task.teachers, batch, before))
    start, end, none = map(np.asarray, jax.jit(type(first).__call__)(first, batch))
    row, i = 0, np.argwhere(before[0])[0]
    odds = np.exp([start[0, j] + end[0, j + more] for j in range(8) for more in range(8 - j)])
    chosen = np.exp(start[row, i[0]] + end[row, i.sum()])
    assert believed[0][tuple(i)] == pytest.approx(chosen / (odds.sum() + np.exp(none[0])), rel=1e-4)
    np.testing.assert_allclose(after, (before + believed) / 2, atol=1e-6)
    others = [task.elsewhere(asked, rng) for _ in range(8)]
    assert any(not other.answers for other in others)
    assert {asked.passage}.isdisjoint(other.passage for other in others if not other.answers)
    elsewhere = [
        task.elsewhere(example, rng).passage >= data.paragraphs for example in task.marked for _ in range(20)
    ]
    assert 0.2 < np.mean(elsewhere) < 0.6


def _heads(folder):
    return folder / "generation-0", folder


@pytest.mark.parametrize(
    ("title", "passage", "questions"),
    [
        (
            "Alexander Fleming",
            "Sir Alexander Fleming was a physician. He shared the 1945 Nobel Prize, with two more. She sang.",
            [("Who shared the 1945 Nobel Prize?", "Alexander Fleming")],
        ),
        (
            "Mercury (planet)",
            "Mercury is a planet. It is the nearest to the Sun.",
            [("What is the nearest to the Sun?", "Mercury")],
        ),
        ("Hamlet", "A play by Shakespeare. It is the longest of his plays.", []),
        ("Rome", "Rome is a city. It is old. Its rivers are wide and long and deep.", []),
        (
            "Plant",
            "Plants grow. They are more than 300,000 species of life, we know.",
            [],
        ),
        (
            "Plants",
            "Plants grow. They are more than 300,000 species of life, we know. They live on both sides.",
            [("What are more than 300,000 species of life?", "Plants")],
        ),
        ("Rome", "", []),
    ],
)  # fmt: skip
def test_sentences_about_an_article_become_questions_that_its_title_answers(title, passage, questions):
    found = cloze_questions(title, passage)
    assert [(question.text, passage[question.start : question.end]) for question in found] == questions


def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path):
    with pytest.raises(SystemExit, match=r"The loss is (nan|inf) at step \d+ of epoch \d+: lower --rate"):
        run(tmp_path, "--rate", "1e38", "--epochs", "4")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--validation", "0"), "--validation must be at least 1"),
        (("--leads", "-1"), "--leads must be at least 0"),
        (("--finetune", "--generations", "2"), "--generations is of heads"),
        (("--batch", "99"), "24 questions are left to train on, fewer than --batch"),
        (("--layer", "9"), "layers 0 to 2, but layer 9 was asked for"),
    ],
)
def test_options_that_cannot_be_used_are_told(run, tmp_path, option, told):
    with pytest.raises(SystemExit, match=told):
        run(tmp_path, *option)


@pytest.mark.parametrize("words", [1, 40])
def test_finetuning_marks_the_tokens_of_the_answer(example, folder, squad, words):
    options = SimpleNamespace(model=str(folder), bfloat16=False, seed=0)
    data = example.Data(squad, split=0, validation=1, test=1)
    task = example.ReaderTask(data, options)
    data.passages[0] = "the war " * words + "developed relativity (theory)"
    at = data.passages[0].index("relativity")
    batch, in_passage, target = task.batch([example.Example(0, 0, Counter({(at, at + 10): 1}))])
    [[first, more]] = np.argwhere(target[0])
    assert target[0, first, more] == 1
    assert task.tokenizer.backend.decode(batch.ids[0, first : first + more + 1].tolist()) == "relativity"
    assert in_passage[0, first : first + more + 1].all() and not in_passage[~batch.mask].any()
    assert (batch.types[in_passage] == 1).all()


def test_finetuning_learns_in_half_the_bits(run, tmp_path, capsys):
    run(tmp_path, "--finetune", "--epochs", "6", "--rate", "1e-2", "--bfloat16")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+), validation", " ".join(capsys.readouterr()))]
    assert losses[-1] < 0.8 * losses[0]


def test_a_finetuned_bert_is_a_checkpoint_for_everyone(run, tmp_path):
    run(tmp_path, "--finetune", "--epochs", "1")
    reader = minqa.load_reader(tmp_path)
    oracle = transformers.BertForQuestionAnswering.from_pretrained(tmp_path).eval()
    ids = np.random.default_rng(0).integers(0, 90, (2, 12)).astype(np.int32)
    types = np.repeat(np.int32([[0, 1]]), 6).reshape(1, 12).repeat(2, 0)
    with torch.no_grad():
        output = oracle(torch.tensor(ids).long(), token_type_ids=torch.tensor(types).long())
    logits = np.stack(reader.model(ids, np.ones_like(ids) > 0, types))
    np.testing.assert_allclose(logits[0], output.start_logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(logits[1], output.end_logits.numpy(), atol=1e-4)


def test_articles_are_never_shared_between_the_parts(example, squad):
    data = example.Data(squad, split=3, validation=2, test=1)
    articles = [
        {data.article[example.passage] for example in part}
        for part in (data.train, data.validation, data.test)
    ]
    assert [*map(len, articles)] == [3, 2, 1]
    assert len(set.union(*articles)) == 6
    with pytest.raises(minqa.InputError, match="has 6 articles, too few"):
        example.Data(squad, split=0, validation=3, test=3)


def test_leads_of_the_articles_set_aside_are_left_out(example, squad):
    leads = [minqa.Passage(str(i), f"{i} is a number. It is one of the six here.") for i in range(6)]
    data = example.Data(squad, split=0, validation=1, test=1, leads=leads)
    answers = {data.accepted[asked.question][0] for asked in data.asked_of_leads}
    assert len(answers) == len(data.passages) - data.paragraphs == 4
    assert answers.isdisjoint(data.test_articles)


def test_a_question_is_put_to_another_paragraph_of_its_article(example, squad):
    data = example.Data(squad, split=0, validation=1, test=1)
    rng = np.random.default_rng(0)
    for question in data.train:
        other = data.elsewhere(question, rng)
        assert other.passage != question.passage and not other.answers
        assert data.article[other.passage] == data.article[question.passage]


def test_answers_are_marked_by_the_words_that_hold_them(example):
    starts, ends = np.array([0, 0, 4, 10, 15]), np.array([0, 3, 9, 13, 15])  # two tokens of no word
    answers = Counter({(4, 13): 2, (5, 8): 1, (10, 99): 1})
    marks = example.mark(answers, starts, ends)
    assert marks == {(2, 3): 2, (2, 2): 1}
    [target] = example.targets([marks], (1, 5))
    assert target.shape == (5, 5) and target[2, 1] == np.float32(2 / 3) and target[2, 0] == np.float32(1 / 3)
    assert target.sum() == 1


def test_auroc_by_hand(example):
    assert example.auroc([0.9, 0.5], [0.1, 0.5, 0.7]) == pytest.approx((3 + 1.5) / 6)


def test_trust_is_fitted_to_what_is_right(example):
    """Questions drawn from a known trust: it is found again, and its probabilities hold."""
    rng, drawn = np.random.default_rng(0), []
    truth = Trust(bias=-2.0, margin=1.5, score=3.0, lag=2.0, first=1.0, cosine=2.0)
    for i in range(750):
        names = [f"w{i}x{j}" for j in range(6)]
        every = [minqa.Span(name, 0, 1, 0.0, None, rng.normal()) for name in names]
        spans = [every[:2], every[2:4], every[4:]]
        scores, cosines = np.sort(rng.uniform(0, 1, 3))[::-1].tolist(), rng.uniform(0, 1, 3).tolist()
        odds = np.exp([*truth.logits(signs(spans, scores, cosines)), 0])
        chosen = rng.choice(7, p=odds / odds.sum())
        drawn.append((spans, scores, cosines, [names[chosen]] if chosen < 6 else []))
    searched = [example.Searched(*question) for question in drawn]
    trust = example.fit(searched[:500])
    assert trust.margin == pytest.approx(truth.margin, abs=0.2)
    both = [[overall(*found, one).no_answer for *found, _ in drawn] for one in (trust, truth)]
    assert np.abs(np.subtract(*both)).mean() < 0.03
    measured = example.measure(searched[250:], trust)
    assert measured["calibration error"] < 0.06
    assert measured["refused"] < 12 < measured["refused without its article"]


@pytest.fixture(scope="module")
def task(example, folder, squad):
    return example.HeadTask(example.Data(squad, split=0, validation=1, test=1), _options(folder))


def _options(folder):
    return SimpleNamespace(model=str(folder), layer=1, hidden=4)


def test_nothing_of_the_articles_set_aside_is_trained_on_not_even_as_another_passage(task):
    rng, data = np.random.default_rng(0), task.data
    trained = {data.article[example.passage] for example in data.train}
    others = [task.elsewhere(example, rng) for example in data.train for _ in range(8)]
    assert {data.article[other.passage] for other in others} <= trained
    moved = [(one, other) for one, other in zip(np.repeat(data.train, 8, 0), others, strict=True)]
    assert any(data.article[int(one[1])] != data.article[other.passage] for one, other in moved)
    for other in others:
        assert not other.answers and other.passage in {example.passage for example in data.train}


def test_an_article_is_taken_out_of_what_is_searched(task):
    for example in task.data.test:
        article = task.data.article[example.passage]
        inside, outside = (task.ranking(example.question, without) for without in (None, article))
        assert example.passage in inside[0] and article not in {task.data.article[i] for i in outside[0]}
        kept = [row for row in zip(*inside, strict=True) if task.data.article[row[0]] != article]
        assert [*zip(*outside, strict=True)] == kept, "the others keep their order, scores and cosines"
    searched = task.search(task.initial(0), task.data.test)
    assert [bool(one.accepted) for one in searched] == [True, False] * len(task.data.test)
