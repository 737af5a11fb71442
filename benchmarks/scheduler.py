"""What the driver costs, with trainings that are a table.

python -m posesweep.benchmarks.scheduler
    processor time per report and per trial at 100 to 10,000 trials: search, stopping, records, live view; without Ray
python -m posesweep.benchmarks.scheduler --tune 10000
    a sweep of so many trials through Ray Tune with real actors: processor time of the driver's whole process
python -m posesweep.benchmarks.scheduler --nodes
    trials per hour on two nodes against one: raylets on loopback, and trials that sleep, so that cores do not count
"""

import argparse
import io
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIZES = (100, 300, 1_000, 10_000)
MEASURED, TUNE_MEASURED = 50, 100  # trials at each size
EPOCHS = 9
SLEEP_S, NODE_TRIALS, NODE_CPUS = 5.0, 32, 2

SWEEP = """
name: table
data: {{synthetic: {{train: 1, val: 1, width: 64, height: 64}}}}
fixed: {{epochs: {epochs}}}
parameters:
  lr0: {{min: 1.0e-5, max: 1.0e-1, log: true}}
  sigma: {{min: 1.0, max: 4.0}}
  codec: {{values: [heatmap, simcc]}}
search: {{method: {method}, trials: {trials}}}
early_terminate: {{type: {rule}, min_epochs: 1, eta: 3}}
resources: {{concurrent: 2}}
"""


def table(params: dict[str, Any], epoch: int) -> float:
    """What a training reaches after so many epochs."""
    top = 0.8 - 0.1 * abs(math.log10(params["lr0"]) + 3) - 0.02 * abs(params["sigma"] - 2)
    return top * (1 - math.exp(-epoch / 4))


def tabulated(proposal: dict[str, Any]) -> None:
    """A trial in a Tune actor."""
    from ray import tune

    for epoch in range(1, EPOCHS + 1):
        value = table(proposal["params"], epoch)
        tune.report({"epoch": epoch, "value": value, "state": "running" if epoch < EPOCHS else "finished"})


def sleeping(proposal: dict[str, Any]) -> None:
    """A trial of fixed length that needs no processor."""
    from ray import tune

    time.sleep(SLEEP_S)
    tune.report({"epoch": 1, "value": 0.5, "state": "finished"})


