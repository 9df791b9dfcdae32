"""Does damage to runs and files by a seed, and writes what was lost into docs/survival.md.

    python -m tests.torture                 # all of it: `make torture`
    python -m tests.torture --minutes 2     # as much as these minutes allow, which leaves the page as it is

torch is imported once, and every command runs in a fork of this process. It needs Linux.
"""

import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Threads of torch that exist before a fork would be missing in it.
os.environ["OMP_NUM_THREADS"] = "1"

from pet_cifar.hardware import cores
from tests.cli.kills import Apart
from tests.runs.killed_runs import WAYS
from tests.torture import files, stops, table
from tests.torture.trials import Outcome, Trial, Whole, Wholes, before, command, made_whole, within


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        title: What is done, for the table.
        trials: The number of trials.
        trial: Does it once.
    """

    title: str
    trials: int
    trial: Trial


DAMAGES = {
    "kills": Damage("`fit` killed by SIGKILL at any moment, then `--resume`", 100, stops.killed),
    "signals": Damage("SIGTERM, SIGINT or SIGHUP at any moment, then `--resume`", 16, stops.signaled),
    "disks": Damage("a disk that fills up while a run trains, then `--resume`", 16, stops.without_room),
    "ranks": Damage("one of two processes of a run struck, then `--resume` by both", 8, stops.one_rank),
    "at_once": Damage("three runs at once, one killed, then `--resume` by three at once", 4, stops.at_once),
    "unpacking": Damage(
        "three processes that unpack and decode one archive, one killed", 12, files.damaged_while_unpacking
    ),
    "run_files": Damage("a damaged file in the directory of a killed run, then `--resume`", 30, files.damaged_run),
    "inputs": Damage("hostile archives, pickles, lists of pictures and YAML", 40, files.hostile_inputs),
    "pictures": Damage("hostile pictures among good ones", 30, files.hostile_pictures),
}


@dataclass(frozen=True)
class Task:
    """A trial that is still to be done.

    Attributes:
        name: The name of the damage.
        number: The number of the trial; with the seed it decides on every moment and byte.
        seed: The seed of all trials.
        folder: The folder in which it makes one of its own.
        wholes: The runs that nothing has stopped.
        end: The reading of ``time.monotonic`` after which it is left out.
    """

    name: str
    number: int
    seed: int
    folder: Path
    wholes: Wholes
    end: float


def tried(task: Task) -> tuple[Task, Outcome | None]:
    """Does one trial, in a folder of its own; None where there was no time left."""
    if time.monotonic() > task.end:
        return task, None
    try:
        with within(task.folder / f"{task.name}_{task.number}"):
            rng = random.Random(f"{task.seed} {task.name} {task.number}")
            return task, DAMAGES[task.name].trial(rng, task.wholes)
    except Exception:
        return task, Outcome(lost=[traceback.format_exc()])


def whole(task: tuple[str, Path]) -> tuple[str, Whole]:
    """Makes one of the runs that nothing stops."""
    way, folder = task

    def alone(args: Sequence[str]) -> list[Apart]:
        return [command(args, before(way))]

    return way, made_whole(way, folder, stops.together if way == "ranks" else alone)


def main() -> int:
    """Does the damage, prints the table, and writes it into the page where all of it was done."""
    options = ArgumentParser(prog="python -m tests.torture", description=__doc__,
                             formatter_class=RawDescriptionHelpFormatter)  # fmt: skip
    options.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no trial after these, counted from the first one"
    )
    options.add_argument("--seed", type=int, default=0, help="another seed strikes at other moments")
    options.add_argument("--only", nargs="+", choices=DAMAGES, default=list(DAMAGES), help="only these kinds of damage")
    given = options.parse_args()
    # A shell that runs this in the background, and nohup, have these ignored, and the runs would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    began = time.monotonic()
    outcomes: dict[str, list[Outcome]] = {DAMAGES[name].title: [] for name in given.only}
    count = 0
    with tempfile.TemporaryDirectory(prefix="torture_") as place:
        folder = Path(place)
        with multiprocessing.get_context("fork").Pool(cores()) as pool:
            # Ended by SIGTERM, this process ends its workers, too, which have the signals that a run expects.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            wholes = dict(pool.map(whole, [(way, folder / "whole") for way in (*WAYS, "ranks")], chunksize=1))
            end = time.monotonic() + 60 * given.minutes
            tasks = [
                Task(name, number, given.seed, folder, wholes, end)
                for name in given.only
                for number in range(DAMAGES[name].trials)
            ]
            # Every kind has had its share whenever the time is over.
            tasks.sort(key=lambda task: (task.number + 0.5) / DAMAGES[task.name].trials)
            for task, outcome in pool.imap_unordered(tried, tasks):
                if outcome is None:
                    continue
                count += 1
                outcomes[DAMAGES[task.name].title].append(outcome)
                for line in outcome.lost:
                    print(f"LOST by {task.name} {task.number}: {line}", flush=True)
                print(f"{count} of {len(tasks)} trials, {time.monotonic() - began:.0f} s: {task.name}", flush=True)
            pool.close()
            pool.join()
    spent = os.times()
    used = spent.user + spent.system + spent.children_user + spent.children_system
    text = f"{table.table(outcomes)}\n\n{table.conditions(given.seed, time.monotonic() - began, used)}"
    print(text)
    if count == sum(damage.trials for damage in DAMAGES.values()):
        table.write(text)
    lost = sum(bool(outcome.lost) for found in outcomes.values() for outcome in found)
    print(f"{count - lost} passed, {lost} failed")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
