"""Measures how cost grows with the number of pictures, their size, the batch and the processes.

    python benchmarks/growth.py --root data

The net is `CatsDogsCNN` on gray pictures: 1,000 of 200 x 200 in batches of 8, unless a row says otherwise. Where the
root has fewer pictures, they are copied, and each copy gets a JPEG comment of its own. Every row is measured in a
process of its own that starts from nothing: the seconds of checking, of decoding and of one cached epoch of batches
without a net, the median milliseconds of a training step, and the largest resident memory. The row of two processes
runs two processes with DDP, each with the batch of the row of one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from memory import make
from report import Report, parser, peak_gigabytes, positive, run_or_explain

STANDARD = {"pictures": 1000, "size": 200, "batch": 8, "processes": 1}
STEPS = 60
"""The steps whose median is taken, after two that do not count. The mean of ten steps varied by a quarter."""
EXPECTED = {
    "pictures": "check, decode, epoch: in proportion; step, memory: constant",
    "size": "epoch, step: with its square; decode: the file's own size, then the square; memory: the square",
    "batch": "step, memory above the idle process: in proportion; the rest: constant",
    "processes": "step: as long as one process needs for both batches; memory: each its own",
}


def measure(root: Path, row: dict[str, int]) -> dict[str, float]:
    """Measures one row in this process."""
    import torch
    from lightning import Callback, Trainer, seed_everything
    from lightning.pytorch.strategies import DDPStrategy

    from pet_cifar.data import CatsDogsDataModule
    from pet_cifar.hardware import keep_freed_memory
    from pet_cifar.models import CatsDogsCNN

    keep_freed_memory()
    seed_everything(0, verbose=False)

    class Steps(Callback):
        ends: ClassVar[list[float]] = []

        def on_train_batch_end(self, *arguments: Any) -> None:
            self.ends.append(time.perf_counter())

    data = CatsDogsDataModule(
        root, image_size=row["size"], grayscale=True, images_per_class=None, batch_size=row["batch"], cache="disk"
    )
    found: dict[str, float] = {}
    start = time.perf_counter()
    data.prepare_data()
    found["check"] = time.perf_counter() - start
    data.setup("fit")
    start = time.perf_counter()
    pixels = [data.pixels(split) for split in data.splits]
    found["decode"] = time.perf_counter() - start
    start = time.perf_counter()
    for _ in data.train_dataloader():
        pass
    found["epoch"] = (time.perf_counter() - start) / len(data.splits["train"]) * row["pictures"]
    found["idle"] = peak_gigabytes()
    net = CatsDogsCNN(image_size=row["size"], channels_last=True, mean=[0.5], std=[0.25])
    trainer = Trainer(
        accelerator="cpu",
        devices=row["processes"],
        strategy=DDPStrategy() if row["processes"] > 1 else "auto",
        max_steps=STEPS + 2,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Steps()],
    )
    trainer.fit(net, data)
    steps = [1000 * (end - start) for start, end in pairwise(Steps.ends[1:])]
    found["step_lower"], found["step"], found["step_upper"] = statistics.quantiles(steps, n=4)
    found["memory"] = peak_gigabytes()
    found["threads"] = torch.get_num_threads()
    del pixels
    return found


def main() -> None:
    """Prints the rows in four groups, one for each quantity that grows."""
    options = parser(__doc__)
    options.add_argument("--pictures", type=positive, nargs="*", default=[1000, 4000, 10_000, 25_000])
    options.add_argument("--sizes", type=positive, nargs="*", default=[100, 200, 350, 500])
    options.add_argument("--batches", type=positive, nargs="*", default=[8, 32, 128])
    options.add_argument("--processes", type=positive, nargs="*", default=[1, 2])
    options.add_argument("--child", help="the row that this process measures, as JSON")
    arguments = options.parse_args()
    if arguments.child:
        found = measure(arguments.root, json.loads(arguments.child))
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print("FOUND", json.dumps(found))
        return
    columns = [
        "what grows",
        "check, s",
        "decode, s",
        "cached epoch, s",
        "step, ms (quartiles)",
        "resident, GB",
        "before the net, GB",
    ]
    report = Report(columns, arguments, "CatsDogsCNN, gray, channels_last")
    with tempfile.TemporaryDirectory(prefix="pet_cifar_growth_") as temporary:
        for kind, values in (
            ("pictures", arguments.pictures),
            ("size", arguments.sizes),
            ("batch", arguments.batches),
            ("processes", arguments.processes),
        ):
            print(f"| expected: {EXPECTED[kind]} |{' |' * (len(columns) - 1)}")
            for value in values:
                row = {**STANDARD, kind: value}
                root = Path(temporary) / f"{kind}-{value}"
                make(root, arguments.root, row["pictures"])
                command = [sys.executable, __file__, "--root", str(root), "--child", json.dumps(row)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
                found = json.loads(line.removeprefix("FOUND"))
                seconds = [f"{found[name]:.2f}" for name in ("check", "decode", "epoch")]
                step = f"{found['step']:.0f} ({found['step_lower']:.0f} to {found['step_upper']:.0f})"
                cells = [*seconds, step, f"{found['memory']:.2f}", f"{found['idle']:.2f}"]
                report.row(f"{kind} {value:,}", cells, found)


if __name__ == "__main__":
    run_or_explain(main)
