"""A soak: many short trials while everything is killed at random moments.

python -m posesweep.benchmarks.soak [--minutes 20] [--trials 300] [--seed 0]

The trials train nothing, but everything else is real: run_sweep, Ray, worker processes, checkpoints, logs, attempts.
For the given minutes the driver gets INT, TERM or KILL, a worker or the raylet gets KILL; a driver that has ended is
started again at once. Then the sweep runs to its end, and is looked at: every trial accounted for, every epoch on
record once, no process and no half-written file left, no growing memory of the driver. Exit code 1 when anything is
wrong. Only processes with this run's mark in their environment are killed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from posesweep.benchmarks.faults import MARK, ROOT, command_of, kill, marked, obey_ctrl_c

EPOCHS = 3
GRACE_MINUTES = 20  # for what is left when the kills are over
KILLS = ("driver INT", "driver TERM", "driver KILL", "worker KILL", "worker KILL", "worker KILL", "raylet KILL")
WORKER = "ray::"  # how Ray calls a process that runs an actor

SWEEP = """
name: soak
data: {{synthetic: {{train: 1, val: 1, width: 64, height: 64}}}}
metric: {{name: val/NME}}
fixed: {{model: tiny, imgsz: [64, 64], epochs: {epochs}, batch: 1}}
parameters: {{lr0: {{min: 1.0e-4, max: 1.0e-1, log: true}}}}
search: {{method: tpe, trials: {trials}, startup_trials: 20}}
early_terminate: {{type: asha, min_epochs: 1, eta: 3}}
resources: {{concurrent: 2}}
failure: {{max_retries: 5}}
keep: {{disk_floor_gb: 0.2}}
"""


def tabulated(proposal: dict[str, Any], base: dict[str, Any], folder: Path, slots: Any, driver: Any) -> None:
    """A trial whose epochs are a formula: in the place of worker.train_in_tune, with the same files and reports."""
    import math

    import torch
    from ray import tune

    from posesweep.files import append_json_line, trial_folder, write_text
    from posesweep.trainables import worker
    from posesweep.trainables.checkpoint import Checkpoint, LoopState, load_checkpoint, save_checkpoint
    from posesweep.trainables.context import SupersededError, in_this_process
    from posesweep.trainables.housekeeping import logged_to
    from posesweep.trainables.status import versions, write_status
    from posesweep.trainables.tasks import make_config
    from posesweep.trainables.trial import dump_config

    worker._end_once_with(driver.pid, driver.host)
    number, lr0 = proposal["number"], proposal["params"]["lr0"]
    trial = trial_folder(folder, number)
    try:
        with logged_to(trial / "log.txt", f"trial {number}"):
            context = in_this_process(trial, lambda row: tune.report(worker.report_of(row, "val/NME")))
            write_text(trial / "config.yaml", dump_config(make_config({**base, **proposal["params"]})))
            found = load_checkpoint(trial / "last")
            loop = found.loop if found is not None else LoopState()
            write_text(trial / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in loop.rows))
            for row in loop.rows[-1:]:
                context.report(row)
            while loop.epoch < EPOCHS:
                time.sleep(float(os.environ["SOAK_EPOCH_S"]))
                loop.epoch += 1
                value = 1 + abs(math.log10(lr0) + 2.5) + 1 / loop.epoch
                row = {"epoch": loop.epoch, "val/NME": value, "train_s": 0.1, "val_s": 0.0, "attempt": context.attempt}
                context.check_not_superseded()
                loop.rows.append(row)
                save_checkpoint(trial / "last", Checkpoint(loop, {"w": torch.zeros(10_000)}, None, {}))
                append_json_line(trial / "metrics.jsonl", row)
                context.check_not_superseded()
                write_status(trial, state="running", epochs=loop.epoch, device="cpu", workers=1)
                context.report(row)
    except SupersededError:
        return
    facts = {"seed": 0, "device": "cpu", "workers": 1, "versions": versions()}
    write_status(trial, state="finished", reason="", epochs=EPOCHS, **facts)
    tune.report({"epoch": EPOCHS, "state": "finished", "reason": ""})


def drive(folder: Path) -> int:
    """The driver's process: run_sweep.py with the trial above."""
    import posesweep.trainables.sweep as sweeping
    from posesweep.cli import main as command_line

    sweeping.train_in_tune = tabulated
    return command_line(["sweep", str(folder / "soak.yaml"), "--runs", str(folder / "runs")])


