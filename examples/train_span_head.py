"""Train a span head on questions and marked answers, or with --finetune a whole BERT.

    uv run python examples/train_span_head.py SQUAD.json --out trained

Passages and questions are embedded once, apart from each other; from their words' vectors the head learns
where the answer lies. Some questions are put to another paragraph of their article too, so that it learns
as well when there is none. Articles are set aside for validation and for the test: no question of theirs is
trained on. Stop with Ctrl-C; the same command goes on behind the last whole epoch.

With --finetune question and passage are read together by all of BERT, which is trained as well (Devlin et al.
2018, section 4.2); what is written is a folder that `minqa.load_reader` and transformers load.
"""

import argparse
import json
import math
import os
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import platformdirs
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import minqa
from minqa import bert
from minqa.checkpoint import dump
from minqa.encoder import model_folder, read_config
from minqa.reader import OVERLAP, WINDOW, Reader, answer
from minqa.span_head import SpanHead, pair, read_answers, save_span_head
from minqa.spans import MAX_LENGTH
from minqa.squad import exact_match, f1, read_squad
from minqa.tokens import load_word_piece
from minqa.training import Marked, TokenPairs, head_loss, reader_loss, train_step

NO_ANSWER = 0.15  # of the questions, the part that is put to another paragraph as well
AVERAGED = 0.005  # how much of a step's weights goes into their average, which is what is kept
PATIENCE = 4  # epochs without a better F1


class Example(NamedTuple):
    """A question put to a passage, by their numbers, and the characters that answer it, by annotators."""

    question: int
    passage: int
    answers: Counter


class Data:
    """Questions and passages of SQuAD, split by article."""

    def __init__(self, path, *, seed, validation, test):
        questions = read_squad(path)
        self.questions = [one.text for one in questions]
        self.accepted = [one.accepted for one in questions]
        self.passages = list(dict.fromkeys(one.passage for one in questions))
        number = {passage: i for i, passage in enumerate(self.passages)}
        examples = [
            Example(i, number[one.passage], Counter((at, at + len(text)) for text, at in one.answers))
            for i, one in enumerate(questions)
        ]
        articles = sorted({one.article for one in questions})
        if len(articles) <= validation + test:
            raise minqa.InputError(f"{path} has {len(articles)} articles, too few to set some aside.")
        order = np.random.default_rng(seed).permutation(len(articles))
        self.test_articles = [articles[j] for j in order[:test]]
        part = {articles[j]: i for i, j in enumerate(order)}
        places = [part[one.article] for one in questions]
        bounds = (0, test, test + validation, len(articles))
        self.test, self.validation, self.train = (
            [one for one, place in zip(examples, places, strict=True) if low <= place < high]
            for low, high in pairwise(bounds)
        )
        self.article = {one.passage: place for one, place in zip(examples, places, strict=True)}

    def elsewhere(self, example, rng):
        """The same question, put to another passage of the article; itself, where there is none."""
        article = self.article[example.passage]
        others = [i for i, place in self.article.items() if place == article and i != example.passage]
        return Example(example.question, rng.choice(others), Counter()) if others else example


class HeadTask:
    """A span head on the vectors of an encoder, which stays as it is."""

    loss = staticmethod(head_loss)

    def __init__(self, data, options):
        encoder = minqa.load(options.model)
        layer = options.layer % (encoder.model.num_layers + 1)
        measure = minqa.Measure(layers=(layer,))
        self.questions = embed(encoder, data.questions, "query", measure)
        self.passages = embed(encoder, data.passages, "passage", measure)
        self.model = SpanHead(
            self.passages[0].array.shape[1],
            encoder=encoder.fingerprint,
            layer=layer,
            hidden=options.hidden,
            rngs=nnx.Rngs(options.seed),
        )
        words = np.concatenate([self.passages[i].words for i in {one.passage for one in data.train}])
        deviation = words.std(0)
        constant = deviation < 1e-3 * np.median(deviation)
        self.model.scale.mean[...] = words.mean(0)
        self.model.scale.inverse_deviation[...] = np.where(constant, 0, 1 / np.where(constant, 1, deviation))

    def length(self, example):
        return len(self.passages[example.passage].tokens.words)

    def batch(self, examples):
        questions, passages = self._vectors(examples)
        rows = [
            mark(one.answers, *passage.tokens.words.T)
            for one, passage in zip(examples, passages, strict=True)
        ]
        return pair(questions, passages, padded=coarse), stack(rows)

    def answer(self, model, examples):
        return [found[0] for found in read_answers(model, *self._vectors(examples), no_answer=False)]

    def save(self, model, out, facts):
        facts = {key: str(value) for key, value in facts.items()}
        write(out / "span_head.safetensors", save_span_head(model, **facts))

    def load(self, out):
        return minqa.load_span_head(out / "span_head.safetensors")

    def _vectors(self, examples):
        return [self.questions[one.question] for one in examples], [
            self.passages[one.passage] for one in examples
        ]


