"""In which order samples are seen, by which rank, and making their batches ahead of time in threads.

Threads, because decoding, warping and NumPy all release the interpreter's lock; a plain fork of a process that already
runs OpenCV's or torch's threads can deadlock its child.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from posesweep.errors import DataError

_STREAM = 0  # second word of the seed; augmentation uses another

Arrays = dict[str, np.ndarray]


@runtime_checkable
class Batches(Protocol):
    """What loading needs of a data set; every `task.Dataset` is one."""

    def batch(self, positions: Int[np.ndarray, "B"], epoch: int) -> Arrays: ...


def batches(
    dataset: Batches, order: Sequence[Int[np.ndarray, "_"]], epoch: int, threads: int, ahead: int = 3
) -> Iterator[Arrays]:
    """Yield the batch of each entry of `order`, in order, made by `threads` threads while the consumer is busy.

    At most `ahead` batches (at least one for each thread) exist besides the consumer's. What `dataset.batch` raises is
    raised here, at that batch's turn. A consumer that stops early closes the iterator: what has not begun is cancelled.
    """
    waiting: deque[Future[Arrays]] = deque()
    left = iter(order)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loading")
    try:
        for positions in left:
            waiting.append(pool.submit(dataset.batch, positions, epoch))
            if len(waiting) >= max(ahead, threads):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def training_order(
    n: int, epoch: int, seed: int, batch_per_rank: int, rank: int, world: int
) -> list[Int[np.ndarray, "B"]]:
    """The batches of one rank: its slices of the global batches of a shuffle that (seed, epoch) alone decide.

    All ranks together see, step by step, what one rank would with a batch of `batch_per_rank * world`. The last,
    incomplete global batch is left out; fewer samples than one global batch make one, going round again.
    Raises DataError when there is no sample.
    """
    if n == 0:
        raise DataError("no training sample is left; look at data.train, the split and the images left out")
    shuffled = np.random.default_rng([seed, _STREAM, epoch]).permutation(n)
    whole = batch_per_rank * world
    steps = max(1, n // whole)
    globally = np.resize(shuffled, steps * whole).reshape(steps, world, batch_per_rank)
    return list(globally[:, rank])


def validation_order(n: int, batch: int, rank: int, world: int) -> list[Int[np.ndarray, "_"]]:
    """The batches of one rank: every `world`-th sample from `rank` on; nothing is padded, the last may be smaller."""
    mine = np.arange(rank, n, world)
    return [mine[start : start + batch] for start in range(0, len(mine), batch)]
