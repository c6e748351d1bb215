"""How truthful heat maps are, on labelled data: they rank passages, point to answers and align words.

    uv run --group bench python -m benchmarks.quality

prints Markdown tables. The data (SQuAD 1.1 in its own layout, and word alignments of the Edinburgh corpus) is
looked for in ../shared/data; --data names another folder. Every figure is for all of the data or for a seeded
sample of questions, which have a standard error of 1 point.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import platformdirs
from rich.console import Console
from rich.progress import track

import minqa
import minqa.demo
import minqa.text
from minqa.alignment import align, alignment_measure
from minqa.ask import RERANK, RERANK_STORED, rank
from minqa.embedding import Vectors, embed_layers
from minqa.heatmap import heat_map
from minqa.indexing import compact
from minqa.span_head import read_answers
from minqa.spans import heat_sentence, heat_span
from minqa.squad import exact_match, f1
from minqa.statistics import CENTRINGS, RANKING, WEIGHTS, Measure, centred

Row = Sequence[str | float]
# What others do: the last layer's vectors as they are, MaxSim with weights and nothing more.
PLAIN = Measure(weights="idf")


class Texts:
    """Texts with the vectors of all layers, which become those of any measure."""

    def __init__(self, encoder, texts, role, what):
        self.tokens = encoder.tokenize(texts, role)
        self.hidden, self.pooled = [], []
        for start in progress(range(0, len(texts), 64), f"embed {what}"):
            chunk = self.tokens[start : start + 64]
            hidden, pooled = embed_layers(encoder, chunk, tuple(range(encoder.model.num_layers + 1)))
            self.hidden += [one.astype(np.float16) for one in hidden]
            self.pooled += pooled

    def vectors(self, measure, statistics):
        layers = list(measure.layers_of(len(self.hidden[0]) - 1))
        return [
            Vectors(tokens, centred(hidden[layers].astype(np.float32), measure, statistics), pooled)
            for tokens, hidden, pooled in zip(self.tokens, self.hidden, self.pooled, strict=True)
        ]


def retrieval(encoder, contexts, questions, texts, statistics, measures) -> Iterator[Row]:
    """How high the paragraph stands that a question was asked about."""
    passages, queries = texts
    right = np.array([question["context"] for question in questions])
    pooled = np.asarray(minqa.match(np.stack(queries.pooled), np.stack(passages.pooled), k=len(contexts))[1])
    yield "pooled cosine", *reciprocal_ranks(pooled, right)
    candidates = {"pooled cosine": pooled}
    try:
        import bm25s
    except ImportError:
        note("BM25 is left out: the package bm25s is not installed.")
    else:
        retriever = bm25s.BM25()
        retriever.index(bm25s.tokenize(contexts, stopwords="en", show_progress=False), show_progress=False)
        asked = bm25s.tokenize([one["question"] for one in questions], stopwords="en", show_progress=False)
        found, _ = retriever.retrieve(asked, k=RERANK_STORED, show_progress=False)
        yield "BM25", *reciprocal_ranks(found, right)
        candidates["BM25"] = found
    runs = [("pooled cosine", RERANK, measure, False) for measure in [PLAIN, *measures]]
    runs += [(name, RERANK_STORED, RANKING, False) for name in candidates]
    runs += [("pooled cosine", RERANK_STORED, RANKING, True)]
    for name, number, measure, stored in runs:
        title = f"best {number} of {name}, {describe(measure, encoder)}{', 8 bits' * stored}"
        read, asked = passages.vectors(measure, statistics), queries.vectors(measure, statistics)
        if stored:
            read = [replace(one, array=in_8_bits(one.array)) for one in read]
        order = []
        for query, rows in progress(list(zip(asked, candidates[name][:, :number], strict=True)), title):
            scores = rank(query, [read[row] for row in rows], measure, statistics)
            order.append(rows[np.argsort(-scores, kind="stable")])
        yield title, *reciprocal_ranks(np.stack(order), right)


def answer_sentence(encoder, questions, texts, statistics, measures) -> Iterator[Row]:
    """How often the sentence with the most heat holds an answer."""
    passages, queries = texts
    chance: list[tuple[float, float]] = []
    for measure in measures:
        read, asked = passages.vectors(measure, statistics), queries.vectors(measure, statistics)
        hits = []
        for query, question in progress(
            list(zip(asked, questions, strict=True)), f"sentences, {describe(measure, encoder)}"
        ):
            passage = read[question["context"]]
            span = heat_sentence(heat_map(query, passage, measure=measure, statistics=statistics))
            hits.append(holds(span.start, span.end, passage.tokens.text, question["answers"]))
            if measure is measures[0]:
                places = minqa.text.sentences(passage.tokens.text)
                each = [holds(*place, passage.tokens.text, question["answers"]) for place in places]
                chance.append(tuple(np.mean(each, axis=0)))
        if measure is measures[0]:
            yield "a random sentence", *percent(np.mean(chance, axis=0))
        yield describe(measure, encoder), *percent(np.mean(hits, axis=0))


def answer_spans(contexts, questions, texts, statistics, head) -> Iterator[Row]:
    """Exact match and F1 of answers: the paragraph given, and found among all."""
    passages, queries = (side.vectors(RANKING, statistics) for side in texts)
    middle = Measure(layers=(head.layer,))
    read, asked = (side.vectors(middle, statistics) for side in texts)
    gold = [one["context"] for one in questions]
    heats = zip(queries, gold, strict=True)
    phrases = [
        heat_span(heat_map(query, passages[row], measure=RANKING, statistics=statistics))
        for query, row in progress(list(heats), "heat spans")
    ]
    yield "the heat span of its paragraph", *matches([one.text if one else "" for one in phrases], questions)
    given = read_answers(head, asked, [read[row] for row in gold], no_answer=False)
    yield "the span head on its paragraph", *matches([spans[0].text for spans in given], questions)

    _, candidates = minqa.match(np.stack(texts[1].pooled), np.stack(texts[0].pooled), k=RERANK_STORED)
    firsts, likeliest = [], []
    for i, rows in enumerate(progress(list(np.asarray(candidates)), "answers from all paragraphs")):
        scores = rank(queries[i], [passages[row] for row in rows], RANKING, statistics)
        best = [read[row] for row in rows[np.argsort(-scores, kind="stable")[:5]]]
        spans = [found[0] for found in read_answers(head, [asked[i]] * 5, best, no_answer=False)]
        firsts.append(spans[0].text)
        likeliest.append(max(spans, key=lambda span: span.probability).text)
    among = f"of {len(contexts):,} paragraphs"
    yield f"the same on the first {among}, as `ask` ranks them", *matches(firsts, questions)
    yield f"the likeliest answer in the first five {among}", *matches(likeliest, questions)


def matches(found: Sequence[str], questions) -> tuple[str, ...]:
    accepted = [[answer["text"] for answer in one["answers"]] for one in questions]
    scored = [(exact_match(*pair), f1(*pair)) for pair in zip(found, accepted, strict=True)]
    return percent(np.mean(scored, axis=0))


def alignment(encoder, pairs, statistics, measures) -> Iterator[Row]:
    """Precision, recall and F1 of word pairs against those that people made."""
    gold = [{tuple(map(int, one.split("-"))) for one in pair["sureAlign"].split()} for pair in pairs]
    sides = [[pair[side] for pair in pairs] for side in ("source", "target")]
    exact = [string_match(*texts) for texts in zip(*sides, strict=True)]
    yield "the same string, nearest in place", *precision_recall(exact, gold)
    texts = [
        Texts(encoder, side, None, name) for side, name in zip(sides, ("sources", "targets"), strict=True)
    ]
    for measure in measures:
        vectors = [side.vectors(measure, statistics) for side in texts]
        maps = [heat_map(*pair, measure=measure) for pair in zip(*vectors, strict=True)]
        for method in ("mutual", "itermax", "neighbours"):
            found = [white_space_pairs(one, align(one, method=method)) for one in maps]
            yield f"{method}, {describe(measure, encoder)}", *precision_recall(found, gold)
    try:
        from simalign import SentenceAligner
    except ImportError:
        note("simalign is left out: the package is not installed.")
        return
    if encoder.name != minqa.demo.MODEL:
        note("simalign is left out: it runs beside the default model alone.")
        return
    for layer in (3, 4):
        peer = SentenceAligner(str(minqa.demo.model_folder()), "bpe", matching_methods="ai", layer=layer)
        found: dict[str, list] = {"inter": [], "itermax": []}
        for source, target in progress(list(zip(*sides, strict=True)), f"simalign, layer {layer}"):
            aligned = peer.get_word_aligns(source.split(), target.split())
            for name, lists in found.items():
                lists.append(set(aligned[name]))
        for name, lists in found.items():
            label = {"inter": "mutual"}.get(name, name)
            yield f"simalign, {label}, layer {layer}", *precision_recall(lists, gold)


def holds(start, end, text, answers) -> tuple[bool, bool]:
    """Whether a stretch of text contains an accepted answer, and whether the marked place of one is in it."""
    words = " ".join(text[start:end].split())
    contains = any(word_bounded(" ".join(answer["text"].split()), words) for answer in answers)
    return contains, any(start <= answer["answer_start"] < end for answer in answers)


def word_bounded(answer: str, text: str) -> bool:
    place = text.find(answer)
    while place >= 0:
        before, after = text[:place][-1:], text[place + len(answer) :][:1]
        if not ((before.isalnum() and answer[:1].isalnum()) or (after.isalnum() and answer[-1:].isalnum())):
            return True
        place = text.find(answer, place + 1)
    return False


def reciprocal_ranks(order, right) -> tuple[str, str, str]:
    found = order == right[:, None]
    ranks = np.where(found.any(1), found.argmax(1) + 1, np.inf)
    return (*percent([(ranks == 1).mean(), (ranks <= 5).mean()]), f"{(1 / ranks).mean():.3f}")


def precision_recall(found, gold) -> tuple[str, str, str]:
    right = sum(len(set(one) & other) for one, other in zip(found, gold, strict=True))
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
    same = np.array([[one == other for other in words[1]] for one in words[0]])
    places = [(np.arange(len(one)) + 0.5) / len(one) for one in words]
    near = np.where(same, -np.abs(places[0][:, None] - places[1]), -np.inf)
    best, back = near.argmax(1), near.argmax(0)
    return {(i, int(j)) for i, j in enumerate(best) if same[i, j] and back[j] == i}


def in_8_bits(array):
    stored = compact([array])
    return stored["vectors"] * stored["scales"][:, None]


def describe(measure: Measure, encoder) -> str:
    layers = "+".join(map(str, measure.layers_of(encoder.model.num_layers)))
    near = f", window {measure.window}, neighbours {measure.neighbours}" if measure.window else ""
    return f"layer {layers}, centring {measure.centring}, weights {measure.weights}{near}"


def table(title: str, head: Row, rows: Iterator[Row]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(map(str, head))} |\n|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def progress(items, what):
    return track(items, what, console=Console(stderr=True), transient=True)


def note(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=minqa.demo.MODEL)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument(
        "--questions", type=int, default=1000, help="how many are drawn, 0 for all (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the defaults alone, not every setting")
    parser.add_argument("--only", choices=["retrieval", "sentence", "answers", "alignment"])
    parser.add_argument(
        "--trained",
        type=Path,
        help="what examples/train_span_head.py wrote: its head is put to its test articles",
    )
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("minqa") / "compiled"))
    encoder = minqa.load(options.model)
    layers = range(encoder.model.num_layers, -1, -1)

    squad = options.data / "squad" / "squad-36-articles.json"
    if options.only != "alignment" and squad.is_file():
        contexts, questions = [], []
        for article in json.loads(squad.read_text("utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                known = {"context": len(contexts), "article": article["title"]}
                questions += [one | known for one in paragraph["qas"]]
                contexts.append(paragraph["context"])
        statistics = minqa.gather(encoder, contexts)
        paragraphs = Texts(encoder, contexts, "passage", "paragraphs")
        if options.only in (None, "answers") and options.trained:
            head = minqa.load_span_head(options.trained / "span_head.safetensors")
            report = json.loads((options.trained / "report.json").read_text("utf-8"))
            tested = [one for one in questions if one["article"] in report["test articles"]]
            texts = (paragraphs, Texts(encoder, [one["question"] for one in tested], "query", "questions"))
            title = f"Answers to {len(tested):,} questions on {len(report['test articles'])} articles"
            rows = answer_spans(contexts, tested, texts, statistics, head)
            table(title, ("answer", "exact match", "F1"), rows)
        elif options.only in (None, "answers"):
            note("Answers are left out: name a folder of examples/train_span_head.py with --trained.")
        if options.only == "answers":
            return
        drawn = np.random.default_rng(options.seed).permutation(len(questions))[: options.questions or None]
        questions = [questions[i] for i in drawn]
        texts = (paragraphs, Texts(encoder, [one["question"] for one in questions], "query", "questions"))
        grid = [
            replace(RANKING, layers=(layer,), centring=centring, weights=weights)
            for layer in layers
            for centring in CENTRINGS
            for weights in WEIGHTS
        ]
        measures = [RANKING] if options.quick else grid
        if options.only != "sentence":
            title = f"The paragraph, of {len(contexts):,}, for {len(questions):,} questions"
            rows = retrieval(encoder, contexts, questions, texts, statistics, measures)
            table(title, ("order", "R@1", "R@5", "MRR"), rows)
        if options.only != "retrieval":
            rows = answer_sentence(encoder, questions, texts, statistics, measures)
            head = ("heat", "contains an accepted answer", "contains the marked one")
            table("The sentence with the most heat", head, rows)
    elif options.only != "alignment":
        note(f"Retrieval and answer sentences are left out: there is no {squad}.")

    edinburgh = options.data / "alignment" / "edinburgh-train.json"
    if options.only in (None, "alignment") and edinburgh.is_file():
        pairs = json.loads(edinburgh.read_text("utf-8"))
        statistics = minqa.gather(encoder, [passage.text for passage in minqa.demo_passages()[:1024]])
        grid = [Measure((layer,), centring) for layer in layers for centring in CENTRINGS]
        measures = [alignment_measure(encoder)] if options.quick else grid
        rows = alignment(encoder, pairs, statistics, measures)
        table(f"The words of {len(pairs):,} pairs", ("method", "precision", "recall", "F1"), rows)
    elif options.only in (None, "alignment"):
        note(f"Alignment is left out: there is no {edinburgh}.")


if __name__ == "__main__":
    main()
