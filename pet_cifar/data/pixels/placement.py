"""Decides where decoded pictures are kept: on the device, on the disk, in memory, or nowhere."""

import shutil
from pathlib import Path
from typing import Literal

import torch

from pet_cifar.hardware import available_memory

Cache = Literal["auto", "none", "ram", "disk", "device"]
Placement = Literal["none", "ram", "disk", "device"]
SPARE = 10**9
"""Bytes of a disk that pictures leave to checkpoints and logs."""


def choose_placement(
    needed: int, missing: int, directory: Path, device: torch.device, num_processes: int = 1
) -> tuple[Placement, str]:
    """Chooses where decoded pictures are best kept, and says why.

    The first of these that has room is taken. An accelerator with four times the room holds a copy of them, so that
    no picture crosses from the host in a step. A file is shared by all runs, and the system keeps in memory what fits.
    Memory holds them up to half of what is available. Without any room, every access decodes anew.

    Args:
        needed: The bytes that all pictures take.
        missing: The bytes of them that are in no file yet; see `missing_bytes`.
        directory: The directory of the files.
        device: The device that the net is on.
        num_processes: The number of processes on this machine, each of which would keep its own copy in memory.
    """
    size = f"{needed / 1e9:.2f} GB of decoded pictures"
    free = shutil.disk_usage(directory).free
    fits = not missing or free >= 1.05 * missing + SPARE
    if device.type == "cuda" and fits:
        free = torch.cuda.mem_get_info(device)[0]
        if free >= 4 * needed:
            return "device", f"{size}, {free / 1e9:.0f} GB are free on the device"
    if fits:
        return "disk", f"{size}, " + (f"{free / 1e9:.0f} GB are free in {directory}" if missing else f"in {directory}")
    memory = available_memory()
    if memory >= 2 * needed * num_processes:
        return "ram", f"{size}, {free / 1e9:.2f} GB are free in {directory}, {memory / 1e9:.1f} GB in memory"
    return "none", f"{size}, for which there is room neither in {directory} nor in memory: every epoch decodes anew"


def missing_bytes(file: Path, size: int) -> int:
    """Returns what the disk must still take for a file of ``size`` bytes, which another process may be writing."""
    if file.exists():
        return 0
    try:
        status = partial_file(file).stat()
    except OSError:  # There is no partial file, or it was just moved into place.
        return 0 if file.exists() else size
    # The file may have holes, so its length says nothing. Not every system tells the blocks that it takes.
    return max(0, size - getattr(status, "st_blocks", 0) * 512)


def partial_file(file: Path) -> Path:
    """Returns the path under which a file is written before it is moved into place."""
    return file.with_name(file.name + ".part")
