"""TensorBoard and optuna-dashboard open a sweep folder as it is."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.tasks import check_values, defaults_of
from tests.trainables import in_process

SWEEP = """
name: small
data: {synthetic: {train: 16, val: 8, seed: 1, width: 96, height: 80}}
fixed: {model: tiny, imgsz: [64, 64], epochs: 2, batch: 8, augment: none, flip_test: false}
parameters: {lr0: {min: 1.0e-3, max: 1.0e-2, log: true}}
search: {trials: 3}
early_terminate: {type: none}
"""
BIN = Path(sys.executable).parent
WAIT_S = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("runs")
    (here / "small.yaml").write_text(SWEEP)
    in_process.run_sweep(read_sweep(here / "small.yaml", (), check_values, defaults_of), here / "small")
    return here / "small"


@contextmanager
def serving(*command: str) -> Iterator[int]:
    """A server on a free port of this machine, ended with the block; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [str(BIN / command[0]), *command[1:], "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        server.terminate()
        server.wait(30)


def fetched(port: int, path: str) -> bytes:
    """A page, as soon as the server is there."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.read()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("logdir", [".", "trials"])
def test_tensorboard_shows_every_trial(folder, logdir):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with serving("tensorboard", "--logdir", str(folder / logdir)) as port:
        assert b"<title>TensorBoard</title>" in fetched(port, "/")
        end = time.monotonic() + WAIT_S
        while len(runs := json.loads(fetched(port, "/data/runs"))) < 3 and time.monotonic() < end:
            time.sleep(0.5)  # it reads the files after it has begun to answer
        assert [Path(run).parts[-2:] for run in sorted(runs)] == [(f"000{i}", "tensorboard") for i in range(3)]
        query = urlencode({"run": sorted(runs)[0], "tag": "val/AP", "format": "json"})
        points = json.loads(fetched(port, f"/data/plugin/scalars/scalars?{query}"))
        assert [step for _, step, _ in points] == [1, 2]


@pytest.mark.slow
def test_optuna_dashboard_shows_every_trial(folder):
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    with serving("optuna-dashboard", str(folder / "journal.log")) as port:
        assert b"<html" in fetched(port, "/dashboard/").lower()
        studies = json.loads(fetched(port, "/api/studies"))["study_summaries"]
        assert [study["study_name"] for study in studies] == ["small"]
        trials = json.loads(fetched(port, f"/api/studies/{studies[0]['study_id']}"))["trials"]
    assert [trial["state"] for trial in trials] == ["Complete"] * 3
    assert [len(trial["intermediate_values"]) for trial in trials] == [2, 2, 2]
    before = (folder / "journal.log").read_bytes()
    assert before.count(b"\n") > 3
    assert not list(folder.glob("journal.log.lock*"))
