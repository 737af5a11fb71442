"""`posesweep show`: what is annotated and what training makes of it, as PNG pages to look at before an hour is spent.

samples.png     objects with box, keypoints and limbs: are the labels where they belong?
flipped.png     each beside its mirror image with left and right labels swapped: are the flip pairs right?
augmented.png   the augmentation preset at five strengths: is it too much?
targets.png     Gaussian targets over the network's input: is sigma right for the size of the parts?
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from posesweep.datasets.augment import Augmentation, preset
from posesweep.datasets.check import output_folder
from posesweep.datasets.crops import CropSpec, crops_on_demand, shown
from posesweep.datasets.decoding import read_image
from posesweep.datasets.drawing import FAINT, Tile, Words, draw_box, draw_pose, legend, page, save_png, tile_px
from posesweep.datasets.instances import Instances
from posesweep.datasets.read import Reading, read_any
from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.datasets.topdown import TopDownSamples
from posesweep.datasets.warps import margin_for
from posesweep.errors import ConfigError, DataError

REPORTED = 4  # objects on a report's picture
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRIDE = 4  # input pixels per heatmap cell
MOST_PX = 4096  # of an input, each way; sixty pictures of it are drawn
_AROUND = 1.4  # of the box: what lies around an object tells whether the box is right
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Shown:
    """What the pages show. `imgsz` is the network's input, width and height; `sigma` is in heatmap cells."""

    imgsz: tuple[int, int] = (192, 256)
    augment: str = "medium"
    sigma: float = 2.0
    count: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Chosen:
    """Objects to draw, of images that can be read, and a line for each image met that cannot."""

    instances: Instances
    left_out: list[str]


def run(data: Path, images: Path | None, skeleton: str | None, out: Path, settings: Shown | None = None) -> None:
    """Write all four pages of the annotations `data` into the folder `out` and say where they are.

    DataError: mistakes in the annotations, nothing to draw, no folder `out`. ConfigError: an unknown format or
    preset, or a number that cannot be."""
    settings = settings or Shown()
    _check(settings)
    output_folder(out)
    reading = Reading(load_skeleton(skeleton) if skeleton is not None else None)
    chosen = choose(read_any(data, images, reading), settings.count, settings.seed)
    for line in chosen.left_out:
        print(f"left out: {line}")
    few = chosen.instances.take(np.arange(min(4, len(chosen.instances))))
    pages = {
        "samples": samples_page(chosen.instances),
        "flipped": flipped_page(few, settings.imgsz),
        "augmented": augmented_page(few, settings.imgsz, settings.augment, seed=settings.seed),
        "targets": targets_page(few, settings.imgsz, settings.sigma),
    }
    for name, picture in pages.items():
        save_png(out / f"{name}.png", picture)
        print(out / f"{name}.png")


def _check(settings: Shown) -> None:
    preset(settings.augment)
    if min(settings.imgsz) < 2 * STRIDE:
        raise ConfigError(f"imgsz: {list(settings.imgsz)} must be at least {2 * STRIDE} pixels each; try [192, 256]")
    if max(settings.imgsz) > MOST_PX:
        raise ConfigError(f"imgsz: {list(settings.imgsz)} must be at most {MOST_PX} pixels each; try [192, 256]")
    if not settings.sigma > 0:
        raise ConfigError(f"sigma: {settings.sigma:g} must be > 0 (heatmap cells); try 2.0")
    if settings.count < 1:
        raise ConfigError(f"count: {settings.count} must be at least 1")


def choose(instances: Instances, count: int, seed: int = 0) -> Chosen:
    """`count` labelled objects, or as many as there are, drawn at random, of different images while there are any.

    DataError: there is none whose image can be read."""
    rows = np.flatnonzero(instances.labelled & ~instances.crowd & (instances.boxes[:, 2:] > 0).all(axis=1))
    rows = np.random.default_rng(seed).permutation(rows)
    _, first = np.unique(instances.image_index[rows], return_index=True)
    first.sort()
    rows = np.concatenate([rows[first], np.delete(rows, first)])  # of each image one, then the others
    kept: list[int] = []
    left_out: dict[Path, str] = {}
    for row in rows.tolist():
        path = instances.image_files[instances.image_index[row]]
        if len(kept) == count or len(left_out) > count:
            break
        try:
            read_image(path)
            kept.append(row)
        except DataError as error:
            left_out[path] = f"{shown(path)}: {error}"
    if not kept:
        example = f" ({next(iter(left_out.values()))})" if left_out else ""
        raise DataError(f"no object has a labelled keypoint, a box and an image that can be read{example}")
    return Chosen(instances.take(np.array(kept)), list(left_out.values()))


