"""Measures how much of its budget a run takes on a machine whose load changes, and whether its schedule ends.

    python benchmarks/budget.py --trials 20 --budget 90s

Other processes compute for some seconds, pause for some seconds and so on, with another pattern in each trial. The time
of a run counts from its start to the line that tells what it took. That of its process also has the start and the end
of Python. Further options of ``fit`` come after ``--``.
"""

import csv
import multiprocessing
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from report import Measured, Report, parsed, parser, positive, run_or_explain

from pet_cifar.durations import seconds_of


def compute(seed: int, longest: float, stop: Event) -> None:
    """Computes and pauses in turn, for up to ``longest`` seconds each, until it is stopped."""
    chance = random.Random(seed)
    while not stop.is_set():
        end = time.monotonic() + chance.uniform(0, longest)
        while time.monotonic() < end and not stop.is_set():
            sum(range(10_000))
        stop.wait(chance.uniform(0, longest))


def trial(number: int, budget: str, config: str, processes: int, rest: list[str]) -> tuple[float, float, float]:
    """The seconds of a process beside others, the percentage that its run tells, and the last share of its rate."""
    seconds = seconds_of("--budget", budget)
    stop = multiprocessing.Event()
    arguments = [(100 * number + one, seconds / 4, stop) for one in range(processes)]
    others = [multiprocessing.Process(target=compute, args=one) for one in arguments]
    folder = Path(tempfile.mkdtemp())
    fit = ["fit", "--config", config, "--budget", budget, "--seed_everything", str(number)]
    fit += ["--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", str(folder), *rest]
    for process in others:
        process.start()
    began = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-m", "pet_cifar", *fit], check=True, capture_output=True, text=True)
        taken = time.monotonic() - began
        (metrics,) = folder.glob("lightning_logs/*/version_0/metrics.csv")
        with metrics.open(newline="") as file:
            rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    finally:
        stop.set()
        for process in others:
            process.join()
        shutil.rmtree(folder)
    (own,) = re.findall(r"took .*\((.*) %\)", done.stdout)
    return taken, float(own), rates[-1] / max(rates)


def main() -> None:
    """Makes the trials, and prints a row for each."""
    options = parser(__doc__)
    options.add_argument("--trials", type=positive, default=20)
    options.add_argument("--budget", default="90s")
    options.add_argument("--config", default="digits_residual")
    options.add_argument("--processes", type=positive, default=2, help="how many other processes compute")
    arguments, rest = parsed(options)
    seconds = seconds_of("--budget", arguments.budget)
    note = f"{arguments.config}, budget {arguments.budget}, {arguments.processes} other processes"
    report = Report(
        ["trial", "run, % of the budget", "process, % of the budget", "last share of the highest rate"],
        arguments,
        note,
    )
    shares: list[float] = []
    for number in range(arguments.trials):
        taken, own, rate = trial(number, arguments.budget, arguments.config, arguments.processes, rest)
        shares.append(own)
        report.row(
            str(number),
            [own, f"{100 * taken / seconds:.1f}", f"{rate:.1e}"],
            {"run": own, "process": taken, "lr": rate},
        )
    kept = sum(97 <= share <= 100 for share in shares)
    print(f"{kept} of {len(shares)} trials took 97 to 100 % of their budget: {Measured(shares)} %")
    report.keep("all", {"shares": Measured(shares), "kept": kept})


if __name__ == "__main__":
    run_or_explain(main)
