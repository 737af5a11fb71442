"""Before the first trial of a sweep on a cluster: can every node do its part? One sentence for each thing amiss.

Each node is asked by one small task: its versions, its copy of our code, whether it sees the sweep folder and the data,
and whether it can write there. On one machine alone there is nothing to ask.
"""

import hashlib
import importlib.util
import os
import platform
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from posesweep.errors import SweepError
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.cluster import BOOTSTRAP_FILE, Slots, cluster_address, expected_nodes, nodes, plan_slots
from posesweep.trainables.sharing import with_measured_share

ANSWER_S = 120.0  # a node that starts its first worker process on a slow disk takes a while
COMPARED = ("ray", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "albumentations", "safetensors")
SOURCES = {  # what a training runs through, wherever it is installed
    "posesweep": ("*.py",),
    "posesweep.search_spaces": ("*.py",),
    "posesweep.datasets": ("*.py", "skeletons/*.yaml"),
    "posesweep.trainables": ("**/*.py",),
}


@dataclass(frozen=True)
class Question:
    """What every node is asked: whether it sees these."""

    folder: str  # of the sweep
    token: str  # in a file there
    paths: tuple[str, ...]  # of the data


@dataclass(frozen=True)
class Answer:
    """What a node says."""

    host: str
    versions: Mapping[str, str]
    code: str  # hash of its copy of our code; '' where there is none
    sees_folder: bool  # the token's file is there, with the token in it
    writes_folder: str  # '' when it can, else why not
    unreadable: tuple[str, ...]  # of the question's paths


def checked_slots(sweep: Sweep, folder: Path) -> Slots:
    """How trials share the machines, when every one of them can do its part. Raises SweepError, one line for each that
    cannot, and for trials that do not fit."""
    alive = nodes()
    if cluster_address() is not None:
        check_nodes(sweep, folder.resolve())
    return plan_slots(with_measured_share(sweep), alive, expected_nodes(alive))


def check_nodes(sweep: Sweep, folder: Path) -> None:
    """Ask every node of the cluster. SweepError with what is wrong on which."""
    question = Question(str(folder), uuid.uuid4().hex, data_paths(sweep))
    file = token_file(question)
    file.write_text(question.token, encoding="utf-8")
    try:
        answers = ask_all(question)
        wrong = mistakes(answer(question), answers, question)
    finally:
        for left in folder.glob(f"{file.name}*"):
            left.unlink(missing_ok=True)
    for address in sorted(machines_of_cluster_file() - set(answers)):
        print(f"note: {address} is in the cluster file and has not joined (yet); `posesweep hosts` says why")
    if wrong:
        raise SweepError("\n".join(["the cluster cannot run this sweep:", *(f"  {line}" for line in wrong)]))


def machines_of_cluster_file(bootstrap: Path = BOOTSTRAP_FILE) -> set[str]:
    """The addresses that `ray up` was given, on the head that it left them on; empty elsewhere and for other clusters.

    One that is not there is no reason to wait: it joins when it comes.
    """
    file = bootstrap.expanduser()
    config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    provider = config.get("provider", {})
    if provider.get("type") != "local" or cluster_address() != f"{provider['head_ip']}:6379":
        return set()
    return {provider["head_ip"], *provider["worker_ips"]}


def data_paths(sweep: Sweep) -> tuple[str, ...]:
    """The files and folders that a trial reads, absolute. The test split is only for the driver."""
    data = sweep.data
    files = [data.train, data.val, data.images, data.val_images, *settings_named(sweep, "weights")]
    skeletons = [data.skeleton, *settings_named(sweep, "weights_skeleton")]
    files += [name for name in skeletons if name and name.endswith((".yaml", ".yml"))]  # the others are shipped
    return tuple(dict.fromkeys(str(Path(name).expanduser().absolute()) for name in files if name))


def settings_named(sweep: Sweep, name: str) -> list[Any]:
    """What a setting is in any trial: fixed, or each value that is searched."""
    searched = sweep.parameters[name].values if name in sweep.parameters else ()
    return [sweep.fixed.get(name), *searched]


# --- on a node -------------------------------------------------------------------------------------------------------


