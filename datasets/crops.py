"""The crop store: every instance decoded and cropped once per node, memory-mapped, shared by all trials and workers.

A store is the folder `cache/crops-<key>/` of `images.npy` and `left_out.json`. The key is a hash of what went in
(crop sizes, boxes, image contents), so a store is never out of date, only unused. Where there is no room for it,
`cache/checked-<key>/` holds `left_out.json` alone and every crop is made anew each time it is asked for.
"""

import json
import os
import stat
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from posesweep.datasets import stores
from posesweep.datasets.decoding import SHRINKS, Decoded, decode
from posesweep.datasets.decoding import read_image as read_image
from posesweep.datasets.instances import Instances
from posesweep.errors import DataError
from posesweep.files import write_json

# The one place this is set: a trial's threads are its loading threads, and OpenCV's own pool on top of them made two
# trials on two cores twelve times slower (see "Threads per trial" in the facts of the project).
cv2.setNumThreads(1)

BOX_PADDING = 1.25  # region = box x 1.25, as in mmpose and the HRNet paper
MOST_LEFT_OUT = 0.05  # share of images that may be unreadable before the data counts as misplaced
_LAYOUT = 2  # part of the key: raise it when the pixels of a store would come out differently
_WHOLE_FILE, _ENDS = 256 * 1024, 64 * 1024  # bytes hashed: all of a small file, both ends of a large one
_EXAMPLES = 5
_IMAGES_KEPT = 4  # decoded ones, while crops are made anew: neighbours often share an image
_SIGN_OF_LIFE_S = 60.0

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class CropSpec:
    """Network input `width` x `height` in pixels, and how much wider and higher than it a stored crop is (>= 1)."""

    width: int
    height: int
    margin_width: float = 1.0
    margin_height: float = 1.0

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of a stored crop in pixels; the margin is a whole number of pixels on every side."""
        return _with_margin(self.width, self.margin_width), _with_margin(self.height, self.margin_height)


def _with_margin(pixels: int, margin: float) -> int:
    return pixels + 2 * round(pixels * (margin - 1) / 2)


class CropsOnDemand:
    """Stands in for the array of a store: `[row]` decodes the image and crops it. The pixels are those of the store.

    Safe to use from several threads. Raises DataError for an image that can no longer be read.
    """

    def __init__(self, recipe: "Recipe") -> None:
        self._recipe = recipe
        self._decoded = lru_cache(maxsize=_IMAGES_KEPT)(decode)

    def __len__(self) -> int:
        return len(self._recipe.affines)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Rows, height, width, 3."""
        width, height = self._recipe.size
        return len(self), height, width, 3

    def __getitem__(self, row: int, /) -> UInt8[np.ndarray, "h w 3"]:
        recipe = self._recipe
        path = recipe.file_of(row)
        try:
            image = self._decoded(path, int(recipe.shrinks[row]))
        except DataError as error:
            raise DataError(f"{shown(path)}: {error}; it could be read when the data was checked") from error
        out = np.empty(self.shape[1:], np.uint8)
        recipe.make(image, row, out)
        return out


@dataclass(frozen=True)
class Crops:
    """The crops of n instances. Where there was room for a store `images` is its array, read only and shared."""

    images: UInt8[np.ndarray, "n h w 3"] | CropsOnDemand  # [i] is the crop of instance i, RGB
    from_image: Float[np.ndarray, "n 2 3"]  # affine: image pixels -> crop pixels
    usable: Bool[np.ndarray, "n"]  # False: the image is missing or corrupt, the row is empty
    left_out: list[str]  # one line per such image: its path and what is wrong
    note: str = ""  # why there is no store, to be said once


