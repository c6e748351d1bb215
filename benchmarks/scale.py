"""What a large corpus costs, and what a run survives: figures for the README's section on size.

uv run --group bench python -m benchmarks.scale dump
uv run --group bench python -m benchmarks.scale index --passages 1000 10000
uv run --group bench python -m benchmarks.scale kills --times 20
uv run --group bench python -m benchmarks.scale search --vectors 10000 100000 1000000
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

DIM = 384
# Vectors of a shard, as Wikipedia's 1,024 articles have, and queries of a batch.
SHARD_VECTORS = 6000
BATCHES = (1, 32)
ROUNDS = 7
# Of the dump in gensim's wheel, redirects and other namespaces among them.
PAGES = 206


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    commands = parser.add_subparsers(required=True)
    dump = commands.add_parser("dump", help="the dump in gensim's wheel, beside gensim's segment_wiki")
    dump.set_defaults(run=lambda options: time_dump())
    index = commands.add_parser("index", help="passages per second and peak memory")
    index.add_argument("--passages", type=int, nargs="+", default=[1000, 10_000])
    index.set_defaults(run=lambda options: [time_index(number) for number in options.passages])
    child = commands.add_parser("one-index")
    child.add_argument("corpus", type=Path)
    child.add_argument("out", type=Path)
    child.set_defaults(run=one_index)
    kills = commands.add_parser("kills", help="one run, killed again and again")
    kills.add_argument("--times", type=int, default=20)
    kills.add_argument("--articles", type=int, default=1500)
    kills.add_argument("--seed", type=int, default=0)
    kills.set_defaults(run=lambda options: survive(options.times, options.articles, options.seed))
    search = commands.add_parser("search", help="latency on a memory-mapped index, beside FAISS")
    search.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    search.add_argument("--folder", type=Path, help="where to make the index (default: a temporary folder)")
    search.set_defaults(run=lambda options: [time_search(n, options.folder) for n in options.vectors])
    options = parser.parse_args()
    options.run(options)


def time_dump() -> None:
    """Read the articles of a dump in turn with gensim, both with a worker for each core."""
    from gensim.scripts.segment_wiki import segment_all_articles

    from minqa.corpus.articles import cleaned
    from minqa.corpus.readers import open_corpus

    [path] = Path(find_spec("gensim").origin).parent.glob("test/test_data/enwiki*-shortened.bz2")
    workers = os.cpu_count() or 1

    def ours():
        corpus = open_corpus(path)
        with cleaned(corpus, workers) as clean:
            return len(list(clean([article for article, _ in corpus.read()])))

    def theirs():
        return len(list(segment_all_articles(str(path), workers=workers)))

    count, expected = ours(), theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(5)]
    mine, peer = np.median(times, axis=0)
    print(
        f"{count} articles, gensim {expected}; {PAGES / mine:.0f} pages a second, gensim {PAGES / peer:.0f}; "
        f"ratio {peer / mine:.2f}"
    )
    assert count == expected


def write_corpus(path: Path, articles: int) -> None:
    """Wikipedia leads as JSON Lines, over and over, numbered so that no two are the same."""
    import minqa

    leads = minqa.demo_passages()
    with open(path, "w", encoding="utf-8") as file:
        for number in range(articles):
            lead = leads[number % len(leads)]
            text = f"{lead.text} {number}." if number >= len(leads) else lead.text
            file.write(json.dumps({"title": lead.title, "text": text}) + "\n")


def time_index(passages: int) -> None:
    """Index about so many passages in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, round(passages / 1.3))
        command = [sys.executable, "-m", "benchmarks.scale", "one-index", corpus, Path(folder) / "index"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def one_index(options: argparse.Namespace) -> None:
    import jax

    import minqa
    from minqa.clock import Clock, step

    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))  # as the command line does
    encoder = minqa.load()
    with Clock() as clock, step("index"):
        index = minqa.write_index(encoder, minqa.open_corpus(options.corpus), options.out)
    number, seconds = len(index.passages), clock.seconds["index"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{number:,} passages: {number / seconds:.1f} a second, {seconds / number * 1e3:.2f} ms each, "
        f"{clock.seconds['compile']:.0f} s of compiling apart; peak memory {peak:,.0f} MiB; "
        f"index {index.bytes / 1e6:,.1f} MB"
    )


