"""How truthful heat maps are, on labelled data: they rank passages, point to answers and align words.

    uv run --group bench python -m benchmarks.quality
    uv run --group bench python -m benchmarks.quality --questions FILE

print Markdown tables. The first reads SQuAD 1.1 in its own layout, and word alignments of the Edinburgh
corpus, in ../shared/data or where --data says. Every figure is for all of the data or for a seeded sample,
which has a standard error of 1 point. FILE holds questions of one's own as JSON Lines: a question, the
answers that are accepted, none if the corpus has none, and the titles of the articles that answer it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import track

import minqa
import minqa.text
from examples.squad import calibration_error, is_right, read_squad
from minqa.answers.overall import Answer
from minqa.app.corpora import with_indexes
from minqa.app.options import How, Source
from minqa.app.progress import note
from minqa.app.work import load_models
from minqa.ask import RERANK, RERANK_STORED, Results
from minqa.embedding import as_vectors, hidden_states
from minqa.encoder import CENTRINGS, WEIGHTS
from minqa.files.loading import DEMO_MODEL
from minqa.heatmap import NEIGHBOURS, WINDOW
from minqa.inside.align import align, alignment_encoder
from minqa.spans import Span
from minqa.text import InputError
from minqa.views.text import one_line

Row = Sequence[str | float]
RANKING = {"window": WINDOW, "neighbours": NEIGHBOURS}
# What others do: MaxSim with weights and nothing more.
PLAIN = {"window": 0, "neighbours": 0.0}


class Texts:
    """Texts with the hidden states of all layers, which become vectors of any layer and centring."""

    def __init__(self, encoder, texts, role, what):
        self.tokens = encoder.tokenize(texts, role)
        self.hidden, self.pooled = [], []
        for start in progress(range(0, len(texts), 64), f"embed {what}"):
            layers = tuple(range(encoder.num_layers + 1))
            hidden, pooled = hidden_states(encoder, self.tokens[start : start + 64], layers)
            self.hidden += [states.astype(np.float16) for states in hidden]
            self.pooled += pooled

    def vectors(self, encoder):
        return [
            as_vectors(encoder, tokens, hidden[encoder.layer_number].astype(np.float32), pooled)
            for tokens, hidden, pooled in zip(self.tokens, self.hidden, self.pooled, strict=True)
        ]


def retrieval(contexts, questions, texts, encoders) -> Iterator[Row]:
    """How high the paragraph ranks that a question was asked about; the first encoder is the default one."""
    import bm25s

    passages, queries = texts
    right = np.array([contexts.index(question.passage) for question in questions])
    candidates = {"pooled cosine": nearest(passages, queries, len(contexts))}
    split = partial(bm25s.tokenize, stopwords="en", show_progress=False)
    retriever = bm25s.BM25()
    retriever.index(split(contexts), show_progress=False)
    words = split([question.text for question in questions])
    candidates["BM25"], _ = retriever.retrieve(words, k=RERANK_STORED, show_progress=False)
    for name, order in candidates.items():
        yield name, *reciprocal_ranks(order, right)
    default, *others = encoders
    runs = [("pooled cosine", RERANK, default, how, False) for how in (PLAIN, RANKING)]
    runs += [("pooled cosine", RERANK, encoder, RANKING, False) for encoder in others]
    runs += [(name, RERANK_STORED, default, RANKING, False) for name in candidates]
    runs += [("pooled cosine", RERANK_STORED, default, RANKING, True)]
    for name, number, encoder, how, in_8_bits in runs:
        title = f"best {number} of {name}, {describe(encoder, **how)}{', 8 bits' * in_8_bits}"
        vectors = passages.vectors(encoder)
        if in_8_bits:
            vectors = [replace(each, array=rounded(each.array)) for each in vectors]
        pairs = zip(queries.vectors(encoder), candidates[name][:, :number], strict=True)
        order = [best_first(query, vectors, rows, **how) for query, rows in progress([*pairs], title)]
        yield title, *reciprocal_ranks(np.stack(order), right)


def nearest(passages, queries, k):
    """The rows of the passages whose pooled vectors are nearest to each query's."""
    return np.asarray(minqa.match(np.stack(queries.pooled), np.stack(passages.pooled), k=k)[1])


