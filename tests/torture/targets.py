"""What a stranger's bytes may never do to the readers of this project; `fuzz` and the tests call these with any bytes.

Each target takes bytes, and raises AssertionError, or whatever the reader lets through, where a promise is broken. The
promises are those of docs/safety.md: a result of the right kind or one line that says what is wrong, and nothing
outside of the reader's own folder.
"""

import csv
import io
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pet_cifar.data import manifest
from pet_cifar.data.files.archive import unpack_tar, unpack_zip
from pet_cifar.data.files.plain_yaml import check_plain, read_yaml
from pet_cifar.data.files.unpickle import read_pickle
from pet_cifar.data.pixels import decode as pixels
from pet_cifar.errors import InputError
from pet_cifar.names import as_cell, from_cell

FEW_PIXELS = 1 << 16
"""Larger pictures are refused while fuzzing, which would otherwise spend its time in filling memory."""
PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class Target:
    """Bytes and where they go.

    Attributes:
        check: Is called with the bytes.
        seeds: Makes the bytes to begin with.
        longest: The most bytes that are tried.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int


def outcome(read: Callable[[], object]) -> object:
    """What is read, or None where it is refused in one line."""
    try:
        return read()
    except (InputError, pixels.DecodeError) as error:
        line = str(error)
        assert line, "a refusal says nothing"
        assert "\n" not in line, line
        assert len(line) < 2000, line
        return None


def check_decode(data: bytes) -> None:
    """A picture is decoded in the shape that was asked for, or refused; `inspect` foretells which."""
    encoded = _with_checksums(data)
    before, pixels.MAX_PIXELS = pixels.MAX_PIXELS, FEW_PIXELS  # type: ignore[misc]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = outcome(lambda: pixels.inspect(encoded))
            gray = outcome(lambda: pixels.decode(encoded, 8, 1))
            color = outcome(lambda: pixels.decode(encoded, None, 3))
    finally:
        pixels.MAX_PIXELS = before  # type: ignore[misc]
    assert (header is None) == (gray is None) == (color is None), (header, gray is None, color is None)
    if isinstance(header, tuple) and isinstance(gray, np.ndarray) and isinstance(color, np.ndarray):
        assert (gray.shape, gray.dtype, color.dtype) == ((1, 8, 8), np.uint8, np.uint8)
        assert sorted(color.shape[1:]) == sorted(header[:2]), (color.shape, header)
        assert color.shape[0] == 3


def _with_checksums(data: bytes) -> bytes:
    """Gives the chunks of a PNG right checksums, so that what lies behind them is reached, too."""
    if not data.startswith(PNG):
        return data
    fixed, place = bytearray(data), len(PNG)
    while place + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, place)
        end = place + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[place + 4 : end]))
        place = end + 4
    return bytes(fixed)


def check_manifest(data: bytes) -> None:
    """A damaged or forged listing counts as none or gives records, which come back as they were written."""
    path = _folder() / "manifest.csv"
    path.write_bytes(data)
    records = manifest.read_csv(path)
    manifest.is_listing(path)
    manifest.write_csv(records, path)
    assert manifest.read_csv(path) == records
    name = data.decode("utf-8", "surrogateescape")
    assert from_cell(as_cell(name)) == name
    assert sorted([name, "a1", "a10"], key=manifest.natural_key)


def check_unpickle(data: bytes) -> None:
    """A pickle gives plain values or is refused."""
    value = outcome(lambda: read_pickle(io.BytesIO(data)))
    level, count = [value], 0
    while level and count < 10_000:
        one = level.pop()
        count += 1
        assert one is None or type(one) in (dict, list, tuple, bytes, str, bool, int, float, np.ndarray), type(one)
        if isinstance(one, dict):
            level += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            level += one
        elif isinstance(one, np.ndarray):
            assert one.dtype.kind in "biufc"


def check_archive(data: bytes) -> None:
    """An archive is unpacked into its folder or refused without a trace."""
    folder = _folder()
    place, into = folder / "inside" / "x", folder / "inside" / "into"
    shutil.rmtree(folder / "inside", ignore_errors=True)
    place.parent.mkdir()
    is_tar = data[:1] == b"t"
    place.write_bytes(_with_header_sums(data[1:]) if is_tar else data[1:])
    unpacked = outcome(lambda: ((unpack_tar if is_tar else unpack_zip)(place, into, lambda name: True), 1))
    assert {path.name for path in folder.iterdir()} <= {"inside", "manifest.csv"}
    assert {path.name for path in place.parent.iterdir()} - {"x", "into.lock"} == ({"into"} if unpacked else set())
    total = 0
    for path in into.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.is_file()
        assert path.resolve().is_relative_to(into.resolve())
        total += path.stat().st_size if path.is_file() else 0
    assert total <= 10**7


def _with_header_sums(data: bytes) -> bytes:
    """Gives the headers of a tar archive right sums."""
    fixed = bytearray(data)
    for place in range(0, len(fixed) - 511, 512):
        if fixed[place + 257 : place + 262] == b"ustar":
            fixed[place + 148 : place + 156] = b" " * 8
            fixed[place + 148 : place + 156] = b"%06o\0 " % sum(fixed[place : place + 512])
    return bytes(fixed)


def check_yaml(data: bytes) -> None:
    """A text gives plain values of a config's size or is refused."""
    found = outcome(lambda: read_yaml(data.decode("utf-8", "replace"), "--config my.yaml"))
    check_plain(found, "what was read")


