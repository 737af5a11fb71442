"""Image files as they are found in the wild: each is read right, or left out with the exact words that say why."""

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from posesweep.datasets.crops import CropSpec, open_crops, shown
from posesweep.datasets.decoding import decode, read_image
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest resets our filter
PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC
)
PHOTO = Image.fromarray(PICTURE)
ANIMATION = {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)]}


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A grey PNG of one bit a pixel whose header says what it likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """100 megapixels in 12 KB."""
    return png(10_000, 10_000, zlib.compress(bytes(10_000 * 1251), 9))


def lying_jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved(PHOTO, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def grey() -> np.ndarray:
    return np.repeat(np.asarray(PHOTO.convert("L"))[..., None], 3, axis=2)


def as_decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


JPEG = saved(PHOTO, "JPEG", quality=95)
PNG = saved(PHOTO, "PNG")
PALETTE = saved(PHOTO.convert("P"), "PNG")
CMYK = saved(PHOTO.convert("CMYK"), "JPEG", quality=95)
GIF = saved(PHOTO, "GIF", **ANIMATION)
WEBP = saved(PHOTO, "WEBP", **ANIMATION)

READ: dict[str, tuple[str, bytes, np.ndarray]] = {
    "PNG": ("a.png", PNG, PICTURE),
    "PNG named .jpg": ("a.jpg", PNG, PICTURE),
    "JPEG named .png": ("a.png", JPEG, as_decoded(JPEG)),
    "no ending": ("a", PNG, PICTURE),
    "grey PNG": ("a.png", saved(PHOTO.convert("L"), "PNG"), grey()),
    "grey JPEG": ("a.jpg", saved(PHOTO.convert("L"), "JPEG", quality=95), grey()),
    "grey with alpha": ("a.png", saved(PHOTO.convert("LA"), "PNG"), grey()),
    "alpha": ("a.png", cv2.imencode(".png", np.dstack([PICTURE[..., ::-1], grey()[..., 0]]))[1].tobytes(), PICTURE),
    "palette": ("a.png", PALETTE, as_decoded(PALETTE)),
    "one bit": (
        "a.png",
        png(16, 2, zlib.compress(bytes([0, 255, 0, 0, 0, 255]))),
        np.array([[[255] * 3] * 8 + [[0] * 3] * 8, [[0] * 3] * 8 + [[255] * 3] * 8], np.uint8),
    ),
    "16 bits": ("a.png", cv2.imencode(".png", PICTURE[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), PICTURE),
    "CMYK JPEG": ("a.jpg", CMYK, as_decoded(CMYK)),
    "progressive JPEG": ("a.jpg", saved(PHOTO, "JPEG", quality=95, progressive=True), as_decoded(JPEG)),
    "animated GIF: its first frame": ("a.gif", GIF, as_decoded(GIF)),
    "animated WebP: its first frame": ("a.webp", WEBP, as_decoded(WEBP)),
    "TIFF": ("a.tif", saved(PHOTO, "TIFF"), PICTURE),
    "BMP": ("a.bmp", saved(PHOTO, "BMP"), PICTURE),
    "something after the end": ("a.jpg", JPEG + b"\0" * 500, as_decoded(JPEG)),
    "UTF-8 name": ("Pferd_Ümläut_马.png", PNG, PICTURE),
    "name with spaces, quotes and a line break": ("a 'b' \"c\"\nd.png", PNG, PICTURE),
}


@pytest.mark.parametrize("case", READ)
def test_read_right(case: str, tmp_path: Path) -> None:
    name, data, expected = READ[case]
    (tmp_path / name).write_bytes(data)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == expected.shape
    tolerance = 12 if "JPEG" in case or "WebP" in case else 1 if "GIF" in case or "palette" in case else 0
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance, "inverse CMYK or swapped channels differ by 100"


def file(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


BELOW = "images below 100 megapixels are read"
LEFT_OUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "missing"),
    "0 bytes": (file(b""), "empty file"),
    "truncated JPEG": (file(JPEG[: len(JPEG) // 2]), "truncated"),
    "JPEG without its last 20 bytes": (file(JPEG[:-20]), "truncated"),
    "JPEG, header only": (file(JPEG[:20]), "truncated"),
    "truncated PNG": (file(PNG[: len(PNG) // 2]), "truncated"),
    "PNG without its last 20 bytes": (file(PNG[:-20]), "truncated"),
    "truncated WebP": (file(WEBP[: len(WEBP) // 2]), "truncated"),
    "truncated GIF": (file(GIF[: len(GIF) // 4]), "damaged: its header can be read, its pixels cannot"),
    "truncated TIFF": (file(saved(PHOTO, "TIFF")[:-99]), "damaged: its header can be read, its pixels cannot"),
    "PNG with spoilt pixels": (
        file(PNG[:200] + bytes(300) + PNG[500:]),
        "damaged: its header can be read, its pixels cannot",
    ),
    "text": (file(b"<html>404 Not Found</html>"), "not an image"),
    "SVG": (file(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "not an image"),
    "a pointer of git-lfs": (file(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "not an image"),
    "HEIC": (file(b"\0\0\0\x18ftypheic" + bytes(50)), "HEIC, which is not read; convert it to JPEG or PNG"),
    "a folder": (Path.mkdir, "a folder, not a file"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a bomb": (file(bomb()), f"too large: 10000x10000 pixels; {BELOW}"),
    "a PNG header that lies": (file(png(2**31 - 1, 2**31 - 1, b"")), f"too large: {BELOW}"),
    "a JPEG header that lies": (file(lying_jpeg(9000, 9000)), "truncated"),
    "a JPEG header that lies more": (file(lying_jpeg(65_000, 65_000)), f"too large: {BELOW}"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "missing"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_left_out_with_these_words(case: str, tmp_path: Path) -> None:
    make, words = LEFT_OUT[case]
    path = tmp_path / "a.jpg"
    make(path)
    with pytest.raises(DataError) as error:
        read_image(path)
    assert str(error.value) == words


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    path.chmod(0)
    with pytest.raises(DataError, match=r"^cannot be read: Permission denied$"):
        read_image(path)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "imdecode")
    (tmp_path / "a.png").write_bytes(bomb())
    assert (tmp_path / "a.png").stat().st_size < 20_000
    with pytest.raises(DataError, match="too large"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does(kind: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = saved(PHOTO, kind, exif=exif)
    (tmp_path / "a").write_bytes(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))
    pixels = read_image(tmp_path / "a")
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 3


def test_a_jpeg_in_exif_does_not_pass_for_the_image(tmp_path: Path) -> None:
    thumbnail = saved(Image.fromarray(255 - PICTURE), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_thumbnail = JPEG[:2] + segment + JPEG[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(with_thumbnail + b"what a camera adds \xff\xda")
    np.testing.assert_array_equal(read_image(path), cv2.imdecode(np.frombuffer(JPEG, np.uint8), cv2.IMREAD_COLOR_RGB))
    path.write_bytes(with_thumbnail[:-200])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([JPEG, PNG, GIF, WEBP, CMYK]), st.data())
def test_whatever_is_spoilt_only_a_reason_comes_out(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, draw
) -> None:
    spoilt = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(spoilt) - 1) | st.integers(0, 60))
        spoilt[at] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "spoilt"
    path.write_bytes(spoilt[: draw.draw(st.integers(0, len(spoilt)) | st.just(len(spoilt)))])
    with suppress(DataError):
        pixels = read_image(path)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_only_jpegs_whose_pixels_stay_in_place_are_shrunk(shrink: int, tmp_path: Path) -> None:
    big = Image.fromarray(cv2.resize(PICTURE, (165, 131)))
    exif = Image.Exif()
    exif[0x112] = 6
    for name, data, expected in (
        ("odd.jpg", saved(big, "JPEG"), shrink),
        ("turned_even.jpg", saved(big.crop((0, 0, 160, 128)), "JPEG", exif=exif), shrink),
        ("turned_odd.jpg", saved(big, "JPEG", exif=exif), 1),
        ("turned_by_4.jpg", saved(big.crop((0, 0, 164, 132)), "JPEG", exif=exif), min(4, shrink)),
        ("image.png", saved(big, "PNG"), 1),
    ):
        (tmp_path / name).write_bytes(data)
        image = decode(tmp_path / name, shrink)
        assert image.shrink == expected, name
        whole = read_image(tmp_path / name)
        assert image.pixels.shape == (-(-whole.shape[0] // expected), -(-whole.shape[1] // expected), 3)


def test_among_many_they_are_left_out_and_named_in_one_line_each(tmp_path: Path) -> None:
    files = [tmp_path / f"{i:03d}.png" for i in range(118)]
    for path in files:
        path.write_bytes(PNG)
    files += [tmp_path / f"bad\n{i}.jpg" for i in range(2)]
    files[-2].write_bytes(b"")
    LEFT_OUT["a bomb"][0](files[-1])
    n = len(files)
    instances = Instances(
        skeleton=Skeleton("point", ("nose",), (), (), np.array([0.05])),
        image_files=tuple(files),
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.tile([10.0, 8.0, 30.0, 40.0], (n, 1)),
        keypoints=np.zeros((n, 1, 2)),
        visibility=np.zeros((n, 1), dtype=np.uint8),
        areas=np.ones(n),
        crowd=np.zeros(n, dtype=bool),
    )
    crops = open_crops(instances, CropSpec(24, 32), tmp_path / "cache", threads=2)
    assert crops.left_out == [
        f"{tmp_path}/bad\\n0.jpg: empty file",
        f"{tmp_path}/bad\\n1.jpg: too large: 10000x10000 pixels; {BELOW}",
    ]
    assert np.flatnonzero(~crops.usable).tolist() == [118, 119]


def test_names_are_shown_on_one_line_and_cannot_drive_the_terminal() -> None:
    assert shown(Path("马 ü.png")) == "马 ü.png"
    assert shown("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"
