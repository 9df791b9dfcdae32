"""A frozen part's features, computed once and kept as memory-mapped float16."""

import hashlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pet_cifar.data.pixels.memmap import MappedArray
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

CHUNK = 32
"""Pictures computed and marked as done together: what is lost when the computing is killed."""
RECENT = 600
"""Seconds for which features that another run may be computing are not removed."""
FORMAT = 1
"""Changes when features of the same key would be other ones."""

Load = Callable[[NDArray[np.int64], int], Tensor]


class Extractor(NamedTuple):
    """What a net says of its frozen part.

    Attributes:
        compute: features, for floats in [0, 1] of shape (B, C, H, W), both on the net's device.
        key: everything but the pictures that the features depend on.
        views: how many augmented views of every training picture are kept, where pictures are augmented.
        max_gigabytes: that all features kept beside the data may take, in 10^9 bytes.
    """

    compute: Callable[[Tensor], Tensor]
    key: str
    views: int
    max_gigabytes: float


class _View:
    """Features of one view of all pictures: an array in a file, and beside it a byte for each chunk, 1 when done."""

    def __init__(self, file: Path, count: int) -> None:
        self.file = file
        self.done = file.with_suffix(".done")
        self.count = count
        self.chunks = -(-count // CHUNK)

    def is_there(self) -> bool:
        """Whether both files are, and whole."""
        if not (self.file.exists() and self.done.exists()):
            return False
        try:
            whole = np.load(self.file, mmap_mode="r")
        except (ValueError, EOFError):  # but no other: files that cannot be opened just now may be good
            whole = np.empty(0)
        return len(whole) == self.count and whole.dtype == np.float16 and self.done.stat().st_size == self.chunks

    def create(self, shape: tuple[int, ...]) -> None:
        """Makes the files in their full size, so that others see what is taken."""
        self.remove()
        np.lib.format.open_memmap(self.file, "w+", np.float16, (self.count, *shape))
        self.done.write_bytes(bytes(self.chunks))

    def remove(self) -> None:
        """Removes both; who has them open reads on."""
        self.done.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def missing(self) -> list[int]:
        """The chunks that are not done."""
        return [chunk for chunk, mark in enumerate(self.done.read_bytes()) if not mark]

    def rows(self, chunk: int) -> NDArray[np.int64]:
        """Row numbers of a chunk."""
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count))

    def write(self, chunk: int, features: NDArray[np.float16]) -> None:
        """Writes one chunk and marks it as done."""
        size = features[0].nbytes
        with self.file.open("r+b") as stream:
            stream.seek(-self.count * size + chunk * CHUNK * size, os.SEEK_END)
            stream.write(features.tobytes())
            # marked only when it is on the disk
            stream.flush()
            os.fsync(stream.fileno())
        with self.done.open("r+b") as stream:
            stream.seek(chunk)
            stream.write(b"\1")

    def lock(self, chunk: int) -> FileLock:
        """What the process that computes a chunk holds."""
        return FileLock(self.file.with_suffix(f".{chunk}.lock"))