def samples_page(instances: Instances, columns: int = 3) -> UInt8[np.ndarray, "H W 3"]:
    """Each object with its surroundings, box, limbs and numbered keypoints, as it was annotated."""
    width = tile_px(columns)
    aspect = float(np.median(instances.boxes[:, 3] / instances.boxes[:, 2]))
    size = (width, round(width * np.clip(aspect, 0.6, 1.3)))
    tiles = [_sample(instances, row, size) for row in range(len(instances))]
    title = f"{len(tiles)} samples · {instances.skeleton.name}"
    return page(title, _rows(tiles, columns), legend(instances.skeleton, numbers=True))


def _rows(tiles: list[Tile], columns: int) -> list[list[Tile]]:
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def _sample(instances: Instances, row: int, size: tuple[int, int]) -> Tile:
    path = instances.image_files[instances.image_index[row]]
    image, box = read_image(path), instances.boxes[row]
    scale = float((np.array(size) / box[2:]).min()) / _AROUND
    corner = box[:2] + box[2:] / 2 - np.array(size) / scale / 2
    affine = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    picture = _view(image, affine, size)
    draw_box(picture, np.concatenate([(box[:2] - corner) * scale, box[2:] * scale]))
    visibility = instances.visibility[row]
    draw_pose(picture, (instances.keypoints[row] - corner) * scale, visibility, instances.skeleton, numbers=True)
    said = f"{int((visibility > 0).sum())} of {len(visibility)} points · {shown(path.name)} · id {instances.ids[row]}"
    return Tile(picture, said)