class ReaderTask:
    """A BERT that reads question and passage together."""

    def __init__(self, data, options):
        self.loss = in_bfloat16(reader_loss) if options.bfloat16 else reader_loss
        self.data = data
        self.folder = model_folder(options.model)
        config = read_config(bert.BertConfig.from_dict, self.folder / "config.json")
        self.tokenizer = load_word_piece(
            self.folder, max_tokens=WINDOW, max_positions=config.max_position_embeddings
        )
        self.model = bert.BertForQuestionAnswering(config, rngs=nnx.Rngs(options.seed))
        self.model.encoder = minqa.load(options.model).model

    def length(self, example):
        return len(self.data.passages[example.passage])

    def batch(self, examples):
        read = []
        for one in examples:
            [(tokens, types)] = self.tokenizer.pairs(
                self.data.questions[one.question], [self.data.passages[one.passage]], overlap=OVERLAP
            )
            # Of several windows the first that holds an answer.
            ends = np.cumsum(tokens.windows).tolist()
            places = tokens.words[tokens.word] * (tokens.word >= 0)[:, None]
            windows = [slice(end - count, end) for end, count in zip(ends, tokens.windows, strict=True)]
            found = [mark(one.answers, *places[window].T) for window in windows]
            best = next((i for i, marks in enumerate(found) if marks), 0)
            window = windows[best]
            read.append((tokens.ids[window], types[window], tokens.word[window] >= 0, found[best]))
        length = min(coarse(max(len(ids) for ids, *_ in read)), self.tokenizer.max_tokens)
        ids, types, mask, real = np.zeros((4, len(read), length), np.int32)
        for i, (some, kinds, words, _) in enumerate(read):
            ids[i, : len(some)], types[i, : len(some)], mask[i, : len(some)] = some, kinds, words
            real[i, : len(some)] = 1
        return TokenPairs(ids, real > 0, types, mask > 0), stack([marks for *_, marks in read])

    def answer(self, model, examples):
        reader = Reader("", model, self.tokenizer)
        asked = ((self.data.questions[one.question], [self.data.passages[one.passage]]) for one in examples)
        return [answer(reader, *one, no_answer=False)[0][0] for one in asked]

    def save(self, model, out, facts):
        tensors = {
            name if name.startswith("qa_outputs") else f"bert.{name}": tensor
            for name, tensor in dump(model, bert.QA_TENSORS).items()
        }
        for path in self.folder.glob("*"):
            if path.name == "vocab.txt" or ("token" in path.name and path.suffix == ".json"):
                shutil.copyfile(path, out / path.name)
        config = json.loads((self.folder / "config.json").read_text("utf-8"))
        config |= {"architectures": ["BertForQuestionAnswering"], "trained": facts}
        write(out / "config.json", json.dumps(config, indent=2).encode())
        write(out / "model.safetensors", save(tensors, {"format": "pt"}))

    def load(self, out):
        return minqa.load_reader(out).model


def in_bfloat16(loss):
    """The same loss in half the bits, of weights that are kept and trained in float32."""

    def halved(model, *batch):
        model = jax.tree.map(lambda one: one.astype(jnp.bfloat16), model)
        return loss(model, *batch).astype(jnp.float32)

    return halved


def embed(encoder, texts, role, measure):
    vectors = []
    for start in track(range(0, len(texts), 64), f"Embedding the {role} texts", console=Console(stderr=True)):
        vectors += minqa.embed(encoder, texts[start : start + 64], role=role, measure=measure)
        vectors[-1].words  # noqa: B018, made now and kept
    return vectors


def coarse(length):
    """Lengths in steps of half an octave, so that few shapes are compiled."""
    return max(32, math.ceil(2 ** (math.ceil(2 * math.log2(max(length, 1))) / 2)))


