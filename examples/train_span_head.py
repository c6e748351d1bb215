"""Train a span head on questions and marked answers, or with --finetune a whole BERT.

    uv run python examples/train_span_head.py SQUAD.json --out trained

Passages and questions are embedded once, apart from each other; from their words' vectors the head learns
where the answer is. Some questions are also put to another paragraph that ranks high for them, so that it
learns when there is none. A second head learns from what the first believes as well, and is better for it
(Furlanello et al. 2018, arXiv:1805.04770), and from leads of Wikipedia: see cloze.py. How far its answers are
to be trusted is fitted on validation: see trust.py. Nothing of the articles set aside for validation and test
is trained on. Stop with Ctrl-C; the same command goes on after the last whole epoch. It takes 8 GB of memory;
fewer `--leads` need less.

With --finetune question and passage are read together by all of BERT, which is trained as well (Devlin et al.
2018, section 4.2); what is written is a folder that `minqa.load_reader` and transformers load.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import platformdirs
from cloze import cloze_questions
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from squad import exact_match, f1, read_squad
from trust import Ranking, Searched, fit, measure

import minqa
from minqa.answers import reader
from minqa.answers.overall import SPANS_PER_PASSAGE, Trust, overall
from minqa.answers.reader import BertForQuestionAnswering, Reader, answer, read_pairs
from minqa.answers.span_head import SpanHead, pair, read_answers, save_span_head
from minqa.answers.spans import span_loss, span_scores
from minqa.batches import Window, as_batch, pad
from minqa.corpus.passages import MAX_TOKENS
from minqa.files.checkpoint import dump
from minqa.files.loading import DEMO_MODEL, model_folder, read_bert
from minqa.spans import MAX_SPAN_WORDS

NO_ANSWER_PART = 0.3  # of the questions, those that are put to another paragraph as well
NEAR = 4  # paragraphs: how high on average it ranks
RANKED_TO_LEARN = 30  # paragraphs, for that
LEADS_PART = 0.4  # of those other paragraphs, the leads
LEADS_NEAR, LEADS_RANKED = 2, 8  # for that
LEAD_QUESTIONS = 1000  # per epoch, that a lead answers
TAUGHT_PART = 0.5  # of what a later head learns: what those before it believe, and not what is marked
AVERAGED_PART = 0.005  # of a step's weights, what goes into their average, which is what is kept
EVALUATED_QUESTIONS = 64  # at once
SEEDS_APART = 100  # from one generation to the next


class Example(NamedTuple):
    """A question put to a passage, by their numbers, and the characters that answer it, by annotators."""

    question: int
    passage: int
    answers: Counter


class Data:
    """Questions and passages of SQuAD, split by article."""

    def __init__(self, path, *, split, validation, test, leads=()):
        questions = read_squad(path)
        self.digest = sha256(path.read_bytes()).hexdigest()
        self.questions = [question.text for question in questions]
        self.accepted = [question.accepted for question in questions]
        self.passages = list(dict.fromkeys(question.passage for question in questions))
        number = {passage: i for i, passage in enumerate(self.passages)}
        examples = [
            Example(
                i, number[question.passage], Counter((at, at + len(text)) for text, at in question.answers)
            )
            for i, question in enumerate(questions)
        ]
        articles = sorted({question.article for question in questions})
        if len(articles) <= validation + test:
            raise minqa.InputError(f"{path} has {len(articles)} articles, too few to set some aside.")
        order = np.random.default_rng(split).permutation(len(articles))
        self.test_articles = [articles[j] for j in order[:test]]
        place = {articles[j]: i for i, j in enumerate(order)}
        places = [place[question.article] for question in questions]
        bounds = (0, test, test + validation, len(articles))
        self.test, self.validation, self.train = (
            [example for example, i in zip(examples, places, strict=True) if low <= i < high]
            for low, high in pairwise(bounds)
        )
        self.article = {example.passage: i for example, i in zip(examples, places, strict=True)}
        self.passages_of = defaultdict(list)
        for passage, article in self.article.items():
            self.passages_of[article].append(passage)
        # Those of leads come after these.
        self.paragraphs, self.asked, self.asked_of_leads = len(self.passages), len(self.questions), []
        aside = {articles[j].replace("_", " ") for j in order[: test + validation]}
        for lead in leads:
            if lead.title in aside:
                continue
            for text, start, end in cloze_questions(lead.title, lead.text):
                answers = Counter({(start, end): 1})
                self.asked_of_leads.append(Example(len(self.questions), len(self.passages), answers))
                self.questions.append(text)
                self.accepted.append([lead.text[start:end]])
            self.passages.append(lead.text)

    def elsewhere(self, example, rng):
        """The same question, put to another passage of the article; itself, if there is none."""
        others = [i for i in self.passages_of[self.article[example.passage]] if i != example.passage]
        return Example(example.question, int(rng.choice(others)), Counter()) if others else example


def head_loss(head, batch, target, key=None):
    """The loss of a span head; see `span_loss`. A key turns dropout on."""
    return span_loss(*head(batch, key), batch.mask, target)


@jax.jit
def beliefs(heads, batch, target):
    """The probability of each span, by the mean of several heads' scores; laid out as `target`."""
    start, end, no_answer = jax.tree.map(
        lambda *scores: sum(scores) / len(scores), *[head(batch) for head in heads]
    )
    scores = span_scores(start, end, batch.mask, max_length=target.shape[2])
    total = jnp.logaddexp(jax.nn.logsumexp(scores, axis=(1, 2)), no_answer)
    return jnp.exp(scores - total[:, None, None])


