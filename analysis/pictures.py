"""Validation objects with prediction over truth: the ones a model got best and worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from posesweep.analysis.results import Evidence, SweepResults
from posesweep.datasets.skeleton import Skeleton

SIDE_PX = 300  # longer side of a picture
MARGIN = 1.35  # of the box: what is around the object explains most mistakes
JPEG_QUALITY = 82
SHIFT = 4  # OpenCV draws in 1/16 pixels
WHITE, DARK, RED = (255, 255, 255), (40, 30, 25), (60, 60, 235)  # BGR
LEFT, RIGHT, MIDDLE = (60, 170, 255), (255, 170, 60), (120, 220, 80)  # orange, blue, green


@dataclass(frozen=True)
class Picture:
    """One object, cut out and drawn upon."""

    annotation_id: int
    image_id: int
    oks: float
    worst_keypoint: str  # the one furthest off
    worst_px: float  # image pixels
    width: int
    height: int
    jpeg: bytes


def best_and_worst(
    oks: Float[np.ndarray, "D"], best: int, worst: int
) -> tuple[Int[np.ndarray, "b"], Int[np.ndarray, "w"]]:
    """Rows of the highest and the lowest OKS, best and worst first; no row twice, none without a value."""
    order = np.argsort(-oks, kind="stable")
    order = order[np.isfinite(oks[order])]
    worst = min(worst, len(order))
    best = min(best, len(order) - worst)
    return order[:best], order[::-1][:worst]


def draw_pictures(
    results: SweepResults, evidence: Evidence, skeleton: Skeleton, rows: Sequence[int] | np.ndarray
) -> tuple[list[Picture], list[str]]:
    """(pictures of the rows whose image can be read, image files that cannot)."""
    pictures, missing = [], []
    for row in map(int, rows):
        name = str((results.split.get("images") or {}).get(str(evidence.image_ids[row]), ""))
        image = read_image(name, results.folder)
        if image is None:
            missing.append(name or f"image id {evidence.image_ids[row]}")
        else:
            pictures.append(_picture(image, evidence, row, skeleton))
    return pictures, missing


def find_image(name: str, folder: Path) -> Path | None:
    """Where an image of split.json lies: from here, else from the sweep folder. None: nowhere."""
    return next((path for path in (Path(name), folder / name) if name and path.is_file()), None)


def read_image(name: str, folder: Path) -> UInt8[np.ndarray, "H W 3"] | None:
    """The image as BGR; a relative name is looked for from here, then from the sweep folder. None: not readable."""
    path = find_image(name, folder)
    if path is None:
        return None
    stored = np.fromfile(path, np.uint8)
    return cv2.imdecode(stored, cv2.IMREAD_COLOR) if len(stored) else None  # turned by EXIF, as datasets.crops reads it


def view_of(box: Float[np.ndarray, "4"], side_px: int = SIDE_PX) -> tuple[Float[np.ndarray, "2 3"], tuple[int, int]]:
    """(affine image px -> picture px, (width, height) of the picture) of a box with a margin around it."""
    size = np.maximum(box[2:] * MARGIN, 8.0)
    size = np.maximum(size, size.max() * 0.6)  # no slivers
    scale = side_px / size.max()
    corner = box[:2] + box[2:] / 2 - size / 2
    width, height = (max(1, round(float(side * scale))) for side in size)
    return np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]]), (width, height)


def _picture(image: np.ndarray, evidence: Evidence, row: int, skeleton: Skeleton) -> Picture:
    view, (width, height) = view_of(evidence.boxes[row])
    flags = cv2.INTER_AREA if view[0, 0] < 1 else cv2.INTER_CUBIC
    canvas = cv2.warpAffine(image, view, (width, height), flags=flags, borderValue=(128, 128, 128))
    seen = evidence.visibility[row] > 0
    _draw(canvas, moved(evidence.true_keypoints[row], view), moved(evidence.keypoints[row], view), seen, skeleton)
    error = np.where(seen, evidence.error_px[row], -1.0)
    furthest = int(np.nanargmax(error))
    return Picture(
        annotation_id=int(evidence.ids[row]),
        image_id=int(evidence.image_ids[row]),
        oks=float(evidence.oks[row]),
        worst_keypoint=skeleton.keypoints[furthest],
        worst_px=float(error[furthest]),
        width=width,
        height=height,
        jpeg=jpeg(canvas),
    )


def jpeg(canvas: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture (BGR) as a JPEG file small enough for a page."""
    done, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return encoded.tobytes()


def moved(points: Float[np.ndarray, "K 2"], view: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "K 2"]:
    return points @ view[:, :2].T + view[:, 2]


def _draw(canvas: np.ndarray, truth: np.ndarray, predicted: np.ndarray, seen: np.ndarray, skeleton: Skeleton) -> None:
    """Truth white, prediction coloured by body side, a red line from each labelled point to where it was seen."""
    index = {name: k for k, name in enumerate(skeleton.keypoints)}
    limbs = [(index[a], index[b]) for a, b in skeleton.edges if a in index and b in index]
    colours = side_colours(skeleton)
    for a, b in limbs:
        if seen[a] and seen[b]:
            line(canvas, truth[a], truth[b], WHITE, 2)
    for a, b in limbs:
        line(canvas, predicted[a], predicted[b], colours[b] if colours[a] == MIDDLE else colours[a], 2)
    for k in np.flatnonzero(seen):
        line(canvas, truth[k], predicted[k], RED, 2)
        dot(canvas, truth[k], WHITE)
    for point, colour in zip(predicted, colours, strict=True):
        dot(canvas, point, colour)


def side_colours(skeleton: Skeleton) -> list[tuple[int, int, int]]:
    left = {a for a, _ in skeleton.flip_pairs}
    right = {b for _, b in skeleton.flip_pairs}
    return [LEFT if name in left else RIGHT if name in right else MIDDLE for name in skeleton.keypoints]


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.clip(point, -2000, 2000) * (1 << SHIFT)
    return round(float(x)), round(float(y))


def line(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    cv2.line(canvas, _fixed(a), _fixed(b), colour, width, cv2.LINE_AA, SHIFT)


def dot(canvas: np.ndarray, at: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.circle(canvas, _fixed(at), 4 << SHIFT, DARK, -1, cv2.LINE_AA, SHIFT)
    cv2.circle(canvas, _fixed(at), 3 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
