"""Measures what a user waits for within a run that is not training: pictures, the end of epochs, and other runs.

    python benchmarks/waiting.py pictures digits_residual cats_dogs_cnn --root DIR
    python benchmarks/waiting.py epochs
    python benchmarks/waiting.py threads

``pictures`` trains each config with and without pictures in turn, and prints the share that they add. ``epochs``
trains a tiny net for many epochs of two steps, and prints what saving and logging take of each, by the processor and by
the clock. ``threads`` lets one run train alone and then two side by side, and prints how much the two lose of the
throughput that one has: with as many threads as `pet-cifar` takes by itself, with ``--threads`` for each, and with
``--threads`` that wait as OpenMP lets them by default. All that is compared is measured in turn, ``--rounds`` times.
Options of ``fit`` come after ``--``.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from pictures import WITHOUT_PICTURES
from report import Measured, Report, parsed, parser, positive, run_or_explain

from pet_cifar.callbacks.run_loggers import RunEvents, RunMetrics
from pet_cifar.callbacks.run_record import RunRecord
from pet_cifar.cli.main import main as pet_cifar

TINY = (
    *("fit", "--config", "digits_residual", "--model.widths", "[8]", "--trainer.enable_progress_bar", "false"),
    *("--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
)
BY_DEFAULT = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""How threads wait where nobody says anything: GNU's and Intel's OpenMP have these numbers."""


