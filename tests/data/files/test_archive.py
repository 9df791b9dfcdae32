import gzip
import io
import random
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pet_cifar.data.files import archive as module
from pet_cifar.data.files.archive import unpack_tar, unpack_zip
from pet_cifar.errors import InputError

FILES = {"set/train/a.bin": random.Random(0).randbytes(5000), "set/b.txt": b"text " * 400, "set/c.txt": b""}
Unpack = Callable[..., None]
# lets a child process import one module without torch, which pet_cifar.data would import for seconds
LIGHT = (
    "import sys, types\n"
    "for name in ('pet_cifar', 'pet_cifar.data', 'pet_cifar.data.files'):\n"
    "    sys.modules[name] = types.ModuleType(name)\n"
    "    sys.modules[name].__path__ = [name.replace('.', '/')]\n"
)


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = "w:" + path.suffix.removeprefix(".").removesuffix("tar")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make(path: Path, files: dict[str, bytes]) -> tuple[Unpack, Path]:
    if path.suffix == ".zip":
        return unpack_zip, make_zip(path, files)
    return unpack_tar, make_tar(path, files)


def every(name: str) -> bool:
    return True


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


both = pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
each = pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])


@each
def test_wanted_files_are_unpacked_and_the_archive_is_kept(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    before = archive.read_bytes()
    run(archive, tmp_path / "new" / "into", lambda name: not name.endswith("b.txt"))
    assert content_of(tmp_path / "new" / "into") == {k: v for k, v in FILES.items() if k != "set/b.txt"}
    assert archive.read_bytes() == before
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"into", "into.lock"}


