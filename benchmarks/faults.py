"""The fault table: each fault really happens to a small real sweep, which then goes on.

python benchmarks/faults.py [fault ...] [--out faults.md]

A sweep of four short trainings, one at a time, is first run undisturbed. Then, for each fault, the same sweep is run in
a folder of its own, the fault is made in the middle of the second trial, and the command is repeated where the driver
did not survive. Compared are configs, metrics and ends of all trials, bit for bit.

Only processes of the run itself are killed: they are known by a variable in their environment.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posesweep.benchmarks.nodes import Nodes

ROOT = Path(__file__).resolve().parents[1]
MARK = "POSESWEEP_BENCHMARK"
TIMES = {"train_s", "val_s", "worked_until", "attempt"}
VICTIM, EPOCH, STEP = 1, 2, 2  # where planned faults happen: trial, epoch from 1, step of that epoch from 1

SWEEP = """
name: small
data: {synthetic: {train: 32, val: 19, seed: 1, width: 160, height: 120}}
metric: {name: val/NME}
fixed: {model: tiny, imgsz: [64, 64], epochs: 4, batch: 8}
parameters:
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
baseline: {lr0: 1.0e-3}
try_first: [{lr0: 2.0e-3}]
search: {method: tpe, trials: 4, startup_trials: 2, seed: 3}
early_terminate: {type: asha, min_epochs: 2, eta: 2}
resources: {concurrent: 1}
failure: {max_retries: 2}
keep: {disk_floor_gb: 0}
"""

# What runs in the place of run_sweep.py: the same sweep, whose workers find the fault that is planned for them.
DRIVER = """
import json, os, sys, time
from pathlib import Path

sys.path.insert(0, {root!r})


def planted(train, *arguments, **common):
    "`train` with the planned fault in it."
    import time
    import torch
    from posesweep.trainables import trial

    plan = json.loads(Path({plan!r}).read_text())
    step, marks = trial.train_step, Path({plan!r}).parent

    def breaking(training, arrays):
        breaking.steps += 1
        number = int(training.context.folder.name) if training.context.folder.name.isdecimal() else -1
        at = breaking.steps == (plan["epoch"] - breaking.from_epoch - 1) * plan["steps_per_epoch"] + plan["step"]
        mine = plan["trial"] in (number, None) and (at or plan["always"]) and training.context.rank == plan["rank"]
        mark = marks / "happened"
        if mine and (plan["always"] or not mark.exists()):
            mark.write_text(str(time.time()))
            if plan["kind"] == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if plan["kind"] == "error":
                raise RuntimeError("the planned error")
            if plan["kind"] == "slow":
                time.sleep(15)  # something is done to others meanwhile
            if plan["kind"] == "hang":
                time.sleep(3600)
            if plan["kind"] == "freeze":
                os.kill(os.getpid(), 19)
            if plan["kind"] == "die":
                os.kill(os.getpid(), 9)
            if plan["kind"] == "nan":
                return {{**step(training, arrays), "loss": torch.tensor(float("nan"))}}
        return step(training, arrays)

    def resume(training, before=trial._resume):
        loop = before(training)
        breaking.steps, breaking.from_epoch = 0, loop.epoch
        return loop

    breaking.steps, breaking.from_epoch = 0, 0
    trial.train_step, trial._resume = breaking, resume
    try:
        return train(*arguments, **common)
    finally:
        trial.train_step, trial._resume = step, resume.__defaults__[0]


def faulty(proposal, **common):
    from posesweep.trainables import worker

    def faulty_worker(*arguments, train=worker.train_in_ray_train_worker, **common):  # each in a process of its own
        return planted(train, *arguments, **common)

    worker.train_in_ray_train_worker = faulty_worker
    return planted(worker.train_in_tune, proposal, **common)


if __name__ == "__main__":
    import posesweep.trainables.sweep as sweeping
    from posesweep.cli import main

    if Path({plan!r}).exists():
        sweeping.train_in_tune = faulty
    sys.exit(main(["sweep", *sys.argv[1:]]))
