"""Drawing: colours tell the side, what is not labelled is not drawn, pages hold what they were given."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets.drawing import (
    ACROSS,
    BOX,
    LEFT,
    MIDDLE,
    PAGE_PX,
    RIGHT,
    Tile,
    Words,
    draw_box,
    draw_pose,
    legend,
    page,
    save_png,
    side_colours,
    tile_px,
    write,
)
from posesweep.datasets.skeleton import Skeleton

EDGES = (("left_ear", "nose"), ("nose", "right_ear"), ("left_ear", "right_ear"))
FACE = Skeleton("face", ("left_ear", "right_ear", "nose"), (("left_ear", "right_ear"),), EDGES, np.full(3, 0.05))
POINTS = np.array([[20.0, 30.0], [80.0, 30.0], [50.0, 80.0]])


def drawn(visibility: list[int], numbers: bool = False) -> np.ndarray:
    picture = np.zeros((100, 100, 3), np.uint8)
    draw_pose(picture, POINTS, np.array(visibility), FACE, numbers)
    return picture


def test_colours_tell_the_side() -> None:
    assert side_colours(FACE) == [LEFT, RIGHT, MIDDLE]
    picture = drawn([2, 2, 2])
    for (x, y), colour in zip(POINTS.astype(int).tolist(), (LEFT, RIGHT, MIDDLE), strict=True):
        assert tuple(picture[y, x]) == colour
    between = {(35, 55): LEFT, (65, 55): RIGHT, (50, 30): ACROSS}  # limbs: those to the middle take the side's colour
    for (x, y), colour in between.items():
        assert tuple(picture[y, x]) == colour


def test_what_is_not_labelled_is_not_drawn_and_what_is_hidden_is_a_ring() -> None:
    picture = drawn([2, 0, 1])
    assert not picture[30, 80].any()
    assert not picture[30, 50].any(), "no limb to it"
    assert picture[80, 50].max() < 40, "the middle of a ring is dark"
    assert (picture[76:85, 46:55] == MIDDLE).all(axis=2).any()
    assert not drawn([0, 0, 0]).any()


def test_numbers_stand_beside_their_points() -> None:
    difference = (drawn([2, 2, 2], numbers=True) != drawn([2, 2, 2])).any(axis=2)
    rows, columns = np.nonzero(difference)
    distance = np.hypot(columns[:, None] - POINTS[:, 0], rows[:, None] - POINTS[:, 1]).min(axis=1)
    assert len(rows) > 30
    assert distance.max() < 25


def test_points_far_outside_do_no_harm() -> None:
    picture = np.zeros((50, 50, 3), np.uint8)
    draw_pose(picture, np.array([[-1e9, 1e9], [1e12, 3.0], [25.0, 25.0]]), np.array([2, 2, 2]), FACE)
    assert tuple(picture[25, 25]) == MIDDLE


def test_a_box_is_drawn_around_its_content() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    draw_box(picture, np.array([10.0, 20.0, 30.0, 25.0]))
    for x, y in ((10, 30), (40, 30), (25, 20), (25, 45)):
        assert np.abs(picture[y, x].astype(int) - BOX).max() < 30
    assert not picture[25:40, 15:35].any()


@pytest.mark.parametrize("columns", [1, 3, 4, 5])
def test_a_page_holds_its_pictures_side_by_side(columns: int) -> None:
    width = tile_px(columns)
    grey = np.full((40, width, 3), 77, np.uint8)
    sheet = page("Title", [[Tile(grey, "a caption")] * columns, [Tile(grey)]])
    assert sheet.shape[1] == PAGE_PX
    assert (sheet == 77).all(axis=2).sum() == (columns + 1) * 40 * width


def test_notes_are_set_in_lines_that_fit() -> None:
    few, many = (page("", [[Tile(np.zeros((9, 9, 3), np.uint8))]], [Words((0, 0), "some words")] * n) for n in (3, 60))
    assert many.shape[0] > few.shape[0]
    assert (many[:, -20:] == many[0, 0]).all(), "nothing in the margin"
    assert len(legend(FACE)) == 4
    assert [words.text for words in legend(FACE, numbers=True)][4:] == ["1 left_ear", "2 right_ear", "3 nose"]


def test_a_long_caption_stays_below_its_picture() -> None:
    sheets = [page("", [[Tile(np.zeros((20, 100, 3), np.uint8), text)]]) for text in ("i" * 500, "W" * 500, "")]
    for sheet in sheets:
        assert (sheet[:, 130:] == sheet[0, 0]).all()
    assert (sheets[0][:, :130] != sheet[0, 0]).any()


def test_words_are_written() -> None:
    picture = np.zeros((30, 80, 3), np.uint8)
    write(picture, [Words((5, 5), "Pferd", (255, 0, 0))])
    assert picture[..., 0].max() > 200
    assert not picture[..., 1:].any()


def test_a_png_has_the_colours_it_was_given(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    save_png(tmp_path / "new" / "a.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], picture)
    assert len(list((tmp_path / "new").iterdir())) == 1
