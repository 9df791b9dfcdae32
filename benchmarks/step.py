"""Compares a training step of our command line with a bare PyTorch loop, the processor's peak and Keras.

    python benchmarks/step.py --root data configs/cats_dogs_cnn.yaml configs/cifar10_plain.yaml
    python benchmarks/step.py --root data --keras .venv-keras/bin/python    # made by `make keras`
    python benchmarks/step.py --root data -- --trainer.precision bf16-mixed
    # On a GPU:
    python benchmarks/step.py --root data configs/cifar10_residual.yaml -- --trainer.precision bf16-mixed \\
      --model.compile true --trainer.benchmark true

For each config, two things are measured in turn, ``--rounds`` times in one process: ``pet-cifar fit`` with all its
default loggers and callbacks, and a plain loop over the same net, batches, augmentation, optimizer and schedule. Both
are timed from the end of the third step to the end of the last one. The peak is what a product of two 4,096 x 4,096
matrices reaches in the run's precision; the operations of a step are counted, not estimated. On the CPU the median step
counts, because other work on the machine hardly changes it. So what is not done in every step does not count here;
``pictures.py`` measures whole epochs. With ``--keras``, ``keras_baseline.py`` trains on the same pictures in between.
"""

import contextlib
import io
import json
import math
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, seed_everything
from report import Measured, Report, parsed, parser, positive, run_or_explain
from torch.utils.flop_counter import FlopCounterMode

from pet_cifar.cli.main import main as pet_cifar
from pet_cifar.data.loader import Batch
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.training import ImageClassifier

CONFIGS = [Path(__file__).parents[1] / "configs" / f"{name}.yaml" for name in ("cats_dogs_cnn", "cifar10_plain")]
KERAS = {"cats_dogs_cnn": ["cats_dogs"], "cifar10_plain": ["cifar10", "--max-seconds", "90"]}
WARM = 2
"""The steps before the clock starts."""


class Clock(Callback):
    """Notes the end of every step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Notes the time; all default callbacks come before this one."""
        if batch_idx in (WARM, trainer.num_training_batches - 1) and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def step_seconds(ends: list[float]) -> float:
    """The seconds of a step: the median where the CPU does the work, else the mean."""
    if not torch.cuda.is_available():
        return statistics.median(later - former for former, later in pairwise(ends[WARM:]))
    return (ends[-1] - ends[WARM]) / (len(ends) - 1 - WARM)


def fit(config: Path, root: Path, steps: int, options: list[str]) -> tuple[float, Any]:
    """Runs the command line; returns the seconds of a step and the finished command."""
    clock = Clock()
    command = ["fit", "--config", str(config), "--data.root", str(root), "--trainer.max_epochs", "1"]
    command += ["--trainer.limit_train_batches", str(steps), "--trainer.limit_val_batches", "1", *options]
    with contextlib.redirect_stdout(io.StringIO()):
        done = pet_cifar(command, callbacks=[clock])
    return step_seconds(clock.ends), done


def bare(done: Any, steps: int, precision: torch.dtype | None) -> float:
    """Runs a plain loop over what the command line has used; returns the seconds of a step."""
    net, data = done.model, done.datamodule
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).train()
    # This loader still belongs to the run, so it knows the device.
    loader = data.train_dataloader()
    configured = net.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    ends = []
    for number, batch in zip(range(min(steps, len(loader))), loader, strict=False):
        one_step(net, optimizer, to_floats(data, batch, device), precision)
        schedule.step()
        if number in (WARM, min(steps, len(loader)) - 1) and device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    return step_seconds(ends)


def to_floats(data: Any, batch: Batch, device: torch.device) -> Batch:
    """Does what the data module does on the device."""
    image = batch.image.to(device, non_blocking=True).float().div_(255)
    if data.augment is not None:
        image = data.augment(image, batch.uniform.to(device, non_blocking=True))
    return replace(batch, image=image, label=batch.label.to(device, non_blocking=True))


