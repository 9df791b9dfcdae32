"""Trials that stop runs: by kills, by signals, by full disks, and of one process of several."""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cli.kills import Apart
from tests.cli.ranks import free_port
from tests.runs.killed_runs import LAST, NAME, PREVIOUS, RESUME, RUN, WAYS, differences, nothing
from tests.torture.trials import Outcome, Whole, Wholes, before, command, go_on, note, refusal, words

PATIENCE, SHORT_PATIENCE = 200, 10
"""The seconds after which a process that should have ended counts as hanging, or that may wait is ended."""
EARLIEST = 0.25
"""The share of a run before which it only reads its options, and holds nothing that could be lost."""


def alone(args: Sequence[str]) -> list[Apart]:
    """Begins a command in one process."""
    return [command(args)]


def killed(rng: random.Random, wholes: Wholes) -> Outcome:
    """A run is killed at any moment, and some are killed again while they go on."""
    way, outcome = rng.choice(list(WAYS)), Outcome()
    while True:
        child = command(words(way), before(way))
        child.signal_at(rng.uniform(EARLIEST, 1.0) * wholes[way].seconds, signal.SIGKILL)
        status, said = child.wait()
        if status == -signal.SIGKILL:
            break
        if status != 0:
            outcome.lost.append(f"the run ended with {status}: {said[-1500:]}")
            return outcome
        shutil.rmtree(NAME)  # It was over before the moment came, since no two runs take the same time.
    if rng.random() < 0.25 and RUN.exists():
        child = command(RESUME, before(way))
        child.signal_at(rng.uniform(0.1, 1.0) * wholes[way].seconds, signal.SIGKILL)
        if child.wait()[0] == -signal.SIGKILL:
            note(outcome, "killed again while going on")
    go_on(way, wholes[way], outcome, alone)
    return outcome


def signaled(rng: random.Random, wholes: Wholes) -> Outcome:
    """A run gets a signal at any moment; half of them are killed soon after it, as schedulers do."""
    way, number, outcome = rng.choice(list(WAYS)), rng.choice(_SIGNALS), Outcome()
    child = command(words(way), before(way))
    moment = rng.uniform(EARLIEST, 1.0) * wholes[way].seconds
    child.signal_at(moment, number)
    if rng.random() < 0.5:
        child.signal_at(moment + rng.uniform(0, 0.3), signal.SIGKILL)
    status, said = child.wait()
    note(outcome, {-signal.SIGKILL: "killed after the signal", 0: "over before it came"}.get(status, "stopped"))
    if status not in (0, -signal.SIGKILL, -number, 128 + number) or "Traceback" in said:
        outcome.lost.append(f"{number.name} ended it with {status}: {said[-1500:]}")
    go_on(way, wholes[way], outcome, alone)
    return outcome


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def without_room(rng: random.Random, wholes: Wholes) -> Outcome:
    """A run fills its disk, and goes on once there is room."""
    way, outcome = rng.choice(list(WAYS)), Outcome()
    size = sum(path.stat().st_size for path in wholes[way].run.rglob("*"))
    home = Path.cwd()
    disk = home / "disk"
    disk.mkdir()
    is_real = _mount(disk, f"size={int(rng.uniform(0.1, 0.9) * size) // 1024}k")
    note(outcome, "on a real disk that was full" if is_real else "by a limit of a file's size")
    largest = max(path.stat().st_size for path in wholes[way].run.rglob("*"))
    limit = resource.RLIM_INFINITY if is_real else int(rng.uniform(0.05, 0.95) * largest)

    def prepare() -> None:
        before(way)()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    try:
        os.chdir(disk)
        status, said = command(words(way), prepare, home / "filling.txt").wait()
        if status == 0:
            note(outcome, "had room enough")
        elif status != 2 or refusal(said):
            outcome.lost.append(f"a full disk ended it with {status}: {said[-1500:]}")
        if is_real:
            _mount(disk, "remount,size=64m")
        go_on(way, wholes[way], outcome, alone)
    finally:
        os.chdir(home)
        if is_real:
            subprocess.run(["umount", str(disk)], check=True)
    return outcome


