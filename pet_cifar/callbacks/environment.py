"""What a run was made with: hardware, versions and the commit of the source code."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from pet_cifar import __version__
from pet_cifar.hardware import cores, processor_name

PACKAGES = ("torchvision", "lightning", "torchmetrics", "tensorboard", "numpy", "scikit-learn", "pillow")


def environment(trainer: Trainer) -> dict[str, Any]:
    """The environment of a run, as numbers and strings, by the names that the run's card shows."""
    device = trainer.strategy.root_device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    seed = os.environ.get("PL_GLOBAL_SEED")
    return {
        "device": f"{trainer.world_size} x {hardware}",
        "processor": f"{cores()} x {processor_name()}, {torch.get_num_threads()} threads used by torch",
        "precision": str(trainer.precision),
        "seed": "not set" if seed is None else int(seed),
        "pet_cifar": f"{__version__}, {_commit()}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": torch.__version__,
        **{name: version(name) for name in PACKAGES},
    }


@cache
def _commit() -> str:
    """Names the git commit of the source code, and says whether files were changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    # The first command fails where the repository is not this package's, but one that a virtual environment lies in.
    commands = (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"])
    try:
        _, commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True, timeout=5).stdout.strip()
            for words in (*commands, ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return "not from a git checkout"
    return f"git {commit[:12]}{', changed since' if changes else ''}"
