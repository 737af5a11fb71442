"""`Instances` as COCO JSON, YOLO-pose and a wide CSV table; each keeps every keypoint to the last bit of its numbers.

Image names are written relative to a root, which is where a reader must be told to look. Beside them a skeleton file
holds what none of the formats has a place for: flip pairs, sigmas and the upper body.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool, Int

from posesweep.datasets.boxes import areas_of
from posesweep.datasets.headers import Header
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton, load_skeleton, shipped
from posesweep.datasets.table import BOX, IMAGE, LONG
from posesweep.datasets.yolo_pose import label_name
from posesweep.errors import DataError
from posesweep.files import write_json, write_text


def root_of(instances: Instances, images: Path | None = None) -> Path:
    """The folder that names are relative to: `images` if all lie below it, else the deepest that holds them all."""
    files = instances.image_files
    if images is not None and all(file.is_relative_to(images) for file in files):
        return images
    return Path(os.path.commonpath([file.absolute().parent for file in files]))


def names_below(instances: Instances, root: Path) -> list[str]:
    """Each image's name relative to `root`, with slashes."""
    top = root.absolute()
    return [file.absolute().relative_to(top).as_posix() for file in instances.image_files]


def rows_by_image(instances: Instances) -> list[Int[np.ndarray, "r"]]:
    """For each image the rows of its instances, in their order."""
    order = np.argsort(instances.image_index, kind="stable")
    starts = np.searchsorted(instances.image_index[order], np.arange(1, len(instances.image_files)))
    return list(np.split(order, starts))


# -------------------------------------------------------------------------------------------------------- skeleton


def needs_skeleton_file(skeleton: Skeleton) -> bool:
    """Whether a reader would miss something without a skeleton file: all but exactly a shipped skeleton of its name."""
    return skeleton.name not in shipped() or _described(skeleton) != _described(load_skeleton(skeleton.name))


def skeleton_text(skeleton: Skeleton) -> str:
    """The skeleton as the YAML file that `load_skeleton` reads, sigmas to the last bit."""
    return yaml.safe_dump(_described(skeleton), sort_keys=False, allow_unicode=True, width=118)


def _described(skeleton: Skeleton) -> dict[str, Any]:
    optional = {"sigmas_note": skeleton.sigmas_note, "upper_body": list(skeleton.upper_body)}
    return {
        "name": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "edges": [list(edge) for edge in skeleton.edges],
        "sigmas": dict(zip(skeleton.keypoints, skeleton.sigmas.tolist(), strict=True)),
        **{key: value for key, value in optional.items() if value},
    }


# ------------------------------------------------------------------------------------------------------------ COCO


def to_coco(instances: Instances, root: Path, sizes: Sequence[Header]) -> dict[str, Any]:
    """The document of a COCO keypoint file; `sizes` are those of the images as shown.

    Beyond COCO's own keys: an annotation's `identity`, an image's `group`, and what else the source said of images."""
    return {
        "info": {"description": "written by posesweep convert"},
        "images": [
            _image(instances, i, name, size)
            for i, (name, size) in enumerate(zip(names_below(instances, root), sizes, strict=True))
        ],
        "annotations": [_annotation(instances, row) for row in range(len(instances))],
        "categories": [_category(instances, i, name) for i, name in instances.category_names.items()],
    }


def _image(instances: Instances, i: int, name: str, size: Header) -> dict[str, Any]:
    more = {key: values[i] for key, values in instances.image_fields.items() if values[i] is not None}
    group = {"group": instances.image_groups[i]} if instances.image_groups[i] != "" else {}
    own = {"id": int(instances.image_ids[i]), "file_name": name, "width": size.width, "height": size.height}
    return {**more, **group, **own}


def _annotation(instances: Instances, row: int) -> dict[str, Any]:
    visibility = instances.visibility[row]
    points = np.concatenate([instances.keypoints[row], visibility[:, None]], axis=1)
    identity = {"identity": instances.identities[row]} if instances.identities and instances.identities[row] else {}
    return {
        "id": int(instances.ids[row]),
        "image_id": int(instances.image_ids[instances.image_index[row]]),
        "category_id": int(instances.category_ids[row]),
        "bbox": [_short(v) for v in instances.boxes[row].tolist()],
        "area": _short(float(instances.areas[row])),
        "iscrowd": int(instances.crowd[row]),
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": [_short(v) for v in points.ravel().tolist()],
        **identity,
    }


