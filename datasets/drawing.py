"""Drawing poses and pages of pictures: RGB arrays in, RGB arrays out.

Colours tell the side: left keypoints and limbs orange, right ones blue, all others green; limbs that lead from one side
to the other are grey. A hidden keypoint (visibility 1) is a ring, a visible one a disc.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from posesweep.datasets.skeleton import Skeleton
from posesweep.files import replacing

Colour = tuple[int, int, int]

LEFT, RIGHT, MIDDLE, ACROSS = (255, 150, 30), (50, 160, 255), (100, 215, 90), (200, 200, 200)
PAPER, INK, FAINT, OUTLINE = (250, 250, 248), (32, 36, 42), (112, 118, 126), (20, 22, 26)
BOX = (255, 230, 80)
SHIFT = 4  # OpenCV draws in 1/16 pixels
PAGE_PX = 1200  # width of a page
MARGIN_PX, GAP_PX, LINE_PX = 24, 12, 22


@dataclass(frozen=True)
class Tile:
    """A picture on a page and the words below it."""

    picture: UInt8[np.ndarray, "h w 3"]
    caption: str = ""


@dataclass(frozen=True)
class Words:
    """A piece of text; `at` is its left top corner, page or picture pixels."""

    at: tuple[float, float]
    text: str
    colour: Colour = INK
    size_px: int = 14
    outlined: bool = False


def side_colours(skeleton: Skeleton) -> list[Colour]:
    """The colour of each keypoint."""
    left, right = ({pair[side] for pair in skeleton.flip_pairs} for side in (0, 1))
    return [LEFT if name in left else RIGHT if name in right else MIDDLE for name in skeleton.keypoints]


def draw_pose(
    picture: UInt8[np.ndarray, "h w 3"],
    points: Float[np.ndarray, "K 2"],
    visibility: Int[np.ndarray, "K"] | UInt8[np.ndarray, "K"],
    skeleton: Skeleton,
    numbers: bool = False,
) -> None:
    """Draw one object's labelled keypoints, in the picture's pixels, and the limbs between them into `picture`.

    `numbers`: each keypoint's number beside it, counted from 1.
    """
    colours, index = side_colours(skeleton), {name: k for k, name in enumerate(skeleton.keypoints)}
    for start, end in ((index[a], index[b]) for a, b in skeleton.edges):
        if visibility[start] and visibility[end]:
            _line(picture, points[start], points[end], OUTLINE, 4)
            _line(picture, points[start], points[end], _limb_colour(colours[start], colours[end]), 2)
    seen = np.flatnonzero(visibility).tolist()
    for k in seen:
        _dot(picture, points[k], colours[k], hidden=bool(visibility[k] == 1))
    if numbers:
        beside = [(float(points[k, 0]) + 5, float(points[k, 1]) - 13) for k in seen]
        write(picture, [Words(at, str(k + 1), colours[k], 11, True) for k, at in zip(seen, beside, strict=True)])


def draw_box(picture: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> None:
    """Draw a box (x, y, width, height in the picture's pixels)."""
    x, y, width, height = box
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    for colour, thickness in ((OUTLINE, 3), (BOX, 1)):
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _line(picture, start, end, colour, thickness)


def write(picture: UInt8[np.ndarray, "h w 3"], words: Sequence[Words]) -> None:
    """Put text into `picture`."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for each in words:
        outline_px = 2 if each.outlined else 0
        font = _font(each.size_px)
        pen.text(each.at, each.text, fill=each.colour, font=font, stroke_width=outline_px, stroke_fill=OUTLINE)
    picture[:] = np.asarray(image)


def page(title: str, rows: Sequence[Sequence[Tile]], notes: Sequence[Words] = ()) -> UInt8[np.ndarray, "H W 3"]:
    """A page 1,200 pixels wide: a title, rows of tiles (`tile_px` wide each), and `notes` set as flowing text below."""
    blocks = [_row(tiles) for tiles in rows]
    top = MARGIN_PX + 2 * LINE_PX
    heights = [block.shape[0] for block in blocks]
    flowed = _flow(notes, top + sum(heights) + GAP_PX)
    bottom = max([words.at[1] for words in flowed], default=top + sum(heights)) + LINE_PX + MARGIN_PX
    sheet = np.full((round(bottom), PAGE_PX, 3), PAPER, np.uint8)
    for block, below in zip(blocks, np.cumsum(heights).tolist(), strict=True):
        sheet[top + below - block.shape[0] : top + below] = block
    write(sheet, [Words((MARGIN_PX, MARGIN_PX - 4), title, size_px=20), *flowed])
    return sheet


def tile_px(columns: int) -> int:
    """How wide a tile is on a page with so many columns."""
    return (PAGE_PX - 2 * MARGIN_PX - (columns - 1) * GAP_PX) // columns


def legend(skeleton: Skeleton, numbers: bool = False) -> list[Words]:
    """What the colours mean, and the numbers of keypoints where they are drawn: for the notes of a page."""
    said = [("left", LEFT), ("right", RIGHT), ("neither", MIDDLE)]
    words = [Words((0, 0), text, _darker(colour)) for text, colour in said]
    words.append(Words((0, 0), "ring: hidden" + " " * 6, FAINT))
    if not numbers:
        return words
    colours = side_colours(skeleton)
    numbered = [f"{k} {name}" for k, name in enumerate(skeleton.keypoints, start=1)]
    return words + [Words((0, 0), text, _darker(c)) for text, c in zip(numbered, colours, strict=True)]


def save_png(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a picture to `path`, whole or not at all."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


# ------------------------------------------------------------------------------------------------------------ details


def _row(tiles: Sequence[Tile]) -> UInt8[np.ndarray, "h W 3"]:
    """Tiles side by side with their captions, as wide as the page."""
    captions = any(tile.caption for tile in tiles)
    height = max(tile.picture.shape[0] for tile in tiles)
    block = np.full((height + GAP_PX + LINE_PX * captions, PAGE_PX, 3), PAPER, np.uint8)
    words, x = [], MARGIN_PX
    for tile in tiles:
        high, wide = tile.picture.shape[:2]
        block[:high, x : x + wide] = tile.picture
        words.append(Words((x, high + 3), _cut_to(tile.caption, wide, 13), FAINT, 13))
        x += wide + GAP_PX
    write(block, words)
    return block


def _flow(notes: Sequence[Words], top: float) -> list[Words]:
    """Give each note its place: one after the other, in lines."""
    placed, x, y = [], float(MARGIN_PX), top
    for note in notes:
        wide = _font(note.size_px).getlength(note.text)
        if x + wide > PAGE_PX - MARGIN_PX and x > MARGIN_PX:
            x, y = float(MARGIN_PX), y + LINE_PX
        placed.append(Words((x, y), note.text, note.colour, note.size_px))
        x += wide + 2 * GAP_PX
    return placed


def _cut_to(text: str, width_px: int, size_px: int) -> str:
    font = _font(size_px)
    while text and font.getlength(text) > width_px:
        text = f"{text[:-2]}…" if len(text) > 2 else ""
    return text


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _darker(colour: Colour) -> Colour:
    """Readable on paper."""
    red, green, blue = (round(c * 0.72) for c in colour)
    return red, green, blue


def _limb_colour(start: Colour, end: Colour) -> Colour:
    if start == end or end == MIDDLE:
        return start
    return end if start == MIDDLE else ACROSS


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.clip(point, -2000, 4000) * (1 << SHIFT)
    return round(float(x)), round(float(y))


def _line(picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour, width: int) -> None:
    cv2.line(picture, _fixed(start), _fixed(end), colour, width, cv2.LINE_AA, SHIFT)


def _dot(picture: np.ndarray, at: np.ndarray, colour: Colour, hidden: bool) -> None:
    cv2.circle(picture, _fixed(at), 5 << SHIFT, OUTLINE, -1, cv2.LINE_AA, SHIFT)
    cv2.circle(picture, _fixed(at), 4 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    if hidden:
        cv2.circle(picture, _fixed(at), 2 << SHIFT, OUTLINE, -1, cv2.LINE_AA, SHIFT)