def best_first(query, vectors, rows, **how):
    """Rows of passages in the order of their scores."""
    return rows[np.argsort(-minqa.rank(query, [vectors[row] for row in rows], **how), kind="stable")]


def answer_sentence(contexts, questions, texts, encoders) -> Iterator[Row]:
    """How often the sentence with the most heat holds an answer."""
    gold = [contexts.index(question.passage) for question in questions]
    chance = []
    for question in questions:
        places = minqa.text.sentences(question.passage)
        chance.append(
            np.mean([holds(*place, question.passage, question.answers) for place in places], axis=0)
        )
    yield "a random sentence", *percent(np.mean(chance, axis=0))
    for encoder in encoders:
        title, hits = describe(encoder, **RANKING), []
        passages, queries = (side.vectors(encoder) for side in texts)
        each = [*zip(queries, questions, gold, strict=True)]
        for query, question, row in progress(each, f"sentences, {title}"):
            span = minqa.heat_sentence(minqa.heat_map(query, passages[row]))
            hits.append(holds(span.start, span.end, passages[row].tokens.text, question.answers))
        yield title, *percent(np.mean(hits, axis=0))


class Expected(NamedTuple):
    question: str
    answers: list[str]  # that are accepted
    titles: list[str]  # that answer it


def read_questions(path: Path) -> list[Expected]:
    """Questions of one's own. Raises InputError if the file cannot be read or a line is none."""
    questions = list[Expected]()
    try:
        for entry in map(json.loads, path.read_text("utf-8").rstrip("\n").split("\n")):
            one = Expected(entry["question"], entry["answers"], entry.get("titles", []))
            "".join([one.question] + one.answers + one.titles)  # noqa: RUF005, texts, and lists of them
            questions.append(one)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = f"{path}, line {len(questions) + 1},"
        raise InputError(f"{where} is no object with question and answers: {error}.") from error
    return questions


def likeliest(results: Results) -> Answer:
    return results.answers[0] if results.answers else Answer("", 0.0, 0, Span("", 0, 0, 0.0))


def verdict(expected: Expected, results: Results) -> Row:
    """The first passage and the answer, with a guess in brackets."""
    best, score = likeliest(results), f"{results[0].heat_map.score:.2f}"
    right = is_right(best.text, expected.answers) if results.answer else not expected.answers
    answer = best.text if results.answer else f"({best.text})"
    shown = results[0].passage.title, score, answer, *percent([best.probability])
    return expected.question, *shown, "right" if right else "wrong"


def together(questions: Sequence[Expected], found: Sequence[Results]) -> Iterator[Row]:
    """How many passages, answers and refusals are right, and how sure the answers are."""
    best = [likeliest(results) for results in found]
    right = np.array([is_right(one.text, asked.answers) for one, asked in zip(best, questions, strict=True)])
    refused = np.array([results.answer is None for results in found])
    answerable = np.array([bool(asked.answers) for asked in questions])
    pairs = [pair for pair in zip(questions, found, strict=True) if pair[0].answers]
    titles = [[result.passage.title in asked.titles for result in results] for asked, results in pairs]
    if titles:
        first, among = np.array(titles)[:, 0].mean(), np.array(titles).any(1).mean()
        yield f"{len(titles)} with an answer: its passage first", *percent([first])
        yield "… among three", *percent([among])
        yield "… a right answer", *percent([(right & ~refused)[answerable].mean()])
        yield "… refused", *percent([refused[answerable].mean()])
    if not answerable.all():
        yield f"{(~answerable).sum()} without: refused", *percent([refused[~answerable].mean()])
    yield "calibration error", *percent([calibration_error([one.probability for one in best], right)])