def survive(times: int, articles: int, seed: int) -> None:
    """Kill one indexing run at random moments, and compare its bytes with an undisturbed one."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus.jsonl", articles)
        minqa = Path(sys.executable).with_name("minqa")
        command = [minqa, "index", folder / "corpus.jsonl", "--shard", "64"]
        command += ["--store-tokens", "--cache", folder / "cache", "--out"]
        start = time.perf_counter()
        subprocess.run([*command, folder / "undisturbed"], check=True, capture_output=True)
        whole = time.perf_counter() - start
        killed = finished = 0
        while killed < times:
            process = subprocess.Popen(
                [*command, folder / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(chance.uniform(1, max(2 * whole / times, 8)))
                finished += 1
                shutil.rmtree(folder / "killed")  # and from the beginning
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
            shards = len(list((folder / "killed").glob("*.parquet")))
            print(f"kill {killed}: {shards} shards are whole", flush=True)
        subprocess.run([*command, folder / "killed"], check=True, capture_output=True)
        one, other = contents(folder / "undisturbed"), contents(folder / "killed")
        differ = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
        ids, expected = (ids_of(folder / name) for name in ("killed", "undisturbed"))
        print(
            f"{times} kills of a run of {whole:.0f} s, {finished} runs came to their end before theirs; "
            f"{len(expected):,} passages, {len(set(expected) - set(ids))} lost, {len(ids) - len(set(ids))} "
            f"doubled; {len(one)} files, {len(differ)} differ {differ}"
        )
        if differ or ids != expected:
            sys.exit(1)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def ids_of(folder: Path) -> list[str]:
    import pyarrow.parquet as parquet

    tables = [parquet.read_table(path, columns=["id"]) for path in sorted(folder.glob("*.parquet"))]
    return [passage_id for table in tables for passage_id in table["id"].to_pylist()]


def time_search(number: int, folder: Path | None) -> None:
    """Search so many vectors where they lie on disk: after they were dropped from memory, and again."""
    import faiss
    import jax

    from minqa import dot, match
    from minqa.corpus.index import VectorStore
    from minqa.corpus.shards import Shard

    with tempfile.TemporaryDirectory(dir=folder) as name:
        shards = []
        for start in range(0, number, SHARD_VECTORS):
            rng, rows = np.random.default_rng(start), min(SHARD_VECTORS, number - start)
            vectors = rng.standard_normal((rows, DIM), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            path = Path(name) / f"{len(shards):06d}.npy"
            np.save(path, vectors)
            record = {"files": {".npy": {"bytes": path.stat().st_size}}}
            shards.append(Shard(path.with_suffix(".parquet"), rows, record))
        parts = VectorStore(shards)
        flat = faiss.IndexFlatIP(DIM)
        for part in parts:
            flat.add(np.asarray(part))
        for batch in BATCHES:
            queries = np.random.default_rng(1).standard_normal((batch, DIM), np.float32)

            def ours(queries=queries):
                return jax.device_get(match(queries, parts, k=10, similarity=dot))[1]

            def theirs(queries=queries):
                return flat.search(queries / np.linalg.norm(queries, axis=1, keepdims=True), 10)[1]

            assert np.mean(ours() == theirs()) > 0.999, "FAISS finds others"
            cold = []
            for _ in range(3):
                for shard in shards:
                    vars(shard).pop("vectors", None)  # what is mapped stays in memory
                    forget(shard.path.with_suffix(".npy"))
                cold.append(seconds(ours))
            warm = [(seconds(theirs), seconds(ours)) for _ in range(ROUNDS)]
            peer, mine = np.median(warm, axis=0)
            print(
                f"{number:,} vectors, {batch} queries: cold {np.median(cold) * 1e3:,.0f} ms, warm "
                f"{mine * 1e3:,.1f} ms; FAISS flat, in memory, {peer * 1e3:,.1f} ms; ratio {peer / mine:.2f}",
                flush=True,
            )


def forget(path: Path) -> None:
    """Drop a file from the system's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
