"""torch.compile for a net that Lightning trains."""

import os
import shutil

import torch
from torch import nn

from pet_cifar.errors import InputError


def compile_parts(backbone: nn.Module, head: nn.Module, device: torch.device) -> None:
    """Compiles a net, each part at its first forward pass; a second call changes nothing.

    The LightningModule itself is not compiled, so that what it logs stays plain Python. Parameters keep their names,
    so that checkpoints are the same with and without. Every size of a batch is compiled by itself: a training has one
    size, an evaluation two.

    Raises:
        InputError: There is no compiler, of C++ for a net on the CPU or of C for one on a GPU.
    """
    on_cpu = device.type == "cpu"
    known = (os.environ.get("CXX", "c++"), "g++", "clang++") if on_cpu else (os.environ.get("CC", "cc"), "gcc", "clang")
    if not any(map(shutil.which, known)):
        language, program = ("C++", "g++") if on_cpu else ("C", "gcc")
        raise InputError(
            f"compile needs a {language} compiler for a net on {device}; install {program}, or give "
            "--model.compile false"
        )
    # Torch counts the translations of all modules together, and after eight gives up with no more than a warning.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for part in (backbone, head):
        part.compile(dynamic=False)
