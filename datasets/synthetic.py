"""Pictures of a synthetic horse with exact 2D and 3D keypoints: the demo data that needs no download.

A picture depends on (seed, index, size) alone and is the same in every process.
"""

import json
import os
import shutil
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from posesweep.datasets.horse_body import KEYPOINTS, LEGS, PART_ID, PARTS, SEGMENTS, Body, horse_body, surface
from posesweep.datasets.horse_coat import Coat, base_colours, random_coat
from posesweep.datasets.horse_gait import random_build, random_pose
from posesweep.datasets.horse_marks import HORSE26, SCHEMAS, Schema
from posesweep.datasets.painter import FINE, Camera, Painting, Polygons, join, look, paint
from posesweep.datasets.scenery import Light, backdrop, cast_shadow, grain, occluders, random_light, texture
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import DataError

VERSION = 5  # raised when the same seed gives other pictures
JPEG_QUALITY = 92
_SHARE = 100  # pictures that are worth the start of a process, about half a second

_TWO_HORSES, _CROPPED, _FROM_ABOVE = 0.15, 0.18, 0.10  # shares of the pictures
_FROM_BESIDE = 0.85  # as horses are photographed
_LEAST_INSIDE = (15, 8)  # keypoints within the image that the first and the second horse must have
_LEAST_VISIBLE = 5
_OCCLUDER_ODDS = (0.45, 0.75, 0.90)  # shares of pictures with 0, with at most 1, at most 2; the others have 3

# Thin things on a surface are painted as if they lay this much (metres) nearer, or the surface would swallow them.
_STANDS_OUT = np.zeros(len(PARTS))
_STANDS_OUT[[PART_ID[f"{s}_{what}"] for s in ("left", "right") for what in ("eye", "nostril")]] = 0.05
_STANDS_OUT[PART_ID["mane"]] = 0.03


@dataclass(frozen=True)
class Actor:
    """A horse in the world."""

    body: Body
    coat: Coat
    size: float


@dataclass(frozen=True)
class Scene:
    """All that a picture of horses is painted from, but for its surroundings."""

    actors: tuple[Actor, ...]
    camera: Camera
    light: Light


@dataclass(frozen=True)
class HorseImage:
    """One picture with its n horses of K keypoints each, the first 26 in the order of KEYPOINTS.

    Coordinates are image pixels; the centre of the first pixel is (0, 0)."""

    image: UInt8[np.ndarray, "H W 3"]  # RGB
    keypoints: Float[np.ndarray, "n K 2"]  # the projections of points_3d, outside of the image too
    visibility: UInt8[np.ndarray, "n K"]  # 0 outside of the image, 1 covered by something, 2 seen
    boxes: Float[np.ndarray, "n 4"]  # x, y, width, height around the seen silhouette and the keypoints in the image
    areas: Float[np.ndarray, "n"]  # pixels^2 of the seen silhouette
    points_3d: Float[np.ndarray, "n K 3"]  # metres, world, z up
    camera: Camera
    owner: UInt8[np.ndarray, "H W"]  # 1, 2: the horse seen in a pixel; 0 none
    painting: Painting

    @property
    def part(self) -> UInt8[np.ndarray, "H W"]:
        """Position in horse_body.PARTS of what is seen in every pixel."""
        return self.painting.look_up(self.painting.polygons.part)


# -- one picture ------------------------------------------------------------------------------------------------------
def render_horse(seed: int, index: int, size: tuple[int, int] = (320, 240), schema: Schema = HORSE26) -> HorseImage:
    """Picture `index` of the series `seed`; `size` is (width, height) in pixels, at least 64 each.

    `schema` chooses what is labelled; the picture and the labels of the 26 points are the same with either."""
    width, height = size
    if min(size) < 64:
        raise DataError(f"synthetic horses: a picture of {width} x {height} pixels is too small; take 64 x 64 or more")
    attempts = (_attempt(np.random.default_rng([seed, index, attempt]), size, schema) for attempt in count())
    return next(result for result in attempts if result is not None)


def _attempt(rng: np.random.Generator, size: tuple[int, int], schema: Schema) -> HorseImage | None:
    """A random picture; None where a horse is not well in view."""
    scene = random_scene(rng, size)
    if not _well_framed(scene, size):
        return None
    result = render_scene(rng, scene, size, schema=schema)
    basic = result.visibility[:, : len(KEYPOINTS)]  # the same pictures, whatever is labelled
    return result if ((basic == 2).sum(axis=1) >= _LEAST_VISIBLE).all() else None


