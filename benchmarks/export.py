"""Measures a trained net in each format that it can be exported to, beside the run itself.

    python benchmarks/export.py --run RUN_DIR --run RUN_DIR
    python benchmarks/export.py --run RUN_DIR --data_root DIR    # where the run's data has moved

Each format is asked in a process of its own, with drawn pictures in the net's size. A row gives the size of the file,
the pictures a second in batches of 32 and one at a time (medians of ``--rounds``), the peak of the memory, and how
its answers differ from the run's. The 8-bit file is calibrated with training pictures, so that it needs the data.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import Measured, Report, parser, peak_gigabytes, positive, run_or_explain

from pet_cifar.cli.run_option import data_of_run
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.runs import export, export_check
from pet_cifar.runs.directory import read_checkpoint
from pet_cifar.runs.exported_net import FromPixels
from pet_cifar.runs.load import load
from pet_cifar.runs.quantize import pictures_a_second, quantize

LARGE, SINGLE = 32, 1
"""The sizes of the batches."""


def main() -> None:
    """Measures and prints everything."""
    options = parser(__doc__)
    options.add_argument("--run", type=Path, action="append", required=True, help="A run; the option may be repeated.")
    options.add_argument("--data_root", help="Where the runs' data is now.")
    options.add_argument("--rounds", type=positive, default=5, help="How many times each is measured.")
    arguments = options.parse_args()
    columns = ("format", "MB", f"pictures/s, {LARGE} at a time", "one at a time", "peak GB", "against the run")
    report = Report(columns, arguments, f"drawn pictures, {arguments.rounds} rounds")
    for run in arguments.run:
        with TemporaryDirectory() as folder:
            files = write_files(run, arguments.data_root, Path(folder))
            net = load(run, "cpu").module
            pixels = export_check.drawn_pictures(net, 64)
            expected = export_check.run_answers(net, pixels)
            for kind, file in files.items():
                # Memory is measured from a process's beginning, so that each format has its own.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    found = pool.submit(measure, kind, str(file), pixels.numpy(), arguments.rounds).result()
                answers = found.pop("answers")
                same = export_check.compare(expected, answers, "drawn pictures")
                words = f"{100 * same.equal / same.pictures:.0f} % equal, {same.difference:.0e}"
                size = f"{file.stat().st_size / 1e6:.1f}" if file.is_file() else ""
                cells = (size, found["large"], found["single"], f"{found['peak']:.2f}", words)
                report.row(f"{type(net).__name__}, {kind}", cells, found | {"difference": same.difference})


def write_files(run: Path, data_root: str | None, folder: Path) -> dict[str, Path]:
    """Exports a run to every format; the run itself stands first."""
    classifier = load(run, "cpu")
    checkpoint = read_checkpoint(classifier.checkpoint)
    card = export.card_of(classifier, checkpoint, "pixels")
    files = {"the run": run, "torch": folder / "net.pt2", "onnx": folder / "net.onnx", "int8": folder / "int8.onnx"}
    export.write_torch(export.torch_program(classifier, "pixels"), card, files["torch"])
    export.write_onnx(classifier, card, files["onnx"])
    data = data_of_run(checkpoint, data_root)
    train = export_check.batches_of(data.pixels("train"), len(data.splits["train"]), 256, size=32)
    quantize(files["onnx"], files["int8"], train)
    return files


def measure(kind: str, file: str, pixels: NDArray[np.uint8], rounds: int) -> dict[str, Any]:
    """Measures one format; this runs in a process of its own."""
    ask, images = answering(kind, Path(file)), torch.from_numpy(pixels)
    return {
        "large": Measured([pictures_a_second(ask, images, LARGE, 1.0) for _ in range(rounds)]),
        "single": Measured([pictures_a_second(ask, images, SINGLE, 1.0) for _ in range(rounds)]),
        "peak": peak_gigabytes(),
        "answers": export_check.answers_of(ask, images),
    }


def answering(kind: str, file: Path) -> export_check.Ask:
    """What asks a format about pictures in the net's size."""
    keep_freed_memory()
    if kind == "the run":
        return export_check.module_asker(FromPixels(load(file, "cpu").module))
    return export_check.file_asker(file, "torch" if kind == "torch" else "onnx")


if __name__ == "__main__":
    run_or_explain(main)
