"""Index a corpus with several workers, who need not know of each other: a shard is a function of its number.

uv run --extra ray python examples/wikipedia_on_ray.py wikimedia/wikipedia:20231101.en wiki --workers 8
"""

import argparse

import ray

import minqa
from minqa.corpus.writer import ARTICLES_PER_SHARD


class Writer:
    """A worker, which loads its model once."""

    def __init__(self, corpus: str, folder: str):
        self.encoder, self.corpus, self.folder = minqa.load(), minqa.open_corpus(corpus), folder

    def __call__(self, row: dict) -> dict:
        minqa.write_shard(self.encoder, self.corpus, self.folder, int(row["item"]))
        return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    articles = sum(1 for _ in minqa.open_corpus(options.corpus).read())
    numbers = [*range(-(-articles // ARTICLES_PER_SHARD))]
    shards = ray.data.from_items(numbers, override_num_blocks=min(options.workers, len(numbers)))
    pool = ray.data.ActorPoolStrategy(size=options.workers)
    shards.map(Writer, fn_constructor_args=(options.corpus, options.folder), compute=pool).materialize()
    # This looks whether every shard is whole, and gathers what is usual in the corpus.
    disk = minqa.write_index(minqa.load(), minqa.open_corpus(options.corpus), options.folder)
    print(f"{len(disk.passages):,} passages of {articles:,} articles are embedded, in {options.folder}.")
