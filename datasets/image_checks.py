"""What is wrong with images, and what training and validation have in common."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool

from posesweep.datasets.findings import Finding
from posesweep.datasets.instances import Instances
from posesweep.datasets.near_duplicates import Alike, Looks, Video, alike_pairs, find_videos, in_order, neighbours
from posesweep.datasets.split import shared_groups


def check_images(instances: Instances, looks: Looks, sides: tuple[str, ...]) -> list[Finding]:
    """Unreadable, duplicate and near-duplicate images, and frames of one video on both sides.

    `looks` and `sides` (train, val; "" where there is one side only) are of the images of `instances`, in their order.
    """
    files = [str(file) for file in instances.image_files]
    pairs = _Pairs(files, sides)
    return [
        *(
            Finding("unreadable image", "error", f"cannot be used: {reason}", file, side)
            for file, reason, side in zip(files, looks.reasons, sides, strict=True)
            if reason
        ),
        *_duplicates(looks, pairs),
        *_near_duplicates(looks, alike_pairs(looks, instances), pairs),
        *_videos(instances, looks, pairs),
    ]


def check_groups(train: Instances, val: Instances, group_by: str | None) -> list[Finding]:
    """Groups of `group_by`, and individuals that the annotations name, that are in both train and val."""
    if group_by is not None:
        text = "group '{}' of data.group_by is in both train and val"
        return [
            Finding("group on both sides", "error", text.format(name), side="val")
            for name in sorted(shared_groups(train, val, group_by))
        ]
    known = (set(train.identities) & set(val.identities)) - {""}
    text = "individual '{}' is in both train and val: scores do not tell how well a model does on new ones"
    return [Finding("group on both sides", "warning", text.format(name), side="val") for name in sorted(known)]


class _Pairs:
    """Makes findings of pairs of images."""

    def __init__(self, files: list[str], sides: tuple[str, ...]) -> None:
        self.files, self.sides = files, sides

    def across(self, a: int, b: int) -> bool:
        """Whether one is trained on and the other validated with."""
        return self.sides[a] != self.sides[b]

    def finding(self, kind: str, image: int, other: int, text: str, score: float) -> Finding:
        """A finding about `image`; an error where it is validated with and `other` trained on, or the other way."""
        severity = "error" if self.across(image, other) else "warning"
        if self.across(image, other) and self.sides[image] == "train":
            image, other = other, image
        where = f"trained on, {self.files[other]}" if self.across(image, other) else self.files[other]
        return Finding(
            kind,
            severity,  # type: ignore[arg-type]
            text.format(where),
            self.files[image],
            self.sides[image],
            score=score,
            other_image=self.files[other],
        )


def _duplicates(looks: Looks, pairs: _Pairs) -> Iterator[Finding]:
    """Of every set of equal files one finding for each but the first, and besides for each that crosses the sides."""
    same = defaultdict(list)
    for position in np.flatnonzero(looks.readable).tolist():
        same[looks.contents[position]].append(position)
    for copies in same.values():
        for number, copy in enumerate(copies[1:], start=1):
            earlier = copies[:number]
            other = next((one for one in earlier if pairs.across(copy, one)), earlier[0])
            yield pairs.finding("duplicate image", copy, other, "is the same file as the image {}", 1.0)


def _near_duplicates(looks: Looks, alike: Alike, pairs: _Pairs) -> Iterator[Finding]:
    """For every image that has near-duplicates the most alike, one on the other side first; each pair is told once."""
    best: dict[int, tuple[bool, float, int]] = {}
    columns = (alike.first.tolist(), alike.second.tolist(), alike.likeness.tolist())
    for first, second, likeness in zip(*columns, strict=True):
        if looks.contents[first] == looks.contents[second]:
            continue
        image, other = (
            (first, second) if pairs.sides[first] == "val" and pairs.across(first, second) else (second, first)
        )
        best[image] = max(best.get(image, (False, 0.0, -1)), (pairs.across(image, other), likeness, other))
    for image, (_, likeness, other) in sorted(best.items()):
        yield pairs.finding(
            "near-duplicate images", image, other, f"looks like the image {{}} (likeness {likeness:.2f})", likeness
        )


def _videos(instances: Instances, looks: Looks, pairs: _Pairs) -> Iterator[Finding]:
    in_val = np.array([side == "val" for side in pairs.sides], dtype=bool)
    if not in_val.any():
        return
    for video in _all_videos(instances, looks):
        yield from _parted(video, in_val, pairs)


def _all_videos(instances: Instances, looks: Looks) -> list[Video]:
    """Those that the reader names (DeepLabCut's), and runs of numbered files that look like one."""
    named = defaultdict(list)
    for position, group in enumerate(instances.image_groups):
        if group:
            named[group].append(position)
    videos = [in_order(name, instances.image_files, images) for name, images in sorted(named.items())]
    told = {frozenset(video.images.tolist()) for video in videos}
    found = find_videos(instances.image_files, looks)
    return videos + [video for video in found if frozenset(video.images.tolist()) not in told]


def _parted(video: Video, in_val: Bool[np.ndarray, "m"], pairs: _Pairs) -> Iterator[Finding]:
    """An error for each validation frame next to a training frame; a warning where there is a gap between them."""
    validated = in_val[video.images]
    if validated.all() or not validated.any():
        return
    close = neighbours(video, ~in_val, in_val, video.step)
    for other, image in close.tolist():
        yield pairs.finding("neighbouring frames apart", image, other, f"is next to a frame of {video.name} {{}}", 1.0)
    if not len(close):
        text = (
            f"{validated.sum()} of {len(validated)} frames of {video.name} are validated with and the others trained "
            "on, none next to each other: scores tell how well a model does on this video, not on new ones"
        )
        yield Finding("group on both sides", "warning", text, side="val")
