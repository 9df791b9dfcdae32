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
        InputError: there is no compiler: of C++ for a net on the CPU, of C for one on a GPU.
    """
    on_cpu = device.type == "cpu"
    known = (os.environ.get("CXX", "c++"), "g++", "clang++") if on_cpu else (os.environ.get("CC", "cc"), "gcc", "clang")
    if not any(map(shutil.which, known)):
        language, program = ("C++", "g++") if on_cpu else ("C", "gcc")
        raise InputError(
            f"compile needs a {language} compiler for a net on {device}; install {program}, or give "
            "--model.compile false"
        )
    # torch counts the translations of all modules together, and gives up, with a warning only, after eight
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for part in (backbone, head):
        part.compile(dynamic=False)
