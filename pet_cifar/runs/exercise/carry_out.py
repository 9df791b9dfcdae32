"""Makes the runs that the exercise lacks, by the ordinary ``fit`` and ``test`` in processes of their own."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pet_cifar.callbacks.run_record import FILE as RECORD
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.runs.curves import Curve, read_curves
from pet_cifar.runs.exercise.plan import Planned
from pet_cifar.runs.tested_run import TestedRun, read_run

LAST = Path("checkpoints") / "last.ckpt"
ERROR = "pet-cifar: error: "
PATIENCE = 120
"""The seconds that a run has to save itself when it is stopped."""

Execute = Callable[[Sequence[str], Path], int]
"""Runs a command of ``pet-cifar``, given its words and the file for what it prints; gives its exit status."""


@dataclass(frozen=True)
class Made:
    """What came of a planned run.

    Attributes:
        planned: The plan of it.
        run: The run with its test; None where there is none.
        curves: Its metrics by epoch, with those from before it was interrupted.
        problem: Why there is no run; empty where there is one.
    """

    planned: Planned
    run: TestedRun | None = None
    curves: dict[str, Curve] | None = None
    problem: str = ""


def in_a_process(words: Sequence[str], log: Path) -> int:
    """Runs a command of ``pet-cifar`` in a process of its own, which is stopped where this one is interrupted.

    It then has `PATIENCE` to save its checkpoint.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pet_cifar", *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            finally:
                process.kill()
            raise


def make_all(
    planned: Sequence[Planned],
    folder: Path,
    execute: Execute = in_a_process,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> Iterator[Made]:
    """Makes the runs one after the other; those that are finished are found again.

    Args:
        planned: The runs.
        folder: Where they go.
        execute: Runs a command.
        clock: Gives the seconds.
        say: Tells the user how far it is.

    Raises:
        InputError: The folder cannot be written.
    """
    start = clock()
    for number, one in enumerate(planned, 1):
        title = f"[{number}/{len(planned)}] {one.item.config}, seed {one.seed}"
        begin = clock()
        made = _make(one, folder, execute, partial(_say_of, say, title))
        seconds = f"{clock() - begin:.0f} s, {clock() - start:.0f} s in all"
        if made.run is None:
            say(f"{title}: not made: {made.problem}")
        else:
            say(f"{title}: {100 * made.run.accuracy:.2f} % of the test pictures are right ({seconds})")
        yield made


def _say_of(say: Callable[[str], None], title: str, text: str) -> None:
    say(f"{title}: {text}")


def _make(one: Planned, folder: Path, execute: Execute, say: Callable[[str], None]) -> Made:
    log = folder / f"{one.item.config}_seed{one.seed}.log"
    run, is_finished = find_made(one, folder)
    if not is_finished:
        with disk_errors(folder, "; give another --runs"):
            folder.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")
        words = list(one.words)
        if run is not None:
            words += ["--ckpt_path", str(run / LAST)]
        say(f"{'goes on' if run else 'trains'}; what it prints goes to {log}")
        if status := execute(words, log):
            return Made(one, problem=_reason(log, "fit", status))
        run, is_finished = find_made(one, folder)
        if run is None or not is_finished:
            return Made(one, problem=f"it was stopped before its end; {log} says more")
    assert run is not None, "a finished run is there"
    if not (run / "test" / "predictions.csv").is_file() and (status := execute(["test", "--run", str(run)], log)):
        return Made(one, problem=_reason(log, "test", status))
    try:
        return Made(one, read_run(run), curves_of(run))
    except InputError as error:
        return Made(one, problem=f"{error}; remove {run} to have it made again")


def find_made(one: Planned, folder: Path) -> tuple[Path | None, bool]:
    """Looks for the run among those in the folder.

    A run is another one where any option differs, such as the data's folder.

    Returns:
        The finished run and True; else the newest one that can go on, or None, and False.
    """
    can_go_on: list[Path] = []
    known = f"pet-cifar {shlex.join(one.words)}"
    for run in _versions(folder / "lightning_logs" / one.item.config):
        record = _record(run)
        if str(record.get("command")).partition(" --ckpt_path ")[0] != known:
            continue
        if record.get("state") == "finished":
            return run, True
        if (run / LAST).is_file():
            can_go_on.append(run)
    return (can_go_on[0] if can_go_on else None), False


def _versions(folder: Path) -> list[Path]:
    """The run directories of a config, the newest first."""
    numbers = {path: path.name.removeprefix("version_") for path in folder.glob("version_*")}
    return sorted((path for path, text in numbers.items() if text.isdecimal()), key=lambda path: -int(numbers[path]))


def _record(run: Path) -> dict[str, object]:
    """What the run's record holds; empty where there is none, or a damaged one."""
    try:
        content = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def curves_of(run: Path) -> dict[str, Curve]:
    """The metrics by epoch of a run, with those of the run directories that it went on from.

    Raises:
        InputError: A table of metrics is damaged.
    """
    curves = read_curves(run / "metrics.csv")
    words = shlex.split(str(_record(run).get("command", "")))
    if "--ckpt_path" not in words:
        return curves
    before = Path(words[words.index("--ckpt_path") + 1]).parents[1]
    if before == run or not (before / "metrics.csv").is_file():
        return curves
    earlier = curves_of(before)
    return {name: _joined(earlier.get(name), curves.get(name)) for name in {**earlier, **curves}}


def _joined(*parts: Curve | None) -> Curve:
    points = {e: value for part in parts if part is not None for e, value in zip(*part, strict=True)}
    return Curve(*map(list, zip(*sorted(points.items()), strict=True)))


def _reason(log: Path, verb: str, status: int) -> str:
    """Why a command failed: its error's line, or the last line that it printed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    last = (told or lines or ["it printed nothing"])[-1]
    return f"{verb} ended with status {status}: {last}" + ("" if told else f"; {log} holds all that it printed")
