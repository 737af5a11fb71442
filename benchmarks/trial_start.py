"""What a trial costs besides its training.

python benchmarks/trial_start.py          20 trivial trials (3 reports each, one at a time) as our sweeps run them, and
                                          the same 20 each in a TorchTrainer of one worker, as Ray documents it
python benchmarks/trial_start.py --demo   the share of the demo's wall time that is not training or validation
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRIALS, REPORTS = 20, 3

SWEEP = f"""
name: trivial
data: {{synthetic: {{train: 1, val: 1, width: 64, height: 64}}}}
parameters: {{lr0: {{min: 1.0e-4, max: 1.0e-1, log: true}}}}
search: {{method: random, trials: {TRIALS}}}
early_terminate: {{type: none}}
resources: {{concurrent: 1}}
"""


def ours(proposal: dict[str, Any]) -> None:
    """Three epochs of nothing."""
    from ray import tune

    for epoch in range(1, REPORTS + 1):
        tune.report({"epoch": epoch, "value": 0.5, "state": "running"})
    tune.report({"epoch": REPORTS, "state": "finished", "reason": ""})


def nested(config: dict[str, Any]) -> None:
    """The same in a TorchTrainer, reporting through Ray's callback."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    run_config = RunConfig(storage_path=config["storage"], callbacks=[TuneReportCallback()])
    TorchTrainer(nested_worker, scaling_config=ScalingConfig(num_workers=1), run_config=run_config).fit()


def nested_worker() -> None:
    """The worker's three reports."""
    from ray import train

    for epoch in range(1, REPORTS + 1):
        train.report({"epoch": epoch, "value": 0.5})


def time_ours(folder: Path) -> float:
    """Seconds per trial, through the very search and executor that sweeps use."""
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.cluster import Slots
    from posesweep.trainables.search import Search
    from posesweep.trainables.sweep import fit

    file = folder / "trivial.yaml"
    file.write_text(SWEEP)
    search = Search.open(read_sweep(file), folder / "trivial")
    start = time.perf_counter()
    fit(ours, search, folder / "trivial", Slots(workers=1, cpus=1, gpus=0, concurrent=1))
    assert search.counts()["finished"] == TRIALS
    return (time.perf_counter() - start) / TRIALS


def time_nested(folder: Path) -> float:
    """Seconds per trial, nested as in Ray's user guide."""
    from ray import tune

    trainable = tune.with_resources(nested, tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}]))
    tuner = tune.Tuner(
        trainable,
        param_space={"storage": str(folder / "nested-workers")},
        tune_config=tune.TuneConfig(num_samples=TRIALS, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder / "nested"), verbose=0),
    )
    start = time.perf_counter()
    results = tuner.fit()
    assert results.num_errors == 0
    return (time.perf_counter() - start) / TRIALS


def compare() -> None:
    """Both in one Ray instance, ours first."""
    import ray

    with tempfile.TemporaryDirectory() as name:
        ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False)
        ours_s = time_ours(Path(name))
        print(f"ours:                 {ours_s:.3f} s per trial")
        nested_s = time_nested(Path(name))
        print(f"nested TorchTrainer:  {nested_s:.3f} s per trial")
        print(f"ratio: 1/{nested_s / ours_s:.0f}")
        ray.shutdown()


def demo_share() -> None:
    """The demo, from the command to the report, against what its trials trained and validated.

    Two shares: of the wall time, when no trial trains or validates; and of the slots' time, which also counts the one
    slot's saving, reporting and starting while the other trains, and the slot that is empty while the last trial ends.
    """
    import os

    from posesweep.files import read_json_lines

    root = Path(__file__).resolve().parents[1]
    slots = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        subprocess.run([sys.executable, root / "run_sweep.py", "--runs", name], check=True)
        wall_s = time.perf_counter() - start
        rows = [row for file in Path(name).glob("demo/trials/*/metrics.jsonl") for row in read_json_lines(file)]
    spans = [(row["worked_until"] - row["train_s"] - row["val_s"], row["worked_until"]) for row in rows]
    worked_s = sum(end - start for start, end in spans) / slots
    covered_s = covered(spans)
    print(f"wall {wall_s:.1f} s; some trial trained or validated for {covered_s:.1f} s, a slot for {worked_s:.1f} s")
    print(f"no trial trains or validates: {1 - covered_s / wall_s:.1%} of the wall time")
    print(f"not training or validating: {1 - worked_s / wall_s:.1%} of the slots' time")


def covered(spans: list[tuple[float, float]]) -> float:
    """The seconds that lie in at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="the demo's share instead")
    demo_share() if parser.parse_args().demo else compare()