def render_scene(
    rng: np.random.Generator, scene: Scene, size: tuple[int, int], crowded: bool = True, schema: Schema = HORSE26
) -> HorseImage:
    """Paint `scene` with random surroundings; `crowded` allows things in front of the horses."""
    polygons = [horse_polygons(actor, i, scene) for i, actor in enumerate(scene.actors, start=1)]
    if crowded and (number := bisect(_OCCLUDER_ODDS, rng.random())):
        nearest = min(float(group.depth.min()) for group in polygons)
        polygons.append(occluders(rng, number, _extent(scene.actors[0], scene.camera), 0.9 * nearest))
    painting = paint(join(polygons), *size)
    image = backdrop(rng, scene.camera, *size)
    factors = cast_shadow(texture(rng, *size), *_shadow_corners(scene), scene.light, scene.camera)
    image = cv2.multiply(image, cv2.merge([factors] * 3), scale=1 / 128)
    return _labelled(_finished(rng, image, painting), painting, scene, schema)


def horse_polygons(actor: Actor, owner: int, scene: Scene) -> Polygons:
    """The quads of a horse that face the camera, lit."""
    camera, skin = scene.camera, surface()
    seen = camera.see(actor.body.vertices)
    corners = seen[skin.faces.T]  # the four corners first: sums over a last axis of 4 are slow
    normals = _normals(corners)
    facing = np.einsum("fi,fi->f", normals, corners[0]) < 0
    kept = facing | skin.flat
    normals = np.where(facing[:, None], normals, -normals)[kept]
    corners, part = corners[:, kept], skin.part[kept]
    middle, depth = corners.mean(axis=0), corners[..., 2]
    colour = base_colours(actor.body, actor.coat)[kept] * scene.light.shade(normals @ camera.rotation)
    return Polygons(
        pixels=(seen[:, :2] / seen[:, 2:] * camera.focal_px + camera.centre)[skin.faces[kept]],
        depth=middle[:, 2] - _STANDS_OUT[part],
        reach=np.stack([depth.min(axis=0), depth.max(axis=0)], axis=1),
        plane=np.column_stack([normals, np.einsum("fi,fi->f", normals, middle)]),
        colour=colour.clip(0, 255).astype(np.uint8),
        owner=np.full(len(part), owner),
        part=part,
    )


def _normals(corners: Float[np.ndarray, "4 F 3"]) -> Float[np.ndarray, "F 3"]:
    (ax, ay, az), (bx, by, bz) = (corners[2] - corners[0]).T, (corners[3] - corners[1]).T
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)
    return normals / np.sqrt(np.einsum("fi,fi->f", normals, normals) + 1e-24)[:, None]


def _shadow_corners(scene: Scene) -> tuple[Float[np.ndarray, "_ 3"], Int[np.ndarray, "_"]]:
    """The vertices of each horse's trunk, neck, head, tail and four legs, one after another, and where each ends."""
    groups = _shadow_vertices()
    corners = [actor.body.vertices[np.concatenate(groups)] for actor in scene.actors]
    return np.concatenate(corners), np.cumsum([len(group) for group in groups] * len(corners))


@cache
def _shadow_vertices() -> list[np.ndarray]:
    legs = [[f"{leg}_{segment}" for segment in SEGMENTS] for leg in LEGS]
    groups = [[PART_ID[name] for name in names] for names in [["trunk"], ["neck"], ["head"], ["tail"], *legs]]
    return [np.unique(surface().faces[np.isin(surface().part, group)]) for group in groups]


def _finished(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"], painting: Painting) -> np.ndarray:
    """The painting laid over the backdrop, in place, then as a camera would take it: exposure, blur, noise."""
    red, green, blue, covered = cv2.split(painting.colours())
    clear = cv2.merge([cv2.bitwise_not(covered)] * 3)
    behind = image[painting.box]
    behind[:] = cv2.add(cv2.multiply(behind, clear, scale=1 / 255), cv2.merge([red, green, blue]))
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.4, 0.9))
    noise = grain(rng, image.shape[:2])
    exposure, offset, strength = rng.uniform(0.8, 1.15), rng.uniform(0, 14), rng.uniform(0.01, 0.09)
    return cv2.addWeighted(image, exposure, cv2.merge([noise] * 3), strength, offset - 128 * strength)


