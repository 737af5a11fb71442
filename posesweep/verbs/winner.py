"""The verbs that use what a sweep found: export, eval; and weights."""

import argparse
from pathlib import Path

from posesweep.verbs import Verbs, add_verb


def add(verbs: Verbs) -> None:
    """export, eval, weights."""
    export = add_verb(
        verbs,
        "export",
        run_export,
        "copy the winner out: config, weights, skeleton, ONNX",
        "posesweep export runs/mice winner/ --onnx",
    )
    export.add_argument("folder", type=Path, help="a sweep folder")
    export.add_argument("out", type=Path, help="where to put it")
    export.add_argument("--trial", type=int, help="another trial than the winner")
    export.add_argument("--onnx", action="store_true", help="also model.onnx (pip install '.[export]')")

    evaluate = add_verb(
        verbs,
        "eval",
        run_eval,
        "score weights on a validation set",
        "posesweep eval runs/mice --data test.json --images test/",
    )
    evaluate.add_argument("folder", type=Path, help="a sweep folder, or the folder of one trial or training")
    evaluate.add_argument("--data", type=Path, help="other annotations than the validation split")
    evaluate.add_argument("--images", type=Path, help="the images of --data")

    weights = add_verb(
        verbs,
        "weights",
        run_weights,
        "what a checkpoint holds, and which of our networks it fits",
        "posesweep weights td-hm_hrnet-w32_coco.pth",
    )
    weights.add_argument("file", type=Path, help="a .safetensors, .pth or .pt file")


def run_export(asked: argparse.Namespace) -> None:
    """Copy the winner, or another trial, into a folder of its own."""
    from posesweep.trainables.export import export

    export(asked.folder, asked.out, asked.trial, asked.onnx)


def run_eval(asked: argparse.Namespace) -> None:
    """Score a folder's best weights."""
    from posesweep.trainables.evaluate import evaluate

    evaluate(asked.folder, asked.data, asked.images)


def run_weights(asked: argparse.Namespace) -> None:
    """Look into a checkpoint; nothing in it is run."""
    from posesweep.trainables.candidates import describe

    describe(asked.file)
