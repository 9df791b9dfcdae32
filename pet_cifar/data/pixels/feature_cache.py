"""The features of a net's frozen layers, computed once and kept as memory-mapped float16."""

import hashlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pet_cifar.data.files.locking import locked, wait_for
from pet_cifar.data.pixels.checksum import SIZE, checksum
from pet_cifar.data.pixels.memmap import MemmapArray
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

CHUNK = 32
"""Pictures that are computed and marked as done together; a killed run loses at most these."""
RECENT = 600
"""Seconds for which features are not removed, since another run may be computing them."""
FORMAT = 1
"""This number changes when features of the same key would be other ones."""

Load = Callable[[NDArray[np.int64], int], Tensor]


class FeatureExtractor(NamedTuple):
    """What a net hands over to have the features of its frozen layers kept.

    Attributes:
        compute: Computes features for floats in [0, 1] of shape (B, C, H, W), both on the net's device.
        key: Names all that the features depend on, but the pictures; it is asked when the features are needed, after
            a checkpoint has brought its weights.
        views: How many augmented views of every training picture are kept, where pictures are augmented.
        max_gigabytes: What all features kept beside the data may take, in 10^9 bytes.
    """

    compute: Callable[[Tensor], Tensor]
    key: Callable[[], str]
    views: int
    max_gigabytes: float


class _View:
    """The features of one view of all pictures: an array in a file, and beside it a checksum of each chunk.

    The checksum is zero until the chunk is done.
    """

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
        except (ValueError, EOFError):  # no other error, since files that cannot be opened just now may be good
            whole = np.empty(0)
        return len(whole) == self.count and whole.dtype == np.float16 and self.done.stat().st_size == SIZE * self.chunks

    def create(self, shape: tuple[int, ...]) -> None:
        """Makes the files in their full size, so that other runs see what is taken."""
        self.remove()
        np.lib.format.open_memmap(self.file, "w+", np.float16, (self.count, *shape))
        self.done.write_bytes(bytes(SIZE * self.chunks))

    def remove(self) -> None:
        """Removes both files; a run that has them open reads on."""
        self.done.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def missing(self) -> list[int]:
        """Lists the chunks that are not done."""
        return np.flatnonzero(~self.checksums().any(axis=1)).tolist()

    def checksums(self) -> NDArray[np.uint8]:
        """The checksums of all chunks, shape (chunks, 8)."""
        return np.frombuffer(self.done.read_bytes(), np.uint8).reshape(-1, SIZE)

    def rows(self, chunk: int) -> NDArray[np.int64]:
        """Row numbers of a chunk."""
        return np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, self.count))

    def write(self, chunk: int, features: NDArray[np.float16]) -> None:
        """Writes one chunk and marks it as done."""
        size = features[0].nbytes
        with self.file.open("r+b") as stream:
            stream.seek(-self.count * size + chunk * CHUNK * size, os.SEEK_END)
            content = features.tobytes()
            stream.write(content)
            # The chunk is marked only when it is on the disk.
            stream.flush()
            os.fsync(stream.fileno())
        with self.done.open("r+b") as stream:
            stream.seek(SIZE * chunk)
            stream.write(checksum(content))

    def lock(self, chunk: int) -> FileLock:
        """The lock that the process holds which computes a chunk."""
        return FileLock(self.file.with_suffix(f".{chunk}.lock"))


