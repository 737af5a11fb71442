"""`posesweep sigmas`: OKS sigmas measured on objects that two people annotated, instead of guessed.

COCO's definition (cocodataset.org, keypoint evaluation): over redundantly annotated images, the per-keypoint standard
deviation relative to the object's scale, sigma^2 = E[d^2 / s^2], with d the distance in pixels (both axes together, not
one) and s^2 the object's area. It does not say from what d is measured, and that is worth a factor of 1.41:

both are noisy (the default)   Two equally careful annotators differ by twice the variance of one, so half of
                               E[d^2 / s^2] is the spread of ONE annotator: the sample variance of a pair, and what OKS
                               needs, because a prediction is compared with the labels of one.
`second_is_truth`              The second file is as good as exact (markers, consensus of many): nothing is halved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.table import Table

from posesweep.datasets.instances import Instances
from posesweep.datasets.read import Reading, read_any
from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.errors import DataError
from posesweep.files import write_text

LEAST_PAIRS = 20  # of labels; a sigma then has a standard error of 11 %, 1 / (2 sqrt(pairs))
SAME_OBJECT = 0.3  # IoU of two boxes from which they may be of one object
FAR = 3.0  # x sigma of a pair: one pair in 8,000 by chance, so more are slips, such as left and right swapped
RESAMPLES = 1000


@dataclass(frozen=True)
class SigmaEstimate:
    """Per keypoint of `skeleton`; sigmas are nan where fewer than LEAST_PAIRS pairs were labelled by both."""

    skeleton: Skeleton
    objects: int  # found in both files
    pairs: Int[np.ndarray, "K"]  # labels in both files that a sigma rests on; mirror images share theirs
    sigmas: Float[np.ndarray, "K"]
    low: Float[np.ndarray, "K"]  # 95 % interval, bootstrap over objects
    high: Float[np.ndarray, "K"]
    far: Int[np.ndarray, "K"]  # pairs more than FAR x their typical distance apart
    second_is_truth: bool = False


def estimate_sigmas(
    first: Instances, second: Instances, second_is_truth: bool = False, pool_sides: bool = True, seed: int = 0
) -> SigmaEstimate:
    """Sigmas from two annotations of the same objects, matched by image file and box.

    `pool_sides`: a keypoint and its mirror image share one sigma, as COCO's do, on twice the pairs. The area is the
    mean of both files'. DataError: other keypoints, no object in common, or files that agree to the pixel."""
    if first.skeleton.keypoints != second.skeleton.keypoints:
        raise DataError(
            f"sigmas: the files have the keypoints of '{first.skeleton.name}' and of '{second.skeleton.name}'; "
            "both must be of one skeleton"
        )
    ours, theirs = match_objects(first, second)
    squares = _squares(first.take(ours), second.take(theirs)) / (1.0 if second_is_truth else 2.0)
    if not np.nansum(squares) > 0:
        raise DataError(
            f"sigmas: all labels of the {len(ours)} common objects agree to the pixel; "
            "give two annotations made independently"
        )
    groups = _groups(first.skeleton, pool_sides)
    pairs = np.array([np.isfinite(squares[:, group]).sum() for group in groups])
    sigmas = np.array([_sigma(squares[:, group]) for group in groups])
    low, high = _interval(squares, groups, np.random.default_rng(seed))
    enough = (pairs >= LEAST_PAIRS) & (sigmas > 0)
    sigmas, low, high = (np.where(enough, values, np.nan) for values in (sigmas, low, high))
    typical = np.where(enough, sigmas, np.inf)
    far = (squares > (FAR * typical) ** 2).sum(axis=0)
    return SigmaEstimate(first.skeleton, len(ours), pairs, sigmas, low, high, far, second_is_truth)


def match_objects(first: Instances, second: Instances) -> tuple[Int[np.ndarray, "p"], Int[np.ndarray, "p"]]:
    """Rows of `first` and of `second` that are one object: same image file, boxes that overlap most, at least 0.3.

    Crowds and objects without a labelled keypoint are left out. DataError: not one object in common."""
    ours, theirs = _by_image(first), _by_image(second)
    pairs = [
        pair
        for file in sorted(ours.keys() & theirs.keys())
        for pair in _matched(first, second, ours[file], theirs[file])
    ]
    if not pairs:
        raise DataError(
            "sigmas: the files have no object in common; both must name the same images, "
            f"and boxes of one object overlap by {SAME_OBJECT} or more (IoU)"
        )
    rows = np.array(pairs)
    return rows[:, 0], rows[:, 1]


def skeleton_yaml(estimate: SigmaEstimate) -> str:
    """The skeleton with its measured sigmas as a YAML file; keypoints with too few pairs keep the sigma they had."""
    skeleton = estimate.skeleton
    measured = np.isfinite(estimate.sigmas)
    values = np.where(measured, estimate.sigmas, skeleton.sigmas)
    content = {
        "name": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "edges": [list(edge) for edge in skeleton.edges],
        "sigmas": {name: float(f"{v:.4g}") for name, v in zip(skeleton.keypoints, values, strict=True)},
    }
    if skeleton.upper_body:
        content["upper_body"] = list(skeleton.upper_body)
    if not measured.all():
        content["sigmas_note"] = _unmeasured(skeleton, measured)
    against = "a second one taken as the truth" if estimate.second_is_truth else "each other"
    header = f"# Sigmas: COCO's definition, on {estimate.objects} objects annotated twice, compared with {against}.\n"
    return header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)


