"""OKS and COCO keypoint AP, vectorised over images, categories, area ranges and thresholds.

Equal to the last bit of a float64 to pycocotools 2.0.11 with `COCOeval(iouType="keypoints")`, whose rules these are:
detections of one image and category are matched in the order of their scores, each to the best free truth at or above
the threshold; truths that do not count (crowd, nothing labelled, outside the area range) are matched last and take
their detection out of the count, as does an unmatched detection outside the area range. One deliberate difference:
a truth whose id is 0 is a truth like any other (pycocotools takes a match with it for none).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

AREA_RANGES = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels^2, both ends in
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # OKS
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 20  # per image and category
EPSILON = np.spacing(1.0)
PAIRS_PER_BLOCK = 1 << 13  # detections x truths looked at together: what a processor's cache holds
CURVE_POINTS_PER_BLOCK = 1 << 16  # resamples x thresholds x detections, for the same reason


@dataclass(frozen=True)
class Truth:
    """n annotated objects. `images` are the ids of all evaluated images; by default those that hold an object."""

    image_ids: Int[np.ndarray, "n"]
    category_ids: Int[np.ndarray, "n"]
    keypoints: Float[np.ndarray, "n K 2"]  # image pixels, xy
    visibility: UInt8[np.ndarray, "n K"]  # 0 not labelled
    areas: Float[np.ndarray, "n"]  # pixels^2
    boxes: Float[np.ndarray, "n 4"]  # x, y, width, height
    crowd: Bool[np.ndarray, "n"]
    ids: Int[np.ndarray, "n"]
    images: Int[np.ndarray, "m"] | None = None

    @classmethod
    def from_instances(cls, instances: Instances) -> "Truth":
        """The truth of annotated objects, in the images that hold at least one of them."""
        return cls(
            image_ids=instances.image_ids[instances.image_index],
            category_ids=instances.category_ids,
            keypoints=np.asarray(instances.keypoints, np.float64),
            visibility=instances.visibility,
            areas=np.asarray(instances.areas, np.float64),
            boxes=np.asarray(instances.boxes, np.float64),
            crowd=instances.crowd,
            ids=instances.ids,
        )

    def take(self, rows: Int[np.ndarray, "r"]) -> "Truth":
        """The objects at `rows`, in that order; the evaluated images stay as they are."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "images"}
        return replace(self, **columns)

    def evaluated_images(self) -> Int[np.ndarray, "m"]:
        """The ids of all evaluated images, ascending."""
        return np.unique(self.image_ids if self.images is None else self.images)

    def counts_in(self) -> Bool[np.ndarray, "A n"]:
        """Which objects count in which area range: labelled, no crowd, inside the range."""
        countable = (self.visibility > 0).any(axis=1) & ~self.crowd
        return countable & _in_range(self.areas)


@dataclass(frozen=True)
class Detections:
    """m predicted objects; a higher score is ranked first."""

    image_ids: Int[np.ndarray, "m"]
    category_ids: Int[np.ndarray, "m"]
    keypoints: Float[np.ndarray, "m K 2"]  # image pixels, xy
    scores: Float[np.ndarray, "m"]

    def areas(self) -> Float[np.ndarray, "m"]:
        """The extent of the keypoints in pixels^2, which pycocotools' `loadRes` takes for the area of a detection."""
        points = np.ascontiguousarray(self.keypoints.swapaxes(1, 2))  # keypoints last: ten times faster
        extent = points.max(axis=-1) - points.min(axis=-1)
        return extent[:, 0] * extent[:, 1]