def reader_loss(model, batch, in_passage, target, key=None):
    """The loss of a model that reads question and passage together; [CLS] stands for no answer.

    See `span_loss`; `in_passage` is its mask. A key turns dropout on.
    """
    start, end = model(*batch[:4], key=key)
    return span_loss(start, end, start[:, 0] + end[:, 0], in_passage, target)


class Task:
    """What is trained; `data` are its questions."""

    teachers = ()  # what was trained before it

    @cached_property
    def marked(self):
        """The questions that are trained on: one with too long an answer must not be learnt to have none."""
        return [example for example in self.data.train if not example.answers or self.marks(example)]

    def known(self, rng):
        """The questions of an epoch, each with its passage."""
        return self.marked


class HeadTask(Task):
    """A span head on the vectors of an encoder, which stays as it is."""

    loss = staticmethod(head_loss)

    def __init__(self, data, options):
        self.data = data
        encoder = minqa.calibrate(minqa.load(options.model), data.passages[: data.paragraphs])
        views = [encoder, replace(encoder, layer=options.layer, centring="none")]
        asked, self.questions = embed(views, data.questions, "query")
        ranked, self.passages = embed(views, data.passages[: data.paragraphs], "passage")
        articles = [data.article[i] for i in range(len(ranked))]
        self.ranking = Ranking(asked[: data.asked], ranked, articles)
        [leads] = embed(views[1:], data.passages[data.paragraphs :], "passage") or [[]]
        if leads:
            near = minqa.match(minqa.pool(asked), minqa.pool(leads), k=min(LEADS_RANKED, len(leads)))[1]
            self.near_leads = data.paragraphs + np.asarray(near)
            self.passages += leads
        self.trained = {example.passage for example in data.train}
        words = np.concatenate([self.passages[i].words for i in self.trained])
        deviation = words.std(0)
        constant = deviation < 1e-3 * np.median(deviation)
        self.mean = words.mean(0)
        self.inverse_deviation = np.where(constant, 0, 1 / np.where(constant, 1, deviation))
        self.encoder, self.layer, self.hidden = encoder.fingerprint, views[1].layer_number, options.hidden

    @cached_property
    def asked_of_leads(self):
        return [example for example in self.data.asked_of_leads if self.marks(example)]

    def known(self, rng):
        """Questions made of leads are for heads that are taught; the first learns from real ones alone."""
        number = min(LEAD_QUESTIONS, len(self.asked_of_leads)) if self.teachers else 0
        chosen = rng.choice(len(self.asked_of_leads), number, replace=False) if number else []
        return self.marked + [self.asked_of_leads[i] for i in chosen]

    def initial(self, seed):
        """A head that has learnt nothing yet."""
        rngs = nnx.Rngs(seed)
        head = SpanHead(len(self.mean), encoder=self.encoder, layer=self.layer, hidden=self.hidden, rngs=rngs)
        head.scale.mean[...] = self.mean
        head.scale.inverse_deviation[...] = self.inverse_deviation
        return head

    def elsewhere(self, example, rng):
        """The same question, put to a passage that ranks high for it and does not have the answer's words."""
        of_lead = example.passage >= self.data.paragraphs
        if of_lead or (self.teachers and self.data.asked_of_leads and rng.random() < LEADS_PART):
            near, others = LEADS_NEAR, self.near_leads[example.question].tolist()
        else:
            near = NEAR
            rows, *_ = self.ranking(example.question, among=RANKED_TO_LEARN)
            others = [i for i in rows if i in self.trained]
        wanted = [text.lower() for text in self.data.accepted[example.question]]
        others = [
            i
            for i in others
            if i != example.passage and not any(text in self.data.passages[i].lower() for text in wanted)
        ]
        if not others:
            return example if of_lead else self.data.elsewhere(example, rng)
        return Example(example.question, others[min(int(rng.exponential(near)), len(others) - 1)], Counter())

    def length(self, example):
        return len(self.passages[example.passage].words)

    def marks(self, example):
        return mark(example.answers, *self.passages[example.passage].tokens.words.T)

    def batch(self, examples):
        batch = pair(*self._vectors(examples))
        target = targets(map(self.marks, examples), batch.mask.shape)
        if self.teachers:
            # Questions of leads keep their marks alone: the first teacher never saw such.
            taught = [TAUGHT_PART * (example.question < self.data.asked) for example in examples]
            part = np.array(taught, np.float32)[:, None, None]
            target = (1 - part) * target + part * np.asarray(beliefs(self.teachers, batch, target))
        return batch, target

    def answer(self, model, examples):
        spans = read_answers(model, *self._vectors(examples), k=SPANS_PER_PASSAGE, no_answer=False)
        return [
            [answer.span for answer in overall([found], [0.0], [0.0], Trust()).answers] for found in spans
        ]

    def search(self, model, examples):
        """Each question put to all passages, and to those of other articles, where its answer is not."""
        searched, texts = [], (self.questions, self.passages)
        for example in track(examples, "Searching", console=Console(stderr=True)):
            number, article = example.question, self.data.article[example.passage]
            known = [text for text in self.data.accepted[number] if text]
            for accepted, without in ((known, None), ([], article)):
                searched.append(Searched.of(model, self.ranking, number, *texts, accepted, without))
        return searched

    def save(self, model, out, facts):
        facts = {key: str(value) for key, value in facts.items()}
        write(out / "span_head.safetensors", save_span_head(model, **facts))

    def load(self, out):
        return minqa.load_span_head(out / "span_head.safetensors")

    def _vectors(self, examples):
        questions = [self.questions[example.question] for example in examples]
        return questions, [self.passages[example.passage] for example in examples]


