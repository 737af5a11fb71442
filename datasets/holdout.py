"""The test split: annotations that nothing is trained on or chosen by, read for a check at the start and at the end."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posesweep.datasets.instances import Instances
from posesweep.datasets.load import Data, DataRequest, read_annotations
from posesweep.datasets.split import shared_groups
from posesweep.errors import DataError


def read_test(request: DataRequest, test: Path, images: Path | None, data: Data) -> Instances:
    """The test annotations, checked against the sides that are trained on and validated with.

    Raises DataError where they cannot be read, have other keypoints, no label, or an image (with `group_by` a group)
    that is in train or val too.
    """
    found = read_annotations(test, replace(request, images=images or request.images), data.train.skeleton)
    if not (found.labelled & ~found.crowd).any():
        raise DataError(f"{test}: no test annotation has a labelled keypoint and is no crowd; nothing to score")
    for side, instances in (("train", data.train), ("val", data.val)):
        files = {file.resolve() for file in instances.image_files}
        shared = [file for file in found.image_files if file.resolve() in files]
        if shared:
            raise DataError(_not_untouched(f"{len(shared)} images are", shared, side))
        if request.group_by is not None and (groups := shared_groups(instances, found, request.group_by)):
            raise DataError(_not_untouched(f"{len(groups)} groups of data.group_by are", sorted(groups), side))
    return found


def _not_untouched(what: str, shared: Sequence[object], side: str) -> str:
    return (
        f"data.test: {what} in both {side} and test ({shared[0]}, for example); a test split that was seen before says "
        "nothing: take them out of one of the two"
    )