# -- labels -----------------------------------------------------------------------------------------------------------
def _labelled(image: np.ndarray, painting: Painting, scene: Scene, schema: Schema) -> HorseImage:
    height, width = image.shape[:2]
    points = np.stack([schema.points(actor.body) for actor in scene.actors])
    keypoints = scene.camera.project(points)
    inside = within(keypoints, width, height)
    owner = painting.look_up(painting.polygons.owner)
    seen = np.stack([visible(painting, scene, number, schema) for number in range(1, len(points) + 1)])
    silhouettes = [owner == number for number in range(1, len(points) + 1)]
    boxes = [_box(mask, xy[ok], width, height) for mask, xy, ok in zip(silhouettes, keypoints, inside, strict=True)]
    return HorseImage(
        image=image,
        keypoints=keypoints,
        visibility=np.where(inside, 1 + seen, 0).astype(np.uint8),
        boxes=np.stack(boxes),
        areas=np.array([float(np.count_nonzero(mask)) for mask in silhouettes]),
        points_3d=points,
        camera=scene.camera,
        owner=owner,
        painting=painting,
    )


def within(points: Float[np.ndarray, "... 2"], width: int, height: int) -> Bool[np.ndarray, "..."]:
    """Which points lie on a pixel of the image."""
    return np.all((points > -0.5) & (points < np.array([width, height]) - 0.5), axis=-1)


def visible(painting: Painting, scene: Scene, number: int, schema: Schema = HORSE26) -> Bool[np.ndarray, "K"]:
    """Which keypoints of horse `number` are seen: within a pixel, a part they sit on shows, and no deeper part of
    the horse's own surface lies before them than a landmark lies below its skin."""
    actor, camera = scene.actors[number - 1], scene.camera
    points = schema.points(actor.body)
    pixels = camera.project(points)
    depth = camera.see(points)[:, 2]
    near = np.rint((pixels + 0.5) * FINE - 0.5)[:, None] + _AROUND
    height, width = painting.seen.shape
    spot = near.clip(0, [width - 1, height - 1]).astype(int)
    rows = painting.seen[spot[..., 1], spot[..., 0]].astype(int) - 1
    mine = (rows >= 0) & (painting.polygons.owner[rows] == number)
    mine &= schema.allowed[np.arange(len(pixels))[:, None], painting.polygons.part[rows]]
    surface = painting.depth_at(rows, camera, (near + 0.5) / FINE - 0.5)
    return (mine & (surface > (depth - actor.size * schema.depths)[:, None])).any(axis=1)


_AROUND = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)])  # fine pixels


def _box(mask: np.ndarray, points: np.ndarray, width: int, height: int) -> Float[np.ndarray, "4"]:
    """x, y, width, height around the pixels of a mask and some points, within the image."""
    x, y, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    low = np.minimum(points.min(axis=0), [x, y]).clip(0)
    end = np.maximum(points.max(axis=0), [x + wide, y + high]).clip(None, [width, height])
    return np.concatenate([low, end - low])


# -- random scenes ----------------------------------------------------------------------------------------------------
def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """One horse or two and a camera that aims at the first, or at both."""
    actors = [_actor(rng, np.zeros(2))]
    if rng.random() < _TWO_HORSES:
        actors.append(_companion(rng, actors[0]))
    framed = actors if rng.random() < 0.6 else actors[:1]
    return Scene(tuple(actors), _camera(rng, framed, size), random_light(rng))


def _actor(rng: np.random.Generator, place: Float[np.ndarray, "2"]) -> Actor:
    build = random_build(rng)
    return Actor(
        _placed(horse_body(build, random_pose(rng)), rng.uniform(0, 2 * np.pi), place), random_coat(rng), build.size
    )


def _placed(body: Body, heading: float, place: Float[np.ndarray, "2"]) -> Body:
    """Turned about the vertical by `heading` (radians) and moved to `place` (metres)."""
    cos, sin = np.cos(heading), np.sin(heading)
    turn, move = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]), np.append(place, 0.0)
    return Body(body.vertices @ turn + move, body.rest, body.points @ turn + move)


