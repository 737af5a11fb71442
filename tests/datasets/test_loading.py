"""Orders that ranks share out without loss, and batches made ahead in threads."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posesweep.datasets.loading import batches, training_order, validation_order
from posesweep.errors import DataError

SIZES = {"n": st.integers(1, 200), "batch": st.integers(1, 16), "world": st.integers(1, 5)}


@given(**SIZES, epoch=st.integers(0, 5), seed=st.integers(0, 5))
def test_all_ranks_together_see_what_one_rank_would(n: int, batch: int, world: int, epoch: int, seed: int) -> None:
    ranks = [training_order(n, epoch, seed, batch, rank, world) for rank in range(world)]
    alone = training_order(n, epoch, seed, batch * world, 0, 1)
    together = [np.concatenate(step) for step in zip(*ranks, strict=True)]
    np.testing.assert_array_equal(together, alone)
    assert len(alone) == max(1, n // (batch * world))
    seen = np.concatenate(alone)
    if n >= batch * world:
        assert len(set(seen.tolist())) == len(seen)  # nothing twice in an epoch
    else:
        assert set(seen.tolist()) == set(range(n))  # one batch, round again


def test_epochs_and_seeds_shuffle_differently_and_the_same_ones_alike() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return np.concatenate(training_order(100, epoch, seed, 10, 0, 1)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)
    assert sorted(order(1, 0)) == list(range(100))


def test_no_training_sample_is_said() -> None:
    with pytest.raises(DataError, match="no training sample is left"):
        training_order(0, 0, 0, 8, 0, 1)


@given(**SIZES)
def test_validation_sees_each_sample_once(n: int, batch: int, world: int) -> None:
    ranks = [validation_order(n, batch, rank, world) for rank in range(world)]
    everything = [position for order in ranks for positions in order for position in positions.tolist()]
    assert sorted(everything) == list(range(n))
    assert all(0 < len(positions) <= batch for order in ranks for positions in order)


class Slow:
    """Batches that take longer the earlier they are asked for, and note who is making one."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at
        self.begun: list[int] = []
        self.threads: set[str] = set()

    def batch(self, positions: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        first = int(positions[0])
        self.begun.append(first)
        self.threads.add(threading.current_thread().name)
        time.sleep(0.02 if first % 2 == 0 else 0.001)
        if first == self.fails_at:
            raise OSError(f"batch {first} of epoch {epoch}")
        return {"id": positions, "epoch": np.full(len(positions), epoch)}


ORDER = [np.array([i]) for i in range(12)]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_come_in_order_whichever_is_ready_first(threads: int) -> None:
    dataset = Slow()
    made = list(batches(dataset, ORDER, epoch=4, threads=threads))
    assert [int(batch["id"][0]) for batch in made] == list(range(12))
    assert all((batch["epoch"] == 4).all() for batch in made)
    assert 1 <= len(dataset.threads) <= threads
    assert threading.current_thread().name not in dataset.threads


def test_no_more_than_asked_for_is_made_ahead() -> None:
    dataset = Slow()
    made = batches(dataset, ORDER, epoch=0, threads=1, ahead=3)
    next(made)
    time.sleep(0.3)
    assert dataset.begun == [0, 1, 2]
    made.close()


def test_a_failing_batch_is_raised_at_its_turn() -> None:
    made = batches(Slow(fails_at=5), ORDER, epoch=1, threads=2)
    assert [int(next(made)["id"][0]) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="batch 5 of epoch 1"):
        next(made)
    assert not [t for t in threading.enumerate() if t.name.startswith("loading")]


def test_a_consumer_that_stops_leaves_no_thread_and_starts_no_more_work() -> None:
    dataset = Slow()
    for _ in batches(dataset, ORDER, epoch=0, threads=2):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("loading")]
    begun = len(dataset.begun)
    time.sleep(0.05)
    assert len(dataset.begun) == begun < len(ORDER)


def test_no_batches_is_no_work() -> None:
    assert list(batches(Slow(), [], epoch=0, threads=1)) == []