def regions(
    boxes: Float[np.ndarray, "n 4"], imgsz: tuple[int, int]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Centre and size, in image pixels, of what the network sees of each box: padded, enlarged to the input's aspect.

    The formula is mmpose's GetBBoxCenterScale and TopdownAffine: box centre, size x 1.25, the short side enlarged.
    """
    width, height = imgsz
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    padded = boxes[:, 2:] * BOX_PADDING
    wide = np.maximum(padded[:, 0], padded[:, 1] * width / height)
    return centres, np.stack([wide, wide * height / width], axis=1)


def image_to_crop(boxes: Float[np.ndarray, "n 4"], spec: CropSpec) -> Float[np.ndarray, "n 2 3"]:
    """Affines from image pixels to stored crop pixels; both middles coincide, sizes minus one as in UDP."""
    size = np.array([spec.width, spec.height])
    centres, spans = regions(boxes, (spec.width, spec.height))
    density = (size - 1) / spans  # crop pixels per image pixel
    middle = (np.array(spec.stored_size) - 1) / 2
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, [0, 1], [0, 1]] = density
    affines[:, :, 2] = middle - density * centres
    return affines


def cut(image: UInt8[np.ndarray, "H W 3"], affine: Float[np.ndarray, "2 3"], out: UInt8[np.ndarray, "h w 3"]) -> None:
    """Fill `out` with the part of `image` that `affine` (image -> crop, no rotation) names; black outside the image.

    Bilinear. A region more than twice as large as its crop is first averaged over blocks of 2, 4, 8 ... pixels
    (INTER_AREA), or bilinear sampling would skip pixels and alias.
    """
    largest = int(np.ceil(np.log2(max(image.shape))))  # one block for the whole image, however absurd the box
    blocks = 2 ** min(largest, int(np.log2(max(1.0, 1 / affine.diagonal().min()))))
    if blocks > 1:
        image, affine = _averaged(image, affine, out.shape[1::-1], blocks)
    height, width = out.shape[:2]
    cv2.warpAffine(image, affine, (width, height), dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _averaged(
    image: np.ndarray, affine: np.ndarray, crop_size: tuple[int, ...], blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of `image` below the crop, shrunk by the whole factor `blocks`, and the affine from there."""
    scale, offset = affine.diagonal(), affine[:, 2]
    size = np.array(image.shape[1::-1])
    first = np.clip(np.floor(-offset / scale) - blocks, 0, size - 1).astype(int)
    last = np.clip(np.ceil((np.array(crop_size) - offset) / scale) + blocks, first + 1, size).astype(int)
    part = image[first[1] : last[1], first[0] : last[0]]
    right, bottom = -(last - first) % blocks  # the last block is filled up with the edge's own pixels
    part = cv2.copyMakeBorder(part, 0, int(bottom), 0, int(right), cv2.BORDER_REPLICATE)
    small = cv2.resize(part, (part.shape[1] // blocks, part.shape[0] // blocks), interpolation=cv2.INTER_AREA)
    moved = affine.copy()
    moved[:, :2] *= blocks
    moved[:, 2] += scale * (first + (blocks - 1) / 2)
    return small, moved


def shrinks(affines: Float[np.ndarray, "n 2 3"], image_index: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """How many times smaller each instance's image may be decoded: 1, 2, 4 or 8, the same for all of an image.

    Every crop of the image still has at least one pixel of it for each of its own.
    """
    densest = np.zeros(image_index.max() + 1)
    np.maximum.at(densest, image_index, affines[:, [0, 1], [0, 1]].max(axis=1))  # crop pixels per image pixel
    steps = np.floor(np.log2(1 / densest[image_index]) + 1e-9)
    return 2 ** np.clip(steps, 0, np.log2(max(SHRINKS))).astype(int)


def from_shrunk(affine: Float[np.ndarray, "2 3"], shrink: int) -> Float[np.ndarray, "2 3"]:
    """An affine from image pixels, made one from the pixels of the image decoded `shrink` times smaller."""
    moved = affine.copy()
    moved[:, :2] *= shrink
    moved[:, 2] += affine[:, :2] @ np.full(2, (shrink - 1) / 2)  # where the centre of the first such pixel is
    return moved


@dataclass(frozen=True)
class Recipe:
    """How each crop is made from its image."""

    files: tuple[Path, ...]
    image_index: Int[np.ndarray, "n"]
    affines: Float[np.ndarray, "n 2 3"]  # image pixels -> crop pixels
    shrinks: Int[np.ndarray, "n"]  # how much smaller the image is decoded
    size: tuple[int, int]  # width and height of a crop

    @classmethod
    def of(cls, instances: Instances, spec: CropSpec) -> "Recipe":
        """For the crops of a store."""
        affines = image_to_crop(instances.boxes, spec)
        index = instances.image_index
        return cls(instances.image_files, index, affines, shrinks(affines, index), spec.stored_size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of all crops in one array."""
        return len(self.affines), self.size[1], self.size[0], 3

    def file_of(self, row: int) -> Path:
        """The image of one instance."""
        return self.files[self.image_index[row]]

    def make(self, image: Decoded, row: int, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """Fill `out` with one crop of its image."""
        cut(image.pixels, from_shrunk(self.affines[row], image.shrink), out)


def open_crops(
    instances: Instances,
    spec: CropSpec,
    cache: Path,
    progress: Progress | None = None,
    threads: int | None = None,
    cache_gb: float | None = None,
) -> Crops:
    """Open the store of these crops below `cache`, building it first if it is not there.

    One process builds, others wait for it; a builder that dies leaves no store and the next one builds. `threads`
    decode while building (None: as many as the CPUs this process may use). The store cannot be removed by `clean` or
    to make room while the array, or a part of it, is in use.

    All stores of a cache together may have `cache_gb` gigabytes (10^9 bytes; None: what the disk has). For a new one
    those are removed that nobody used for an hour, the longest unused first; where that does not do, `images` makes
    every crop anew (`CropsOnDemand`) and `note` says so.

    Raises DataError when more than 5 % of the images cannot be read, a box is empty, or the disk is full.
    """
    _check(instances)
    recipe, key = Recipe.of(instances, spec), content_key(instances, spec)
    work = _Work(instances, recipe, progress, threads or len(os.sched_getaffinity(0)))
    folder, size = cache / f"crops-{key}", int(np.prod(recipe.shape))
    cache.mkdir(parents=True, exist_ok=True)
    if folder.is_dir() or cache_gb is None or stores.make_room(folder, size, int(cache_gb * 1e9)):
        lease = stores.open_or_build(folder, work.store)
        return _open_store(instances, recipe, folder, lease)
    folder = cache / f"checked-{key}"
    with stores.open_or_build(folder, work.check):
        usable, left_out = _left_out(instances, folder)
    return Crops(CropsOnDemand(recipe), recipe.affines, usable, left_out, _no_room(size, cache, float(cache_gb)))


def crops_on_demand(instances: Instances, spec: CropSpec) -> Crops:
    """The same crops, each made when it is asked for, of images known to be readable; nothing is read or written now.

    Raises DataError when a box is empty.
    """
    _check(instances)
    recipe = Recipe.of(instances, spec)
    return Crops(CropsOnDemand(recipe), recipe.affines, np.ones(len(instances), dtype=bool), [])


def _no_room(size: int, cache: Path, cache_gb: float) -> str:
    return (
        f"no crop store: it needs {size / 1e9:.2f} GB and cache_gb is {cache_gb:g} for all of {cache}, so images are "
        "decoded each time they are used, which is slower; raise cache_gb, or free room with posesweep clean --all"
    )


def _check(instances: Instances) -> None:
    if not len(instances):
        raise DataError("no annotated object is left to crop; look at data.train, data.categories and the split")
    good = np.isfinite(instances.boxes).all(axis=1) & (instances.boxes[:, 2:] > 0).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        file = instances.image_files[instances.image_index[row]]
        raise DataError(
            f"annotation {instances.ids[row]} of {shown(file)}: "
            f"box {instances.boxes[row].tolist()} must have a width and a height above 0 ({(~good).sum()} such in all)"
        )


def content_key(instances: Instances, spec: CropSpec) -> str:
    """Hash of everything the pixels of a store depend on. Paths do not count: a moved data set keeps its store.

    Of large files their time counts too: copied without it (cp without -p), they get a new store."""
    used, image_of_row = np.unique(instances.image_index, return_inverse=True)
    key = blake2b(repr((_LAYOUT, spec)).encode(), digest_size=12)
    for position in used:
        key.update(_fingerprint_now(instances.image_files[position]))
    key.update(image_of_row.astype("<i8").tobytes())
    key.update(instances.boxes.astype("<f8").tobytes())
    return key.hexdigest()


def _fingerprint_now(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return _fingerprint(path, status.st_size, status.st_mtime_ns)
    except OSError:  # said when it is decoded
        pass
    return b"unreadable".ljust(16)


@lru_cache(maxsize=1 << 18)  # a reused worker opens the same store for every trial; stat is all that is left then
def _fingerprint(path: Path, size: int, modified_ns: int) -> bytes:
    """Hash of a file's bytes; of a large one's size, both ends and time, as pixels may change in its middle only."""
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return blake2b(file.read(), digest_size=16).digest()
        data = file.read(_ENDS)
        file.seek(-_ENDS, os.SEEK_END)
        data += file.read()
    return blake2b(b"%d %d " % (size, modified_ns) + data, digest_size=16).digest()


@dataclass(frozen=True)
class _Work:
    """What building takes."""

    instances: Instances
    recipe: Recipe
    progress: Progress | None
    threads: int

    def store(self, unfinished: Path) -> None:
        """Write every crop, and what is left out, into the folder `unfinished`."""
        images = _empty_images(unfinished / "images.npy", self.recipe.shape)
        self._write(unfinished, partial(_cut_image, recipe=self.recipe, images=np.asarray(images)))
        images.flush()

    def check(self, unfinished: Path) -> None:
        """Write only what is left out."""
        self._write(unfinished, partial(_cut_image, recipe=self.recipe, images=None))

    def _write(self, unfinished: Path, cut_one: Callable[[np.ndarray], str]) -> None:
        reasons = self._each_image(unfinished, cut_one)
        _check_left_out(self.instances, reasons)
        rows = {str(row): reasons[i] for row, i in enumerate(self.instances.image_index.tolist()) if i in reasons}
        write_json(unfinished / "left_out.json", rows)

    def _each_image(self, unfinished: Path, cut_one: Callable[[np.ndarray], str]) -> dict[int, str]:
        """Position of every image that `cut_one` (rows of its instances -> what is wrong) has something against."""
        by_image = np.argsort(self.instances.image_index, kind="stable")
        used, starts = np.unique(self.instances.image_index[by_image], return_index=True)
        reasons: dict[int, str] = {}
        said = time.monotonic()
        pool = ThreadPoolExecutor(self.threads)
        try:
            outcomes = pool.map(cut_one, np.split(by_image, starts[1:]))
            for done, (position, reason) in enumerate(zip(used.tolist(), outcomes, strict=True), start=1):
                if reason:
                    reasons[position] = reason
                if self.progress:
                    self.progress(done, len(used))
                if time.monotonic() - said > _SIGN_OF_LIFE_S:
                    stores.say_alive(unfinished)
                    said = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
        return reasons


def _empty_images(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of zeros with its room on the disk reserved: a full disk is an error here, not a crash later."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(
            f"{path.parent.parent}: the crop store needs {images.nbytes / 1e9:.2f} GB there ({error.strerror}); "
            "free some room or move the cache"
        ) from error
    return images


def _cut_image(group: Int[np.ndarray, "m"], recipe: Recipe, images: np.ndarray | None) -> str:
    """Crop the instances `group`, all of one image, into `images` if given; what is wrong with the image, or ''."""
    rows = group.tolist()
    try:
        image = decode(recipe.file_of(rows[0]), int(recipe.shrinks[rows[0]]))
    except DataError as error:
        return str(error)
    if images is not None:
        for row in rows:
            recipe.make(image, row, images[row])
    return ""


def _check_left_out(instances: Instances, reasons: dict[int, str]) -> None:
    total = len(np.unique(instances.image_index))
    if len(reasons) <= MOST_LEFT_OUT * total:
        return
    paths = [instances.image_files[i] for i in reasons]
    folder = Counter(path.parent for path in paths).most_common(1)[0][0]
    examples = ", ".join(
        f"{shown(instances.image_files[i].name)} ({why})" for i, why in list(reasons.items())[:_EXAMPLES]
    )
    raise DataError(
        f"{shown(folder)}: {len(reasons)} of {total} images cannot be used and at most {MOST_LEFT_OUT:.0%} may be left "
        f"out: {examples}{' ...' if len(reasons) > _EXAMPLES else ''}; is data.images the right folder?"
    )


def shown(path: Path | str) -> str:
    """A path for a sentence or a line: line breaks and what else cannot be printed are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def _open_store(instances: Instances, recipe: Recipe, folder: Path, lease: stores.Lease) -> Crops:
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        usable, left_out = _left_out(instances, folder)
    except (ValueError, FileNotFoundError) as error:  # nothing of ours leaves it like this
        lease.close()
        raise DataError(f"{folder}: this crop store is damaged ({error}); remove it: posesweep clean --all") from error
    weakref.finalize(images, lease.close)  # it is the base of every view of the array
    return Crops(np.asarray(images), recipe.affines, usable, left_out)


def _left_out(instances: Instances, folder: Path) -> tuple[Bool[np.ndarray, "n"], list[str]]:
    """Which instances can be used, and a line for every image that cannot."""
    reasons = {int(row): why for row, why in json.loads((folder / "left_out.json").read_text()).items()}
    usable = np.ones(len(instances), dtype=bool)
    usable[list(reasons)] = False
    files = [(instances.image_files[instances.image_index[row]], why) for row, why in reasons.items()]
    lines = [f"{shown(file)}: {why}" for file, why in files]
    return usable, list(dict.fromkeys(lines))
