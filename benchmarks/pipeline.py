"""Augmented samples per second: the crop store with this project's augmentation, against what it replaces.

1. Against decoding the image each time, both through the same `TopDownSamples`: the same draws, warp, colour, blur,
   noise and holes. The other side is given a bare cv2.imread and warps straight from the whole image, so only where the
   pixels come from differs.
2. light, medium and aggressive against the same lists of albumentations' own transforms: on ready crops, and after
   decoding and cropping. albumentations has no patches of other images; its lists do without.
3. Single transforms against albumentations' own, where that is slow.

All in one process; repetitions of what is compared alternate and a ratio is the median over them. Times are CPU time of
the whole process, because the machine may be busy with something else; samples per second of wall time stand beside
those with loading threads.

    OMP_NUM_THREADS=1 python -m posesweep.benchmarks.pipeline [--images 96] [--repeats 7] [--files DIR/*.jpg ...]
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import local
from typing import Any

import cv2
import numpy as np

from posesweep.datasets import pixels
from posesweep.datasets.augment import Augmentation, Draws, chances, preset, widest
from posesweep.datasets.crops import CropSpec, cut, image_to_crop, open_crops
from posesweep.datasets.instances import Instances
from posesweep.datasets.loading import Batches, batches, training_order
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.topdown import Rows, TopDownSamples
from posesweep.datasets.warps import SMOOTHNESS, ElasticField, margin_for, remap

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

IMAGE_SIZE, INPUT_SIZE, BATCH, POINTS = (640, 480), (192, 256), 32, 17
# COCO train2017 is 18 GB for 118,287 images of mostly 640x480: 152 KB each, 0.50 bytes a pixel. The four of its
# validation images in mmpose's test data have 0.49, 0.49, 0.63 and 0.67. QUALITY makes the drawn ones 0.50.
QUALITY = 96
REAL = Path(__file__).resolve().parents[1] / "../shared/data/formats/coco"
PRESETS = ("light", "medium", "aggressive")


# ------------------------------------------------------------------------------------------------------------ images


class Decoded:
    """The images themselves as `topdown.Pictures`: indexing decodes the file."""

    def __init__(self, instances: Instances) -> None:
        self.files = [instances.image_files[i] for i in instances.image_index]
        self.images = self
        self.usable = np.ones(len(self.files), dtype=bool)
        self.from_image = np.tile(np.eye(2, 3), (len(self.files), 1, 1))

    def __getitem__(self, row: int, /) -> np.ndarray:
        return np.asarray(cv2.imread(str(self.files[row]), cv2.IMREAD_COLOR_RGB))


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise with a photograph's spectrum (more of it in large shapes), 640x480."""
    width, height = IMAGE_SIZE
    image = np.full((height, width, 3), 128, np.float32)
    for shape_px, contrast in ((160, 40), (64, 30), (16, 16), (4, 11), (2, 9)):
        coarse = rng.normal(0, contrast, (height // shape_px + 2, width // shape_px + 2, 3)).astype(np.float32)
        image += cv2.resize(coarse, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def drawn_files(folder: Path, n: int) -> tuple[Path, ...]:
    """n JPEGs of drawn photographs in `folder`."""
    rng = np.random.default_rng(0)
    files = tuple(folder / f"{i:05d}.jpg" for i in range(n))
    for file in files:
        cv2.imwrite(str(file), photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return files


def make_instances(files: tuple[Path, ...], n: int) -> Instances:
    """n objects on the images `files`, a quarter to three quarters as high as their image, somewhere inside."""
    rng = np.random.default_rng(1)
    index = np.arange(n) % len(files)
    sizes = np.array([np.asarray(cv2.imread(str(file))).shape[1::-1] for file in files])[index]
    spans = np.stack([rng.uniform(0.19, 0.47, n), rng.uniform(0.33, 0.83, n)], axis=1) * sizes
    corners = rng.random((n, 2)) * (sizes - spans)
    names = tuple(f"point{i}" for i in range(POINTS))
    return Instances(
        skeleton=Skeleton("bench", names, (), (), np.full(POINTS, 0.05)),
        image_files=files,
        image_ids=np.arange(len(files)),
        image_groups=("",) * len(files),
        image_index=index,
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.concatenate([corners, spans], axis=1),
        keypoints=corners[:, None] + rng.random((n, POINTS, 2)) * spans[:, None],
        visibility=np.full((n, POINTS), 2, np.uint8),
        areas=spans.prod(axis=1) / 2,
        crowd=np.zeros(n, dtype=bool),
    )


# ---------------------------------------------------------------------------------------------- plain albumentations


def plain_list(a: Augmentation) -> list[Any]:
    """The transforms of `a` as albumentations has them, one affine for rotation, scale and shift (to its advantage)."""
    import albumentations as A  # noqa: N812

    side = min(INPUT_SIZE)
    sigma = SMOOTHNESS * side
    alpha = a.elastic_share * side * 2 * np.sqrt(np.pi) * sigma * 4.4  # 4.4: the largest of 98,304 normal numbers
    turn, move, hole, coarse = a.rotation_deg, a.shift, a.dropout_share, a.coarse_share
    every: list[tuple[float, Callable[[float], Any]]] = [
        (a.flip, lambda p: A.HorizontalFlip(p=p)),
        (1.0, lambda p: A.Affine((a.scale_min, a.scale_max), (-move, move), None, (-turn, turn), p=p)),
        (a.perspective, lambda p: A.Perspective((0, a.perspective_share), p=p)),
        (a.elastic, lambda p: A.ElasticTransform(alpha / 2, sigma, p=p)),
        (a.colour, lambda p: A.RandomBrightnessContrast(a.brightness, a.contrast, p=p)),
        (a.colour, lambda p: A.HueSaturationValue(a.hue_deg / 2, 100 * a.saturation, 0, p=p)),
        (a.colour * (a.channel_gain > 0), lambda p: A.RGBShift(*(127 * a.channel_gain,) * 3, p=p)),
        (a.gamma, lambda p: A.RandomGamma((100 * np.exp(-a.gamma_log), 100 * np.exp(a.gamma_log)), p=p)),
        (a.clahe, lambda p: A.CLAHE((1, 1 + a.clahe_clip), p=p)),
        (a.blur, lambda p: A.GaussianBlur(sigma_limit=(0.5, a.blur_px), p=p)),
        (a.motion, lambda p: A.MotionBlur((3, int(a.motion_px)), p=p)),
        (a.noise, lambda p: A.GaussNoise((0, a.noise_std / 255), p=p)),
        (a.iso, lambda p: A.ISONoise((0.01, 0.05), (0, a.iso_intensity), p=p)),
        (a.jpeg, lambda p: A.ImageCompression("jpeg", (round(100 - a.jpeg_loss), 100), p=p)),
        (a.dropout, lambda p: A.CoarseDropout((1, 1), (hole / 2, hole), (hole / 2, hole), p=p)),
        (
            a.coarse,
            lambda p: A.CoarseDropout((1, round(a.coarse_holes)), (coarse / 2, coarse), (coarse / 2, coarse), p=p),
        ),
    ]
    return [make(p) for p, make in every if p]


class Plain:
    """Ready crops, or decoding and cropping, then albumentations' list; batches as `TopDownSamples` makes them."""

    def __init__(self, pictures: Rows, instances: Instances, a: Augmentation, crop: bool) -> None:
        self._pictures, self._augmentation = pictures, a
        self._affines = image_to_crop(instances.boxes, CropSpec(*INPUT_SIZE))
        self._keypoints = instances.keypoints @ self._affines[:, :, :2].swapaxes(1, 2) + self._affines[:, None, :, 2]
        self._crop = crop
        self._own = local()  # albumentations draws from one generator: each thread has its own

    def __len__(self) -> int:
        return len(self._keypoints)

    def batch(self, positions: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """The samples at `positions`."""
        if not hasattr(self._own, "transform"):
            import albumentations as A  # noqa: N812

            keep = A.KeypointParams("xy", remove_invisible=False)
            self._own.transform = A.Compose(plain_list(self._augmentation), keypoint_params=keep)
        images = np.empty((len(positions), *INPUT_SIZE[::-1], 3), np.uint8)
        points = []
        for i, position in enumerate(positions.tolist()):
            picture = self._pictures[position]
            if self._crop:
                cut(picture, self._affines[position], images[i])
                picture = images[i]
            done = self._own.transform(image=picture, keypoints=self._keypoints[position])
            images[i] = done["image"]
            points.append(done["keypoints"])  # elastic loses some of them
        return {"id": positions, "image": images}


# --------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Cost:
    """Seconds per sample."""

    cpu: float
    wall: float


def cost(samples: Batches, n: int, epoch: int, threads: int) -> Cost:
    """Of one epoch of batches, made in this thread (0) or by loading threads."""
    order = training_order(n, epoch, 0, BATCH, 0, 1)
    made: Iterator[dict[str, np.ndarray]]
    made = (samples.batch(positions, epoch) for positions in order)
    if threads:
        made = batches(samples, order, epoch, threads)
    cpu, wall = time.process_time(), time.perf_counter()
    count = sum(len(batch["id"]) for batch in made)
    return Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


def compare(contestants: dict[str, Batches], n: int, repeats: int, threads: int) -> str:
    """Samples a second of each; the others' CPU time as multiples of the first's: median (least-most) of repeats."""
    for samples in contestants.values():
        cost(samples, BATCH, 0, threads)  # page cache warm, memory allocated, transforms made
    rounds = [{k: cost(s, n, epoch, threads) for k, s in contestants.items()} for epoch in range(1, repeats + 1)]
    first = next(iter(contestants))
    parts = []
    for name in contestants:
        cpu, wall = (statistics.median(getattr(r[name], kind) for r in rounds) for kind in ("cpu", "wall"))
        part = f"{name} {1 / cpu:,.0f}/s"
        if threads:
            part += f" (wall {1 / wall:,.0f}/s)"
        if name != first:
            ratios = sorted(r[name].cpu / r[first].cpu for r in rounds)
            part += f" = {statistics.median(ratios):.1f}x ({ratios[0]:.1f}-{ratios[-1]:.1f})"
        parts.append(part)
    return "   ".join(parts)


def report(title: str, files: tuple[Path, ...], options: argparse.Namespace, cache: Path) -> None:
    """Parts 1 and 2 on the images `files`."""
    n, every = options.images, [preset(name) for name in PRESETS]
    instances = make_instances(files, n)
    kilobytes = statistics.mean(file.stat().st_size for file in files) / 1000
    begin = time.process_time()
    margin = margin_for(every[PRESETS.index("medium")], INPUT_SIZE)
    crops = open_crops(instances, CropSpec(*INPUT_SIZE, *margin), cache, threads=1)
    built_ms = (time.process_time() - begin) / n * 1e3
    ready = open_crops(instances, CropSpec(*INPUT_SIZE), cache, threads=1)
    height, width = crops.images.shape[1:3]
    print(f"\n{title}: {len(files)} JPEGs, {kilobytes:.0f} KB each; {n} objects, input {INPUT_SIZE}")
    print(f"store for medium: crops of {width}x{height}, {height * width * 3e4 / 1e9:.2f} GB per 10,000, ", end="")
    print(f"built in {built_ms:.1f} ms of CPU a sample")
    wide = open_crops(instances, CropSpec(*INPUT_SIZE, *margin_for(widest(every), INPUT_SIZE)), cache, threads=1)
    decoded = Decoded(instances)
    for threads in options.threads:
        print(f"-- loading threads: {threads}")
        for name, a in zip(PRESETS, every, strict=True):
            store = wide if name == "aggressive" else crops
            contestants: dict[str, Batches] = {
                f"{name:10s} store": TopDownSamples(store, instances, INPUT_SIZE, a),
                "decoding, ours": TopDownSamples(decoded, instances, INPUT_SIZE, a),
                "ready crops, albumentations": Plain(ready.images, instances, a, crop=False),
                "decoding, cropping, albumentations": Plain(decoded, instances, a, crop=True),
            }
            print(compare(contestants, n, options.repeats, threads), flush=True)
            print(f"{'':10s} memory {anonymous_mb():.0f} MB, at most {peak_mb():.0f} MB with the mapped stores")


def anonymous_mb() -> float:
    """Memory of this process that is no mapped file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


def peak_mb() -> float:
    """The most memory this process ever had, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def transforms(repeats: int) -> None:
    """Part 3."""
    import albumentations as A  # noqa: N812

    a = Augmentation(noise=1, noise_std=16, iso=1, iso_intensity=0.4, clahe=1, clahe_clip=3)
    draws = Draws.of(a, chances(64, 0, 0))
    noise = pixels.Noise.enough_for(a, INPUT_SIZE, 0)
    picture = np.ascontiguousarray(photograph(np.random.default_rng(0))[100:356, 100:292])
    four = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    share, side = 0.008, min(INPUT_SIZE)
    alpha, sigma = share * side * 2 * np.sqrt(np.pi) * SMOOTHNESS * side * 4.4, SMOOTHNESS * side

    def elastic(i: int) -> None:
        field = ElasticField.drawn(share, noise.normal[1000 * i :], INPUT_SIZE)
        remap(four, field.spread(field.looked_up(np.eye(3)), INPUT_SIZE))

    pairs: dict[str, tuple[Callable[[int], Any], Any]] = {
        "elastic": (elastic, A.ElasticTransform(alpha, sigma, p=1)),
        "ISO noise": (
            lambda i: pixels.add_iso_noise(picture.copy(), float(draws.iso_intensity[i]), noise.uniform[1000 * i :]),
            A.ISONoise((0.01, 0.05), (0, 0.4), p=1),
        ),
        "Gauss noise": (
            lambda i: pixels.add_gaussian_noise(picture.copy(), 8.0, noise.normal[1000 * i :]),
            A.GaussNoise((0, 16 / 255), p=1),
        ),
        "CLAHE": (
            lambda i: pixels.equalise(picture.copy(), float(draws.clahe_clip[i])),
            A.CLAHE((1, 4), p=1),
        ),
    }
    print(f"\nsingle transforms of a {INPUT_SIZE} crop, CPU us, ours and albumentations'")
    for name, (ours, theirs) in pairs.items():
        rounds = [(cpu_us(ours), cpu_us(partial(applied, theirs, picture))) for _ in range(repeats)]
        fast, slow = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:12s} {fast:6,.0f} {slow:7,.0f}   {statistics.median(s / f for f, s in rounds):.1f}x")


def applied(transform: Any, picture: np.ndarray, _: int) -> None:
    """One call of a transform of albumentations."""
    transform(image=picture)


def cpu_us(work: Callable[[int], Any], times: int = 24) -> float:
    """CPU microseconds of one call, the mean of some."""
    work(0)
    begin = time.thread_time()
    for i in range(times):
        work(i)
    return (time.thread_time() - begin) / times * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=96, help="objects, and drawn images")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1, 2], help="loading threads; 0: none")
    parser.add_argument("--files", type=Path, nargs="*", default=sorted(REAL.glob("*.jpg")), help="real JPEGs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        drawn = drawn_files(Path(folder), options.images)
        report("drawn 640x480", drawn, options, Path(folder) / "cache")
        if options.files:
            report("real", tuple(options.files), options, Path(folder) / "cache")
    transforms(options.repeats)


if __name__ == "__main__":
    main()
