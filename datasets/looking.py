"""What annotated objects are like, in the few numbers that settings follow from."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton, load_skeleton, shipped

PADDING = 1.25  # of boxes in top-down training (mmpose)
FEWEST_AXES = 20  # with fewer objects, how they are turned says nothing
TURNED_FREELY_DEG = 120.0  # 90 % of evenly turned bodies lie within 162 degrees, of horses from beside within 55
GROUP_KEYS = ("video_id", "video", "sequence", "seq_id", "clip", "session", "subject", "animal_id", "group")
ENOUGH_GROUPS = 5  # a fifth of them is at least one


@dataclass(frozen=True)
class Portrait:
    """Medians over the objects that can be trained on."""

    images: int
    objects: int
    labelled_share: float  # of the objects' keypoints
    width_px: float  # of the box, without padding
    height_px: float
    axis_range_deg: float | None  # within which 90 % of the body axes lie; None: too few objects to say
    groups: int  # of images, such as videos; 0 where nobody named any

    @property
    def padded_px(self) -> tuple[float, float]:
        """Width and height of the region that a network is shown."""
        return PADDING * self.width_px, PADDING * self.height_px

    @property
    def turned_freely(self) -> bool:
        """Whether the objects have no upright pose, as animals seen from above."""
        return self.axis_range_deg is not None and self.axis_range_deg > TURNED_FREELY_DEG


def portrait_of(instances: Instances) -> Portrait:
    """Look at the objects that can be trained on; at least one must be."""
    objects = instances.take(instances.labelled & ~instances.crowd)
    width, height = np.median(objects.boxes[:, 2:], axis=0).tolist()
    return Portrait(
        images=len(instances.image_files),
        objects=len(objects),
        labelled_share=float((objects.visibility > 0).mean()),
        width_px=width,
        height_px=height,
        axis_range_deg=axis_range_deg(objects),
        groups=len(set(instances.image_groups) - {""}),
    )


def axis_range_deg(instances: Instances) -> float | None:
    """The range of directions, of 180 degrees, within which 90 % of the body axes lie, left and right being the same.

    The axis is the line between those two keypoints that are farthest apart in the median object. Mirrored images are
    always trained on, so a direction counts as its mirror image does. None: fewer than 20 objects show both ends."""
    axes = _axes(instances)
    if len(axes) < FEWEST_AXES:
        return None
    directions = np.rad2deg(np.arctan2(axes[:, 1], np.abs(axes[:, 0])))
    low, high = np.percentile(directions, [5, 95]).tolist()
    return high - low


def _axes(instances: Instances) -> Float[np.ndarray, "m 2"]:
    """From one end of the body axis to the other, of the objects that show both."""
    seen = instances.visibility > 0
    size = np.sqrt(instances.boxes[:, 2] * instances.boxes[:, 3])
    longest, axes = 0.0, np.zeros((0, 2))
    for a, b in combinations(range(seen.shape[1]), 2):
        both = seen[:, a] & seen[:, b]
        if both.sum() < max(1, len(instances) / 2):
            continue
        between = instances.keypoints[both, b] - instances.keypoints[both, a]
        length = float(np.median(np.hypot(between[:, 0], between[:, 1]) / size[both]))
        if length > longest:
            longest, axes = length, between
    return axes


def group_key(instances: Instances) -> str | None:
    """A key of the annotation file by which its images fall into groups that should not part; None: there is none."""
    for key in GROUP_KEYS:
        values = instances.image_fields.get(key, ())
        if values and not {None, ""} & set(values) and ENOUGH_GROUPS <= len(set(values)) < len(values):
            return key
    return None


def shipped_like(skeleton: Skeleton, any_order: bool) -> str | None:
    """The shipped skeleton with the keypoints of `skeleton`, in whatever order where a format goes by names.

    None: there is none."""
    others = {name: load_skeleton(name).keypoints for name in shipped()}
    exact = [name for name, keypoints in others.items() if keypoints == skeleton.keypoints]
    alike = [name for name, keypoints in others.items() if sorted(keypoints) == sorted(skeleton.keypoints)]
    return next(iter(exact or (alike if any_order else [])), None)
