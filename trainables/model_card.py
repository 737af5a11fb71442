"""The README.md of an exported winner: what it is for, how good it is, how sure that is, its limits, how to run it."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posesweep import __version__
from posesweep.analysis.per_keypoint import comparison, per_keypoint
from posesweep.analysis.promoted import Promoted, promotions
from posesweep.analysis.ranking import Interval, TrialEvidence, rank
from posesweep.analysis.results import Evidence
from posesweep.analysis.tested import FILE as TEST_FILE
from posesweep.analysis.tested import lines_of_test
from posesweep.files import read_json, read_json_lines, read_record
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.onnx_file import Form, Parity
from posesweep.trainables.status import read_status
from posesweep.trainables.trained import Origin, Trained
from posesweep.trainables.winner import read_config

ONNX_HEADING = "## model.onnx"
FEW_OBJECTS = 200  # in validation; below, the card says how little that is
RECIPE = (
    ("network", ("model", "backbone", "neck", "decoder", "channels", "branches", "imgsz", "pretrained", "weights")),
    ("keypoints", ("codec", "sigma", "sigma_x", "udp", "dark", "simcc_split", "simcc_head", "loss", "flip_test")),
    ("optimizer", ("optimizer", "lr0", "weight_decay", "batch", "layer_decay", "head_lr_mult", "freeze", "ema", "amp")),
    ("schedule", ("schedule", "epochs", "warmup", "warmup_steps", "final_lr", "milestones", "lr_drop")),
    ("augmentation", ("augment", "aug_strength", "final_augment", "final_epochs")),
)


@dataclass(frozen=True)
class Known:
    """What the folder of the training says; empty where it says nothing."""

    status: Mapping[str, Any]
    rows: list[dict[str, Any]]  # one for each epoch
    evidence: Evidence | None
    ap: Interval | None  # with its interval over validation images

    @classmethod
    def of(cls, folder: Path) -> "Known":
        """Read status.json, metrics.jsonl and evidence.npz."""
        file = folder / "evidence.npz"
        evidence, ap = None, None
        if file.is_file() and zipfile.is_zipfile(file):
            with np.load(file, allow_pickle=False) as stored:
                evidence = Evidence.from_arrays({name: stored[name] for name in stored.files})
            ap = rank([TrialEvidence.read(0, file)]).rows[0].ap
        state = folder / "best" / "state.json"
        best = read_json(state).get("metrics", {}) if state.is_file() else {}
        return cls(
            read_status(folder), [best] if best else read_json_lines(folder / "metrics.jsonl")[-1:], evidence, ap
        )

    @property
    def best(self) -> Mapping[str, Any]:
        """The metrics of the epoch whose weights these are."""
        return self.rows[0] if self.rows else {}


def model_card(trained: Trained) -> str:
    """Markdown, in the order in which someone who was handed the folder asks."""
    known = Known.of(trained.folder)
    skeleton = trained.skeleton
    name = trained.origin.results.name if trained.origin is not None else skeleton.name
    sections = [
        f"# {name}: {len(skeleton.keypoints)} keypoints of {skeleton.name}",
        _purpose(trained),
        "## How good it is\n\n" + "\n".join(f"- {line}" for line in _quality(trained, known)),
        _by_keypoint(trained, known),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(trained, known)),
        "## Data\n\n" + "\n".join(f"- {line}" for line in _data(trained, known)),
        "## Recipe\n\n" + _recipe(read_config(trained.settings)),  # also what it began from
        "## Made with\n\n" + _versions(known),
        _how_to_run(trained),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _purpose(trained: Trained) -> str:
    width, height = trained.config.imgsz
    return (
        f"Finds the keypoints of skeleton `{trained.skeleton.name}` in one object at a time: top-down, it looks at the "
        f"object's box, enlarged by a quarter and to {width}x{height} pixels. It is meant for pictures like those it "
        "was trained on: the same kind of animal or person, camera, view and light. It does not find the boxes."
    )


def _quality(trained: Trained, known: Known) -> list[str]:
    lines = []
    picked = trained.origin.picked if trained.origin is not None else None
    metric = trained.config.metric.name
    ap = picked.ap if picked is not None else known.ap
    if ap is not None:
        lines.append(f"**AP {ap.value:.3f}**, 95 % interval {ap.low:.3f} to {ap.high:.3f}{_how_sure(trained)}")
    elif (value := known.status.get("best")) is not None:
        lines.append(f"**{metric.removeprefix('val/')} {value:.3f}**; no interval is known")
    if trained.origin is not None:
        lines += _tested(trained.origin)
    others = {"val/AP50": "AP50", "val/AP75": "AP75", "val/PCK@0.05": "PCK@0.05", "val/NME": "NME"}
    said = [f"{short} {known.best[name]:.3f}" for name, short in others.items() if name in known.best]
    if said:
        lines.append(f"{', '.join(said)} at epoch {known.status.get('best_epoch', known.best.get('epoch'))}")
    if known.evidence is not None:
        objects, images = len(known.evidence.ids), len(np.unique(known.evidence.image_ids))
        lines.append(f"measured on {objects} validation objects in {images} images, in their annotated boxes")
        if seconds := known.best.get("val_s"):
            flip = "with" if trained.config.flip_test else "without"
            device = known.status.get("device", "an unknown device")
            threads = f" ({known.status['threads']} of its threads)" if known.status.get("device") == "cpu" else ""
            lines.append(f"{objects / seconds:.0f} objects/s in validation, {flip} flip test, on {device}{threads}")
    if parameters := known.status.get("parameters"):
        lines.append(f"{parameters / 1e6:.2f} million parameters")
    return lines or ["not known: this folder has no record of its training"]


def _how_sure(trained: Trained) -> str:
    """What the interval is of, and what it stands against."""
    if trained.origin is None:
        return ""
    picked, table = trained.origin.picked, trained.origin.table
    if picked.candidate is not None:
        return f", confirmed by trainings with other seeds (these weights: seed {picked.seed})"
    if picked.promoted is not None:
        longer = {found.epochs: found.rows for found in promotions(trained.origin.results)}
        return how_sure_when_promoted(picked.promoted, longer[picked.promoted.epochs])
    row = next(row for row in table.rows if row.trial == picked.trial)
    text = _gain(row.gain, "the baseline")
    return text + (_ties(len(table.tied), "") if row.rank == 1 else "")


def how_sure_when_promoted(row: Promoted, as_long: Sequence[Promoted]) -> str:
    """Gain and ties among those trained `as_long`: the search's are of a shorter training."""
    tied = sum(other.tied for other in as_long if other.trial != row.trial) if row.tied else 0
    gain = _gain(row.gain if row.role != "baseline" else None, "the baseline trained as long")
    return f", promoted to {row.epochs} epochs (seed {row.seed}){gain}{_ties(tied, ' trained as long')}"