def _mount(disk: Path, options: str) -> bool:
    """Mounts a small disk in memory; False where this machine does not allow it."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], capture_output=True, check=False)
    return done.returncode == 0


def one_rank(rng: random.Random, wholes: Wholes) -> Outcome:
    """One of two processes that train together is killed or gets a signal; then both go on."""
    outcome, number = Outcome(), rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    children = together(words("ranks"))
    struck = rng.choice(children)
    struck.signal_at(rng.uniform(EARLIEST, 0.95) * wholes["ranks"].seconds, number)
    note(outcome, f"{number.name} to rank {children.index(struck)}")
    for child in children:
        has_begun = LAST.exists()
        if not _has_ended(child, PATIENCE if has_begun else SHORT_PATIENCE):
            if has_begun:
                outcome.lost.append(f"rank {children.index(child)} was left hanging")
            else:  # It waits for the other, whom it has not met yet; a launcher such as torchrun ends it.
                note(outcome, "ended by its launcher, before the two had met")
            os.kill(child.pid, signal.SIGKILL)
        status, said = child.wait()
        answers = (0, -number, 128 + number, -signal.SIGKILL)
        if number != signal.SIGKILL and (status not in answers or "Traceback" in said):
            outcome.lost.append(f"{number.name} ended rank {children.index(child)} with {status}: {said[-1500:]}")
    go_on("ranks", wholes["ranks"], outcome, together)
    return outcome


def _has_ended(child: Apart, patience: float) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.05)
    return False


def together(args: Sequence[str]) -> list[Apart]:
    """Begins a command in two processes that train together, as torchrun would."""
    port = free_port()

    def as_rank(rank: int) -> Callable[[], None]:
        def prepare() -> None:
            names = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
            os.environ.update({name: str(value) for name, value in {**names, "MASTER_PORT": port}.items()})

        return prepare

    first = len(list(Path().glob("output_*")))
    return [command(args, as_rank(rank), Path(f"output_{first + rank}.txt")) for rank in range(2)]


def at_once(rng: random.Random, wholes: Wholes) -> Outcome:
    """Three runs begin at once; then one of them is killed, and three commands go on with it at once."""
    way, outcome = rng.choice(list(WAYS)), Outcome()
    children = [command(words(way), before(way), Path(f"output_{number}.txt")) for number in range(3)]
    struck = rng.choice(children)
    struck.signal_at(rng.uniform(0.5, 0.9) * wholes[way].seconds, signal.SIGKILL)
    statuses = [child.wait()[0] for child in children]
    runs = sorted(NAME.glob("version_*"))
    if len(runs) != 3 or set(statuses) - {0, -signal.SIGKILL}:
        outcome.lost.append(f"three runs at once ended with {statuses} in {len(runs)} directories")
        return outcome
    left = [run for run in runs if not _is_same(run, wholes[way])]
    # One that is killed while Python ends has lost nothing.
    if len(left) > statuses.count(-signal.SIGKILL):
        outcome.lost.append(f"{len(left)} of three runs at once are not as alone")
    for run in left:
        has_begun = any((run / "checkpoints" / file.name).exists() for file in (LAST, PREVIOUS))
        words_of_all = ["fit", "--resume", str(run)]
        resumed = [command(words_of_all, nothing, Path(f"output_{3 + number}.txt")) for number in range(3)]
        ended = [child.wait() for child in resumed]
        others = [said for status, said in ended if status != 0]
        if not has_begun:  # There is nothing to go on from, which each of the three has to say in a line.
            note(outcome, "before the first checkpoint")
            if len(others) != len(ended) or any(refusal(said) for said in others):
                outcome.lost.append(f"three commands that have nothing to go on from: {ended}")
            continue
        if all(status != 0 for status, _ in ended) or any(refusal(said) for said in others):
            outcome.lost.append(f"three commands that go on: {ended}")
        outcome.notes["refused, since another goes on"] = len(others)
        if not _is_same(run, wholes[way]):
            outcome.lost.append("the run that three went on with is another")
    return outcome


def _is_same(run: Path, whole: Whole) -> bool:
    return (run / "checkpoints" / "best.ckpt").exists() and not differences(run, whole.run)