class StoredFeatures:
    """Features by row number; those of several views stand one below the other.

    A chunk is compared with its checksum when a row of it is first asked for.

    Args:
        files: One file for each view.
        count: The number of pictures.

    Raises:
        InputError: In ``take``, a chunk is not what was written.
    """

    def __init__(self, files: Sequence[Path], count: int) -> None:
        self.files = tuple(files)
        self.count = count
        self._views = [MemmapArray(file) for file in files]
        self._checksums = [_View(file, count).checksums() for file in files]
        self._checked = np.zeros((len(files), -(-count // CHUNK)), np.bool_)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows: float16, shape (len(rows), ...)."""
        places = [divmod(row, self.count) for row in rows.tolist()]
        for view, chunk in {(view, row // CHUNK) for view, row in places}:
            self._check(view, chunk)
        found = np.stack([self._views[view].array[row] for view, row in places])
        for view in {view for view, _ in places}:
            self._views[view].give_back()
        return torch.from_numpy(found)

    def _check(self, view: int, chunk: int) -> None:
        if self._checked[view, chunk]:
            return
        content = self._views[view].array[chunk * CHUNK : (chunk + 1) * CHUNK]
        if checksum(content.data) != self._checksums[view][chunk].tobytes():
            raise InputError(
                f"{self.files[view]} was changed or damaged: it does not hold the features that were computed; delete "
                "the file, and run again to compute them anew"
            )
        self._checked[view, chunk] = True

    def chunks(self, size: int = 256) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """All rows of all views and their features, ``size`` rows at a time; row modulo ``count`` is the picture."""
        rows = np.arange(len(self.files) * self.count)
        for first in range(0, len(rows), size):
            yield rows[first : first + size], self.take(rows[first : first + size])


def store_features(
    extractor: FeatureExtractor,
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
        extractor: Computes the features, and names what they depend on.
        load: Loads pictures by row numbers and the place of a view in ``keys``: floats in [0, 1] on the net's device,
            shape (n, C, H, W).
        count: The number of pictures.
        keys: What the pictures and the view depend on, one key for each view.
        directory: The folder of all features.
        split: The name of the split, for file names and messages.
        batch_size: The number of pictures that are computed at a time.
        in_use: The files of this run, which must not be removed to make room.
        planned: The rows of all splits and views of the run, for which there must be room; None counts these alone.

    Raises:
        InputError: The features take more than ``max_gigabytes`` or than is free, or are too large for float16.
    """
    depends = extractor.key()
    names = [hashlib.sha256(f"{FORMAT} {depends} {key}".encode()).hexdigest()[:24] for key in keys]
    views = [_View(directory / f"{split}-{name}.npy", count) for name in names]
    shown = f"{count:,} {split} pictures" + (f" in {len(views)} views" if len(views) > 1 else "")
    directory.mkdir(parents=True, exist_ok=True)
    # One process after the other looks, makes room and takes it.
    with locked(directory / "room", what=f"room for features in {directory}"):
        new = [view for view in views if not view.is_there()]
        if new:
            shape = tuple(_compute(extractor, load(np.zeros(1, np.int64), 0), 1).shape[1:])
            rows = max(planned or 0, len(views) * count)
            own = {*in_use, *(view.file for view in views)}
            _make_room(directory, rows * int(np.prod(shape)) * 2, extractor.max_gigabytes, own)
        for view in new:
            view.create(shape)
        for view in views:  # the views that were used last are removed last
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


def _fill(extractor: FeatureExtractor, load: Load, views: Sequence[_View], batch_size: int, split: str) -> int:
    """Computes chunks that no other process computes, then waits for the others; returns the number of its pictures."""
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
                        if patient:
                            wait_for(lock, f"features of {split} pictures, {view.file}")
                        elif not _is_free(lock):
                            continue
                        if view.checksums()[chunk].any():
                            _release(lock)
                            continue
                        claimed.append((view, chunk, lock, pool.submit(load, view.rows(chunk), number)))
                        # Pictures are decoded while those before them are computed.
                        if patient or len(claimed) > 1:
                            computed += finish()
                while claimed:
                    computed += finish()
        finally:
            for _, _, lock, _ in claimed:
                _release(lock)
    return computed


def _is_free(lock: FileLock) -> bool:
    """Takes a lock where no other process holds it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _release(lock: FileLock) -> None:
    # A process that waits for the lock looks at the mark again, so the file may go.
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _compute(extractor: FeatureExtractor, image: Tensor, batch_size: int) -> Tensor:
    features = torch.cat([extractor.compute(some).cpu() for some in torch.split(image, batch_size)])
    stored = features.to(torch.float16)
    if not stored.isfinite().all():
        worst = features.abs().max().item()
        raise InputError(
            f"the features of the frozen layers reach {worst:.3g} and do not fit float16; freeze until another block, "
            "or give --model.cache_features false"
        )
    return stored


def _make_room(directory: Path, needed: int, max_gigabytes: float, own: set[Path]) -> None:
    """Removes the features that were not used for longest, until there is room for this run's ``needed`` bytes."""
    sizes = {file: file.stat().st_size for file in directory.glob("*.npy")}
    # A view that is just being removed or made has no mark.
    ages = {file: time.time() - _changed(file.with_suffix(".done")) for file in sizes}
    others = sizes.keys() - own
    # Another run may be computing what has just changed.
    removable = sorted((file for file in others if ages[file] > RECENT), key=ages.__getitem__)
    busy = sum(sizes[file] for file in others - set(removable))
    limit = max_gigabytes * 1e9 - needed - busy
    if limit < 0:
        raise InputError(
            f"the features of the frozen layers of all pictures take {_size(needed)} in {directory}"
            + (f", others that were used within {RECENT // 60} minutes {_size(busy)}" if busy else "")
            + f", and max_cache_gigabytes is {max_gigabytes:g}; raise it, freeze more blocks, keep fewer "
            "feature_views, or give --model.cache_features false"
        )
    while sum(sizes[file] for file in removable) > limit:
        oldest = removable.pop()
        log.info("removing features that were not used for longest: %s, %s", oldest, _size(sizes[oldest]))
        _View(oldest, 0).remove()
    free = shutil.disk_usage(directory).free
    # Only the written bytes of a file in its full size take room.
    missing = needed - sum(sizes[file] for file in own & sizes.keys())
    if free < 1.05 * missing:
        raise InputError(
            f"the features of the frozen layers need {_size(missing)} more in {directory} and {_size(free)} are free; "
            "make room, or give --model.cache_features false"
        )


def _size(number: float) -> str:
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def _changed(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else time.time()
