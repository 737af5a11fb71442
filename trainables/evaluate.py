"""`posesweep eval`: score weights on the validation set or on other annotations, in annotated boxes or a detector's."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from posesweep.analysis.keypoint_ap import MAX_DETECTIONS, Detections, Truth, defined, keypoint_ap, match
from posesweep.datasets.boxes import areas_of
from posesweep.datasets.counting import counting
from posesweep.datasets.crops import CropSpec, open_crops
from posesweep.datasets.detections import Boxes, assign, read_boxes
from posesweep.datasets.documents import read_json
from posesweep.datasets.images import folder_beside, inside
from posesweep.datasets.instances import Instances
from posesweep.datasets.loading import batches, validation_order
from posesweep.datasets.read import detect
from posesweep.datasets.topdown import TopDownSamples
from posesweep.errors import ConfigError, DataError
from posesweep.files import write_text
from posesweep.trainables.context import Context, default_cache, pick_device, prepare_process
from posesweep.trainables.layout import placed
from posesweep.trainables.predictions import Found, exact_results_of, results_text
from posesweep.trainables.rescoring import OKS_THRESHOLD, best_of_each, rescored, seen_areas
from posesweep.trainables.task import Score
from posesweep.trainables.tasks.topdown import TopDown, build, build_on
from posesweep.trainables.trained import Predictor, Trained, amp_on, find_trained, load_network
from posesweep.trainables.trial import score_network

Place = tuple[int, Found]  # an image id, and what was found there


@dataclass(frozen=True)
class Asked:
    """The options of `posesweep eval`."""

    data: Path | None = None  # None: the validation split
    images: Path | None = None  # None: found from where the annotations lie
    boxes: Path | None = None  # None: the annotated ones
    min_score: float = 0.0  # of a box
    nms: float = OKS_THRESHOLD
    out: Path | None = None
    trial: int | None = None


def evaluate(where: Path, asked: Asked) -> None:
    """Print the metrics of the weights in `where`, and write COCO results where that is asked for.

    Raises SweepError, ConfigError or DataError for a model or data that cannot be used.
    """
    if asked.data is None and asked.images is not None:
        raise ConfigError("--images: is for the images of --data; give both, or neither for the validation split")
    trained = find_trained(where, asked.trial)
    prepare_process(trained.config.threads, trained.config.seed)
    task = _task(trained, asked)
    if asked.boxes is None:
        score = _in_annotated_boxes(trained, task)
        metrics, found = score.metrics, found_in(score.evidence)
    else:
        metrics, found = _in_detected_boxes(trained, task.truth, asked)
    for name, value in metrics.items():
        print(f"{name:>14} {value:.4f}")
    if asked.out is not None:
        write_text(asked.out, results_text(entry for place in found for entry in exact_results_of(*place)))
        print(f"{sum(len(one.scores) for _, one in found)} results are in {asked.out}")


def _task(trained: Trained, asked: Asked) -> TopDown:
    """What the annotations ask: those of --data, else the validation split, whose files must be where they were."""
    if asked.data is not None:
        return build_on(trained.config, asked.data, asked.images, trained.skeleton)
    try:
        return build(placed(trained.config, trained.folder))
    except ConfigError as error:
        raise ConfigError([*error.mistakes, "or score other annotations: --data FILE --images FOLDER"]) from None


def _in_annotated_boxes(trained: Trained, task: TopDown) -> Score:
    device = pick_device()
    config = trained.config.model_copy(update={"amp": amp_on(trained.config, device)})
    context = Context(trained.folder, lambda row: None, device)
    return score_network(load_network(trained).to(device), task, task.val, config, context)


def found_in(evidence: dict[str, np.ndarray]) -> list[Place]:
    """The predictions of a score by image id."""
    rows = np.concatenate([evidence["keypoints"], evidence["keypoint_score"][..., None]], axis=2)
    return _by_image(evidence["image_id"], rows, evidence["score"], evidence["box"], evidence["category_id"])


def _by_image(
    image_ids: Int[np.ndarray, "n"],
    rows: Float[np.ndarray, "n K 3"],
    scores: Float[np.ndarray, "n"],
    boxes: Float[np.ndarray, "n 4"],
    categories: Int[np.ndarray, "n"],
) -> list[Place]:
    return [
        (int(image), Found(rows[of], scores[of], boxes[of], categories[of]))
        for image in np.unique(image_ids)
        for of in [np.flatnonzero(image_ids == image)]
    ]


# ------------------------------------------------------------------------------------------------- detector's boxes


@dataclass(frozen=True)
class Detected:
    """A detector's boxes as objects of which nothing is labelled; `scores` are the boxes'."""

    objects: Instances
    scores: Float[np.ndarray, "n"]

    def take(self, rows: np.ndarray) -> "Detected":
        """Those at `rows`."""
        return Detected(self.objects.take(rows), self.scores[rows])


def _in_detected_boxes(trained: Trained, truth: Instances, asked: Asked) -> tuple[dict[str, float], list[Place]]:
    """COCO's practice for top-down networks (HRNet, mmpose): keypoints in every box of the file, rescored, OKS NMS, and
    the best 20 of each image; AP over all images that the annotations list."""
    assert asked.boxes is not None
    images = _images_of(truth, asked)
    detected = _detected(read_boxes(asked.boxes), images, truth, asked.min_score)
    rows, detected, unread = _predicted(trained, detected)
    scores = rescored(detected.scores, rows)
    kept = _kept(trained, detected.objects, rows, scores, asked.nms)
    print(f"{len(rows)} boxes in {len(images)} images; {len(kept)} objects are left after OKS NMS at {asked.nms:g}")
    of = detected.objects.take(kept)
    image_ids = of.image_ids[of.image_index]
    detections = Detections(image_ids, of.category_ids, rows[kept, :, :2], scores[kept])
    known = np.array(sorted(set(images) - unread), dtype=np.int64)
    readable = truth.take(~np.isin(truth.image_ids[truth.image_index], sorted(unread)))
    truths = replace(Truth.from_instances(readable), images=known)
    metrics = keypoint_ap(match(truths, detections, truth.skeleton.sigmas))
    return defined(metrics), _by_image(image_ids, rows[kept], scores[kept], of.boxes, of.category_ids)


def _images_of(truth: Instances, asked: Asked) -> dict[int, Path]:
    """Every image that is evaluated: also those where nothing is annotated, in which a detection is a false one."""
    images = dict(zip(truth.image_ids.tolist(), truth.image_files, strict=True))
    if asked.data is None or not asked.data.is_file() or detect(asked.data) != "coco":
        return images
    entries = {entry["id"]: str(entry["file_name"]) for entry in read_json(asked.data)["images"]}
    folder = asked.images or folder_beside(asked.data, list(entries.values()))
    others = {i: inside(folder, name) for i, name in entries.items() if i not in images}
    return images | {i: file for i, file in others.items() if file.is_file()}


def _detected(boxes: Boxes, images: dict[int, Path], truth: Instances, min_score: float) -> Detected:
    """The boxes of evaluated images and categories. DataError: there are none."""
    ids = list(images)
    rows = assign(boxes, [file.name for file in images.values()], ids)
    index = np.repeat(np.arange(len(ids)), [len(row) for row in rows])
    taken = boxes.take(np.concatenate(rows))
    wanted = np.isin(taken.category_ids, truth.category_ids) & (taken.scores >= min_score)
    if not wanted.any():
        raise DataError(
            f"{boxes.path}: none of its {len(boxes)} boxes is of an annotated image, of an annotated category "
            f"({', '.join(map(str, sorted(set(truth.category_ids.tolist()))))}) and scores at least {min_score:g}"
        )
    taken, index = taken.take(wanted), index[wanted]
    count = len(truth.skeleton.keypoints)
    objects = Instances(
        skeleton=truth.skeleton,
        image_files=tuple(images.values()),
        image_ids=np.array(ids, dtype=np.int64),
        image_groups=("",) * len(ids),
        image_index=index,
        ids=np.arange(len(taken), dtype=np.int64),
        category_ids=taken.category_ids,
        boxes=taken.boxes,
        keypoints=np.zeros((len(taken), count, 2)),
        visibility=np.zeros((len(taken), count), np.uint8),
        areas=areas_of(taken.boxes),
        crowd=np.zeros(len(taken), bool),
    )
    return Detected(objects, taken.scores)


def _predicted(trained: Trained, detected: Detected) -> tuple[Float[np.ndarray, "u K 3"], Detected, set[int]]:
    """Keypoints in every box whose image can be read, those boxes, and the ids of the images that cannot."""
    config, objects = trained.config, detected.objects
    with counting("crops") as count:
        crops = open_crops(objects, CropSpec(*config.imgsz), default_cache(), count, cache_gb=config.cache_gb)
    for line in crops.left_out:
        print(f"left out: {line}")
    unread = set(objects.image_ids[objects.image_index[~crops.usable]].tolist())
    samples = TopDownSamples(crops, objects, config.imgsz)
    predictor = Predictor.of(trained)
    orders = validation_order(len(samples), config.batch_per_forward, 0, 1)
    parts = [predictor(arrays["image"], arrays["to_image"]) for arrays in batches(samples, orders, 0, config.threads)]
    return np.concatenate(parts), detected.take(crops.usable), unread


def _kept(
    trained: Trained, objects: Instances, rows: Float[np.ndarray, "n K 3"], scores: Float[np.ndarray, "n"], nms: float
) -> Int[np.ndarray, "k"]:
    """Rows left by OKS NMS, of each image and category the best 20."""
    areas, sigmas = seen_areas(objects.boxes, trained.config.imgsz), objects.skeleton.sigmas
    kept: list[int] = []
    for image in np.unique(objects.image_index):
        of = np.flatnonzero(objects.image_index == image)
        left = of[best_of_each(rows[of], scores[of], areas[of], objects.category_ids[of], sigmas, nms)]
        for category in np.unique(objects.category_ids[left]):
            own = left[objects.category_ids[left] == category]
            kept += own[np.argsort(-scores[own], kind="stable")[:MAX_DETECTIONS]].tolist()
    return np.array(kept, dtype=np.int64)
