"""How far answers are to be trusted: fitted to questions with known answers, and measured on others.

    uv run --extra figure python examples/trust.py trained/report.json --out reliability.svg

draws how often answers were right that train_span_head.py measured, by how sure they were.
"""

import argparse
import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize  # which JAX brings
from squad import calibration_error, f1, is_right, reliability

import minqa
from minqa.answers.overall import Trust, overall, signs

RANKED = 100  # passages per question, the nearest by their pooled vectors
READ = 3  # passages per question, as many as `minqa ask` shows
REFUSED_PART = 0.09  # of the validation questions, all with an answer: few would be answered right


class Ranking:
    """Passages in the order in which `ask` puts them for a question, with their scores and cosines.

    Args:
        questions: their vectors, of the encoder that ranks.
        passages: likewise.
        articles: what each passage is from.
    """

    def __init__(self, questions, passages, articles):
        self.questions, self.passages, self.articles = questions, passages, np.array(articles)
        most = RANKED + int(np.unique(self.articles, return_counts=True)[1].max())  # without any one article
        nearest = minqa.match(minqa.pool(questions), minqa.pool(passages), k=most)
        self.cosines, self.nearest = map(np.asarray, nearest)
        self.known = {}

    def __call__(self, number, without=None, among=RANKED):
        """Of the question of this number, among the nearest passages but those of an article."""
        key = number, without, among
        if key not in self.known:
            near = np.flatnonzero(self.articles[self.nearest[number]] != without)[:among]
            rows, cosines = self.nearest[number][near], self.cosines[number][near]
            scores = minqa.rank(self.questions[number], [self.passages[i] for i in rows])
            best = np.argsort(-scores, kind="stable")
            self.known[key] = [array[best].tolist() for array in (rows, scores, cosines)]
        return self.known[key]


class Searched(NamedTuple):
    """What stands in the passages that rank highest for a question."""

    spans: list  # of each passage
    scores: list  # of each passage
    cosines: list  # likewise
    accepted: list  # answers; none if no passage holds one

    @classmethod
    def of(cls, head, ranking, number, questions, passages, accepted, without=None):
        """By vectors of the layer that the head reads, and a call of `ranking`."""
        rows, *known = (column[:READ] for column in ranking(number, without))
        return cls(head.spans(questions[number], [passages[i] for i in rows]), *known, accepted)


def fit(searched):
    """The trust that makes what is right likeliest: right answers, or that there is none; and its threshold.

    Questions whose answer is in none of their passages say nothing.
    """
    known = []
    for *found, accepted in searched:
        right = [is_right(span.text, accepted) for spans in found[0] for span in spans]
        if any(right) or not accepted:
            known.append((signs(*found), np.array([*right, not accepted])))

    def loss(weights):
        trust, total = Trust(*weights), 0.0
        for rows, right in known:
            logits = np.append(trust.logits(rows), 0)
            total += np.logaddexp.reduce(logits) - np.logaddexp.reduce(logits[right])
        return total / len(known) + 1e-3 * (weights**2).sum()

    trust = Trust(*minimize(loss, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).x.tolist())
    doubts = [overall(*found, trust).no_answer for *found, accepted in searched if accepted]
    return replace(trust, threshold=float(np.quantile(doubts, 1 - REFUSED_PART)))


def measure(searched, trust):
    """Of one answer per question: F1 and refusals in percent, and how sure it is, 0 to 1."""
    found = [overall(*one[:3], trust) for one in searched]
    accepted = [one.accepted for one in searched]
    texts = ["".join(answer.text for answer in each.answers[:1]) for each in found]
    sure = [sum(answer.probability for answer in each.answers[:1]) for each in found]
    doubts = np.array([each.no_answer for each in found])
    refused = np.array([each.answer is None for each in found])
    right = [is_right(*pair) for pair in zip(texts, accepted, strict=True)]
    there = np.array([bool(answers) for answers in accepted])
    firsts = [(one.spans[0][0].text, one.accepted) for one in searched if one.accepted and one.spans[0]]
    scored = [f1(text, answers) for text, answers in zip(texts, accepted, strict=True) if answers]
    limits = {part: np.quantile(doubts[there], 1 - part) for part in (0.01, 0.02, 0.05, 0.1, 0.2)}
    return {
        "F1 of the first paragraph": 100 * np.mean([f1(*pair) for pair in firsts]),
        "F1": 100 * np.mean(scored),
        "refused": 100 * refused[there].mean(),
        "refused without its article": 100 * refused[~there].mean(),
        "refused, and then without its article": [
            (100 * part, 100 * (doubts[~there] >= limit).mean()) for part, limit in limits.items()
        ],
        "calibration error": calibration_error(sure, right),
        "reliability": reliability(sure, right),
    }


def draw(reports, out):
    """A reliability diagram of one report or several, whose questions are put together."""
    from matplotlib.figure import Figure

    tables = [np.array(report["test"]["reliability"]) for report in reports]
    table = np.concatenate(tables)
    place = np.minimum(table[:, 0] * 10, 9).astype(int)
    rows = [np.average(table[place == i], axis=0, weights=table[place == i, 2]) for i in np.unique(place)]
    sure, share, _ = np.transpose(rows)
    counts = [table[place == i, 2].sum() for i in np.unique(place)]
    axes = (figure := Figure((4, 4), layout="constrained")).subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(sure, share, marker="o", color="tab:orange")
    for x, y, count in zip(sure, share, counts, strict=True):
        axes.annotate(f"{count:,.0f}", (x, y), (4, -10), textcoords="offset points", fontsize=7)
    axes.set(xlabel="how sure the answer was", ylabel="how often it was right", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=draw.__doc__)
    parser.add_argument("reports", type=argparse.FileType(), nargs="+", help="report.json of each run")
    parser.add_argument("--out", required=True, help="a picture: .svg, .png or .pdf")
    options = parser.parse_args()
    draw([json.load(report) for report in options.reports], options.out)
