"""Index a corpus with several workers, who need not know of each other: a shard is a function of its number.

uv run --extra ray python examples/wikipedia_on_ray.py wikimedia/wikipedia:20231101.en wiki --workers 8

The folder is one that all machines of the cluster see. Each worker reads the corpus once.
"""

import argparse

import ray

import minqa
from minqa.corpus.writer import ALL_SHARDS


class Writer:
    """A worker, which writes every n-th shard, n being the number of workers."""

    def __init__(self, corpus: str, folder: str, workers: int):
        self.encoder, self.corpus = minqa.load(), minqa.open_corpus(corpus, note=print)
        self.folder, self.workers = folder, workers

    def __call__(self, row: dict) -> dict:
        shards = ALL_SHARDS[row["item"] :: self.workers]
        minqa.write_index(self.encoder, self.corpus, self.folder, shards=shards, statistics=False)
        return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus")
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, default=2, help="at most one for each 1,024 articles")
    corpus, folder, workers = vars(parser.parse_args()).values()
    tasks = ray.data.from_items([*range(workers)], override_num_blocks=workers)
    pool = ray.data.ActorPoolStrategy(size=workers)
    tasks.map(Writer, fn_constructor_args=(corpus, folder, workers), compute=pool).materialize()
    # This looks whether every shard is whole, and gathers what is usual in the corpus.
    disk = minqa.write_index(minqa.load(), minqa.open_corpus(corpus, note=print), folder)
    print(f"{len(disk.passages):,} passages are embedded, in {folder}.")
