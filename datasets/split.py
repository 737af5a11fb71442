"""Splitting annotated images into training and validation, the same way every time, groups kept whole."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from posesweep.datasets.images import with_images
from posesweep.datasets.instances import Instances
from posesweep.datasets.stratify import hash_order
from posesweep.errors import ConfigError, DataError, did_you_mean

SHARE_SEED = 1  # of the order in which `in_share` takes groups: any number, as long as it stays
IDENTITY = "identity"  # as data.group_by: the individuals that annotations name


def split_groups(
    instances: Instances, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> tuple[Instances, Instances]:
    """(train, val); `val_fraction` of the images go to val, as nearly as whole groups allow, at least one group each.

    Groups are `image_groups`, or what the regular expression `group_by` finds with its one group in the file name (of
    images in several folders: the path from where they part). Groups are put in the order of a hash of (seed, group)
    and the first of them become val: the order of the file means nothing, and more data later moves few images.
    ConfigError: `val_fraction` or `group_by` unusable. DataError: fewer than two groups, a name `group_by` misses."""
    if not 0 < val_fraction < 1:
        raise ConfigError(f"data.val_fraction: {val_fraction} must lie between 0 and 1; try 0.2")
    groups = image_groups(instances, group_by)
    members = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    if len(members) < 2:
        raise DataError(_one_group(instances, groups))
    names = list(members)
    order = [names[position] for position in hash_order(names, seed)]
    reached = np.cumsum([len(members[group]) for group in order])[:-1]  # images in val after each group; never all
    taken = int(np.argmin(np.abs(reached - val_fraction * len(groups)))) + 1
    in_val = np.zeros(len(groups), dtype=bool)
    in_val[[position for group in order[:taken] for position in members[group]]] = True
    return on_images(instances, ~in_val), on_images(instances, in_val)


def image_groups(instances: Instances, group_by: str | None = None, above: str | None = None) -> list[str]:
    """The group of every image; an image on its own has one that no other image has.

    `group_by` with brackets is a regular expression on file names, as they are from the folder `above` (None: the last
    one that all images share); without, it is a key of the annotation file's images, or "identity": the individuals,
    where an image of two animals joins all images of both."""
    if group_by is not None and is_key(group_by):
        return [f"group {name}" for name in _groups_of_key(instances, group_by)]
    above = above or _shared_folder(instances.image_files)
    names = [file.absolute().relative_to(above).as_posix() for file in instances.image_files]
    if group_by is None:
        return [
            f"group {group}" if group else f"image {image_id} {name}"
            for group, image_id, name in zip(instances.image_groups, instances.image_ids, names, strict=True)
        ]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(f"data.group_by: '{group_by}' is not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise ConfigError(f"data.group_by: '{group_by}' has {pattern.groups} groups in brackets; it must have one")
    found = [pattern.search(name) for name in names]
    missed = [name for name, match in zip(names, found, strict=True) if match is None or match.group(1) is None]
    if missed:
        raise DataError(
            f"data.group_by: '{group_by}' finds no group in {len(missed)} of {len(names)} image names "
            f"({missed[0]}, for example); it must fit them all"
        )
    return [f"group {match.group(1)}" for match in found if match]


def check_apart(train: Instances, val: Instances, group_by: str | None = None) -> None:
    """DataError where an image file, or with `group_by` a group, is both trained on and validated with."""
    files = {file.resolve() for file in _used_files(train)}
    shared = [file for file in _used_files(val) if file.resolve() in files]
    if shared:
        raise DataError(
            f"{len(shared)} images are in both train and val ({shared[0]}, for example); "
            "an image that was trained on says nothing as validation: take it out of one of them"
        )
    if group_by is None:
        return
    groups = shared_groups(train, val, group_by)
    if groups:
        name = min(groups)
        raise DataError(
            f"data.group_by: group '{name}' is in both train and val, {len(groups)} groups are; "
            "keep each on one side, or leave out data.val and let PoseSweep split"
        )


def shared_groups(train: Instances, val: Instances, group_by: str) -> set[str]:
    """The groups of `group_by`, see `image_groups`, that are in both train and val."""
    if group_by == IDENTITY and train.identities and val.identities:
        return set(train.identities) & set(val.identities)  # groups are named after one individual of several
    above = _shared_folder([*train.image_files, *val.image_files])
    groups = set(image_groups(train, group_by, above)) & set(image_groups(val, group_by, above))
    return {group.removeprefix("group ") for group in groups}


def is_key(group_by: str) -> bool:
    """Whether `group_by` is a key of the annotation file; a regular expression has one group in brackets."""
    return "(" not in group_by


def split_record(train: Instances, val: Instances) -> dict[str, Any]:
    """What split.json holds: ids of both sides, image files by id, the skeleton, notes and the hash.

    Image ids of separate train and val files may collide; the file then named is val's, the one that evidence is of."""
    skeleton = val.skeleton
    images = {str(i): str(file) for side in (train, val) for i, file in _used_images(side)}
    return {
        "hash": split_hash(train, val),
        "train": sorted(train.ids.tolist()),
        "val": sorted(val.ids.tolist()),
        "images": images,
        "skeleton": {
            "name": skeleton.name,
            "keypoints": list(skeleton.keypoints),
            "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
            "edges": [list(edge) for edge in skeleton.edges],
            "sigmas": skeleton.sigmas.tolist(),
            "sigmas_note": skeleton.sigmas_note,
        },
        "notes": list(dict.fromkeys((*train.notes, *val.notes))),
    }


