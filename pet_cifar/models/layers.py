"""Layers that several architectures share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Drops values at random and scales the others up, as torch's own does (Srivastava et al., JMLR 15, 2014).

    On the CPU torch draws a number of 32 bits for every value, in one thread: a third of the plain CIFAR net's step.
    Here four values share one number of 64 bits, so that ``p`` is a multiple of 1 / 65,536. The numbers follow from
    ``torch.manual_seed`` just the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns a tensor of the same shape."""
        if not self.training or not self.p or input.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(input, self.p, self.training)
        if not input.is_contiguous() and not input.is_contiguous(memory_format=torch.channels_last):
            input = input.contiguous()
        dropped = round(self.p * 2**16)
        if dropped == 2**16:
            return torch.zeros_like(input) * input
        numbers = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # The mask follows the order in which the values lie in memory.
        lanes = numbers.view(torch.int16).as_strided(input.shape, input.stride())
        mask = (lanes >= dropped - 2**15).to(input.dtype)
        return input * mask.mul_(2**16 / (2**16 - dropped))
