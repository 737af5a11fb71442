"""Which tensor of a checkpoint goes where in a network, what fits, what does not, and a record of it all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from posesweep.trainables.models.openmmlab import NOT_THE_NETWORK, common_names, names_of_ours
from posesweep.trainables.models.positions import Grid, grid_of, moved_positions
from posesweep.trainables.origins import ROWS, Origin
from posesweep.trainables.weights_file import WeightsFile

POSITIONS = "backbone.pos_embed"
CLASS_TOKEN = "backbone.cls_token"
NETWORK = ("backbone.", "neck.", "head.")


@dataclass(frozen=True)
class Report:
    """What became of every tensor. Names of the network's, except in `left`, where they are the file's."""

    path: Path
    layout: str
    loaded: tuple[str, ...]
    reshaped: Mapping[str, str]  # of another shape or order in the file -> what was done
    left: tuple[str, ...]  # in the file, and of no use here
    missing: tuple[str, ...]  # not in the file: as the network was made
    head: str  # what became of the keypoints, in words
    backbone_share: float  # of the backbone's numbers, how much comes from the file
    file_share: float  # of the numbers of the file's backbone, how much is used

    def summary(self) -> str:
        """One line for the record."""
        counts = [f"{len(self.loaded)} tensors loaded", f"{len(self.reshaped)} reshaped"]
        counts += [f"{len(self.missing)} missing{_where(self.missing)}", f"{len(self.left)} left{_where(self.left)}"]
        positions = [how for name, how in self.reshaped.items() if name.endswith("pos_embed")]
        return "; ".join([f"{self.path.name} ({self.layout}): {', '.join(counts)}", *positions, self.head])


@dataclass(frozen=True)
class Rows:
    """Which row of the file's head each row of the network's takes; -1: none. `there` is how many the file has."""

    keypoints: tuple[str, ...]
    take: tuple[int, ...]
    there: int
    why_fresh: str = ""
    assumed: str = ""

    @classmethod
    def between(cls, keypoints: Sequence[str], source: Sequence[str] | None, here: Tensor, there: Tensor) -> "Rows":
        """By name where the file's keypoints are known, else in order where there are equally many.

        `here` and `there` are the weights of the last layer, one row per keypoint.
        """
        names, count = tuple(keypoints), len(there)
        none = (-1,) * len(names)
        if here.shape[1:] != there.shape[1:]:
            return cls(names, none, count, "the file's last layer is of another kind")
        if source is None:
            if len(names) == count:
                return cls(names, tuple(range(count)), count, assumed=", in the order of the file, which has no names")
            return cls(names, none, count, f"the file has {count}, without names (weights_skeleton gives them)")
        place = {_plain(name): row for row, name in enumerate(source)}
        return cls(names, tuple(place.get(_plain(name), -1) for name in names), count, f"the file has {count} others")

    @property
    def in_order(self) -> bool:
        """Whether the file's rows are the network's, one by one."""
        return self.take == tuple(range(self.there))

    def words(self) -> str:
        """What became of them."""
        kept = [name for name, row in zip(self.keypoints, self.take, strict=True) if row >= 0]
        count = len(self.keypoints)
        if len(kept) == count:
            return f"head: all {count} keypoints keep their rows{self.assumed}"
        if kept:
            return f"head: {len(kept)} of {count} keypoints keep their rows ({', '.join(kept)}), the others start fresh"
        return f"head: all {count} keypoints start fresh: {self.why_fresh}"


def match(
    network: nn.Module, file: WeightsFile, keypoints: Sequence[str], origin: Origin
) -> tuple[Report, dict[str, Tensor]]:
    """What of `file` the network takes, and the new values by the network's names; nothing is changed.

    `keypoints` name the rows of the network's head. It may lie on the meta device: only its shapes matter then.
    """
    state = network.state_dict()
    layout, names = common_names(file.tensors)
    here = _Named.of(state, names_of_ours(name for name in state if _counts(name)))
    theirs = _Named.of(file.tensors, names)
    rows = _rows(keypoints, here, theirs, origin)
    adapt = _Adapter(rows, grid_of(network), _grid(theirs, origin), CLASS_TOKEN in theirs.tensors)
    both = [common for common in here.tensors if common in theirs.tensors]
    adapted = {common: adapt(common, here.tensors[common], theirs.tensors[common]) for common in both}
    values = {common: value for common, (value, _) in adapted.items() if value is not None}
    reshaped = {here.names[common]: how for common, (_, how) in adapted.items() if how}
    report = Report(
        path=file.path,
        layout=layout,
        loaded=tuple(here.names[common] for common in values if here.names[common] not in reshaped),
        reshaped=reshaped,
        left=tuple(name for common, name in theirs.names.items() if common not in here.names),
        missing=tuple(name for common, name in here.names.items() if common not in theirs.names and not _unused(name)),
        head=rows.words() if rows else f"head: all {len(keypoints)} keypoints start fresh: the file has none",
        backbone_share=here.share_of_backbone(values),
        file_share=theirs.share_of_backbone(values),
    )
    return report, {here.names[common]: value for common, value in values.items()}


@dataclass(frozen=True)
class _Named:
    """Tensors by their common names, and what they are called where they come from."""

    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], common: Mapping[str, str]) -> "_Named":
        """Given every name's common one."""
        return cls({common[name]: tensors[name] for name in common}, {common[name]: name for name in common})

    def share_of_backbone(self, part: Iterable[str]) -> float:
        """How much of the backbone's numbers is in the tensors of these common names."""
        sizes = {common: tensor.numel() for common, tensor in self.tensors.items() if common.startswith("backbone.")}
        return sum(sizes.get(common, 0) for common in part) / max(1, sum(sizes.values()))


