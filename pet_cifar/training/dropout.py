"""Dropout whose random numbers belong to the picture, so that any number of processes drops the same values."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASK = 2**64 - 1


class StepNumbers(NamedTuple):
    """Where the random numbers of one step come from.

    Attributes:
        seed: The seed of the step, which all processes share.
        first: The place of this process's first picture in the batch of all processes.
    """

    seed: int
    first: int


class Dropout(nn.Dropout):
    """Drops values at random and scales the others up, as torch's own does (Srivastava et al., JMLR 15, 2014).

    On the CPU torch draws a number of 32 bits for every value, in one thread: a third of the plain CIFAR net's step.
    Here four values share one number of 64 bits, so that ``p`` is a multiple of 1 / 65,536.

    Within a step of `ImageClassifier` the numbers of a picture follow from the step's seed and the picture's place in
    the batch of all processes; see `number_pictures`. Elsewhere they follow from ``torch.manual_seed``. A net that is
    compiled takes torch's own dropout, which follows from the seed of the process.
    """

    numbers: StepNumbers | None = None
    _calls = 0

    def forward(self, input: Tensor) -> Tensor:
        """Returns a tensor of the same shape."""
        if not self.training or not self.p or torch.compiler.is_compiling():
            return F.dropout(input, self.p, self.training)
        if input.device.type != "cpu" and self.numbers is None:
            return F.dropout(input, self.p, self.training)
        if not input.is_contiguous() and not input.is_contiguous(memory_format=torch.channels_last):
            input = input.contiguous()
        dropped = round(self.p * 2**16)
        if dropped == 2**16:
            return torch.zeros_like(input) * input
        # The mask follows the order in which the values lie in memory.
        mask = (self._lanes(input) >= dropped - 2**15).to(input.dtype)
        return input * mask.mul_(2**16 / (2**16 - dropped))

    def _lanes(self, input: Tensor) -> Tensor:
        """A random number of 16 bits for each value."""
        if self.numbers is None:
            numbers = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
            return numbers.view(torch.int16).as_strided(input.shape, input.stride())
        pictures, each = len(input), -(-input[0].numel() // 4)
        # A layer may be called more than once in a step.
        self._calls += 1
        start = _mixed(self.numbers.seed + self._calls)
        seeds = [_mixed(start + self.numbers.first + row) for row in range(pictures)]
        if input.device.type == "cpu":
            numbers = _drawn(seeds, each)
        else:
            signed = [seed - 2**64 if seed >= 2**63 else seed for seed in seeds]
            numbers = hashed(torch.tensor(signed, device=input.device), each)
        return numbers.view(torch.int16).as_strided(input.shape, (4 * each, *input.stride()[1:]))


def number_pictures(layers: Iterable[Dropout], seed: int, first: int) -> None:
    """Gives the dropout layers of a net the numbers of one step.

    Args:
        layers: The layers, in the same order on all processes.
        seed: The seed of the step, which all processes share.
        first: The place of this process's first picture in the batch of all processes.
    """
    for number, layer in enumerate(layers):
        layer.numbers = StepNumbers(_mixed(seed ^ number), first)
        layer._calls = 0


def _drawn(seeds: list[int], count: int) -> Tensor:
    numbers = torch.empty(len(seeds), count, dtype=torch.int64)
    generator = torch.Generator()
    for row, seed in zip(numbers, seeds, strict=True):
        generator.manual_seed(seed >> 1)
        row.random_(-(2**63), None, generator=generator)
    return numbers


def hashed(seeds: Tensor, count: int) -> Tensor:
    """Random numbers of 64 bits by counting and mixing (SplitMix64, Steele et al., OOPSLA 2014), on any device.

    Args:
        seeds: A seed for each row, int64, shape (B,).
        count: How many numbers each row gets.

    Returns:
        int64, shape (B, count).
    """
    state = seeds[:, None] + torch.arange(1, count + 1, device=seeds.device) * _signed(0x9E3779B97F4A7C15)
    # A shift of a negative number brings in ones, which the mask takes out.
    state = (state ^ ((state >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ ((state >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    return state ^ ((state >> 31) & (2**33 - 1))


def _mixed(value: int) -> int:
    """The same for one number, as a number from 0 to 2^64 - 1."""
    state = (value + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
