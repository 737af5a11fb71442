"""`posesweep init`: looks at annotations and writes a commented sweep file that runs as it is."""

import json
import os
import re
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from posesweep.datasets.documents import read_yaml
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import DataRequest, load_data, subsets_given
from posesweep.datasets.looking import ENOUGH_GROUPS, Portrait, group_key, portrait_of, shipped_like
from posesweep.datasets.read import FORMATS, Reading, detect, read_any
from posesweep.datasets.skeleton import DEFAULT_SIGMA, Skeleton, load_skeleton
from posesweep.datasets.sources import Sources, find_sources, merged
from posesweep.errors import ConfigError, DataError
from posesweep.files import write_text
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.planning import (
    Case,
    Hardware,
    Plan,
    Searched,
    Setting,
    StepTimer,
    WeightsAtHand,
    can_be_pretrained,
    plan_sweep,
    step_seconds,
    this_machine,
)

BY_ORDER = ("coco", "yolo")  # formats whose keypoints go by their order; those of the others go by their names
SMALL_SET = 300  # images; of fewer, a larger share is held out, or validation could tell nothing apart
SE_OF_ONE = 0.29  # standard error of AP x root of the objects, as simulated with 26 keypoints
_PLAIN = re.compile(r"[A-Za-z/.][\w/.-]*")
_NOT_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))  # to YAML


@dataclass(frozen=True)
class Machine:
    """What is asked about the machine; tests ask something else."""

    hardware: Hardware | None = None  # None: this machine's
    timer: StepTimer = step_seconds
    weights_at_hand: WeightsAtHand = can_be_pretrained


@dataclass(frozen=True)
class Wanted:
    """What the user said beside the data."""

    out: Path = Path("sweep.yaml")
    images: Path | None = None
    name: str | None = None  # None: after the data
    minutes: float | None = None  # that the sweep may take


