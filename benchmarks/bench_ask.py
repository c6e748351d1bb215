"""A whole question in a running process, warm, step by step."""

import numpy as np

import minqa
from benchmarks.harness import sweep
from minqa.ask import ask
from minqa.clock import Clock

TEXTS = 128


@sweep(stored=[True, False])
def bench_ask(compare, benchmark, tmp_path, stored):
    encoder, head, passages = minqa.load(), minqa.load_span_head(), minqa.demo_passages()
    rows = np.random.default_rng(0).permutation(len(passages))[:TEXTS]
    leads = [minqa.Article(str(row), passages[row].title, passages[row].text) for row in rows]
    corpus = minqa.Corpus("leads", lambda: ((lead, 1.0) for lead in leads))
    minqa.write_index(encoder, corpus, tmp_path / "index", store_tokens=stored)
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
