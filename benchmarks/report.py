"""What all benchmarks share: their options, a table with its conditions, and a JSON file with every single figure."""

import itertools
import json
import os
import platform
import resource
import statistics
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pet_cifar.errors import InputError
from pet_cifar.hardware import cores, maxrss_in_bytes, peak_memory, processor_name

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
"""Every config that the repository has."""
PACKAGES = ("torch", "torchvision", "lightning", "pillow", "numpy")


def conditions() -> dict[str, Any]:
    """Finds out hardware, versions and threads."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "processor": processor_name(),
        "cores": cores(),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "command": sys.argv,
    }


def peak_gigabytes() -> float:
    """The largest resident memory of this process so far, in 10^9 bytes."""
    peak = peak_memory()
    assert peak is not None  # Windows does not report it, but has no module resource, which this file imports, either.
    return peak / 1e9


def resident(usage: resource.struct_rusage) -> float:
    """The largest resident memory of child processes in 10^9 bytes; what this one had when it began them counts too."""
    return maxrss_in_bytes(usage.ru_maxrss) / 1e9


def hardware() -> str:
    """Describes the conditions in one line."""
    found = conditions()
    device = ", ".join(found["gpus"]) or f"{found['cores']} cores of {found['processor']}"
    return f"{device}, {found['threads']} threads, torch {found['versions']['torch']}, Python {found['python']}"


class Measured:
    """One quantity that was measured several times.

    Attributes:
        values: The values in the order of measurement.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        def short(value: float) -> str:
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

        text = short(self.median)
        if len(self.values) > 1:
            text += f" ({short(min(self.values))} to {short(max(self.values))})"
        return text

    def json(self) -> dict[str, Any]:
        """Returns what the JSON file says of the quantity."""
        return {"n": len(self.values), "median": self.median, "spread": [min(self.values), max(self.values)],
                "values": self.values}  # fmt: skip


def share(ours: Measured, limit: Measured) -> str:
    """Our median in percent of the limit's median."""
    return f"{100 * ours.median / limit.median:.0f} %"


class Report:
    """Prints a table row by row, and writes all figures to a file after every row.

    Args:
        columns: The head of the table.
        arguments: The options of the command line, among them ``root`` and ``output``.
        note: What is printed above the table, beside hardware and data.
    """

    def __init__(self, columns: Sequence[str], arguments: Namespace, note: str) -> None:
        self.output: Path = arguments.output
        self.root: Path = arguments.root
        self.figures: dict[str, Any] = {}
        if self.output.exists():  # It may hold the figures of an hour.
            numbers = itertools.count(1)
            kept = next(free for free in map(self._numbered, numbers) if not free.exists())
            self.output.replace(kept)
            print(f"the figures of an earlier run are now in {kept}")
        print(f"{hardware()}; data: {self.root}; {note}; all figures go to {self.output}")
        print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)

    def _numbered(self, number: int) -> Path:
        return self.output.with_name(f"{self.output.stem}_{number}{self.output.suffix}")

    def row(self, name: str, cells: Sequence[object], figures: Mapping[str, Any]) -> None:
        """Prints a row, and keeps its figures."""
        print(f"| {' | '.join(map(str, (name, *cells)))} |", flush=True)
        self.keep(name, figures)

    def keep(self, name: str, figures: Mapping[str, Any]) -> None:
        """Keeps figures without printing a row."""
        self.figures[name] = {
            key: value.json() if isinstance(value, Measured) else value for key, value in figures.items()
        }
        known = {"conditions": {**conditions(), "data": str(self.root)}, "figures": self.figures}
        self.output.write_text(json.dumps(known, indent=2) + "\n")


def run_or_explain(main: Callable[[], None]) -> None:
    """Runs a benchmark, and prints one line if its input is wrong."""
    # An installed program has its compiled files; with this variable every process would compile the modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None


def parser(description: str | None) -> ArgumentParser:
    """Makes a parser with the options that all benchmarks have."""
    made = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path, default=Path("data"), help="where the data is")
    output = Path(f"{Path(sys.argv[0]).stem}.json")
    made.add_argument("--output", type=Path, default=output, help=f"a JSON file for all figures (default: {output})")
    return made


def positive(text: str) -> int:
    """Converts an option's value to a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a whole number, 1 or more")
    return int(text)


def parsed(options: ArgumentParser) -> tuple[Namespace, list[str]]:
    """Parses the command line; also returns what follows ``--``, the options for every ``pet-cifar`` that is run."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return options.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
