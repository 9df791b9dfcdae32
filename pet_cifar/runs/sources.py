"""The pictures that words of the command line name: files, folders, patterns, zip archives and lists."""

import glob
import io
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_cifar.data.files.names import printable
from pet_cifar.data.manifest import PICTURE_SUFFIXES, natural_key
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.runs.load import pictures_in

MAX_BYTES = 512 * 2**20
"""A member of an archive that unpacks to more bytes is refused, because it may be meant to fill the memory."""


@dataclass(frozen=True)
class Source:
    """One file with, perhaps, a picture.

    Attributes:
        name: What the user is shown: a path, and for a member of an archive also its name in it.
        path: The file, or the archive.
        member: The name in the archive; empty for a file.
    """

    name: str
    path: Path
    member: str = ""

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            OSError: The file cannot be read.
            ValueError: The member cannot be unpacked.
        """
        if not self.member:
            return self.path.read_bytes()
        try:
            # One object for each member, because threads that share one would wait for each other.
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                encoded = stream.read(MAX_BYTES + 1)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise ValueError(f"cannot be unpacked: {error}") from error
        if len(encoded) > MAX_BYTES:
            raise ValueError(f"unpacks to more than {MAX_BYTES // 2**20} MB")
        return encoded


def find_sources(words: Sequence[str], listed: Iterable[str] = ()) -> list[Source]:
    """The pictures that words name, in the order of the words and each once.

    Args:
        words: Files; folders, of which all files count that are pictures by their name; patterns such as ``*.jpg``;
            zip archives; and ``-`` for the paths of ``listed``.
        listed: Lines with a path each.

    Raises:
        InputError: A word names nothing, or nothing that can hold pictures.
    """
    found: dict[str, Source] = {}
    for word in words:
        own = (line.rstrip("\r\n") for line in listed) if word == "-" else [word]
        for one in own:
            for source in _named(one) if one.strip() else ():
                found.setdefault(source.name, source)
    if not found:
        raise InputError("PATH -: standard input names no file; write one path in each line")
    return list(found.values())


def _named(word: str) -> Iterator[Source]:
    path = Path(word).expanduser()
    try:
        is_folder, is_there = path.is_dir(), path.exists() or path.is_symlink()
    except (OSError, ValueError) as error:  # The name is too long, or holds a null byte.
        raise InputError(f"PATH {printable(word)[:60]}: {error}; give a file or a folder") from error
    if is_folder:
        yield from (Source(str(file), file) for file in pictures_in(path))
    elif is_there:
        yield from _of_file(path)
    else:
        matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207 - it may be absolute
        if not matches:
            raise InputError(f"PATH {printable(word)}: there is no such file or folder; give one that is there")
        for match in matches:
            yield from _named(match)


def _of_file(path: Path) -> Iterator[Source]:
    if path.suffix.lower() != ".zip" or not zipfile.is_zipfile(path):
        yield Source(str(path), path)
        return
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if Path(name).suffix.lower() in PICTURE_SUFFIXES and not _is_hidden(name)]
    if not names:
        raise InputError(f"PATH {printable(str(path))}: this archive holds no pictures; give another file or folder")
    for name in sorted(names, key=natural_key):
        yield Source(f"{path}/{name}", path, name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def put_into(source: Source, folder: Path, *, move: bool) -> Path:
    """Copies or moves a picture into a folder, and never over another file.

    Args:
        source: The picture; one in an archive can only be copied.
        folder: The folder, which is made.
        move: Moves the file.

    Returns:
        Where it is now: under its own name, or with a number behind it where there is another of this name.

    Raises:
        InputError: It cannot be written there, or is to be moved out of an archive.
    """
    if move and source.member:
        raise InputError(f"--move: {printable(source.name)} lies in an archive; give --copy")
    name = Path(source.member or source.path).name
    with disk_errors(folder, "; give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        target = _reserved(folder, name)
        try:
            if source.member:
                with target.open("wb") as file:
                    shutil.copyfileobj(io.BytesIO(source.read()), file)
            elif move:
                # The reserved name is empty and ours, so that nothing of the user's is replaced.
                shutil.move(source.path, target)
            else:
                shutil.copy2(source.path, target)
        except BaseException:
            if target.stat().st_size == 0:
                target.unlink()
            raise
    return target


def _reserved(folder: Path, name: str) -> Path:
    """Makes an empty file under a name that is free; two programs never get the same."""
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(1, 1_000_000):
        target = folder / (name if number == 1 else f"{stem} ({number}){suffix}")
        try:
            target.open("xb").close()
        except FileExistsError:
            continue
        return target
    raise InputError(f"{folder} holds a million files called {name}; give another folder")
