"""What one process makes, others wait for: they say so, and not without an end."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pet_cifar.data.files import locking
from pet_cifar.data.files.archive import unpack_zip
from pet_cifar.data.files.download import fetch
from pet_cifar.data.files.locking import MAX_WAIT, locked, wait_for
from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import downloading


def test_who_waits_says_on_what_and_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locking, "TELL_AFTER", 0.05)
    held = FileLock(tmp_path / "pictures.npy.lock", thread_local=False)
    held.acquire()

    def release() -> None:
        while not caplog.records:
            time.sleep(0.01)
        held.release()

    thread = threading.Thread(target=release)
    thread.start()
    with locked(tmp_path / "pictures.npy"):
        assert not held.is_locked
    thread.join()
    assert len(caplog.records) == 1
    assert f"waiting for another process, which makes {tmp_path / 'pictures.npy'}; for 2 h 00 min" in caplog.text


def test_who_need_not_wait_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(tmp_path / "new" / "pictures.npy"):
        assert (tmp_path / "new").is_dir()
    assert not caplog.records


def fetching(folder: Path) -> None:
    fetch(["http://localhost:1/a.zip"], folder / "a.zip")


def unpacking(folder: Path) -> None:
    (folder / "a.zip.source").touch()
    unpack_zip(folder / "a.zip.source", folder / "a.zip", lambda name: True)


def weighing(folder: Path) -> None:
    with downloading("a.zip"):
        raise AssertionError("another process holds the lock")


@pytest.mark.parametrize("make", [fetching, unpacking, weighing])
def test_the_wait_has_an_end(make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_WAIT, "0.1s")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with FileLock(tmp_path / "a.zip.lock"), pytest.raises(InputError) as caught:
        make(tmp_path)
    line = str(caught.value)
    assert "a.zip" in line
    assert "more than 0.1 s" in line
    assert MAX_WAIT in line
    assert str(tmp_path / "a.zip.lock") in line


def test_a_limit_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_WAIT, "long")
    with pytest.raises(InputError, match=f"{MAX_WAIT} long: expected a length of time"):
        wait_for(FileLock(tmp_path / "lock"), "a file")