"""


@dataclass
class Bench:
    """One sweep under test, in a folder of its own; `mark` is in the environment of all its processes."""

    folder: Path
    settings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    driver: subprocess.Popen[bytes] | None = None
    nodes: Nodes | None = None
    lost: Path | None = None  # what the sweep's folder was when its machine was lost, until that has been looked at

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "small.yaml").write_text(SWEEP)
        text = DRIVER.format(root=str(ROOT), plan=str(self.folder / "plan.json"))
        (self.folder / "driver.py").write_text(text)

    @property
    def sweep(self) -> Path:
        return self.lost or self.folder / "runs" / "small"

    def plan(self, kind: str, **changes: Any) -> None:
        """A fault for a worker, in the middle of an epoch."""
        plan = {"kind": kind, "trial": VICTIM, "epoch": EPOCH, "step": STEP, "steps_per_epoch": 4, "rank": 0}
        (self.folder / "plan.json").write_text(json.dumps({**plan, "always": False, **changes}))

    def start(self) -> None:
        """Give the command."""
        obey_ctrl_c()
        env = {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.mark, "OMP_NUM_THREADS": "1", **self.environment}
        with (self.folder / "out.txt").open("ab") as out:
            command = [sys.executable, str(self.folder / "driver.py"), "small.yaml", *self.settings]
            self.driver = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=out, stderr=out, start_new_session=True
            )

    def end(self, timeout_s: float = 1800) -> int:
        """Wait for the driver; returns its exit code."""
        assert self.driver is not None
        return self.driver.wait(timeout_s)

    def said(self) -> str:
        """Everything the drivers printed."""
        return (self.folder / "out.txt").read_text()

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The epochs of a trial that are on record."""
        from posesweep.files import read_json_lines

        return read_json_lines(self.sweep / "trials" / f"{number:04d}" / "metrics.jsonl")

    def all_rows(self) -> dict[int, list[dict[str, Any]]]:
        """Those of every trial."""
        trials = self.sweep / "trials"
        return {int(trial.name): self.rows(int(trial.name)) for trial in sorted(trials.glob("*"))}

    def states(self) -> dict[int, str]:
        """How every trial stands."""
        files = sorted((self.sweep / "trials").glob("*/status.json"))
        return {int(file.parent.name): json.loads(file.read_text())["state"] for file in files}

    def record(self) -> dict[int, Any]:
        """What must not depend on any fault."""
        rows = self.all_rows()
        plain = {n: [{k: v for k, v in row.items() if k not in TIMES} for row in rows[n]] for n in rows}
        return {n: (state, plain[n]) for n, state in self.states().items()}

    def best(self) -> float | None:
        """The best value of all trials."""
        values = [row["val/NME"] for rows in self.all_rows().values() for row in rows]
        return min(values, default=None)

    def processes(self, name: str = "") -> list[int]:
        """The living processes of this bench whose command line contains `name`."""
        return [pid for pid in marked(self.mark) if name in command_of(pid)]

    def wait_for_epoch(self, number: int = VICTIM, count: int = 1, timeout_s: float = 900) -> None:
        """Until a trial has so many epochs on record."""
        wait_for(lambda: len(self.rows(number)) >= count or (self.driver and self.driver.poll() is not None), timeout_s)

    def clean(self) -> None:
        """End what is left of this bench."""
        for pid in self.processes():
            kill(pid)


def obey_ctrl_c() -> None:
    """Started in the background by a shell, this process ignores SIGINT, and so would the drivers it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def marked(mark: str) -> list[int]:
    """The living processes with the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                inside = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:  # it has just ended
                continue
            if inside and alive:
                found.append(int(entry.name))
    return found


def command_of(pid: int) -> str:
    """The command line of a process; '' when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; nothing happens to a process that has ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_for(condition: Callable[[], object], timeout_s: float) -> None:
    """Poll until the condition holds. TimeoutError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.05)


@dataclass
class Row:
    """One line of the table."""

    fault: str
    made: str
    before: str = ""
    after: str = ""
    saved_epochs_lost: int = 0
    in_flight: int = 0
    on_again_s: float | None = None
    equal: bool = False
    said: str = ""
    best: float | None = None
    leaked: int = 0


Fault = Callable[[Bench], str]  # makes it happen; returns in words how