def split_hash(train: Instances, val: Instances) -> str:
    """16 hex digits that change with anything a score depends on, and with nothing else.

    SHA-256 over, for train and then val, every annotation in the order of (id, file name): id, the image's file name
    (without folders: data may move), crowd, box, keypoints, visibility and area; then the skeleton's names and sigmas.
    Pixels are not read."""
    digest = hashlib.sha256()
    for side in (train, val):
        names = [side.image_files[i].name for i in side.image_index]
        digest.update(f"{len(side)}\n".encode())
        for row in sorted(range(len(side)), key=lambda row: (int(side.ids[row]), names[row])):
            digest.update(f"{side.ids[row]}\n{names[row]}\n{int(side.crowd[row])}\n".encode())
            for column in (side.boxes, side.keypoints, side.visibility, side.areas):
                digest.update(np.asarray(column[row], dtype="<f8").tobytes())
    digest.update("\n".join(val.skeleton.keypoints).encode())
    digest.update(np.asarray(val.skeleton.sigmas, dtype="<f8").tobytes())
    return digest.hexdigest()[:16]


def in_share(train: Instances, share: float, group_by: str | None = None) -> Bool[np.ndarray, "n"]:
    """Which training annotations make up `share` of the training images, as nearly as whole groups allow and at least
    one group. Groups are `image_groups`, taken in the order of a hash of their names: a smaller share lies inside every
    larger one, whatever the order of the file, and more data later change little."""
    images = np.zeros(len(train.image_files), dtype=bool)
    used = np.unique(train.image_index)
    if share == 1:
        return np.ones(len(train), dtype=bool)
    groups = image_groups(train, group_by)
    members = defaultdict(list)
    for position in used.tolist():
        members[groups[position]].append(position)
    names = list(members)
    order = [members[names[i]] for i in hash_order(names, SHARE_SEED)]
    reached = np.cumsum([len(group) for group in order])
    taken = int(np.argmin(np.abs(reached - share * len(used)))) + 1
    images[[position for group in order[:taken] for position in group]] = True
    return np.asarray(images[train.image_index])


# ---------------------------------------------------------------------------------------------------------- pieces


def on_images(instances: Instances, kept: Bool[np.ndarray, "m"]) -> Instances:
    """The instances on the images of the mask, and no other images."""
    return with_images(instances.take(kept[instances.image_index]), kept)


def _groups_of_key(instances: Instances, key: str) -> list[str]:
    """The value of `key` of every image. DataError: no image has it, or some have not."""
    if key == IDENTITY and instances.identities:
        return _joined_identities(instances)
    known = [*instances.image_fields, *([IDENTITY] if instances.identities else [])]
    if key not in instances.image_fields:
        hint = did_you_mean(key, known) if known else "; they have no other keys"
        raise DataError(
            f"data.group_by: no image has the key '{key}'{hint} (a pattern for file names has one group in brackets)"
        )
    values = instances.image_fields[key]
    missing = [file for file, value in zip(instances.image_files, values, strict=True) if value in (None, "")]
    if missing:
        raise DataError(
            f"data.group_by: {len(missing)} of {len(values)} images have no '{key}' ({missing[0]}, for example); "
            "every image needs one"
        )
    return [str(value) for value in values]


def _joined_identities(instances: Instances) -> list[str]:
    """For every image the first name among the individuals that images of several join with its own."""
    if "" in instances.identities:
        nameless = instances.ids[instances.identities.index("")]
        raise DataError(f"data.group_by: annotation {nameless} has no identity; every annotation needs one")
    names, of_row = np.unique(np.array(instances.identities), return_inverse=True)
    images = len(instances.image_files)
    joined = components(images + len(names), np.stack([instances.image_index, images + of_row], axis=1))
    first = {int(group): str(name) for name, group in reversed(list(zip(names, joined[images:], strict=True)))}
    return [first[int(group)] for group in joined[:images]]


def components(count: int, pairs: Int[np.ndarray, "p 2"]) -> Int[np.ndarray, "count"]:
    """For each of `count` things the least thing that chains of `pairs` join it with."""
    least = np.arange(count)

    def top(one: int) -> int:
        while least[one] != one:
            least[one] = least[least[one]]
            one = int(least[one])
        return one

    for a, b in pairs.tolist():
        low, high = sorted((top(a), top(b)))
        least[high] = low
    return np.array([top(one) for one in range(count)], dtype=np.int64)


def _used_images(instances: Instances) -> list[tuple[int, Path]]:
    return [(int(instances.image_ids[i]), instances.image_files[i]) for i in np.unique(instances.image_index)]


def _used_files(instances: Instances) -> list[Path]:
    return [file for _, file in _used_images(instances)]


def _shared_folder(files: Sequence[Path]) -> str:
    """The last folder that all `files` have in common, absolute."""
    return os.path.commonpath({str(folder.absolute()) for folder in {file.parent for file in files}})


def _one_group(instances: Instances, groups: Sequence[str]) -> str:
    count = len(instances.image_files)
    if count == 1:
        return "there is only one image, which cannot be split into train and val; add images"
    return (
        f"all {count} images are of one {groups[0]}, which a split may not part: give data.val, or a data.group_by "
        "that finds several groups in the file names; group_by: '(.*)' lets every image stand alone, but the scores "
        "then look better than they are where images resemble each other, as frames of one video do"
    )
