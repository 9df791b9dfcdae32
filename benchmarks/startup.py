"""Measures how long a user waits before anything happens: for help, and for the first training step.

    python benchmarks/startup.py

Each of these runs in a fresh process, ``--rounds`` times: ``pet-cifar --help`` and ``pet-cifar fit --help``; importing
torch and Lightning and nothing else; ``fit`` on handwritten digits until its first step ends; and making the same data
ready (locating, checking, decoding), whose imports do not count. The limit of ``fit`` is the bare import and 0.7 s. The
slowest imports of our own start are printed below the table.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Measured, Report, parser, positive, run_or_explain

DIGITS = Path(__file__).parents[1] / "configs" / "digits_residual.yaml"
# These programs end with os._exit, so that the time that Python takes to end does not count.
IMPORTS = "import os, torch, lightning.pytorch; os._exit(0)"
FIRST_STEP = """
import os, sys
from lightning import Callback
from pet_cifar.cli.main import main
class Stop(Callback):
    def on_train_batch_end(self, *arguments):
        os._exit(0)
main(["fit", "--config", sys.argv[1], "--data.root", sys.argv[2], "--data.num_workers", "0"], callbacks=[Stop()])
"""


def run(command: list[str]) -> tuple[float, str]:
    """Runs a process in an empty directory; returns its wall seconds and what it printed."""
    with tempfile.TemporaryDirectory(prefix="pet_cifar_startup_") as directory:
        start = time.perf_counter()
        done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
        return time.perf_counter() - start, done.stdout + done.stderr


def data_seconds(config: Path, root: Path) -> float:
    """Measures in this process how long the config's training pictures take until they can be loaded."""
    import yaml
    from features import build_data

    data = build_data(yaml.safe_load(config.read_text()), root)
    start = time.perf_counter()
    data.prepare_data()
    data.setup("fit")
    data.train_dataloader()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table and the slowest imports."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=positive, default=5)
    options.add_argument("--config", type=Path, default=DIGITS)
    options.add_argument("--data-only", action="store_true", help="measure the data in this process")
    arguments = options.parse_args()
    config, root = arguments.config.resolve(), arguments.root.resolve()
    if arguments.data_only:
        print(data_seconds(config, root))
        return
    python = [sys.executable, "-c"]
    commands = {
        "help": [sys.executable, "-m", "pet_cifar", "--help"],
        "fit_help": [sys.executable, "-m", "pet_cifar", "fit", "--help"],
        "import": [*python, IMPORTS],
        "first_step": [*python, FIRST_STEP, str(config), str(root)],
        "data": [sys.executable, str(Path(__file__).resolve()), "--data-only", "--config", str(config)],
    }
    commands["data"] += ["--root", str(root)]
    for command in commands.values():  # The first time, files have to be read from the disk.
        run(command)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            wall, printed = run(command)
            seconds[name].append(float(printed.split()[-1]) if name == "data" else wall)
    measured = {name: Measured(values) for name, values in seconds.items()}
    report = Report(["what", "seconds", "limit", "what the limit is"], arguments, f"{arguments.rounds} rounds, medians")
    report.row("`pet-cifar --help`", [measured["help"], "0.5", "asked for"], {"help": measured["help"]})
    report.row("import torch, lightning", [measured["import"], "", ""], {"import": measured["import"]})
    report.row("`pet-cifar fit --help`", [measured["fit_help"], "2.5", "asked for"], {"help": measured["fit_help"]})
    limit = measured["import"].median + 0.7
    report.row(
        "`fit` to the end of step 1",
        [
            measured["first_step"],
            f"{limit:.2f}",
            f"the import and 0.7 s, of which {measured['data'].median:.2f} s are data",
        ],
        {**measured, "limit": limit},
    )
    _, profile = run([sys.executable, "-X", "importtime", "-c", "import pet_cifar.cli.trainer"])
    lines = [re.match(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)", line) for line in profile.splitlines()]
    rows = sorted(((int(one[2]), one[4]) for one in lines if one and len(one[3]) <= 7), reverse=True)
    print("\nslowest imports of the command line, with all that they import:")
    for microseconds, name in rows[:12]:
        print(f"  {microseconds / 1e6:.2f} s  {name}")


if __name__ == "__main__":
    run_or_explain(main)
