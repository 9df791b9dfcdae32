"""The pictures that words of the command line name: files, folders, patterns, zip archives and lists."""

import glob
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pet_cifar.data.files.regular import MAX_BYTES, read_regular
from pet_cifar.data.files.walk import SYSTEM_FILES, is_hidden, walk
from pet_cifar.data.manifest import PICTURE_SUFFIXES, is_listing, natural_key
from pet_cifar.data.pixels.decode import starts_like_a_picture
from pet_cifar.errors import InputError
from pet_cifar.names import printable

MAX_RATIO = 200
"""How many times its compressed size a picture in an archive may have."""

# zipfile raises these for damage, encryption, and compressions that it does not know.
_DAMAGE = (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, ValueError)


@dataclass(frozen=True)
class Source:
    """One file with, perhaps, a picture.

    Attributes:
        name: What the user is shown: a path, and for a member of an archive also its name in it.
        path: The file, or the archive.
        member: The name in the archive; empty for a file.
        archive: The archive, opened, which all its members share; None for a file.
    """

    name: str
    path: Path
    member: str = ""
    archive: zipfile.ZipFile | None = field(default=None, compare=False, repr=False)

    def read(self) -> bytes:
        """The encoded bytes; threads may read several sources at a time.

        Raises:
            OSError: The file is none, is too large, or cannot be read.
            ValueError: It cannot be unpacked.
        """
        return read_regular(self.path) if self.archive is None else self._read_member(self.archive)

    def _read_member(self, archive: zipfile.ZipFile) -> bytes:
        try:
            info = archive.getinfo(self.member)
            if info.file_size > max(MAX_RATIO * info.compress_size, 10**7):
                raise ValueError(f"it claims to unpack to {info.file_size:,} bytes")
            with archive.open(self.member) as stream:
                encoded = stream.read(MAX_BYTES + 1)
        except _DAMAGE as error:
            raise ValueError(f"cannot be unpacked: {error}") from error
        if len(encoded) > MAX_BYTES:
            raise ValueError(f"unpacks to more than {MAX_BYTES // 2**20} MB")
        return encoded


@dataclass
class Found:
    """What words name.

    Attributes:
        sources: The pictures, in the order of the words and each once.
        passed_over: The names of files in folders and archives that are no pictures by their names.
    """

    sources: list[Source]
    passed_over: list[str]


def find_sources(words: Sequence[str], listed: Iterable[str] = ()) -> Found:
    """The pictures that words name.

    Args:
        words: Files; folders, of which all files count that are pictures by their name; patterns such as ``*.jpg``;
            zip archives; and ``-`` for the paths of ``listed``.
        listed: Lines with the path of a file, a folder or an archive each. A file that is not there counts as a picture
            that cannot be read.

    Raises:
        InputError: A word names nothing, or nothing that can hold pictures.
    """
    found: dict[str, Source] = {}
    passed_over: list[str] = []
    for word in words:
        lines = (line.rstrip("\r\n") for line in listed)
        sources = (one for line in lines if line.strip() for one in _listed(line, passed_over))
        for source in sources if word == "-" else _named(word, passed_over):
            # A file may be named once from here and once from the root; a link is a file of its own.
            found.setdefault(f"{source.path.absolute()}/{source.member}", source)
    if not found:
        raise InputError("PATH -: standard input names no file; write one path in each line")
    return Found(list(found.values()), passed_over)


def _listed(line: str, passed_over: list[str]) -> Iterator[Source]:
    """What one of many names stands for; one that holds no pictures, or cannot be read, stops no other."""
    path = Path(line).expanduser()
    try:
        if _is(path, Path.is_dir):
            yield from _of_folder(path, passed_over)
        elif _is(path, Path.exists):
            yield from _of_file(path, passed_over)
        else:
            yield Source(line, path)
    except InputError:  # It is listed with what is passed over, or as a picture that cannot be read.
        if _is_archive(path):
            yield Source(line, path)
        else:
            passed_over.append(line)


def _named(word: str, passed_over: list[str]) -> Iterator[Source]:
    path = Path(word).expanduser()
    try:
        is_there = bool(word) and (path.exists() or path.is_symlink())
    except (OSError, ValueError) as error:  # The name is too long, or holds a null byte.
        raise InputError(f"PATH {printable(word)[:60]}: {error}; give a file or a folder") from error
    if is_there and path.is_dir():
        yield from _of_folder(path, passed_over)
    elif is_there:
        yield from _of_file(path, passed_over)
    else:
        matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207 - it may be absolute
        if not word or not matches:
            raise InputError(f"PATH {printable(word)}: there is no such file or folder; give one that is there")
        for match in matches:
            # A pattern such as * also names what is no picture.
            if _is(Path(match), Path.is_dir) or _looks_like_a_picture(Path(match)) or _is_archive(Path(match)):
                yield from _listed(match, passed_over)
            else:
                passed_over.append(match)


def _is(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def _of_folder(folder: Path, passed_over: list[str]) -> Iterator[Source]:
    count = 0
    for path in sorted(walk(folder), key=natural_key):
        if _looks_like_a_picture(folder / path):
            count += 1
            yield Source(str(folder / path), folder / path)
        elif Path(path).name not in SYSTEM_FILES and not (path.endswith(".csv") and is_listing(folder / path)):
            passed_over.append(str(folder / path))
    if not count:
        raise InputError(
            f"PATH {printable(str(folder))}: this folder holds no pictures; give one with files such as photo.jpg"
        )


def _looks_like_a_picture(path: Path) -> bool:
    """Whether a file is a picture by its name or, where that has no ending, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix or not _is(path, Path.is_file):
        return suffix in PICTURE_SUFFIXES
    try:
        with path.open("rb") as file:
            return starts_like_a_picture(file.read(64))
    except OSError:
        return False


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _of_file(path: Path, passed_over: list[str]) -> Iterator[Source]:
    if not _is_archive(path):
        yield Source(str(path), path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, *_DAMAGE) as error:
        raise InputError(
            f"PATH {printable(str(path))}: this archive cannot be read ({error}); give a whole zip file"
        ) from error
    names = [info.filename for info in archive.infolist() if not info.is_dir() and not is_hidden(info.filename)]
    pictures = [name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        archive.close()
        raise InputError(f"PATH {printable(str(path))}: this archive holds no pictures; give another file or folder")
    passed_over.extend(f"{path}/{name}" for name in names if Path(name).suffix.lower() not in PICTURE_SUFFIXES)
    for name in sorted(pictures, key=natural_key):
        yield Source(f"{path}/{name}", path, name, archive)