@dataclass(frozen=True)
class _Found:
    """The data as the sweep file will name them, and files that must be written for that: path -> text."""

    request: DataRequest
    portrait: Portrait
    skeleton: Skeleton
    split: list[Setting]
    kind: str
    beside: dict[Path, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # of the readers and the split


def run(
    data: Path, out: Path, images: Path | None = None, name: str | None = None, minutes: float | None = None
) -> None:
    """Write `out` for `data` and say what to do next. Raises what `init` does."""
    console = Console()
    console.print("looking at the data, and timing a few training steps ...", highlight=False)
    plan = init(data, Wanted(out, images, name, minutes))
    shown = os.path.relpath(out) if out.is_absolute() and out.is_relative_to(Path.cwd()) else str(out)
    lines = [
        f"{shown}: {plan.trials} trials of {plan.model}, {plan.imgsz[0]} x {plan.imgsz[1]}, {plan.epochs} epochs; "
        f"about {_minutes(plan.minutes)} when nothing else runs. Every line says why.",
        "next:",
        f"  posesweep check {shown}",
        f"  python run_sweep.py {shown} --debug     one short trial",
        f"  python run_sweep.py {shown}             the sweep",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def init(data: Path, wanted: Wanted, machine: Machine | None = None) -> Plan:
    """Look at the annotations in `data`, write the sweep file `wanted.out`, and return its settings.

    Beside it are written the skeleton where none that is shipped has these keypoints, and the tables of a DeepLabCut
    project with several videos as one. ConfigError: one of these files is there already, or a name that cannot be a
    folder's. DataError: data that cannot be used, in the words of their reader."""
    machine = machine or Machine()
    _check_wanted(wanted)
    from posesweep.trainables.context import default_cache

    with tempfile.TemporaryDirectory() as scratch:
        found = _find(data, wanted, Path(scratch))
        _refuse_overwriting(found.beside)
        seen = load_data(_readable(found, Path(scratch)), default_cache())
    found = replace(found, notes=seen.notes)
    hardware = machine.hardware or this_machine()
    trained = int((seen.val.labelled & ~seen.val.crowd).sum())
    case = Case(found.portrait, len(seen.train), trained, len(found.skeleton.keypoints), hardware, wanted.minutes)
    plan = plan_sweep(case, machine.timer, machine.weights_at_hand)
    _write(wanted, _text(data, wanted, found, case, plan), found.beside)
    return plan


def data_to_check(path: Path, images: Path | None = None) -> tuple[DataRequest, bool]:
    """What `posesweep check PATH` checks, and whether it is to be split first: the data of a sweep file as the sweep
    has them, or the annotations in a file or folder, found as `init` finds them.

    Raises ConfigError for a sweep file with mistakes or without files, and what `find_sources` does."""
    if path.suffix in {".yaml", ".yml"} and path.is_file() and "data" in read_yaml(path):
        spec = read_sweep(path).data
        if spec.train is None:
            raise ConfigError(f"{path}: its data are synthetic; there is nothing to check")
        given: dict[str, Any] = spec.model_dump(exclude={"synthetic", "test", "test_images"}, exclude_none=True)
        given |= {name: Path(given[name]) for name in ("train", "val", "images", "val_images") if name in given}
        return DataRequest(**given), spec.val is None
    sources = find_sources(path, images)
    if sources.tables:
        raise DataError(
            f"{path}: has {len(sources.tables)} tables of labels; name one, or a sweep file of posesweep init"
        )
    return DataRequest(sources.train, sources.val, sources.images), False


# --------------------------------------------------------------------------------------------------------- the data


def _find(data: Path, wanted: Wanted, scratch: Path) -> _Found:
    """Read the annotations, and choose skeleton and split."""
    sources = find_sources(data, wanted.images)
    beside: dict[Path, str] = {}
    train = sources.train
    if sources.tables:
        text = merged(sources.tables)
        table = wanted.out.with_name(f"{wanted.out.stem}_labels.csv")
        beside[table] = text
        train = scratch / table.name
        train.write_text(text, encoding="utf-8")
    kind = detect(train)
    subsets = subsets_given(train, sources.val)
    both = {"train", "val"} <= set(subsets)
    instances = read_any(train, sources.images, Reading(subset="train" if both else None))
    shipped = shipped_like(instances.skeleton, kind not in BY_ORDER)
    skeleton = load_skeleton(shipped) if shipped else instances.skeleton
    own = wanted.out.with_name(f"{wanted.out.stem}_skeleton.yaml")
    if not shipped:
        beside[own] = _skeleton_text(skeleton)
    request = DataRequest(train, sources.val, sources.images, shipped or own)
    split = _split_of(instances, sources, both)
    chosen: dict[str, Any] = {setting.name: setting.value for setting in split}
    request = replace(request, **chosen)
    return _Found(request, portrait_of(instances), skeleton, split, kind, beside)


def _readable(found: _Found, scratch: Path) -> DataRequest:
    """The request with its skeleton where it can be read before it is written at its place."""
    request = found.request
    if isinstance(request.skeleton, Path):
        text = found.beside[request.skeleton]
        (scratch / request.skeleton.name).write_text(text, encoding="utf-8")
        return replace(request, skeleton=scratch / request.skeleton.name)
    return request


def _split_of(instances: Instances, sources: Sources, both: bool) -> list[Setting]:
    """How one set becomes two; nothing where there are two."""
    if sources.val is not None or both:
        return []
    small = len(instances.image_files) < SMALL_SET
    share = Setting("val_fraction", 0.25 if small else 0.2, "of the images, as nearly as whole groups allow")
    groups, key = len(set(instances.image_groups) - {""}), group_key(instances)
    if groups >= ENOUGH_GROUPS:
        why = f"{groups} videos or groups, each whole on one side; sizes and visibility alike on both"
        return [Setting("split", "stratified", why), share]
    if key is not None:
        return [
            Setting("group_by", key, "images of one stay on one side"),
            Setting("split", "stratified", "sizes and visibility alike on both sides"),
            share,
        ]
    return [Setting("split", "auto", "near-duplicates and neighbouring frames of a video stay on one side"), share]


def _skeleton_text(skeleton: Skeleton) -> str:
    """A skeleton file that says what was inferred."""
    names = ", ".join(_say(name) for name in skeleton.keypoints)
    sigmas = "\n".join(
        f"  {_say(name)}: {value:g}" for name, value in zip(skeleton.keypoints, skeleton.sigmas, strict=True)
    )
    note = skeleton.sigmas_note or f"OKS sigmas as the annotations gave them; {DEFAULT_SIGMA} is PoseSweep's default"
    return "\n".join(
        [
            "# Written by posesweep init: no shipped skeleton has these keypoints.",
            f"name: {_say(skeleton.name)}",
            f"keypoints: [{names}]",
            "# left and right, inferred from the names or flip_idx: look at them, mirrored images swap their labels",
            *_pairs("flip_pairs", skeleton.flip_pairs),
            "# limbs, for pictures",
            *_pairs("edges", skeleton.edges),
            "# how far apart two people label a point, as a share of the object's size (COCO: eyes 0.025, hips 0.107):",
            "# AP measures with them, so put in your own, and then take sigmas_note out",
            f"sigmas:\n{sigmas}",
            f"sigmas_note: {json.dumps(note, ensure_ascii=False)}",
            "# upper_body: [...]   names of the upper (or front) half; with it, bodies are also shown by halves",
            "",
        ]
    )


def _pairs(key: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{key}:", *(f"  - {_say(list(pair))}" for pair in pairs)] if pairs else [f"{key}: []"]


# --------------------------------------------------------------------------------------------------------- the file


def _write(wanted: Wanted, text: str, beside: dict[Path, str]) -> None:
    """Write everything, the sweep file last and only if it has no mistake."""
    from posesweep.trainables.tasks import check_values, defaults_of

    with tempfile.TemporaryDirectory() as scratch:
        tried = Path(scratch) / wanted.out.name
        tried.write_text(text, encoding="utf-8")
        try:
            read_sweep(tried, (), check_values, defaults_of)
        except ConfigError as error:
            raise AssertionError(f"init made a file with mistakes: {error}") from error
    for path, content in beside.items():
        write_text(path, content)
    write_text(wanted.out, text)


def _check_wanted(wanted: Wanted) -> None:
    _refuse_overwriting([wanted.out])
    if wanted.name is not None and wanted.name != _as_name(wanted.name):
        raise ConfigError(f"--name: '{wanted.name}' cannot be the name of a folder; try {_as_name(wanted.name)}")
    if wanted.minutes is not None and not wanted.minutes > 0:
        raise ConfigError(f"--minutes: {wanted.minutes:g} must be above 0; leave it out for the usual")


def _refuse_overwriting(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} is there already, and init writes over nothing; name another file with --out")


def _text(data: Path, wanted: Wanted, found: _Found, case: Case, plan: Plan) -> str:
    """The sweep file."""
    baseline = {searched.name: searched.baseline for searched in plan.searched}
    startup = max(4, plan.trials // 4)
    blocks = [
        *_header(data, wanted, found, case, plan),
        f"name: {_say(_name(data, wanted))}   # the folder runs/...; the same name goes on where it was left",
        "data:",
        *_lines(_data_settings(found, wanted)),
        "metric: {name: val/AP, goal: maximize}",
        "fixed:",
        *_lines(plan.fixed),
        "parameters:   # what is searched",
        *_lines([_as_setting(searched) for searched in plan.searched]),
        "# always trial 0, what the winner is compared with: what one would try without a search",
        f"baseline: {_say(baseline)}",
        f"search: {{method: tpe, trials: {plan.trials}, startup_trials: {startup}, seed: 0}}",
        "# the worse two thirds stop at a ninth, and again at a third of the epochs",
        f"early_terminate: {{type: asha, min_epochs: {plan.min_epochs}, eta: 3}}",
        "# confirm: {top_k: 3, seeds: 3}   # in the end the best 3 and the baseline with other seeds: an honest winner",
        "# budget: {hours: 8}              # no new trial after that; counted over every run of this file",
    ]
    return "\n".join(blocks) + "\n"


def _header(data: Path, wanted: Wanted, found: _Found, case: Case, plan: Plan) -> list[str]:
    portrait = found.portrait
    groups = f", {portrait.groups} group{'s' * (portrait.groups > 1)} (videos)" if portrait.groups else ""
    error = SE_OF_ONE / case.val**0.5
    return [
        "# Written by posesweep init. It runs as it is:",
        f"#   python run_sweep.py {_one_line(str(wanted.out))}",
        f"# seen in {_one_line(str(data))}: {FORMATS[found.kind]}",
        f"#   {portrait.images:,} images, {portrait.objects:,} objects with {case.keypoints} keypoints "
        f"({portrait.labelled_share:.0%} labelled){groups}",
        f"#   median box {portrait.width_px:.0f} x {portrait.height_px:.0f} pixels",
        f"#   {case.train:,} objects to train on, {case.val:,} to validate with: an AP is known to about +-{error:.2f}",
        *(f"# {line}" for note in found.notes for line in textwrap.wrap(_one_line(note), 110, subsequent_indent="  ")),
        f"# machine: {case.hardware}",
        f"#   about {_minutes(plan.minutes)} for all trials, {_minutes(plan.trial_minutes)} for one not stopped "
        "(rough, when nothing else runs)",
    ]


def _data_settings(found: _Found, wanted: Wanted) -> list[Setting]:
    request, settings = found.request, []
    table = next((path for path in found.beside if path.suffix == ".csv"), None)
    assert request.train is not None
    train = table or request.train
    settings.append(Setting("train", _path(train, wanted.out), "the tables of all videos, as one" if table else ""))
    if request.val is not None:
        settings.append(Setting("val", _path(request.val, wanted.out)))
    if request.images is not None:
        settings.append(Setting("images", _path(request.images, wanted.out)))
    count = len(found.skeleton.flip_pairs)
    pairs = f"{count} left/right pair{'s' * (count != 1)}"
    if isinstance(request.skeleton, Path):
        why = f"none that is shipped fits; {pairs} inferred, sigmas {DEFAULT_SIGMA}: look at it"
        settings.append(Setting("skeleton", _path(request.skeleton, wanted.out), why))
    else:
        settings.append(Setting("skeleton", request.skeleton, f"shipped; {pairs}"))
    return settings + found.split


def _path(path: Path, out: Path) -> str:
    """`path` as the file in `out` names it: from its own folder where it lies below that, else absolute.

    A relative path is looked for in the current directory first: where something else lies there, it is absolute."""
    path, folder = path.absolute(), out.absolute().parent
    if not path.is_relative_to(folder):
        return os.path.normpath(path)  # without .., which links may turn
    inner = path.relative_to(folder)
    hidden = inner.exists() and folder != Path.cwd() and not inner.samefile(path)
    return str(path if hidden else inner)


def _as_setting(searched: Searched) -> Setting:
    return Setting(searched.name, searched.spec, searched.why)


def _lines(settings: Sequence[Setting]) -> list[str]:
    """`  name: value   # why`, the reasons below each other where they fit."""
    rows = [f"  {setting.name}: {_say(setting.value)}" for setting in settings]
    width = max((len(row) for row in rows if len(row) <= 60), default=0)
    return [f"{row:<{width}}   # {s.why}" if s.why else row for row, s in zip(rows, settings, strict=True)]


def _say(value: Any) -> str:
    """A value as YAML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_say(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_say, value))}]"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 0.01 else repr(value)
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _one_line(text: str) -> str:
    """What a comment can hold: one line, whatever is in a file's name."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')


def _name(data: Path, wanted: Wanted) -> str:
    """The sweep's name: as wanted, else after the data."""
    path = data.absolute()
    return wanted.name or _as_name(path.name if path.is_dir() else path.stem)


def _as_name(text: str) -> str:
    """What a sweep may be called that reads most like `text`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:60].strip("-._") or "my-sweep"


def _minutes(minutes: float) -> str:
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
