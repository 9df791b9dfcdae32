import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.pixels import feature_files
from pet_cifar.data.pixels.feature_cache import RECENT, FeatureExtractor, store_features
from pet_cifar.data.pixels.feature_files import CHUNK, FeatureFile, StoredFeatures
from pet_cifar.errors import InputError
from tests.conftest import set_free_space

COUNT = 3 * CHUNK + 5


class Work:
    """Pictures whose value is their row plus 1,000 for each view, features twice that; counts what is computed."""

    def __init__(self, stop_after: int = COUNT * 10) -> None:
        self.computed = 0
        self.stop_after = stop_after

    def load(self, rows: NDArray[np.int64], view: int) -> Tensor:
        return (torch.from_numpy(rows).float() + 1000 * view).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    def compute(self, image: Tensor) -> Tensor:
        if self.computed >= self.stop_after:
            raise KeyboardInterrupt
        self.computed += len(image)
        return 2 * image[:, :1, 0, 0].expand(-1, 256)

    def store(self, key: str = "net", keys: tuple[str, ...] = ("pixels",), **options: Any) -> StoredFeatures:
        extractor = FeatureExtractor(
            options.pop("compute", self.compute), lambda: key, len(keys), options.pop("gigabytes", 1.0)
        )
        defaults = {"directory": Path("features"), "split": "train", "batch_size": 8}
        return store_features(extractor, self.load, COUNT, keys, **{**defaults, **options})


ROWS = np.array([COUNT - 1, 0, CHUNK, CHUNK - 1, 7])
# One picture is computed beforehand, for the shape.
ALL = COUNT + 1


def test_features_are_found_by_row() -> None:
    found = Work().store().take(ROWS)
    assert found.dtype == torch.float16
    assert found.tolist() == [256 * [2 * row] for row in ROWS]


def test_views_stand_one_below_the_other() -> None:
    found = Work().store(keys=("pixels", "pixels 1")).take(np.array([3, COUNT + 3]))
    assert found[:, 0].tolist() == [6, 2006]


def test_they_are_computed_once() -> None:
    first, second = Work(), Work()
    first.store()
    assert first.computed == ALL
    assert second.store().take(ROWS).tolist() == first.store().take(ROWS).tolist()
    assert second.computed == 0
    assert {file.suffix for file in Path("features").iterdir()} <= {".npy", ".done", ".lock"}
    assert {file.name for file in Path("features").glob("*.lock")} <= {"room.lock"}


def test_another_view_is_computed_alone() -> None:
    Work().store()
    second = Work()
    second.store(keys=("pixels", "pixels 1"))
    assert second.computed == ALL


@pytest.mark.parametrize("other", [{"key": "other net"}, {"keys": ("other pixels",)}])
def test_nothing_stale_is_served(other: dict[str, Any]) -> None:
    Work().store()
    second = Work()
    second.store(**other)
    assert second.computed == ALL


def test_what_was_done_before_a_stop_is_not_done_again() -> None:
    first, second = Work(stop_after=1 + 2 * CHUNK + 8), Work()
    with pytest.raises(KeyboardInterrupt):
        first.store()
    found = second.store().take(np.arange(COUNT))
    assert second.computed == COUNT - 2 * CHUNK
    assert found[:, 0].tolist() == [2 * row for row in range(COUNT)]


@pytest.mark.parametrize("keep", [0, 3, 100, 5000])
def test_a_damaged_file_is_computed_again(keep: int) -> None:
    Work().store()
    (file,) = Path("features").glob("*.npy")
    file.write_bytes(file.read_bytes()[:keep])
    second = Work()
    assert second.store().take(ROWS)[:, 0].tolist() == [2 * row for row in ROWS]
    assert second.computed == ALL


def test_processes_share_the_work() -> None:
    works = [Work(), Work()]

    def slow(work: Work) -> Callable[[Tensor], Tensor]:
        def compute(image: Tensor) -> Tensor:
            time.sleep(0.02)
            return work.compute(image)

        return compute

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda work: work.store(compute=slow(work)), works))
    # The one that came first has also computed one picture beforehand.
    assert sum(work.computed for work in works) == ALL
    assert all(work.computed > 1 for work in works)
    assert found[0].take(ROWS).tolist() == found[1].take(ROWS).tolist()


def test_too_much_is_refused_before_it_is_computed() -> None:
    work = Work()
    with pytest.raises(InputError, match="max_cache_gigabytes is 1e-07; raise it"):
        work.store(gigabytes=1e-7)
    assert work.computed == 1


def age(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file.with_suffix(".done"), (then, then))