class StoredFeatures:
    """Features by row number; those of several views stand one below the other.

    Args:
        files: one for each view.
        count: pictures.
    """

    def __init__(self, files: Sequence[Path], count: int) -> None:
        self.files = tuple(files)
        self.count = count
        self._views = [MappedArray(file) for file in files]

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows: float16, shape (len(rows), ...)."""
        places = [divmod(row, self.count) for row in rows.tolist()]
        found = np.stack([self._views[view].array[row] for view, row in places])
        for view in {view for view, _ in places}:
            self._views[view].give_back()
        return torch.from_numpy(found)


def store_features(
    extractor: Extractor,
    load: Load,
    count: int,
    keys: Sequence[str],
    *,
    directory: Path,
    split: str,
    batch_size: int,
    in_use: Iterable[Path] = (),
    planned: int | None = None,
) -> StoredFeatures:
    """Computes what is not there yet, and opens the features.

    Several processes and runs share the work, and what was done before a stop is not done again.

    Args:
        extractor: computes, and names what it depends on.
        load: floats in [0, 1] on the net's device, shape (n, C, H, W), by row numbers and place of a view in ``keys``.
        count: pictures.
        keys: what the pictures and the view depend on, one for each view.
        directory: of all features.
        split: for names and messages.
        batch_size: pictures computed at a time.
        in_use: features of this run, which must not be removed to make room.
        planned: rows of all the run's parts and views together, for which there must be room; null for these alone.

    Raises:
        InputError: they take more than ``max_gigabytes`` or than is free, or are too large for float16.
    """
    names = [hashlib.sha256(f"{FORMAT} {extractor.key} {key}".encode()).hexdigest()[:24] for key in keys]
    views = [_View(directory / f"{split}-{name}.npy", count) for name in names]
    shown = f"{count:,} {split} pictures" + (f" in {len(views)} views" if len(views) > 1 else "")
    directory.mkdir(parents=True, exist_ok=True)
    # one process after the other looks, makes room and takes it
    with FileLock(directory / "room.lock"):
        new = [view for view in views if not view.is_there()]
        if new:
            shape = tuple(_compute(extractor, load(np.zeros(1, np.int64), 0), 1).shape[1:])
            rows = max(planned or 0, len(views) * count)
            own = {*in_use, *(view.file for view in views)}
            _make_room(directory, rows * int(np.prod(shape)) * 2, extractor.max_gigabytes, own)
        for view in new:
            view.create(shape)
        for view in views:  # what was used last is removed last
            view.done.touch()
    missing = sum(len(view.rows(chunk)) for view in views for chunk in view.missing())
    if missing:
        whole = np.load(views[0].file, mmap_mode="r")
        log.info(
            "computing features of %s once: %s numbers each, %s in all; %s of %s are there",
            *(shown, " x ".join(map(str, whole.shape[1:])), _size(len(views) * whole.nbytes)),
            *(f"{len(views) * count - missing:,}", f"{len(views) * count:,}"),
        )
        start = time.perf_counter()
        computed = _fill(extractor, load, views, batch_size, split)
        seconds = time.perf_counter() - start
        log.info("computed features of %d pictures in %.0f s, %.1f a second", computed, seconds, computed / seconds)
    else:
        log.info("features of %s were computed before", shown)
    return StoredFeatures([view.file for view in views], count)


def _fill(extractor: Extractor, load: Load, views: Sequence[_View], batch_size: int, split: str) -> int:
    """Computes chunks that no other process computes, then waits for those that one does; how many pictures."""
    computed = 0
    total = sum(len(view.rows(chunk)) for view in views for chunk in view.missing())
    bar = tqdm(total=total, desc=f"features of {split} pictures", unit="", disable=None)
    claimed: deque[tuple[_View, int, FileLock, Future[Tensor]]] = deque()

    def finish() -> int:
        view, chunk, lock, loading = claimed[0]
        features = _compute(extractor, loading.result(), batch_size)
        view.write(chunk, features.numpy())
        claimed.popleft()
        _release(lock)
        bar.update(len(features))
        return len(features)

    with ThreadPoolExecutor(1, thread_name_prefix="features") as pool, bar:
        try:
            for patient in (False, True):
                for number, view in enumerate(views):
                    for chunk in view.missing():
                        lock = view.lock(chunk)
                        try:
                            lock.acquire(blocking=patient)
                        except Timeout:
                            continue
                        if view.done.read_bytes()[chunk]:
                            _release(lock)
                            continue
                        claimed.append((view, chunk, lock, pool.submit(load, view.rows(chunk), number)))
                        # pictures are decoded while those before them are computed
                        if patient or len(claimed) > 1:
                            computed += finish()
                while claimed:
                    computed += finish()
        finally:
            for _, _, lock, _ in claimed:
                _release(lock)
    return computed


def _release(lock: FileLock) -> None:
    # who waits for it looks at the mark again, so it may go
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _compute(extractor: Extractor, image: Tensor, batch_size: int) -> Tensor:
    features = torch.cat([extractor.compute(some).cpu() for some in torch.split(image, batch_size)])
    stored = features.to(torch.float16)
    if not stored.isfinite().all():
        worst = features.abs().max().item()
        raise InputError(
            f"the frozen part's features reach {worst:.3g} and do not fit float16; freeze until another block, or give "
            "--model.cache_features false"
        )
    return stored


def _make_room(directory: Path, needed: int, max_gigabytes: float, own: set[Path]) -> None:
    """Removes the features that were not used for longest, until ``needed`` bytes for this run's fit."""
    sizes = {file: file.stat().st_size for file in directory.glob("*.npy")}
    # one that is just being removed or made has no mark
    ages = {file: time.time() - _changed(file.with_suffix(".done")) for file in sizes}
    others = sizes.keys() - own
    # another run may be computing what has just changed
    removable = sorted((file for file in others if ages[file] > RECENT), key=ages.__getitem__)
    busy = sum(sizes[file] for file in others - set(removable))
    limit = max_gigabytes * 1e9 - needed - busy
    if limit < 0:
        raise InputError(
            f"the frozen part's features of all pictures take {_size(needed)} in {directory}"
            + (f", others that were used within {RECENT // 60} minutes {_size(busy)}" if busy else "")
            + f", and max_cache_gigabytes is {max_gigabytes:g}; raise it, freeze more blocks, keep fewer "
            "feature_views, or give --model.cache_features false"
        )
    while sum(sizes[file] for file in removable) > limit:
        oldest = removable.pop()
        log.info("removing features that were not used for longest: %s, %s", oldest, _size(sizes[oldest]))
        _View(oldest, 0).remove()
    free = shutil.disk_usage(directory).free
    # of files in their full size only what is written takes room
    missing = needed - sum(sizes[file] for file in own & sizes.keys())
    if free < 1.05 * missing:
        raise InputError(
            f"the frozen part's features need {_size(missing)} more in {directory} and {_size(free)} are free; make "
            "room, or give --model.cache_features false"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def _changed(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else time.time()
