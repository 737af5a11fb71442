"""Videos written and read back; damaged ones."""

import cv2
import numpy as np
import pytest

from posesweep.datasets.videos import Mp4, frames_of, read_clip
from posesweep.errors import DataError


def grey(level: int, size=(64, 48)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


def written(path, levels, size=(64, 48), fps=10.0):
    video = Mp4(path, fps)
    for level in levels:
        video.add(grey(level, size))
    video.close()
    return path


def test_frames_come_back_in_their_order(tmp_path):
    levels = [10, 60, 110, 160, 210]
    clip = read_clip(written(tmp_path / "sub" / "a.mp4", levels))
    assert (clip.width, clip.height, clip.fps, clip.frames) == (64, 48, 10.0, 5)
    assert [round(float(frame.mean())) for frame in frames_of(clip)] == pytest.approx(levels, abs=3)


def test_colours_are_not_swapped(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    video = Mp4(tmp_path / "red.mp4", 5.0)
    video.add(red)
    video.close()
    (frame,) = frames_of(read_clip(tmp_path / "red.mp4"))
    assert frame[..., 0].mean() > 150 > 60 > frame[..., 2].mean()


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    clip = read_clip(written(tmp_path / "a.mp4", [50, 60], size=(65, 49)))
    assert (clip.width, clip.height) == (64, 48)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "missing"), (b"", "not a video that can be read"), (b"no video" * 99, "not a video that can be read")],
)
def test_what_is_no_video(tmp_path, content, said):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_clip(tmp_path / "a.mp4")


def test_one_that_ends_early_gives_what_it_has(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for level in range(40):
        writer.write(np.random.default_rng(level).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    clip = read_clip(path)
    got = []
    with pytest.raises(DataError, match=r"damaged: it ends after \d+ of about 40 frames"):
        got.extend(frames_of(clip))
    assert 10 < len(got) < 30


def test_nothing_added_is_no_file(tmp_path):
    Mp4(tmp_path / "a.mp4", 10.0).close()
    assert not (tmp_path / "a.mp4").exists()
