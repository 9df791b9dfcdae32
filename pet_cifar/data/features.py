"""A frozen part's features, computed once and kept as memory-mapped float16."""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

CHUNK = 32
"""Pictures in one file: what is lost when the computing is stopped."""
RECENT = 600
"""Seconds for which features that another run may be computing are not removed."""
FORMAT = 1
"""Changes when features of the same key would be other ones."""

Load = Callable[[NDArray[np.int64], int], Tensor]
Chunk = tuple[Path, NDArray[np.int64], int]


class Extractor(NamedTuple):
    """What a net says of its frozen part.

    Attributes:
        compute: features, for floats in [0, 1] of shape (B, C, H, W), both on the net's device.
        key: everything but the pictures that the features depend on.
        views: how many views of every training picture are kept: the picture itself, then augmented ones.
        max_gigabytes: that all features kept beside the data may take, in 10^9 bytes.
    """

    compute: Callable[[Tensor], Tensor]
    key: str
    views: int
    max_gigabytes: float


class StoredFeatures:
    """Features by row number; those of several views stand one below the other."""

    def __init__(self, directories: Sequence[Path], count: int) -> None:
        self.directories = tuple(directories)
        self.count = count
        # opened all at once: a file that is removed later stays readable
        self._arrays = [[np.load(file, mmap_mode="r") for file, _, _ in _chunks([one], count)] for one in directories]

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Copies these rows: float16, shape (len(rows), ...)."""
        places = [divmod(row, self.count) for row in rows.tolist()]
        return torch.from_numpy(np.stack([self._arrays[view][row // CHUNK][row % CHUNK] for view, row in places]))


def store_features(
    extractor: Extractor,
    load: Load,
    count: int,
    keys: Sequence[str],
    *,
    directory: Path,
    part: str,
    batch_size: int,
    in_use: Iterable[Path] = (),
) -> StoredFeatures:
    """Computes what is not there yet, and opens the features.

    Several processes and runs share the work, and what was done before a stop is not done again.

    Args:
        extractor: computes, and names what it depends on.
        load: floats in [0, 1] on the net's device, shape (n, C, H, W), by row numbers and number of a view.
        count: pictures.
        keys: what the pictures and the view depend on, one for each view.
        directory: of all features.
        part: for names and messages.
        batch_size: pictures computed at a time.
        in_use: features that must not be removed to make room.

    Raises:
        InputError: they take more than ``max_gigabytes`` or than is free, or are too large for float16.
    """
    names = [hashlib.sha256(f"{FORMAT} {extractor.key} {key}".encode()).hexdigest()[:24] for key in keys]
    views = [directory / f"{part}-{name}" for name in names]
    missing = [one for one in _chunks(views, count) if not _is_whole(one[0])]
    shown = f"{count:,} {part} pictures" + (f" in {len(views)} views" if len(views) > 1 else "")
    if missing:
        shape = _compute(extractor, load(np.zeros(1, np.int64), 0), 1).shape[1:]
        needed = len(views) * count * int(np.prod(shape)) * 2
        _make_room(directory, needed, extractor.max_gigabytes, set(views), set(in_use))
        numbers = " x ".join(map(str, shape))
        log.info("computing features of %s once: %s numbers each, %.3g GB in all", shown, numbers, needed / 1e9)
        for view in views:
            view.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        computed = _fill(extractor, load, missing, batch_size, part)
        seconds = time.perf_counter() - start
        log.info("computed features of %d pictures in %.0f s, %.1f a second", computed, seconds, computed / seconds)
    else:
        log.info("features of %s were computed before", shown)
    for view in views:  # what was used last is removed last
        view.touch()
    return StoredFeatures(views, count)


def _fill(extractor: Extractor, load: Load, missing: Sequence[Chunk], batch_size: int, part: str) -> int:
    """Computes chunks that no other process computes, then waits for those that one does; how many pictures."""
    computed = 0
    bar = tqdm(total=sum(len(rows) for _, rows, _ in missing), desc=f"features of {part} pictures", disable=None)
    with ThreadPoolExecutor(1, thread_name_prefix="features") as pool, bar:
        for patient in (False, True):
            todo = [chunk for chunk in missing if not chunk[0].exists()]
            # pictures are decoded while those before them are computed
            ahead = [pool.submit(load, rows, view) for _, rows, view in todo[:1]]
            for place, (file, rows, _) in enumerate(todo):
                image = ahead.pop().result()
                ahead += [pool.submit(load, rows, view) for _, rows, view in todo[place + 1 : place + 2]]
                lock = FileLock(file.with_suffix(".lock"))
                try:
                    lock.acquire(blocking=patient)
                except Timeout:
                    continue
                try:
                    if not file.exists():
                        features = _compute(extractor, image, batch_size)
                        _save(features, file)
                        computed += len(rows)
                    file.with_suffix(".lock").unlink(missing_ok=True)
                finally:
                    lock.release()
                bar.update(len(rows))
    return computed


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


def _save(features: Tensor, file: Path) -> None:
    # moved into place when complete: a stop leaves no half of it
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.save(stream, features.numpy())
    part.replace(file)


def _chunks(views: Sequence[Path], count: int) -> Iterator[Chunk]:
    """File, row numbers and number of the view of each chunk."""
    for number, view in enumerate(views):
        for first in range(0, count, CHUNK):
            yield view / f"{first // CHUNK:05}.npy", np.arange(first, min(first + CHUNK, count)), number


def _is_whole(file: Path) -> bool:
    """Whether it is there; what a crash of the machine left damaged is removed."""
    try:
        np.load(file, mmap_mode="r")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, EOFError):
        file.unlink()
        return False
    return True


def _make_room(directory: Path, needed: int, max_gigabytes: float, views: set[Path], in_use: set[Path]) -> None:
    """Removes the features that were not used for longest, until ``needed`` bytes for the ``views`` fit."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = {one: _size(one) for one in directory.iterdir() if one.is_dir()}
    ages = {one: time.time() - one.stat().st_mtime for one in sizes}
    others = sizes.keys() - views
    # another run may be computing what has just changed
    removable = sorted((one for one in others - in_use if ages[one] > RECENT), key=ages.__getitem__)
    limit = max_gigabytes * 1e9 - needed - sum(sizes[one] for one in others - set(removable))
    if limit < 0:
        raise InputError(
            f"the frozen part's features take {needed / 1e9:.3g} GB in {directory}, and max_cache_gigabytes is "
            f"{max_gigabytes:g}; raise it, freeze more blocks, keep fewer feature_views, or give "
            "--model.cache_features false"
        )
    while sum(sizes[one] for one in removable) > limit:
        oldest = removable.pop()
        log.info("removing features that were not used for longest: %s, %.3g GB", oldest, sizes[oldest] / 1e9)
        shutil.rmtree(oldest)
    free = shutil.disk_usage(directory).free
    if free < 1.05 * (needed - sum(sizes.get(one, 0) for one in views)):
        raise InputError(
            f"the frozen part's features need {needed / 1e9:.3g} GB in {directory} and {free / 1e9:.3g} GB are free; "
            "make room, or give --model.cache_features false"
        )


def _size(directory: Path) -> int:
    total = 0
    for file in directory.iterdir():
        with suppress(FileNotFoundError):  # another process has just given it its final name
            total += file.stat().st_size
    return total