def _companion(rng: np.random.Generator, first: Actor) -> Actor:
    """A second horse near the first whose keypoints stay 0.3 m clear of the first one's, seen from above."""
    while True:
        way, far = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 4.0)
        second = _actor(rng, far * np.array([np.cos(way), np.sin(way)]))
        apart = first.body.points[:, None, :2] - second.body.points[None, :, :2]
        if np.linalg.norm(apart, axis=-1).min() > 0.3:
            return second


def _camera(rng: np.random.Generator, framed: list[Actor], size: tuple[int, int]) -> Camera:
    """A camera, mostly beside the first horse, zoomed and shifted so that the framed horses fill their share of the
    image."""
    middle = np.concatenate([actor.body.points for actor in framed]).mean(axis=0)
    way = _beside(rng, framed[0]) if rng.random() < _FROM_BESIDE else rng.uniform(0, 2 * np.pi)
    far = rng.uniform(4.0, 14.0)
    high = far * np.tan(np.radians(rng.uniform(20, 45))) if rng.random() < _FROM_ABOVE else rng.uniform(0.5, 2.6)
    position = np.array([middle[0] + far * np.cos(way), middle[1] + far * np.sin(way), high])
    rotation = look(position, middle, rng.normal(0, np.radians(3)))
    unit = Camera(position, rotation, 1.0, np.zeros(2))
    boxes = np.stack([_extent(actor, unit) for actor in framed])
    low, high_end = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    fill = rng.uniform(1.0, 1.35) if rng.random() < _CROPPED else rng.uniform(0.45, 0.95)
    focal = fill * float((np.array(size) / (high_end - low)).min())
    slack = np.array(size) - focal * (high_end - low)
    return Camera(position, rotation, focal, slack * rng.uniform(0, 1, 2) - low * focal - 0.5)


def _beside(rng: np.random.Generator, actor: Actor) -> float:
    """The direction (radians, seen from above) of someone who stands at the left or right of a horse."""
    spine = actor.body.points[KEYPOINTS.index("withers")] - actor.body.points[KEYPOINTS.index("tail_base")]
    side = np.pi / 2 if rng.random() < 0.5 else -np.pi / 2
    return float(np.arctan2(spine[1], spine[0]) + side + rng.normal(0, np.radians(15)))


def _extent(actor: Actor, camera: Camera) -> Float[np.ndarray, "4"]:
    """x, y, width, height (pixels) of a horse, whether or not it is in the image."""
    pixels = camera.project(actor.body.vertices)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return np.concatenate([low, high - low])


def _well_framed(scene: Scene, size: tuple[int, int]) -> bool:
    """Every horse in front of the camera, with enough of its keypoints in the image."""
    for actor, least in zip(scene.actors, _LEAST_INSIDE, strict=False):
        if scene.camera.see(actor.body.vertices)[..., 2].min() < 1.0:
            return False
        if within(scene.camera.project(actor.body.points), *size).sum() < least:
            return False
    return True