@dataclass(frozen=True)
class Matches:
    """All that AP needs, in the order COCO ranks detections: by category, then score, ties by image.

    A = 3 area ranges, T = 10 thresholds, D detections, q pairs of image and category that hold a truth.
    """

    images: Int[np.ndarray, "m"]  # ids, ascending
    categories: Int[np.ndarray, "C"]  # ids, ascending; those of the truth
    image: Int[np.ndarray, "D"]  # position in images
    category: Int[np.ndarray, "D"]  # position in categories
    score: Float[np.ndarray, "D"]
    matched: Bool[np.ndarray, "A T D"]
    ignored: Bool[np.ndarray, "A T D"]  # neither right nor wrong
    truth_image: Int[np.ndarray, "q"]
    truth_category: Int[np.ndarray, "q"]
    truth_count: Int[np.ndarray, "q A"]  # truths that count

    def arrays(self) -> dict[str, np.ndarray]:
        """Flat arrays to save, about 32 bytes a detection and 28 a pair of image and category with truth."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return found | {name: np.packbits(found[name], axis=-1) for name in ("matched", "ignored")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Matches":
        """The matches whose `arrays()` were saved. Raises KeyError where one is missing."""
        found = {f.name: arrays[f.name] for f in fields(cls)}
        number = len(found["score"])
        unpacked = {n: np.unpackbits(found[n], axis=-1, count=number).astype(bool) for n in ("matched", "ignored")}
        return cls(**found | unpacked)

    def truths(self) -> Int[np.ndarray, "A C"]:
        """How many truths of each category count in each area range."""
        size = len(self.categories)
        return np.stack([np.bincount(self.truth_category, n, size) for n in self.truth_count.T]).astype(np.int64)

    def weighted_truths(self, weights: Int[np.ndarray, "B m"]) -> Int[np.ndarray, "B C"]:
        """How many truths of each category count, of any area, when image i is taken `weights[b, i]` times."""
        number = np.zeros((len(self.images), len(self.categories)))  # float64: its matrix product is the fast one
        number[self.truth_image, self.truth_category] = self.truth_count[:, 0]
        return (weights @ number).astype(np.int64)


# ------------------------------------------------------------------------------------------------ similarity


def oks(predicted: Float[np.ndarray, "n K 2"], truth: Truth, sigmas: Float[np.ndarray, "K"]) -> Float[np.ndarray, "n"]:
    """Object keypoint similarity of each prediction to the truth of the same row, in 0..1.

    The mean over the labelled keypoints of exp(-d^2 / (2 s^2 k^2)), k = 2 sigma, s^2 = area (COCO's keypoint
    evaluation). For a truth with nothing labelled, d is the distance to its box, widened by its own size on every
    side, and the mean is over all keypoints.
    """
    labelled = truth.visibility > 0
    number = labelled.sum(axis=1)
    order = np.argsort(number, kind="stable")  # rows with equally many labels stand together and are added up together
    predicted, labelled, number = predicted[order], labelled[order], number[order]
    offset = predicted - truth.keypoints[order]
    unlabelled = np.searchsorted(number, 0, side="right")
    offset[:unlabelled] = _outside(predicted[:unlabelled], truth.boxes[order[:unlabelled]])
    labelled[:unlabelled], number[:unlabelled] = True, labelled.shape[1]
    distance2 = offset[..., 0] ** 2 + offset[..., 1] ** 2
    exponent = distance2 / (sigmas * 2) ** 2 / (truth.areas[order] + EPSILON)[:, None] / 2
    similarity = np.empty(len(order))
    similarity[order] = _mean_by_row(np.exp(-exponent[labelled]), number)
    return similarity


def _outside(points: Float[np.ndarray, "n K 2"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n K 2"]:
    """How far points lie outside boxes that are widened by their own size on every side, pixels."""
    corner, size = boxes[:, None, :2], boxes[:, None, 2:]
    return np.maximum(0, (corner - size) - points) + np.maximum(0, points - (corner + size * 2))


def _mean_by_row(values: Float[np.ndarray, "v"], number: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The mean of each row of a ragged array. Rows of one length are summed as a matrix: NumPy then adds each row in
    the order in which it adds a vector, which a padded or segmented sum does not, and the last bit depends on it."""
    ends = np.cumsum(number)
    means = np.empty(len(number))
    first_rows = np.flatnonzero(np.diff(number, prepend=-1))
    for first, last in zip(first_rows, [*first_rows[1:], len(number)], strict=True):
        length = number[first]
        rows = values[ends[first] - length : ends[last - 1]].reshape(-1, length)
        means[first:last] = rows.sum(axis=1) / length
    return means


# -------------------------------------------------------------------------------------------------- matching


