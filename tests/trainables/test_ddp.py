"""Two workers with batch 8 learn what one learns with batch 16, and score every sample once."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from posesweep.files import read_json_lines

WORKER = Path(__file__).with_name("ddp_worker.py")
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(folder: Path, data: dict, world: int, **settings) -> dict:
    folder.mkdir()
    values = {"data": data, "model": "tiny", "imgsz": [64, 64], "batch": 16, "epochs": 5, "lr0": 1e-3, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump({**values, "workers": world}))
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, WORKER, str(rank), str(world), str(port), folder, folder / "config.yaml"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return {
        "losses": json.loads((folder / "losses.json").read_text()),
        "rows": read_json_lines(folder / "metrics.jsonl"),
        "ids": np.load(folder / "evidence.npz")["id"],
    }


@pytest.fixture(scope="module")
def data() -> dict:
    return {"synthetic": {"train": 32, "val": 19, "seed": 1, "width": 160, "height": 120}}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "lr0": 1e-2},
        {"optimizer": "sgd", "accumulate": 2},
        pytest.param(
            {"optimizer": "sgd", "lr0": 1e-2, "loss": "mse + 0.01 wing", "loss_balance": "learned"},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_two_workers_with_half_the_batch_equal_one(tmp_path, data, settings):
    one = train(tmp_path / "one", data, 1, **settings)
    two = train(tmp_path / "two", data, 2, **settings)
    assert len(one["losses"]) >= 10
    if "accumulate" not in settings:  # parts of a batch are normalised by themselves, and are other parts
        np.testing.assert_allclose(two["losses"][:10], one["losses"][:10], rtol=1e-4, atol=0)
    assert sorted(one["ids"]) == sorted(two["ids"])
    assert len(set(two["ids"].tolist())) == len(two["ids"])
    assert [row["step"] for row in two["rows"]] == [row["step"] for row in one["rows"]]
