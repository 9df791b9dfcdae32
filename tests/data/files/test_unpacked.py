"""What is unpacked follows the archive's content."""

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from pet_cifar.data.files.unpacked import is_archive, unpacked


def make(archive: Path, content: bytes, name: str = "x/1.txt") -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            target.writestr(name, content)
    else:
        source = archive.with_name("source.txt")
        source.write_bytes(content)
        with tarfile.open(archive, "w:gz") as target:
            target.add(source, name)
    return archive


def everything(name: str) -> bool:
    return True


@pytest.mark.parametrize("name", ["a.zip", "a [1].tar.gz"])
@pytest.mark.parametrize("same_date", [False, True])
def test_an_archive_that_is_replaced_is_unpacked_anew(tmp_path: Path, name: str, same_date: bool) -> None:
    archive = make(tmp_path / name, b"old")
    first = unpacked(archive, everything)
    assert (first / "x/1.txt").read_bytes() == b"old"
    assert unpacked(archive, everything) == first
    status = archive.stat()
    make(archive, b"new")
    if same_date:
        os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = unpacked(archive, everything)
    assert (second / "x/1.txt").read_bytes() == b"new"
    assert not first.exists(), "the old copy is removed"


def test_names_are_asked_for_with_forward_slashes(tmp_path: Path) -> None:
    asked: list[str] = []

    def members(name: str) -> bool:
        asked.append(name)
        return name.startswith("PetImages/Cat/")

    archive = tmp_path / "windows.zip"
    with zipfile.ZipFile(archive, "w") as target:
        info = zipfile.ZipInfo("x")
        info.filename = "PetImages\\Cat\\0.jpg"
        target.writestr(info, b"cat")
        target.writestr("./PetImages/Cat/1.jpg", b"cat")
    folder = unpacked(archive, members)
    assert asked == ["PetImages/Cat/0.jpg", "PetImages/Cat/1.jpg"]
    assert sorted(path.name for path in folder.rglob("*.jpg")) == ["0.jpg", "1.jpg"]


def test_archives_by_their_names(tmp_path: Path) -> None:
    for name in ("a.zip", "b.TAR.GZ", "c.tgz", "d.jpg", "e"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in tmp_path.iterdir() if is_archive(path)) == ["a.zip", "b.TAR.GZ", "c.tgz"]
