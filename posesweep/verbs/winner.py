"""The verbs that use what a sweep found: predict, eval, export, datacurve; and weights."""

import argparse
from pathlib import Path

from posesweep.verbs import Verbs, add_verb, count, share


def add(verbs: Verbs) -> None:
    """predict, eval, export, datacurve, weights."""
    _add_predict(verbs)
    _add_eval(verbs)
    _add_export(verbs)
    _add_datacurve(verbs)
    weights = add_verb(
        verbs,
        "weights",
        run_weights,
        "what a checkpoint holds, and which of our networks it fits",
        "posesweep weights td-hm_hrnet-w32_coco.pth",
    )
    weights.add_argument("file", type=Path, help="a .safetensors, .pth or .pt file")


def _add_predict(verbs: Verbs) -> None:
    predict = add_verb(
        verbs,
        "predict",
        run_predict,
        "find keypoints in images, folders and videos with what a sweep found",
        "posesweep predict runs/mice videos/ frames/*.png --out found/\n"
        "posesweep predict winner/ clip.mp4 --out found/ --track\n"
        "posesweep predict winner/ images/ --out found/ --boxes detections.json",
    )
    _add_where(predict)
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="images, videos, folders of them, 'patterns*.jpg'")
    predict.add_argument("--out", type=Path, required=True, help="a folder for predictions.json, tables and overlays")
    predict.add_argument(
        "--boxes", type=Path, help="boxes of the objects: COCO detections or annotations, or a .csv (file, x, y, w, h)"
    )
    predict.add_argument("--track", action="store_true", help="videos: the box follows the keypoints of the last frame")
    predict.add_argument("--no-overlays", action="store_true", help="no pictures with the keypoints drawn in")
    predict.add_argument("--batch", type=count, default=32, help="objects in one forward pass (default: 32)")
    predict.add_argument("--no-flip-test", action="store_true", help="twice as fast, a little less exact")
    _add_detector(predict)


def _add_datacurve(verbs: Verbs) -> None:
    curve = add_verb(
        verbs,
        "datacurve",
        run_datacurve,
        "train the winner on parts of the data: what would more data buy?",
        "posesweep datacurve runs/mice\nposesweep datacurve runs/mice --shares 0.1 0.2 0.4 0.6 0.8 1 --seeds 3",
    )
    curve.add_argument("folder", type=Path, help="a sweep folder")
    curve.add_argument(
        "--shares", type=share, nargs="+", metavar="S", help="of the training data (default: 0.25 0.5 0.75 1)"
    )
    curve.add_argument("--seeds", type=count, default=1, metavar="N", help="trainings of each part (default: 1)")


def _add_where(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "folder", type=Path, metavar="WHERE", help="a sweep, an exported winner, or one training's folder"
    )
    verb.add_argument("--trial", type=int, help="another trial of the sweep than its winner")


def _add_detector(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--min-score", type=share, default=0.0, metavar="S", help="leave boxes with a lower score out (default: 0)"
    )
    verb.add_argument(
        "--nms", type=share, default=0.9, metavar="OKS", help="of two objects more alike than this, one (default: 0.9)"
    )


def _add_eval(verbs: Verbs) -> None:
    evaluate = add_verb(
        verbs,
        "eval",
        run_eval,
        "score weights on a validation set, or on other annotations",
        "posesweep eval runs/mice --data test.json --images test/\n"
        "posesweep eval winner/ --data test.json --images test/ --boxes detections.json --out results.json",
    )
    _add_where(evaluate)
    evaluate.add_argument("--data", type=Path, help="other annotations than the validation split")
    evaluate.add_argument("--images", type=Path, help="the images of --data")
    evaluate.add_argument("--boxes", type=Path, help="a detector's boxes in place of the annotated ones")
    evaluate.add_argument("--out", type=Path, help="also write COCO keypoint results (.json)")
    _add_detector(evaluate)


def _add_export(verbs: Verbs) -> None:
    export = add_verb(
        verbs,
        "export",
        run_export,
        "copy the winner out: config, weights, skeleton, model card, ONNX",
        "posesweep export runs/mice winner/ --onnx --decode",
    )
    _add_where(export)
    export.add_argument("out", type=Path, help="where to put it")
    export.add_argument("--onnx", action="store_true", help="also model.onnx (pip install '.[export]')")
    export.add_argument("--decode", action="store_true", help="ONNX: keypoints in input pixels, not heatmaps or logits")
    export.add_argument(
        "--normalised", action="store_true", help="ONNX: takes normalised float images [batch, 3, H, W], not RGB bytes"
    )


def run_predict(asked: argparse.Namespace) -> int:
    """Predict on images and videos; 1 when some could not be read."""
    from posesweep.trainables.predict import Asked, predict

    options = Asked(
        out=asked.out,
        boxes=asked.boxes,
        min_score=asked.min_score,
        track=asked.track,
        overlays=not asked.no_overlays,
        batch=asked.batch,
        nms=asked.nms,
        flip_test=False if asked.no_flip_test else None,
        trial=asked.trial,
    )
    return predict(asked.folder, asked.inputs, options)


def run_export(asked: argparse.Namespace) -> None:
    """Copy the winner, or another trial, into a folder of its own."""
    from posesweep.errors import ConfigError
    from posesweep.trainables.export import Asked, export
    from posesweep.trainables.onnx_file import Form

    if (asked.decode or asked.normalised) and not asked.onnx:
        raise ConfigError(f"--{'decode' if asked.decode else 'normalised'}: is for model.onnx; give --onnx, too")
    form = Form(asked.decode, asked.normalised) if asked.onnx else None
    export(asked.folder, asked.out, Asked(asked.trial, form))


def run_eval(asked: argparse.Namespace) -> None:
    """Score a folder's best weights."""
    from posesweep.trainables.evaluate import Asked, evaluate

    options = Asked(
        data=asked.data,
        images=asked.images,
        boxes=asked.boxes,
        min_score=asked.min_score,
        nms=asked.nms,
        out=asked.out,
        trial=asked.trial,
    )
    evaluate(asked.folder, options)


def run_weights(asked: argparse.Namespace) -> None:
    """Look into a checkpoint; nothing in it is run."""
    from posesweep.trainables.candidates import describe

    describe(asked.file)


def run_datacurve(asked: argparse.Namespace) -> None:
    """Train on parts of the data, in this process; repeated, it goes on."""
    from posesweep.trainables import datacurve

    datacurve.run_datacurve(asked.folder, asked.shares or datacurve.SHARES, asked.seeds)