def test_what_was_not_used_for_longest_makes_room() -> None:
    files: list[Path] = []
    for number in range(3):
        files += Work().store(key=str(number)).files
        age(files[-1], RECENT + 100 - number)
    age(files[0], RECENT + 10)  # used since
    size = files[0].stat().st_size
    Work().store(key="new", gigabytes=3.5 * size / 1e9)
    assert [file.exists() for file in files] == [True, False, True]


def test_what_may_be_in_use_is_not_removed() -> None:
    other = Work().store(key="of another run, just now").files[0]
    own = Work().store(key="of this run").files[0]
    age(own, RECENT + 10)
    size = own.stat().st_size
    with pytest.raises(InputError, match="max_cache_gigabytes"):
        Work().store(key="new", gigabytes=1.5 * size / 1e9, in_use=[own])
    assert own.exists()
    assert other.exists()
    Work().store(key="new", gigabytes=2.5 * size / 1e9)
    assert not own.exists()


def test_features_stay_readable_when_their_files_are_removed() -> None:
    found = Work().store()
    shutil.rmtree("features")
    assert found.take(ROWS)[:, 0].tolist() == [2 * row for row in ROWS]


def test_a_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_space(monkeypatch, 1)
    with pytest.raises(InputError, match="are free; make room"):
        Work().store()


def test_what_does_not_fit_float16_is_refused() -> None:
    with pytest.raises(InputError, match="reach 1e"):
        Work().store(compute=lambda image: image[:, 0] + 1e6)


def test_a_file_that_cannot_be_opened_just_now_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = Work().store().files

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(feature_files, "MemmapArray", fail)
    with pytest.raises(OSError, match="Too many"):
        Work().store()
    assert file.exists()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists them so")
def test_few_files_are_open_however_many_pictures() -> None:
    before = open_files()
    stored = Work().store(keys=("view 0", "view 1", "view 2"))
    assert open_files() - before <= len(stored.files)


def _make_room_often(trial: int) -> str:
    try:
        Work().store(key=f"new {trial}", directory=Path("features"), gigabytes=2.2 * _payload() / 1e9)
    except InputError as error:
        return str(error)
    return ""


def _payload() -> int:
    return COUNT * 256 * 2


def test_two_runs_make_room_at_once() -> None:
    for number in range(2):
        age(Work().store(key=f"old {number}").files[0], RECENT + 100)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(_make_room_often, range(2)))
    assert found == ["", ""]
    assert sum(file.stat().st_size for file in Path("features").glob("*.npy")) < 2.3 * _payload()
    # What is in use now is not removed for a third.
    assert "others that were used within 10 minutes" in _make_room_often(3)


def test_features_that_were_tampered_with_are_refused() -> None:
    Work().store()
    (file,) = Path("features").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = Work().store()
    found.take(np.arange(CHUNK))
    with pytest.raises(InputError, match=file.name):
        found.take(np.array([COUNT - 1]))


def test_the_net_waits_neither_for_the_disk_nor_for_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    work, written, threads = Work(), FeatureFile.write, dict[str, set[int]]()
    last = threading.Event()

    def slow_write(file: FeatureFile, chunk: int, features: NDArray[np.float16]) -> None:
        # The first chunk is on the disk only when the last one is computed.
        assert last.wait(60)
        threads.setdefault("write", set()).add(threading.get_ident())
        written(file, chunk, features)

    def load(rows: NDArray[np.int64], view: int) -> Tensor:
        threads.setdefault("load", set()).add(threading.get_ident())
        return work.load(rows, view)

    def prepare(pictures: Tensor, rows: NDArray[np.int64], view: int) -> Tensor:
        threads.setdefault("prepare", set()).add(threading.get_ident())
        assert len(rows) == len(pictures)
        return pictures + 1

    def compute(image: Tensor) -> Tensor:
        features = work.compute(image)
        if work.computed == ALL:
            last.set()
        return features

    monkeypatch.setattr(FeatureFile, "write", slow_write)
    extractor = FeatureExtractor(compute, lambda: "net", 1, 1.0)
    options: dict[str, Any] = {"directory": Path("features"), "split": "train", "batch_size": 8}
    found = store_features(extractor, load, COUNT, ["pixels"], prepare=prepare, **options)
    assert found.take(ROWS)[:, 0].tolist() == [2 * (row + 1) for row in ROWS]
    own = threading.get_ident()
    assert threads["prepare"] == {own}
    assert own not in threads["write"]
    # The first picture, which tells the shape, is loaded before there are others to compute.
    assert len(threads["load"] - {own}) == 1


def test_a_disk_that_fails_ends_the_pass_and_holds_no_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(FeatureFile, "write", fail)
        with pytest.raises(OSError, match="Input/output"):
            Work().store()
    assert {file.name for file in Path("features").glob("*.lock")} == {"room.lock"}
    second = Work()
    second.store()
    assert second.computed == COUNT