def questions_tables(options) -> None:
    questions, how = read_questions(options.questions), How([options.model])
    [search] = load_models(how, shipped=True)
    if not search.answerer:
        raise InputError(f"No span head is installed for {search.encoder.name}.")
    [search] = with_indexes([search], Source(options.corpus, options.index), how.cache_folder)
    found = [search.ask(one.question, 3, None).results for one in progress(questions, "questions")]
    head = ("question", "first passage", "score", "answer", "%", "")
    table(f"{len(search.index.passages):,} passages", head, map(verdict, questions, found))
    table("Together", ("", "%"), together(questions, found))


def alignment(pairs, encoders) -> Iterator[Row]:
    """Precision, recall and F1 of word pairs against those that people made."""
    gold = [{tuple(map(int, link.split("-"))) for link in pair["sureAlign"].split()} for pair in pairs]
    sides = [[pair[side] for pair in pairs] for side in ("source", "target")]
    exact = [string_match(*texts) for texts in zip(*sides, strict=True)]
    yield "the same string, nearest in place", *precision_recall(exact, gold)
    texts = [
        Texts(encoders[0], side, None, name) for side, name in zip(sides, ("sources", "targets"), strict=True)
    ]
    for encoder in encoders:
        vectors = [side.vectors(encoder) for side in texts]
        heats = [minqa.heat_map(*pair) for pair in zip(*vectors, strict=True)]
        methods = {"mutual": lambda heat: np.argwhere(mutual(heat.word_similarity)), "neighbours": align}
        for name, method in methods.items():
            found = [white_space_pairs(heat, method(heat)) for heat in heats]
            yield f"{name}, {describe(encoder)}", *precision_recall(found, gold)


def mutual(similarity: Float[np.ndarray, "query passage"]) -> Bool[np.ndarray, "query passage"]:
    """Words that are each other's most similar."""
    pairs = np.zeros(similarity.shape, bool)
    for row, column in enumerate(similarity.argmax(1)):
        pairs[row, column] = similarity[:, column].argmax() == row
    return pairs


def holds(start, end, text, answers) -> tuple[bool, bool]:
    """Whether a stretch of text contains an accepted answer, and whether the marked place of one is in it."""
    words = " ".join(text[start:end].split())
    contains = any(word_bounded(" ".join(answer.split()), words) for answer, _ in answers)
    return contains, any(start <= place < end for _, place in answers)


def word_bounded(answer: str, text: str) -> bool:
    """Whether the text holds the answer, and not as a part of a longer word or number."""
    before, after = (r"(?<![^\W_])" * answer[:1].isalnum(), r"(?![^\W_])" * answer[-1:].isalnum())
    return re.search(before + re.escape(answer) + after, text) is not None


def reciprocal_ranks(order, right) -> tuple[str, str, str]:
    found = order == right[:, None]
    ranks = np.where(found.any(1), found.argmax(1) + 1, np.inf)
    return (*percent([(ranks == 1).mean(), (ranks <= 5).mean()]), f"{(1 / ranks).mean():.3f}")


def precision_recall(found, gold) -> tuple[str, str, str]:
    right = sum(len(set(pairs) & links) for pairs, links in zip(found, gold, strict=True))
    precision, recall = right / sum(map(len, found)), right / sum(map(len, gold))
    return percent([precision, recall, 2 * precision * recall / (precision + recall)])


def percent(values) -> tuple[str, ...]:
    return tuple(f"{100 * value:.1f}" for value in values)


def white_space_pairs(heat, pairs) -> set[tuple[int, int]]:
    """Pairs of minqa's words as pairs of the words between spaces that hold them."""
    numbers = [
        np.array([len(tokens.text[:start].split(" ")) - 1 for start, _ in tokens.words])
        for tokens in (heat.query, heat.passage)
    ]
    return {(int(numbers[0][i]), int(numbers[1][j])) for i, j in pairs}


def string_match(source: str, target: str) -> set[tuple[int, int]]:
    """Equal words in lower case, where each is the other's nearest by place in its text."""
    words = [text.lower().split() for text in (source, target)]
    same = np.array([[word == other for other in words[1]] for word in words[0]])
    places = [(np.arange(len(side)) + 0.5) / len(side) for side in words]
    near = np.where(same, -np.abs(places[0][:, None] - places[1]), -np.inf)
    best, back = near.argmax(1), near.argmax(0)
    return {(i, int(j)) for i, j in enumerate(best) if same[i, j] and back[j] == i}


