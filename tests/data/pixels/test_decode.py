import pickle
import random
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pet_cifar.data.pixels import decode as module
from pet_cifar.data.pixels.decode import DecodeError, Verdict, decode, inspect

RED, BLUE = (255, 0, 0), (0, 0, 255)


def colors(width: int = 60, height: int = 40) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, each channel different; shape (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    waves = np.stack([np.sin(3 * x + y), np.cos(2 * x * y + 1), np.sin(x - 2 * y + 2)], axis=-1)
    return np.rint(127.5 + 120 * waves).astype(np.uint8)


def encode(image: Image.Image | NDArray[Any], format: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def verdict(encoded: bytes) -> Verdict:
    """The verdict of all three ways to read a picture, which must agree."""
    verdicts: set[Verdict] = set()
    for attempt in (
        lambda: decode(encoded, 8, 1),
        lambda: decode(encoded, None, 3),
        lambda: inspect(encoded),
    ):
        with pytest.raises(DecodeError) as caught:
            attempt()
        assert str(caught.value)
        assert "\n" not in str(caught.value)
        verdicts.add(caught.value.verdict)
    assert len(verdicts) == 1
    return verdicts.pop()


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    assert a.shape == b.shape
    return np.abs(a.astype(np.float64) - b)


# -------------------------------------------------------------------------------------------- shape and size


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("image_size", "shape"), [(None, (40, 60)), (16, (16, 16)), (100, (100, 100))])
def test_shape(format: str, channels: Literal[1, 3], image_size: int | None, shape: tuple[int, int]) -> None:
    pixels = decode(encode(colors(), format), image_size, channels)
    assert pixels.shape == (channels, *shape)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_color_is_exact(format: str) -> None:
    np.testing.assert_array_equal(decode(encode(colors(), format), None, 3), colors().transpose(2, 0, 1))


def test_squashes_the_whole_picture_into_the_square() -> None:
    wide = np.zeros((20, 200), np.uint8)
    wide[:, 100:] = 200
    pixels = decode(encode(wide), 10, 1)
    assert (pixels[0, :, :4] == 0).all()
    assert (pixels[0, :, 6:] == 200).all()


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    assert difference(decode(encode(stripes), 8, 1), np.full((1, 8, 8), 127, np.uint8)).max() <= 2


@pytest.mark.parametrize("image_size", [0, -1])
def test_image_size_must_be_positive(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size {image_size}") as caught:
        decode(encode(colors()), image_size, 3)
    assert not isinstance(caught.value, DecodeError)  # it is the caller who is wrong, not the picture


def test_channels_must_be_one_or_three() -> None:
    with pytest.raises(ValueError, match="channels 2"):
        decode(encode(colors()), 8, 2)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- modes


def test_gray_of_color_is_luma() -> None:
    luma = (colors() @ np.array([0.299, 0.587, 0.114]))[None]
    assert np.abs(decode(encode(colors()), None, 1) - luma).max() <= 1


def test_color_of_gray_repeats_it() -> None:
    gray = colors()[..., 0]
    np.testing.assert_array_equal(decode(encode(gray), None, 3), np.stack([gray] * 3))


def test_one_bit() -> None:
    bits = colors()[..., 0] > 127
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits)), None, 1)[0], bits * np.uint8(255))


def test_palette() -> None:
    picture = Image.fromarray(colors()).quantize(16)
    expected = np.asarray(picture.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(picture)]
    np.testing.assert_array_equal(decode(encode(picture), None, 3), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("format", "transparency"), [("PNG", 1), ("GIF", 1), ("PNG", bytes([255, 0, 128]))])
def test_palette_with_transparency_is_over_black(format: str, transparency: int | bytes) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 200, 200, 100, 50, 250])
    picture.putdata([0, 1, 2])
    third = [100, 50, 250] if isinstance(transparency, int) else [50, 25, 125]
    pixels = decode(encode(picture, format, transparency=transparency), None, 3)
    assert pixels[:, 0].T.tolist()[:2] == [[10, 20, 30], [0, 0, 0]]
    assert np.abs(pixels[:, 0, 2].astype(int) - third).max() <= 1


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("LA", "TIFF"), ("PA", "TIFF")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_over_black(mode: str, format: str, channels: Literal[1, 3]) -> None:
    gray = Image.new("L", (4, 1), 200)
    alpha = Image.new("L", (4, 1))
    alpha.putdata([0, 64, 128, 255])
    picture = gray.convert({"RGBA": "RGB", "LA": "L", "PA": "P"}[mode])
    picture.putalpha(alpha)
    assert picture.mode == mode
    pixels = decode(encode(picture, format), None, channels)
    assert difference(pixels, np.full((channels, 1, 4), [0, 50, 100, 200], np.uint8)).max() <= 1