def match(truth: Truth, detections: Detections, sigmas: Float[np.ndarray, "K"]) -> Matches:
    """Match detections with the truth of their image and category at all thresholds and area ranges.

    Detections of a category that the truth lacks are left out: COCO does not count them. Raises DataError for an
    object in an image that is not evaluated, or with a number that is not finite.
    """
    _refuse_not_finite(truth, detections)
    images, categories = truth.evaluated_images(), np.unique(truth.category_ids)
    known = _Cells.of(_cell(truth, images, categories))
    found = _Cells.of(_cell(detections, images, categories), detections.scores)
    counts = truth.counts_in()
    matched = np.zeros((len(AREA_RANGES), len(THRESHOLDS), len(found.rows)), bool)
    ignored = np.zeros_like(matched)
    for block in _blocks(found, known):
        similarity = _similarities(block, truth, detections, sigmas)
        right, ignored_truth = _match_block(similarity, counts[:, block.truths], truth.crowd[block.truths])
        matched[:, :, block.ranked[block.is_found]] = right[:, :, block.is_found]
        ignored[:, :, block.ranked[block.is_found]] = ignored_truth[:, :, block.is_found]
    outside = ~_in_range(detections.areas()[found.rows])
    ignored |= ~matched & outside[:, None]
    category, image = np.divmod(found.cell, len(images))
    score = detections.scores[found.rows]
    order = np.lexsort((-score, category))
    truth_category, truth_image = np.divmod(known.cells, len(images))
    return Matches(
        images=images,
        categories=categories,
        image=image[order],
        category=category[order],
        score=score[order],
        matched=matched.take(order, axis=2),  # unlike matched[:, :, order], its last axis is the contiguous one
        ignored=ignored.take(order, axis=2),
        truth_image=truth_image,
        truth_category=truth_category,
        truth_count=known.sums(counts.T),
    )


@dataclass(frozen=True)
class _Cells:
    """Rows grouped by cell, one image and category; within a cell in the order of matching."""

    rows: Int[np.ndarray, "r"]  # positions in the truth or the detections
    cell: Int[np.ndarray, "r"]  # ascending
    cells: Int[np.ndarray, "c"]  # each cell once
    starts: Int[np.ndarray, "c"]  # its first position in rows
    sizes: Int[np.ndarray, "c"]

    @classmethod
    def of(cls, cell: Int[np.ndarray, "n"], scores: Float[np.ndarray, "n"] | None = None) -> "_Cells":
        """Group rows by cell (below 0: left out); with scores, the best MAX_DETECTIONS of each, best first."""
        rows = np.argsort(cell, kind="stable") if scores is None else np.lexsort((-scores, cell))
        rows = rows[np.searchsorted(cell[rows], 0) :]
        if scores is not None:
            rank = np.arange(len(rows)) - np.searchsorted(cell[rows], cell[rows])
            rows = rows[rank < MAX_DETECTIONS]
        cell = cell[rows]
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        return cls(rows, cell, cell[starts], starts, np.diff(starts, append=len(rows)))

    def sums(self, values: Bool[np.ndarray, "n A"]) -> Int[np.ndarray, "c A"]:
        """How many of each cell's rows are true."""
        total = np.cumsum(values[self.rows], axis=0, dtype=np.int32)
        return np.diff(total[self.starts + self.sizes - 1], axis=0, prepend=np.int32(0))


def _cell(
    objects: Truth | Detections, images: Int[np.ndarray, "m"], categories: Int[np.ndarray, "C"]
) -> Int[np.ndarray, "n"]:
    """The cell of each object, category first; -1 for a category the truth lacks."""
    image, is_image = _position(objects.image_ids, images)
    if not is_image.all():
        stray = objects.image_ids[~is_image][0]
        kind = "detection" if isinstance(objects, Detections) else "annotation"
        raise DataError(f"{kind} in image {stray}: that image is not among the {len(images)} evaluated; add it to them")
    category, is_category = _position(objects.category_ids, categories)
    return np.where(is_category, category * len(images) + image, -1)