def mark(answers, starts, ends):
    """(first, last) → annotators, of the words or tokens that hold each answer, if they are not too many."""
    marks = Counter()
    for (start, end), annotators in answers.items():
        inside = np.flatnonzero((starts < end) & (ends > start))
        if (
            len(inside)
            and starts[inside[0]] <= start
            and ends[inside[-1]] >= end
            and len(inside) <= MAX_LENGTH
        ):
            marks[int(inside[0]), int(inside[-1])] += annotators
    return marks


def stack(rows):
    marked = Marked(*(np.zeros((len(rows), 8), kind) for kind in (np.int32, np.int32, np.float32)))
    for i, marks in enumerate(rows):
        for j, ((first, last), annotators) in enumerate(marks.most_common(8)):
            marked.first[i, j], marked.last[i, j] = first, last
            marked.weight[i, j] = annotators / sum(count for _, count in marks.most_common(8))
    return marked


def batches(task, examples, size, rng):
    """Examples in random order, batched with others of like length."""
    examples = [examples[i] for i in rng.permutation(len(examples))]
    pool = 32 * size
    found = []
    for start in range(0, len(examples), pool):
        some = sorted(examples[start : start + pool], key=task.length)
        found += [some[i : i + size] for i in range(0, len(some) - size + 1, size)]
    return [found[i] for i in rng.permutation(len(found))]


def evaluate(task, model, data, examples):
    """Exact match and F1 in percent, of SQuAD's definition, and the answers."""
    examples = sorted(examples, key=task.length)
    found = []
    for start in range(0, len(examples), 64):
        found += task.answer(model, examples[start : start + 64])
    scored = [
        (
            exact_match(one.text, data.accepted[example.question]),
            f1(one.text, data.accepted[example.question]),
        )
        for example, one in zip(examples, found, strict=True)
    ]
    return *(100 * np.mean(scored, axis=0)).tolist(), found


def auroc(right, wrong):
    """How often a right one lies above a wrong one."""
    right, wrong = np.array(right)[:, None], np.array(wrong)[None]
    return float((right > wrong).mean() + (right == wrong).mean() / 2)


class Run:
    """What a run knows behind an epoch, on disk: whole or absent."""

    def __init__(self, path, settings):
        self.path, self.settings = path, json.dumps(settings)

    def save(self, tree, facts):
        leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        write(self.path, save(leaves, {"settings": self.settings, "facts": json.dumps(facts)}))

    def restore(self, tree, facts):
        """What was saved, or what is given, where nothing was."""
        if not self.path.exists():
            return tree, facts
        try:
            with safe_open(self.path, "numpy") as file:
                saved = file.metadata() or {}
                leaves, structure = jax.tree.flatten(tree)
                if saved.get("settings") == self.settings:
                    leaves = [jnp.asarray(file.get_tensor(str(i))) for i in range(len(leaves))]
                    return structure.unflatten(leaves), json.loads(saved["facts"])
        except (SafetensorError, OSError) as error:
            raise minqa.InputError(f"{self.path} cannot be read ({error}): delete it.") from error
        raise minqa.InputError(f"{self.path} belongs to a run with other settings: name another --out.")


def write(path, content):
    aside = path.with_suffix(".tmp")
    aside.write_bytes(content)
    os.replace(aside, path)


