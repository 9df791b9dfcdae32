"""Does damage to runs and files by a seed, and writes what was lost into docs/survival.md.

    python -m tests.torture                 # all of it: `make torture`
    python -m tests.torture --minutes 2     # a part of it, which leaves the page as it is

torch is imported once, and every command runs in a fork of this process. It needs Linux.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Threads of torch that exist before a fork would be missing in it.
os.environ["OMP_NUM_THREADS"] = "1"

from pet_cifar.hardware import cores
from tests.runs.killed_runs import WAYS
from tests.torture import files, stops, table
from tests.torture.trials import Outcome, Trial, Whole, Wholes, before, command, made_whole, within

WHOLE_MINUTES = 10
"""The minutes that all trials take on two cores."""


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


def tried(task: tuple[str, int, int, Path, Wholes]) -> tuple[str, int, Outcome]:
    """Does one trial, in a folder of its own."""
    name, number, seed, folder, wholes = task
    try:
        with within(folder / f"{name}_{number}"):
            return name, number, DAMAGES[name].trial(random.Random(f"{seed} {name} {number}"), wholes)
    except Exception:
        return name, number, Outcome(lost=[traceback.format_exc()])


def whole(task: tuple[str, Path]) -> tuple[str, Whole]:
    """Makes one of the runs that nothing stops."""
    way, folder = task
    alone: Callable[..., list[object]] = lambda words: [command(words, before(way))]  # noqa: E731
    return way, made_whole(way, folder, stops.together if way == "ranks" else alone)  # type: ignore[arg-type]


def main() -> int:
    """Does the damage, prints the table, and writes it into the page where all of it was done."""
    options = ArgumentParser(prog="python -m tests.torture", description=__doc__,
                             formatter_class=RawDescriptionHelpFormatter)  # fmt: skip
    options.add_argument("--minutes", type=float, default=WHOLE_MINUTES, help="do as much as two cores do in these")
    options.add_argument("--seed", type=int, default=0, help="another seed strikes at other moments")
    options.add_argument("--only", nargs="+", choices=DAMAGES, default=list(DAMAGES), help="only these kinds of damage")
    given = options.parse_args()
    # A shell that runs this in the background, and nohup, have these ignored, and the runs would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    share, began = min(1.0, given.minutes / WHOLE_MINUTES), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture_") as place:
        folder = Path(place)
        with multiprocessing.get_context("fork").Pool(cores()) as pool:
            wholes = dict(pool.map(whole, [(way, folder / "whole") for way in (*WAYS, "ranks")], chunksize=1))
            tasks = [
                (name, number, given.seed, folder, wholes)
                for name in given.only
                for number in range(max(1, round(share * DAMAGES[name].trials)))
            ]
            outcomes: dict[str, list[Outcome]] = {DAMAGES[name].title: [] for name in given.only}
            for count, (name, number, outcome) in enumerate(pool.imap_unordered(tried, tasks), 1):
                outcomes[DAMAGES[name].title].append(outcome)
                for line in outcome.lost:
                    print(f"LOST by {name} {number}: {line}", flush=True)
                if count % 10 == 0:
                    print(f"{count} of {len(tasks)} trials, {time.monotonic() - began:.0f} s", flush=True)
            pool.close()
            pool.join()
    spent = os.times()
    used = spent.user + spent.system + spent.children_user + spent.children_system
    text = f"{table.table(outcomes)}\n\n{table.conditions(given.seed, time.monotonic() - began, used)}"
    print(text)
    if share == 1 and given.only == list(DAMAGES):
        table.write(text)
    return int(any(outcome.lost for found in outcomes.values() for outcome in found))


if __name__ == "__main__":
    sys.exit(main())