def rounded(array):
    """Vectors as an index stores them in 8 bits."""
    integers, scale = minqa.quantize(array)
    return np.asarray(integers, np.float32) * np.asarray(scale)[:, None]


def describe(encoder, window=0, neighbours=0.0) -> str:
    near = f", window {window}, neighbours {neighbours}" if window else ""
    return f"layer {encoder.layer_number}, centring {encoder.centring}, weights {encoder.weights}{near}"


def table(title: str, head: Row, rows: Iterable[Row]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(map(str, head))} |\n|{' --- |' * len(head)}")
    for row in rows:
        cells = [one_line(str(cell)).replace("|", "\\|") for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)


def progress(items, what):
    return track(items, what, console=Console(stderr=True), transient=True)


def squad_tables(encoder, views, options, path: Path) -> None:
    questions = read_squad(path)
    contexts = list(dict.fromkeys(question.passage for question in questions))
    encoder = minqa.calibrate(encoder, contexts)
    paragraphs = Texts(encoder, contexts, "passage", "paragraphs")
    drawn = np.random.default_rng(options.seed).permutation(len(questions))[: options.sample or None]
    questions = [questions[i] for i in drawn]
    texts = paragraphs, Texts(encoder, [question.text for question in questions], "query", "questions")
    grid = [replace(encoder, **view, weights=weights) for view in views for weights in reversed(WEIGHTS)]
    given = contexts, questions, texts, [encoder] if options.quick else grid
    if options.only != "sentence":
        title = f"The paragraph, of {len(contexts):,}, for {len(questions):,} questions"
        table(title, ("order", "R@1", "R@5", "MRR"), retrieval(*given))
    if options.only != "retrieval":
        head = ("heat", "contains an accepted answer", "contains the marked one")
        table("The sentence with the most heat", head, answer_sentence(*given))


def alignment_table(encoder, views, options, path: Path) -> None:
    pairs = json.loads(path.read_text("utf-8"))
    encoder = minqa.calibrate(encoder, [passage.text for passage in minqa.demo_passages()[:1024]])
    encoder = replace(encoder, weights="none")
    grid = [replace(encoder, **view) for view in views]
    rows = alignment(pairs, [alignment_encoder(encoder)] if options.quick else grid)
    table(f"The words of {len(pairs):,} pairs", ("method", "precision", "recall", "F1"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--questions", type=Path, help="questions of one's own, instead of the data")
    parser.add_argument("--corpus", help="what they are asked of, as minqa ask takes it")
    parser.add_argument("--index", type=Path, help="likewise")
    parser.add_argument(
        "--sample", type=int, default=1000, help="of SQuAD's questions, 0 for all (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the defaults alone, not every setting")
    parser.add_argument("--only", choices=["retrieval", "sentence", "alignment"])
    options = parser.parse_args()
    minqa.cache(platformdirs.user_cache_path("minqa") / "compiled")
    if options.questions:
        try:
            return questions_tables(options)
        except InputError as error:
            sys.exit(str(error))
    encoder = minqa.load(options.model)
    layers = range(encoder.num_layers, -1, -1)
    views = [{"layer": layer, "centring": centring} for layer in layers for centring in CENTRINGS]
    squad = options.data / "squad" / "squad-36-articles.json"
    if options.only != "alignment" and squad.is_file():
        squad_tables(encoder, views, options, squad)
    elif options.only != "alignment":
        note(f"Retrieval and answer sentences are left out: there is no {squad}.")
    edinburgh = options.data / "alignment" / "edinburgh-train.json"
    if options.only in (None, "alignment") and edinburgh.is_file():
        alignment_table(encoder, views, options, edinburgh)
    elif options.only in (None, "alignment"):
        note(f"Alignment is left out: there is no {edinburgh}.")


if __name__ == "__main__":
    main()