def run_fault(name: str, bench: Bench, whole: dict[int, Any]) -> Row:
    """Start, disturb, repeat until it is through; compare with the undisturbed record."""
    fault = FAULTS[name]
    try:
        fault.prepare(bench)
        bench.start()
        if fault.make is not happened:
            bench.wait_for_epoch()
        fault.make(bench)
        moment = time.time()
        before = bench.all_rows()
        states = bench.states()
        bench.lost = None
        row = Row(name, fault.how, before=counted(states), in_flight=list(states.values()).count("running"))
        finish(bench, fault)
        row.saved_epochs_lost = lost_rows(before, bench.all_rows())
        row.on_again_s = first_after(moment, bench.all_rows())
        row.after, row.equal, row.best = counted(bench.states()), bench.record() == whole, bench.best()
        row.said = fault.words(bench)
        if bench.nodes is not None:
            bench.nodes.end()
        wait_for_the_dead(bench)
        row.leaked = len(bench.processes())
    finally:
        bench.clean()
        fault.undo(bench)
        unmount(bench)
    return row


def finish(bench: Bench, fault: "Kind") -> None:
    """Wait for the end, putting right what the fault broke and repeating the command while the driver gives up."""
    code = bench.end()
    for _ in range(3):
        if code == 0 or not fault.repeats:
            return
        fault.undo(bench)
        bench.start()
        code = bench.end()


def wait_for_the_dead(bench: Bench, timeout_s: float = 90) -> None:
    """Ray ends the processes of a killed driver after up to a minute."""
    end = time.monotonic() + timeout_s
    while bench.processes() and time.monotonic() < end:
        time.sleep(0.5)


def counted(states: dict[int, str]) -> str:
    """'1 finished, 1 running'."""
    names = sorted(set(states.values()))
    return ", ".join(f"{list(states.values()).count(name)} {name}" for name in names)


def lost_rows(before: dict[int, list[dict[str, Any]]], after: dict[int, list[dict[str, Any]]]) -> int:
    """How many epochs that were on record were trained again: their times differ then."""
    return sum(row not in after.get(number, []) for number, rows in before.items() for row in rows)


def first_after(moment: float, rows: dict[int, list[dict[str, Any]]]) -> float | None:
    """Seconds from the fault to the next epoch that was saved."""
    times = [row["worked_until"] for trial in rows.values() for row in trial if row["worked_until"] > moment]
    return min(times) - moment if times else None


def nothing(bench: Bench) -> None:
    """No preparation, or nothing to put right."""


def no_words(bench: Bench) -> str:
    """What the user is told, where that is worth a column."""
    return ""


@dataclass
class Kind:
    """A fault: how it is made, with which settings of the sweep, and what the user does about it."""

    how: str
    make: Callable[[Bench], None] = nothing
    prepare: Callable[[Bench], None] = nothing
    undo: Callable[[Bench], None] = nothing
    words: Callable[[Bench], str] = no_words
    repeats: bool = True  # whether the user repeats the command until it is through
    settings: tuple[str, ...] = ()


def signalled(number: int) -> Callable[[Bench], None]:
    """Send the driver a signal, and wait for its end."""

    def make(bench: Bench) -> None:
        happened(bench)
        assert bench.driver is not None
        bench.driver.send_signal(number)
        bench.end(300)

    return make


def kill_named(*names: str) -> Callable[[Bench], None]:
    """Kill every process of the bench with one of these names."""

    def make(bench: Bench) -> None:
        happened(bench)
        pids = [pid for name in names for pid in bench.processes(name)]
        assert pids, f"no process is called {names}"
        for pid in pids:
            kill(pid)

    return make


def planned(kind: str, **changes: Any) -> Callable[[Bench], None]:
    """Plan a fault for a worker."""
    return lambda bench: bench.plan(kind, **changes)


def happened(bench: Bench) -> None:
    """Wait until the planned fault has happened. TimeoutError when the sweep ended without it."""
    mark = bench.folder / "happened"
    wait_for(lambda: mark.exists() or (bench.driver and bench.driver.poll() is not None), 900)
    if not mark.exists():
        raise TimeoutError(f"the fault did not happen:\n{bench.said()}")