def _short(value: float) -> float | int:
    """A whole number without its ".0", which a large file is full of."""
    return int(value) if value.is_integer() else value


def _category(instances: Instances, category_id: int, name: str) -> dict[str, Any]:
    skeleton = instances.skeleton
    position = {keypoint: k for k, keypoint in enumerate(skeleton.keypoints, 1)}
    family = instances.supercategories.get(category_id)
    return {
        "id": category_id,
        "name": name,
        **({"supercategory": family} if family else {}),
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[position[a], position[b]] for a, b in skeleton.edges],
    }


def write_coco(instances: Instances, path: Path, root: Path, sizes: Sequence[Header]) -> None:
    """Write `to_coco`'s document, whole or not at all."""
    write_json(path, to_coco(instances, root, sizes))


# ------------------------------------------------------------------------------------------------------- YOLO-pose


def write_yolo(instances: Instances, folder: Path, root: Path, sizes: Sequence[Header]) -> list[str]:
    """Write data.yaml and labels/ into `folder`; the images belong below its images/, under their names.

    YOLO-pose knows no crowds and nothing outside an image: crowds are left out, boxes cut to the image, keypoints
    outside it written as not labelled. Returns a sentence for each of these that happened, and one for what else
    YOLO-pose has no place for."""
    extent = np.array([[size.width, size.height] for size in sizes], dtype=np.float64)[instances.image_index]
    inside = _inside(instances, extent)
    kept = (
        ~instances.crowd
        & (instances.boxes[:, :2] < extent).all(axis=1)
        & (instances.boxes[:, :2] + instances.boxes[:, 2:] > 0).all(axis=1)
    )
    lines = _lines(instances, extent, inside)
    label_of: dict[str, str] = {}
    for name, rows in zip(names_below(instances, root), rows_by_image(instances), strict=True):
        label = label_name(f"images/{name}")
        if label_of.setdefault(label, name) != name:
            raise DataError(f"{label_of[label]} and {name} would share the label file {label}; rename one of them")
        if kept[rows].any():
            (folder / label).parent.mkdir(parents=True, exist_ok=True)
            (folder / label).write_text("".join(lines[row] + "\n" for row in rows[kept[rows]]), encoding="utf-8")
    write_text(folder / "data.yaml", yaml.safe_dump(_data_yaml(instances), sort_keys=False, allow_unicode=True))
    outside = ((instances.boxes[:, :2] < 0) | (instances.boxes[:, :2] + instances.boxes[:, 2:] > extent)).any(axis=1)
    said = {
        "crowds or objects outside their image are left out, which YOLO-pose does not know": (~kept).sum(),
        "boxes reach beyond their image and are cut to it": (outside & kept).sum(),
        "keypoints outside their image are written as not labelled": ((instances.visibility > 0) & ~inside)[kept].sum(),
    }
    return [*(f"{count} {sentence}" for sentence, count in said.items() if count), *_not_in_yolo(instances)]


def _not_in_yolo(instances: Instances) -> list[str]:
    """One sentence on the areas, groups, identities and fields of images that YOLO-pose has no place for."""
    derived = np.isclose(instances.areas, areas_of(instances.boxes), rtol=1e-6, atol=0)
    lost = [
        (int((~derived).sum()), "area", "annotations"),
        (sum(identity != "" for identity in instances.identities), "identity", "annotations"),
        (sum(group != "" for group in instances.image_groups), "group", "images"),
        *((sum(v is not None for v in values), key, "images") for key, values in instances.image_fields.items()),
    ]
    named = [f"{what} of {count} {of}" for count, what, of in lost if count]
    return [f"YOLO-pose has no place for these, left out: {', '.join(named)}"] if named else []


def _inside(instances: Instances, extent: np.ndarray) -> Bool[np.ndarray, "n K"]:
    shares = instances.keypoints / extent[:, None, :]
    return np.asarray(((shares >= 0) & (shares <= 1)).all(axis=2))


