"""``pet-cifar repeat``: runs of configs with several seeds, as many as are missing."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pet_cifar.cli.config_files import find_config, run_name
from pet_cifar.cli.plain_parser import OPTIONS_OF_FIT, PlainParser, split_words
from pet_cifar.durations import described, seconds_of
from pet_cifar.errors import InputError, disk_errors

if TYPE_CHECKING:
    from pet_cifar.cli.found_runs import WantedRun
    from pet_cifar.cli.processes import TimeLeft

START_SECONDS = 20
"""What a run takes beside its budget: its test, and the start of two processes."""


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar repeat",
        usage="pet-cifar repeat --config C [C ...] [--seeds N] [--budget TIME] [-- OPTION ...]",
        description="Train and test configs with the seeds 0, 1 and so on, each run in a process of its own, and "
        "compare them. Runs that are there already count, so that the same command goes on after it was stopped.",
        epilog="Options after -- go to every fit, such as -- --trainer.precision bf16-mixed. The exit status is 1 "
        "where a run failed, and 2 where an option was wrong.",
        hints={
            "--seed_everything": "repeat counts the seeds from 0 on; give --seeds N",
            **dict.fromkeys(OPTIONS_OF_FIT, "options of fit go behind two dashes, such as -- --trainer.max_epochs 3"),
        },
    )
    parser.add_argument(
        "--config", nargs="+", required=True, metavar="C", help="Config files, or names of shipped configs."
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="How many seeds each config gets; 5.")
    parser.add_argument("--budget", metavar="TIME", help="The time that each fit may take, such as 10min or 1h.")
    return parser


def run_repeat(words: Sequence[str]) -> int:
    """Makes the runs that are missing, and compares them all.

    Returns:
        The exit status: 1 where a run failed, else that of the comparison.

    Raises:
        InputError: An option is wrong.
    """
    words = list(words)
    end = words.index("--") if "--" in words else len(words)
    options, further = _parser().parse_args(words[:end]), words[end + 1 :]
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: give how many runs each config gets, at least 1")
    for option, instead in (
        ("--seed_everything", "--seeds N, which takes the seeds from 0 on"),
        ("--config", "--config before the two dashes"),
        ("--ckpt_path", "no checkpoint, since every run begins from its seed"),
        ("--budget", "--budget before the two dashes"),
    ):
        if split_words(further, option)[0]:
            raise InputError(f"{option} after --: repeat gives it to every run; give {instead}")
    seconds = None if options.budget is None else seconds_of("--budget", options.budget)
    budget = [] if options.budget is None else ["--budget", options.budget]
    wanted = wanted_runs(options.config, range(options.seeds), [*budget, *further])
    return make_and_compare(wanted, seconds)


def wanted_runs(names: Sequence[str], seeds: Sequence[int], words: Sequence[str]) -> "list[WantedRun]":
    """The runs of configs with seeds, all configs with one seed before the next seed.

    Args:
        names: Files of configs, or names of shipped ones.
        seeds: The seeds.
        words: Further options of ``fit``.

    Raises:
        InputError: A config or an option is wrong, or two configs would share the directory of their runs.
    """
    files = {name: find_config(name) for name in dict.fromkeys(names)}
    # These imports take seconds, and --help and a name that is wrong are answered without them.
    from pet_cifar.cli.found_runs import WantedRun, whole_config

    by_name: dict[str, Path] = {}
    for file in files.values():
        other = by_name.setdefault(run_name(file), file)
        if other != file:
            raise InputError(
                f"--config {file}: its runs would lie among those of {other}, which has the same name; rename one"
            )
    given = {name: ["--config", str(file), *words] for name, file in by_name.items()}
    whole = {name: whole_config(own) for name, own in given.items()}
    return [WantedRun(name, own, whole[name], seed) for seed in seeds for name, own in given.items()]


def make_and_compare(wanted: "Sequence[WantedRun]", seconds: float | None = None) -> int:
    """Makes the runs that are missing, one after the other or one on each device, and compares all that are there.

    Args:
        wanted: The runs.
        seconds: The budget of each, if it has one.

    Returns:
        The exit status: 1 where a run failed, else that of the comparison.
    """
    from pet_cifar.cli.found_runs import find_runs

    failed = make_missing(wanted, seconds)
    runs = [found[0].folder for run in wanted if (found := find_runs(run)) and found[0].is_tested]
    for line in failed.values():
        print(f"failed: {line}")
    status = compare(runs) if runs else 0
    return 1 if failed else status


def make_missing(wanted: "Sequence[WantedRun]", seconds: float | None = None) -> dict[str, str]:
    """Makes the runs that are missing, one after the other or one on each device; those that are there count.

    Args:
        wanted: The runs.
        seconds: The budget of each, if it has one.

    Returns:
        What went wrong, a line for each run that failed, by the run's title.
    """
    from pet_cifar.cli.found_runs import find_runs
    from pet_cifar.cli.processes import TimeLeft

    missing = [run for run in wanted if not any(found.is_tested for found in find_runs(run)[:1])]
    lanes = _lanes(wanted)
    expected = None if seconds is None else seconds + START_SECONDS
    batch = _Batch(missing, TimeLeft([run.name for run in missing], len(lanes), expected))
    count = "1 run" if len(wanted) == 1 else f"{len(wanted)} runs"
    print(f"{count}, {len(wanted) - len(missing)} there already; {batch.time_left.words()}", flush=True)
    with ThreadPoolExecutor(len(lanes)) as pool, batch.stopped_by_signals():
        list(pool.map(batch.make_runs, lanes))
    return batch.failed


def compare(runs: Sequence[Path]) -> int:
    """Compares runs."""
    from pet_cifar.cli.compare import run_compare

    return run_compare([str(run) for run in runs])


def _lanes(wanted: "Sequence[WantedRun]") -> list[str | None]:
    """The devices on which runs go side by side; one None where they go one after the other."""
    from pet_cifar.cli.processes import visible_devices

    trainers: list[Mapping[str, object]] = [run.config["trainer"] for run in wanted]
    one_device = all(
        str(trainer["devices"]) in ("auto", "1") and trainer["accelerator"] in ("auto", "gpu", "cuda")
        for trainer in trainers
    )
    devices = visible_devices() if one_device else []
    return list(devices) if len(devices) > 1 else [None]


class _Batch:
    """Runs that are being made.

    Args:
        missing: The runs.
        time_left: Foretells when they are made.

    Attributes:
        failed: What went wrong, a line for each run that failed, by its title.
    """

    def __init__(self, missing: "Sequence[WantedRun]", time_left: "TimeLeft") -> None:
        from pet_cifar.cli.processes import Processes

        self.time_left = time_left
        self.failed: dict[str, str] = {}
        self._waiting = deque(missing)
        self._processes = Processes()

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Passes Ctrl-C and SIGTERM on to what is running, and says how to go on."""
        from pet_cifar.cli.processes import sigterm_as_exit

        with sigterm_as_exit():
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                self._processes.stop()
                print("stopped; the same command goes on", flush=True)
                raise

    def make_runs(self, device: str | None) -> None:
        """Makes one run after the other on a device, until none is left; one that fails does not stop the others."""
        while self._waiting and not self._processes.is_stopped:
            try:
                run = self._waiting.popleft()
            except IndexError:  # Another device has taken the last one.
                return
            began = self.time_left.start()
            try:
                result = f"test accuracy {self._make(run, device):.2%}"
            except InputError as error:
                if self._processes.is_stopped:
                    return
                self.failed[run.title] = f"{run.title}: {error}"
                result = f"failed: {error}"
            seconds = self.time_left.done(run.name, began, counts=not result.startswith("failed"))
            print(f"{run.title}: {result}, {described(seconds)}; {self.time_left.words()}", flush=True)

    def _make(self, run: "WantedRun", device: str | None) -> float:
        """Makes a run, unless another process makes it, and gives its test accuracy."""
        log = run.folder / f"seed_{run.seed}.log"
        with disk_errors(log, ""):
            log.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(log.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"{run.title}: another process makes it, and this one waits for it", flush=True)
                self._wait_for(lock)
        try:
            return self._train_and_test(run, log, device)
        finally:
            lock.release()

    def _wait_for(self, lock: FileLock) -> None:
        """Waits for another process, for hours if need be, and no longer once this one is stopped."""
        while True:
            try:
                lock.acquire(timeout=1)
                return
            except Timeout:
                if self._processes.is_stopped:
                    raise InputError("it was stopped while another process made it") from None

    def _train_and_test(self, run: "WantedRun", log: Path, device: str | None) -> float:
        from pet_cifar.cli.found_runs import find_runs

        found = find_runs(run)
        if not found or not found[0].is_trained:
            print(f"{run.title}: what it prints goes to {log}", flush=True)
            resumed = found[0].folder if found and run.can_resume and found[0].has_checkpoint else None
            # No checkpoint says how many processes a run has.
            again = ["--resume", str(resumed), *run.words_of_processes]
            words = again if resumed else [*run.words, "--seed_everything", str(run.seed)]
            self._run(["fit", *words, *self._word_of_test(run, device)], log, device)
            known = {one.folder for one in found} - {resumed}
            found = [one for one in find_runs(run) if one.folder not in known]
            if not found:
                raise InputError(f"fit left no run directory with its config in {run.folder}")
        if not found[0].is_tested:
            self._run(["test", "--run", str(found[0].folder)], log, device)
            found = find_runs(run)
        return found[0].accuracy

    def _word_of_test(self, run: "WantedRun", device: str | None) -> list[str]:
        """The option that tests without another start of Python; a run of several processes has none."""
        from pet_cifar.cli.processes import visible_devices

        is_single = not run.words_of_processes and (device is not None or len(visible_devices()) < 2)
        return ["--test"] if is_single else []

    def _run(self, words: Sequence[str], log: Path, device: str | None) -> None:
        if self._processes.run(words, log, device):
            from pet_cifar.cli.processes import last_error

            raise InputError(f"{last_error(log)}; all that it printed is in {log}")
