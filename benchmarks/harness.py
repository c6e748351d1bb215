"""What every benchmark shares: ceilings of the machine, and a race of minqa against its peers."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minqa.clock import Clock, step
from minqa.tokens import Tokens, tokens_of_words

# With --quick and without: the seconds that all rounds of a race may take, and the fewest and most rounds.
BUDGET_SECONDS = {True: 1.5, False: 10.0}
ROUNDS = {True: (3, 15), False: (5, 31)}
# Between two calls, so that no library's threads are still spinning when the next begins.
PAUSE_SECONDS = 0.02
# Calls that take less than this together are called once more before each is timed: a pause cools caches.
SHORT_SECONDS = 0.5


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at best, measured in the same run.

    Attributes:
        products: operations per second of the fastest matrix product, by dtype.
        memory: bytes per second of reading an array far larger than a cache.
        dispatch: seconds of a compiled call that has nothing to do.
    """

    products: Mapping[str, float]
    memory: float
    dispatch: float

    def least_seconds(self, operations: float, read: float, dtype: str) -> tuple[float, str]:
        """The least time that so many operations and bytes take, and which of them bounds it."""
        bounds = {
            "matrix product": operations / self.products[dtype],
            "memory": read / self.memory,
            "dispatch": self.dispatch,
        }
        bound = max(bounds, key=lambda name: bounds[name])
        return bounds[bound], bound


def measure_ceilings(*, quick: bool) -> Ceilings:
    rounds = 5 if quick else 15

    def best(call: Callable) -> float:
        jax.block_until_ready(call())
        return min(seconds(lambda: jax.block_until_ready(call())) for _ in range(rounds))

    on_cpu = jax.default_backend() == "cpu"
    # Rows, inputs and outputs as they occur in MiniLM, BERT-base and BERT-large, and a square.
    shapes = [(512, 384, 1536), (512, 1536, 384), (512, 768, 3072), (512, 1024, 4096), (2048, 2048, 2048)]
    if not on_cpu:
        shapes = [(12288, 1024, 4096), (12288, 4096, 1024), (8192, 8192, 8192)]
    product = jax.jit(lambda x, y: jnp.matmul(x, y.T, precision="highest"))
    products = {}
    for dtype in ("float32", "bfloat16"):
        rates = []
        for rows, inputs, outputs in shapes:
            x, y = jnp.ones((rows, inputs), dtype), jnp.ones((outputs, inputs), dtype)
            rates.append(2 * rows * inputs * outputs / best(lambda x=x, y=y: product(x, y)))
        products[dtype] = max(rates)
    array = jnp.ones((2**18 if on_cpu else 2**20, 1024))  # 1 GiB: some caches hold half of that
    reads = (jax.jit(lambda x: x.max(0)), jax.jit(lambda x: x @ x[0]))
    memory = max(array.nbytes / best(lambda read=read: read(array)) for read in reads)
    nothing, small = jax.jit(lambda x: x + 1), jnp.zeros(8)
    dispatch = float(np.median([seconds(lambda: nothing(small).block_until_ready()) for _ in range(200)]))
    return Ceilings(products, memory, dispatch)


def texts_of(batch: int, token: int) -> list[Tokens]:
    """Texts of so many random tokens for a BERT."""
    rows = np.random.default_rng(0).integers(1000, 30000, (batch, token)).astype(np.int32)
    return [replace(tokens_of_words(["w"] * token), ids=row) for row in rows]


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def race(
    benchmark: Any,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    ceilings: Ceilings,
    quick: bool,
    what: str,
    size: str,
    dtype: str = "float32",
    computed_in: str | None = None,
    operations: float = 0,
    read: float = 0,
    absent: Iterable[str] = (),
    **facts: Any,
) -> None:
    """Time a call in turn with its peers, and record what the report shows.

    Every call must wait for its own result. The first one is timed apart, as is the compiling in it.

    Args:
        benchmark: pytest-benchmark's fixture.
        ours: what is measured.
        peers: the same by other means, by name; answers are compared before this is called.
        ceilings: of the machine.
        quick: whether to take few rounds.
        what: the row's name in the report.
        size: the row's size.
        dtype: of vectors or weights in memory.
        computed_in: the dtype that they are multiplied in, if it is another.
        operations: floating-point operations, in matrix products.
        read: bytes that must be read once.
        absent: peers that are left out, with the reason.
        facts: anything else to be recorded.
    """
    jax.clear_caches()  # of programs that were compiled to compare answers
    with Clock() as clock, step("first"):
        first = seconds(ours)
    for call in peers.values():
        call()
    once = seconds(ours) + sum(seconds(call) for call in peers.values())
    fewest, most = ROUNDS[quick]
    rounds = int(np.clip(BUDGET_SECONDS[quick] / once, fewest, most))
    times: dict[str, list[float]] = {name: [] for name in peers}

    def wake(call: Callable) -> None:
        time.sleep(PAUSE_SECONDS)
        if once < SHORT_SECONDS:
            call()

    def in_turn() -> None:
        for name, call in peers.items():
            wake(call)
            times[name].append(seconds(call))
        wake(ours)

    benchmark.pedantic(ours, setup=in_turn, rounds=rounds)
    stats = benchmark.stats.stats
    least, bound = ceilings.least_seconds(operations, read, computed_in or dtype)
    medians = {name: float(np.median(each)) for name, each in times.items()}
    benchmark.extra_info |= facts | {
        "what": what,
        "size": size,
        "dtype": dtype,
        "rounds": rounds,
        "compile": clock.seconds["compile"],
        "first": first,
        "median": stats.median,
        "spread": stats.iqr / stats.median,
        "peers": medians,
        "absent": list(absent),
        "operations": operations,
        "read": read,
        "share": least / stats.median if operations or read else None,
        "bound": bound if operations or read else None,
    }
    if medians:
        best = min(medians, key=lambda name: medians[name])
        low, high = np.percentile(times[best], [25, 75])
        spread = float(high - low) / medians[best]
        benchmark.extra_info |= {"best_peer": best, "peer_spread": spread}
        benchmark.extra_info["ratio"] = medians[best] / stats.median