def test_transparent_color_of_png_is_black() -> None:
    picture = np.array([[[9, 8, 7], [200, 100, 50]]], np.uint8)
    pixels = decode(encode(picture, transparency=(200, 100, 50)), None, 3)
    assert pixels[:, 0].T.tolist() == [[9, 8, 7], [0, 0, 0]]


def test_cmyk() -> None:
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (100, 0, 0, 100)]
    rgb = [(255, 255, 255), (0, 255, 255), (255, 0, 0), (0, 0, 0), (94, 155, 155)]
    for format in ("TIFF", "JPEG"):  # Pillow writes its JPEGs as Adobe does: inverted
        for ink, expected in zip(inks, rgb, strict=True):
            encoded = encode(Image.new("CMYK", (16, 16), ink), format)
            color = decode(encoded, 8, 3)
            assert np.abs(color - np.array(expected).reshape(3, 1, 1)).max() <= 3, (format, ink)
            luma = np.array(expected) @ np.array([0.299, 0.587, 0.114])
            assert np.abs(decode(encoded, 8, 1) - luma).max() <= 3, (format, ink)


SIXTEEN_BITS = np.array([[0, 128, 129, 256, 257, 32768, 65534, 65535]], np.uint16)
EIGHT_BITS = [[0, 0, 1, 1, 1, 128, 255, 255]]  # rounded, neither clipped nor cut


@pytest.mark.parametrize(
    ("encoded", "mode"),
    [
        (encode(SIXTEEN_BITS), "I;16"),
        (encode(SIXTEEN_BITS, "TIFF"), "I;16"),
        (encode(SIXTEEN_BITS.astype(">u2"), "TIFF"), "I;16B"),
        (encode(SIXTEEN_BITS.astype(np.int32), "TIFF"), "I"),
        (encode(SIXTEEN_BITS, "PPM"), "I"),
    ],
)
def test_sixteen_bits_are_scaled(encoded: bytes, mode: str) -> None:
    assert inspect(encoded) == (8, 1, mode)
    assert decode(encoded, None, 1).tolist() == [EIGHT_BITS]
    assert decode(encoded, None, 3).tolist() == [EIGHT_BITS] * 3


def test_sixteen_bits_with_a_transparent_gray() -> None:
    assert decode(encode(SIXTEEN_BITS, transparency=32768), None, 1).tolist() == [[[0, 0, 1, 1, 1, 0, 255, 255]]]


def test_sixteen_bits_are_resized() -> None:
    gray = colors()[..., 0]
    sixteen = decode(encode(gray.astype(np.uint16) * 257), 20, 1)
    np.testing.assert_array_equal(sixteen, decode(encode(gray), 20, 1))


@pytest.mark.parametrize("format", ["TIFF", "PPM"])
def test_floats_are_scaled_from_one(format: str) -> None:
    floats = np.array([[0, 0.25, 0.5, 1]], np.float32)
    assert decode(encode(floats, format), None, 1).tolist() == [[[0, 64, 128, 255]]]


@pytest.mark.parametrize(
    ("samples", "kind"), [((0, 1.5), "f4"), ((-0.1, 1), "f4"), ((0, np.nan), "f4"), ((0, 65536), "i4")]
)
def test_samples_of_unknown_range_are_refused(samples: tuple[float, float], kind: str) -> None:
    assert verdict(encode(np.array([samples], kind), "TIFF")) == "undecodable"


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_first_frame_of_an_animation(format: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (12, 8), color) for color in (RED, BLUE)]
    encoded = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(BytesIO(encoded)) as animation:
        assert getattr(animation, "n_frames", 1) == 2
    np.testing.assert_array_equal(decode(encoded, None, 3), np.asarray(frames[0]).transpose(2, 0, 1))


# ------------------------------------------------------------------------------------------------------ EXIF

TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_orientation(orientation: int, format: str, options: dict[str, Any]) -> None:
    encoded = encode(colors(), format, exif=exif(orientation), **options)
    upright = TURNED[orientation](colors())
    np.testing.assert_array_equal(decode(encoded, None, 3), upright.transpose(2, 0, 1))
    for size in (16, 90):
        assert difference(decode(encoded, size, 3), decode(encode(upright), size, 3)).max() <= 1


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_of_jpeg_at_full_and_reduced_scale(orientation: int, channels: Literal[1, 3]) -> None:
    plain = encode(colors(601, 401), "JPEG", quality=95)
    turned = encode(colors(601, 401), "JPEG", quality=95, exif=exif(orientation))
    turn = TURNED[orientation]
    upright = turn(decode(plain, None, channels).transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(turned, None, channels), upright)
    upright = turn(decode(plain, 32, channels).transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(turned, 32, channels), upright)


def ifd(*entries: tuple[int, int, int, int], order: str = "<", count: int | None = None) -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    number = struct.pack(f"{order}H", len(entries) if count is None else count)
    return b"Exif\0\0" + head + number + b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)


BEYOND = (0x010F, 2, 1000, 60000)  # the maker's name, said to lie far beyond the block
ROTATE = (0x0112, 3, 1, 6)


