"""Which images and videos an input names, and what they are called."""

from pathlib import Path

import pytest

from posesweep.datasets.footage import find_footage, outputs_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.PNG", "clip.mp4", "notes.txt", "sub/a.jpg", ".hidden/c.jpg", "sub/.d.jpg", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*inputs, left_out=None):
    footage, problems = find_footage([str(i) for i in inputs], left_out)
    return [piece.name for piece in footage], problems


def test_a_folder_with_all_that_is_below_it(folder):
    assert names(folder) == (["a.jpg", "b.PNG", "clip.mp4", "sub/a.jpg"], [])
    footage, _ = find_footage([str(folder)])
    assert [piece.name for piece in footage if piece.is_video] == ["clip.mp4"]


def test_patterns_and_files_each_once(folder):
    assert names(folder / "*.jpg", folder / "a.jpg", folder / "clip.mp4") == (["a.jpg", "clip.mp4"], [])
    assert names(folder / "**/*.jpg")[0] == ["a.jpg", "sub/a.jpg"]  # named apart, from the folder they share


def test_an_input_without_any_is_named(folder):
    _, problems = names(folder / "empty", folder / "*.gif", folder / "no.jpg")
    assert problems == [
        f"{folder}/empty: holds no image and no video",
        f"{folder}/*.gif: no file fits this pattern",
        f"{folder}/no.jpg: missing",
    ]


def test_a_file_with_magic_letters_in_its_name(folder):
    (folder / "frame[1].jpg").touch()
    assert names(folder / "frame[1].jpg") == (["frame[1].jpg"], [])


def test_the_folder_of_the_results_is_passed_over(folder):
    assert names(folder, left_out=folder / "sub")[0] == ["a.jpg", "b.PNG", "clip.mp4"]


def test_outputs_that_differ_in_the_suffix_only(folder):
    (folder / "a.png").touch()
    footage, _ = find_footage([str(folder)])
    assert outputs_of(footage) == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "b.PNG": "b",
        "clip.mp4": "clip",
        "sub/a.jpg": "sub/a",
    }