def one_step(
    net: ImageClassifier, optimizer: torch.optim.Optimizer, batch: Batch, precision: torch.dtype | None
) -> None:
    """Makes one step: forward, backward, update."""
    with torch.autocast(batch.image.device.type, precision or torch.bfloat16, enabled=precision is not None):
        loss = net.loss(net(batch.image), batch.label)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def operations(done: Any, precision: torch.dtype | None) -> float:
    """Counts the floating-point operations of one step, forward and backward."""
    net, data = done.model, done.datamodule
    device = net.mean.device
    batch = to_floats(data, data.train_dataloader().load(0, 0), device)
    counter = FlopCounterMode(display=False)
    with counter, torch.compiler.set_stance("force_eager"):
        one_step(net, net.configure_optimizers()["optimizer"], batch, precision)
    return counter.get_total_flops()


def peak(precision: torch.dtype | None) -> float:
    """Measures the floating-point operations per second of a large matrix product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, times = 4096, 3 if device == "cpu" else 50
    matrix = torch.randn(size, size, device=device, dtype=precision or torch.float32)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(times):
            matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / times)
    return 2 * size**3 / best


def keras(python: str, experiment: list[str], root: Path) -> float:
    """Runs ``keras_baseline.py``; returns its pictures per second."""
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "keras.json"
        program = [python, str(Path(__file__).with_name("keras_baseline.py")), *experiment]
        subprocess.run(
            [*program, "--root", str(root), "--epochs", "1", "--output", str(output)], check=True, capture_output=True
        )
        found = json.loads(output.read_text())
    if found["rows"]:
        return float(found["rows"][-1]["pictures_per_second"])
    return float(found["batch_size"] / Measured(found["unfinished"]["steps"]).median)


def main() -> None:
    """Prints a row for each config."""
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    options.add_argument("--rounds", type=positive, default=5)
    options.add_argument("--steps", type=int, default=0, help="steps of each round; 0 for about a quarter of a minute")
    options.add_argument("--keras", help="the Python that has Keras")
    arguments, rest = parsed(options)
    keep_freed_memory()
    seed_everything(0)
    note = f"{arguments.rounds} rounds, medians (lowest to highest); {' '.join(rest) or 'as configured'}"
    columns = ["config", "fit, ms a step", "bare loop, ms", "overhead", "pictures/s", "share of peak"]
    report = Report([*columns, "Keras, pictures/s", "times"], arguments, note)
    for config in arguments.configs:
        steps = arguments.steps
        seconds, done = fit(config, arguments.root, 8, rest)
        steps = steps or max(10, round(15 / seconds))
        words = done.trainer.precision
        precision = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(words)
        ours, limit, in_keras = [], [], []
        for _ in range(arguments.rounds):
            seconds, done = fit(config, arguments.root, steps, rest)
            ours.append(1000 * seconds)
            limit.append(1000 * bare(done, steps, precision))
            if arguments.keras and config.stem in KERAS:
                in_keras.append(keras(arguments.keras, KERAS[config.stem], arguments.root))
        one, other = Measured(ours), Measured(limit)
        batch_size = done.datamodule.batch_size
        pictures = batch_size / one.median * 1000
        used = operations(done, precision) / (one.median / 1000) / peak(precision)
        overhead = Measured([100 * (a / b - 1) for a, b in zip(ours, limit, strict=True)])
        cells: list[object] = [one, other, f"{overhead.median:+.1f} %", f"{pictures:.0f}", f"{100 * used:.0f} %"]
        figures: dict[str, Any] = {"ours": one, "limit": other, "overhead_percent": overhead, "steps": steps}
        figures |= {"pictures_per_second": pictures, "share_of_peak": used, "batch_size": batch_size}
        if in_keras:
            theirs = Measured(in_keras)
            cells += [theirs, f"{pictures / theirs.median:.2f}"]
            figures["keras_pictures_per_second"] = theirs
        report.row(f"`{config.stem}`", cells + [""] * (7 - len(cells)), figures)


if __name__ == "__main__":
    run_or_explain(main)
