"""TPE with ASHA against random search at full length, on the demo: the epochs that each needs for the same result.

    python benchmarks/search.py runs/race [--seeds 10] [--pool 100] [--trials 40]

Random search is trained once, as a pool of `--pool` random configs at full length; the random search of seed s takes
`--trials` of them, drawn without replacement by s, so the searches of different seeds share trainings. What it reaches
is the best validation AP of any epoch. TPE with ASHA runs for real with each seed, from the sweep file as it is, until
some epoch of some trial is at least as good, or it has trained as many epochs as random search. Both begin with the
baseline. Repeated, the command goes on where it was left; `--table` only counts what is there.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posesweep.files import read_json, read_json_lines

ROOT = Path(__file__).resolve().parents[1]
METRIC = "val/AP"
GOAL = 1 / 5
POLL_S = 1.0
MOST_TRIALS = 1000  # more than the epochs can pay for


@dataclass(frozen=True)
class Race:
    """One seed. Epochs are counted over all trials, in the order in which they were trained."""

    seed: int
    target: float  # random search's best
    budget: int  # the epochs it trained
    random_reached: int  # the epochs after which it had that
    epochs: int  # trained by TPE with ASHA until it had that, or in all
    reached: bool

    @property
    def share(self) -> float:
        """Of random search's epochs."""
        return self.epochs / self.budget


def epochs_of(sweep: Path) -> list[tuple[int, float]]:
    """(trial, AP) of every epoch of a sweep, in the order in which they ended."""
    rows = []
    for file in sweep.glob("trials/*/metrics.jsonl"):
        rows += [(row["worked_until"], int(file.parent.name), row[METRIC]) for row in read_json_lines(file)]
    return [(trial, value) for _, trial, value in sorted(rows)]


def random_search(pool: list[tuple[int, float]], trials: int, seed: int) -> tuple[float, int, int]:
    """(best AP, epochs until it, epochs in all) of the baseline and `trials` random ones of the pool."""
    numbers = sorted({trial for trial, _ in pool} - {0})
    order = [0, *np.random.default_rng(seed).permutation(numbers)[:trials].tolist()]
    values = [value for trial in order for number, value in pool if number == trial]
    return max(values), int(np.argmax(values)) + 1, len(values)


def until(values: list[tuple[int, float]], target: float) -> int | None:
    """The epochs after which the target was reached."""
    return next((i for i, (_, value) in enumerate(values, start=1) if value >= target), None)


def command(folder: Path, *settings: str) -> list[str]:
    """The sweep as a user starts it."""
    return [sys.executable, str(ROOT / "run_sweep.py"), *settings, "--runs", str(folder)]


def trained_pool(folder: Path) -> list[tuple[int, float]]:
    """(trial, AP) of every epoch of the pool's trials that were trained to their end."""
    ends = [file.parent for file in (folder / "pool").glob("trials/*/status.json") if is_finished(file)]
    return [(trial, value) for trial, value in epochs_of(folder / "pool") if trial in {int(end.name) for end in ends}]


def is_finished(status: Path) -> bool:
    """Whether a trial was trained to its end."""
    return bool(read_json(status).get("state") == "finished")


def train_pool(folder: Path, trials: int) -> None:
    """Random configs at full length, until so many are there besides the baseline."""
    settings = ("name=pool", "search.method=random", "early_terminate.type=none")
    run_until(lambda: len({trial for trial, _ in trained_pool(folder)}) > trials, folder, *settings)


def tpe_search(folder: Path, seed: int, target: float, budget: int) -> None:
    """The demo's sweep with this seed, until the target or the budget is reached."""
    sweep = folder / f"tpe{seed}"

    def over() -> bool:
        values = epochs_of(sweep)
        return len(values) >= budget or until(values, target) is not None

    run_until(over, folder, f"name=tpe{seed}", f"search.seed={seed}")


def run_until(over: Callable[[], bool], folder: Path, *settings: str) -> None:
    """Run a sweep, or go on with it, and interrupt it once it is over."""
    if over():
        return
    endless = f"search.trials={MOST_TRIALS}"
    running = subprocess.Popen(command(folder, *settings, endless), stdout=subprocess.DEVNULL)
    while running.poll() is None and not over():
        time.sleep(POLL_S)
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    if running.wait() not in (0, 130):
        raise SystemExit(f"{settings[0]}: the sweep ended with {running.returncode}")


def races(folder: Path, seeds: int, trials: int, run: bool) -> Iterator[Race]:
    """Each seed's race, run first where asked."""
    pool = trained_pool(folder)
    for seed in range(seeds):
        target, random_reached, budget = random_search(pool, trials, seed)
        if run:
            tpe_search(folder, seed, target, budget)
        values = epochs_of(folder / f"tpe{seed}")
        reached = until(values, target)
        if values and (reached is not None or len(values) >= budget):
            yield Race(seed, target, budget, random_reached, reached or len(values), reached is not None)


def interval(shares: list[float]) -> tuple[float, float]:
    """95 % of the median over the seeds, by the bootstrap."""
    drawn = np.random.default_rng(0).choice(shares, (10_000, len(shares)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", type=int, default=100)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--table", action="store_true", help="only count what is there")
    asked = parser.parse_args()
    if not asked.table:
        train_pool(asked.folder, asked.pool)
    found = []
    for race in races(asked.folder, asked.seeds, asked.trials, run=not asked.table):
        found.append(race)
        ended = "reached it" if race.reached else "did not reach it"
        print(
            f"seed {race.seed}: random AP {race.target:.3f} in {race.budget} epochs (had it after "
            f"{race.random_reached}); TPE + ASHA {ended} in {race.epochs}: {race.share:.2f}",
            flush=True,
        )
    if found:
        low, high = interval([race.share for race in found])
        median = float(np.median([race.share for race in found]))
        print(f"median share of random search's epochs: {median:.3f} [{low:.3f}, {high:.3f}], goal <= {GOAL}")


if __name__ == "__main__":
    main()
