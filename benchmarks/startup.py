"""How long one waits before anything happens: ``--help``, and the first training step.

    python benchmarks/startup.py

Each in a fresh process, ``--rounds`` times: ``pet-cifar --help``; importing torch and lightning and nothing else; and
``fit`` on handwritten digits until the first step ends, of which the time for data (locating, checking, decoding) is
told apart. The limit is 1.3 times the bare import, plus the data. Then the slowest imports of our own start.
"""

import re
import subprocess
import sys
import time

from report import Measured, Report, parser, positive, told

# neither counts how Python ends
IMPORTS = "import os, torch, lightning.pytorch; os._exit(0)"
FIRST_STEP = """
import time
start = time.perf_counter()
from pet_cifar.cli.main import main
from pet_cifar.data import ImageDataModule
data = 0.0
def timed(name):
    original = getattr(ImageDataModule, name)
    def method(self, *arguments, **named):
        global data
        before = time.perf_counter()
        try:
            return original(self, *arguments, **named)
        finally:
            data += time.perf_counter() - before
    setattr(ImageDataModule, name, method)
for name in ("prepare_data", "setup", "train_dataloader"):
    timed(name)
from lightning import Callback
class First(Callback):
    def on_train_batch_end(self, *arguments):
        print("FIRST", time.perf_counter() - start, data, flush=True)
        import os
        os._exit(0)
import pet_cifar.cli.trainer as cli
callbacks = cli.default_callbacks
cli.default_callbacks = lambda *given: [*callbacks(*given), First()]
main(["fit", "--config", CONFIG, "--data.num_workers", "0"])
"""


def seconds(command: list[str]) -> tuple[float, str]:
    """Wall seconds of a process, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout + done.stderr


def main() -> None:
    """Prints the table and the import profile."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=positive, default=5)
    options.add_argument("--config", default="configs/digits_residual.yaml")
    arguments = options.parse_args()
    python = [sys.executable, "-c"]
    first_step = f"CONFIG = {arguments.config!r}\n{FIRST_STEP}"
    for code in (IMPORTS, first_step):  # what is read from the disk for the first time
        seconds([*python, code])
    helped, imported, first, data = [], [], [], []
    for _ in range(arguments.rounds):
        helped.append(seconds([sys.executable, "-m", "pet_cifar", "--help"])[0])
        imported.append(seconds([*python, IMPORTS])[0])
        wall, printed = seconds([*python, first_step])
        found = re.search(r"FIRST (\S+) (\S+)", printed)
        assert found, printed
        first.append(wall)
        data.append(float(found[2]))
    report = Report(["what", "seconds", "limit", "what the limit is"], arguments, f"{arguments.rounds} rounds, medians")
    measured = {
        "help": Measured(helped),
        "import": Measured(imported),
        "first_step": Measured(first),
        "data": Measured(data),
    }
    report.row("`pet-cifar --help`", [measured["help"], "0.5", "asked for"], {"help": measured["help"]})
    report.row("import torch, lightning", [measured["import"], "", ""], {"import": measured["import"]})
    limit = 1.3 * measured["import"].median + measured["data"].median
    report.row(
        "`fit` to the end of step 1",
        [measured["first_step"], f"{limit:.2f}", f"1.3 times the import and {measured['data'].median:.2f} s of data"],
        {**measured, "limit": limit},
    )
    _, profile = seconds([sys.executable, "-X", "importtime", "-c", "import pet_cifar.cli.trainer"])
    lines = [re.match(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)", line) for line in profile.splitlines()]
    rows = sorted(((int(one[2]), one[4]) for one in lines if one and len(one[3]) <= 7), reverse=True)
    print("\nslowest imports of the command line, with all that they import:")
    for microseconds, name in rows[:12]:
        print(f"  {microseconds / 1e6:.2f} s  {name}")


if __name__ == "__main__":
    told(main)