def _position(
    ids: Int[np.ndarray, "n"], known: Int[np.ndarray, "k"]
) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Where each id stands among the ascending `known`, and whether it is there at all."""
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    position = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return position, known[position] == ids


@dataclass(frozen=True)
class _Block:
    """n cells of like size, padded to D detections and G truths."""

    ranked: Int[np.ndarray, "n D"]  # position among the ranked detections
    detections: Int[np.ndarray, "n D"]  # row of the detections; any row where is_found is False
    truths: Int[np.ndarray, "n G"]
    is_found: Bool[np.ndarray, "n D"]
    is_known: Bool[np.ndarray, "n G"]


def _blocks(found: _Cells, known: _Cells) -> Iterator[_Block]:
    """The cells with detections and truth, in blocks of like size (padded to a power of two) that fit the cache."""
    _, in_found, in_known = np.intersect1d(found.cells, known.cells, assume_unique=True, return_indices=True)
    widths = _power_of_two(found.sizes[in_found])
    heights = _power_of_two(known.sizes[in_known])
    for width, height in sorted(set(zip(widths.tolist(), heights.tolist(), strict=True))):
        like = np.flatnonzero((widths == width) & (heights == height))
        step = max(1, PAIRS_PER_BLOCK // (width * height))
        for first in range(0, len(like), step):
            cells = like[first : first + step]
            ranked, is_found = _padded(found, in_found[cells], width)
            truths, is_known = _padded(known, in_known[cells], height)
            yield _Block(ranked, found.rows[ranked], known.rows[truths], is_found, is_known)


def _power_of_two(sizes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Each size rounded up to a power of two."""
    return 2 ** np.ceil(np.log2(sizes)).astype(np.int64)


def _padded(
    cells: _Cells, which: Int[np.ndarray, "n"], width: int
) -> tuple[Int[np.ndarray, "n W"], Bool[np.ndarray, "n W"]]:
    """The positions of each cell's rows, the last repeated up to `width`, and which of them are not repeated."""
    size = cells.sizes[which, None]
    column = np.arange(width)
    return cells.starts[which, None] + np.minimum(column, size - 1), column < size


def _similarities(
    block: _Block, truth: Truth, detections: Detections, sigmas: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "n D G"]:
    """The OKS of every detection to every truth of its cell; -1, which matches nothing, in the padding."""
    pair = block.is_found[:, :, None] & block.is_known[:, None, :]
    similarity = np.full(pair.shape, -1.0)
    found = np.broadcast_to(block.detections[:, :, None], pair.shape)[pair]
    known = np.broadcast_to(block.truths[:, None, :], pair.shape)[pair]
    similarity[pair] = oks(detections.keypoints[found], truth.take(known), sigmas)
    return similarity


def _match_block(
    similarity: Float[np.ndarray, "n D G"], counts: Bool[np.ndarray, "A n G"], crowd: Bool[np.ndarray, "n G"]
) -> tuple[Bool[np.ndarray, "A T n D"], Bool[np.ndarray, "A T n D"]]:
    """Which detections are matched, and which of them with a truth that does not count.

    A detection prefers truths that count, then the most similar, then the last; as a whole number, its preference for
    the truths of its cell is their rank by similarity, plus G for those that count, and 0 for what it cannot have.
    """
    cells, width, height = similarity.shape
    truths_first = np.moveaxis(similarity, 0, -1).swapaxes(0, 1)  # [G D n]: the long axis last, the reduced one first
    kind = np.min_scalar_type(2 * height)
    preference = _rank_along_first(truths_first).astype(kind)
    counted = np.moveaxis(counts, -1, 0).astype(kind) * kind.type(height)  # [G A n]
    free = np.ones((height, len(AREA_RANGES), len(THRESHOLDS), cells), bool)
    keeps_free = crowd.T[:, None, None, :]
    matched = np.empty((width, *free.shape[1:]), bool)
    ignored = np.empty_like(matched)
    for d in range(width):
        near = truths_first[:, d, None, None, :] >= THRESHOLDS[:, None]
        wish = (preference[:, d, None, :] + counted)[:, :, None, :] * (free & near)
        best = wish.max(axis=0)
        matched[d], ignored[d] = best > 0, (best > 0) & (best <= height)
        free &= (wish != best) | (wish == 0) | keeps_free
    return np.moveaxis(matched, 0, -1), np.moveaxis(ignored, 0, -1)


