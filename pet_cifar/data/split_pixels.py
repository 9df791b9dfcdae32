"""The decoded pictures of all splits, each split opened at its first use and kept where there is room."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.pixels.cache import Shape, open_pixels
from pet_cifar.data.pixels.growing import GrowingPixels, Pixels
from pet_cifar.data.pixels.placement import Cache, Placement, choose_placement, missing_bytes
from pet_cifar.data.root import state_directory
from pet_cifar.hardware import cores
from pet_cifar.names import printable


class SplitPixels:
    """Opens the pixels of each split once.

    Args:
        splits: The pictures of each split.
        read: Decodes one picture to uint8 of ``shape``; it is called from many threads.
        shape: The (channels, height, width) of every picture.
        cache: Where decoded pictures are kept; see `ImageDataModule`.
        root: The data's folder, beside which files are kept.
        device: The device that the net is on.
        num_processes: The processes on this machine, which share its cores and its memory.
    """

    def __init__(
        self,
        splits: Mapping[Split, Sequence[ImageRecord]],
        read: Callable[[ImageRecord], NDArray[np.uint8]],
        shape: Shape,
        *,
        cache: Cache,
        root: Path,
        device: torch.device,
        num_processes: int,
    ) -> None:
        self.splits = splits
        self.read = read
        self.shape = shape
        self.cache = cache
        self.device = device
        self.num_processes = num_processes
        self._directory = state_directory(root)
        self._placement: Placement | None = None if cache == "auto" else cache
        self._opened: dict[Split, Pixels] = {}

    def serves(self, device: torch.device) -> bool:
        """Whether what is opened here is right for a net on ``device``, too."""
        return device == self.device or self.cache not in ("auto", "device")

    def open(self, split: Split) -> Pixels:
        """The pictures of a split by row number; the first call decodes all of them, unless ``cache`` is ``none``."""
        if split not in self._opened:
            self._opened[split] = self._open(split, None)
        return self._opened[split]

    @contextmanager
    def opening(self, split: Split) -> Iterator[Pixels]:
        """Opens a split for one pass over it, in which a net takes each picture as soon as it is decoded."""
        if split in self._opened:
            yield self._opened[split]
            return
        growing = GrowingPixels(len(self.splits[split]), partial(self._open, split))
        try:
            yield growing
        except BaseException:
            growing.stop()
            raise
        if (whole := growing.whole()) is not None:
            self._opened[split] = whole

    def _open(self, split: Split, growing: GrowingPixels | None) -> Pixels:
        records, placement = self.splits[split], self._chosen_placement()
        # Only one process of a machine decodes into the file, so that it may take all cores.
        decoders = self.num_processes if placement in ("none", "ram") else 1
        opened = open_pixels(
            lambda row: self.read(records[row]),
            len(records),
            self.shape,
            placement,
            file=self._file(split),
            device=self.device,
            num_threads=max(1, cores() // decoders),
            growing=growing,
        )
        if self.cache == "device" and self.device.type != "cuda":
            rank_zero_info(f"cache: device is {self.device}'s memory here, for want of a GPU")
        return opened

    def content_key(self, split: Split) -> str:
        """A name for the pixels of a split; other pixels have another name."""
        channels, height, width = self.shape
        hashes = "\n".join(record.hash for record in self.splits[split])
        return f"{split}-{channels}x{height}x{width}-{hashlib.sha256(hashes.encode()).hexdigest()[:20]}"

    def _chosen_placement(self) -> Placement:
        if self._placement is None:
            sizes = {split: len(records) * math.prod(self.shape) for split, records in self.splits.items()}
            missing = sum(missing_bytes(self._file(split), size) for split, size in sizes.items())
            self._placement, why = choose_placement(
                sum(sizes.values()), missing, self._directory, self.device, self.num_processes
            )
            rank_zero_info(f"cache: {self._placement} ({printable(why)})")
        return self._placement

    def _file(self, split: Split) -> Path:
        return self._directory / f"{self.content_key(split)}.npy"
