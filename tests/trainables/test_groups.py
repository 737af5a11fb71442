"""Groups of workers on several machines: the interface they speak over, and the end of one that hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posesweep.errors import PoseSweepError
from posesweep.files import write_json
from posesweep.trainables import groups
from posesweep.trainables.context import SupersededError, begin_attempt
from posesweep.trainables.worker import why_it_failed, write_hung

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
    write_json(tmp_path / f"refused.{attempt}.json", {"reason": "batch: too large"})
    found = why_it_failed(tmp_path, attempt)
    assert isinstance(found, PoseSweepError)
    assert str(found) == "batch: too large"
    begin_attempt(tmp_path)
    assert isinstance(why_it_failed(tmp_path, attempt), SupersededError)
