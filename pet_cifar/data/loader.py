"""Batches as a pure function of (seed, epoch, step, rank)."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.augment import RANDOM_NUMBERS
from pet_cifar.data.pixels.cache import DevicePixels
from pet_cifar.data.pixels.feature_files import StoredFeatures
from pet_cifar.data.pixels.growing import Pixels
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

ORDER, AUGMENT, STEP, SIDE = range(4)
"""The purposes of random numbers; each has a stream of its own."""


@dataclass(slots=True)
class Batch:
    """The pictures that one process computes with in one step; ``image, label = batch`` takes the two out of it.

    Attributes:
        image: uint8 as they are loaded; floats in [0, 1] once they are on the device; shape (B, C, H, W).
        label: The class numbers, int64, shape (B,).
        row: The number of each picture in its split, int64, shape (B,).
        uniform: Random numbers for augmentation, float32 in [0, 1), shape (B, `RANDOM_NUMBERS`).
        seed: The seed of everything else that is random in this step, in this process.
        shared_seed: The seed of the step that all processes share.
        first: The place of the first picture in the batch of all processes.
    """

    image: Tensor
    label: Tensor
    row: Tensor
    uniform: Tensor
    seed: int
    shared_seed: int = 0
    first: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        """The pictures and the labels, which is all that most nets ask for."""
        return iter((self.image, self.label))

    def to(self, device: torch.device) -> Self:
        """The batch on a device; a copy from page-locked memory to a GPU does not wait."""
        # Lightning waits on these two kinds of devices as well, where such a copy may come too late.
        free = torch.device(device).type not in ("cpu", "mps")
        return replace(
            self,
            image=self.image.to(device, non_blocking=free),
            label=self.label.to(device, non_blocking=free),
            row=self.row.to(device, non_blocking=free),
            uniform=self.uniform.to(device, non_blocking=free),
        )


class FeatureBatch(NamedTuple):
    """What a net's frozen layers have made of the pictures of one step; these layers need not run again.

    Attributes:
        features: The output of the frozen layers, float16, shape (B, ...).
        label: The class numbers, int64, shape (B,).
        row: The number of each picture in its split, int64, shape (B,).
        seed: The seed of everything that is random in this step, in this process.
        shared_seed: The seed of the step that all processes share.
        first: The place of the first picture in the batch of all processes.
    """

    features: Tensor
    label: Tensor
    row: Tensor
    seed: int
    shared_seed: int = 0
    first: int = 0


def check_batch_size(batch_size: int) -> None:
    """Refuses batches without pictures.

    Raises:
        InputError: The size is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it is the number of pictures a step, at least 1")