def answer(question: Question, name: str = "") -> Answer:
    """Look around on this machine; `name`, where given, is what this node writes its own file under."""
    file = token_file(question)
    sees = file.is_file() and file.read_text(encoding="utf-8") == question.token
    why_not = ""
    if sees and name:
        try:
            file.with_name(f"{file.name}.{name}").write_text(question.token, encoding="utf-8")
        except OSError as error:
            why_not = error.strerror or str(error)
    return Answer(
        socket.gethostname(),
        versions(),
        code_hash(),
        sees,
        why_not,
        tuple(path for path in question.paths if not _readable(Path(path))),
    )


def answer_as_dict(question: Question, name: str) -> dict[str, Any]:
    """The answer as it travels: the class that a node gets with the question is not the driver's."""
    return asdict(answer(question, name))


def token_file(question: Question) -> Path:
    """The file by which nodes recognise the sweep folder."""
    return Path(question.folder) / f".preflight.{question.token[:8]}"


def versions() -> dict[str, str]:
    """Of Python and of what a training's result depends on."""
    found = {"Python": platform.python_version()}
    for package in COMPARED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def code_hash() -> str:
    """A hash of our source files as this process would import them; '' where it cannot."""
    digest = hashlib.sha256()
    if importlib.util.find_spec("posesweep") is None:
        return ""
    for name, patterns in SOURCES.items():
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            return ""
        root = Path(next(iter(spec.submodule_search_locations)))
        for file in sorted(file for pattern in patterns for file in root.glob(pattern)):
            digest.update(f"{name}/{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _readable(path: Path) -> bool:
    """A file that can be opened, or a folder with something in it: an empty one is where a disk was not mounted."""
    if path.is_dir():
        return os.access(path, os.R_OK | os.X_OK) and next(path.iterdir(), None) is not None
    return path.is_file() and os.access(path, os.R_OK)


# --- asking ----------------------------------------------------------------------------------------------------------


def ask_all(question: Question) -> dict[str, Answer | str]:
    """Each node's answer by its address, or in words why there is none."""
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a node with older code lacks this module
    try:
        ask: Any = ray.remote(num_cpus=0, max_retries=0)(answer_as_dict)
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                name = node["NodeManagerAddress"]
                asked[name] = ask.options(scheduling_strategy=there).remote(question, node["NodeID"][:12])
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    return {name: _answer_of(task, task in ready) for name, task in asked.items()}


def _answer_of(task: Any, ready: bool) -> Answer | str:
    import ray

    if not ready:
        return f"no answer within {ANSWER_S:g} seconds; look at the machine, and at `ray status`"
    try:
        return Answer(**ray.get(task))
    except ray.exceptions.RayError as error:
        return f"no answer: {str(error).strip().splitlines()[-1]}"


# --- judging ---------------------------------------------------------------------------------------------------------


def mistakes(here: Answer, answers: Mapping[str, Answer | str], question: Question) -> list[str]:
    """What is wrong with the nodes, one sentence each; `here` is what the driver's machine says."""
    found = []
    for name, there in answers.items():
        if isinstance(there, str):
            found.append(f"{name}: {there}")
        else:
            found += [f"{there.host} ({name}): {line}" for line in mistakes_of(here, there, question)]
    return found


def mistakes_of(here: Answer, there: Answer, question: Question) -> Sequence[str]:
    """What is wrong with one node."""
    found = []
    differing = [
        f"{name} {there.versions[name]} (here {mine})"
        for name, mine in here.versions.items()
        if there.versions[name] != mine
    ]
    if differing:
        found.append(f"other versions than on the driver's machine: {', '.join(differing)}; run `make install` on both")
    if not there.code:
        found.append("has no PoseSweep; `ray up cluster.yaml` brings it")
    elif there.code != here.code:
        found.append("its copy of PoseSweep is not the driver's; repeat `ray up cluster.yaml`")
    if not there.sees_folder:
        found.append(
            f"does not see the sweep folder {question.folder}; put it on a disk that every node mounts under the same "
            "path (--runs)"
        )
    elif there.writes_folder:
        found.append(f"cannot write to the sweep folder {question.folder}: {there.writes_folder}")
    found += [f"cannot read {path}; every node needs the data under the same path" for path in there.unreadable]
    return found
