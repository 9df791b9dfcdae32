"""Batches as a pure function of (seed, epoch, step, rank)."""

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data.augment import RANDOM_NUMBERS
from pet_cifar.data.pixels.cache import Pixels
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

ORDER, AUGMENT, STEP, SIDE = range(4)
"""Purposes of random numbers, each with a stream of its own."""


class Batch(NamedTuple):
    """What one process computes in one step.

    Attributes:
        image: uint8 as loaded; on the device, floats in [0, 1]; shape (B, C, H, W). Or, with ``features``, a frozen
            split's features, float16, shape (B, ...).
        label: class numbers, int64, shape (B,).
        row: which picture of its split each is, int64, shape (B,).
        uniform: random numbers for augmentation, float32 in [0, 1), shape (B, `RANDOM_NUMBERS`).
        seed: for everything else that is random in this step, such as dropout.
        features: whether a frozen part has already seen the pictures.
    """

    image: Tensor
    label: Tensor
    row: Tensor
    uniform: Tensor
    seed: int
    features: bool = False


def check_batch_size(batch_size: int) -> None:
    """Refuses batches without pictures.

    Raises:
        InputError: it is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it is the number of pictures a step, at least 1")


class BatchLoader:
    """Loads the batches of one process; several together see exactly what one process would.

    Training batches are shuffled anew each epoch and the incomplete last one is left out. Evaluation batches keep
    the order, leave nothing out and repeat nothing; the numbers of batches of all processes are equal, their sizes
    differ by at most one.

    Args:
        pixels: where the pictures, or their features, come from.
        labels: class numbers of all pictures, shape (n,).
        batch_size: pictures a process and step.
        shuffle: True for training.
        seed: of the order and of all random numbers.
        epoch: asked at the start of every epoch for its number.
        rank: of this process.
        world_size: number of processes.
        num_workers: batches prepared ahead, in threads; 0 prepares each when it is asked for.
        views: how many views of all pictures ``pixels`` holds, one below the other; epochs use them in turn.
        features: whether ``pixels`` holds a frozen part's features.
        alternate: whether a picture's first random number changes sides of one half from epoch to epoch, starting on
            a random one: what `Augment` asks for an alternating flip.
        pin: whether batches are put into page-locked memory, from which a GPU can fetch them while it computes.
        trained: asked, when the state is saved, how many batches of the epoch were trained on: one that was handed
            out and then interrupted comes again.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: NDArray[np.int64],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        views: int = 1,
        features: bool = False,
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
        self.pixels = pixels
        self.labels = labels
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.views = views
        self.features = features
        self.sides = self._generator(SIDE, 0).random(len(labels)) < 0.5 if alternate else None
        self.pin = pin
        self.trained = trained
        self.batch_size = batch_size
        if shuffle and batch_size > len(labels) // world_size:
            # a set smaller than one batch is one batch
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

    def __len__(self) -> int:
        if self.shuffle:
            return len(self.labels) // (self.batch_size * self.world_size)
        most = -(-len(self.labels) // self.world_size)
        return -(-most // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch()
        start, self._resume_step = self._resume_step, 0
        places = self._places(epoch)
        steps = range(start, len(self))
        for step, batch in zip(steps, self._prefetch(lambda step: self.load(epoch, step, places), steps), strict=True):
            self._step = step + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of the current epoch are done."""
        return {"step": int(min(self._step, self.trained()))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch goes on after that many batches; a finished one starts anew."""
        self._step = self._resume_step = state["step"] % len(self)

    def load(self, epoch: int, step: int, places: NDArray[np.int64] | None = None) -> Batch:
        """The batch of one epoch and step, whatever was loaded before; ``places`` only saves shuffling again."""
        places = self._places(epoch) if places is None else places
        if self.shuffle:
            global_size = self.batch_size * self.world_size
            mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
            rows = places[step * global_size : (step + 1) * global_size][mine]
            # drawn for all processes and then divided, so that a picture's numbers do not depend on their number
            uniform = self._generator(AUGMENT, epoch, step).random((global_size, RANDOM_NUMBERS), np.float32)[mine]
            if self.sides is not None:
                uniform[:, 0] = np.where(self.sides[rows] ^ bool(epoch % 2), 0.25, 0.75)
        else:
            rows = np.array_split(places[self.rank :: self.world_size], len(self))[step]
            uniform = np.zeros((len(rows), RANDOM_NUMBERS), np.float32)
        image = self.pixels.take(rows + epoch % self.views * len(self.labels))
        numbers = [torch.from_numpy(one) for one in (self.labels[rows], rows, uniform)]
        if self.pin:
            image = image if image.is_cuda else image.pin_memory()
            numbers = [one.pin_memory() for one in numbers]
        label, row, uniforms = numbers
        return Batch(
            image=image,
            label=label,
            row=row,
            uniform=uniforms,
            seed=int(self._generator(STEP, epoch, step, self.rank).integers(2**63)),
            features=self.features,
        )

    def _places(self, epoch: int) -> NDArray[np.int64]:
        count = len(self.labels)
        return self._generator(ORDER, epoch).permutation(count) if self.shuffle else np.arange(count)

    def _generator(self, purpose: int, epoch: int, step: int = 0, rank: int = 0) -> np.random.Generator:
        # of fixed length: numpy takes [1, 2] and [1, 2, 0] for the same seed
        return np.random.default_rng([self.seed, purpose, epoch, step, rank])

    def _prefetch(self, load: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
        if not self.num_workers:
            yield from map(load, steps)
            return
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="batch") as pool:
            waiting: list[Future[Batch]] = []
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
