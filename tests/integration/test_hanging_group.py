"""A worker of a DDP trial hangs: its group ends in time, is torn down, and the trial and the sweep go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from posesweep.benchmarks.nodes import descendants
from posesweep.files import read_json, read_json_lines

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
name: hang
data: {synthetic: {train: 48, val: 19, seed: 1, width: 160, height: 120}}
metric: {name: val/NME}
fixed: {model: tiny, imgsz: [64, 64], epochs: 400, batch: 8}
parameters:
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
baseline: {lr0: 1.0e-3}
search: {method: random, trials: 1}
early_terminate: {type: none}
resources: {workers_per_trial: 2, cpus_per_worker: 1}
failure: {max_retries: 2, stall_minutes: 1}
"""


def workers_below(pid: int) -> list[int]:
    """The DDP workers among the descendants of a process."""
    names = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in descendants(pid)}
    return [child for child, name in names.items() if name.startswith(b"ray::RayTrainWorker")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_group_that_hangs_is_ended_and_tried_again(tmp_path):
    (tmp_path / "hang.yaml").write_text(SWEEP)
    trial = tmp_path / "runs" / "hang" / "trials" / "0000"
    command = [sys.executable, str(ROOT / "run_sweep.py"), "hang.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        try:
            end = time.monotonic() + 450
            while len(read_json_lines(trial / "metrics.jsonl")) < 3 and time.monotonic() < end:
                time.sleep(0.2)
            stopped = workers_below(sweep.pid)
            assert len(stopped) == 2
            os.kill(stopped[0], signal.SIGSTOP)
            while read_json(trial / "attempt.json")["attempt"] < 2 and time.monotonic() < end:
                time.sleep(0.5)
            before = len(read_json_lines(trial / "metrics.jsonl"))
            while len(read_json_lines(trial / "metrics.jsonl")) < before + 2 and time.monotonic() < end:
                time.sleep(0.2)
            assert not Path(f"/proc/{stopped[0]}").exists(), "the worker that hung is gone"
            assert len(workers_below(sweep.pid)) == 2
        finally:
            sweep.send_signal(signal.SIGINT)
            said, _ = sweep.communicate(timeout=120)
    assert "it hung: no worker reported an epoch for 1 minutes (failure.stall_minutes)" in said
    epochs = [row["epoch"] for row in read_json_lines(trial / "metrics.jsonl")]
    assert epochs == list(range(1, len(epochs) + 1))