def fit_seconds(config: str, root: Path, options: list[str]) -> float:
    """The seconds of a whole ``fit`` in this process, which has imported everything."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        command = ["fit", "--config", config, "--data.root", str(root), "--trainer.default_root_dir", folder]
        pet_cifar([*command, "--trainer.enable_progress_bar", "false", *options])
    return time.perf_counter() - began


def pictures(configs: list[str], root: Path, rounds: int, rest: list[str], report: Report) -> None:
    """Prints a row for each config."""
    for config in configs:
        fit_seconds(config, root, ["--trainer.max_epochs", "1", *rest])  # Pixels are decoded and kept once.
        drawn, bare = [], []
        for _ in range(rounds):
            drawn.append(fit_seconds(config, root, rest))
            bare.append(fit_seconds(config, root, [*WITHOUT_PICTURES, *rest]))
        added = Measured([1 - without / whole for whole, without in zip(drawn, bare, strict=True)])
        cells = [Measured(drawn), Measured(bare), f"{100 * added.median:.1f} %", "5 %"]
        report.row(f"pictures of `{config}`", cells, {"drawn": Measured(drawn), "bare": Measured(bare), "share": added})


@contextlib.contextmanager
def timed(spent: dict[str, list[float]]) -> Iterator[None]:
    """Adds up the seconds, of the processor and of the clock, of all that saves and logs."""
    parts: list[tuple[str, type, str]] = [
        ("checkpoints", ModelCheckpoint, "_save_checkpoint"),
        ("events and CSV", RunEvents, "log_metrics"),
        ("events and CSV", RunMetrics, "log_metrics"),
        ("events and CSV", RunMetrics, "save"),
        ("run.json", RunRecord, "_write"),
    ]
    kept = [(cls, name, getattr(cls, name)) for _, cls, name in parts]

    def wrapped(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*arguments: Any, **keywords: Any) -> Any:
            processor, clock = time.process_time(), time.perf_counter()
            try:
                return call(*arguments, **keywords)
            finally:
                spent[part][0] += time.process_time() - processor
                spent[part][1] += time.perf_counter() - clock

        return timed_call

    for (part, cls, name), (_, _, call) in zip(parts, kept, strict=True):
        spent.setdefault(part, [0.0, 0.0])
        setattr(cls, name, wrapped(part, call))
    try:
        yield
    finally:
        for cls, name, call in kept:
            setattr(cls, name, call)


def epochs(count: int, rest: list[str], report: Report) -> None:
    """Prints what an epoch of a tiny net waits for."""
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), timed(spent):
        options = ["--trainer.max_epochs", str(count), "--trainer.default_root_dir", folder]
        pet_cifar([*TINY, *options, *WITHOUT_PICTURES, *rest])
    spent["together"] = [sum(part[number] for part in spent.values()) for number in (0, 1)]
    for part, (processor, clock) in spent.items():
        milliseconds = [1000 * seconds / count for seconds in (processor, clock)]
        cells = [f"{milliseconds[0]:.1f} ms of the processor", f"{milliseconds[1]:.1f} ms", "", "20 ms together"]
        report.row(f"{part}, an epoch", cells, dict(zip(("processor_ms", "clock_ms"), milliseconds, strict=True)))


def throughput(runs: int, threads: list[str], waits: dict[str, str], rest: list[str]) -> float:
    """The pictures a second that runs side by side train together, from their own records."""
    command = [sys.executable, "-m", "pet_cifar", "fit", "--config", "digits_residual", *threads]
    command += ["--trainer.enable_progress_bar", "false", *WITHOUT_PICTURES, *rest]
    # Of this shell's variables those are left out that choose a number of threads in the place of the command.
    around = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(runs)]
        begun = [
            subprocess.Popen(
                [*command, "--trainer.default_root_dir", str(place)],
                env={**around, **waits},
                stdout=subprocess.DEVNULL,
            )
            for place in places
        ]
        for process in begun:
            if process.wait():
                raise SystemExit(f"a run ended with status {process.returncode}; its error stands above")
        return sum(float(record["images_per_second"]) for record in map(read_record, places))


def read_record(place: Path) -> dict[str, Any]:
    """The record of the only run below a folder."""
    (file,) = place.rglob("run.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def side_by_side(rounds: int, threads: int, rest: list[str], report: Report) -> None:
    """Prints what two runs lose, and what one run loses because its threads do not spin."""
    asked = ["--threads", str(threads)]
    by_itself, waiting, spinning = "by itself", " ".join(asked), f"{' '.join(asked)}, waiting as by default"
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        by_itself: ([], {}),
        waiting: (asked, {}),
        spinning: (asked, BY_DEFAULT),
    }
    speeds: dict[tuple[int, str], list[float]] = {}
    for _ in range(rounds):
        for name, (options, waits) in ways.items():
            for runs in (1, 2):
                speeds.setdefault((runs, name), []).append(throughput(runs, options, waits, rest))
    measured = {key: Measured(values) for key, values in speeds.items()}
    for name in ways:
        alone, two = measured[1, name], measured[2, name]
        lost = 1 - two.median / alone.median
        cells = [alone, two, f"{100 * lost:.0f} % lost", "15 %" if name == by_itself else ""]
        report.row(f"pictures/s, threads: {name}", cells, {"alone": alone, "two": two, "lost": lost})
    lost = 1 - measured[1, waiting].median / measured[1, spinning].median
    report.row("one run alone, ours beside the default", ["", "", f"{100 * lost:.1f} % lost", "2 %"], {"lost": lost})


def main() -> None:
    """Prints a row as soon as it is measured."""
    options = parser(__doc__)
    options.add_argument("what", choices=("pictures", "epochs", "threads"))
    options.add_argument("configs", nargs="*", default=["digits_residual"])
    options.add_argument("--rounds", type=positive, default=3)
    options.add_argument("--epochs", type=positive, default=100, help="how many epochs the tiny net has")
    options.add_argument("--threads", type=positive, default=os.cpu_count(), help="of each run")
    arguments, rest = parsed(options)
    columns = ["what", "with, or alone", "without, or two", "share", "limit"]
    report = Report(columns, arguments, f"{arguments.rounds} rounds")
    if arguments.what == "pictures":
        pictures(arguments.configs, arguments.root, arguments.rounds, rest, report)
    elif arguments.what == "epochs":
        epochs(arguments.epochs, rest, report)
    else:
        side_by_side(arguments.rounds, arguments.threads, rest, report)


if __name__ == "__main__":
    run_or_explain(main)
