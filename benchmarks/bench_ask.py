"""Speed of embedding, matching and a whole question, beside their peers.

    uv run --group bench pytest benchmarks

Every benchmark is called once before it is timed, so compile time is not in the figures.
"""

import jax
import numpy as np
import pytest

import minqa
from minqa import demo
from minqa.ask import ask, embed_query
from minqa.clock import Clock
from minqa.index import write_index

TEXTS = 256
DIM = 384


@pytest.fixture(scope="module")
def encoder():
    return minqa.load()


@pytest.fixture(scope="module")
def leads():
    passages = minqa.demo_passages()
    rows = np.random.default_rng(0).permutation(len(passages))[:TEXTS]
    return [passages[row] for row in rows]


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(100_000, DIM)).astype(np.float32)


def run(benchmark, call, *arguments):
    call(*arguments)
    return benchmark.pedantic(call, arguments, rounds=5)


@pytest.mark.benchmark(group=f"embed {TEXTS} Wikipedia leads, tokenizing included")
def bench_embed(benchmark, encoder, leads):
    texts = [lead.text for lead in leads]
    run(benchmark, lambda: minqa.embed_pooled(encoder, encoder.tokenize(texts)))


@pytest.mark.benchmark(group=f"embed {TEXTS} Wikipedia leads, tokenizing included")
def bench_embed_sentence_transformers(benchmark, leads):
    peer = pytest.importorskip("sentence_transformers")
    model = peer.SentenceTransformer(str(demo.model_folder()))
    texts = [lead.text for lead in leads]
    run(benchmark, lambda: model.encode(texts, show_progress_bar=False))


@pytest.mark.parametrize("queries", [1, 32])
@pytest.mark.benchmark(group="match 100,000 vectors, k 10")
def bench_match(benchmark, vectors, queries):
    corpus = jax.device_put(vectors)
    run(benchmark, lambda: jax.block_until_ready(minqa.match(vectors[:queries], corpus, k=10)))


@pytest.mark.parametrize("queries", [1, 32])
@pytest.mark.benchmark(group="match 100,000 vectors, k 10")
def bench_match_numpy(benchmark, vectors, queries):
    def search():
        lengths = np.linalg.norm(vectors, axis=1)
        scores = vectors[:queries] @ vectors.T / lengths / lengths[:queries, None]
        best = np.argpartition(-scores, 10, axis=1)[:, :10]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1)), 1)

    run(benchmark, search)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.benchmark(group="a question, vectors of the corpus at hand, those of tokens stored or not")
def bench_ask(benchmark, encoder, leads, tmp_path, stored):
    index = write_index(encoder, leads, tmp_path, store_tokens=stored)

    def question():
        text = "What did people trade along the rivers?"
        query = embed_query(encoder, text, index.statistics, clock=Clock())
        return ask(encoder, query, leads, index, k=3, clock=Clock())

    assert len(run(benchmark, question)) == 3
