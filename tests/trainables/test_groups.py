"""Groups of workers on several machines: the interface they speak over, and the end of one that hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from posesweep.errors import DataError, PoseSweepError, StorageError
from posesweep.trainables import groups, worker
from posesweep.trainables.context import Context, SupersededError, begin_attempt
from posesweep.trainables.worker import train_in_ray_train_worker, why_it_failed, write_hung

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_interface_that_carries_an_address():
    assert groups.interface_of("127.0.0.1") == "lo"
    assert groups.interface_of("203.0.113.77") is None  # nobody's: RFC 5737


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_group_speaks_over_the_interface_of_its_machine_unless_the_user_named_one(monkeypatch):
    monkeypatch.setattr(groups.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    groups.use_own_interface()
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")


SILENT = """
import sys, time
from posesweep.trainables.context import ended_when_silent
with ended_when_silent(0.4, lambda: print("last words", flush=True)) as heard:
    for _ in range(8):
        time.sleep(0.1)
        heard()
    print("still here", flush=True)
    time.sleep(20)
print("too late", flush=True)
"""


def test_a_worker_that_is_silent_says_where_it_was_and_ends():
    done = subprocess.run([sys.executable, "-c", SILENT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["still here", "last words"]
    assert 'File "<string>"' in done.stderr  # the line that hung


def test_why_a_group_failed(tmp_path):
    attempt = begin_attempt(tmp_path)
    assert why_it_failed(tmp_path, attempt) is None
    write_hung(tmp_path, attempt, 90.0)
    found = why_it_failed(tmp_path, attempt)
    assert isinstance(found, TimeoutError)
    assert str(found).startswith("it hung: no worker reported an epoch for 1.5 minutes (failure.stall_minutes)")
    begin_attempt(tmp_path)
    assert isinstance(why_it_failed(tmp_path, attempt), SupersededError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(DataError("a.json: has no objects"), PoseSweepError), (StorageError("the disk is full"), StorageError)],
)
def test_a_group_that_cannot_save_halts_the_sweep_and_one_that_is_wrong_fails(tmp_path, monkeypatch, error, kind):
    """A trial marked as failed would not go on when there is room again."""
    attempt = begin_attempt(tmp_path)

    def refuse(config, context):
        raise error

    monkeypatch.setattr(worker, "in_ray_train_worker", lambda *_, **__: Context(tmp_path, print, torch.device("cpu")))
    monkeypatch.setattr(worker, "run_trial", refuse)
    values = {"data": {"train": "a.json"}, "workers": 2, "batch": 2}
    with pytest.raises(type(error)):
        train_in_ray_train_worker(values, tmp_path, attempt, 60.0)
    found = why_it_failed(tmp_path, attempt)
    assert type(found) is kind
    assert str(found) == str(error)