class Soak:
    """One run. `memory` is (life of the driver, seconds into it, trials ended, MB)."""

    def __init__(self, folder: Path, minutes: float, trials: int, seed: int) -> None:
        self.folder, self.trials, self.minutes = folder, trials, minutes
        self.sweep = folder / "runs" / "soak"
        self.mark = f"soak-{os.getpid()}-{seed}"
        self.dice = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.memory: list[tuple[int, float, int, float]] = []
        self.lives = 0
        (folder / "soak.yaml").write_text(SWEEP.format(trials=trials, epochs=EPOCHS))

    def run(self) -> list[str]:
        """Disturb, then let it end; returns what is wrong."""
        end = time.monotonic() + self.minutes * 60
        driver = self.start()
        next_kill, written = self.next_kill(end), 0
        while True:
            code = driver.poll()
            if code == 0:
                break
            if time.monotonic() > end + max(self.minutes, GRACE_MINUTES) * 60:
                return [*self.faults(), "not through long after the last kill"]
            if code is not None:
                driver = self.start()
            if time.monotonic() > next_kill and self.written() > written:  # after a kill, until something goes on
                self.kill_something(driver)
                next_kill, written = self.next_kill(end), self.written()
            self.look(driver)
            time.sleep(0.5)
        return self.faults()

    def start(self) -> subprocess.Popen[bytes]:
        """Give the command (again)."""
        self.lives, self.born_s = self.lives + 1, time.monotonic()
        epoch_s = 0.4 * self.minutes * 60 * 2 / (self.trials * EPOCHS)  # two at a time; the rest is for restarts
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", MARK: self.mark}
        with (self.folder / "out.txt").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "posesweep.benchmarks.soak", "--drive", str(self.folder)],
                env={**env, "SOAK_EPOCH_S": f"{epoch_s:.3f}"},
                stdout=out,
                stderr=out,
                cwd=self.folder,
                start_new_session=True,
            )

    def next_kill(self, end: float) -> float:
        """When to kill something again; never after `end`."""
        at = time.monotonic() + self.dice.uniform(5, 40)
        return at if at < end else float("inf")

    def written(self) -> int:
        """Bytes of metrics that all trials have written."""
        return sum(file.stat().st_size for file in self.sweep.glob("trials/*/metrics.jsonl"))

    def kill_something(self, driver: subprocess.Popen[bytes]) -> None:
        """One random kill; nothing where there is nothing of that kind at the moment."""
        kind = self.dice.choice(KILLS)
        who, name = kind.split()
        number = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}[name]
        names = {"worker": WORKER, "raylet": "raylet/raylet"}
        pids = [driver.pid] if who == "driver" else [p for p in marked(self.mark) if names[who] in command_of(p)]
        if pids:
            kill(self.dice.choice(sorted(pids)), number)
            self.kills[kind] += 1

    def look(self, driver: subprocess.Popen[bytes]) -> None:
        """Take the driver's memory down, once every few seconds."""
        age_s = time.monotonic() - self.born_s
        if self.memory and self.memory[-1][0] == self.lives and age_s - self.memory[-1][1] < 5:
            return
        try:
            pages = int(Path(f"/proc/{driver.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        self.memory.append((self.lives, age_s, self.ended(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6))

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(status["state"] != "running" for status in self.statuses().values())

    def statuses(self) -> dict[int, dict[str, Any]]:
        """Every trial's status."""
        files = sorted((self.sweep / "trials").glob("*/status.json"))
        return {int(file.parent.name): json.loads(file.read_text()) for file in files}

    def faults(self) -> list[str]:
        """What is wrong at the end."""
        from posesweep.files import read_json_lines

        statuses = self.statuses()
        states = Counter(status["state"] for status in statuses.values())
        print(f"trials: {dict(states)}; kills: {dict(self.kills)}; the driver was started {self.lives} times")
        found = []
        if sorted(statuses) != list(range(self.trials)) or states["running"]:
            found.append(f"{len(statuses)} trials of {self.trials}, {states['running']} without an end")
        for number, status in statuses.items():
            epochs = [row["epoch"] for row in read_json_lines(self.sweep / f"trials/{number:04d}/metrics.jsonl")]
            if epochs != list(range(1, len(epochs) + 1)) or (status["state"] == "finished" and len(epochs) != EPOCHS):
                found.append(f"trial {number}, {status['state']}: epochs {epochs}")
        reasons = Counter(status["reason"] for status in statuses.values() if status["state"] == "failed")
        found += [f"{count} trials failed: {reason}" for reason, count in reasons.items()]
        leftovers = [path for path in self.sweep.rglob("*") if path.name.endswith((".tmp", ".new", ".lock"))]
        found += [f"left behind: {path.relative_to(self.sweep)}" for path in [*leftovers, *self.sweep.glob("ray")]]
        return found + self.leaked() + self.grown()

    def leaked(self) -> list[str]:
        """Processes that are still there a minute and a half after the end."""
        end = time.monotonic() + 90
        while marked(self.mark) and time.monotonic() < end:
            time.sleep(1)
        return [f"process left: {pid} {command_of(pid)[:80]}" for pid in marked(self.mark)]

    def grown(self) -> list[str]:
        """The driver's memory in its longest life, from 30 s after its start on."""
        longest = max({life for life, *_ in self.memory}, key=lambda one: sum(life == one for life, *_ in self.memory))
        samples = [(ended, mb) for life, age_s, ended, mb in self.memory if life == longest and age_s > 30]
        if len(samples) < 4:
            print("memory: no life of the driver was long enough to say")
            return []
        half = len(samples) // 2
        early, late = (sum(mb for _, mb in part) / len(part) for part in (samples[:half], samples[half:]))
        trials = samples[-1][0] - samples[0][0]
        print(f"memory of the driver's longest life, over {trials} trials: {early:.1f} MB, later {late:.1f} MB")
        return [f"the driver grew from {early:.1f} to {late:.1f} MB"] if late > early * 1.05 + 5 else []


def main() -> int:
    """Run it; 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drive is not None:
        return drive(asked.drive)
    obey_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="soak", ignore_cleanup_errors=True) as name:
        soak = Soak(Path(name), asked.minutes, asked.trials, asked.seed)
        start = time.monotonic()
        try:
            found = soak.run()
        finally:
            for pid in marked(soak.mark):
                kill(pid)
        print(f"{(time.monotonic() - start) / 60:.1f} minutes; wrong: {found or 'nothing'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
