"""A cluster of two hosts on this machine, from `ray up` to `ray down`: as a user runs it, in this order.

    make test-cluster

Needs root, Debian's openssh-server, openssh-client, rsync, curl and iproute2; about ten minutes. The two hosts are
namespaces of this machine (lab.py): their addresses, processes, homes and /tmp are their own, and they share a disk.
"""

import importlib.util
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from posesweep.files import read_json, read_json_lines

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("lab.py"))
assert spec is not None
assert spec.loader is not None
lab_module: Any = importlib.util.module_from_spec(spec)
sys.modules["lab"] = lab_module  # dataclasses look their module up
spec.loader.exec_module(lab_module)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lab_module.missing()), reason=f"this machine lacks {', '.join(lab_module.missing())}"),
]

RAY = f"{sys.prefix}/bin/ray"
PYTHON = f"{sys.prefix}/bin/python"
UP = f"cd {ROOT} && {RAY} up -y /mnt/shared/cluster.yaml"
RUNS = "--runs /mnt/shared/runs"
SWEEP_PY = f".venv/bin/python run_sweep.py /mnt/shared/small.yaml {RUNS}"
SWEEP = """
name: small
data: {synthetic: {train: 48, val: 19, seed: 1, width: 160, height: 120}}
metric: {name: val/NME}
fixed: {model: tiny, imgsz: [64, 64], epochs: 3, batch: 8}
parameters:
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
baseline: {lr0: 1.0e-3}
search: {method: random, trials: 8, seed: 3}
early_terminate: {type: none}
"""


