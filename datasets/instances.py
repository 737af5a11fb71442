"""Annotated objects as columns: what every reader returns and everything after it uses."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from posesweep.datasets.skeleton import Skeleton


@dataclass(frozen=True)
class Instances:
    """n annotated objects in m images. Coordinates are image pixels; the centre of the first pixel is (0, 0)."""

    skeleton: Skeleton
    image_files: tuple[Path, ...]  # m
    image_ids: Int[np.ndarray, "m"]
    image_groups: tuple[str, ...]  # m; images of one group (video, animal) never part in a split; "" = its own group
    image_index: Int[np.ndarray, "n"]  # row -> position in image_files
    ids: Int[np.ndarray, "n"]  # unique annotation ids
    category_ids: Int[np.ndarray, "n"]
    boxes: Float[np.ndarray, "n 4"]  # x, y, width, height
    keypoints: Float[np.ndarray, "n K 2"]  # x, y; (0, 0) where not labelled
    visibility: UInt8[np.ndarray, "n K"]  # 0 not labelled, 1 labelled but hidden, 2 visible
    areas: Float[np.ndarray, "n"]  # pixels^2, the s^2 of OKS
    crowd: Bool[np.ndarray, "n"]  # COCO's iscrowd: never trained on, ignored by AP
    category_names: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what the reader derived or left out, one sentence each, to be said once
    supercategories: Mapping[int, str] = field(default_factory=dict)  # category id -> its family (AP-10K: Bovidae)
    identities: tuple[str, ...] = ()  # n names of individuals, "" where unknown; empty where the file names nobody
    image_fields: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # other keys of the images, m values each

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labelled(self) -> Bool[np.ndarray, "n"]:
        """Which instances have a labelled keypoint; the others cannot be trained on and evaluation ignores them."""
        return np.asarray(self.visibility.any(axis=1))

    def take(self, rows: np.ndarray) -> "Instances":
        """The instances at `rows` (integer positions or a boolean mask), in that order; images stay as they are."""
        return replace(
            self,
            image_index=self.image_index[rows],
            ids=self.ids[rows],
            category_ids=self.category_ids[rows],
            boxes=self.boxes[rows],
            keypoints=self.keypoints[rows],
            visibility=self.visibility[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            identities=tuple(self.identities[i] for i in np.arange(len(self))[rows]) if self.identities else (),
        )
