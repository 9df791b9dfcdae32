"""What the default pictures cost: the share that they add to an epoch of each config.

    python benchmarks/pictures.py --root data                                  # every CIFAR-10 and cats/dogs config
    python benchmarks/pictures.py --root data configs/cifar10_residual.yaml

Each config is trained both ways in one process, with and without its default picture callbacks, over ``--epochs``
epochs of ``--steps`` steps. What a picture costs does not depend on the number of steps, so the cost of an epoch is
measured there and set against the time of a whole epoch: the median step without pictures, times its steps. Beside it
stands the time measured within the callbacks themselves, which does not suffer from the noise of the steps.
Further options for all runs come after ``--``.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from report import Report, parsed, parser, positive, told

from pet_cifar.cli.main import main as pet_cifar

CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    if path.stem.startswith(("cifar10", "cats_dogs"))
]


def measure(config: Path, root: str, epochs: int, steps: int, options: list[str], pictures: bool) -> dict[str, float]:
    """Trains once; seconds of the fit without its start, of a step, and within the picture callbacks."""
    import torch
    from lightning import Callback, Trainer

    from pet_cifar.callbacks import Board, CustomScalars, HyperParameters
    from pet_cifar.callbacks.images.base import ImageCallback
    from pet_cifar.cli.defaults import default_callbacks

    clock = {"inside": 0.0, "start": 0.0, "seconds": 0.0}
    step_times: list[float] = []
    kinds = (Board, CustomScalars, HyperParameters, ImageCallback)

    class Watch(Callback):
        def on_train_start(self, *_: Any) -> None:
            clock["start"] = time.perf_counter()

        def on_train_batch_start(self, *_: Any) -> None:
            self._since = time.perf_counter()

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            step_times.append(time.perf_counter() - self._since)

        def on_train_end(self, *_: Any) -> None:
            clock["seconds"] = time.perf_counter() - clock["start"]

    def timed(hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return hook(*arguments, **keywords)
            finally:
                clock["inside"] += time.perf_counter() - start

        return call

    def callbacks(*given: Any) -> list[Callback]:
        chosen = [one for one in default_callbacks(*given) if pictures or not isinstance(one, kinds)]
        for one in chosen:
            if isinstance(one, kinds):
                for name in dir(one):
                    if name.startswith("on_"):
                        setattr(one, name, timed(getattr(one, name)))
        return [*chosen, Watch()]

    small = ["--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", str(steps)]
    small += ["--trainer.limit_val_batches", "4", "--trainer.enable_checkpointing", "false"]
    with (
        patch("pet_cifar.cli.trainer.default_callbacks", callbacks),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        cli = pet_cifar(["fit", "--config", str(config), "--data.root", root, *small, *options])
    assert cli is not None
    return {
        "fit": clock["seconds"],
        "inside": clock["inside"],
        "step": statistics.median(step_times),
        "steps_an_epoch": len(cli.datamodule.train_dataloader()),
    }


def main() -> None:
    """Prints a row for each config as soon as it is done."""
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    options.add_argument("--epochs", type=positive, default=5, help="a multiple of the default cadences")
    options.add_argument("--steps", type=positive, default=4, help="of each epoch")
    arguments, rest = parsed(options)
    note = f"{arguments.epochs} epochs of {arguments.steps} steps"
    columns = ["config", "a whole epoch, s", "pictures an epoch, s", "share", "by difference of the fits, s"]
    report = Report(columns, arguments, note)
    for config in arguments.configs:
        bare, drawn = (
            measure(config, str(arguments.root), arguments.epochs, arguments.steps, rest, pictures)
            for pictures in (False, True)
        )
        epoch = bare["step"] * bare["steps_an_epoch"]
        added, difference = drawn["inside"] / arguments.epochs, (drawn["fit"] - bare["fit"]) / arguments.epochs
        cells = [f"{epoch:.0f}", f"{added:.2f}", f"{100 * added / epoch:.2f} %", f"{difference:.2f}"]
        figures = {"epoch_seconds": epoch, "picture_seconds": added, "difference_seconds": difference}
        report.row(f"`{config.stem}`", cells, figures)


if __name__ == "__main__":
    told(main)