def _lines(instances: Instances, extent: np.ndarray, inside: np.ndarray) -> list[str]:
    """One line per object; 17 digits, so that a share times the size gives the coordinate back."""
    classes = _classes(instances)
    low = np.clip(instances.boxes[:, :2], 0, extent)
    high = np.clip(instances.boxes[:, :2] + instances.boxes[:, 2:], 0, extent)
    boxes = np.concatenate([(low + high) / 2 / extent, (high - low) / extent], axis=1)
    visibility = np.where(inside, instances.visibility, 0)
    shares = np.where(visibility[:, :, None] > 0, instances.keypoints / extent[:, None, :], 0.0)
    return [
        " ".join(
            [
                str(classes[row]),
                *map(repr, boxes[row].tolist()),
                *(f"{x!r} {y!r} {v}" for (x, y), v in zip(shares[row].tolist(), visibility[row].tolist(), strict=True)),
            ]
        )
        for row in range(len(instances))
    ]


def _classes(instances: Instances) -> Int[np.ndarray, "n"]:
    ids = sorted(instances.category_names)
    return np.searchsorted(ids, instances.category_ids)


def _data_yaml(instances: Instances) -> dict[str, Any]:
    skeleton = instances.skeleton
    names = [instances.category_names[i] for i in sorted(instances.category_names)]
    return {
        "train": "images",
        "val": "images",
        "kpt_shape": [len(skeleton.keypoints), 3],
        "flip_idx": skeleton.flip_index.tolist(),
        "names": dict(enumerate(names)),
        "kpt_names": {i: list(skeleton.keypoints) for i in range(len(names))},
    }


# ------------------------------------------------------------------------------------------------------------- CSV


FIXED = ("image", "instance", "category", "group", "identity", *BOX, "area", "crowd")
_OF_KEYPOINTS = ("_x", "_y", "_v", "_visibility")  # how the columns of keypoints end


def to_csv(instances: Instances, root: Path) -> str:
    """A wide table: image, instance, category, box, area, crowd, x, y and visibility of every keypoint, image fields.

    Fields of images whose names are those of other columns are left out, see `csv_fields`."""
    names = names_below(instances, root)
    clashing = sorted({"box_x", "box_y"} & {f"{k}_{axis}" for k in instances.skeleton.keypoints for axis in "xy"})
    if clashing:
        raise DataError(
            f"a keypoint called 'box' cannot be told from the box in a CSV table ({clashing[0]}); rename it"
        )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{name}_{end}" for name in instances.skeleton.keypoints for end in ("x", "y", "v")]
    fields, _ = csv_fields(instances)
    writer.writerow([*FIXED, *columns, *fields])
    more = [[instances.image_fields[key][i] for key in fields] for i in range(len(names))]  # None becomes a blank cell
    at = instances.image_index.tolist()
    writer.writerows([*_row(instances, row, names), *more[at[row]]] for row in range(len(instances)))
    return out.getvalue()


def csv_fields(instances: Instances) -> tuple[list[str], list[str]]:
    """The fields of images that a table has as columns, and those that would be taken for another column."""
    taken = {*FIXED, *IMAGE, *LONG, "v", "visibility", "video"}
    kept = [key for key in instances.image_fields if key not in taken and not key.endswith(_OF_KEYPOINTS)]
    return kept, [key for key in instances.image_fields if key not in kept]


def _row(instances: Instances, row: int, names: Sequence[str]) -> list[Any]:
    i = int(instances.image_index[row])
    cells: list[Any] = []
    for (x, y), v in zip(instances.keypoints[row].tolist(), instances.visibility[row].tolist(), strict=True):
        cells += [repr(x), repr(y), v] if v else ["", "", 0]
    return [
        names[i],
        int(instances.ids[row]),
        instances.category_names.get(int(instances.category_ids[row]), ""),
        instances.image_groups[i],
        instances.identities[row] if instances.identities else "",
        *map(repr, instances.boxes[row].tolist()),
        repr(float(instances.areas[row])),
        int(instances.crowd[row]),
        *cells,
    ]
