"""Keypoint names, left/right pairs, limbs and OKS sigmas of a body: one YAML file each in `skeletons/`.

name: mouse4
keypoints: [snout, leftear, rightear, tailbase]
flip_pairs: [[leftear, rightear]]       # left out: inferred from the names; []: nothing is swapped
edges: [[snout, leftear]]               # for drawing; may be left out
sigmas: {snout: 0.05, ...}              # or a list in the keypoints' order; left out: 0.05 each, and said so
sigmas_note: where they come from, if they are not measured
upper_body: [snout, leftear]            # the upper (or front) half, shown alone by augmentation; may be left out
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float, Int

from posesweep.datasets.mistakes import Mistakes
from posesweep.errors import DataError, did_you_mean

FOLDER = Path(__file__).parent / "skeletons"
KEYS = ("name", "keypoints", "flip_pairs", "edges", "sigmas", "sigmas_note", "upper_body")
DEFAULT_SIGMA = 0.05
DEFAULT_NOTE = f"OKS sigmas were not given: {DEFAULT_SIGMA} for every keypoint, a stated default that nobody measured"
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Skeleton:
    """K named keypoints. `sigmas_note` is non-empty where the OKS sigmas are a stated default, not measured."""

    name: str
    keypoints: tuple[str, ...]
    flip_pairs: tuple[tuple[str, str], ...]  # (left, right)
    edges: tuple[tuple[str, str], ...]  # limbs, for drawing
    sigmas: Float[np.ndarray, "K"]  # OKS falloff per keypoint; k = 2 sigma (COCO)
    sigmas_note: str = ""
    upper_body: tuple[str, ...] = ()  # the other keypoints are the lower body; empty where nobody said

    @property
    def flip_index(self) -> Int[np.ndarray, "K"]:
        """Where each keypoint's label goes when the image is mirrored: `points[flip_index]`."""
        index = np.arange(len(self.keypoints))
        position = {name: i for i, name in enumerate(self.keypoints)}
        for left, right in self.flip_pairs:
            index[position[left]], index[position[right]] = position[right], position[left]
        return index


# ---------------------------------------------------------------------------------------------------------- reading


