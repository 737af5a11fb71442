"""Keypoint AP: our time against pycocotools', and whether all ten numbers are equal to the last bit.

Counted for ours: `match` and `keypoint_ap`, from arrays. Counted for pycocotools: `evaluate`, `accumulate` and
`summarize`, from loaded COCO objects; making those objects and `loadRes` are left out. Both run in turns, three times
each; the least processor time of each is shown (a busy machine then counts little), so keep NumPy to one thread:

    OMP_NUM_THREADS=1 python -m posesweep.benchmarks.evaluation
"""

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

from posesweep.analysis.keypoint_ap import Detections, Truth, keypoint_ap, match

KEYPOINTS = 17
SIGMAS = np.linspace(0.025, 0.107, KEYPOINTS)


@dataclass(frozen=True)
class Scene:
    """How large a random data set is."""

    objects: int
    categories: int
    detections_per_object: int
    objects_per_image: int = 1


def random_scene(scene: Scene, seed: int) -> tuple[Truth, Detections]:
    """Objects of all sizes, a quarter of their keypoints not labelled, and predictions that are off by a little."""
    rng = np.random.default_rng(seed)
    n = scene.objects
    size = rng.uniform(20, 300, (n, 1, 1))
    points = rng.uniform(0, 1, (n, KEYPOINTS, 2)) * size + rng.uniform(0, 500, (n, 1, 2))
    truth = Truth(
        image_ids=np.arange(n) // scene.objects_per_image + 1,
        category_ids=rng.integers(1, scene.categories + 1, n),
        keypoints=points,
        visibility=rng.choice(np.array([0, 1, 2, 2], np.uint8), (n, KEYPOINTS)),
        areas=size[:, 0, 0] ** 2 * 0.6,
        boxes=np.concatenate([points.min(axis=1), np.ptp(points, axis=1)], axis=1),
        crowd=rng.random(n) < 0.01,
        ids=np.arange(1, n + 1),
    )
    of = np.repeat(np.arange(n), scene.detections_per_object)
    error = rng.normal(0, 1, (len(of), KEYPOINTS, 2)) * size[of] * rng.exponential(0.06, (len(of), 1, 1))
    detections = Detections(truth.image_ids[of], truth.category_ids[of], points[of] + error, rng.random(len(of)))
    return truth, detections


def coco_objects(truth: Truth, detections: Detections, categories: list[int] | None = None) -> tuple[COCO, COCO]:
    """The same truth and detections as pycocotools holds them."""
    visible = np.concatenate([truth.keypoints, truth.visibility[..., None]], axis=2)
    known = COCO()
    known.dataset = {
        "images": [{"id": int(i)} for i in truth.evaluated_images()],
        "categories": [{"id": int(c)} for c in categories or np.unique(truth.category_ids)],
        "annotations": [
            {
                "id": int(truth.ids[i]),
                "image_id": int(truth.image_ids[i]),
                "category_id": int(truth.category_ids[i]),
                "keypoints": visible[i].ravel().tolist(),
                "num_keypoints": int((truth.visibility[i] > 0).sum()),
                "area": float(truth.areas[i]),
                "bbox": truth.boxes[i].tolist(),
                "iscrowd": int(truth.crowd[i]),
            }
            for i in range(len(truth.ids))
        ],
    }
    scored = np.concatenate([detections.keypoints, np.ones((*detections.keypoints.shape[:2], 1))], axis=2)
    results = [
        {
            "image_id": int(detections.image_ids[i]),
            "category_id": int(detections.category_ids[i]),
            "keypoints": scored[i].ravel().tolist(),
            "score": float(detections.scores[i]),
        }
        for i in range(len(scored))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        if results:
            return known, known.loadRes(results)
        nothing = COCO()  # loadRes fails on an empty list
        nothing.dataset = {**known.dataset, "annotations": []}
        nothing.createIndex()
        return known, nothing


def pycocotools_ap(known: COCO, found: COCO, sigmas: np.ndarray) -> list[float]:
    """The ten numbers of COCOeval: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(known, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def our_ap(truth: Truth, detections: Detections) -> list[float]:
    """The same ten numbers."""
    return list(keypoint_ap(match(truth, detections, SIGMAS)).values())


def cpu_seconds(run: Callable[[], object]) -> float:
    """The processor time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Print the table."""
    table = Table("objects", "categories", "found each", "per image", "pycocotools ms", "ours ms", "ratio", "equal")
    for scene in (
        *(Scene(n, c, 1) for n in (500, 10_000) for c in (1, 54)),
        *(Scene(n, c, 5) for n in (500, 10_000) for c in (1, 54)),
        Scene(10_000, 1, 5, objects_per_image=4),
    ):
        truth, detections = random_scene(scene, seed=0)
        known, found = coco_objects(truth, detections)
        theirs, ours = partial(pycocotools_ap, known, found, SIGMAS), partial(our_ap, truth, detections)
        equal = theirs() == ours()
        slow, fast = np.min([(cpu_seconds(theirs), cpu_seconds(ours)) for _ in range(3)], axis=0)
        row = [*vars(scene).values(), f"{slow * 1e3:.0f}", f"{fast * 1e3:.2f}", f"{slow / fast:.1f}", equal]
        table.add_row(*map(str, row))
    Console().print(table)


if __name__ == "__main__":
    main()