@both
def test_existing_folder_is_not_touched(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    (tmp_path / "into").mkdir()
    run(archive, tmp_path / "into", every)
    run(tmp_path / "absent", tmp_path / "into", every)
    assert content_of(tmp_path / "into") == {}


@both
@pytest.mark.parametrize(
    "evil",
    [
        *("../evil", "set/../../evil", "{}/evil", "C:/evil", "c:evil", "..\\evil", "\\evil", "set/..\\..\\evil"),
        *("\x1b[31m/../evil", "d/" * 2000 + "evil", "evil" * 100),
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str, evil: str) -> None:
    evil = evil.format(tmp_path)
    run, archive = make(tmp_path / name, {**FILES, evil: b"evil"})
    with pytest.raises(InputError, match=r"leads out of the folder or too deep; ") as caught:
        run(archive, tmp_path / "into", every)
    # A long name is cut in the middle.
    assert evil[-9:] in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {name, "into.lock"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_tar_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("set/link")
        info.type, info.linkname = kind, str(secret)
        archive.addfile(info)
        through = tarfile.TarInfo("set/link/through")
        archive.addfile(through)
    with pytest.raises(InputError, match="set/link in it is a link, a device or encrypted"):
        unpack_tar(tmp_path / "x.tar", tmp_path / "into", every)
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar", "into.lock", "secret"}


def test_zip_symlink_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(InputError, match="set/link in it is a link"):
        unpack_zip(tmp_path / "x.zip", tmp_path / "into", every)
    assert not (tmp_path / "into").exists()


@each
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_cut_archive_is_told_in_one_line(tmp_path: Path, name: str, share: float) -> None:
    run, archive = make(tmp_path / name, FILES)
    # Python pads tar files with zeros to 10240 bytes, which nobody misses
    whole = archive.read_bytes() if name != "x.tar" else archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"is damaged or half downloaded: .*; delete it and run again") as caught:
        run(archive, tmp_path / "into", every)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {name, "into.lock"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_damage_within_is_found(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    damaged = bytearray(archive.read_bytes())
    damaged[2500] ^= 1  # within the bytes that do not compress
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match="is damaged"):
        run(archive, tmp_path / "into", every)
    assert not (tmp_path / "into").exists()


def test_broken_tar_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "x.tar", FILES)
    damaged = archive.read_bytes().replace(b"set/b.txt", b"set/d.txt")
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged.*bad checksum"):
        unpack_tar(archive, tmp_path / "into", every)


def test_zip_that_hides_members_is_damaged(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", FILES)
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(b"set/b.txt", b"set/b\0txt"))
    with pytest.raises(InputError, match="damaged or half downloaded: broken name"):
        unpack_zip(archive, tmp_path / "into", every)
    more = bytearray(whole)
    struct.pack_into("<H", more, more.rfind(b"PK\5\6") + 10, 5)
    archive.write_bytes(more)
    with pytest.raises(InputError, match="damaged or half downloaded: 4 of 5 members are listed"):
        unpack_zip(archive, tmp_path / "into", every)


def test_encrypted_and_unknown_zip_members_are_told(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"b": b"text"})
    whole = archive.read_bytes()
    at = whole.rfind(b"PK\1\2")
    for offset, value, message in ((8, 1, "encrypted"), (10, 99, "damaged.*compression")):
        changed = bytearray(whole)
        struct.pack_into("<H", changed, at + offset, value)
        archive.write_bytes(changed)
        with pytest.raises(InputError, match=message):
            unpack_zip(archive, tmp_path / "into", every)


@both
def test_bomb_is_stopped(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, {"a": bytes(600_000), "b": bytes(600_000)})
    with pytest.raises(InputError, match="over 1,000,000 bytes"):
        run(archive, tmp_path / "into", every, max_bytes=1_000_000)
    assert {path.name for path in tmp_path.iterdir()} == {name, "into.lock"}
    run(archive, tmp_path / "into", every, max_bytes=1_200_000)


@both
def test_archive_without_wanted_files_is_told(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    with pytest.raises(InputError, match="holds none of the files"):
        run(archive, tmp_path / "into", lambda name: False)
    assert not (tmp_path / "into").exists()


@both
def test_killed_unpacking_is_redone(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    into = tmp_path / "into"
    code = (
        f"{LIGHT}import os; from pathlib import Path; from pet_cifar.data.files import archive;"
        f"archive.{run.__name__}(*map(Path, sys.argv[1:]), lambda name: name != 'set/c.txt' or os._exit(9))"
    )
    command = [sys.executable, "-c", code, str(archive), str(into)]
    assert subprocess.run(command, cwd=Path(module.__file__).parents[3], check=False).returncode == 9
    assert (tmp_path / ".unpacking-into" / "set" / "b.txt").exists()
    assert not into.exists()
    (tmp_path / ".unpacking-into" / "stale").write_bytes(b"")
    run(archive, into, every)
    assert content_of(into) == FILES
    assert not (tmp_path / ".unpacking-into").exists()


@both
def test_threads_unpack_once(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, FILES)
    gate, asked = threading.Event(), []

    def wanted(name: str) -> bool:
        asked.append(name)
        return gate.wait(5)

    threads = [threading.Thread(target=run, args=(archive, tmp_path / "into", wanted)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)  # all are under way before any file is unpacked
    gate.set()
    for thread in threads:
        thread.join(10)
    assert sorted(set(asked)) == sorted(FILES)
    assert len(asked) == len(set(asked))
    assert content_of(tmp_path / "into") == FILES


@both
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, name: str) -> None:
    def stop(name: str) -> bool:
        raise ValueError("a mistake of the caller")

    run, archive = make(tmp_path / name, FILES)
    with pytest.raises(ValueError, match="mistake"):
        run(archive, tmp_path / "into", stop)
    assert {path.name for path in tmp_path.iterdir()} == {name, "into.lock"}


def test_missing_archive_and_unwritable_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent\.zip"):
        unpack_zip(tmp_path / "absent.zip", tmp_path / "into", every)
    archive = make_zip(tmp_path / "x.zip", FILES)
    with pytest.raises(InputError, match="cannot write"):  # a file is where the folder should be
        unpack_zip(archive, archive / "sub" / "into", every)


# What no pictures come to


@both
def test_a_ratio_that_no_pictures_have_is_refused(tmp_path: Path, name: str) -> None:
    run, archive = make(tmp_path / name, {"set/0.jpg": bytes(20_000_000)})
    with pytest.raises(InputError, match=f"{name} is refused, since it unpacks to over 10,000,000 bytes"):
        run(archive, tmp_path / "into", every)
    assert {path.name for path in tmp_path.iterdir()} == {name, "into.lock"}


def test_a_sparse_member_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    # GNU tar's first sparse format: one byte at the end of 8 GB.
    info = tarfile.TarInfo("set/0.jpg")
    info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
    size = 8 * 2**30
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (size - 512, 512)
    header[483:495] = b"\x80" + bytes(3) + size.to_bytes(8, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + b"x" * 512 + bytes(1024))
    with pytest.raises(InputError, match=r"x\.tar is refused, since it unpacks to over 10,000,000 bytes"):
        unpack_tar(tmp_path / "x.tar", tmp_path / "into", every)
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar", "into.lock"}


@both
@pytest.mark.parametrize(
    ("one", "other"), [("set/A.jpg", "set/a.jpg"), ("Cat/0.jpg", "cat/1.jpg"), ("e\u0301/0.jpg", "\u00e9/1.jpg")]
)
def test_names_that_many_disks_take_for_one_are_refused(tmp_path: Path, name: str, one: str, other: str) -> None:
    run, archive = make(tmp_path / name, {one: b"1", other: b"2"})
    with pytest.raises(InputError, match="only by case or accents"):
        run(archive, tmp_path / "into", every)


@both
@pytest.mark.parametrize("evil", ["set/\x1b[31m0.jpg", "set/a\nb.jpg", "set\x7f/0.jpg"])
def test_control_characters_in_names_are_refused(tmp_path: Path, name: str, evil: str) -> None:
    run, archive = make(tmp_path / name, {evil: b"1"})
    with pytest.raises(InputError, match="has control characters in its name") as caught:
        run(archive, tmp_path / "into", every)
    assert str(caught.value).isprintable()


@both
def test_more_members_than_any_data_set_has_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_ENTRIES", 20)
    files = {f"set/{number}": b"" for number in range(30)}
    run, archive = make(tmp_path / name, files)
    with pytest.raises(InputError, match="lists more than 20 files"):
        run(archive, tmp_path / "into", every)
    # A list that is too long is not even read.
    monkeypatch.setattr(zipfile, "ZipFile", lambda stream: pytest.fail("the list was read"))
    monkeypatch.setattr(module, "_MAX_ENTRIES", 2)
    with pytest.raises(InputError, match="lists more than 2 files"):
        run(archive, tmp_path / "into", every)


def test_a_list_that_is_long_by_the_longer_end_record_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.zip"
    with monkeypatch.context() as few, zipfile.ZipFile(archive, "w") as file:
        few.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # More files than this need the longer record.
        for number in range(30):
            file.writestr(f"set/{number}", b"")
    whole = bytearray(archive.read_bytes())
    whole[-10:-6] = bytes(4)  # The shorter one says that the list has no bytes.
    archive.write_bytes(whole)
    with zipfile.ZipFile(archive) as file:
        assert len(file.infolist()) == 30
    monkeypatch.setattr(zipfile, "ZipFile", lambda stream: pytest.fail("the list was read"))
    monkeypatch.setattr(module, "_MAX_ENTRIES", 2)
    with pytest.raises(InputError, match="lists more than 2 files"):
        unpack_zip(archive, tmp_path / "into", every)


def header(kind: bytes, size: int) -> bytes:
    """A block that begins a member of a tar archive."""
    info = tarfile.TarInfo("set/0.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("place", ["first", "later"])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes, place: str) -> None:
    size = 50_000_000
    first = header(tarfile.REGTYPE, 0) if place == "later" else b""
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as file:
        file.write(first + header(kind, size) + bytes(size + 1024))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"x\.tar\.gz is damaged"):
            unpack_tar(tmp_path / "x.tar.gz", tmp_path / "into", every)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_headers_of_headers_of_headers_are_refused(tmp_path: Path) -> None:
    more = header(tarfile.XHDTYPE, 512) + b"13 path=abcd\n".ljust(512, b"\0")
    (tmp_path / "x.tar").write_bytes(
        header(tarfile.REGTYPE, 0) + more * 2_000 + header(tarfile.REGTYPE, 0) + bytes(1024)
    )
    with pytest.raises(InputError, match=r"x\.tar is damaged.*recursion") as caught:
        unpack_tar(tmp_path / "x.tar", tmp_path / "into", every)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"x.tar", "into.lock"}
