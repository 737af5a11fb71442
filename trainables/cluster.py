"""The machines a sweep runs on: what a trial holds of them, how many run at a time, Ray's start and end.

Which cluster: the one that RAY_ADDRESS names; else the one whose address stands in `.ray_address` of this checkout,
where the head's `ray start` of cluster.yaml leaves it; else this machine alone, with a Ray of its own that listens on
loopback only and ends with the sweep. A Ray that somebody else runs on this machine is never joined by accident.
RAY_ADDRESS=local is this machine alone, whatever stands in the file.
"""

import gc
import json
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from posesweep.errors import SweepError
from posesweep.search_spaces.space import Sweep

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")  # on the head: the cluster file as `ray up` resolved it
ADDRESS_FILE = Path(__file__).resolve().parents[1] / ".ray_address"
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own display; the old one is off with verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep folder is the record, not Tune's files
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they stand in the log and the status of their trial
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**6),
    # for a trial that was stopped to close its files; Tune gives the next one up if it needs longer, and says nothing
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # workers import them while the data are prepared
    "RAY_preload_python_modules": ",".join(
        [
            *("torch", "torch._dynamo", "pandas", "ray.tune"),  # every optimizer of torch imports dynamo
            *("posesweep.trainables.worker", "posesweep.trainables.tasks.topdown"),
        ]
    ),
}
TRAIN_SETTINGS = {  # read where a trial runs
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports of Ray Train workers would wait two seconds
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a thread less per Ray Train group
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's servers listen on all interfaces otherwise
OBJECT_STORE_BYTES = 100 * 2**20  # trials exchange files and small reports only
LOOK_AGAIN_S = 2.0  # how old a count of the cluster's nodes may be
ANSWER_S = 5.0  # how long the cluster's head may take to accept a connection


@dataclass(frozen=True)
class Node:
    """What one machine offers to trials."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Slots:
    """What one trial holds, and how many run at a time."""

    workers: int
    cpus: int  # per worker
    gpus: float  # per worker
    concurrent: int
    placement: str = "pack"
    follows: bool = False  # whether more or fewer run at a time as nodes come and go
    most: int = 0  # how many would run at once if the cluster's autoscaler started all it may

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What the workers hold, one by one."""
        return [{"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}] * self.workers

    def at_most(self, trainings: int) -> "Slots":
        """What is used of them where there are so few trainings."""
        return replace(self, concurrent=min(self.concurrent, trainings))


# --- what fits -------------------------------------------------------------------------------------------------------


def plan_slots(sweep: Sweep, nodes: Sequence[Node], expected: Sequence[Node] = ()) -> Slots:
    """How trials share the machines. SweepError with the arithmetic when not even one fits.

    `expected` are nodes that the cluster would start when there is work for them.
    """
    asked = sweep.resources
    gpus_each = _gpus_each(sweep, [*nodes, *expected])
    cpus_each = _cpus_each(sweep, [*nodes, *expected], gpus_each)
    slots = Slots(asked.workers_per_trial, cpus_each, gpus_each, 1, asked.placement)
    fitting, possible = fit_into(slots, nodes), fit_into(slots, [*nodes, *expected])
    if possible < 1:
        raise SweepError(_does_not_fit(slots, [*nodes, *expected]))
    if asked.concurrent != "auto" and asked.concurrent > possible:
        raise SweepError(
            f"resources.concurrent: {asked.concurrent} trials of {slots.workers * cpus_each} CPUs and "
            f"{slots.workers * gpus_each:g} GPUs do not fit into {in_words([*nodes, *expected])}; at most {possible}, "
            "or leave it auto"
        )
    concurrent = max(fitting, 1) if asked.concurrent == "auto" else asked.concurrent
    return Slots(
        slots.workers,
        cpus_each,
        gpus_each,
        concurrent,
        asked.placement,
        follows=asked.concurrent == "auto" and cluster_address() is not None,
        most=possible if expected else 0,
    )


def _gpus_each(sweep: Sweep, nodes: Sequence[Node]) -> float:
    asked = sweep.resources
    if asked.trials_per_gpu is not None:
        return 1.0 / int(asked.trials_per_gpu)  # auto was measured before
    if asked.gpus_per_worker == "auto":
        return 1.0 if any(node.gpus for node in nodes) else 0.0
    return float(asked.gpus_per_worker)


def _cpus_each(sweep: Sweep, nodes: Sequence[Node], gpus_each: float) -> int:
    """On CPUs many one-thread trials beat few wide ones; a GPU wants its batches made by several threads."""
    if sweep.resources.cpus_per_worker != "auto":
        return sweep.resources.cpus_per_worker
    with_gpus = [node for node in nodes if node.gpus] if gpus_each else []
    shares = [int(node.cpus * gpus_each // node.gpus) for node in with_gpus]
    return max(1, min([4, *shares])) if gpus_each else 1


def fit_into(slots: Slots, nodes: Sequence[Node]) -> int:
    """How many trials run at once on these nodes. A worker is on one node; `placement` says where its fellows are."""
    rooms = [_workers_on(slots, node) for node in nodes]
    if slots.placement == "strict_pack":
        return sum(room // slots.workers for room in rooms)
    if slots.placement == "strict_spread":
        trials = 0
        while sum(min(room, trials + 1) for room in rooms) >= slots.workers * (trials + 1):
            trials += 1
        return trials
    return sum(rooms) // slots.workers


def _workers_on(slots: Slots, node: Node) -> int:
    by_cpus = int(node.cpus // slots.cpus)
    if not slots.gpus:
        return by_cpus
    if slots.gpus >= 1:
        return min(by_cpus, int(node.gpus // slots.gpus))
    return min(by_cpus, int(node.gpus) * int(1 / slots.gpus + 1e-9))  # a share lies on one GPU


def _does_not_fit(slots: Slots, nodes: Sequence[Node]) -> str:
    workers = "1 worker" if slots.workers == 1 else f"{slots.workers} workers"
    totals = f"needs {slots.workers * slots.cpus} CPUs and {slots.workers * slots.gpus:g} GPUs"
    if slots.placement == "strict_pack":
        totals += " on one node"
    if slots.placement == "strict_spread":
        totals += f" on {slots.workers} nodes"
    return (
        f"resources: a trial of {workers} with {slots.cpus} CPUs and {slots.gpus:g} GPUs each {totals}, but there are "
        f"{in_words(nodes)}, with room for {sum(_workers_on(slots, node) for node in nodes)} such workers; lower "
        "workers_per_trial, cpus_per_worker or gpus_per_worker"
    )


def in_words(nodes: Sequence[Node]) -> str:
    """'64 CPUs and 8 GPUs' of one node, '2 nodes with 4, 8 CPUs and 0, 1 GPUs' of several."""
    cpus = ", ".join(f"{node.cpus:g}" for node in nodes)
    gpus = ", ".join(f"{node.gpus:g}" for node in nodes)
    offer = f"{cpus or 0} CPUs and {gpus or 0} GPUs"
    return offer if len(nodes) < 2 else f"{len(nodes)} nodes with {offer}"


# --- which machines --------------------------------------------------------------------------------------------------


def cluster_address() -> str | None:
    """'host:port' or 'auto' of the cluster to join; None for this machine alone. See the module."""
    given = os.environ.get("RAY_ADDRESS", "").strip()
    if given:
        return None if given == "local" else given
    return ADDRESS_FILE.read_text(encoding="utf-8").strip() or None if ADDRESS_FILE.is_file() else None


def nodes() -> list[Node]:
    """The machines that run trials now: the cluster's, which is joined by this, or this one."""
    if cluster_address() is None:
        return [Node(len(os.sched_getaffinity(0)), torch.cuda.device_count())]
    start_ray(0, 0, dashboard=False)
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(found.get("CPU", 0), found.get("GPU", 0)) for found in alive]


def expected_nodes(alive: Sequence[Node]) -> list[Node]:
    """Nodes that the cluster's autoscaler would start beside those that are `alive` when there is work for them.

    Ray does not say, so they are read where they are written: in $POSESWEEP_EXPECTS, as JSON like
    [{"count": 8, "cpus": 8, "gpus": 1}] (KubeRay), or on the head in the file that `ray up` left there. SweepError for
    text that is not that.
    """
    if cluster_address() is None:
        return []
    given, file = os.environ.get("POSESWEEP_EXPECTS"), BOOTSTRAP_FILE.expanduser()
    if given is not None:
        allowed = _groups_from(given)
    elif file.is_file():
        allowed = node_types_of(yaml.safe_load(file.read_text(encoding="utf-8")))
    else:
        allowed = Counter()
    return list((allowed - Counter(alive)).elements())


def _groups_from(text: str) -> Counter[Node]:
    try:
        return Counter({Node(group["cpus"], group.get("gpus", 0)): group["count"] for group in json.loads(text)})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SweepError(
            f"POSESWEEP_EXPECTS: {text!r} must be JSON like "
            '[{"count": 8, "cpus": 8, "gpus": 1}], the nodes that the autoscaler may start'
        ) from error


def node_types_of(config: dict[str, Any]) -> Counter[Node]:
    """The worker nodes that a cluster file lets the autoscaler start; none where it does not say what they have."""
    found: Counter[Node] = Counter()
    for name, node_type in config.get("available_node_types", {}).items():
        resources = node_type.get("resources", {})
        if name != config.get("head_node_type") and resources.get("CPU"):
            most = node_type.get("max_workers", config.get("max_workers", 0))
            found[Node(resources["CPU"], resources.get("GPU", 0))] += min(most, config.get("max_workers", most))
    return found


def room_of(slots: Slots, left: Callable[[], int]) -> Callable[[], int]:
    """How many trials may be under way: fixed, or as many as the cluster's nodes have room for at the moment.

    A trial that was proposed and has to wait was proposed knowing less than it could have. `left` is how many trials
    are still to run: an autoscaler is shown that there is work for so many.
    """
    if not slots.follows:
        return lambda: slots.concurrent
    scouts = Scouts(slots)
    counted, counted_s = slots.concurrent, float("-inf")

    def room() -> int:
        nonlocal counted, counted_s
        if time.monotonic() - counted_s > LOOK_AGAIN_S:
            counted, counted_s = fit_into(slots, nodes()), time.monotonic()
            scouts.send(min(slots.most, left()) - counted)
        return counted

    return room


class Scouts:
    """Reservations of trials that have no room yet: the demand that makes an autoscaler start nodes. Each is given up
    as soon as its node is there, and all go with this process, however it ends."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._sent: list[Any] = []

    def send(self, count: int) -> None:
        """Have `count` of them waiting (none, below 1)."""
        from ray.util.placement_group import placement_group, remove_placement_group

        waiting = [scout for scout in self._sent if not scout.wait(timeout_seconds=0)]
        for arrived in [*(set(self._sent) - set(waiting)), *waiting[max(count, 0) :]]:
            remove_placement_group(arrived)
        self._sent = waiting[: max(count, 0)]
        while len(self._sent) < count:
            self._sent.append(placement_group(self._slots.bundles, strategy=self._slots.placement.upper()))


# --- Ray -------------------------------------------------------------------------------------------------------------


def set_environment() -> None:
    """What Ray reads from the environment when it is imported: call this before."""
    if "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        raise SweepError(
            "ray was imported before the sweep could tell it to listen on this machine only and to ask for a token; "
            "import ray after the sweep has begun, or set RAY_AUTH_MODE=token before Python starts"
        )
    os.environ.update(RAY_SETTINGS | ({} if cluster_address() else LOOPBACK))
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def start_ray(cpus: float, gpus: float, dashboard: bool) -> None:
    """Join the cluster, else start Ray on this machine, on loopback. SweepError when there is no joining it."""
    set_environment()
    address = cluster_address()
    if address is not None:
        _check_answers(address)
    import ray

    if ray.is_initialized():
        return
    # pages of Ray's own traceback for each trial that is tried again; a line of ours and the trial's log.txt say it
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is not None:
        _join(partial(ray.init, address=address, runtime_env=_told(address), **quiet), address)
        return
    if dashboard:  # there will be groups
        os.environ["RAY_GCS_SERVER_PORT"] = str(port := _free_port())
        quiet["runtime_env"] = _told(f"127.0.0.1:{port}")
    _show_workers_our_code()
    _begin(
        partial(
            ray.init,
            address="local",
            num_cpus=int(cpus),
            num_gpus=int(gpus),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    )


def without_environments_of_their_own() -> None:
    """Have Tune ask for actors in plain processes: those that Ray starts by itself, with all imported, then fit them.

    It would set PL_DISABLE_FORK in each, for PyTorch Lightning, and no worker fits that was started without it.
    """
    from ray.tune.execution import class_cache

    class_cache.DEFAULT_ENV_VARS.clear()


def _show_workers_our_code() -> None:
    """Workers import our modules before they hear of this process: from this checkout, not from an installed one."""
    root = ADDRESS_FILE.parent
    if (root / "run_sweep.py").is_file():
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != str(root)]
        os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *others])


def _begin(init: Callable[[], Any]) -> None:
    """Start Ray on this machine; SweepError where the machine is too busy for that, or one of Ray's processes died. Ray
    waits 30 seconds, always."""
    try:
        init()
    except Exception as error:
        if not isinstance(error, RuntimeError) and type(error) is not Exception:  # Ray's own are one or the other
            raise
        if "timed out during startup" not in str(error):
            reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
            logs = _ray_folder() / "session_latest" / "logs"
            raise SweepError(
                f"Ray could not start on this machine: {reason}; its logs in {logs} say more (gcs_server.out "
                "first); put that right and repeat the command"
            ) from error
        load = f"{os.getloadavg()[0]:.0f} processes want its {len(os.sched_getaffinity(0))} CPUs"
        raise SweepError(
            f"Ray did not start within 30 s, because this machine is too busy ({load}); wait until it is quieter and "
            "repeat the command"
        ) from error


def _ray_folder() -> Path:
    """Where Ray keeps its sessions, as it finds that on Linux."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def _told(address: str) -> dict[str, Any]:
    """What processes of trials find in their environment. Ray Train's helper, which frees what a stopped group held,
    asks the Ray that it finds on its machine for the state of that group: without the address, any one that runs there.
    """
    return {"env_vars": TRAIN_SETTINGS | ({"RAY_ADDRESS": address} if address != "auto" else {})}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_answers(address: str) -> None:
    """SweepError when nothing listens at the cluster's address: Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():  # auto, ray://...
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        source = "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") else str(ADDRESS_FILE)
        raise SweepError(
            f"no cluster answers at {address} ({source}): {error}; start it with `ray up cluster.yaml`, or say "
            "RAY_ADDRESS=local to run on this machine alone"
        ) from error


def _join(init: Callable[[], Any], address: str) -> None:
    """Join a cluster; SweepError for a token or a version that it does not take."""
    from ray.exceptions import AuthenticationError

    try:
        init()
    except (AuthenticationError, ConnectionError) as error:  # the latter where there is a token, but another
        if "any running Ray" in str(error):
            raise SweepError(
                f"RAY_ADDRESS is {address}, and no Ray runs on this machine; start the cluster with `ray up "
                "cluster.yaml`, or take RAY_ADDRESS out to run on this machine alone"
            ) from error
        raise SweepError(
            f"the cluster at {address} does not let this machine in: {str(error).splitlines()[0].rstrip('.')}; copy "
            "the head's ~/.ray/auth_token to this machine's, which `ray up cluster.yaml` does"
        ) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise SweepError(
            f"this Python or Ray is not the cluster's: {' '.join(str(error).split())}; install the same on both "
            "(`make install`)"
        ) from error


@contextmanager
def ray_beside(slots: Slots, aside: Executor) -> Iterator[Future[None]]:
    """Ray, started and at the end left `aside`, while the caller does something else; at the interpreter's end leaving
    it takes a minute. Close the executor to wait for that."""
    set_environment()
    import ray

    (here,) = nodes() if cluster_address() is None else [Node(0)]
    started = aside.submit(start_ray, here.cpus, here.gpus, dashboard=slots.workers > 1)
    try:
        yield started
    finally:
        wait([started])
        # What Tune left in cycles refers to Ray. Python collects it whenever it likes, and a reference that is dropped
        # while Ray leaves asks a part of it that is gone: Ray then ends the whole process, before the ranking.
        gc.collect()
        aside.submit(ray.shutdown)


def trial_resources(slots: Slots) -> Any:
    """What Tune reserves for a trial: its worker's share, or next to nothing for one whose workers Ray Train places.

    A driver that held CPUs while its workers wait for theirs would be the classic deadlock.
    """
    from ray import tune

    if slots.workers > 1:
        return tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])
    return tune.PlacementGroupFactory([{"CPU": slots.cpus, "GPU": slots.gpus}])
