"""From texts: Wikipedia leads to vectors and to an index, and a question to its answers."""

from itertools import count

import jax
import numpy as np

import minqa
from benchmarks import harness
from benchmarks.bench_encode import operations
from benchmarks.harness import sweep
from minqa.ask import ask
from minqa.clock import Clock
from minqa.files.loading import DEMO_MODEL, model_folder

TEXTS = 128


def drawn(number):
    passages = minqa.demo_passages()
    return [passages[row] for row in np.random.default_rng(0).permutation(len(passages))[:number]]


def corpus(number):
    leads = [minqa.Article(str(row), lead.title, lead.text) for row, lead in enumerate(drawn(number))]
    return minqa.Corpus("leads", lambda: ((lead, 1.0) for lead in leads))


@sweep(articles=[1024], quick={"articles": [TEXTS]})
def bench_embed_texts(compare, articles):
    """Texts → pooled vectors, tokenizing included."""
    encoder, texts = minqa.load(), [lead.text for lead in drawn(articles)]
    tokens = encoder.tokenize(texts)
    lengths = np.array([text.windows[0] for text in tokens])

    def in_sentence_transformers():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(model_folder(DEMO_MODEL)), device=harness.torch_device())
        return lambda: model.encode(texts, show_progress_bar=False)

    compare(
        lambda: minqa.embed_pooled(encoder, encoder.tokenize(texts)),
        {"sentence-transformers": in_sentence_transformers},
        agree=harness.agree_to(atol=1e-5),
        what="embed Wikipedia leads, MiniLM",
        size=f"{articles:,} texts, {lengths.sum():,} tokens",
        operations=operations(encoder.model.config, lengths),  # of the tokens, without their padding
        devices=jax.local_device_count(),
        rate=int(lengths.sum()),
        rate_of="tokens",
        padding=harness.padding(encoder, tokens, jax.local_device_count()),
    )


@sweep(articles=[1024], quick={"articles": [TEXTS]})
def bench_index(compare, tmp_path, articles):
    """A corpus to an index on disk."""
    encoder, numbers = minqa.load(), count()

    def index():
        return minqa.write_index(encoder, corpus(articles), tmp_path / str(next(numbers)))

    rate = len(index().passages)
    compare(index, what="index", size=f"{articles:,} articles", rate=rate, rate_of="passages")


@sweep(stored=[True, False])
def bench_ask(compare, benchmark, tmp_path, stored):
    encoder, head = minqa.load(), minqa.load_span_head()
    minqa.write_index(encoder, corpus(TEXTS), tmp_path / "index", store_tokens=stored)
    index = minqa.open_index(tmp_path / "index", encoder)
    calls = []

    def question():
        with Clock() as clock:
            calls.append(clock.seconds)
            return ask(encoder, "What did people trade along the rivers?", index, k=3, answerer=head)

    how = "stored" if stored else "embedded again"
    what, size = f"ask, token vectors {how}", f"{TEXTS} leads"
    compare(question, what=what, size=size, rate=1, rate_of="questions")
    warm = calls[2:]
    benchmark.extra_info["steps"] = {
        step: float(np.median([call[step] for call in warm])) for step in warm[0]
    }
