"""Where there is room for decoded pictures: on the device, on the disk, in memory, or nowhere."""

import shutil
from pathlib import Path
from typing import Literal

import torch

from pet_cifar.hardware import available_memory

Cache = Literal["auto", "none", "ram", "disk", "device"]
Place = Literal["none", "ram", "disk", "device"]
SPARE = 10**9
"""Bytes of a disk that pictures leave to checkpoints and logs."""


def choose(
    needed: int, missing: int, directory: Path, device: torch.device, num_processes: int = 1
) -> tuple[Place, str]:
    """Where decoded pictures are best kept, and why.

    On an accelerator that has four times the room: there, as no picture then crosses from the host. Else in a file,
    which all runs share and of which the system keeps in memory what fits. Else in memory, up to half of what is
    available. Else nowhere.

    Args:
        needed: bytes of all pictures.
        missing: bytes of them that are in no file yet; see `missing_bytes`.
        directory: of the files.
        device: where the net is.
        num_processes: on this machine; each has pictures in memory of its own.
    """
    size = f"{needed / 1e9:.2f} GB of decoded pictures"
    free = shutil.disk_usage(directory).free
    fits = not missing or free >= 1.05 * missing + SPARE
    if device.type == "cuda" and fits:
        room = torch.cuda.mem_get_info(device)[0]
        if room >= 4 * needed:
            return "device", f"{size}, {room / 1e9:.0f} GB are free on the device"
    if fits:
        return "disk", f"{size}, " + (f"{free / 1e9:.0f} GB are free in {directory}" if missing else f"in {directory}")
    memory = available_memory()
    if memory >= 2 * needed * num_processes:
        return "ram", f"{size}, {free / 1e9:.2f} GB are free in {directory}, {memory / 1e9:.1f} GB in memory"
    return "none", f"{size}, for which there is room neither in {directory} nor in memory: every epoch decodes anew"


def missing_bytes(file: Path, size: int) -> int:
    """What the disk must still take for a file of ``size`` bytes; another process may be writing it."""
    if file.exists():
        return 0
    try:
        status = part_of(file).stat()
    except OSError:  # none, or just moved into place
        return 0 if file.exists() else size
    # it may have holes; not every system says
    return max(0, size - getattr(status, "st_blocks", 0) * 512)


def part_of(file: Path) -> Path:
    """Where a file is while it is written."""
    return file.with_name(file.name + ".part")