def killed_then(change: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """Kill the driver and everything of it, then damage files."""

    def make(bench: Bench) -> None:
        bench.wait_for_epoch(count=2)
        assert bench.driver is not None
        bench.driver.kill()
        bench.end()
        bench.clean()
        change(bench)

    return make


def truncate_checkpoint(bench: Bench) -> None:
    """Half of the weights that the running trial saved last."""
    file = bench.sweep / "trials" / f"{VICTIM:04d}" / "last" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def tear_journal(bench: Bench) -> None:
    """The last line, in its middle."""
    file = bench.sweep / "journal.log"
    file.write_bytes(file.read_bytes()[:-20])


def lose_machine(bench: Bench) -> None:
    """Its folder is gone with it; what comes next is another machine."""
    bench.lost = (bench.folder / "runs" / "small").rename(bench.folder / "lost")


def status_words(name: str, number: int = VICTIM) -> Callable[[Bench], str]:
    """A field of a trial's status.json."""

    def words(bench: Bench) -> str:
        return str(json.loads((bench.sweep / "trials" / f"{number:04d}" / "status.json").read_text()).get(name, ""))

    return words


def said_words(start: str) -> Callable[[Bench], str]:
    """The last line of the driver's output with `start` in it."""

    def words(bench: Bench) -> str:
        lines = [line for line in bench.said().splitlines() if start in line]
        return lines[-1] if lines else "(it said nothing)"

    return words


def small_disk(bench: Bench) -> None:
    """The sweep's folder on a disk of its own, of 40 MB, in memory."""
    (bench.folder / "runs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(bench.folder / "runs")], check=True)


def fill_disk(bench: Bench) -> None:
    """Until nothing more can be written."""
    with (bench.folder / "runs" / "ballast").open("wb") as file:
        try:
            while True:
                file.write(bytes(2**16))
                file.flush()
        except OSError:
            return


def make_room(bench: Bench) -> None:
    """What the user does."""
    (bench.folder / "runs" / "ballast").unlink(missing_ok=True)


def unmount(bench: Bench) -> None:
    """The disk that was made for this fault, if there was one."""
    if os.path.ismount(bench.folder / "runs"):
        subprocess.run(["umount", "-l", str(bench.folder / "runs")], check=True)


def loop_disk(bench: Bench) -> None:
    """The sweep's folder on an ext4 file system in a file."""
    image, runs = bench.folder / "disk.img", bench.folder / "runs"
    runs.mkdir()
    with image.open("wb") as file:
        file.truncate(200 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(runs)], check=True)


def abort_disk(bench: Bench) -> None:
    """As after an error of the medium: the kernel makes it read-only at once."""
    subprocess.run(["mount", "-o", "remount,abort", str(bench.folder / "runs")], check=False)
    (bench.folder / "aborted").touch()


def mount_again(bench: Bench) -> None:
    """What the user does about it, once."""
    if (bench.folder / "aborted").exists():
        (bench.folder / "aborted").unlink()
        bench.clean()
        subprocess.run(["umount", "-l", str(bench.folder / "runs")], check=True)
        time.sleep(1)
        subprocess.run(["e2fsck", "-p", str(bench.folder / "disk.img")], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", str(bench.folder / "disk.img"), str(bench.folder / "runs")], check=True)


def start_nodes_and_plan(bench: Bench) -> None:
    """A head that trains nothing and a node that does, both on this machine; the sweep joins by RAY_ADDRESS."""
    bench.nodes = Nodes({"PYTHONPATH": str(ROOT), MARK: bench.mark}, bench.folder)
    bench.nodes.add(num_cpus=1)
    bench.environment["RAY_ADDRESS"] = bench.nodes.address
    bench.plan("slow")


def lose_and_join(bench: Bench) -> None:
    """The node that trains is lost, five seconds later another one joins."""
    happened(bench)
    assert bench.nodes is not None
    bench.nodes.lose(bench.nodes.started[-1])
    time.sleep(5)
    bench.nodes.add(num_cpus=1)


RETRIED, TOLD = status_words("last_failure"), said_words("posesweep: ")
TWO_WORKERS = ("resources.workers_per_trial=2",)
IMPATIENT = ("failure.stall_minutes=1",)  # no epoch of this sweep takes a minute, unless the machine is very busy

FAULTS = {
    "driver, Ctrl-C": Kind("SIGINT to the driver", signalled(signal.SIGINT), planned("slow")),
    "driver, TERM": Kind("SIGTERM to the driver", signalled(signal.SIGTERM), planned("slow")),
    "driver, KILL": Kind("kill -9 of the driver", signalled(signal.SIGKILL), planned("slow")),
    "actor killed": Kind("the worker kills itself in a step", happened, planned("die"), words=RETRIED),
    "DDP worker killed": Kind(
        "rank 1 of 2 kills itself in a step",
        happened,
        planned("die", rank=1),
        words=RETRIED,
        settings=TWO_WORKERS,
    ),
    "node lost, one joined": Kind(
        "kill -9 of the only training node's raylet",
        lose_and_join,
        start_nodes_and_plan,
        words=RETRIED,
    ),
    "raylet killed": Kind("kill -9 of the raylet", kill_named("raylet/raylet"), planned("slow"), words=TOLD),
    "GCS killed": Kind("kill -9 of Ray's control store", kill_named("gcs_server"), planned("slow"), words=TOLD),
    "disk full": Kind("a 40 MB disk filled up", fill_disk, small_disk, make_room, words=said_words("small stopped")),
    "disk read-only": Kind("ext4 in a file, aborted", abort_disk, loop_disk, mount_again, words=TOLD),
    "checkpoint truncated": Kind(
        "kill -9, then half of last/weights.safetensors", killed_then(truncate_checkpoint), words=status_words("note")
    ),
    "journal torn": Kind("kill -9, then 20 bytes off the journal", killed_then(tear_journal)),
    "machine lost": Kind(
        "kill -9, then the sweep folder gone; keep.copy_to",
        killed_then(lose_machine),
        words=said_words("is fetched from"),
        settings=("keep.copy_to=far", "keep.copy_minutes=0.01"),
    ),
    "not a number": Kind("the loss of a step is nan", happened, planned("nan"), words=status_words("reason")),
    "out of memory": Kind("OutOfMemoryError in a step", happened, planned("memory"), words=status_words("reason")),
    "hanging": Kind("sleeps in a step", happened, planned("hang"), words=RETRIED, settings=IMPATIENT),
    "frozen": Kind("SIGSTOP in a step", happened, planned("freeze"), words=RETRIED, settings=IMPATIENT),
    "one trial always fails": Kind(
        "an error in every step of it", happened, planned("error", always=True), words=status_words("reason")
    ),
    "every trial fails": Kind(
        "an error in every step",
        happened,
        planned("error", always=True, trial=None),
        words=said_words("trials: RuntimeError"),
        repeats=False,
    ),
}


@contextmanager
def place() -> Iterator[Path]:
    """A folder for all benches; what is mounted in it goes first."""
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    try:
        yield folder
    finally:
        for runs in folder.glob("*/runs"):
            if os.path.ismount(runs):
                subprocess.run(["umount", "-l", str(runs)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def undisturbed(folder: Path, settings: tuple[str, ...] = ()) -> dict[int, Any]:
    """The record of the sweep that nobody disturbs."""
    bench = Bench(folder, settings)
    bench.start()
    code = bench.end()
    assert code == 0, bench.said()
    return bench.record()


def line(row: Row) -> str:
    """A row of the table."""
    again = "-" if row.on_again_s is None else f"{row.on_again_s:.0f} s"
    same = "yes" if row.equal else "no"
    best = "-" if row.best is None else f"{row.best:.6f}"
    cells = (row.fault, row.made, row.before, row.after, row.saved_epochs_lost, row.in_flight, again, same, best)
    return "| " + " | ".join(map(str, (*cells, row.leaked, row.said))) + " |"


HEAD = (
    "| fault | how made | trials before | trials after | saved epochs lost | epochs in flight | on again after "
    "| record equal | best NME | processes left | what is said |\n|" + "---|" * 11
)


def main() -> None:
    """Run what is asked, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], default=[])
    parser.add_argument("--out", type=Path, help="also write the table here")
    asked = parser.parse_args()
    lines = [HEAD]
    print(HEAD, flush=True)
    whole: dict[tuple[str, ...], dict[int, Any]] = {}
    with place() as folder:
        for name in asked.faults or FAULTS:
            settings = FAULTS[name].settings
            alike = tuple(setting for setting in settings if not setting.startswith("failure."))  # the same record
            if alike not in whole:
                whole[alike] = undisturbed(folder / f"whole{len(whole)}", alike)
            bench = Bench(folder / name.replace(" ", "-").replace(",", ""), settings)
            try:
                lines.append(line(run_fault(name, bench, whole[alike])))
            except (AssertionError, TimeoutError, subprocess.TimeoutExpired) as error:
                lines.append(f"| {name} | {FAULTS[name].how} | it could not be made: {error} |")
            print(lines[-1], flush=True)
            if asked.out is not None:
                asked.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