@dataclass(frozen=True)
class _Adapter:
    """How a tensor of the file becomes one of the network's."""

    rows: Rows | None  # None: the file has no head
    grid: Grid | None  # patches of the network
    grid_there: Grid | None  # patches of the file's network, where they are known
    class_token: bool  # whether the file has one

    def __call__(self, common: str, here: Tensor, there: Tensor) -> tuple[Tensor | None, str]:
        """The new value (None: the network's stays), and what was done to the file's ("": nothing)."""
        if common in ROWS and self.rows is not None and not self.rows.in_order:
            return _rows_taken(here, there, self.rows)
        if common == POSITIONS and self.grid is not None and here.shape[2:] == there.shape[2:]:
            return moved_positions(there, self.grid, self.grid_there, self.class_token)
        if here.shape != there.shape:
            return None, f"{_size(there)} in the file, {_size(here)} here: starts fresh"
        return there, ""


def _rows(keypoints: Sequence[str], here: _Named, theirs: _Named, origin: Origin) -> Rows | None:
    """Which rows the heads have in common; None where the file has no head."""
    if ROWS[0] not in here.tensors or ROWS[0] not in theirs.tensors:
        return None
    return Rows.between(keypoints, origin.keypoints, here.tensors[ROWS[0]], theirs.tensors[ROWS[0]])


def _grid(theirs: _Named, origin: Origin) -> Grid | None:
    """The patches of the file's network, where the size of its input is known."""
    if POSITIONS not in theirs.tensors or origin.imgsz is None:
        return None
    width, height = origin.imgsz
    patch = round((width * height / theirs.tensors[POSITIONS].shape[1]) ** 0.5)
    return height // patch, width // patch


def _rows_taken(here: Tensor, there: Tensor, rows: Rows) -> tuple[Tensor | None, str]:
    """`here` with the rows of the keypoints that the file has too."""
    to = [row for row, place in enumerate(rows.take) if place >= 0]
    if not to:
        return None, f"{_size(there)} in the file, {_size(here)} here: starts fresh"
    new = here.clone()
    new[to] = there[[rows.take[row] for row in to]].to(new)
    return new, f"{len(to)} of {len(here)} rows from the file's {len(there)}"


def _plain(name: str) -> str:
    """A keypoint's name without case, spaces and signs: left_eye is Left Eye."""
    return "".join(character for character in name.lower() if character.isalnum())


def _counts(name: str) -> bool:
    """Whether it is part of what a checkpoint can fill."""
    return name.startswith(NETWORK) and not name.startswith(NOT_THE_NETWORK)


def _unused(name: str) -> bool:
    """Whether it is batch norm's count of batches, which old files lack and which nothing here uses."""
    return name.endswith("num_batches_tracked")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _where(names: Sequence[str]) -> str:
    """The beginnings of names, without the last parts: ' (head.cls_x, head.cls_y, ...)'."""
    starts = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return f" ({', '.join(starts[:4])}{', ...' if len(starts) > 4 else ''})" if starts else ""