def _gain(gain: Interval | None, over: str) -> str:
    return f"; gain over {over} {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" if gain is not None else ""


def _ties(count: int, which: str) -> str:
    others = "1 other trial" if count == 1 else f"{count} other trials"
    return f"; tied with {others}{which}, which this validation set cannot tell apart" if count else ""


def _tested(origin: Origin) -> list[str]:
    """What the test split said, and of which weights where those are not the ones handed over."""
    picked, folder = origin.picked, origin.results.folder
    lines = lines_of_test(folder, picked.trial)
    trials = (read_record(folder / TEST_FILE) or {}).get("trials") or [{}]
    tested = trials[0].get("folder")
    if tested is not None and trials[0]["trial"] == picked.trial and folder / tested != picked.folder:
        lines.append(f"note: test: that score is of the weights in {tested}; these were trained anew and have none")
    return lines


def _by_keypoint(trained: Trained, known: Known) -> str:
    if known.evidence is None:
        return ""
    table = comparison(per_keypoint(known.evidence, trained.skeleton), None)
    lines = [
        "| keypoint, worst first | labelled | mean error, image pixels | within 5 % of the box | OKS |",
        "|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        values = [f"{row['error_px']:.1f}", f"{row['pck']:.0%}", f"{row['oks']:.2f}"] if row["labelled"] else ["-"] * 3
        lines.append(f"| {row['keypoint']} | {row['labelled']} | {' | '.join(values)} |")
    return "\n".join(lines)


def _limits(trained: Trained, known: Known) -> list[str]:
    lines = []
    objects = len(known.evidence.ids) if known.evidence is not None else None
    if objects is not None and objects < FEW_OBJECTS:
        lines.append(f"AP rests on {objects} objects: few; take the interval, not the number")
    picked = trained.origin.picked if trained.origin is not None else None
    if trained.origin is not None and (picked is None or picked.candidate is None):
        trials = len(trained.origin.table.rows)
        lines.append(
            f"it was chosen among {trials} trials by the same validation images, so its AP is a little too high"
        )
    lines.append(
        "boxes were the annotated ones; in a detector's boxes it is worse (posesweep eval --boxes measures it)"
    )
    lines.append("other species, cameras, views and backgrounds than those in its data are not tested")
    lines.append("scores rank keypoints; they are no probabilities, and a hidden keypoint is answered like any other")
    if trained.config.data.synthetic is not None:
        lines.append("it was trained on drawn horses only and is no model for photographs")
    if trained.skeleton.sigmas_note:
        lines.append(f"AP rests on sigmas that were not measured: {trained.skeleton.sigmas_note}")
    return lines


def _data(trained: Trained, known: Known) -> list[str]:
    split = trained.origin.results.split if trained.origin is not None else {}
    found = split.get("hash") or trained.config.data.split_hash
    lines = [f"hash of the split (labels and file names): {f'`{found}`' if found else 'not on record'}"]
    if "train" in split and "val" in split:
        images = len(split.get("images", ()))
        lines.append(f"{len(split['train'])} training and {len(split['val'])} validation objects in {images} images")
    data = trained.config.data
    source = data.train if data.synthetic is None else f"synthetic horses, {data.synthetic.train} images to train on"
    lines.append(f"annotations: {source}")
    lines += [str(note) for note in split.get("notes") or ()]
    return lines


def _recipe(config: TrialConfig) -> str:
    lines = ["| | |", "|---|---|"]
    for name, settings in RECIPE:
        values = [
            f"{setting} {_text(value)}" for setting in settings if (value := getattr(config, setting)) is not None
        ]
        lines.append(f"| {name} | {', '.join(values)} |")
    return "\n".join(lines) + "\n\nEvery setting is in `best.yaml`."


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _versions(known: Known) -> str:
    said = [f"{name} {version}" for name, version in (known.status.get("versions") or {}).items()]
    trained_with = f"trained with {', '.join(said)}; " if said else ""
    return f"{trained_with}exported with posesweep {__version__}."


def _how_to_run(trained: Trained) -> str:
    return """## How to run it

```
posesweep predict FOLDER images/ clip.mp4 --out found/            # this folder; each whole picture is one object's box
posesweep predict FOLDER images/ --boxes detections.json --out found/
posesweep eval FOLDER --data test.json --images test/
posesweep train FOLDER/best.yaml data.train=... data.images=... --out again   # trains it again, from the data
```

`weights.safetensors` are the weights, `skeleton.yaml` the keypoints; nothing else is needed to predict."""


def onnx_section(trained: Trained, form: Form, parity: Parity) -> str:
    """What goes into model.onnx, what comes out, and how near it is to the network."""
    width, height = trained.config.imgsz
    if form.normalised:
        taken = (
            f"float32 `[batch, 3, {height}, {width}]`, RGB, (value - mean) / std with the mean and std in its metadata"
        )
    else:
        taken = f"uint8 `[batch, {height}, {width}, 3]`, RGB; it normalises by itself"
    given = {
        "keypoints": "`keypoints` float32 `[batch, keypoints, 3]`: x and y in input pixels, score",
        "heatmaps": "`heatmaps` float32 `[batch, keypoints, height, width]`; decode them as the metadata's codec says",
        "simcc": "`simcc_x` and `simcc_y` float32 `[batch, keypoints, bins]`: logits",
    }["keypoints" if form.decode else "simcc" if trained.config.codec == "simcc" else "heatmaps"]
    return f"""
{ONNX_HEADING}

- input `images`: {taken}
- output {given}
- one forward pass, without flip test; {parity}
- the metadata `posesweep` holds sizes, mean and std, names, flip pairs and codec as JSON

`run_onnx.py` runs it with numpy, opencv-python and onnxruntime alone:

```
python run_onnx.py model.onnx image.jpg X Y WIDTH HEIGHT --draw found.png
```
"""