def train(task, data, options, settings):
    """Train until validation no longer gets better; the best weights are kept by `task.save`."""
    extra = int(NO_ANSWER * len(data.train))
    steps = options.epochs * ((len(data.train) + extra) // options.batch)
    rate = optax.warmup_cosine_decay_schedule(0, options.rate, min(200, steps // 10), steps + 1)
    matrices = lambda tree: jax.tree.map(lambda one: one.ndim > 1, tree)  # noqa: E731, these alone decay
    optimizer = optax.chain(
        optax.clip_by_global_norm(2.0), optax.adamw(rate, b2=0.98, weight_decay=0.01, mask=matrices)
    )
    average = jax.jit(lambda old, new: optax.incremental_update(new, old, AVERAGED))
    run = Run(options.out / "run.safetensors", settings)
    tree = (task.model, task.model, optimizer.init(task.model))
    tree, facts = run.restore(tree, {"epochs": 0, "validation F1": -1.0, "waited": 0, "minutes": 0.0})
    model, averaged, state = tree

    with interrupted() as stopped, progress() as bar:
        row = bar.add_task("", total=steps, completed=facts["epochs"] * (steps // options.epochs))
        while facts["epochs"] < options.epochs and facts["waited"] < PATIENCE:
            begun, epoch = time.monotonic(), facts["epochs"]
            rng = np.random.default_rng([options.seed, epoch])
            key = jax.random.fold_in(jax.random.key(options.seed), epoch)
            elsewhere = rng.choice(len(data.train), extra, replace=False)
            examples = data.train + [data.elsewhere(data.train[i], rng) for i in elsewhere]
            losses = []
            for some in batches(task, examples, options.batch, rng):
                key, dropout = jax.random.split(key)
                model, state, loss = train_step(
                    model, state, task.batch(some), dropout, loss=task.loss, optimizer=optimizer
                )
                averaged = average(averaged, model)
                losses.append(float(loss))
                if not math.isfinite(losses[-1]):
                    raise minqa.InputError(
                        f"The loss is {losses[-1]} at step {len(losses)} of epoch {epoch + 1}: lower --rate."
                    )
                if stopped():
                    raise KeyboardInterrupt
                told = f"epoch {epoch + 1}, loss {np.mean(losses[-50:]):.2f}"
                told += f", F1 {facts['validation F1']:.1f}" if epoch else ""
                bar.update(row, advance=1, description=told)
            exact, mean_f1, _ = evaluate(task, averaged, data, data.validation)
            better = mean_f1 > facts["validation F1"]
            facts = {
                "epochs": epoch + 1,
                "validation F1": max(mean_f1, facts["validation F1"]),
                "waited": 0 if better else facts["waited"] + 1,
                "minutes": facts["minutes"] + (time.monotonic() - begun) / 60,
            }
            if better:
                task.save(averaged, options.out, settings | facts)
            run.save((model, averaged, state), facts)
            bar.console.print(
                f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, validation EM {exact:.1f} F1 {mean_f1:.1f}, "
                f"{facts['minutes']:.1f} minutes"
            )


@contextmanager
def interrupted():
    """A function that tells whether Ctrl-C was pressed: a KeyboardInterrupt inside JAX can be lost."""
    pressed = []
    default = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, default)


def progress():
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("squad", type=Path, help="questions in the layout of SQuAD 1.1 or 2.0")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is trained")
    parser.add_argument(
        "--model", default=minqa.demo.MODEL, help="the encoder, a BERT (default: %(default)s)"
    )
    parser.add_argument("--finetune", action="store_true", help="train all of BERT instead of a head")
    parser.add_argument("--layer", type=int, default=3, help="the layer that the head reads (default: 3)")
    parser.add_argument("--hidden", type=int, default=128, help="the head's width (default: 128)")
    parser.add_argument("--epochs", type=int, help="at most (default: 16, or 2 with --finetune)")
    parser.add_argument("--batch", type=int, help="questions a step (default: 32, or 16 with --finetune)")
    parser.add_argument("--rate", type=float, help="of learning (default: 2e-3, or 1e-4 with --finetune)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", type=int, default=3, help="articles to validate on (default: 3)")
    parser.add_argument("--test", type=int, default=4, help="articles to test on (default: 4)")
    parser.add_argument("--bfloat16", action="store_true", help="finetune in half the bits, for accelerators")
    options = parser.parse_args()
    defaults = (2, 16, 1e-4) if options.finetune else (16, 32, 2e-3)
    for name, default in zip(("epochs", "batch", "rate"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)
    cache = platformdirs.user_cache_path("minqa") / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    try:
        run(options)
    except minqa.InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped: the same command goes on behind the last whole epoch.")


def run(options):
    data = Data(options.squad, seed=options.seed, validation=options.validation, test=options.test)
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("out", "squad")}
    settings |= {"questions": len(data.train), "data": options.squad.name}
    options.out.mkdir(parents=True, exist_ok=True)
    task = (ReaderTask if options.finetune else HeadTask)(data, options)
    train(task, data, options, settings)
    if not data.test:
        return
    model = task.load(options.out)
    exact, mean_f1, right = evaluate(task, model, data, data.test)
    rng = np.random.default_rng(options.seed)
    *_, wrong = evaluate(task, model, data, [data.elsewhere(one, rng) for one in data.test])
    told = auroc([one.margin for one in right], [one.margin for one in wrong])
    report = {"test articles": data.test_articles, "questions": len(data.test)}
    report |= {"exact match": round(exact, 2), "F1": round(mean_f1, 2), "AUROC": round(told, 4)}
    write(options.out / "report.json", json.dumps(report, indent=2).encode())
    print(
        f"{len(data.test)} questions on {options.test} articles that were not trained on: EM {exact:.1f}, "
        f"F1 {mean_f1:.1f}; right paragraphs against others of the article: AUROC {told:.3f}"
    )


if __name__ == "__main__":
    main()