class ReaderTask(Task):
    """A BERT that reads question and passage together."""

    def __init__(self, data, options):
        self.elsewhere = data.elsewhere
        self.loss = in_bfloat16(reader_loss) if options.bfloat16 else reader_loss
        self.data = data
        self.folder = model_folder(options.model)
        config, self.tokenizer = read_bert(self.folder, max_tokens=reader.WINDOW_TOKENS)
        self.config, self.encoder = config, minqa.load(options.model).model

    def initial(self, seed):
        """The encoder, with an output that has learnt nothing yet."""
        model = BertForQuestionAnswering(self.config, rngs=nnx.Rngs(seed))
        model.encoder = self.encoder
        return model

    def length(self, example):
        return len(self.data.passages[example.passage])

    def marks(self, example):
        return self._window(example)[-1]

    def _window(self, example):
        """The first window that holds an answer, or the first of all: tokens, number, word of each, marks."""
        texts = self.data.questions[example.question], [self.data.passages[example.passage]]
        [tokens] = read_pairs(self.tokenizer, *texts)
        places = np.append(tokens.words, [[0, 0]], 0)  # the last row is for tokens of no word
        words = np.split(tokens.word, np.cumsum(tokens.windows)[:-1])
        marks = [mark(example.answers, *places[word].T) for word in words]
        number = next((i for i, answers in enumerate(marks) if answers), 0)
        return tokens, number, words[number], marks[number]

    def batch(self, examples):
        tokens, numbers, words, marks = zip(*map(self._window, examples), strict=True)
        windows = enumerate(zip(tokens, numbers, strict=True))
        batch = as_batch(tokens, [[Window(text.windows[number], i, number)] for i, (text, number) in windows])
        in_passage = np.stack([pad(word >= 0, batch.ids.shape[1]) for word in words])
        return batch, in_passage, targets(marks, in_passage.shape)

    def answer(self, model, examples):
        trained = Reader("", model, self.tokenizer)
        texts = [(self.data.questions[i], [self.data.passages[j]]) for i, j, _ in examples]
        return [answer(trained, *question, no_answer=False)[0] for question in texts]

    def save(self, model, out, facts):
        tensors = {
            name if name.startswith("qa_outputs") else f"bert.{name}": tensor
            for name, tensor in dump(model, reader.tensors(model.encoder.config)).items()
        }
        for path in self.folder.glob("*"):
            if path.name == "vocab.txt" or (re.search("token|bert", path.name) and path.suffix == ".json"):
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
        return loss(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model), *batch).astype(jnp.float32)

    return halved


