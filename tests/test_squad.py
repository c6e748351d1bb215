"""SQuAD's files and its two numbers."""

import copy
import json

import pytest

import minqa
from examples.squad import calibration_error, exact_match, f1, is_right, read_squad, reliability

FILE = {
    "version": "1.1",
    "data": [
        {
            "title": "Foxes",
            "paragraphs": [
                {
                    "context": "The quick brown fox jumps.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Who jumps?",
                            "answers": [
                                {"text": "fox", "answer_start": 16},
                                {"text": "brown fox", "answer_start": 10},
                            ],
                        },
                        {"id": "2", "question": "Who sleeps?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_a_file_by_hand(tmp_path):
    answered, impossible = read_squad(written(tmp_path / "squad.json", FILE))
    assert answered[:3] == ("Foxes", "The quick brown fox jumps.", "Who jumps?")
    assert answered.answers == (("fox", 16), ("brown fox", 10))
    assert answered.accepted == ["fox", "brown fox"]
    assert impossible.answers == () and impossible.accepted == [""]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ((), "{", r"squad\.json cannot be read"),
        ((), [], r"squad\.json holds no JSON object"),
        (("data",), [], r"squad\.json holds no questions"),
        (("data",), None, r"squad\.json has no data that is an array"),
        (("data", 0), "x", r"data\[0\] is no object"),
        (("data", 0, "title"), 3, r"data\[0\] has no title that is a string"),
        (("data", 0, "paragraphs", 0, "context"), None, r"data\[0\]\.paragraphs\[0\] has no context"),
        (("data", 0, "paragraphs", 0, "qas", 1, "is_impossible"), False, r"qas\[1\] has no answers and"),
        (
            ("data", 0, "paragraphs", 0, "qas", 0, "answers", 1, "answer_start"),
            9,
            r"squad\.json: data\[0\]\.paragraphs\[0\]\.qas\[0\]\.answers\[1\]: 'brown fox' does not stand at "
            r"character 9 of its context",
        ),
        (("data", 0, "paragraphs", 0, "qas", 0, "answers", 0, "answer_start"), True, r"a whole number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path, path, value, told):
    content = {"whole": copy.deepcopy(FILE)}
    *parents, last = ["whole", *path]
    parent = content
    for key in parents:
        parent = parent[key]
    parent[last] = value
    with pytest.raises(minqa.InputError, match=told):
        read_squad(written(tmp_path / "squad.json", content["whole"]))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(minqa.InputError, match=r"holds no squad\.json"):
        read_squad(tmp_path / "squad.json")


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "overlap"),
    [
        ("The Quick, brown fox!", ["quick brown FOX"], True, 1),
        ("a fox", ["the fox", "dog"], True, 1),
        ("brown fox", ["fox"], False, 2 / 3),
        ("fox fox", ["fox"], False, 2 / 3),
        ("cat", ["fox", "brown cat"], False, 2 / 3),
        ("anthem", ["them"], False, 0),
        ("l'état", ["létat"], True, 1),
        ("1–2", ["12"], False, 0),
        ("", [""], True, 1),
        ("fox", [""], False, 0),
        ("the", ["a"], True, 1),
    ],
)
def test_exact_match_and_f1_by_hand(answer, accepted, exact, overlap):
    assert exact_match(answer, accepted) is exact
    assert f1(answer, accepted) == pytest.approx(overlap)


def test_an_answer_is_right_if_half_of_it_is():
    assert is_right("Albert Einstein", ["Einstein"]) and not is_right("Albert B. Einstein Jr", ["Einstein"])
    assert not is_right("", []) and not is_right("x", [])


def test_how_sure_answers_are_against_how_often_they_are_right():
    sure, right = [0.0, 0.04, 0.55, 0.95, 1.0], [False, True, True, True, True]
    assert reliability(sure, right) == [
        (pytest.approx(0.02), 0.5, 2),
        (pytest.approx(0.55), 1.0, 1),
        (pytest.approx(0.975), 1.0, 2),
    ]
    assert calibration_error(sure, right) == pytest.approx((2 * 0.48 + 0.45 + 2 * 0.025) / 5)
    assert calibration_error([0.25] * 4, [True, False, False, False]) == 0
    assert calibration_error([], []) == 0
