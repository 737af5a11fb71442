"""From an image file to its pixels, upright and RGB, or a reason in a few words why not.

Read are JPEG (CMYK too), PNG, WebP, TIFF, BMP, GIF, PNM, JPEG 2000 and AVIF, whatever the file is called; of an
animation or a TIFF of several pages, the first.
"""

import stat
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from posesweep.errors import DataError

# A broken file becomes a reason in `left_out`; OpenCV and Pillow would each print their own about it besides.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # only headers are read with Pillow

PIXELS_BELOW = 100_000_000  # a few KB of PNG can claim to be any size; 300 MB is what one image may take decoded
MOST_BYTES = 1 << 30  # of a file
SHRINKS = (8, 4, 2)
# OpenCV's bare factors (its ..._COLOR_2 is the same with the flag for BGR). Only its JPEG decoder saves work by them.
_SHRINK_FLAGS = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands of ISO 23008-12
_LIMIT = f"images below {PIXELS_BELOW // 1_000_000} megapixels are read"
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Decoded:
    """An image, perhaps made smaller while it was decoded: each pixel stands for `shrink` x `shrink` of the file's.

    Pixel j covers the image's pixels shrink * j to shrink * j + shrink - 1, so its centre is at
    shrink * j + (shrink - 1) / 2 there.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    shrink: int


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    has_exif: bool


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Decode to 8-bit RGB: grey is repeated, alpha dropped, 16 bits scaled, EXIF orientation applied.

    Raises DataError for a file that cannot be used; its text is the reason in a few words.
    """
    return decode(path).pixels


def decode(path: Path, shrink: int = 1) -> Decoded:
    """Like `read_image`, but a JPEG is made up to `shrink` (1, 2, 4 or 8) times smaller if that can be done exactly.

    Three times faster at 8: the decoder leaves out the fine part of every 8x8 block. Raises DataError.
    """
    data = _read(path)
    if not _has_end(data):
        raise DataError("truncated")
    header = _read_header(data)
    possible = _exact_shrink(data, header, shrink)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | _SHRINK_FLAGS[possible])
    except cv2.error as error:
        raise DataError(f"cannot be decoded: {error.err}") from error
    if pixels is None:
        raise DataError("damaged: its header can be read, its pixels cannot")
    return Decoded(np.asarray(pixels), possible)


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DataError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")  # reading a pipe would wait for ever
        if status.st_size > MOST_BYTES:
            raise DataError(f"too large: {status.st_size / 1e9:.1f} GB; files of up to 1 GB are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("missing") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise DataError("empty file")
    return data


def _read_header(data: bytes) -> _Header:
    """Size as it is stored. DataError: no image, or one of so many pixels that it is refused before it is decoded."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
        raise DataError("HEIC, which is not read; convert it to JPEG or PNG")
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            header = _Header(*image.size, has_exif="exif" in image.info)
    except Image.DecompressionBombError:
        raise DataError(f"too large: {_LIMIT}") from None
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        raise DataError("not an image") from None
    if header.width * header.height >= PIXELS_BELOW:
        raise DataError(f"too large: {header.width}x{header.height} pixels; {_LIMIT}")
    if data.startswith(_JPEG) and 8 * len(data) < (header.width // 8) * (header.height // 8):
        raise DataError("truncated")  # not one bit for each of its 8x8 blocks, which is the least
    return header


def _has_end(data: bytes) -> bool:
    """False for a file cut short: some versions of OpenCV fill up what is missing without an error."""
    if data.startswith(_JPEG):
        return _has_jpeg_end(data)
    if data.startswith(_PNG):
        return data.rfind(b"IEND") >= 0
    if data.startswith(b"RIFF"):
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _has_jpeg_end(data: bytes) -> bool:
    """Whether the end marker follows the headers; EXIF among them may hold a whole JPEG of its own."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def _exact_shrink(data: bytes, header: _Header, shrink: int) -> int:
    """The largest factor, up to `shrink`, after which it is known where the pixels are.

    Only JPEGs are shrunk while decoding. When a side is no multiple of the factor its last pixel is an incomplete one,
    and EXIF may turn the image so that it comes first; whoever has EXIF must have whole pixels only.
    """
    if not data.startswith(_JPEG):
        return 1
    for factor in SHRINKS:
        whole = header.width % factor == 0 and header.height % factor == 0
        if factor <= shrink and (whole or not header.has_exif):
            return factor
    return 1