def _rank_along_first(values: Float[np.ndarray, "G ..."]) -> Int[np.ndarray, "G ..."]:
    """1 for the lowest of each lane along the first axis, 2 for the next ...; of equal ones, the first is lower."""
    if len(values) == 1:  # the most frequent case, and sorting lanes of one is slow
        return np.ones(values.shape, np.int64)
    order = np.argsort(values, axis=0, kind="stable")
    return np.argsort(order, axis=0) + 1


# --------------------------------------------------------------------------------------------------- summing


def keypoint_ap(matches: Matches) -> dict[str, float]:
    """AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl as pycocotools sums them; -1 where nothing counts.

    AP is the mean over categories, thresholds and 101 recalls of the highest precision at that recall or above.
    """
    truths = matches.truths()
    precision, recall = _curves(matches, truths)
    areas = list(AREA_RANGES)
    parts = {"": (areas.index("all"), slice(None)), "50": (0, slice(0, 1)), "75": (0, slice(5, 6))}
    parts |= {"m": (areas.index("medium"), slice(None)), "l": (areas.index("large"), slice(None))}
    metrics = {}
    for letters, values in (("AP", np.moveaxis(precision, 2, 3)), ("AR", recall)):  # [A T R C], [A T C]
        for suffix, (area, thresholds) in parts.items():
            metrics[letters + suffix] = _mean(values[area, thresholds][..., truths[area] > 0])
    return metrics


