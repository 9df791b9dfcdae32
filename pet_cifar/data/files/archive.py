"""Unpacks zip and tar archives from elsewhere without trusting what they say."""

import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, Self, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.zip_end import read_zip_end
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable

T = TypeVar("T")

_CHUNK = 1 << 20
_DEEPEST, _LONGEST = 32, 240
"""How many folders a member may lie in, and how many letters a part of its name may have; no dataset comes near."""
_RATIO, _SMALL = 200, 10**7
"""How many times its own size an archive may unpack to, and how many bytes in any case; pictures hardly shrink."""
_MAX_ENTRIES = 2 * 10**6
"""How many files and folders an archive may list."""
_LARGEST_HEADER = 10**6
"""How many bytes a header of a tar archive may have beside its block: it holds names, and is read into memory."""
_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_REMEDY = "get the file from its source"
# Damaged bytes raise these in several modules: OSError comes from gzip, bz2 and a seek to a negative position,
# ArithmeticError and MemoryError come from an impossible length.
_BROKEN = (EOFError, OSError, ValueError, ArithmeticError, MemoryError)
_DAMAGE = (
    *(*_BROKEN, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    NotImplementedError,  # zipfile raises it for a compression that does not exist.
    RecursionError,  # tarfile calls itself for every header that belongs to the next one.
)


def unpack_zip(archive: Path, into: Path, members: Callable[[str], bool], *, max_bytes: int = 20 * 10**9) -> None:
    """Unpacks files of a zip archive into a new folder, which appears only when it is complete.

    Args:
        archive: The archive, which is never changed.
        into: The folder to make; if it exists, nothing is done.
        members: Tells by its name in the archive whether a file is wanted; it is not asked about folders.
        max_bytes: An archive that unpacks to more bytes is refused, and so is one that unpacks to more than 200 times
            its own size.

    Raises:
        InputError: The archive is damaged, unsafe or without any wanted file, or the disk cannot take it.
    """
    _unpack(archive, into, members, max_bytes, _zip_entries)


def unpack_tar(archive: Path, into: Path, members: Callable[[str], bool], *, max_bytes: int = 20 * 10**9) -> None:
    """Does what `unpack_zip` does for a tar archive, plain or compressed by gzip, bzip2 or xz."""
    _unpack(archive, into, members, max_bytes, _tar_entries)


class _Entry(NamedTuple):
    """A member of an archive, other than a folder."""

    name: str
    regular: bool
    open: Callable[[], IO[bytes] | None]


def _zip_entries(stream: BinaryIO) -> Iterator[_Entry]:
    end = read_zip_end(stream)
    # zipfile keeps the whole list in memory. Each member takes at least 46 bytes of it.
    if end and end.length > 46 * _MAX_ENTRIES:
        raise _too_many(Path(stream.name))
    with zipfile.ZipFile(stream) as archive:
        # zipfile neither compares the number of members with the one announced nor minds a broken name
        if end and end.members not in (0xFFFF, len(archive.infolist()) & 0xFFFF):
            raise zipfile.BadZipFile(f"{len(archive.infolist())} of {end.members} members are listed")
        for info in archive.infolist():
            if "\0" in info.orig_filename:
                raise zipfile.BadZipFile(f"broken name {info.orig_filename!r}")
            # The kind is 0 where the archive was made on a system without Unix modes. Bit 0 marks an encrypted file.
            kind = stat.S_IFMT(info.external_attr >> 16)
            regular = kind in (0, stat.S_IFREG) and not info.flag_bits & 1
            if not info.filename.endswith("/"):
                yield _Entry(info.filename, regular, partial(archive.open, info))


def _tar_entries(stream: BinaryIO) -> Iterator[_Entry]:
    with tarfile.open(fileobj=stream, tarinfo=_StrictTarInfo) as archive:
        for info in archive:
            # tarfile would keep every member in memory.
            archive.members.clear()  # type: ignore[attr-defined]
            if not info.isdir():
                yield _Entry(info.name, info.isreg(), partial(archive.extractfile, info))
        # tarfile stops at the end mark. Reading on checks the compression's checksum, which comes after it.
        while archive.fileobj is not None and archive.fileobj.read(_CHUNK):
            pass


class _StrictTarInfo(tarfile.TarInfo):
    """Reports every broken or missing header; tarfile takes each but the first for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _HEADERS and info.size > _LARGEST_HEADER:
            raise tarfile.HeaderError(f"a header has {info.size:,} bytes")  # type: ignore[attr-defined,unused-ignore]
        return info

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined,unused-ignore]
            raise  # This is the end mark, which every archive has.
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from error


def _unpack(
    archive: Path,
    into: Path,
    members: Callable[[str], bool],
    max_bytes: int,
    entries: Callable[[BinaryIO], Iterator[_Entry]],
) -> None:
    with disk_errors(into):
        if into.exists():
            return
    try:
        stream = archive.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {archive}: {error.strerror}; put the archive there") from error
    with stream, locked(into):
        if into.exists():
            return
        temporary = into.with_name(f".unpacking-{into.name}")
        with disk_errors(temporary):
            if temporary.exists():
                # A process that was killed left it: whoever still unpacks would hold the lock.
                shutil.rmtree(temporary)
            temporary.mkdir()
        try:
            most = min(max_bytes, max(_RATIO * os.fstat(stream.fileno()).st_size, _SMALL))
            _extract(archive, entries(stream), temporary, members, most)
            with disk_errors(into):
                temporary.replace(into)
        except BaseException:
            # What cannot be removed now is removed by the next call.
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _extract(
    archive: Path, entries: Iterator[_Entry], into: Path, members: Callable[[str], bool], max_bytes: int
) -> None:
    written, empty = 0, True
    spelled: dict[str, str] = {}
    listed = tqdm(_reading(archive, entries), desc=printable(archive.name), unit="file", disable=None)
    for number, entry in enumerate(listed):
        if number >= _MAX_ENTRIES:
            raise _too_many(archive)
        if not members(entry.name):
            continue
        path = _inside(into, entry.name)
        why = "leads out of the folder or too deep" if path is None else _fault(entry, spelled)
        if path is None or why:
            raise InputError(f"{archive} is refused, since {_shortened(entry.name)} in it {why}; {_REMEDY}")
        empty = False
        # Closing writes once more what the disk did not take. What is wrong with the archive is no OSError here.
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("wb")
        with disk_errors(path), file:
            for chunk in _reading(archive, _chunks(entry)):
                written += len(chunk)
                if written > max_bytes:
                    raise InputError(
                        f"{archive} is refused, since it unpacks to over {max_bytes:,} bytes, which no pictures of its "
                        f"size do; {_REMEDY}"
                    )
                file.write(chunk)
    if empty:
        raise InputError(f"{archive} holds none of the files that are expected; put the right archive there")


def _too_many(archive: Path) -> InputError:
    return InputError(f"{archive} is refused, since it lists more than {_MAX_ENTRIES:,} files; {_REMEDY}")


def _fault(entry: _Entry, spelled: dict[str, str]) -> str:
    """What is wrong with a member whose path is a good one; empty where nothing is.

    Args:
        entry: The member.
        spelled: The folders and files so far, by their names in small letters; those of this member are added.
    """
    if not entry.regular:
        return "is a link, a device or encrypted"
    if any(unicodedata.category(letter) == "Cc" for letter in entry.name):
        return "has control characters in its name"
    parts = entry.name.replace("\\", "/").split("/")
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        # Many a disk takes names for one that differ only by case, or by how their accents are written.
        other = spelled.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path:
            return f"differs from {_shortened(other)} only by case or accents"
    return ""


def _inside(folder: Path, name: str) -> Path | None:
    """Returns the path that a member goes to; None if no folder on this system or any other could hold it."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or parts[-1] in ("", ".") or re.match("[A-Za-z]:|.*\0", name, re.S):
        return None
    if len(parts) > _DEEPEST or max(map(len, parts)) > _LONGEST:
        return None
    return folder / "/".join(parts)


def _shortened(name: str) -> str:
    return printable(name if len(name) < 80 else f"{name[:40]}...{name[-30:]}")


def _chunks(entry: _Entry) -> Iterator[bytes]:
    stream = entry.open()
    if stream is not None:
        with stream:
            while chunk := stream.read(_CHUNK):
                yield chunk


def _reading(archive: Path, items: Iterator[T]) -> Iterator[T]:
    """Passes on what is read from an archive; an error in reading, and in nothing else, is reported as damage."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except _DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{archive} is damaged or half downloaded: {reason}; delete it and run again, or put a whole copy there"
            ) from error
        yield item