# -- a data set -------------------------------------------------------------------------------------------------------
def write_synthetic(
    folder: Path,
    n: int,
    seed: int,
    size: tuple[int, int] = (320, 240),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `n` pictures and their annotations (COCO keypoints, plus "points_3d" and "camera") into `folder`.

    Returns `folder`/annotations.json; the pictures are `folder`/images/*.jpg. A folder that already holds this very
    set is left alone; one that a crash left half-written, or that an older VERSION wrote, is done again.
    A large set is drawn by one process per CPU (a script that asks for one needs `if __name__ == "__main__":`); the
    files do not depend on their number. `progress` is called with the pictures done and `n`, after each.
    Raises DataError where `folder` holds anything else.
    """
    recipe = {"generator": "posesweep synthetic horses", "version": VERSION, "seed": seed, "n": n, "size": list(size)}
    if _is_there(folder, recipe):
        return folder / "annotations.json"
    shutil.rmtree(folder, ignore_errors=True)  # now, not after the work: by then another process may have filled it
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write(temporary, recipe, progress or (lambda _done, _n: None))
        _take_place(temporary, folder, recipe)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / "annotations.json"


def _is_there(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether `folder` holds the set of this recipe; False: it may be written. Raises DataError: something else."""
    if not folder.exists():
        return False
    if not (folder / "annotations.json").is_file():
        if {path.name for path in folder.iterdir()} <= {"images"}:
            return False
        raise DataError(f"{folder}: holds files that are not synthetic pictures; name a new folder for them")
    found = json.loads((folder / "annotations.json").read_text(encoding="utf-8")).get("info", {})
    different = {key: f"{key} {found.get(key)} instead of {value}" for key, value in recipe.items()}
    different = {key: text for key, text in different.items() if found.get(key) != recipe[key]}
    if different.keys() - {"version"}:
        reasons = ", ".join(different.values())
        raise DataError(f"{folder}: holds another data set ({reasons}); delete it or name a new folder")
    return not different


def _take_place(temporary: Path, folder: Path, recipe: Mapping[str, Any]) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not _is_there(folder, recipe):  # another process was first with the same pictures, or it is a real failure
            raise


def _write(folder: Path, recipe: Mapping[str, Any], progress: Callable[[int, int], None]) -> None:
    (folder / "images").mkdir(parents=True)
    width, height = recipe["size"]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    draw = partial(draw_picture, folder / "images", recipe["seed"], (width, height))
    for number, (name, horses) in enumerate(in_order(draw, recipe["n"], _workers(recipe["n"])), start=1):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for horse in horses:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **horse})
        progress(number, recipe["n"])
    content = {"info": recipe, "images": images, "annotations": annotations, "categories": [category(HORSE26)]}
    (folder / "annotations.json").write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


Drawn = tuple[str, list[dict[str, Any]]]  # a file's name, and the annotations of its horses


def in_order(draw: Callable[[int], Drawn], n: int, workers: int) -> Iterator[Drawn]:
    """What `draw` gives for 0 ... n - 1, by `workers` processes. Not in threads: drawing is a thousand short calls, and
    each would hand the interpreter's lock to and fro, so that two threads were slower than one."""
    if workers < 2:
        yield from map(draw, range(n))
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(draw, range(n), chunksize=8)


def _workers(n: int) -> int:
    """Processes to draw `n` pictures with: no more than the CPUs this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, n // _SHARE)


def draw_picture(folder: Path, seed: int, size: tuple[int, int], index: int, keypoints: int = 26) -> Drawn:
    """Write picture `index` into `folder`; `keypoints`, of SCHEMAS, says what is labelled."""
    result = render_horse(seed, index, size, SCHEMAS[keypoints])
    name = f"{index:06d}.jpg"
    _write_jpeg(folder / name, result.image)
    return name, list(_annotations(result))


def _write_jpeg(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not encode {path}")
    path.write_bytes(data.tobytes())


def _annotations(result: HorseImage) -> Iterator[dict[str, Any]]:
    """COCO's fields, and the horse in 3D: with (x, y, z) = rotation @ (point - position), in metres, the pixel is
    focal_px * (x, y) / z + centre."""
    camera = {
        "position": result.camera.position.tolist(),
        "rotation": result.camera.rotation.tolist(),
        "focal_px": result.camera.focal_px,
        "centre": result.camera.centre.tolist(),
    }
    decimals = 5 if max(result.image.shape) <= 640 else 7  # less than 0.01 px in either
    for i, visibility in enumerate(result.visibility):
        labelled = (visibility > 0)[:, None]
        points = np.where(labelled, result.keypoints[i].round(3), 0.0)
        yield {
            "category_id": 1,
            "bbox": result.boxes[i].round(2).tolist(),
            "area": float(result.areas[i]),
            "iscrowd": 0,
            "num_keypoints": int(labelled.sum()),
            "keypoints": np.column_stack([points, visibility]).ravel().tolist(),
            "points_3d": result.points_3d[i].round(decimals).tolist(),
            "camera": camera,
        }


def category(schema: Schema) -> dict[str, Any]:
    """What a COCO file says about the horse's keypoints and limbs."""
    skeleton = load_skeleton(schema.skeleton)
    number = {name: position for position, name in enumerate(skeleton.keypoints, start=1)}
    edges = [[number[a], number[b]] for a, b in skeleton.edges]
    return {
        "id": 1,
        "name": "horse",
        "supercategory": "animal",
        "keypoints": list(skeleton.keypoints),
        "skeleton": edges,
    }
