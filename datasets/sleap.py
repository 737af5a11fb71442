"""SLEAP's .slp files (HDF5): the instances that people labelled, on image files or on frames stored in the package.

Layout: sleap_io.io.slp. /metadata (JSON: nodes, skeletons), /videos_json, /tracks_json, and the tables /frames,
/instances and /points, whose rows refer to each other by number. Before format 1.1 the corner of the first pixel was
(0, 0), so half a pixel is taken off. Predictions are left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from posesweep.datasets.gather import BOX_MARGIN, Objects, Source, gather, unboxed
from posesweep.datasets.hdf5 import array, opened, text
from posesweep.datasets.images import PROBED, folder_beside
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton, infer_flip_pairs, skeleton_from_names
from posesweep.errors import DataError

KIND = "a SLEAP file (.slp)"
TABLES = ("metadata", "videos_json", "frames", "instances", "points")
USER = 0  # instance_type of what a person labelled
SYMMETRY = 2  # sleap.skeleton.EdgeType; 1 is a limb
CENTRED = 1.1  # the format in which the centre of the first pixel became (0, 0)


@dataclass(frozen=True)
class _Video:
    """Where the frames of one video are: image files, or an array in the package, or neither."""

    name: str
    files: Sequence[str] = ()
    dataset: str = ""


@dataclass(frozen=True)
class _Frame:
    """One labelled frame: the name of its image, its video, and where it is stored if that is in the package."""

    image: str
    group: str
    number: int  # in its video
    dataset: str = ""


def read_sleap(
    path: Path,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    box_margin: float = BOX_MARGIN,
    extract_to: Path | None = None,
) -> Instances:
    """The labelled animals of a .slp file; its videos are groups and its tracks identities.

    Image files lie below `images` (None: the file's folder, or `images` in it); of names that are not found there
    leading folders are dropped until they are. Frames stored in the package are written below `extract_to` as PNG and
    are an error without it. DataError: no h5py, no such file, frames of a video file, several skeletons, tables that
    refer to rows that are not there."""
    with opened(path, KIND) as file:
        missing = [name for name in TABLES if name not in file]
        if missing:
            raise DataError(
                f"{path}: is not {KIND}: it has no {', '.join(missing)}; is it cut off, or of another program?"
            )
        own = _skeleton(_json(file["metadata"].attrs["json"], path), path)
        columns = _columns(file, own, path)
        frames = _frames(file, columns.frames, path)
        stored = [frame for frame in frames.values() if frame.dataset]
        if stored and (extract_to is None or len(stored) < len(frames)):
            raise DataError(
                f"{path}: its frames are stored in the package; `posesweep convert {path} OUT` writes them out"
                if len(stored) == len(frames)
                else f"{path}: some of its frames are stored in it and some are files; export one package of all"
            )
        if stored and extract_to:
            _extract(file, stored, extract_to, path)
    folder = extract_to if stored and extract_to else images or _folder(path, frames)
    found = _below(folder, {id_: frame.image for id_, frame in frames.items()})
    objects = replace(columns.objects, images=[found[int(frame)] for frame in columns.frames])
    source = Source(path, folder, {found[id_]: frame.group for id_, frame in frames.items()})
    instances = gather(objects, source, skeleton or own, box_margin)
    return replace(instances, notes=(*columns.notes, *instances.notes))


def _folder(path: Path, frames: Mapping[int, _Frame]) -> Path:
    return folder_beside(path, [PurePosixPath(frame.image).name for frame in frames.values()])


def _below(folder: Path, names: Mapping[int, str]) -> dict[int, str]:
    """The names as they are found below `folder`: without as many leading folders as it takes, the same for all."""
    some = list(names.values())[:PROBED]
    for dropped in range(max((len(PurePosixPath(name).parts) for name in some), default=0)):
        shorter = {id_: "/".join(PurePosixPath(name).parts[dropped:]) for id_, name in names.items()}
        if any(shorter[id_] and (folder / shorter[id_]).is_file() for id_ in list(names)[:PROBED]):
            return shorter
    return dict(names)


def _json(value: Any, path: Path) -> Any:
    try:
        return json.loads(text(value))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: holds JSON that cannot be read ({error}); is it cut off?") from None


# --------------------------------------------------------------------------------------------------- the skeleton


def _skeleton(metadata: Mapping[str, Any], path: Path) -> Skeleton:
    """The file's one skeleton: nodes in order, limbs, and flip pairs from its symmetries or its names."""
    skeletons = metadata.get("skeletons") or []
    if len(skeletons) != 1:
        raise DataError(
            f"{path}: has {len(skeletons)} skeletons; PoseSweep trains one, so split it by skeleton in SLEAP"
        )
    try:
        all_names = [str(node["name"]) for node in metadata["nodes"]]
        names = [all_names[node["id"]] for node in skeletons[0]["nodes"]]
        edges, pairs = _links(skeletons[0].get("links") or [], all_names)
        title = str(skeletons[0].get("graph", {}).get("name") or "sleap")
    except (KeyError, TypeError, IndexError, AttributeError):
        raise DataError(f"{path}: its skeleton is not described as SLEAP does; save it again with SLEAP") from None
    if len(set(names)) < len(names) or not names:
        raise DataError(f"{path}: its skeleton must have nodes, each with a name of its own")
    made = skeleton_from_names(title, names, edges)
    return replace(made, flip_pairs=pairs or infer_flip_pairs(names)) if made.sigmas_note else made


def _links(links: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[Any], tuple[Any, ...]]:
    """Limbs and symmetric pairs. A link's type is spelled out once and referred to by its number (py/id) after that."""
    kinds: list[int] = []
    edges, pairs = [], []
    for link in links:
        kind = link["type"]
        if "py/reduce" in kind:
            kinds.append(int(kind["py/reduce"][1]["py/tuple"][0]))
            value = kinds[-1]
        else:
            value = kinds[int(kind["py/id"]) - 1]
        ends = (names[link["source"]], names[link["target"]])
        if value != SYMMETRY:
            edges.append(ends)
        elif ends[::-1] not in pairs:  # a symmetry is written in both directions
            pairs.append(ends)
    return edges, tuple(pairs)


# ----------------------------------------------------------------------------------------------------- the tables


@dataclass(frozen=True)
class _Columns:
    objects: Objects  # images still to be named
    frames: np.ndarray  # n frame ids
    notes: tuple[str, ...]


def _columns(file: Any, skeleton: Skeleton, path: Path) -> _Columns:
    """The instances that a person labelled."""
    rows, points = array(file["instances"])[()], array(file["points"])[()]
    user = rows["instance_type"] == USER
    predicted = int((~user).sum())
    rows = rows[user]
    count = len(skeleton.keypoints)
    start, end = rows["point_id_start"].astype(np.int64), rows["point_id_end"].astype(np.int64)
    if not ((end - start == count) & (start >= 0) & (end <= len(points))).all():
        raise DataError(
            f"{path}: its instances refer to points that are not there, {len(points)} for {len(rows)} instances of "
            f"{count} nodes; save it again with SLEAP"
        )
    own = points[start[:, None] + np.arange(count)]
    places = np.stack([own["x"], own["y"]], axis=2).astype(np.float64)
    if float(file["metadata"].attrs.get("format_id", 1.0)) < CENTRED:
        places = places - 0.5
    places[np.isnan(places).any(axis=2)] = np.nan
    note = f"{path.name}: {predicted} predicted instances are left out; only what a person labelled is learnt from"
    objects = unboxed(skeleton.keypoints, [""] * len(rows), places, _tracks(file, rows["track"], path))
    objects = replace(objects, visible=own["visible"].astype(bool))
    return _Columns(objects, rows["frame_id"].astype(np.int64), (note,) if predicted else ())


def _tracks(file: Any, tracks: np.ndarray, path: Path) -> list[str]:
    stored = array(file["tracks_json"])[()] if "tracks_json" in file else []
    names = [
        str(entry[1]) if isinstance(entry, list) and len(entry) > 1 else ""
        for entry in (_json(e, path) for e in stored)
    ]
    return [names[track] if 0 <= track < len(names) else "" for track in tracks.tolist()]


def _videos(file: Any, path: Path) -> dict[int, _Video]:
    """Videos by the number that frames refer to: N of videoN for frames in the package, else the place in the list."""
    videos = {}
    for place, entry in enumerate(array(file["videos_json"])[()]):
        backend = _json(entry, path).get("backend") or {}
        dataset = str(backend.get("dataset") or "")
        if backend.get("filename") == "." and dataset:
            number = dataset.split("/")[0].removeprefix("video")
            videos[int(number) if number.isdecimal() else place] = _Video(f"video{number}", dataset=dataset)
        else:
            files = [str(name) for name in backend.get("filenames") or []]
            videos[place] = _Video(str(backend.get("filename") or f"video {place}"), files)
    return videos


def _frames(file: Any, wanted: np.ndarray, path: Path) -> dict[int, _Frame]:
    """Frame id -> frame, of those that are `wanted`."""
    videos, rows = _videos(file, path), array(file["frames"])[()]
    at = {
        int(frame): (int(video), int(number))
        for frame, video, number in zip(rows["frame_id"], rows["video"], rows["frame_idx"], strict=True)
    }
    found = {}
    for id_ in sorted(set(wanted.tolist())):
        video, number = at.get(id_, (-1, 0))
        if video not in videos:
            raise DataError(f"{path}: frame {id_} is of a video that the file does not list; save it again with SLEAP")
        found[id_] = _frame(videos[video], video, number, path)
    return found


def _frame(video: _Video, at: int, number: int, path: Path) -> _Frame:
    if video.dataset:
        return _Frame(f"video{at}/frame_{number:06d}.png", f"video{at}", number, video.dataset)
    if 0 <= number < len(video.files):
        name = video.files[number].replace("\\", "/")
        return _Frame(name, PurePosixPath(name).parent.name, number)
    raise DataError(
        f"{path}: frame {number} is of the video {video.name}, and videos are not read; export a package "
        "(SLEAP: Predict > Export Labels Package) and give that"
    )


def _extract(file: Any, frames: Sequence[_Frame], folder: Path, path: Path) -> None:
    """Write the frames stored in the package as PNG below `folder`."""
    row_of = {name: _rows(file, name) for name in {frame.dataset for frame in frames}}
    for frame in frames:
        row = row_of[frame.dataset].get(frame.number)
        image = None if row is None else _decoded(array(file[frame.dataset]), row)
        if image is None:
            raise DataError(f"{path}: {frame.image} is not stored in it, or is no image; export it again with SLEAP")
        target = folder / frame.image
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _rows(file: Any, dataset: str) -> dict[int, int]:
    """Number of a frame in its video -> its row among the stored ones, the first if there are several."""
    numbers = array(file[dataset.rsplit("/", 1)[0]]["frame_numbers"])[()].tolist()
    return {number: row for row, number in reversed(list(enumerate(numbers)))}


def _decoded(stored: Any, row: int) -> np.ndarray | None:
    """One stored frame in OpenCV's channel order; None where it is no image."""
    kind, order = text(stored.attrs.get("format", "hdf5")), text(stored.attrs.get("channel_order", "BGR"))
    content = stored[row]
    if kind == "hdf5":
        return np.ascontiguousarray(content[..., ::-1]) if content.shape[-1] == 3 else content
    image = cv2.imdecode(np.asarray(content).astype(np.int8).view(np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None and image.ndim == 3 and image.shape[2] == 3 and order == "BGR":
        return np.ascontiguousarray(image[..., ::-1])  # encoded by OpenCV from RGB: red and blue are exchanged in it
    return image
