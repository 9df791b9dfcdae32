"""The features of a net's frozen layers, computed once and kept as memory-mapped float16."""

import hashlib
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pet_cifar.data.files.locking import locked
from pet_cifar.data.pixels.feature_files import NO_FEATURES, FeatureFile, StoredFeatures
from pet_cifar.errors import InputError, disk_errors

log = logging.getLogger(__name__)

RECENT = 600
"""Seconds for which features are not removed, since another run may be computing them."""
FORMAT = 1
"""This number changes when features of the same key would be other ones."""

AHEAD = 2
"""Chunks whose pictures are loaded while those before them are computed."""
BEHIND = 4
"""Chunks whose features may wait for the disk while the next ones are computed."""

Load = Callable[[NDArray[np.int64], int], Tensor]
Prepare = Callable[[Tensor, NDArray[np.int64], int], Tensor]


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


def store_features(
    extractor: FeatureExtractor,
    load: Load,
    count: int,
    keys: Sequence[str],
    *,
    directory: Path,
    split: str,
    batch_size: int,
    prepare: Prepare = lambda pictures, rows, place: pictures,
    in_use: Iterable[Path] = (),
    planned: int | None = None,
) -> StoredFeatures:
    """Computes what is not there yet, and opens the features.

    Several processes and runs share the work, and what was done before a stop is not done again.

    Args:
        extractor: Computes the features, and names what they depend on.
        load: Loads pictures by row numbers and the place of a view in ``keys``, shape (n, C, H, W). It is called from
            a thread of its own, so that pictures are read and decoded while those before them are computed.
        count: The number of pictures.
        keys: What the pictures and the view depend on, one key for each view.
        directory: The folder of all features.
        split: The name of the split, for file names and messages.
        batch_size: The number of pictures that are computed at a time.
        prepare: Makes floats in [0, 1] on the net's device of what ``load`` gives, for the same rows and the same
            place; it is called between the batches, by the thread that computes, so that it takes no core from them.
        in_use: The files of this run, which must not be removed to make room.
        planned: The rows of all splits and views of the run, for which there must be room; None counts these alone.

    Raises:
        InputError: The features take more than ``max_gigabytes`` or than is free, or are too large for float16.
    """
    depends = extractor.key()
    names = [hashlib.sha256(f"{FORMAT} {depends} {key}".encode()).hexdigest()[:24] for key in keys]
    views = [FeatureFile(directory / f"{split}-{name}.npy", count) for name in names]
    shown = f"{count:,} {split} pictures" + (f" in {len(views)} views" if len(views) > 1 else "")
    # One process after the other looks, makes room and takes it.
    with locked(directory / "room", NO_FEATURES, f"room for features in {directory}"):
        new = [view for view in views if not view.is_there()]
        if new:
            first = np.zeros(1, np.int64)
            shape = tuple(_compute(extractor, prepare(load(first, 0), first, 0), 1).shape[1:])
            rows = max(planned or 0, len(views) * count)
            own = {*in_use, *(view.file for view in views)}
            _make_room(directory, rows * int(np.prod(shape)) * 2, extractor.max_gigabytes, own)
        for view in new:
            view.create(shape)
        with disk_errors(directory, NO_FEATURES):
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
        computed = _fill(extractor, load, prepare, views, batch_size, split)
        seconds = time.perf_counter() - start
        log.info("computed features of %d pictures in %.0f s, %.1f a second", computed, seconds, computed / seconds)
    else:
        log.info("features of %s were computed before", shown)
    return StoredFeatures([view.file for view in views], count)


def _fill(
    extractor: FeatureExtractor, load: Load, prepare: Prepare, views: Sequence[FeatureFile], batch_size: int, split: str
) -> int:
    """Computes chunks that no other process computes, then waits for the others; returns the number of its pictures."""
    computed = 0
    total = sum(len(view.rows(chunk)) for view in views for chunk in view.missing())
    bar = tqdm(total=total, desc=f"features of {split} pictures", unit="", disable=None)
    loading: deque[tuple[int, int, FileLock, Future[Tensor]]] = deque()
    writing: deque[Future[int]] = deque()

    def compute() -> None:
        number, chunk, lock, pictures = loading[0]
        image = prepare(pictures.result(), views[number].rows(chunk), number)
        features = _compute(extractor, image, batch_size).numpy()
        loading.popleft()
        writing.append(disk.submit(_write, views[number], chunk, lock, features))
        written(BEHIND)

    def written(behind: int) -> None:
        nonlocal computed
        while len(writing) > behind:
            count = writing.popleft().result()
            computed += count
            bar.update(count)

    # The net waits neither for its pictures nor for the disk, which takes as long as some tenths of a chunk.
    with ThreadPoolExecutor(1, "features") as pool, ThreadPoolExecutor(1, "disk") as disk, bar:
        try:
            for patient in (False, True):
                for number, view in enumerate(views):
                    for chunk in view.missing():
                        lock = view.claim(chunk, waits=patient)
                        if lock is None:
                            continue
                        if view.checksums()[chunk].any():
                            _release(lock)
                            continue
                        loading.append((number, chunk, lock, pool.submit(load, view.rows(chunk), number)))
                        # Whoever waits for another process holds no lock that this one may wait for.
                        if patient or len(loading) > AHEAD:
                            compute()
                while loading:
                    compute()
                written(0)
        finally:
            for *_, lock, _ in loading:
                _release(lock)
    return computed


def _write(view: FeatureFile, chunk: int, lock: FileLock, features: NDArray[np.float16]) -> int:
    """Writes a chunk, lets go of it, and returns the number of its pictures."""
    try:
        view.write(chunk, features)
    finally:
        _release(lock)
    return len(features)


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
        FeatureFile(oldest, 0).remove()
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