def pictures_a_step(batch_size: int, count: int, processes: int) -> int:
    """How many training pictures all processes take together in a step; a split smaller than that is one step.

    Args:
        batch_size: The number of pictures for each process and step.
        count: The number of training pictures.
        processes: The number of processes.
    """
    return min(batch_size, count // processes) * processes


class BatchLoader:
    """Loads the batches of one process; several processes together see exactly what one process would.

    Training batches are shuffled anew in each epoch, and the incomplete last one is left out. Evaluation batches keep
    the order, leave nothing out and repeat nothing; all processes have the same number of batches, whose sizes differ
    by at most one.

    Args:
        source: Gives the pictures or, where it is `StoredFeatures`, the features by row number.
        labels: The class numbers of all pictures, shape (n,).
        batch_size: The number of pictures for each process and step.
        shuffle: True for training.
        seed: Decides the order and all random numbers.
        epoch: Is asked for the epoch's number at the start of every epoch.
        rank: The number of this process.
        world_size: The number of processes.
        num_workers: How many batches are prepared ahead, in threads; with 0 each is prepared when it is asked for.
        alternate: Moves a picture's first random number to the other side of one half in every epoch, beginning on a
            random side: this is what `Augment` asks for an alternating flip.
        pin: Puts batches into page-locked memory, from which a GPU can fetch them while it computes.
        trained: Is asked, when the state is saved, how many batches of the epoch were trained on, so that a batch
            that was handed out and then interrupted comes again.
    """

    def __init__(
        self,
        source: Pixels | StoredFeatures,
        labels: NDArray[np.int64],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        alternate: bool = False,
        pin: bool = False,
        trained: Callable[[], float] = lambda: math.inf,
    ) -> None:
        check_batch_size(batch_size)
        if len(labels) < world_size:
            raise InputError(f"{len(labels)} pictures cannot be shared by {world_size} processes; use fewer processes")
        if not shuffle and batch_size == 1 and len(labels) % world_size:
            raise InputError(
                f"{len(labels)} pictures in batches of 1 do not go evenly into {world_size} processes; "
                "give a batch_size of 2 or more"
            )
        self.source = source
        self.labels = labels
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.sides = self._generator(SIDE, 0).random(len(labels)) < 0.5 if alternate else None
        self.pin = pin
        self.trained = trained
        self.batch_size = batch_size
        if shuffle and batch_size > len(labels) // world_size:
            # A split that is smaller than one batch is one batch.
            self.batch_size = len(labels) // world_size
            if rank == 0:
                log.warning(
                    "batch_size is %d: an epoch is one step of all %d training pictures, which must fit into memory "
                    "together; a smaller --data.batch_size makes more steps",
                    batch_size,
                    len(labels),
                )
        self._step = 0
        self._resume_step = 0

    @property
    def pictures_a_step(self) -> int:
        """How many pictures all processes take together in a step."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        if self.shuffle:
            return len(self.labels) // self.pictures_a_step
        most = -(-len(self.labels) // self.world_size)
        return -(-most // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch()
        start, self._resume_step = self._resume_step, 0
        places = self._places(epoch)
        steps = range(start, len(self))
        for step, batch in zip(steps, self._prefetch(lambda step: self.load(epoch, step, places), steps), strict=True):
            self._step = step + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Tells how many batches of the current epoch are done."""
        return {"step": int(min(self._step, self.trained()))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next epoch go on after that many batches; a finished epoch starts anew."""
        self._step = self._resume_step = state["step"] % len(self)

    def load(self, epoch: int, step: int, places: NDArray[np.int64] | None = None) -> Any:
        """The batch of one epoch and step, whatever was loaded before.

        Args:
            epoch: The number of the epoch.
            step: The number of the step in the epoch.
            places: The order of the epoch, where it is known; it only saves shuffling again.

        Returns:
            A `Batch`, or a `FeatureBatch` where the source holds features.
        """
        places = self._places(epoch) if places is None else places
        if self.shuffle:
            global_size = self.pictures_a_step
            mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
            rows = places[step * global_size : (step + 1) * global_size][mine]
            # They are drawn for all processes and then divided, so that a picture's numbers do not depend on the
            # number of processes.
            uniform = self._generator(AUGMENT, epoch, step).random((global_size, RANDOM_NUMBERS), np.float32)[mine]
            if self.sides is not None:
                uniform[:, 0] = np.where(self.sides[rows] ^ bool(epoch % 2), 0.25, 0.75)
        else:
            rows = np.array_split(places[self.rank :: self.world_size], len(self))[step]
            uniform = np.zeros((len(rows), RANDOM_NUMBERS), np.float32)
        shared = int(self._generator(STEP, epoch, step).integers(2**63))
        seed = int(self._generator(STEP, epoch, step, self.rank).integers(2**63)) if self.rank else shared
        numbers = (seed, shared, self.rank * self.batch_size)
        label, row = self._pinned(torch.from_numpy(self.labels[rows])), self._pinned(torch.from_numpy(rows))
        if isinstance(self.source, StoredFeatures):
            # The views of all pictures stand one below the other, and the epochs use them in turn.
            view = epoch % len(self.source.files)
            return FeatureBatch(self._pinned(self.source.take(rows + view * len(self.labels))), label, row, *numbers)
        image = self._pinned(self.source.take(rows))
        return Batch(image, label, row, self._pinned(torch.from_numpy(uniform)), *numbers)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.pin and not tensor.is_cuda else tensor

    def _places(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.labels)
        return self._generator(ORDER, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _generator(self, purpose: int, epoch: int, step: int = 0, rank: int = 0) -> np.random.Generator:
        # The list has a fixed length, since numpy takes [1, 2] and [1, 2, 0] for the same seed.
        return np.random.default_rng([self.seed, purpose, epoch, step, rank])

    def _prefetch(self, load: Callable[[int], Any], steps: range) -> Iterator[Any]:
        if not self.num_workers:
            yield from map(load, steps)
            return
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="batch") as pool:
            waiting: list[Future[Any]] = []
            try:
                for step in steps:
                    waiting.append(pool.submit(load, step))
                    if len(waiting) > self.num_workers:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


def loader_of_run(
    trainer: Trainer | None,
    source: Pixels | StoredFeatures,
    labels: NDArray[np.int64],
    batch_size: int,
    *,
    shuffle: bool,
    num_workers: int,
    alternate: bool,
) -> BatchLoader:
    """The loader of a split, which takes seed, epoch and processes from the trainer.

    Args:
        trainer: The trainer; None stands for one process at its first epoch.
        source: See `BatchLoader`, as for all others.
        labels: The class numbers of all pictures, shape (n,).
        batch_size: The number of pictures for each process and step.
        shuffle: True for training.
        num_workers: How many batches are prepared ahead, where this is work for a thread.
        alternate: Whether pictures are mirrored in every second epoch.
    """

    def trained() -> float:
        # Lightning counts a batch as processed once it is trained on, before its callbacks have seen it.
        return math.inf if trainer is None else vars(trainer.fit_loop.epoch_loop.batch_progress.current)["processed"]

    return BatchLoader(
        source,
        labels,
        batch_size,
        shuffle=shuffle,
        seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
        epoch=(lambda: trainer.current_epoch) if trainer else (lambda: 0),
        rank=trainer.global_rank if trainer else 0,
        world_size=trainer.world_size if trainer else 1,
        # Pictures that are on the device are picked there, which is no work for a thread.
        num_workers=0 if isinstance(source, DevicePixels) else num_workers,
        pin=trainer is not None and trainer.strategy.root_device.type == "cuda",
        alternate=alternate,
        trained=trained,
    )
