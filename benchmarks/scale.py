"""What a large corpus costs, and what a run survives: figures for the README's section on size.

uv run --group bench python -m benchmarks.scale dump
uv run --group bench python -m benchmarks.scale kills --times 20
uv run --group bench python -m benchmarks.scale search 1000000
"""

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import minqa
from benchmarks.harness import seconds

# Of the dump in gensim's wheel, redirects and other namespaces among them.
PAGES = 206


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    commands = parser.add_subparsers(required=True)
    dump = commands.add_parser("dump", help="the dump in gensim's wheel, beside gensim's segment_wiki")
    dump.set_defaults(run=time_dump)
    search = commands.add_parser("search", help="shards mapped from disk, beside FAISS flat in memory")
    search.add_argument("passages", type=int)
    search.set_defaults(run=time_search)
    kills = commands.add_parser("kills", help="one run, killed again and again")
    kills.add_argument("--times", type=int, default=20)
    kills.add_argument("--articles", type=int, default=1500)
    kills.set_defaults(run=survive)
    options = vars(parser.parse_args())
    options.pop("run")(**options)


def time_dump() -> None:
    """Read the articles of a dump in turn with gensim, both in one process."""
    from gensim.scripts.segment_wiki import segment_all_articles

    from minqa.corpus.readers import open_corpus

    [path] = Path(find_spec("gensim").origin).parent.glob("test/test_data/enwiki*-shortened.bz2")

    def ours():
        return len(list(open_corpus(path).articles()))

    def theirs():
        return len(list(segment_all_articles(str(path), workers=1)))

    count, expected = ours(), theirs()
    mine, peer = np.median([(seconds(ours), seconds(theirs)) for _ in range(5)], axis=0)
    speed = f"{PAGES / mine:.0f} pages a second, gensim {PAGES / peer:.0f}; ratio {peer / mine:.2f}"
    print(f"{count} articles, gensim {expected}; {speed}")
    assert count == expected


def write_corpus(path: Path, articles: int) -> None:
    """Wikipedia leads as JSON Lines, over and over, numbered so that no two are the same."""
    leads = minqa.demo_passages()
    with open(path, "w", encoding="utf-8") as file:
        for number in range(articles):
            lead = leads[number % len(leads)]
            text = f"{lead.text} {number}." if number >= len(leads) else lead.text
            file.write(json.dumps({"title": lead.title, "text": text}) + "\n")


def time_search(passages: int) -> None:
    """Ask shards of 6,000 vectors, mapped from disk and read before, and in turn FAISS, which holds them."""
    import faiss

    index, rng = faiss.IndexFlatIP(384), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, passages, 6000):
            vectors = rng.standard_normal((min(6000, passages - start), 384), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            index.add(vectors)
            np.save(f"{folder}/{start:09d}", vectors)
        parts = [np.load(path, mmap_mode="r") for path in sorted(Path(folder).glob("*.npy"))]

        def ours(queries):
            return np.asarray(minqa.match(queries, parts, k=100, similarity=minqa.dot)[1])

        for queries in (vectors[:1], vectors[:32]):
            calls = partial(ours, queries), partial(index.search, queries, 100)
            assert (calls[0]()[:, 0] == calls[1]()[1][:, 0]).all()
            times = [[*map(seconds, calls)] for _ in range(7)]
            mine, peer = 1000 * np.median(times, axis=0)
            print(f"{len(queries)} questions: {mine:.1f} ms, FAISS {peer:.1f} ms; ratio {peer / mine:.2f}")


def survive(times: int, articles: int) -> None:
    """Kill one indexing run at random moments, and compare its bytes with an undisturbed one."""
    chance, program = random.Random(0), Path(sys.executable).with_name("minqa")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus.jsonl", articles)
        command = [program, "index", folder / "corpus.jsonl", "--shard", "64"]
        command += ["--store-tokens", "--cache", folder / "cache", "--out"]

        def run(out):
            subprocess.run([*command, out], check=True, capture_output=True)

        whole = seconds(lambda: run(folder / "undisturbed"))
        killed = finished = 0
        while killed < times:
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen([*command, folder / "killed"], **silent) as process:
                try:
                    process.wait(chance.uniform(1, max(2 * whole / times, 8)))
                    finished += 1
                    shutil.rmtree(folder / "killed")  # and from the beginning
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += 1
        run(folder / "killed")
        subprocess.run([program, "index-info", folder / "killed"], check=True)
        one, other = hashes(folder / "undisturbed"), hashes(folder / "killed")
        differ = sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))
        print(
            f"{times} kills of a run of {whole:.0f} s, {finished} runs came to their end before theirs; "
            f"{len(one)} files, {len(differ)} differ {differ}"
        )
        sys.exit(bool(differ))


def hashes(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


if __name__ == "__main__":
    main()
