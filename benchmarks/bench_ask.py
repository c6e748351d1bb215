"""A whole question in a running process, warm, step by step."""

import numpy as np
import pytest
from minqa.records import Record

import minqa
from minqa.ask import ask, embed_query
from minqa.clock import Clock
from minqa.corpus import as_it_is

TEXTS = 128


@pytest.mark.parametrize("stored", [True, False])
def bench_ask(compare, benchmark, tmp_path, stored):
    encoder, head, passages = minqa.load(), minqa.load_span_head(), minqa.demo_passages()
    rows = np.random.default_rng(0).permutation(len(passages))[:TEXTS]
    leads = [Record(str(row), passages[row].title, passages[row].text) for row in rows]
    corpus = minqa.Corpus("leads", lambda: ((lead, 1.0) for lead in leads), as_it_is)
    minqa.write_index(encoder, corpus, tmp_path / "index", store_tokens=stored)
    index = minqa.open_index(tmp_path / "index", encoder)
    clocks = []

    def question():
        clocks.append(Clock())
        text = "What did people trade along the rivers?"
        query = embed_query(encoder, text, index.statistics, clock=clocks[-1])
        return ask(encoder, query, index, k=3, finder=head, clock=clocks[-1])

    compare(
        question,
        {},
        what=f"ask, token vectors {'stored' if stored else 'embedded anew'}",
        size=f"{TEXTS} leads",
        rate=1,
        rate_of="questions",
    )
    last = [clock.seconds for clock in clocks[2:]]
    benchmark.extra_info["steps"] = {name: float(np.median([one[name] for one in last])) for name in last[0]}