@pytest.mark.parametrize(
    ("block", "turns"),
    [
        (b"Exif\0\0", False),
        (b"Exif\0\0nonsense that is not a TIFF header", False),
        (b"Exif\0\0II*\0", False),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", False),
        (ifd(BEYOND, count=500), False),
        (ifd(BEYOND, (0x0112, 3, 1, 0)), False),
        (ifd(BEYOND, (0x0112, 3, 1, 9)), False),
        (ifd(BEYOND, (0x0112, 2, 1, 6)), False),
        (ifd(BEYOND, ROTATE, count=500), True),
        (ifd(BEYOND, ROTATE, order=">"), True),
    ],
)
def test_broken_exif_does_not_lose_the_picture(block: bytes, turns: bool) -> None:
    encoded = encode(colors(), "JPEG", exif=block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode(encoded, None, 3)
        assert inspect(encoded) == (60, 40, "RGB")
    plain = decode(encode(colors(), "JPEG"), None, 3)
    np.testing.assert_array_equal(pixels, np.rot90(plain, -1, (1, 2)) if turns else plain)


def test_one_of_the_broken_exif_blocks_makes_pillow_warn() -> None:
    # Without this the test above would not show that its warnings are avoided.
    with pytest.warns(UserWarning, match="EXIF|Tag data|Truncated"):
        Image.open(BytesIO(encode(colors(), "JPEG", exif=ifd(BEYOND, count=500))))


# ------------------------------------------------------------------------------------------- JPEG short cuts


def test_gray_of_jpeg_is_its_luma_plane() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    by_color = []
    for picture in (colors(), noise):
        encoded = encode(picture, "JPEG", quality=90)
        planes = Image.open(BytesIO(encoded))
        planes.draft("YCbCr", None)
        gray = decode(encoded, None, 1)
        np.testing.assert_array_equal(gray[0], np.asarray(planes)[..., 0])
        by_color.append(difference(gray, np.asarray(Image.open(BytesIO(encoded)).convert("L"))[None]).max())
    assert by_color[0] <= 1
    assert by_color[1] > 4  # the way by RGB clips strong colors and so changes their luma


@pytest.mark.parametrize(
    ("image_size", "loaded"),
    [(None, (1600, 1200)), (700, (1600, 1200)), (151, (800, 600)), (150, (400, 300)), (20, (200, 150))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_large_jpeg_is_decoded_at_reduced_scale_and_close_to_full_quality(
    monkeypatch: pytest.MonkeyPatch, image_size: int | None, loaded: tuple[int, int], channels: Literal[1, 3]
) -> None:
    sizes: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def spy(self: JpegImageFile) -> Any:
        if self.tile:
            sizes.append(self.size)
        return load(self)

    grain = np.random.default_rng(1).normal(0, 25, (1200, 1600, 1))
    encoded = encode(np.clip(colors(1600, 1200) + grain, 0, 255).astype(np.uint8), "JPEG", quality=90)
    with monkeypatch.context() as patch:
        patch.setattr(JpegImageFile, "load", spy)
        pixels = decode(encoded, image_size, channels)
    assert sizes == [loaded]
    full = Image.open(BytesIO(encoded)).convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        full = full.resize((image_size, image_size), Image.Resampling.BILINEAR)
    expected = np.asarray(full).reshape(*full.size[::-1], channels).transpose(2, 0, 1)
    assert difference(pixels, expected).mean() < 2


def test_reduced_scale_keeps_the_edges_where_they_are() -> None:
    ramp = np.tile(np.linspace(0, 255, 129).round().astype(np.uint8), (129, 1))  # 129 = 16 * 8 + 1
    full = Image.fromarray(ramp).resize((8, 8), Image.Resampling.BILINEAR)
    assert difference(decode(encode(ramp, "JPEG", quality=95), 8, 1), np.asarray(full)[None]).max() <= 2


# ------------------------------------------------------------------------------------------------- bad input


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_bomb_is_refused_before_any_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*args: Any) -> None:
        raise AssertionError("memory was asked for")

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("PIL.Image.core.new", allocate)
    assert verdict(bomb) == "undecodable"
    with pytest.raises(DecodeError, match=r"^60000 x 60000 pixels are more than the 178956970 allowed$"):
        decode(bomb, 200, 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_largest_picture(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    allowed = 60 * 40 * (2 if format == "TIFF" else 1)
    encoded = encode(colors(), format)
    monkeypatch.setattr(module, "MAX_PIXELS", allowed)
    assert decode(encoded, 8, 3).shape == (3, 8, 8)
    monkeypatch.setattr(module, "MAX_PIXELS", allowed - 1)
    assert verdict(encoded) == "undecodable"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "PPM"])
def test_limit_and_warning_of_pillow_do_not_matter(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    encoded = encode(colors(), format)
    for limit in (10, 60 * 40 - 1):  # in Pillow the first is an error, the second a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode(encoded, 8, 3).shape == (3, 8, 8)
            assert inspect(encoded)[:2] == (60, 40)


def test_empty() -> None:
    assert verdict(b"") == "empty"


@pytest.mark.parametrize(
    "text",
    [b"hello", b"\0", b"<!DOCTYPE html><html></html>" * 50, b"Python\n" * 9, b"RIFF\x24\0\0\0WAVEfmt "],
)
def test_not_an_image(text: bytes) -> None:
    assert verdict(text) == "not an image"


def test_formats_that_run_a_program_are_not_read() -> None:
    assert verdict(encode(colors(), "EPS")) == "not an image"
    assert module.FORMATS == ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG 2000")


WHOLE = {
    "JPEG": encode(colors(), "JPEG"),
    "progressive JPEG": encode(colors(), "JPEG", progressive=True),
    "large JPEG": encode(colors(800, 600), "JPEG"),
    "PNG": encode(colors()),
    "GIF": encode(colors(), "GIF"),
    "BMP": encode(colors(), "BMP"),
    "WEBP": encode(colors(), "WEBP"),
    "TIFF": encode(colors(), "TIFF"),
    "compressed TIFF": encode(colors(), "TIFF", compression="tiff_lzw"),
    "PPM": encode(colors(), "PPM"),
    "AVIF": encode(colors(), "AVIF"),
    "JPEG 2000": encode(colors(), "JPEG2000"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_truncated(name: str) -> None:
    encoded = WHOLE[name]
    assert verdict(encoded[: len(encoded) // 2]) == "truncated"


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "large JPEG"])
def test_jpeg_without_its_last_byte_is_truncated(name: str) -> None:
    assert verdict(WHOLE[name][:-1]) == "truncated"  # so inspect walks the whole stream, though at 1/8 scale


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
def test_cut_anywhere_is_truncated(name: str) -> None:
    encoded = WHOLE[name]
    for end in range(10, len(encoded) - 20, 7):
        assert verdict(encoded[:end]) == "truncated", end


@pytest.mark.parametrize(
    ("name", "find", "replace"),
    [
        ("JPEG", b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x43\xff"),  # quantization table of a wrong kind
        ("JPEG", b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),  # 12 bits a sample
        ("PNG", b"IDAT\x78", b"IDAT\x00"),  # no zlib stream
        ("PNG", b"IHDR", b"IHDX"),
        ("GIF", b"\x3c\0\x28\0\x40\x08", b"\x3c\0\x28\0\x40\x0f"),  # LZW codes of more bits than there are
        ("WEBP", b"VP8 ", b"VP9 "),
        ("BMP", b"\x28\0\0\0\x3c", b"\x29\0\0\0\x3c"),  # unknown header
    ],
)
def test_undecodable(name: str, find: bytes, replace: bytes) -> None:
    assert WHOLE[name].count(find) == 1
    assert verdict(WHOLE[name].replace(find, replace)) == "undecodable"


def test_unsupported_tiff_is_not_called_truncated() -> None:
    encoded = encode(colors()[..., 0], "TIFF", compression="tiff_lzw")  # whose header ends the file
    black_is_zero, color_filters = (struct.pack("<HHIH", 262, 3, 1, value) for value in (1, 32803))
    assert encoded.count(black_is_zero) == 1
    assert verdict(encoded.replace(black_is_zero, color_filters)) == "undecodable"


def test_corrupt_bytes_raise_nothing_but_decode_error() -> None:
    rng = random.Random(20)
    outcomes: dict[str, int] = {}
    small = [encode(colors(24, 16), format) for format in ("JPEG", "PNG", "GIF")]
    for number in range(300):
        damaged = bytearray(small[number % 3])
        for _ in range(rng.choice([1, 3, 10])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            assert decode(bytes(damaged), 8, 3).shape == (3, 8, 8)
            outcome = "decoded"
        except DecodeError as error:
            outcome = error.verdict
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert min(outcomes.get(name, 0) for name in ("decoded", "undecodable", "truncated")) >= 5, outcomes


def test_what_pillow_said_is_kept_as_the_cause() -> None:
    with pytest.raises(DecodeError, match="image file is truncated") as caught:
        decode(WHOLE["JPEG"][:-100], None, 3)
    assert isinstance(caught.value.__cause__, OSError)


def test_error_survives_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("truncated", "it ends early")))
    assert isinstance(error, DecodeError)
    assert (error.verdict, str(error)) == ("truncated", "it ends early")


def test_running_out_of_memory_is_no_verdict_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.core.new", exhausted)
    with pytest.raises(MemoryError):
        decode(WHOLE["JPEG"], 8, 3)


# --------------------------------------------------------------------------------------- inspect and threads


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (WHOLE["large JPEG"], (800, 600, "RGB")),
        (encode(colors()[..., 0], "JPEG"), (60, 40, "L")),
        (encode(Image.fromarray(colors()).convert("CMYK"), "JPEG"), (60, 40, "CMYK")),
        (encode(colors(), "JPEG", exif=exif(6)), (60, 40, "RGB")),
        (encode(Image.fromarray(colors()).quantize(9)), (60, 40, "P")),
        (encode(Image.fromarray(colors()).convert("RGBA")), (60, 40, "RGBA")),
        (encode(Image.fromarray(colors()).convert("1")), (60, 40, "1")),
    ],
)
def test_inspect_tells_the_header(encoded: bytes, expected: tuple[int, int, str]) -> None:
    assert inspect(encoded) == expected


def test_threads_decode_as_one_does() -> None:
    pictures = [*WHOLE.values(), *(encode(colors(), "JPEG", exif=exif(o)) for o in TURNED)] * 6
    serial = [decode(encoded, 24, 3) for encoded in pictures]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda encoded: decode(encoded, 24, 3), pictures))
    for one, other in zip(serial, threaded, strict=True):
        np.testing.assert_array_equal(one, other)


def heic(pixels: NDArray[np.uint8]) -> bytes:
    import pillow_heif

    buffer = BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(buffer, quality=95)
    return buffer.getvalue()


def test_a_phones_picture_is_read_where_its_reader_is_installed() -> None:
    pixels = colors()
    encoded = heic(pixels)
    found = decode(encoded, None, 3).transpose(1, 2, 0)
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() < 12
    assert verdict(encoded[: len(encoded) // 2]) in ("truncated", "undecodable")


def test_without_its_reader_it_is_an_unsupported_format(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = heic(colors())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(module.DecodeError, match=r"pet_cifar\[heic\]") as caught:
        decode(encoded, None, 3)
    assert caught.value.verdict == "unsupported format"
