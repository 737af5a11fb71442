"""The page of a check: what was found, in words and in pictures, in one file that needs no other."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from posesweep.datasets.decoding import read_image
from posesweep.datasets.findings import KINDS, Finding, by_kind, in_order, verdict
from posesweep.datasets.label_checks import Labels
from posesweep.errors import DataError
from posesweep.files import write_text

MOST_PICTURES = 12  # of a kind; the worst, the others are named
MOST_NAMED = 200  # of a kind; all are in check.csv
SIDE_PX = 300
MARGIN = 1.4  # of the box: what is around it explains most mistakes
QUALITY = 80
SHIFT = 4  # OpenCV draws in 1/16 pixels
LEFT, RIGHT, MIDDLE = (255, 170, 60), (60, 170, 255), (80, 220, 120)  # RGB: orange, blue, green
DARK, WHITE, RED = (25, 30, 40), (255, 255, 255), (235, 60, 60)


@dataclass(frozen=True)
class Shot:
    """A picture on the page, and what stands below it."""

    finding: Finding
    sources: tuple[str, ...]  # data URIs, two where two images are compared


@dataclass(frozen=True)
class Section:
    """All of one kind."""

    kind: str
    advice: str
    errors: int
    shots: list[Shot]
    others: list[Finding]  # without a picture
    left_out: int


def write_page(path: Path, findings: Sequence[Finding], labels: Labels, notes: Sequence[str]) -> Path:
    """Write the page to `path` and return it; each image it shows is decoded again, at most 12 of a kind."""
    write_text(path, render(findings, labels, notes))
    return path


def render(findings: Sequence[Finding], labels: Labels, notes: Sequence[str]) -> str:
    """The page as HTML. Names from files are escaped, wherever they stand."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    instances = labels.instances
    drawer = _Drawer(labels)
    groups = groupby(in_order(findings), key=lambda one: one.kind)
    return environment.get_template("check.html").render(
        verdict=verdict(findings, len(instances), len(instances.image_files)),
        counts=by_kind(findings),
        sections=[_section(kind, list(group), drawer) for kind, group in groups],
        notes=list(notes),
        sides=sorted({side for side in labels.sides if side}),
        failed=any(one.severity == "error" for one in findings),
    )


def _section(kind: str, findings: list[Finding], drawer: "_Drawer") -> Section:
    shots: list[Shot] = []
    others: list[Finding] = []
    for finding in findings:
        sources = drawer.pictures(finding) if len(shots) < MOST_PICTURES else ()
        if sources:
            shots.append(Shot(finding, sources))
        else:
            others.append(finding)
    errors = sum(one.severity == "error" for one in findings)
    return Section(kind, KINDS[kind], errors, shots, others[:MOST_NAMED], max(0, len(others) - MOST_NAMED))


class _Drawer:
    """Cuts out what findings are about and draws the labels on it."""

    def __init__(self, labels: Labels) -> None:
        instances, skeleton = labels.instances, labels.instances.skeleton
        sides = [labels.sides[image] for image in instances.image_index]
        self.instances = instances
        self.rows = {key: row for row, key in enumerate(zip(sides, instances.ids.tolist(), strict=True))}
        index = {name: k for k, name in enumerate(skeleton.keypoints)}
        self.limbs = [(index[a], index[b]) for a, b in skeleton.edges]
        left, right = ({index[pair[side]] for pair in skeleton.flip_pairs} for side in (0, 1))
        self.colours = [LEFT if k in left else RIGHT if k in right else MIDDLE for k in range(len(index))]

    def pictures(self, finding: Finding) -> tuple[str, ...]:
        """Pictures of one finding as data URIs; none where there is nothing to see, or no image can be read."""
        row = self.rows.get((finding.side, finding.annotation)) if finding.annotation is not None else None
        try:
            if row is not None:
                return (_data_uri(self._annotation(row, finding.keypoint)),)
            if not finding.other_image:
                return ()
            return tuple(_data_uri(_small(read_image(Path(file)))) for file in (finding.image, finding.other_image))
        except DataError:
            return ()  # the image cannot be read, which is a finding of its own

    def _annotation(self, row: int, keypoint: str) -> UInt8[np.ndarray, "h w 3"]:
        """The annotation's box, and the keypoint in question wherever it is, with the labels drawn over."""
        image = read_image(self.instances.image_files[self.instances.image_index[row]])
        points, seen = self.instances.keypoints[row], self.instances.visibility[row] > 0
        names = self.instances.skeleton.keypoints
        about = names.index(keypoint) if keypoint in names else None
        box = self.instances.boxes[row]
        corners = np.stack([box[:2], box[:2] + box[2:]])
        if about is not None and seen[about]:
            corners = np.concatenate([corners, points[[about]]])
        view, size = _view(corners)
        flags = cv2.INTER_AREA if view[0, 0] < 1 else cv2.INTER_CUBIC
        canvas = np.asarray(cv2.warpAffine(image, view, size, flags=flags, borderValue=(128, 128, 128)))
        low, high = _moved(corners[:2], view)
        cv2.rectangle(canvas, _fixed(low), _fixed(high), WHITE, 1, cv2.LINE_AA, SHIFT)
        self._draw(canvas, _moved(points, view), seen, about)
        return canvas

    def _draw(self, canvas: np.ndarray, points: np.ndarray, seen: np.ndarray, about: int | None) -> None:
        for a, b in self.limbs:
            if seen[a] and seen[b]:
                colour = self.colours[b] if self.colours[a] == MIDDLE else self.colours[a]
                cv2.line(canvas, _fixed(points[a]), _fixed(points[b]), colour, 1, cv2.LINE_AA, SHIFT)
        for k in np.flatnonzero(seen):
            cv2.circle(canvas, _fixed(points[k]), 4 << SHIFT, DARK, -1, cv2.LINE_AA, SHIFT)
            cv2.circle(canvas, _fixed(points[k]), 3 << SHIFT, self.colours[k], -1, cv2.LINE_AA, SHIFT)
        if about is not None and seen[about]:
            cv2.circle(canvas, _fixed(points[about]), 9 << SHIFT, RED, 2, cv2.LINE_AA, SHIFT)


def _view(corners: Float[np.ndarray, "c 2"]) -> tuple[Float[np.ndarray, "2 3"], tuple[int, int]]:
    """(affine image px -> picture px, (width, height) of the picture) of what encloses the corners, with a margin."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.maximum((high - low) * MARGIN, 8.0)
    size = np.maximum(size, size.max() * 0.6)  # no slivers
    scale = SIDE_PX / size.max()
    corner = (low + high) / 2 - size / 2
    width, height = (max(1, round(float(side * scale))) for side in size)
    return np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]]), (width, height)


def _moved(points: Float[np.ndarray, "K 2"], view: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "K 2"]:
    return points @ view[:, :2].T + view[:, 2]


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.clip(point, -2000, 2000) * (1 << SHIFT)
    return round(float(x)), round(float(y))


def _small(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    scale = min(1.0, SIDE_PX / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _data_uri(canvas: UInt8[np.ndarray, "h w 3"]) -> str:
    bgr = cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
