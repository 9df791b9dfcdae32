"""torch.compile for a net that Lightning trains."""

import os
import shutil

import torch
from torch import nn

from pet_cifar.errors import InputError


def compile_parts(backbone: nn.Module, head: nn.Module, device: torch.device) -> None:
    """Has both compiled, each at its first forward pass; a second call changes nothing.

    Not the LightningModule: what it logs stays plain Python. Parameters keep their names, so that checkpoints are the
    same with and without. Every size of a batch is compiled by itself: a training has one, an evaluation two.

    Raises:
        InputError: the net is on the CPU, and there is no C++ compiler.
    """
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise InputError(
            "compile needs a C++ compiler for a net on the CPU; install g++, or give --model.compile false"
        )
    for part in (backbone, head):
        part.compile(dynamic=False)