class Driver:
    """What Tune's controller does with our searcher, scheduler and callbacks, for trials without processes."""

    def __init__(self, folder: Path, method: str, trials: int, rule: str) -> None:
        from rich.console import Console

        from posesweep.search_spaces.space import read_sweep
        from posesweep.trainables.cluster import Slots
        from posesweep.trainables.housekeeping import Orders
        from posesweep.trainables.progress import Progress
        from posesweep.trainables.records import Records
        from posesweep.trainables.search import Search
        from posesweep.trainables.sweep import board_of
        from posesweep.trainables.tune_glue import StudyScheduler, StudySearcher
        from posesweep.trainables.watch import Watch

        file = folder / "table.yaml"
        file.write_text(SWEEP.format(method=method, trials=trials, epochs=EPOCHS, rule=rule))
        sweep = read_sweep(file)
        self.search = Search.open(sweep, folder / "table")
        progress = Progress(board_of(self.search, folder / "table", Slots(1, 1, 0, 2)), Console(file=io.StringIO()))
        orders = Orders()
        self.searcher = StudySearcher(self.search, orders)
        self.scheduler = StudyScheduler(self.searcher)
        records = Records(self.search, sweep, folder / "table", progress, orders)
        self.callbacks = [records, Watch(sweep, folder / "table", progress.board, orders, records.make_room)]
        self.spent = {"report": 0.0, "trial": 0.0}
        self.done = {"report": 0, "trial": 0}

    def run(self, trials: int) -> None:
        """Train so many trials, one after the other."""
        for _ in range(trials):
            self.one()

    def one(self) -> None:
        """One trial."""
        id_ = f"t{self.done['trial']}"
        config = self.timed("trial", self.searcher.suggest, id_)
        trial = SimpleNamespace(
            trial_id=id_, config=config, run_metadata=SimpleNamespace(num_failures=0), temporary_state=None
        )
        self.tell("trial", "on_trial_start", trial)
        for epoch in range(1 + self.trained(config["number"]), EPOCHS + 1):
            result = {"epoch": epoch, "value": table(config["params"], epoch), "train_s": 1.0, "val_s": 0.1}
            result |= {"val/AP": result["value"], "state": "running" if epoch < EPOCHS else "finished"}
            decision = self.timed("report", self.scheduler.on_trial_result, None, trial, result)
            self.tell("report", "on_trial_result", trial, result=result)
            self.done["report"] += 1
            if decision == "STOP":
                break
        self.timed("trial", self.searcher.on_trial_complete, id_, result)
        self.tell("trial", "on_trial_complete", trial)
        self.done["trial"] += 1

    def trained(self, number: int) -> int:
        """The epochs of a trial that has waited at a rung."""
        return max(self.search.history().get(number, {}), default=0)

    def tell(self, kind: str, event: str, trial: Any, **more: Any) -> None:
        """Call the callbacks."""
        for callback in self.callbacks:
            self.timed(kind, getattr(callback, event), 0, [], trial, **more)

    def timed(self, kind: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Add the processor time of a call."""
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            self.spent[kind] += time.process_time() - start


def without_ray(rule: str) -> None:
    """Grow one journal; at each size, time trials proposed by TPE. What lies between is proposed at random: quicker."""
    fsync, os.fsync = os.fsync, lambda file: None
    print("| trials before | CPU ms per report | CPU ms per trial besides | journal MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder, have = Path(name), 0
        for size in SIZES:
            Driver(folder, "random", SIZES[-1] * 2, rule).run(size - have)
            driver = Driver(folder, "tpe", SIZES[-1] * 2, rule)
            driver.run(MEASURED)
            have = size + MEASURED
            report, trial = (1e3 * driver.spent[kind] / driver.done[kind] for kind in ("report", "trial"))
            journal = (folder / "table" / "journal.log").stat().st_size / 1e6
            print(f"| {size:,} | {report:.2f} | {trial:.1f} | {journal:.1f} |", flush=True)
    os.fsync = fsync


def through_tune(trials: int, rule: str) -> None:
    """The processor time of the driver's whole process, Tune's own included, as the sweep grows."""
    import ray
    from ray import tune

    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.cluster import Slots, start_ray
    from posesweep.trainables.search import Search
    from posesweep.trainables.sweep import fit

    class Meter(tune.Callback):
        """Tells what the trials cost that follow on each size."""

        begun = reports = 0
        since: tuple[int, int, float, float] = (0, 0, 0.0, 0.0)

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            now = (self.begun, self.reports, time.process_time(), time.perf_counter())
            begun, reports, cpu, wall = (new - old for new, old in zip(now, self.since, strict=True))
            if self.begun in SIZES:
                self.since = now
            elif begun == TUNE_MEASURED and self.since[0] in SIZES:
                per_trial, per_report = 1e3 * cpu / begun, 1e3 * cpu / reports
                print(
                    f"| {self.since[0]:,} | {per_trial:.1f} | {reports / begun:.1f} | {per_report:.2f} "
                    f"| {1e3 * wall / begun:.0f} |",
                    flush=True,
                )
            self.begun += 1

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self.reports += 1

    print("| trials before | driver CPU ms per trial | reports of a trial | CPU ms per report | wall ms per trial |")
    print("|---|---|---|---|---|")
    start_ray(2, 0, dashboard=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = SWEEP.format(method="tpe", trials=trials + TUNE_MEASURED + 1, epochs=EPOCHS, rule=rule)
        (folder / "table.yaml").write_text(text)
        search = Search.open(read_sweep(folder / "table.yaml"), folder / "table")
        fit(tabulated, search, folder / "table", Slots(1, 1, 0, 2), callbacks=[Meter()])
    ray.shutdown()


def trials_per_hour(count: int) -> float:
    """With so many nodes, each a raylet of its own on loopback, and a head that trains nothing."""
    import ray

    from posesweep.benchmarks.nodes import nodes_on_loopback
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.cluster import Slots
    from posesweep.trainables.search import Search
    from posesweep.trainables.sweep import fit

    slots = Slots(1, 1, 0, NODE_CPUS * count)
    with tempfile.TemporaryDirectory() as name, nodes_on_loopback({}, Path(name)) as nodes:
        for _ in range(count):
            nodes.add(NODE_CPUS)
        ray.init(address=nodes.address, log_to_driver=False)
        folder = Path(name)
        text = SWEEP.format(method="random", trials=NODE_TRIALS * count, epochs=1, rule="none")
        (folder / "table.yaml").write_text(text)
        search = Search.open(read_sweep(folder / "table.yaml"), folder / "table")
        start = time.perf_counter()
        fit(sleeping, search, folder / "table", slots)
        wall_s = time.perf_counter() - start
        ray.shutdown()
    return 3600 * NODE_TRIALS * count / wall_s


def nodes() -> None:
    """Twice the nodes, twice the trials."""
    one, two = trials_per_hour(1), trials_per_hour(2)
    ideal = 3600 * NODE_CPUS / SLEEP_S
    print(
        f"one node: {one:.0f} trials per hour of {ideal:.0f} possible; two: {two:.0f}; efficiency {two / one / 2:.3f}"
    )


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}  # before Ray is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="asha", choices=["asha", "hyperband", "median", "none"])
    parser.add_argument("--tune", type=int, metavar="TRIALS")
    parser.add_argument("--nodes", action="store_true")
    asked = parser.parse_args()
    nodes() if asked.nodes else through_tune(asked.tune, asked.rule) if asked.tune else without_ray(asked.rule)
