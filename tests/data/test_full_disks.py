"""What lies beside the data is written whole or not at all, a full disk ends it in one line, and room lets it go on.

The limit of a file's size stands in for a full disk: every write beyond it fails, whoever makes it. What really fills a
disk is in ``tests/torture``.
"""

import errno
import io
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule
from pet_cifar.data.root import state_directories
from pet_cifar.data.test_log import FILE, log_test, read_tests
from pet_cifar.errors import InputError
from tests.data.pixels.test_feature_cache import Work
from tests.data.test_test_log import logged

LIMIT, TINY = 4000, 800
"""Bytes that a file may have, where each is longer or hardly any is; what a test prints goes to a file, too."""


@contextmanager
def full_disk(limit: int = LIMIT) -> Iterator[None]:
    """Lets every write fail that would make a file longer."""
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, own[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)


def listing(root: Path) -> None:
    CatsDogsDataModule(root, cache="none").prepare_data()


def cache(root: Path) -> None:
    data = CatsDogsDataModule(root, image_size=32, cache="disk")
    data.prepare_data()
    data.setup("fit")
    data.pixels("train")


def features(root: Path) -> None:
    Work().store(directory=root / ".pet_cifar" / "features")


def archive(root: Path) -> None:
    CIFAR10DataModule(root).prepare_data()


WRITES: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "listing": (listing, "cats_dogs_root", ".csv", "make room"),
    "cache": (cache, "cats_dogs_root", ".npy", "cache: none"),
    "features": (features, "tmp_path", ".npy", "--model.cache_features false"),
    "an archive's pictures": (listing, "cats_dogs_zip_root", ".jpg", "set the root"),
    "an archive's batches": (archive, "cifar10_archive_root", "_batch", "set the root"),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_beside_the_data(what: str, request: pytest.FixtureRequest) -> None:
    write, fixture, end, remedy = WRITES[what]
    root: Path = request.getfixturevalue(fixture)
    if what == "cache":  # The list is smaller than the pictures, and is there by now.
        listing(root)
    began = time.monotonic()
    with full_disk(TINY if end == ".jpg" else LIMIT), pytest.raises(InputError) as caught:
        write(root)
    assert time.monotonic() - began < 10
    line = str(caught.value)
    assert f"cannot write {root}" in line
    assert end in line
    assert "File too large" in line
    assert remedy in line
    left = [path for path in root.rglob("*") if ".part" in path.name or ".unpacking" in path.name]
    assert not left
    write(root)


def test_an_exceeded_quota_leaves_the_listing_as_it_was(cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(cats_dogs_root)
    (file,) = cats_dogs_root.rglob("cats_dogs.csv")
    before = file.read_bytes()
    next(cats_dogs_root.rglob("Cat/*.jpg")).unlink()

    class Full(io.FileIO):
        def write(self, content: object, /) -> int:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    own = Path.open

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Full(self, mode) if self.name.endswith(".part") else own(self, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(InputError) as caught:
            listing(cats_dogs_root)
    assert f"cannot write {file}: {os.strerror(errno.EDQUOT)}; make room" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert not list(cats_dogs_root.rglob("*.part"))
    listing(cats_dogs_root)
    assert file.read_bytes() != before


def test_a_full_disk_cuts_no_line_of_the_log_of_tests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in "012":
        log_test(tmp_path, logged(seed=seed))
    file = state_directories(tmp_path)[0] / FILE
    before = file.read_bytes()
    # A few bytes of the next line still have room.
    with full_disk(len(before) + 9):
        log_test(tmp_path, logged(seed="3"))
    assert str(tmp_path) in caplog.text
    assert file.read_bytes() == before
    log_test(tmp_path, logged(seed="4"))
    assert [test.seed for test in read_tests(tmp_path, "abc")] == ["0", "1", "2", "4"]
