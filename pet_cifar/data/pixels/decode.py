"""Decodes encoded bytes to uint8 pixels; this is the only place where the project decodes pictures."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

MAX_PIXELS: Final = 178_956_970
"""Pictures with more pixels are refused; Pillow's own DecompressionBombError has the same limit."""

Verdict = Literal["empty", "undecodable", "truncated", "unsupported format", "not an image"]


class DecodeError(ValueError):
    """A picture cannot be decoded.

    Attributes:
        verdict: The kind of reason, as the manifest lists it.
        reason: The reason in one clause; ``str()`` gives the same.
    """

    def __init__(self, verdict: Verdict, reason: str) -> None:
        # Exception keeps both, so that the error can be pickled out of a worker process.
        super().__init__(verdict, reason)
        self.verdict: Verdict = verdict
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Does nothing, since nobody needs the dpi and looking for it makes Pillow warn of every broken EXIF block."""


# The readers are called directly. Image.open would warn of large pictures and of broken MPO blocks, and a warning
# cannot be silenced in one thread only. None of these formats runs another program, as EPS would.
_FORMATS: Final[dict[str, tuple[re.Pattern[bytes], Callable[[BytesIO], ImageFile.ImageFile]]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _Jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
    "PPM": (re.compile(rb"P[1-6f]\s"), PpmImageFile),
    "AVIF": (re.compile(rb".{4}ftyp(avif|avis|mif1.{4,28}avif)", re.DOTALL), AvifImageFile),
    "JPEG 2000": (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), Jpeg2KImageFile),
}
FORMATS: Final = tuple(_FORMATS)
"""The formats that are decoded. An animated GIF, WebP or PNG gives its first frame."""

_HEIC: Final = re.compile(rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)

# Pillow's readers raise these on corrupt bytes (a Warning where warnings are errors). MemoryError is left out, since
# below MAX_PIXELS it says something of the machine and not of the picture.
_PILLOW_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, LookupError, EOFError, ArithmeticError, TypeError, AttributeError),
    *(AssertionError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Warning),
)

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(encoded: bytes, image_size: int | None, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    """Decodes one picture.

    The whole picture is squashed into a square by antialiased bilinear resampling, which does not keep the aspect
    ratio. A large JPEG is decoded at 1/2, 1/4 or 1/8 scale where both sides then still are twice the target or more.
    EXIF orientation is applied; a broken EXIF block counts as none. Alpha is composited over black. Gray of 16 bits
    is scaled from 0..65535 and gray of floats from 0..1; samples outside these ranges are refused.

    Args:
        encoded: The bytes of a file in one of `FORMATS`.
        image_size: The side of the square in pixels, or None for the picture's own size.
        channels: 1 for gray (ITU-R 601 luma), 3 for RGB.

    Returns:
        The pixels, shape (channels, height, width), C-contiguous and writable.

    Raises:
        DecodeError: The bytes give no whole picture, or one above `MAX_PIXELS` (for TIFF half of that).
    """
    if (image_size is not None and image_size < 1) or channels not in (1, 3):
        raise ValueError(f"image_size {image_size} is not positive, or channels {channels} not 1 or 3")
    with _opened(encoded) as picture:
        box = None
        if isinstance(picture, _Jpeg):
            # The target is square, so an orientation that swaps width and height asks for the same scale.
            at_least = None if image_size is None else (2 * image_size, 2 * image_size)
            drafted = picture.draft("L" if channels == 1 else None, at_least)
            # Its corners are fractions of a pixel where the scale does not divide the width or the height.
            box = drafted[1] if drafted else None
        image = _plain(picture, channels)
        if image_size is not None:
            # Pillow's documentation calls a gap of 3 almost indistinguishable from none; large pictures become faster.
            image = image.resize((image_size,) * 2, Image.Resampling.BILINEAR, box, reducing_gap=3.0)
        transpose = _TRANSPOSES.get(_orientation(picture.info.get("exif") or b""))
        return _channels_first(image if transpose is None else image.transpose(transpose), channels)


def decode_whole(encoded: bytes, longest: int) -> NDArray[np.uint8]:
    """Decodes one picture as a person looks at it: in color, with its own aspect ratio.

    Args:
        encoded: The bytes of a file in one of `FORMATS`.
        longest: The longer side of the result in pixels.

    Returns:
        The pixels, shape (height, width, 3).

    Raises:
        DecodeError: The bytes give no whole picture, or one above `MAX_PIXELS`.
    """
    with _opened(encoded) as picture:
        if isinstance(picture, _Jpeg):
            picture.draft(None, (longest, longest))
        image = _plain(picture, 3).convert("RGB")
        scale = longest / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        # Single pixels of a tiny picture stay visible as squares.
        smooth = Image.Resampling.BILINEAR if scale < 4 else Image.Resampling.NEAREST
        image = image.resize((width, height), smooth, reducing_gap=3.0)
        transpose = _TRANSPOSES.get(_orientation(picture.info.get("exif") or b""))
        return np.asarray(image if transpose is None else image.transpose(transpose))


def starts_like_a_picture(head: bytes) -> bool:
    """Whether the first bytes of a file, 64 or more, are those of a picture, whatever its name.

    The formats of PPM do not count, whose first bytes may be those of a text.
    """
    formats = (magic for name, (magic, _) in _FORMATS.items() if name != "PPM")
    return any(magic.match(head) for magic in (*formats, _HEIC))


def fit_array(pixels: NDArray[np.uint8], image_size: int, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    """Does what `decode` does for a picture that already is an array of shape (H, W) or (H, W, 3)."""
    return fit_image(Image.fromarray(pixels), image_size, channels)


def fit_image(picture: Image.Image, image_size: int, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    """Does what `decode` does for a picture that Pillow has opened, which stays as it is.

    Raises:
        DecodeError: Its samples are outside of what its mode allows.
    """
    orientation = _orientation(picture.info.get("exif") or b"")
    image = _plain(picture, channels)
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, reducing_gap=3.0)
    transpose = _TRANSPOSES.get(orientation)
    return _channels_first(image if transpose is None else image.transpose(transpose), channels)


def _channels_first(image: Image.Image, channels: Literal[1, 3]) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None].repeat(channels, axis=0)
    return pixels.transpose(2, 0, 1).copy()


def inspect(encoded: bytes) -> tuple[int, int, str]:
    """Reads a picture to its end, at the lowest cost that still finds all that `decode` would refuse.

    Returns:
        Width, height and Pillow mode as the file's header has them, before EXIF orientation.

    Raises:
        DecodeError: `decode` would raise it, too.
    """
    with _opened(encoded) as picture:
        width, height, mode = *picture.size, picture.mode
        if isinstance(picture, _Jpeg):
            # At 1/8 scale and without color planes, libjpeg still walks through all entropy-coded data.
            picture.draft("L", (1, 1))
        _plain(picture, 1)
        return width, height, mode


@contextmanager
def _opened(encoded: bytes) -> Iterator[ImageFile.ImageFile]:
    """Opens a picture and checks its size; what Pillow raises, here or in the block, becomes a DecodeError."""
    if not encoded:
        raise DecodeError("empty", "the file has no bytes")
    reader = next((reader for magic, reader in _FORMATS.values() if magic.match(encoded)), None)
    if reader is None and _HEIC.match(encoded):
        reader = _heic_reader()
    if reader is None:
        raise DecodeError("not an image", f"starts with {encoded[:8]!r}, as no {'/'.join(FORMATS)} file does")
    stream = BytesIO(encoded)
    header_read = False
    try:
        picture = reader(stream)
        header_read = True
        width, height = picture.size
        # Pillow's TIFF reader warns of large pictures once more when it loads, and then from half the pixels on.
        limit = MAX_PIXELS // 2 if isinstance(picture, TiffImageFile) else MAX_PIXELS
        if width * height > limit:
            raise DecodeError("undecodable", f"{width} x {height} pixels are more than the {limit} allowed")
        yield picture
    except DecodeError:
        raise
    except _PILLOW_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if encoded.startswith(b"RIFF"):
            # libwebp does not say what is wrong, but the header counts the bytes that there should be.
            truncated = int.from_bytes(encoded[4:8], "little") + 8 > len(encoded)
        elif reader is Jpeg2KImageFile:
            # Pillow says the same of all damage, but a whole stream ends with its end mark.
            truncated = not encoded.endswith(b"\xff\xd9")
        elif header_read:
            # Pillow says "cannot load this image" of a file that ends between the header and the pixels.
            truncated = "truncated" in reason.lower() or reason == "cannot load this image"
        else:
            # A KeyError tells of an unsupported kind of picture, even where the file ends with the header.
            truncated = stream.tell() >= len(encoded) and not isinstance(error.__cause__, KeyError)
        raise DecodeError("truncated" if truncated else "undecodable", reason) from error


def _heic_reader() -> Callable[[BytesIO], ImageFile.ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        reason = "is HEIC, as phones write it, and pip install 'pet_cifar[heic]' reads it"
        raise DecodeError("unsupported format", reason) from error
    reader: Callable[[BytesIO], ImageFile.ImageFile] = HeifImageFile
    return reader


def _plain(image: Image.Image, channels: Literal[1, 3]) -> Image.Image:
    """Converts a picture of any mode to "L" or "RGB"; with 1 channel always to "L"."""
    image.load()
    if image.mode.startswith(("I", "F")):
        white = 1.0 if image.mode == "F" else 65535.0
        samples = np.asarray(image).astype(np.float32)
        # Written like this, the comparison also refuses NaN.
        if not (samples.min() >= 0 and samples.max() <= white):
            raise DecodeError("undecodable", f"has samples outside 0..{white:g} (mode {image.mode})")
        samples[samples == image.info.get("transparency")] = 0
        return Image.fromarray(np.rint(samples * (255 / white)).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", rgba.size)
        image.paste(rgba, mask=rgba)
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.convert("L") if channels == 1 and image.mode != "L" else image


def _orientation(exif: bytes) -> int:
    """Returns the orientation in an EXIF block, or 1; it reads no further than it must, as many blocks are broken."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for offset in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, short = struct.unpack_from(f"{order}HHIH", tiff, offset)
            if tag == 0x0112 and kind == 3:
                return int(short)
    except struct.error:  # The block ends before its directory does.
        pass
    return 1
