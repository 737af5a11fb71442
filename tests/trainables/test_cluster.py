"""Which machines a sweep runs on, how trials share them, and what stands against it."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from posesweep.errors import ConfigError, SweepError
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables import cluster, preflight, sharing
from posesweep.trainables.cluster import Node, Slots, fit_into, plan_slots, ray_beside, room_of
from posesweep.trainables.preflight import Answer, Question, answer, mistakes

ROOT = Path(__file__).resolve().parents[2]
TEXT = "name: s\ndata: {train: a.json}\nparameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}\n"


def sweep_of(tmp_path: Path, resources: str):
    (tmp_path / "s.yaml").write_text(f"{TEXT}resources: {resources}\n")
    return read_sweep(tmp_path / "s.yaml")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "ADDRESS_FILE", tmp_path / ".ray_address")


# --- the arithmetic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "nodes", "trials"),
    [
        (Slots(1, 4, 0.0, 1), [Node(2), Node(2)], 0),  # four CPUs, but on no one node
        (Slots(1, 2, 0.0, 1), [Node(3), Node(3)], 2),  # not three: a CPU is left over on each
        (Slots(3, 1, 0.0, 1), [Node(2), Node(2)], 1),  # one group over two nodes
        (Slots(3, 1, 0.0, 1, "strict_pack"), [Node(2), Node(2)], 0),
        (Slots(3, 1, 0.0, 1, "strict_pack"), [Node(4), Node(7)], 3),
        (Slots(2, 1, 0.0, 1, "strict_spread"), [Node(8)], 0),
        (Slots(2, 1, 0.0, 1, "strict_spread"), [Node(8), Node(3)], 3),
        (Slots(2, 1, 0.0, 1, "strict_spread"), [Node(2), Node(1), Node(1)], 2),
        (Slots(1, 1, 0.4, 1), [Node(16, 2)], 4),  # not five: a share lies on one GPU
        (Slots(1, 1, 1 / 3, 1), [Node(16, 1)], 3),
        (Slots(1, 1, 2.0, 1), [Node(16, 3), Node(16, 1)], 1),
        (Slots(1, 4, 1.0, 1), [Node(4, 0), Node(8, 4)], 2),  # the head has no GPU, the other too few CPUs
        (Slots(1, 1, 0.0, 1), [], 0),
    ],
    ids=str,
)
def test_trials_that_fit_node_by_node(slots, nodes, trials):
    assert fit_into(slots, nodes) == trials


def test_a_worker_that_fits_no_single_node_is_refused(tmp_path):
    with pytest.raises(SweepError) as refused:
        plan_slots(sweep_of(tmp_path, "{cpus_per_worker: 4}"), [Node(2), Node(2)])
    assert str(refused.value) == (
        "resources: a trial of 1 worker with 4 CPUs and 0 GPUs each needs 4 CPUs and 0 GPUs, but there are 2 nodes "
        "with 2, 2 CPUs and 0, 0 GPUs, with room for 0 such workers; lower workers_per_trial, cpus_per_worker or "
        "gpus_per_worker"
    )
    asked = "{workers_per_trial: 3, cpus_per_worker: 1, placement: strict_spread}"
    with pytest.raises(SweepError, match="needs 3 CPUs and 0 GPUs on 3 nodes, but"):
        plan_slots(sweep_of(tmp_path, asked), [Node(8), Node(8)])


def test_nodes_that_an_autoscaler_would_start_count_for_what_is_possible(tmp_path):
    asked = sweep_of(tmp_path, "{}")
    slots = plan_slots(asked, [Node(0)], [Node(8, 1)] * 3)
    assert (slots.gpus, slots.concurrent, slots.most) == (1.0, 1, 3)
    with pytest.raises(SweepError, match=r"concurrent: 4 trials .* do not fit into 4 nodes .* at most 3"):
        plan_slots(sweep_of(tmp_path, "{concurrent: 4}"), [Node(0)], [Node(8, 1)] * 3)


def test_what_may_come_is_read_where_it_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "BOOTSTRAP_FILE", tmp_path / "bootstrap.yaml")
    assert cluster.expected_nodes([]) == []  # this machine alone
    cluster.ADDRESS_FILE.write_text("10.0.0.1:6379")
    assert cluster.expected_nodes([]) == []  # a cluster that is what it is
    types = {"head": {"resources": {"CPU": 4}}, "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 9}}
    (tmp_path / "bootstrap.yaml").write_text(
        json.dumps({"head_node_type": "head", "max_workers": 3, "available_node_types": types})
    )
    assert cluster.expected_nodes([Node(4, 0), Node(8, 1)]) == [Node(8, 1)] * 2  # one of three is there
    monkeypatch.setenv("POSESWEEP_EXPECTS", '[{"count": 2, "cpus": 16}]')
    assert cluster.expected_nodes([]) == [Node(16, 0)] * 2
    monkeypatch.setenv("POSESWEEP_EXPECTS", "8 nodes")
    with pytest.raises(SweepError, match="POSESWEEP_EXPECTS: '8 nodes' must be JSON like"):
        cluster.expected_nodes([])


def test_a_gpu_is_shared_as_its_memory_allows():
    assert sharing.trials_per_gpu(peak_gib=5.4, total_gib=80.0) == 12  # 0.9 * 80 / 6.0
    assert sharing.trials_per_gpu(peak_gib=70.0, total_gib=80.0) == 1
    assert sharing.trials_per_gpu(peak_gib=90.0, total_gib=80.0) == 1


def test_the_measured_share_becomes_the_fraction_a_trial_holds(tmp_path, monkeypatch, capsys):
    class Apart:
        def __init__(self, *_):
            pass

        __enter__ = __exit__ = lambda self, *_: self

        def submit(self, function, sweep):
            assert function is sharing.measure
            return type("Done", (), {"result": lambda self: (8.0, 24.0)})()

    monkeypatch.setattr(sharing, "ProcessPoolExecutor", Apart)
    monkeypatch.setattr(sharing.torch.cuda, "is_available", lambda: True)
    measured = sharing.with_measured_share(sweep_of(tmp_path, "{trials_per_gpu: auto}"))
    assert "the baseline's step takes 8.0 of 24 GiB: 2 trials share a GPU" in capsys.readouterr().out
    assert plan_slots(measured, [Node(16, 2)]) == Slots(1, 4, 0.5, 4)


def test_a_share_cannot_be_measured_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="trials_per_gpu: auto is measured on a GPU of this machine, which has none"):
        sharing.with_measured_share(sweep_of(tmp_path, "{trials_per_gpu: auto}"))


@pytest.mark.parametrize("other", ["gpus_per_worker: 0.5", "workers_per_trial: 2"])
def test_two_ways_to_say_a_share_are_refused(tmp_path, other):
    with pytest.raises(ConfigError, match=r"has trials_per_gpu and .*keep one of them"):
        sweep_of(tmp_path, f"{{trials_per_gpu: 2, {other}}}")


def test_the_number_of_trials_follows_the_nodes(monkeypatch):
    alive, now, sent = [Node(2)], [0.0], []
    monkeypatch.setattr(cluster, "nodes", lambda: alive)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cluster.Scouts, "send", lambda self, count: sent.append(count))
    room = room_of(Slots(1, 1, 0.0, 2, follows=True, most=6), left=lambda: 5)
    assert room() == 2
    alive.append(Node(2))
    assert room() == 2  # it looks every two seconds
    now[0] = 3.0
    assert room() == 4
    alive.clear()
    now[0] = 6.0
    assert room() == 0
    assert sent == [3, 1, 5]  # what an autoscaler is shown: five trials are left, and have room for so many fewer
    assert room_of(Slots(1, 1, 0.0, 3), left=lambda: 9)() == 3


# --- which cluster ---------------------------------------------------------------------------------------------------


def test_a_cluster_is_joined_only_when_it_is_named(monkeypatch):
    assert cluster.cluster_address() is None
    cluster.ADDRESS_FILE.write_text("10.0.0.1:6379")
    assert cluster.cluster_address() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cluster.cluster_address() == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster.cluster_address() is None


def test_a_cluster_that_is_gone_is_told_in_a_second(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"  # nobody listens
        cluster.ADDRESS_FILE.write_text(address)
        with pytest.raises(
            SweepError, match=rf"no cluster answers at {address} \(.*\.ray_address\): .*refused; start it"
        ):
            cluster._check_answers(address)


def test_a_refused_token_and_a_version_mismatch_are_sentences():
    from ray.exceptions import AuthenticationError

    def raising(error):
        def init():
            raise error

        return init

    with pytest.raises(SweepError, match=r"the cluster at a:1 does not let this machine in: .*; copy the head's"):
        cluster._join(raising(AuthenticationError("Token is missing")), "a:1")
    with pytest.raises(SweepError, match=r"the cluster at a:1 does not let this machine in: Failed to connect"):
        cluster._join(raising(ConnectionError("Failed to connect to Ray cluster at a:1")), "a:1")
    with pytest.raises(SweepError, match="RAY_ADDRESS is auto, and no Ray runs on this machine"):
        cluster._join(raising(ConnectionError("Could not find any running Ray instance.")), "auto")
    with pytest.raises(SweepError, match="this Python or Ray is not the cluster's: Version mismatch: Ray: 1"):
        cluster._join(raising(RuntimeError("Version mismatch: Ray: 1\n")), "a:1")
    with pytest.raises(RuntimeError, match="something else"):
        cluster._join(raising(RuntimeError("something else")), "a:1")


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch, tmp_path):
    def raising(error):
        def init():
            raise error

        return init

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    died = RuntimeError(
        "Failed to start GCS.  Last 1 lines of error files:\nE no space\n.Please check a.out for details"
    )
    with pytest.raises(SweepError) as said:
        cluster._begin(raising(died))
    assert str(said.value) == (
        f"Ray could not start on this machine: Failed to start GCS; its logs in {tmp_path}/ray/session_latest/logs say "
        "more (gcs_server.out first); put that right and repeat the command"
    )
    with pytest.raises(SweepError, match="Ray did not start within 30 s, because this machine is too busy"):
        cluster._begin(raising(Exception("The current node timed out during startup. This could happen because")))
    with pytest.raises(TypeError):
        cluster._begin(raising(TypeError("a mistake of ours")))


def test_processes_of_trials_know_their_own_ray():
    """There may be others on the machine, and Ray's helpers would ask whichever they find."""
    assert cluster._told("10.0.0.1:6379")["env_vars"]["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert "RAY_ADDRESS" not in cluster._told("auto")["env_vars"]


LISTENING = """
import sys, time
from posesweep.trainables import cluster
cluster.start_ray(1, 0, dashboard=True)
import ray, os
from ray._raylet import AuthenticationMode, get_authentication_mode
import psutil  # Ray's own copy
@ray.remote
def work():
    return 1
ray.get(work.remote())
me = psutil.Process()
found = []
for process in [me, *me.children(recursive=True)]:
    try:
        found += [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
    except psutil.NoSuchProcess:
        pass
print("listening", len(found), sorted(set(found)), get_authentication_mode() == AuthenticationMode.TOKEN)
ray.shutdown()
"""


@pytest.mark.slow
def test_a_sweep_on_one_machine_listens_on_loopback_only_and_asks_for_a_token():
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    _, count, *addresses, mode = next(line for line in done.stdout.splitlines() if "listening" in line).split()
    assert int(count) >= 6  # GCS, raylet, dashboard, agents, driver, worker
    assert set("".join(addresses).strip("[]").replace("'", "").split(",")) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert mode == "True"


# --- before the first trial ------------------------------------------------------------------------------------------


QUESTION = Question("/shared/runs/s", "abc", ("/data/train.json", "/data/images"))
HERE = Answer("head", {"Python": "3.11.7", "torch": "2.15.0"}, "c0de", True, "", ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        (
            {"versions": {"Python": "3.11.7", "torch": "2.11.0"}},
            ["other versions than on the driver's machine: torch 2.11.0 (here 2.15.0); run `make install` on both"],
        ),
        ({"code": "older"}, ["its copy of PoseSweep is not the driver's; repeat `ray up cluster.yaml`"]),
        ({"code": ""}, ["has no PoseSweep; `ray up cluster.yaml` brings it"]),
        (
            {"sees_folder": False},
            [
                "does not see the sweep folder /shared/runs/s; put it on a disk that every node mounts under the same "
                "path (--runs)"
            ],
        ),
        (
            {"writes_folder": "Read-only file system"},
            ["cannot write to the sweep folder /shared/runs/s: Read-only file system"],
        ),
        (
            {"unreadable": ("/data/images",)},
            ["cannot read /data/images; every node needs the data under the same path"],
        ),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_node(change, said):
    there = Answer(**{**vars(HERE), "host": "worker", **change})
    found = mistakes(HERE, {"10.0.0.1": HERE, "10.0.0.2": there}, QUESTION)
    assert found == [f"worker (10.0.0.2): {line}" for line in said]


def test_a_node_that_does_not_answer_is_named():
    assert mistakes(HERE, {"10.0.0.2": "no answer: it died"}, QUESTION) == ["10.0.0.2: no answer: it died"]


def test_a_node_is_asked_for_what_a_trial_reads(tmp_path, monkeypatch):
    """Its skeletons and every starting point too; the test split is only read where the sweep ends."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("""
name: s
data: {train: a.json, test: t.json, test_images: t, skeleton: mouse.yaml}
fixed: {weights_skeleton: horse26}
parameters: {weights: {values: [x/best.safetensors, y.safetensors]}}
""")
    asked = preflight.data_paths(read_sweep(Path("s.yaml")))
    names = ["a.json", "x/best.safetensors", "y.safetensors", "mouse.yaml"]
    assert asked == tuple(str(tmp_path / name) for name in names)


def test_all_mistakes_are_said_at_once_and_nothing_is_left_behind(tmp_path, monkeypatch):
    def elsewhere(question):  # a node whose /shared is another disk
        found = answer(Question(str(tmp_path / "elsewhere"), question.token, ("/nowhere/a.json",)), "w")
        return {"10.0.0.2": found, "10.0.0.3": answer(question, "v")}

    monkeypatch.setattr(preflight, "ask_all", elsewhere)
    folder = tmp_path / "runs"
    folder.mkdir()
    sweep = sweep_of(tmp_path, "{}")
    with pytest.raises(SweepError) as refused:
        preflight.check_nodes(sweep, folder)
    lines = str(refused.value).splitlines()
    assert lines[0] == "the cluster cannot run this sweep:"
    assert "does not see the sweep folder" in lines[1]
    assert "cannot read /nowhere/a.json" in lines[2]
    assert "cannot read" in lines[3]  # 10.0.0.3: the sweep's own data are not there
    assert not list(folder.iterdir())


def test_an_empty_folder_is_not_the_data(tmp_path):
    (tmp_path / "images").mkdir()
    asked = Question(str(tmp_path), "abc", (str(tmp_path / "images"),))
    assert answer(asked).unreadable == (str(tmp_path / "images"),)
    (tmp_path / "images" / "a.png").touch()
    assert answer(asked).unreadable == ()


def test_the_hash_sees_a_changed_line_and_not_the_place(tmp_path):
    code = "from posesweep.trainables.preflight import code_hash; print(code_hash())"

    def hash_of(root: Path) -> str:
        env = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True).stdout

    copy = tmp_path / "copy"
    for name in ("posesweep", "search_spaces", "datasets", "trainables"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / "run_sweep.py").touch()
    ours = hash_of(ROOT)
    assert len(ours.strip()) == 64
    assert hash_of(copy) == ours
    (copy / "trainables" / "ema.py").write_text((ROOT / "trainables" / "ema.py").read_text() + "# newer\n")
    assert hash_of(copy) != ours


def test_machines_that_have_not_joined_are_named(tmp_path):
    file = tmp_path / "bootstrap.yaml"
    assert preflight.machines_of_cluster_file(file) == set()
    file.write_text('{"provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]}}')
    assert preflight.machines_of_cluster_file(file) == set()  # of a cluster that this sweep does not join
    cluster.ADDRESS_FILE.write_text("10.0.0.1:6379")
    assert preflight.machines_of_cluster_file(file) == {"10.0.0.1", "10.0.0.2"}
    file.write_text('{"provider": {"type": "aws"}}')
    assert preflight.machines_of_cluster_file(file) == set()


def test_what_refers_to_ray_is_gone_before_ray_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference dropped while Ray leaves ends the process: what lies in cycles is collected before."""
    monkeypatch.setattr(cluster, "set_environment", lambda: None)
    import ray

    happened = []

    class Reference:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            happened.append("dropped")

    monkeypatch.setattr(cluster, "start_ray", lambda *args, **more: None)
    monkeypatch.setattr(ray, "shutdown", lambda: happened.append("left"))
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as aside, ray_beside(Slots(1, 1, 0, 1), aside):
            Reference()
            assert happened == []
    finally:
        gc.enable()
    assert happened == ["dropped", "left"]
