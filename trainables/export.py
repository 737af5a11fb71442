"""`posesweep export`: the winner in a folder of its own, which is all it takes to predict, to evaluate and to go on."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from posesweep.datasets.crops import CropSpec, crops_on_demand
from posesweep.datasets.decoding import read_image
from posesweep.datasets.instances import Instances
from posesweep.datasets.writers import skeleton_text
from posesweep.errors import ConfigError, DataError, PoseSweepError
from posesweep.files import write_text
from posesweep.trainables import run_onnx
from posesweep.trainables.layout import SKELETON_FILE, placed
from posesweep.trainables.model_card import ONNX_HEADING, model_card, onnx_section
from posesweep.trainables.onnx_file import Form, check_packages, write_onnx
from posesweep.trainables.predictions import whole_folder
from posesweep.trainables.tasks.topdown import load, scorable
from posesweep.trainables.trained import WEIGHTS_FILE, Trained, find_trained
from posesweep.trainables.winner import best_yaml

CARD, MODEL, SCRIPT = "README.md", "model.onnx", "run_onnx.py"
OURS = frozenset(("best.yaml", SKELETON_FILE, WEIGHTS_FILE, CARD, MODEL, SCRIPT))
SAMPLES = 4  # validation objects that the ONNX file is held against torch on


@dataclass(frozen=True)
class Asked:
    """The options of `posesweep export`; `onnx` None: none is written."""

    trial: int | None = None
    onnx: Form | None = None


def export(where: Path, out: Path, asked: Asked) -> None:
    """Copy the training in `where` to `out`: best.yaml, weights.safetensors, skeleton.yaml, README.md, and for ONNX
    model.onnx and run_onnx.py, all of them or none.

    Raises SweepError when there is no such trial or its weights were not kept, ConfigError when ONNX is not installed.
    """
    if asked.onnx is not None:
        check_packages()
    trained = find_trained(where, asked.trial)
    _check_place(out, trained)
    with whole_folder(out, OURS) as folder:
        write_text(folder / "best.yaml", _settings(trained))
        write_text(folder / SKELETON_FILE, skeleton_text(trained.skeleton))
        shutil.copyfile(trained.weights, folder / WEIGHTS_FILE)
        card = _card(trained)
        if asked.onnx is not None:
            parity = write_onnx(trained, asked.onnx, folder / MODEL, *_inputs(trained))
            print(f"{MODEL}: {parity}")
            shutil.copyfile(str(run_onnx.__file__), folder / SCRIPT)
            card += onnx_section(trained, asked.onnx, parity)
        write_text(folder / CARD, card)
        files = sorted(entry.name for entry in folder.iterdir())
    print(f"{trained.name} is in {out}: {', '.join(files)}")


def _check_place(out: Path, trained: Trained) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; give a folder")
    if (out / "trials").is_dir() or (out / "config.yaml").is_file():
        raise ConfigError(f"{out}: is the folder of a sweep or a training; give a new folder")
    if out.resolve() == trained.folder.resolve():
        raise ConfigError(f"{out}: is where the winner comes from; give another folder")


def _settings(trained: Trained) -> str:
    """The text of best.yaml: a sweep's with what it reached in its head, else the settings as they are."""
    if trained.origin is not None:
        return best_yaml(trained.origin.results, trained.origin.table, trained.origin.picked)
    return trained.settings.read_text(encoding="utf-8")


def _card(trained: Trained) -> str:
    """The model card, without ONNX; that of an export that is exported again is kept."""
    earlier = trained.folder / CARD
    if trained.settings.name == "best.yaml" and earlier.is_file():
        return earlier.read_text(encoding="utf-8").partition(f"\n{ONNX_HEADING}\n")[0]
    return model_card(trained)


# ------------------------------------------------------------------------------------------------- samples for ONNX


def _inputs(trained: Trained) -> tuple[UInt8[np.ndarray, "n H W 3"], str]:
    """Network inputs of a few validation objects, and what they are: noise where no image is to be found."""
    imgsz = trained.config.imgsz
    objects = _validated(trained)
    if objects is not None:
        crops = crops_on_demand(objects, CropSpec(*imgsz))
        return np.stack([crops.images[row] for row in range(len(objects))]), "validation objects"
    noise = np.random.default_rng(0).integers(0, 256, (SAMPLES, imgsz[1], imgsz[0], 3), dtype=np.uint8)
    return noise, "images of noise, as no validation image is here"


def _validated(trained: Trained) -> Instances | None:
    """Some validation objects whose images can be read here, or None. Nothing is drawn or split anew for it."""
    if trained.origin is not None:
        return _of_evidence(trained)
    if trained.config.data.synthetic is not None:
        return None
    try:
        val = scorable(load(placed(trained.config, trained.folder)).val)
    except PoseSweepError:  # the data are not here, which an export need not have
        return None
    return _readable(val)


def _of_evidence(trained: Trained) -> Instances | None:
    """The objects that the training was validated on, as its evidence and the sweep's split.json have them."""
    assert trained.origin is not None
    file, images = trained.folder / "evidence.npz", trained.origin.results.split.get("images", {})
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as stored:
        evidence = {name: stored[name] for name in ("id", "image_id", "category_id", "box", "area")}
    known, index = np.unique(evidence["image_id"], return_inverse=True)
    count, n = len(trained.skeleton.keypoints), len(index)
    objects = Instances(
        skeleton=trained.skeleton,
        image_files=tuple(Path(images.get(str(i), "")) for i in known.tolist()),
        image_ids=known,
        image_groups=("",) * len(known),
        image_index=index,
        ids=evidence["id"],
        category_ids=evidence["category_id"],
        boxes=evidence["box"],
        keypoints=np.zeros((n, count, 2)),
        visibility=np.zeros((n, count), np.uint8),
        areas=evidence["area"],
        crowd=np.zeros(n, bool),
    )
    return _readable(objects)


def _readable(objects: Instances) -> Instances | None:
    rows = list(_first_readable(objects))
    return objects.take(np.array(rows)) if rows else None


def _first_readable(objects: Instances) -> Iterator[int]:
    """Rows of the first few objects whose images can be read."""
    found = 0
    for row, position in enumerate(objects.image_index.tolist()):
        if found == SAMPLES or row >= 10 * SAMPLES:
            return
        try:
            read_image(objects.image_files[position])
        except DataError:
            continue
        found += 1
        yield row
