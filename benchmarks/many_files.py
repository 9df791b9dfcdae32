"""Measures how starts grow with the number of files.

    python benchmarks/many_files.py
    python benchmarks/many_files.py --files 10000 100000 1000000

Pictures of 8 x 8 in ten folders are made for each row, all different. A row gives the seconds of this process's
processor time (which other programs change little) of the first start, which checks every file; of a second one, which
finds all of them unchanged; the wall-clock seconds of the second one; and what both take for each file. A start lists,
checks and divides the pictures, as ``fit`` does before it decodes any.
"""

import tempfile
import time
from pathlib import Path

from report import Report, parser, peak_gigabytes, positive, run_or_explain

PICTURE = 8


def make(root: Path, count: int) -> None:
    """Writes different pictures of noise, in ten folders."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for label in range(10):
        (root / f"class_{label}").mkdir(parents=True)
    for number in range(count):
        pixels = noise.integers(0, 256, (PICTURE, PICTURE, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"class_{number % 10}" / f"{number}.bmp")


def start(root: Path) -> tuple[float, float]:
    """Lists, checks and divides the pictures; returns the seconds of the processor and of the wall clock."""
    from pet_cifar.data import ImageFolderDataModule

    began, wall = time.process_time(), time.perf_counter()
    data = ImageFolderDataModule(root, image_size=PICTURE, grayscale=False, cache="none")
    data.prepare_data()
    data.setup("fit")
    return time.process_time() - began, time.perf_counter() - wall


def main() -> None:
    """Prints a row for each number of files."""
    options = parser(__doc__)
    options.add_argument("--files", type=positive, nargs="*", default=[10_000, 30_000, 100_000])
    arguments = options.parse_args()
    columns = ["files", "first start, s", "second start, s", "by the clock, s", "first, ms a file", "peak, GB"]
    report = Report(columns, arguments, f"pictures of {PICTURE} x {PICTURE}")
    with tempfile.TemporaryDirectory(prefix="pet_cifar_files_") as folder:
        for count in arguments.files:
            root = Path(folder) / str(count)
            make(root, count)
            first, _ = start(root)
            second, clock = start(root)
            cells = [
                f"{first:.1f}",
                f"{second:.2f}",
                f"{clock:.2f}",
                f"{1000 * first / count:.3f}",
                f"{peak_gigabytes():.2f}",
            ]
            report.row(f"{count:,}", cells, {"first": first, "second": second, "clock": clock})


if __name__ == "__main__":
    run_or_explain(main)