def embed(views, texts, role):
    """Vectors of all texts, of each view."""
    parts, told = [], f"Embedding the {role} texts"
    for start in track(range(0, len(texts), 64), told, console=Console(stderr=True)):
        parts.append(minqa.embed_each(views, texts[start : start + 64], role=role))
    return [[vectors for part in view for vectors in part] for view in zip(*parts, strict=True)]


def mark(answers, starts, ends):
    """(first, last) → annotators, of the words or tokens that hold each answer, if they are not too many."""
    marks = Counter()
    for (start, end), annotators in answers.items():
        inside = np.flatnonzero((starts < end) & (ends > start))
        whole = len(inside) and starts[inside[0]] <= start and ends[inside[-1]] >= end
        if whole and len(inside) <= MAX_SPAN_WORDS:
            marks[int(inside[0]), int(inside[-1])] += annotators
    return marks


def targets(marks, shape):
    """Marks of each row as `span_loss` takes them."""
    array = np.zeros((*shape, min(MAX_SPAN_WORDS, shape[1])), np.float32)
    for row, answers in zip(array, marks, strict=True):
        for (first, last), annotators in answers.items():
            row[first, last - first] = annotators / answers.total()
    return array


def batches(task, examples, size, rng):
    """Examples in random order, batched with others of like length; the few that are left over wait."""
    examples = [examples[i] for i in rng.permutation(len(examples))]
    pool, grouped = 32 * size, []
    for start in range(0, len(examples), pool):
        alike = sorted(examples[start : start + pool], key=task.length)
        grouped += [alike[i : i + size] for i in range(0, len(alike) - size + 1, size)]
    return [grouped[i] for i in rng.permutation(len(grouped))]


def evaluate(task, model, data, examples):
    """Exact match and F1 in percent, of SQuAD's definition, and each answer's margin over no answer.

    If some of the questions have no answer, as in SQuAD 2.0, none may be given.
    """
    examples = sorted(examples, key=task.length)
    optional = any(data.accepted[example.question] == [""] for example in examples)
    scored, margins = [], []
    for start in range(0, len(examples), EVALUATED_QUESTIONS):
        batch = examples[start : start + EVALUATED_QUESTIONS]
        for example, spans in zip(batch, task.answer(model, batch), strict=True):
            margins.append(spans[0].margin if spans else -np.inf)
            text = spans[0].text if spans and not (optional and margins[-1] <= 0) else ""
            accepted = data.accepted[example.question]
            scored.append((exact_match(text, accepted), f1(text, accepted)))
    return *(100 * np.mean(scored, axis=0)).tolist(), margins


def auroc(right, wrong):
    """How often a right one lies above a wrong one."""
    right, wrong = np.array(right)[:, None], np.array(wrong)[None]
    return float((right > wrong).mean() + (right == wrong).mean() / 2)


class Run:
    """What a run knows after an epoch, on disk: whole or absent."""

    def __init__(self, path, settings):
        self.path, self.settings = path, json.dumps(settings)

    def save(self, tree, facts):
        leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        write(self.path, save(leaves, {"settings": self.settings, "facts": json.dumps(facts)}))

    def check(self):
        """The facts that were saved, or None. Raises InputError if they are another run's."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "numpy") as file:
                saved = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise minqa.InputError(f"{self.path} cannot be read ({error}): delete it.") from error
        if saved.get("settings") != self.settings:
            raise minqa.InputError(f"{self.path} belongs to a run with other settings: name another --out.")
        return json.loads(saved["facts"])

    def restore(self, tree, facts):
        """What was saved, or what is given, if nothing was."""
        saved = self.check()
        if saved is None:
            return tree, facts
        leaves, structure = jax.tree.flatten(tree)
        with safe_open(self.path, "numpy") as file:
            leaves = [jnp.asarray(file.get_tensor(str(i))) for i in range(len(leaves))]
        return structure.unflatten(leaves), saved


def write(path, content):
    aside = path.with_suffix(".tmp")
    aside.write_bytes(content)
    os.replace(aside, path)


@partial(jax.jit, static_argnames=("loss", "optimizer"))
def train_step(model, state, batch, key, *, loss, optimizer):
    """One step down the gradient: model, optimizer's state, the loss before, and whether all is finite."""
    value, gradients = jax.value_and_grad(loss)(model, *batch, key)
    updates, state = optimizer.update(gradients, state, model)
    model = optax.apply_updates(model, updates)
    leaves = jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, model))])
    return model, state, value, leaves.all()