def shipped() -> list[str]:
    """Names of the skeletons that come with PoseSweep."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_skeleton(name_or_path: str | Path) -> Skeleton:
    """The skeleton of that name, or of that YAML file. DataError: unknown name, or the mistakes of the file."""
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        if str(name_or_path) not in shipped():
            hint = did_you_mean(str(name_or_path), shipped())
            raise DataError(f"skeleton '{name_or_path}' is unknown{hint}; your own is the path of a .yaml file")
        path = FOLDER / f"{name_or_path}.yaml"
    return _read(path)


@cache
def _shipped_by_keypoints() -> dict[tuple[str, ...], Skeleton]:
    return {skeleton.keypoints: skeleton for skeleton in map(load_skeleton, shipped())}


def skeleton_from_names(name: str, keypoints: Sequence[str], edges: Iterable[tuple[str, str]] = ()) -> Skeleton:
    """A skeleton for keypoints of which only the names are known.

    A shipped skeleton with exactly these names in this order is taken, with its sigmas; else flip pairs are inferred
    and every sigma is the default, which `sigmas_note` says."""
    keypoints = tuple(keypoints)
    known = _shipped_by_keypoints().get(keypoints)
    if known is not None:
        return known
    sigmas = np.full(len(keypoints), DEFAULT_SIGMA)
    return Skeleton(name, keypoints, infer_flip_pairs(keypoints), tuple(edges), sigmas, DEFAULT_NOTE)


def skeleton_from_coco_category(category: Mapping[str, Any], name: str) -> Skeleton:
    """The skeleton a COCO category describes: `keypoints` (names) and `skeleton` (limbs, counted from 1).

    DataError: no names, a name twice, or a limb that counts past the last keypoint."""
    keypoints = category.get("keypoints")
    if not isinstance(keypoints, list) or not keypoints or not all(isinstance(k, str) for k in keypoints):
        raise DataError(f"category '{name}' lists no keypoint names; give data.skeleton")
    if len(set(keypoints)) < len(keypoints):
        raise DataError(f"category '{name}' lists keypoint '{_repeated(keypoints)[0]}' twice; every name must differ")
    edges = [_coco_edge(edge, keypoints, name) for edge in category.get("skeleton") or []]
    return skeleton_from_names(name, keypoints, edges)


def _coco_edge(edge: Any, keypoints: Sequence[str], name: str) -> tuple[str, str]:
    ends = edge if isinstance(edge, list) else []
    if len(ends) != 2 or not all(isinstance(end, int) and 1 <= end <= len(keypoints) for end in ends):
        raise DataError(
            f"category '{name}' has the limb {edge} in its skeleton; "
            f"limbs are two numbers from 1 to {len(keypoints)}, its number of keypoints"
        )
    return keypoints[ends[0] - 1], keypoints[ends[1] - 1]


# ------------------------------------------------------------------------------------------------- left and right

# pattern of a left name -> what makes it the right one; L and R alone count only as a word of their own
# (L_Eye, eye_l, EyeL, LEye), so that "lump" does not pair with "rump"
_SIDES = (
    (re.compile(r"left"), "right"),
    (re.compile(r"Left"), "Right"),
    (re.compile(r"LEFT"), "RIGHT"),
    (re.compile(r"(?<![A-Za-z])L(?![a-z])|(?<=[a-z0-9])L(?![A-Za-z])"), "R"),
    (re.compile(r"(?<![A-Za-z])l(?![A-Za-z])"), "r"),
)


def infer_flip_pairs(keypoints: Sequence[str]) -> Pairs:
    """(left, right) pairs of names that differ in side only: left_x/right_x, leftear/rightear, L_x/R_x, x_l/x_r."""
    names = set(keypoints)
    pairs = []
    for name in keypoints:
        mirrored = next((other for other in _mirrored(name) if other in names), None)
        if mirrored:
            names -= {name, mirrored}
            pairs.append((name, mirrored))
    return tuple(pairs)


def _mirrored(name: str) -> Iterator[str]:
    """What the right counterpart of a left keypoint may be called."""
    for left, right in _SIDES:
        for match in left.finditer(name):
            yield name[: match.start()] + right + name[match.end() :]


# -------------------------------------------------------------------------------------------------- one YAML file


def _read(path: Path) -> Skeleton:
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such skeleton file; the shipped ones are {', '.join(shipped())}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    mistakes = Mistakes(path)
    _check(described, mistakes)
    mistakes.raise_any()
    return _build(described, path.stem)


def _build(described: Mapping[str, Any], stem: str) -> Skeleton:
    keypoints = tuple(described["keypoints"])
    plain = Skeleton(
        name=described.get("name") or stem,
        keypoints=keypoints,
        flip_pairs=_left_first(described.get("flip_pairs") or (), keypoints),
        edges=tuple((a, b) for a, b in described.get("edges") or ()),
        sigmas=np.full(len(keypoints), DEFAULT_SIGMA),
        sigmas_note=described.get("sigmas_note") or "",
        upper_body=tuple(described.get("upper_body") or ()),
    )
    if described.get("flip_pairs") is None:
        plain = replace(plain, flip_pairs=infer_flip_pairs(keypoints))
    sigmas = described.get("sigmas")
    if sigmas is None:
        return replace(plain, sigmas_note=plain.sigmas_note or DEFAULT_NOTE)
    values = [sigmas[k] for k in keypoints] if isinstance(sigmas, dict) else sigmas
    return replace(plain, sigmas=np.array(values, dtype=np.float64))


def _left_first(pairs: Iterable[Sequence[str]], keypoints: Sequence[str]) -> Pairs:
    """The pairs as (left, right) where the names tell: files list the right one first, and drawing colours sides."""
    inferred = set(infer_flip_pairs(keypoints))
    return tuple((b, a) if (b, a) in inferred else (a, b) for a, b in pairs)


def _check(described: Any, mistakes: Mistakes) -> None:
    if not isinstance(described, dict) or not isinstance(described.get("keypoints"), list):
        mistakes.add("a skeleton file needs 'keypoints', a list of names")
        return
    keypoints = described["keypoints"]
    for key in described:
        if key not in KEYS:
            mistakes.add(f"unknown key '{key}'{did_you_mean(str(key), KEYS)}")
    if not keypoints or not all(isinstance(k, str) for k in keypoints):
        mistakes.add("keypoints must be at least one name, each of them text (put quotes around numbers, yes and no)")
        return
    for name in _repeated(keypoints):
        mistakes.add(f"keypoint '{name}' is listed twice; every name must differ")
    _check_pairs("flip_pairs", described.get("flip_pairs"), keypoints, mistakes)
    _check_sides(described.get("flip_pairs"), keypoints, mistakes)
    _check_pairs("edges", described.get("edges"), keypoints, mistakes)
    _check_sigmas(described.get("sigmas"), keypoints, mistakes)
    _check_upper_body(described.get("upper_body"), keypoints, mistakes)


def _check_upper_body(names: Any, keypoints: Sequence[str], mistakes: Mistakes) -> None:
    if not isinstance(names, list | None):
        mistakes.add("upper_body must be a list of keypoint names")
        return
    for name in names or []:
        if name not in keypoints:
            mistakes.add(f"upper_body: '{name}' is not a keypoint{did_you_mean(str(name), keypoints)}")
    if names and set(keypoints) <= set(names):
        mistakes.add("upper_body names every keypoint; leave those of the lower (or hind) half out")


def _check_pairs(key: str, pairs: Any, keypoints: Sequence[str], mistakes: Mistakes) -> None:
    if not isinstance(pairs, list | None):
        mistakes.add(f"{key} must be a list of pairs of keypoint names")
        return
    members: list[str] = []
    for pair in pairs or []:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            mistakes.add(f"{key}: {pair} is not a pair of two different keypoint names")
            continue
        members += pair
        for name in pair:
            if name not in keypoints:
                mistakes.add(f"{key}: '{name}' in {pair} is not a keypoint{did_you_mean(name, keypoints)}")
    if key == "flip_pairs":
        for name in _repeated(members):
            mistakes.add(f"flip_pairs: '{name}' is in two pairs; a keypoint has one mirror image")


def _check_sides(pairs: Any, keypoints: Sequence[str], mistakes: Mistakes) -> None:
    """The pairs must not contradict what the names say about left and right; an empty list: nothing is swapped.

    Names without a side (near and off, numbers) say nothing, and pairs of them are taken as they are."""
    known = [pair for pair in pairs if _is_pair(pair, keypoints)] if isinstance(pairs, list) else []
    members = [name for pair in known for name in pair]
    inferred = infer_flip_pairs(keypoints)
    mirror = {a: b for left, right in inferred for a, b in ((left, right), (right, left))}
    for a, b in known:
        named, other = (a, b) if mirror.get(a, b) != b else (b, a)
        if mirror.get(named, other) != other and not {a, b} & set(_repeated(members)):
            mistakes.add(
                f"flip_pairs: '{named}' is paired with '{other}', but by their names '{mirror[named]}' mirrors it"
            )
    for left, right in inferred if known else ():
        if left not in members and right not in members:
            mistakes.add(
                f"flip_pairs: '{left}' and '{right}' are in no pair, and their names differ in side only; "
                "add the pair, or leave flip_pairs out and all pairs are inferred"
            )


def _is_pair(pair: Any, keypoints: Sequence[str]) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and pair[0] != pair[1] and set(map(str, pair)) <= set(keypoints)


def _check_sigmas(sigmas: Any, keypoints: Sequence[str], mistakes: Mistakes) -> None:
    if sigmas is None:
        return
    if isinstance(sigmas, dict):
        for name in (k for k in sigmas if k not in keypoints):
            mistakes.add(f"sigmas: '{name}' is not a keypoint{did_you_mean(str(name), keypoints)}")
        for name in (k for k in keypoints if k not in sigmas):
            mistakes.add(f"sigmas: keypoint '{name}' has none; give every keypoint one, or leave sigmas out")
        named = sigmas
    elif isinstance(sigmas, list) and len(sigmas) == len(keypoints):
        named = dict(zip(keypoints, sigmas, strict=True))
    else:
        count = f"{len(sigmas)} values" if isinstance(sigmas, list) else repr(sigmas)
        mistakes.add(f"sigmas: {count} for {len(keypoints)} keypoints; give one each, in the same order")
        return
    for name, sigma in named.items():
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < np.inf:
            mistakes.add(f"sigmas: {sigma!r} of '{name}' must be a number above 0 (COCO's are 0.025 to 0.107)")


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
