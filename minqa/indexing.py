"""A corpus and an encoder → an index on disk, shard by shard; stopped at any moment, it goes on."""

import hashlib
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, Shaped

from minqa.corpus import Corpus, cleaned
from minqa.embedding import embed_layers, embed_pooled
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.index import FORMAT, GROUP, MADE_WITH, VERSION, Folder, Manifest, Shard, check_model, summarize
from minqa.passages import MAX_TOKENS, split
from minqa.records import Passage, Record
from minqa.statistics import frequencies
from minqa.storage import check_files, clear, publish, write_arrays, write_json, writing
from minqa.survey import read_statistics, words_as_arrays, write_statistics

# How many articles' passages a shard holds: what is lost where a run is stopped.
ARTICLES = 1024
# Articles that are split at once, which bounds the tokens that are held.
AT_ONCE = 64
# Passages that are embedded at once, and whose token vectors are held in 32 bits.
PASSAGES = 1024


@dataclass(frozen=True)
class Process:
    """One of several processes that write an index at once, each its own shards.

    Attributes:
        number: from 0.
        of: how many they are.
        ready: waits until all of them call it.
    """

    number: int = 0
    of: int = 1
    ready: Callable[[], None] = lambda: None


def write_index(
    encoder: Encoder,
    corpus: Corpus,
    path: str | Path,
    *,
    max_tokens: int | None = None,
    shard: int | None = None,
    store_tokens: bool = False,
    splitter: Encoder | None = None,
    most: int | None = None,
    workers: int = 0,
    process: Process = Process(),
    cache: Path | None = None,
    progress: Callable[[int, float], None] = lambda done, read: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> Folder:
    """Embed a corpus into a folder. What is there already is checked and kept, so that a stopped run goes on.

    A shard is a function of its articles and the encoder alone, and is whole or absent. So the bytes depend
    neither on when a run was stopped, nor on how many processes share it. A second corpus is added behind the
    first, and articles that were added at the end of one become further shards.

    Args:
        encoder: as `load` returns it.
        corpus: as `open_corpus` returns it.
        path: the index's folder; a new one, or one that this wrote before.
        max_tokens: the most tokens of a passage, see `split`; None takes what the index has, or
            128, or what the model reads at once, if that is less.
        shard: how many articles a shard holds; None takes what the index has, or 1,024.
        store_tokens: whether to keep the vectors of all tokens too, at a byte for each of their dimensions.
        splitter: whose tokens are counted, where several encoders should have the same passages; None for the
            encoder's own.
        most: stop behind so many shards of this corpus.
        workers: processes that take the mark-up off; 0 for none but this one. They import the main script, as
            `multiprocessing` does, so it has to be one that can be imported.
        process: which of several writers this is.
        cache: keeps the demo's statistics, which a small corpus takes.
        progress: called with the number of passages just embedded, and how much of what is asked for is
            there, 0 to 1.
        note: told, in a sentence, what is made anew because it was broken.

    Raises:
        InputError: the corpus cannot be read, or is not what it was; the folder is no index, or of another
            encoder or other settings, or cannot be written, or is being written by another.
    """
    path, splitter = Path(path), splitter or encoder
    with ExitStack() as held:
        if process.number == 0:
            _begin(path, encoder, splitter, max_tokens, shard, held)
            if process.of == 1:
                held.callback(_forget_if_empty, path)
        process.ready()
        if process.number > 0:
            held.callback(_lock(path, process.number).release)
        process.ready()  # or the first could be done, and find the others' locks free, before they hold them
        nobodys = process.of if process.number == 0 else sys.maxsize
        clear(path, lambda writer: writer == process.number or writer >= nobodys)
        folder = Folder(path)
        _check_settings(folder, encoder, splitter, max_tokens, shard)
        size, known = folder.manifest.articles, {one.start: one for one in folder.of(corpus.name)}
        numbers = {one.record["corpus"]: int(one.folder.name[:4]) for one in folder.shards}
        number = numbers.get(corpus.name, max(numbers.values(), default=-1) + 1)

        def is_to_make(block: _Block) -> bool:
            if (block.start // size) % process.of != process.number:
                return False
            there = known.get(block.start)
            if there is None or not _is_whole(there, store_tokens, note):
                return True
            progress(0, block.read[1])
            return False

        clean = held.enter_context(cleaned(corpus, workers))
        blocks = filter(is_to_make, _blocks(corpus, known, size, most))
        for block, articles in _one_ahead((block, clean(block.records)) for block in blocks):
            progress(0, block.read[0])
            passages: list[Passage] = []
            articles = iter(articles)
            while some := list(islice(articles, AT_ONCE)):
                passages += chain.from_iterable(split(splitter, some, max_tokens=folder.manifest.max_tokens))
            write = partial(
                _write_files, encoder, passages, store_tokens, _scaled(progress, len(passages), block.read)
            )
            record = {
                "version": VERSION,
                **{name: getattr(folder.manifest, name) for name in MADE_WITH},
                "corpus": corpus.name,
                "articles": [block.start, block.start + len(block.records)],
                "source": block.source,
                "last": block.last,
                "passages": len(passages),
            }
            publish(path / f"{number:04d}-{block.start:010d}", record, write, writer=process.number)
        if process.number == 0:
            for other in range(1, process.of):
                held.callback(_lock(path, other, waiting=lambda: progress(0, 1.0)).release)
            folder = Folder(path)
            if not sum(one.passages for one in folder.of(corpus.name)):
                raise InputError(f"{corpus.name} holds no passage.")
            if most is None and not folder.has_all(corpus.name):
                raise InputError("Another process has stopped early: run the same again.")
            if read_statistics(folder.statistics_path, folder.summary) is None:
                statistics = summarize(folder, encoder, cache)
                with writing(path):
                    write_statistics(folder.statistics_path, statistics, folder.summary)
    return Folder(path)


@dataclass(frozen=True)
class _Block:
    """The articles of a shard: the first one's number, how much is read before and behind, and if it ends."""

    start: int
    records: Sequence[Record]
    read: tuple[float, float]
    last: bool

    @property
    def source(self) -> str:
        """A hash of the articles, as their file has them."""
        digest = hashlib.sha256()
        for text in chain.from_iterable(self.records):
            content = text.encode("utf-8")
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


def _check_settings(
    folder: Folder, encoder: Encoder, splitter: Encoder, max_tokens: int | None, articles: int | None
) -> None:
    """Raise InputError where an index was made with others than are asked for."""
    made = folder.manifest
    check_model(folder.path, made, encoder)
    if splitter.fingerprint != made.splitter:
        raise InputError(f"{folder.path} has the passages of another model than {splitter.name}.")
    for option, asked, number in (
        ("--max-tokens", max_tokens, made.max_tokens),
        ("--shard", articles, made.articles),
    ):
        if asked not in (None, number):
            raise InputError(
                f"{folder.path} was made with {option} {number}: say the same, or name another folder."
            )


def _is_whole(shard: Shard, store_tokens: bool, note: Callable[[str], None]) -> bool:
    """Whether a shard is as it was written, and has what is asked for."""
    try:
        check_files(shard.folder, shard.record, every_byte=True)
    except InputError as error:
        note(f"{error} That is being done.")
        return False
    return shard.has_tokens or not store_tokens


def _begin(
    path: Path,
    encoder: Encoder,
    splitter: Encoder,
    max_tokens: int | None,
    articles: int | None,
    held: ExitStack,
) -> None:
    """Make the folder an index, if it is none, and take hold of it."""
    manifest = path / "manifest.json"
    empty = not path.exists() or (path.is_dir() and all(one.name[0] == "." for one in path.iterdir()))
    if not manifest.is_file() and not empty:
        raise InputError(f"{path} is there, and is no index: name a folder that is new or empty.")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    held.callback(_lock(path, 0).release)
    for left in path.glob(".*.tmp"):
        left.unlink(missing_ok=True)
    for other in path.glob(".writer-[1-9]*.lock"):  # of several processes, one may have outlived the first
        _lock(path, int(other.name[8:-5])).release()
    if not manifest.is_file():
        max_tokens = max_tokens or min(MAX_TOKENS, splitter.tokenizer.max_tokens)
        split(splitter, [], max_tokens=max_tokens)  # refuses odd numbers before anything is written
        made = Manifest(
            encoder.name, encoder.fingerprint, splitter.fingerprint, max_tokens, articles or ARTICLES
        )
        with writing(path):
            write_json(manifest, {"format": FORMAT, "version": VERSION, **asdict(made)})


def _forget_if_empty(path: Path) -> None:
    """Leave nothing behind of a corpus that could not be read."""
    if not any(path.glob("[0-9]*-*/")):
        (path / "manifest.json").unlink(missing_ok=True)


def _lock(path: Path, process: int, *, waiting: Callable[[], None] | None = None) -> FileLock:
    """Held while a process writes; the system lets go of it when the process ends, however it does.

    Another holder is waited for if `waiting`, which is called each second, is there, and refused if not.
    """
    lock = FileLock(path / f".writer-{process}.lock")
    while True:
        with writing(path):
            try:
                lock.acquire(timeout=1 if waiting else 0)
                return lock
            except Timeout:
                if waiting is None:
                    raise InputError(
                        f"{path} is being written by another process: wait for it, or stop it."
                    ) from None
        waiting()


def _blocks(corpus: Corpus, known: Mapping[int, Shard], articles: int, most: int | None) -> Iterator[_Block]:
    """The articles of shard after shard; those that are known are held to what they were."""
    records, starts = corpus.read(), sorted(known)
    ahead, start, before, number = next(records, None), 0, 0.0, 0
    while ahead is not None and number != most:
        there = known.get(start)
        # A shard that is lost ends where the next one begins.
        following = next(iter(starts[bisect_right(starts, start) :]), start + articles)
        stop = there.stop if there else min(start + articles, following)
        read = [ahead, *islice(records, stop - start - 1)]
        ahead = next(records, None)
        number += 1
        behind = 1.0 if number == most else read[-1][1]
        block = _Block(start, [record for record, _ in read], (before, behind), ahead is None)
        start, before = start + len(read), behind
        same = there is None or (there.record["source"], there.stop) == (block.source, start)
        ended = ahead is None and (
            any(place >= start for place in known) or (there and not there.record["last"])
        )
        if ended or not same:
            raise InputError(
                f"{corpus.name} is not what it was when it was indexed: index it into another folder or, if "
                "it is another corpus of that name, rename it."
            )
        yield block


def _one_ahead(items: Iterator) -> Iterator:
    """The same items, each yielded when the next one has begun; of an error, when that is reached."""
    held = next(items, None)
    while held is not None:
        error, following = None, None
        try:
            following = next(items, None)
        except InputError as raised:
            error = raised
        yield held
        if error:
            raise error
        held = following


def _scaled(
    progress: Callable[[int, float], None], passages: int, read: tuple[float, float]
) -> Callable[[int], None]:
    """Progress within a shard, as progress in the corpus."""
    total, done = max(passages, 1), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(more, read[0] + (read[1] - read[0]) * done / total)

    return advance


def _write_files(
    encoder: Encoder,
    passages: Sequence[Passage],
    store_tokens: bool,
    progress: Callable[[int], None],
    folder: Path,
) -> None:
    _write_passages(folder, passages)
    _write_vectors(folder, encoder, passages, store_tokens, progress)


def _write_passages(folder: Path, passages: Sequence[Passage]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    kinds = [
        pyarrow.int64() if kind is int else pyarrow.string() for kind in Passage.__annotations__.values()
    ]
    columns = zip(*passages, strict=True) if passages else [[] for _ in kinds]
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    parquet.write_table(
        pyarrow.table(arrays, names=list(Passage._fields)),
        folder / "passages.parquet",
        row_group_size=GROUP,
        compression="zstd",
        write_page_checksum=True,
    )


def _write_vectors(
    folder: Path,
    encoder: Encoder,
    passages: Sequence[Passage],
    store_tokens: bool,
    progress: Callable[[int], None],
) -> None:
    frequency: Counter[str] = Counter()
    vectors: list[np.ndarray] = []
    compacted: list[Mapping[str, np.ndarray]] = []
    for start in range(0, len(passages), PASSAGES):
        texts = [passage.text for passage in passages[start : start + PASSAGES]]
        tokens = encoder.tokenize(texts, "passage")
        frequency.update(frequencies(tokens))
        if store_tokens:
            hidden, some = embed_layers(encoder, tokens, (encoder.model.num_layers,), progress=progress)
            compacted.append(compact([one[0] for one in hidden]))
            vectors += some
        else:
            vectors += [*embed_pooled(encoder, tokens, progress=progress)]
    pooled = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
    write_arrays(folder / "vectors.safetensors", {"vectors": pooled})
    write_arrays(folder / "words.safetensors", words_as_arrays(dict(sorted(frequency.items()))))
    if store_tokens:
        write_arrays(folder / "tokens.safetensors", _joined(compacted or [compact([pooled])]))


def _joined(compacted: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    before = np.cumsum([0, *(len(one["vectors"]) for one in compacted)])
    moved = [{**one, "ends": one["ends"] + start} for one, start in zip(compacted, before, strict=False)]
    return {name: np.concatenate([one[name] for one in moved]) for name in moved[0]}


def compact(vectors: Sequence[Float[np.ndarray, "_ dim"]]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """What an index's `Tokens` reads: all vectors as int8, the scale of each, and where each text's end."""
    joined = np.concatenate(vectors)
    scales = np.maximum(np.abs(joined).max(1), 1e-9) / 127
    return {
        "vectors": np.round(joined / scales[:, None]).astype(np.int8),
        "scales": scales.astype(np.float32),
        "ends": np.cumsum([len(one) for one in vectors]),
    }