def run_sigmas(
    first: Path, second: Path, out: Path, images: Path | None = None, skeleton: str | None = None, truth: bool = False
) -> None:
    """Estimate from two annotation files, write the skeleton file `out` and print the table.

    DataError: mistakes in the files; `out` is there already."""
    if out.exists():
        raise DataError(f"{out}: is there already; name a new file")
    reading = Reading(load_skeleton(skeleton) if skeleton is not None else None)
    estimate = estimate_sigmas(read_any(first, images, reading), read_any(second, images, reading), truth)
    write_text(out, skeleton_yaml(estimate))
    console = Console(highlight=False, soft_wrap=True)
    _print(estimate, console)
    console.print(f"written: {out}; use it with data: {{skeleton: {out}}}", markup=False)


# ------------------------------------------------------------------------------------------------------- the numbers


def _squares(first: Instances, second: Instances) -> Float[np.ndarray, "p K"]:
    """d^2 / s^2 of every pair of labels, nan where one of them is missing."""
    both = (first.visibility > 0) & (second.visibility > 0)
    distance = ((first.keypoints - second.keypoints) ** 2).sum(axis=2)
    area = (first.areas + second.areas)[:, None] / 2
    return np.where(both, distance / area, np.nan)


def _groups(skeleton: Skeleton, pool_sides: bool) -> list[list[int]]:
    """For each keypoint the columns its sigma is estimated from."""
    mirrored = skeleton.flip_index.tolist()
    return [sorted({k, mirror}) if pool_sides else [k] for k, mirror in enumerate(mirrored)]


def _sigma(squares: Float[np.ndarray, "p g"]) -> float:
    found = squares[np.isfinite(squares)]
    return float(np.sqrt(found.mean())) if len(found) else float("nan")


def _interval(
    squares: Float[np.ndarray, "p K"], groups: list[list[int]], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """95 % percentile intervals. Objects are drawn, not labels: those of one object share its annotators' care."""
    weights = rng.multinomial(len(squares), np.full(len(squares), 1 / len(squares)), RESAMPLES).astype(float)
    labelled = np.isfinite(squares)
    sums, counts = weights @ np.where(labelled, squares, 0.0), weights @ labelled
    pooled = [(sums[:, group].sum(axis=1), counts[:, group].sum(axis=1)) for group in groups]
    sigmas = np.stack([np.sqrt(total / np.maximum(count, 1)) for total, count in pooled], axis=1)
    low, high = np.percentile(sigmas, [2.5, 97.5], axis=0)
    return low, high


# ------------------------------------------------------------------------------------------------------ the same object


def _by_image(instances: Instances) -> dict[str, Int[np.ndarray, "r"]]:
    usable = np.flatnonzero(instances.labelled & ~instances.crowd)
    of_image = instances.image_index[usable]
    return {str(instances.image_files[i].resolve()): usable[of_image == i] for i in np.unique(of_image).tolist()}


def _matched(
    first: Instances, second: Instances, ours: Int[np.ndarray, "a"], theirs: Int[np.ndarray, "b"]
) -> Iterator[tuple[int, int]]:
    """Rows of one image, the pair of boxes that overlaps most first, each row once."""
    overlap = _iou(first.boxes[ours], second.boxes[theirs])
    free: Bool[np.ndarray, "a b"] = overlap >= SAME_OBJECT
    while free.any():
        a, b = np.unravel_index(np.where(free, overlap, -1).argmax(), overlap.shape)
        free[a], free[:, b] = False, False
        yield int(ours[a]), int(theirs[b])


def _iou(a: Float[np.ndarray, "a 4"], b: Float[np.ndarray, "b 4"]) -> Float[np.ndarray, "a b"]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    common = (high - low).clip(0).prod(axis=2)
    either = a[:, 2:].prod(axis=1)[:, None] + b[:, 2:].prod(axis=1)[None] - common
    return common / np.maximum(either, 1e-12)


# ------------------------------------------------------------------------------------------------------- the words


def _unmeasured(skeleton: Skeleton, measured: Bool[np.ndarray, "K"]) -> str:
    names = [name for name, ok in zip(skeleton.keypoints, measured, strict=True) if not ok]
    return (
        f"OKS sigmas of {', '.join(names)} are not measured (fewer than {LEAST_PAIRS} pairs of labels, or no "
        "difference); they are those of the skeleton before"
    )


def _print(estimate: SigmaEstimate, console: Console) -> None:
    table = Table("keypoint", "pairs", "sigma", "95 % interval", "before", "far apart", box=None)
    for k, name in enumerate(estimate.skeleton.keypoints):
        known = np.isfinite(estimate.sigmas[k])
        found = f"{estimate.sigmas[k]:.4f}" if known else "-"
        interval = f"{estimate.low[k]:.4f} to {estimate.high[k]:.4f}" if known else f"needs {LEAST_PAIRS} pairs"
        before, far = f"{estimate.skeleton.sigmas[k]:.4f}", int(estimate.far[k])
        table.add_row(name, str(estimate.pairs[k]), found, interval, before, str(far or ""))
    console.print(table)
    console.print(f"{estimate.objects} objects annotated twice; a sigma is the spread of ", end="")
    console.print("the first file about the second" if estimate.second_is_truth else "one annotator")
    if estimate.far.any():
        console.print(
            f"note: {int(estimate.far.sum())} pairs of labels are more than {FAR:.0f} x sigma apart, where chance "
            "gives one in 8,000; look for swapped sides and slips, they raise sigma"
        )