def say(text: str) -> None:
    """A line for the note, with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Any]:
    """Two hosts; a copy of cluster.yaml with their addresses is in /mnt/shared, and a token is on the head."""
    with lab_module.lab(tmp_path_factory.mktemp("lab")) as two:
        config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        config["provider"] |= {"head_ip": two.head.address, "worker_ips": [two.worker.address]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
        installed = [line for line in config["setup_commands"] if "make install" not in line]
        config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/posesweep/.venv", *installed]
        (two.shared / "cluster.yaml").write_text(yaml.safe_dump(config))
        (two.shared / "small.yaml").write_text(SWEEP)
        two.head.run(f"RAY_AUTH_MODE=disabled {RAY} get-auth-token --generate")
        yield two


def trials_of(lab: Any, name: str) -> list[Path]:
    return sorted((lab.shared / "runs" / name / "trials").iterdir())


def hosts_of(trial: Path) -> set[str]:
    return {host for log in trial.glob("log*.txt") for host in re.findall(r"^--- .* on (\S+)$", log.read_text(), re.M)}


def nodes_alive(lab: Any) -> int:
    said = lab.head.run(f"RAY_AUTH_MODE=token timeout 60 {RAY} status", check=False)
    return int(found[1]) if (found := re.search(r"^ (\d+) local\.cluster\.node", said, re.M)) else 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "all 2 machines answer"),
        ({"worker_ips": ["10.77.0.9"]}, "10.77.0.9: cannot be reached (ssh: connect to host 10.77.0.9 port 22: "),
        ({"ssh_private_key": "/mnt/shared/strange"}, "10.77.0.2: does not let in root with /mnt/shared/strange; put"),
    ],
    ids=["well", "unreachable", "wrong key"],
)
def test_machines_are_asked_before_ray_up(lab, change, words):
    config = yaml.safe_load((lab.shared / "cluster.yaml").read_text())
    for block in ("provider", "auth"):
        config[block] |= {name: value for name, value in change.items() if name in config[block]}
    (lab.shared / "changed.yaml").write_text(yaml.safe_dump(config))
    lab.head.run("test -f /mnt/shared/strange || ssh-keygen -q -t ed25519 -N '' -f /mnt/shared/strange")
    said = lab.head.run(f"cd {ROOT} && {PYTHON} -m posesweep hosts /mnt/shared/changed.yaml", check=False)
    say(said.strip().splitlines()[-1])
    assert words in said


def test_ray_up(lab):
    begun = time.monotonic()
    lab.head.run(UP, timeout_s=400)
    say(f"ray up -y cluster.yaml: {time.monotonic() - begun:.0f} s")
    wait_for(lambda: nodes_alive(lab) == 2, 240, "both nodes in the cluster")
    say(f"both nodes there: {time.monotonic() - begun:.0f} s after ray up began")
    assert (lab.head.home / "posesweep" / ".ray_address").read_text() == f"{lab.head.address}:6379"


def test_what_is_wrong_with_a_node_is_said_before_the_first_trial(lab):
    changed = lab.worker.home / "posesweep" / "trainables" / "ema.py"
    before = changed.read_text()
    changed.write_text(before + "# older\n")
    said = lab.head.run(f"cd posesweep && {SWEEP_PY} name=wrong; echo exit $?", timeout_s=240)
    changed.write_text(before)
    assert "posesweep-worker (10.77.0.2): its copy of PoseSweep is not the driver's; repeat `ray up" in said
    assert "exit 2" in said
    said = lab.head.run(f"cd posesweep && {SWEEP_PY.replace(RUNS, '--runs /tmp/runs')}; echo exit $?", timeout_s=240)
    assert "posesweep-worker (10.77.0.2): does not see the sweep folder /tmp/runs/small" in said
    assert "trial 0" not in said
    say("older code on the worker, and a folder it does not see: refused in a sentence each")


def test_trials_run_on_both_hosts_of_the_cluster_that_the_sweep_joins_by_itself(lab):
    # long enough for the worker to have its processes up before the head has trained all
    begun = time.monotonic()
    said = lab.head.run(f"cd posesweep && {SWEEP_PY} name=both epochs=20", timeout_s=800)
    say(f"python run_sweep.py on the head: {time.monotonic() - begun:.0f} s\n{said}")
    hosts = [hosts_of(trial) for trial in trials_of(lab, "both")]
    assert len(hosts) == 8
    assert set.union(*hosts) == {"posesweep-head", "posesweep-worker"}
    assert {read_json(trial / "status.json")["state"] for trial in trials_of(lab, "both")} == {"finished"}


def test_one_trial_on_two_hosts(lab):
    begun = time.monotonic()
    asked = "name=ddp resources.workers_per_trial=2 resources.placement=strict_spread search.trials=1"
    lab.head.run(f"cd posesweep && {SWEEP_PY} {asked}", timeout_s=800)
    (trial,) = trials_of(lab, "ddp")
    status = read_json(trial / "status.json")
    say(f"a trial of two workers, one on each host: {time.monotonic() - begun:.0f} s, {hosts_of(trial)}")
    assert (status["state"], status["workers"]) == ("finished", 2)
    assert hosts_of(trial) == {"posesweep-head", "posesweep-worker"}
    with np.load(trial / "evidence.npz") as evidence:
        assert len(set(evidence["id"].tolist())) == len(evidence["id"]) >= 19
    assert [row["epoch"] for row in read_json_lines(trial / "metrics.jsonl")] == [1, 2, 3]
    for host in (lab.head, lab.worker):  # each built its own
        assert list((host.home / ".cache" / "posesweep").glob("crops-*"))


REFUSED = {
    "ray.init": (
        "worker",
        f"{PYTHON} -c 'import ray; ray.init(address=\"10.77.0.1:6379\")'",
        "ConnectionError: Failed to connect to Ray cluster",
    ),
    "ray start": ("worker", f"{RAY} start --address=10.77.0.1:6379", "InvalidAuthToken"),
    "dashboard": ("head", "curl -s http://127.0.0.1:8265/api/version", "Unauthorized: Missing authentication token"),
    "job server": ("head", f"{RAY} job submit --address http://127.0.0.1:8265 -- true", "Authentication required"),
}


@pytest.mark.parametrize("door", REFUSED)
def test_nobody_comes_in_without_the_token(lab, door):
    host, line, words = REFUSED[door]
    stranger = "export HOME=/mnt/stranger RAY_AUTH_MODE=disabled; mkdir -p $HOME; cd $HOME"
    said = getattr(lab, host).run(f"{stranger} && timeout 120 {line}", check=False)
    say(f"without the token, {door}: {said.strip().splitlines()[-1][:160]}")
    assert words in said


def test_the_dashboard_is_not_on_the_network(lab):
    said = lab.worker.run("curl -s -m 5 -o /dev/null -w '%{http_code}' http://10.77.0.1:8265/", check=False)
    assert said == "000"


def test_a_sweep_with_another_token_is_refused_in_a_sentence(lab):
    said = lab.head.run(f"cd posesweep && RAY_AUTH_TOKEN=another {SWEEP_PY}; echo exit $?", timeout_s=240)
    assert "does not let this machine in" in said
    assert "exit 2" in said


def test_a_sweep_is_submitted_as_a_job(lab):
    job = f"sh -c 'cd ~/posesweep && {SWEEP_PY} name=job search.trials=1'"
    said = lab.head.run(f"RAY_AUTH_MODE=token {RAY} job submit --address http://127.0.0.1:8265 -- {job}", timeout_s=600)
    say("ray job submit: " + said.strip().splitlines()[-2])
    assert "1 of 1 done" in said
    assert "succeeded" in said


def test_a_cut_cable_costs_at_most_the_epoch_in_flight(lab):
    asked = "name=cut fixed.epochs=60 search.trials=8"
    sweep = lab.head.start(f"cd posesweep && {SWEEP_PY} {asked}")
    folder = lab.shared / "runs" / "cut" / "trials"

    def on_worker() -> list[Path]:
        trials = folder.iterdir() if folder.is_dir() else []
        return [
            t for t in trials if "posesweep-worker" in hosts_of(t) and len(read_json_lines(t / "metrics.jsonl")) > 2
        ]

    wait_for(on_worker, 240, "a trial on the worker")
    lost = on_worker()
    lab.cut()
    cut_s = time.monotonic()
    epochs = {trial.name: len(read_json_lines(trial / "metrics.jsonl")) for trial in lost}
    say(f"cable cut; on the worker then, with their epochs: {epochs}")
    time.sleep(90)
    lab.heal()
    say(f"healed after {time.monotonic() - cut_s:.0f} s")
    wait_for(lambda: nodes_alive(lab) == 2, 240, "the worker back in the cluster")
    say(f"the worker is back {time.monotonic() - cut_s:.0f} s after the cut")
    said, _ = sweep.communicate(timeout=800)
    say(f"the sweep ended {time.monotonic() - cut_s:.0f} s after the cut")
    print("\n".join(line for line in said.splitlines() if re.match(r"trial \d+: (starts|goes on|finished|its)", line)))
    assert sweep.returncode == 0, said
    trials = trials_of(lab, "cut")
    assert len(trials) == 8
    for trial in trials:
        rows = [row["epoch"] for row in read_json_lines(trial / "metrics.jsonl")]
        assert rows == list(range(1, 61)), f"{trial.name}: an epoch is missing or there twice"
    for trial in lost:
        assert f"goes on after epoch {epochs[trial.name]}" in said or f"after epoch {epochs[trial.name] + 1}" in said


def test_ray_down(lab):
    begun = time.monotonic()
    lab.head.run(f"cd {ROOT} && {RAY} down -y /mnt/shared/cluster.yaml", timeout_s=200)
    say(f"ray down -y cluster.yaml: {time.monotonic() - begun:.0f} s")
    running = "ps ax | grep -cE '[r]aylet/raylet|[g]cs_server'"
    assert lab.head.run(running, check=False).strip() == "0"
    wait_for(lambda: lab.worker.run(running, check=False).strip() == "0", 150, "Ray gone from the worker")
    say(f"Ray gone from both hosts {time.monotonic() - begun:.0f} s after ray down began")


def test_a_sweep_of_a_cluster_that_is_down_is_told_so(lab):
    said = lab.head.run(f"cd posesweep && {SWEEP_PY} name=late; echo exit $?", timeout_s=120)
    assert "no cluster answers at 10.77.0.1:6379" in said
    assert "exit 2" in said
    shutil.rmtree(lab.shared / "runs" / "late")
