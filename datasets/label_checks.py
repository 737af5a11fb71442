"""What is wrong, or looks wrong, with boxes, keypoints and categories; images are looked at in image_checks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from posesweep.datasets.findings import Finding
from posesweep.datasets.instances import Instances
from posesweep.datasets.limbs import Limbs, measure_limbs
from posesweep.datasets.swaps import Swaps, exchanged, find_swaps

ON_THE_EDGE_PX = 1.0  # a keypoint at x = width is a matter of how pixels are counted
OUTSIDE_IS_ERROR = 0.02  # of the image's longer side; nearer to the border it is a warning
FAR, VERY_FAR = 0.25, 0.5  # of the box's longer side: a warning, an error
WHATEVER_LIMBS_SAY = 10.0  # log odds of a swap
RARE_SHARE = 0.02  # of the annotations: a keypoint that is labelled in fewer
RARE_CATEGORY, UNEQUAL = 10, 20  # annotations of a category, or times fewer than the largest, from which on it is rare


@dataclass(frozen=True)
class Labels:
    """The annotations of one set, or of train and val together, and what is known of their images."""

    instances: Instances
    sizes: Int[np.ndarray, "m 2"]  # width, height in pixels; 0 where the image could not be read
    sides: tuple[str, ...]  # m; train or val, or "" where there is one side only

    def finding(self, row: int | np.integer, kind: str, severity: str, text: str, **more: object) -> Finding:
        """A finding about annotation `row`."""
        image = int(self.instances.image_index[row])
        return Finding(
            kind,
            severity,  # type: ignore[arg-type]
            text,
            str(self.instances.image_files[image]),
            self.sides[image],
            int(self.instances.ids[row]),
            **more,  # type: ignore[arg-type]
        )


def check_labels(labels: Labels) -> list[Finding]:
    """Everything that annotations alone, with the sizes of their images, can tell."""
    known = labels.instances.visibility > 0
    nowhere = known & (labels.instances.keypoints == 0).all(axis=2)
    outside, out_by = _outside(labels, known & ~nowhere)
    box_out = _boxes_outside(labels)
    far, far_by = _far(labels, known & ~nowhere & ~outside & ~box_out[:, None])
    sound = known & ~nowhere & ~outside & ~far
    return [
        *_boxes(labels, box_out),
        *_at_the_origin(labels, nowhere),
        *_beyond(labels, outside, out_by),
        *_away(labels, far, far_by),
        *_geometry(labels, sound),
        *_empty(labels),
        *_visibility_of_the_set(labels),
        *_rare_keypoints(labels),
        *_rare_categories(labels),
    ]


# ------------------------------------------------------------------------------------------------------------ places


def _boxes_outside(labels: Labels) -> Bool[np.ndarray, "n"]:
    """Which boxes have their middle outside the image. An edge may be: boxes drawn around keypoints have a margin."""
    boxes, sizes = labels.instances.boxes, labels.sizes[labels.instances.image_index]
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    return np.asarray(((middles < 0) | (middles > sizes)).any(axis=1) & (sizes[:, 0] > 0))


def _boxes(labels: Labels, outside: Bool[np.ndarray, "n"]) -> Iterator[Finding]:
    for row in np.flatnonzero(outside):
        width, height = labels.sizes[labels.instances.image_index[row]]
        box = ", ".join(f"{value:g}" for value in labels.instances.boxes[row].round(1))
        text = f"the middle of its box ({box}) lies outside the image, which is {width} x {height} pixels"
        yield labels.finding(row, "box outside the image", "error", text)


def _outside(labels: Labels, known: Bool[np.ndarray, "n K"]) -> tuple[np.ndarray, np.ndarray]:
    """Which keypoints are not on the image, and by how many pixels."""
    sizes = labels.sizes[labels.instances.image_index][:, None]
    points = labels.instances.keypoints
    by = np.maximum(-0.5 - points, points - (sizes - 0.5)).max(axis=2)
    return known & (by > ON_THE_EDGE_PX) & (sizes[:, :, 0] > 0), by


def _beyond(labels: Labels, outside: np.ndarray, by: np.ndarray) -> Iterator[Finding]:
    for row, k in np.argwhere(outside):
        size = labels.sizes[labels.instances.image_index[row]]
        name, (x, y) = _name(labels, k), labels.instances.keypoints[row, k]
        text = f"{name} at ({x:.1f}, {y:.1f}) is {by[row, k]:.1f} px outside the image of {size[0]} x {size[1]} pixels"
        severity = "error" if by[row, k] > OUTSIDE_IS_ERROR * size.max() else "warning"
        yield labels.finding(
            row, "keypoint outside the image", severity, text, keypoint=name, score=float(by[row, k] / size.max())
        )


def _far(labels: Labels, known: Bool[np.ndarray, "n K"]) -> tuple[np.ndarray, np.ndarray]:
    """Which keypoints are far outside of their own box, and by how much of its longer side."""
    boxes, points = labels.instances.boxes[:, None], labels.instances.keypoints
    by = np.maximum(boxes[:, :, :2] - points, points - boxes[:, :, :2] - boxes[:, :, 2:]).max(axis=2)
    share = by / boxes[:, :, 2:].max(axis=2).clip(1e-9)
    return known & (share > FAR), share


def _away(labels: Labels, far: np.ndarray, by: np.ndarray) -> Iterator[Finding]:
    for row, k in np.argwhere(far):
        name = _name(labels, k)
        text = f"{name} lies {by[row, k]:.2f} x the longer side of its own box outside of it"
        severity = "error" if by[row, k] > VERY_FAR else "warning"
        yield labels.finding(row, "keypoint far from its box", severity, text, keypoint=name, score=float(by[row, k]))


def _at_the_origin(labels: Labels, nowhere: np.ndarray) -> Iterator[Finding]:
    for row, k in np.argwhere(nowhere):
        name, visibility = _name(labels, k), labels.instances.visibility[row, k]
        text = f"{name} has visibility {visibility} at exactly (0, 0), where unlabelled keypoints are written"
        yield labels.finding(row, "visibility", "error", text, keypoint=name)


# ---------------------------------------------------------------------------------------------------------- geometry


def _geometry(labels: Labels, sound: Bool[np.ndarray, "n K"]) -> Iterator[Finding]:
    """Improbable limbs and suspected swaps.

    A swap lengthens limbs, and a keypoint in the wrong place may look swapped: a swap is told where the pose, exchanged
    back, has fewer improbable limbs, or had none, or the odds are overwhelming; limbs are judged after the exchange."""
    instances = labels.instances
    rows = np.flatnonzero(sound.any(axis=1) & ~instances.crowd)
    if not len(rows):
        return
    points, known = instances.keypoints[rows], sound[rows]
    visibility = np.where(known, instances.visibility[rows], 0).astype(np.int64)
    before = measure_limbs(points, known, instances.skeleton)
    swaps = find_swaps(own_poses(points, known, before, instances.boxes[rows]), visibility, instances.skeleton)
    suspects = np.flatnonzero(swaps.suspected)
    units = [swaps.units[unit] for unit in swaps.unit[suspects]]
    points, known = points.copy(), known.copy()
    turned = exchanged(points[suspects], units), exchanged(known[suspects], units)
    was = points[suspects], known[suspects]
    points[suspects], known[suspects] = turned
    after = measure_limbs(points, known, instances.skeleton)
    counts = [limbs.improbable()[suspects].sum(axis=1) for limbs in (before, after)]
    explained = (counts[1] < counts[0]) | (counts[0] == 0) | (swaps.log_odds[suspects] > WHATEVER_LIMBS_SAY)
    points[suspects[~explained]], known[suspects[~explained]] = (side[~explained] for side in was)
    yield from _swapped(labels, rows, swaps, suspects[explained])
    yield from _stretched(labels, rows, measure_limbs(points, known, instances.skeleton))


def own_poses(
    points: Float[np.ndarray, "n K 2"], known: Bool[np.ndarray, "n K"], limbs: Limbs, boxes: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n K 2"]:
    """About the middle of the known keypoints, in a size that neither a cut-off box nor one wrong keypoint changes."""
    sides = boxes[:, 2:].max(axis=1)
    has_size = np.isfinite(limbs.sizes)
    unit = np.median((limbs.sizes / sides)[has_size]) if has_size.any() else 1.0
    sizes = np.where(has_size, limbs.sizes / unit, sides)
    middles = np.where(known[:, :, None], points, 0.0).sum(axis=1) / known.sum(axis=1)[:, None].clip(1)
    return np.where(known[:, :, None], (points - middles[:, None]) / sizes[:, None, None], 0.0)


def _swapped(labels: Labels, rows: np.ndarray, swaps: Swaps, suspects: np.ndarray) -> Iterator[Finding]:
    for i in suspects:
        unit, odds = swaps.units[swaps.unit[i]], float(swaps.log_odds[i])
        text = f"left and right look exchanged: {unit.name} (log odds {odds:.1f}, from the other poses of the set)"
        name = _name(labels, unit.pairs[0][0])
        yield labels.finding(rows[i], "left and right swapped", "warning", text, keypoint=name, score=odds)


def _stretched(labels: Labels, rows: np.ndarray, limbs: Limbs) -> Iterator[Finding]:
    """One finding for each keypoint that explains improbable limbs: of a limb's ends the one with more of them."""
    improbable = limbs.improbable()
    for i in np.flatnonzero(improbable.any(axis=1)):
        left = improbable[i].copy()
        while left.any():
            blame = np.zeros(len(labels.instances.skeleton.keypoints))
            np.add.at(blame, limbs.edges[left], 1 + (limbs.excess[i, left] / (1 + limbs.excess[i, left]))[:, None])
            k = int(blame.argmax())
            mine = left & (limbs.edges == k).any(axis=1)
            worst = int(np.argmax(np.where(mine, limbs.excess[i], -np.inf)))
            other = _name(labels, int(limbs.edges[worst][limbs.edges[worst] != k][0]))
            times = float(np.exp(limbs.excess[i, worst]))
            name = _name(labels, k)
            text = f"{name} to {other} is {times:.1f} x as long as is usual in this set for a body of this size"
            yield labels.finding(rows[i], "improbable limb", "warning", text, keypoint=name, score=times)
            left &= ~mine