def defined(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics without those COCO marks as undefined by -1."""
    return {name: value for name, value in metrics.items() if value != -1}


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """The mean, added up in the order of the indices; -1 of nothing."""
    return float(values.ravel().mean()) if values.size else -1.0


def _curves(
    matches: Matches, truths: Int[np.ndarray, "A C"]
) -> tuple[Float[np.ndarray, "A T C R"], Float[np.ndarray, "A T C"]]:
    """Precision at each of the 101 recalls, and the recall reached.

    Precision rises only at a hit (a detection that is right and counts), so the curves are kept at the hits alone, in
    one line: by area range, threshold, category and rank. The r-th recall is reached at the `needed`-th hit.
    """
    hits, counted, reached = _hits(matches)
    precision = reached / (counted + EPSILON)
    needed = np.maximum(_hits_needed(truths), 1)[:, None]
    first = np.cumsum(hits).reshape(hits.shape) - hits
    is_reached = needed <= hits[..., None]
    at = first[..., None] + np.where(is_reached, needed - 1, hits[..., None])
    highest = np.maximum.reduceat(np.append(precision, 0.0), at.ravel()).reshape(at.shape)  # up to the next recall
    highest = np.where(is_reached, highest, 0.0)
    curve = np.maximum.accumulate(highest[..., ::-1], axis=-1)[..., ::-1]
    return curve, hits / np.maximum(truths, 1)[:, None]


def _hits(
    matches: Matches,
) -> tuple[Int[np.ndarray, "A T C"], Int[np.ndarray, "h"], Int[np.ndarray, "h"]]:
    """How many hits each curve has; for each hit, in line, the detections that count up to it, and the hits."""
    areas, thresholds, _ = matches.matched.shape
    curves = areas * thresholds
    kept = ~matches.ignored.reshape(curves, -1)
    row, column = np.nonzero(matches.matched.reshape(kept.shape) & kept)
    category = matches.category[column]
    hits = np.bincount(row * len(matches.categories) + category, minlength=curves * len(matches.categories))
    counted = np.pad(np.cumsum(kept, axis=1, dtype=np.int32), ((0, 0), (1, 0)))  # [row, d]: before detection d
    begin = np.searchsorted(matches.category, np.arange(len(matches.categories)))
    before = np.repeat(np.cumsum(hits) - hits, hits)
    return (
        hits.reshape(areas, thresholds, -1),
        counted[row, column + 1] - counted[row, begin[category]],
        np.arange(1, len(row) + 1) - before,
    )


def _hits_needed(truths: Int[np.ndarray, "..."]) -> Int[np.ndarray, "... R"]:
    """The fewest hits whose share of the truths, as a float64, is at least each of the 101 recalls."""
    total = np.maximum(truths, 1)[..., None]
    needed = np.ceil(RECALLS * total).astype(np.int64)
    needed -= (needed - 1) / total >= RECALLS
    return needed + (needed / total < RECALLS)


# ------------------------------------------------------------------------------------------------- bootstrap


def bootstrap_ap(matches: Matches, weights: Int[np.ndarray, "B m"]) -> Float[np.ndarray, "B"]:
    """AP over all areas of B resamples in which image i (of `matches.images`) is taken `weights[b, i]` times.

    What pycocotools gives for a data set with the images repeated, unless detections of one image have equal scores
    (their copies then stay together here and alternate there); NaN where no truth counts.
    """
    truths = matches.weighted_truths(weights)
    total, categories = np.zeros(len(weights)), (truths > 0).sum(axis=1)
    ends = np.searchsorted(matches.category, np.arange(len(matches.categories) + 1))
    for c in range(len(matches.categories)):
        part = slice(ends[c], ends[c + 1])
        hit = (matches.matched[0] & ~matches.ignored[0])[:, part]
        kept = ~matches.ignored[0][:, part]
        step = max(1, CURVE_POINTS_PER_BLOCK // max(1, hit.size))
        for first in range(0, len(weights), step):
            some = slice(first, first + step)
            times = weights[some, matches.image[part]].astype(np.int32)
            total[some] += _weighted_ap(hit, kept, times, truths[some, c])
    return np.divide(total, categories, out=np.full(len(weights), np.nan), where=categories > 0)


def _weighted_ap(
    hit: Bool[np.ndarray, "T D"],
    kept: Bool[np.ndarray, "T D"],
    times: Int32[np.ndarray, "B D"],
    truths: Int[np.ndarray, "B"],
) -> Float[np.ndarray, "B"]:
    """The AP of one category, its detections ranked and taken `times` times; 0 where no truth counts.

    The integral over recall is summed by detection: its precision (the highest from here on) times the number of the
    101 recalls that its hits are the first to reach.
    """
    reached = np.cumsum(times[:, None] * hit, axis=-1, dtype=np.int32)
    counted = np.cumsum(times[:, None] * kept, axis=-1, dtype=np.int32)
    precision = reached / (counted + EPSILON)
    highest = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    table = _recalls_reached(truths)
    recalls = table.ravel().take(reached + np.arange(0, table.size, table.shape[1])[:, None, None])
    return np.einsum("btd,btd->b", highest, np.diff(recalls, axis=-1, prepend=0)) / (len(RECALLS) * len(THRESHOLDS))


def _recalls_reached(truths: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B H"]:
    """How many of the 101 recalls are reached with h = 0, 1, ... hits."""
    width = int(truths.max(initial=0)) + 2
    needed = np.maximum(_hits_needed(truths), 1) + np.arange(len(truths))[:, None] * width
    reached = np.bincount(needed.ravel(), minlength=len(truths) * width)
    return np.cumsum(reached.reshape(len(truths), width), axis=1)


# --------------------------------------------------------------------------------------------------- helpers


def _in_range(areas: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "A n"]:
    low, high = np.array(list(AREA_RANGES.values())).T[:, :, None]
    return (areas >= low) & (areas <= high)


def _refuse_not_finite(truth: Truth, detections: Detections) -> None:
    """Raise DataError at the first NaN or infinity, which comparisons would let through as a match."""
    for name in ("keypoints", "areas", "boxes"):
        bad = _first_not_finite(getattr(truth, name))
        if bad is not None:
            raise DataError(f"annotation {truth.ids[bad]}: its {name} are not finite numbers; correct or remove it")
    for name in ("keypoints", "scores"):
        bad = _first_not_finite(getattr(detections, name))
        if bad is not None:
            where = f"detection {bad} in image {detections.image_ids[bad]}"
            raise DataError(f"{where}: its {name} are not finite numbers, so it has no rank; has training diverged?")


def _first_not_finite(values: Float[np.ndarray, "n ..."]) -> int | None:
    """The first row that holds NaN or infinity."""
    finite = np.isfinite(values)
    return None if finite.all() else int(np.argwhere(~finite)[0, 0])