def _folder() -> Path:
    """The folder that files go to, below the working directory, which whoever calls has chosen."""
    folder = Path("fuzzing").absolute()
    folder.mkdir(exist_ok=True)
    return folder


def _pictures() -> list[bytes]:
    colors = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    images = [Image.fromarray(colors), Image.fromarray(colors[..., 0]), Image.fromarray(colors).quantize(9)]
    found = []
    for form in FORMATS:
        for image in images[: 3 if form in ("PNG", "GIF", "TIFF", "BMP") else 1]:
            buffer = io.BytesIO()
            image.save(buffer, form)
            found.append(buffer.getvalue())
    for options in (
        {"progressive": True},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"},
    ):
        buffer = io.BytesIO()
        images[0].save(buffer, "JPEG", **options)
        found.append(buffer.getvalue())
    for mode in ("RGBA", "LA", "1", "CMYK", "I;16", "F"):
        buffer = io.BytesIO()
        image = images[1].convert(mode) if mode != "I;16" else Image.fromarray(colors[..., 0].astype(np.uint16))
        image.save(buffer, "TIFF" if mode in ("CMYK", "F") else "PNG")
        found.append(buffer.getvalue())
    return found


def _listings() -> list[bytes]:
    records = [
        manifest.ImageRecord(path, "Cat", "train", 10, 1, 2, 3, 4, "RGB", "0" * 64, verdict)
        for path, verdict in (("Cat/0.jpg", "ok"), ("=1+1.jpg", "duplicate of Cat/0.jpg"), ("caf\udce9.png", "empty"))
    ]
    path = _folder() / "manifest.csv"
    manifest.write_csv(records, path)
    buffer = io.StringIO()
    csv.writer(buffer).writerow(manifest.COLUMNS)
    return [path.read_bytes(), buffer.getvalue().encode()]


def _pickles() -> list[bytes]:
    array = np.arange(12, dtype=np.uint8).reshape(2, 6)
    value = {b"data": array, b"labels": [3, 7], "names": (1.5, None, True, 10**30, b"")}
    written = [pickle.dumps(value, protocol) for protocol in range(5)]
    return [*written, written[2].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")]


def _archives() -> list[bytes]:
    files = {"set/a.jpg": b"text " * 9, "set/b/c.jpg": b""}
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        found.append(b"z" + buffer.getvalue())
    for mode, form in (("w:", tarfile.USTAR_FORMAT), ("w:", tarfile.PAX_FORMAT), ("w:gz", tarfile.GNU_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                info = tarfile.TarInfo(name if form == tarfile.USTAR_FORMAT else f"{name}\u00e9")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        # Two blocks of zeros end an archive; the others only make it long.
        found.append(b"t" + (buffer.getvalue().rstrip(b"\0") + bytes(1536) if mode == "w:" else buffer.getvalue()))
    return found


def _configs() -> list[bytes]:
    return [
        b"model:\n  class_path: ResidualCNN\n  init_args: {widths: [16, 32], lr: 0.005}\ntrainer:\n  max_epochs: 15\n",
        b"a: &a [1, 2.5, true, null]\nb: *a\nc: {<<: {d: e}}\nf: 2024-01-01\n",
        b"- 'x\\n'\n- \"\\u00e9\\xff\"\n- |\n  text\n- >-\n  more\n? key\n: !!str tag\n",
    ]


TARGETS = {
    "decode": Target(check_decode, _pictures, 1500),
    "manifest": Target(check_manifest, _listings, 400),
    "unpickle": Target(check_unpickle, _pickles, 300),
    "archive": Target(check_archive, _archives, 4000),
    "yaml": Target(check_yaml, _configs, 100),
}
"""The readers of files that may come from anyone."""
