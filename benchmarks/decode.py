"""Measures how fast pictures are read: the first pass over a folder, and the passes after it.

    python benchmarks/decode.py --root data

These are measured in turn, ``--rounds`` times, for gray and color pictures of ``--size`` pixels out of the root's cats
and dogs:

- check: Every file is hashed and decoded to its end, as for the manifest. There is no limit to compare it with.
- decode: The files are decoded and resized into the cache's file. The limit is the bare decoder: Pillow with the same
  calls and nothing else, on files that are read in the same threads. This is measured with one thread, and with one
  for each core.
- cached: Whole batches (order, random numbers, pixels, labels) are made from that file. The limit is copying as many
  bytes that lie side by side in memory.

Then ``--large`` color pictures are decoded into a cache and read once more in a process of its own, for its memory.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from report import Measured, Report, parser, peak_gigabytes, positive, run_or_explain, share

from pet_cifar.data import CatsDogsDataModule
from pet_cifar.data.loader import BatchLoader
from pet_cifar.data.manifest import check_files
from pet_cifar.data.pixels.cache import FilePixels, open_pixels
from pet_cifar.data.pixels.decode import decode
from pet_cifar.hardware import cores

CORES = cores()


def bare(file: Path, size: int, channels: Literal[1, 3]) -> np.ndarray:
    """Decodes a picture with Pillow alone: without checks, verdicts and orientation."""
    image: Image.Image = Image.open(BytesIO(file.read_bytes()))
    image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0)).copy()


def rate(pictures: int, work: Callable[..., object], *arguments: object) -> float:
    """Runs ``work`` and returns the pictures per second."""
    start = time.perf_counter()
    work(*arguments)
    return pictures / (time.perf_counter() - start)


def bare_pass(files: Sequence[Path], size: int, channels: Literal[1, 3], threads: int) -> None:
    """Decodes all files with Pillow alone, in threads that take 32 of them at a time."""
    chunks = [files[start : start + 32] for start in range(0, len(files), 32)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: [bare(file, size, channels) for file in chunk], chunks))


def build(
    files: Sequence[Path], count: int, size: int, channels: Literal[1, 3], threads: int, place: Path
) -> FilePixels:
    """Builds our cache of ``count`` pictures, which repeats the files where there are fewer."""
    pixels = open_pixels(
        lambda row: decode(files[row % len(files)].read_bytes(), size, channels),
        count,
        (channels, size, size),
        "disk",
        file=place,
        device=torch.device("cpu"),
        num_threads=threads,
    )
    assert isinstance(pixels, FilePixels)
    return pixels


def epochs(pixels: FilePixels, count: int, batch_size: int, times: int) -> None:
    """Loads the batches of some shuffled epochs."""
    loader = BatchLoader(pixels, np.zeros(count, np.int64), batch_size, shuffle=True, num_workers=CORES)
    for _ in range(times):
        for _ in loader:
            pass


def copies(block: np.ndarray, pictures: int) -> None:
    """Copies as many pictures from one place of the memory to another, a whole block at a time."""
    for _ in range(pictures // len(block)):
        block.copy()


def memory(files: Sequence[Path], count: int, size: int) -> None:
    """Builds and reads a cache; prints the gigabytes at the start and at most, and the seconds of both steps."""
    before = peak_gigabytes()
    with tempfile.TemporaryDirectory(prefix="pet_cifar_decode_") as temporary:
        start = time.perf_counter()
        pixels = build(files, count, size, 3, CORES, Path(temporary) / "large.npy")
        built = time.perf_counter() - start
        start = time.perf_counter()
        epochs(pixels, count, 32, 1)
        read = time.perf_counter() - start
    print(before, peak_gigabytes(), built, read)


def main() -> None:
    """Prints a row for each way of reading."""
    options = parser(__doc__)
    options.add_argument("--size", type=positive, default=200)
    options.add_argument("--pictures", type=positive, default=1000)
    options.add_argument("--large", type=int, default=25_000, help="pictures whose memory is measured; 0 for none")
    options.add_argument("--rounds", type=positive, default=5)
    options.add_argument("--batch-size", type=positive, default=32)
    options.add_argument(
        "--memory-only",
        action="store_true",
        help="measure the memory in this process",
    )
    arguments = options.parse_args()
    data = CatsDogsDataModule(arguments.root)
    data.prepare_data()
    data.setup("fit")
    paths = [picture.path for split in data.splits.values() for picture in split][: arguments.pictures]
    files = [data.folder / path for path in paths]
    count, size = len(files), arguments.size
    if arguments.memory_only:
        memory(files, arguments.large, size)
        return
    for file in files:  # This brings the files into the system's cache.
        file.read_bytes()
    note = f"{count:,} pictures, {arguments.rounds} rounds, medians (lowest to highest)"
    report = Report(["what", "pictures/s", "limit, pictures/s", "share"], arguments, note)
    rounds, batch, times = range(arguments.rounds), arguments.batch_size, 10
    listed = [(path, "", "") for path in paths]
    kinds: tuple[tuple[Literal[1, 3], str], ...] = ((1, "gray"), (3, "color"))
    with tempfile.TemporaryDirectory(prefix="pet_cifar_decode_") as temporary:
        folder = Path(temporary)
        for threads in sorted({1, CORES}):
            lists = [folder / f"{threads}-{number}.csv" for number in rounds]
            checked = Measured([rate(count, check_files, data.folder, listed, one, threads) for one in lists])
            report.row(f"check, {threads} threads", [checked, "", ""], {"ours": checked})
        for channels, name in kinds:
            for threads in sorted({1, CORES}):
                ours, limit = [], []
                for number in rounds:
                    place = folder / f"{name}-{threads}-{number}.npy"
                    limit.append(rate(count, bare_pass, files, size, channels, threads))
                    ours.append(rate(count, build, files, count, size, channels, threads, place))
                decoded, bound = Measured(ours), Measured(limit)
                figures = {"ours": decoded, "limit": bound}
                report.row(f"decode {name}, {threads} threads", [decoded, bound, share(decoded, bound)], figures)
            pixels = FilePixels(folder / f"{name}-1-0.npy")
            block = pixels.memmap.array[:batch].copy()
            ours, limit = [], []
            for _ in rounds:
                ours.append(rate(times * (count // batch * batch), epochs, pixels, count, batch, times))
                limit.append(rate(times * (count // batch * batch), copies, block, times * count))
            cached, bound = Measured(ours), Measured(limit)
            report.row(f"cached {name}", [cached, bound, share(cached, bound)], {"ours": cached, "limit": bound})
    if arguments.large:
        command = [sys.executable, __file__, "--root", str(arguments.root), "--memory-only"]
        command += ["--large", str(arguments.large), "--size", str(size), "--pictures", str(arguments.pictures)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        before, most, built, read = map(float, done.stdout.split())
        print(
            f"{arguments.large:,} pictures of {size} x {size} in color, {arguments.large * 3 * size**2 / 1e9:.2f} GB: "
            f"{most:.2f} GB resident at most, {before:.2f} GB of it before the first picture; decoded in "
            f"{built:.0f} s, read in {read:.1f} s"
        )
        report.keep("memory", {"before": before, "most": most, "decode_seconds": built, "read_seconds": read})


if __name__ == "__main__":
    run_or_explain(main)