def train(task, data, options, settings, *, out, seed):
    """Train; `task.save` keeps the weights of the last epoch in `out`.

    The epoch that is best on a few validation articles may be an early one, picked by chance.
    """
    number = len(task.known(np.random.default_rng(seed)))
    extra = int(NO_ANSWER_PART * number)
    steps = options.epochs * ((number + extra) // options.batch)
    rate = optax.warmup_cosine_decay_schedule(0, options.rate, min(200, steps // 10), steps + 1)
    matrices = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)  # noqa: E731, these alone decay
    adam = optax.adamw(rate, b2=0.98, weight_decay=0.01, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(2.0), adam)
    average = jax.jit(lambda old, new, part: optax.incremental_update(new, old, part))
    run = Run(out / "run.safetensors", settings)
    facts = {"epochs": 0, "steps": 0, "validation F1": -1.0, "minutes": 0.0}
    initial = task.initial(seed)
    tree, facts = run.restore((initial, initial, optimizer.init(initial)), facts)
    model, averaged, state = tree

    with interrupted() as stopped, progress() as bar:
        row = bar.add_task("", total=steps, completed=facts["epochs"] * (steps // options.epochs))
        while facts["epochs"] < options.epochs:
            begun, epoch, losses = time.monotonic(), facts["epochs"], []
            rng = np.random.default_rng([seed, epoch])
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            known = task.known(rng)
            elsewhere = rng.choice(number, extra, replace=False)
            examples = known + [task.elsewhere(known[i], rng) for i in elsewhere]
            for batch in batches(task, examples, options.batch, rng):
                key, dropout = jax.random.split(key)
                model, state, loss, finite = train_step(
                    model, state, task.batch(batch), dropout, loss=task.loss, optimizer=optimizer
                )
                # At first the mean of all steps, so that nothing of the beginning is kept.
                part = max(AVERAGED_PART, 1 / (facts["steps"] + len(losses) + 1))
                averaged = average(averaged, model, part)
                losses.append(float(loss))
                if not finite:
                    place = f"step {len(losses)} of epoch {epoch + 1}"
                    raise minqa.InputError(f"The loss is {losses[-1]} at {place}: lower --rate.")
                if stopped():
                    raise KeyboardInterrupt
                told = f"{out.name}, epoch {epoch + 1}, loss {np.mean(losses[-50:]):.2f}"
                told += f", F1 {facts['validation F1']:.1f}" if epoch else ""
                bar.update(row, advance=1, description=told)
            exact, mean_f1, _ = evaluate(task, averaged, data, data.validation)
            facts = {
                "epochs": epoch + 1,
                "steps": facts["steps"] + len(losses),
                "validation F1": mean_f1,
                "minutes": facts["minutes"] + (time.monotonic() - begun) / 60,
            }
            task.save(averaged, out, settings | facts)
            run.save((model, averaged, state), facts)
            if stopped():
                raise KeyboardInterrupt
            bar.console.print(
                f"epoch {epoch + 1}: loss {np.mean(losses):.3f}, validation EM {exact:.1f} F1 {mean_f1:.1f}, "
                f"{facts['minutes']:.1f} minutes"
            )
    jax.clear_caches()  # there are so many programs of training that the system may refuse more


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
    add = parser.add_argument
    add("squad", type=Path, help="questions in the layout of SQuAD 1.1 or 2.0")
    add("--out", type=Path, required=True, help="folder for the head (or model), and for going on later")
    add("--model", default=DEMO_MODEL, help="the encoder, a BERT (default: %(default)s)")
    add("--finetune", action="store_true", help="train all of BERT instead of a head")
    add("--layer", type=int, default=3, help="the layer that the head reads (default: 3)")
    add("--hidden", type=int, default=128, help="the head's width (default: 128)")
    add("--generations", type=int, help="heads, each taught by those before (default: 2)")
    add(
        "--leads",
        type=int,
        default=10_000,
        help="leads of Wikipedia for a head to learn from too (default: 10000)",
    )
    add("--epochs", type=int, help="how many (default: 16, or 2 with --finetune)")
    add("--batch", type=int, help="questions per step (default: 32, or 16 with --finetune)")
    add("--rate", type=float, help="the highest learning rate (default: 2e-3, or 1e-4 with --finetune)")
    add("--seed", type=int, default=0, help="of weights and order (default: 0)")
    add("--split", type=int, default=5, help="seed of which articles are set aside (default: 5)")
    add("--validation", type=int, default=3, help="articles to validate on (default: 3)")
    add("--test", type=int, default=4, help="articles to test on (default: 4)")
    add("--bfloat16", action="store_true", help="finetune in half the bits, for accelerators")
    options = parser.parse_args()
    defaults = (1, 2, 16, 1e-4) if options.finetune else (2, 16, 32, 2e-3)
    for name, default in zip(("generations", "epochs", "batch", "rate"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)
    minqa.cache(platformdirs.user_cache_path("minqa") / "compiled")
    try:
        run(options)
    except minqa.InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped: the same command goes on after the last whole epoch.")


def run(options):
    for name in ("epochs", "batch", "generations", "validation", "hidden", "test", "leads"):
        least = 0 if name in ("test", "leads") else 1
        if getattr(options, name) < least:
            raise minqa.InputError(f"--{name} must be at least {least}.")
    if options.finetune and options.generations > 1:
        raise minqa.InputError("--generations is of heads: leave it out with --finetune.")
    leads = [] if options.finetune else wikipedia_leads(options.model, options.leads)
    data = Data(
        options.squad, split=options.split, validation=options.validation, test=options.test, leads=leads
    )
    settings = {name: str(value) for name, value in vars(options).items() if name not in ("out", "squad")}
    settings |= {"questions": len(data.train), "data": options.squad.name, "digest": data.digest}
    if len(data.train) < options.batch:
        raise minqa.InputError(f"{len(data.train)} questions are left to train on, fewer than --batch.")
    last = options.generations - 1
    folders = [options.out / f"generation-{i}" for i in range(last)] + [options.out]
    for out in folders:
        out.mkdir(parents=True, exist_ok=True)
        Run(out / "run.safetensors", settings).check()
    task = (ReaderTask if options.finetune else HeadTask)(data, options)
    for i, out in enumerate(folders):
        train(task, data, options, settings, out=out, seed=options.seed + SEEDS_APART * i)
        if i < last:
            task.teachers += (task.load(out),)
    report(task, data, options, settings)


def wikipedia_leads(model, number):
    """Passages of the first leads, as `ask` reads them."""
    if not number:
        return []
    leads = enumerate(minqa.demo_passages()[:number])
    articles, encoder = [minqa.Article(str(i), lead.title, lead.text) for i, lead in leads], minqa.load(model)
    most = min(MAX_TOKENS, encoder.tokenizer.max_tokens)
    return [passage for passages in minqa.split(encoder, articles, max_tokens=most) for passage in passages]


def report(task, data, options, settings):
    """Fit a head's trust, and say what was reached on the articles set aside."""
    model, told = task.load(options.out), {"test articles": data.test_articles, "questions": len(data.test)}
    if not options.finetune:
        searched = task.search(model, data.validation)
        model.trust = fit(searched)
        told["validation"] = measure(searched, model.trust)
        task.save(model, options.out, settings | Run(options.out / "run.safetensors", settings).check())
    if data.test:
        told["exact match"], told["F1"], right = evaluate(task, model, data, data.test)
        rng = np.random.default_rng(options.seed)
        *_, wrong = evaluate(task, model, data, [data.elsewhere(example, rng) for example in data.test])
        told["AUROC"] = auroc(right, wrong)
        print(
            f"{len(data.test)} questions on {options.test} articles that were not trained on: "
            f"EM {told['exact match']:.1f}, F1 {told['F1']:.1f}; "
            f"right paragraphs against others of the article: AUROC {told['AUROC']:.3f}"
        )
    if data.test and not options.finetune:
        told["test"] = measured = measure(task.search(model, data.test), model.trust)
        print(
            f"One answer over all {data.paragraphs:,} paragraphs: F1 {measured['F1']:.1f}, "
            f"refused {measured['refused']:.1f} %, without their article "
            f"{measured['refused without its article']:.1f} %; "
            f"calibration error {measured['calibration error']:.3f}"
        )
    write(options.out / "report.json", json.dumps(told, indent=2).encode())


if __name__ == "__main__":
    main()