def _view(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Part of an image through an affine without rotation, grey outside."""
    shrink = max(1, int(1 / affine[0, 0]))
    if shrink > 1:
        affine = affine @ np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
        height, width = (max(1, side // shrink) for side in image.shape[:2])
        whole = image[: height * shrink, : width * shrink]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR, borderValue=_GREY))


def flipped_page(instances: Instances, imgsz: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Each object as the network sees it, and mirrored with the labels of every flip pair swapped.

    A pair that belongs together keeps its limbs in place in the mirror; a wrong one ties them in knots, and one that is
    missing leaves a left limb on the right side."""
    columns = 4
    width = tile_px(columns)
    plain, mirrored = (
        _drawn(_batch(instances, imgsz, Augmentation(flip=chance)), instances.skeleton, width, numbers=True)
        for chance in (0.0, 1.0)
    )
    tiles = []
    for row, (before, after) in enumerate(zip(plain, mirrored, strict=True)):
        tiles += [Tile(before, f"id {instances.ids[row]}"), Tile(after, "mirrored, left and right labels swapped")]
    pairs = instances.skeleton.flip_pairs
    told = [Words((0, 0), f"{len(pairs)} flip pairs:", FAINT)]
    told += [Words((0, 0), f"{left} / {right}", FAINT) for left, right in pairs]
    notes = [*legend(instances.skeleton, numbers=True), *told]
    return page(f"Flip pairs · {instances.skeleton.name}", _rows(tiles, columns), notes)


def augmented_page(
    instances: Instances, imgsz: tuple[int, int], name: str, own: Mapping[str, float] | None = None, seed: int = 0
) -> UInt8[np.ndarray, "H W 3"]:
    """What training sees of each object (a row) at each strength of the preset `name` (a column), with `own` ranges.

    Along a row the same random numbers are used, so that the columns differ in strength alone."""
    width = tile_px(len(STRENGTHS))
    stages = [preset(name, strength, own) if strength else Augmentation() for strength in STRENGTHS]
    batches = [_batch(instances, imgsz, stage, seed) for stage in stages]
    pictures = [_drawn(batch, instances.skeleton, width) for batch in batches]
    rows = [
        [Tile(column[row], f"aug_strength {strength:g}") for column, strength in zip(pictures, STRENGTHS, strict=True)]
        for row in range(len(instances))
    ]
    title = f"Augmentation '{name}' at {imgsz[0]}x{imgsz[1]} · 0 is none, 0.5 the preset as it is"
    return page(title, rows, legend(instances.skeleton))


def save_augmented(
    path: Path, instances: Instances, imgsz: tuple[int, int], name: str, own: Mapping[str, float] | None = None
) -> None:
    """The page of `augmented_page` for a few of the instances as a PNG file, for a report.

    DataError: no image can be read. ConfigError: an unknown preset."""
    save_png(path, augmented_page(choose(instances, REPORTED).instances, imgsz, name, own))


def targets_page(
    instances: Instances,
    imgsz: tuple[int, int],
    sigma: float,
    maps: Float[np.ndarray, "n K h w"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Each object's input with its keypoints, and under the heatmaps it is trained towards.

    `maps`: targets that a codec made of the plain inputs of these instances; None: Gaussians of `sigma` cells."""
    columns = 4
    width = tile_px(columns)
    batch = _batch(instances, imgsz, Augmentation())
    if maps is None:
        grid = (imgsz[0] // STRIDE, imgsz[1] // STRIDE)
        maps = gaussians(batch["keypoints"] / STRIDE, batch["visibility"], grid, sigma)
    plain = _drawn(batch, instances.skeleton, width)
    tiles = []
    for row, picture in enumerate(plain):
        under = _under(batch["image"][row], maps[row], picture.shape[1::-1])
        caption = f"{maps.shape[3]}x{maps.shape[2]} cells, sigma {sigma:g}"
        tiles += [Tile(picture, f"id {instances.ids[row]}"), Tile(under, caption)]
    title = f"Heatmap targets · sigma {sigma:g} cells, {sigma * STRIDE:g} input pixels"
    return page(title, _rows(tiles, columns), legend(instances.skeleton))


def gaussians(
    points: Float[np.ndarray, "n K 2"], visibility: UInt8[np.ndarray, "n K"], grid: tuple[int, int], sigma: float
) -> Float[np.ndarray, "n K h w"]:
    """exp(-d^2 / (2 sigma^2)) about each labelled point, in cells of a `grid` (width, height); 0 for the others.

    The target of UDP (Huang et al. 2020), whose centre is not rounded."""
    x, y = (
        np.exp(-((np.arange(side) - points[..., axis, None]) ** 2) / (2 * sigma**2)) for axis, side in enumerate(grid)
    )
    return y[..., :, None] * x[..., None, :] * (visibility > 0)[..., None, None]


def _under(image: np.ndarray, maps: np.ndarray, size: tuple[int, ...]) -> UInt8[np.ndarray, "h w 3"]:
    """An image in grey with the maps in it as heat; cell (i, j) lies about input pixel (4i, 4j), as codecs count."""
    scale = size[0] / image.shape[1]
    place = np.array([[STRIDE * scale, 0, scale / 2 - 0.5], [0, STRIDE * scale, scale / 2 - 0.5]])
    heat = cv2.warpAffine(maps.max(axis=0), place, size, flags=cv2.INTER_NEAREST)
    grey = cv2.cvtColor(cv2.resize(image, size), cv2.COLOR_RGB2GRAY)
    coloured = cv2.applyColorMap(np.rint(255 * np.clip(heat, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = np.clip(1.2 * heat, 0, 0.85)[..., None]
    return np.rint(0.7 * grey[..., None] * (1 - share) + coloured * share).astype(np.uint8)


def _batch(
    instances: Instances, imgsz: tuple[int, int], augmentation: Augmentation, seed: int = 0
) -> dict[str, np.ndarray]:
    """The instances as training gets them."""
    width, height = margin_for(augmentation, imgsz)
    crops = crops_on_demand(instances, CropSpec(*imgsz, width, height))
    samples = TopDownSamples(crops, instances, imgsz, augmentation, seed)
    return samples.batch(np.arange(len(samples)), 0)


def _drawn(
    batch: dict[str, np.ndarray], skeleton: Skeleton, width: int, numbers: bool = False
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The inputs of a batch with their keypoints, `width` wide."""
    pictures = []
    for image, points, visibility in zip(batch["image"], batch["keypoints"], batch["visibility"], strict=True):
        scale = width / image.shape[1]
        size = (width, round(image.shape[0] * scale))
        picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        draw_pose(picture, (points.astype(np.float64) + 0.5) * scale - 0.5, visibility, skeleton, numbers)
        pictures.append(picture)
    return pictures