# ----------------------------------------------------------------------------------------------------- the whole set


def _empty(labels: Labels) -> Iterator[Finding]:
    for row in np.flatnonzero(~labels.instances.labelled & ~labels.instances.crowd):
        yield labels.finding(row, "empty annotation", "warning", "has no labelled keypoint")


def _visibility_of_the_set(labels: Labels) -> Iterator[Finding]:
    visibility = labels.instances.visibility[labels.instances.labelled]
    if not len(visibility):
        return
    if (visibility == 2).all():
        text = "every keypoint of every annotation is visible (2); were hidden ones guessed, or is nothing ever hidden?"
        yield Finding("visibility", "note", text)
    elif not (visibility == 1).any():
        yield Finding("visibility", "note", "no keypoint is marked as hidden (1); OKS counts 1 and 2 alike")


def _rare_keypoints(labels: Labels) -> Iterator[Finding]:
    visibility = labels.instances.visibility[labels.instances.labelled]
    counts = (visibility > 0).sum(axis=0)
    for k in np.flatnonzero(counts < max(1.0, RARE_SHARE * len(visibility))) if len(visibility) else ():
        name = _name(labels, k)
        often = f"in {counts[k]} of {len(visibility)} annotations" if counts[k] else "never"
        yield Finding("rare keypoint", "warning", f"{name} is labelled {often}; it cannot be learned", keypoint=name)


def _rare_categories(labels: Labels) -> Iterator[Finding]:
    instances = labels.instances
    ids, counts = np.unique(instances.category_ids, return_counts=True)
    sides = np.array(labels.sides)[instances.image_index] if len(instances) else np.array([])
    for category, count in zip(ids.tolist(), counts.tolist(), strict=True):
        name = instances.category_names.get(category, str(category))
        if "train" in sides and not (sides[instances.category_ids == category] == "train").any():
            yield Finding(
                "rare category", "warning", f"category '{name}' is in val, never in train", score=float(count)
            )
        elif len(ids) > 1 and (count < RARE_CATEGORY or UNEQUAL * count < counts.max()):
            text = f"category '{name}' has {count} annotations, the largest {counts.max()}"
            yield Finding("rare category", "warning", text, score=float(counts.max() / count))


def _name(labels: Labels, k: int | np.integer) -> str:
    return labels.instances.skeleton.keypoints[k]
