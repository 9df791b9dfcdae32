"""``pet-cifar sweep``: a search for the best values of options, proved on seeds that the search has not seen."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pet_cifar.cli.plain_parser import OPTIONS_OF_FIT, PlainParser
from pet_cifar.durations import seconds_of
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import plain_stem, printable

if TYPE_CHECKING:
    from pet_cifar.cli.sweep_file import Sweep


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar sweep",
        description="Search for the best values of options by the accuracy on validation pictures. Then train the "
        "winner and the config's own values on seeds that the search has not used, test both, and compare them.",
        epilog="The same command goes on with a sweep that was stopped. Started several times, also on several "
        "machines with one --storage, it shares the trials. The exit status is 1 where a run failed, and 2 where an "
        "option was wrong.",
        hints=dict.fromkeys(
            OPTIONS_OF_FIT, "options of fit go under fixed in the sweep's file; docs/repeat.md has one"
        ),
    )
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE",
        help="A YAML file with config, ranges and fixed; docs/repeat.md shows one.",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, metavar="N", help="How many trials the study has in the end.")
    parser.add_argument(
        "--budget", metavar="TIME",
        help="The time for the search, such as 1h; no trial begins that would hardly end in it.",
    )  # fmt: skip
    parser.add_argument("--storage", metavar="URL", help="Optuna's database; an SQLite file in the sweep's folder.")
    parser.add_argument("--study", metavar="NAME", help="The name of the study; that of the file if left out.")
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N",
        help="On how many fresh seeds the winner has to prove itself; 3. 0 only searches.",
    )  # fmt: skip
    return parser


def run_sweep(words: Sequence[str], clock: Callable[[], float] = time.monotonic) -> int:
    """Searches, and lets the winner prove itself.

    Args:
        words: The options.
        clock: Gives the time in seconds.

    Returns:
        The exit status: 1 where a run failed, else that of the comparison.

    Raises:
        InputError: An option, the file or the study is wrong.
    """
    options = _parser().parse_args(words)
    seconds = _checked(options)
    # These imports take seconds, and --help answers without them.
    from pet_cifar.cli.found_runs import differences, whole_config
    from pet_cifar.cli.search import RUN, Search, spoken
    from pet_cifar.cli.study import check_installed, open_study
    from pet_cifar.cli.sweep_file import read_sweep

    sweep = read_sweep(options.config)
    check_installed()
    name = options.study or options.config.stem
    folder = Path("sweeps") / plain_stem(name)
    root = ["--trainer.default_root_dir", str(folder)]
    own = check_ranges(sweep)
    with disk_errors(folder, ""):
        folder.mkdir(parents=True, exist_ok=True)
    url = options.storage or f"sqlite:///{folder / 'study.db'}"
    study = open_study(url, name, sweep.content, options.config)
    search = Search(study, sweep, url, folder, clock)
    search.begin_with(own)
    best = search.run(options.trials, seconds)
    told = f"{spoken(best)}; run directory: {best.user_attrs.get(RUN, 'not told')}"
    print(f"best of {len(study.trials)} trials: {printable(told)}")
    if not options.seeds:
        return 0
    seeds = [seed for seed in range(options.seeds + 1) if seed != own["seed_everything"]][: options.seeds]
    print(
        f"the best of several by one seed is lucky in part: it now runs on the seeds {', '.join(map(str, seeds))}, "
        "beside the config's own values",
        flush=True,
    )
    won = {name: str(value) for name, value in best.params.items()}
    files = {
        folder / "own_values.yaml": whole_config([*sweep.words(), *root]),
        folder / "winner.yaml": whole_config([*sweep.words(won), *root], [("the study", sweep.as_config(won))]),
    }
    own_values, winner = files.values()
    if not differences(own_values, winner):
        print("no values were found that are better than the config's own")
        return 0
    for file, content in files.items():
        with disk_errors(file, ""):
            file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    from pet_cifar.cli.repeat import make_and_compare, wanted_runs

    return make_and_compare(wanted_runs([str(file) for file in files], seeds, []))


def _checked(options: argparse.Namespace) -> float | None:
    """The seconds of the search, if they are given."""
    if options.trials is None and options.budget is None:
        raise InputError("--trials is missing: give --trials N, --budget TIME, or both, which end the search")
    if options.trials is not None and options.trials < 1:
        raise InputError(f"--trials {options.trials}: give at least 1")
    if options.seeds < 0:
        raise InputError(f"--seeds {options.seeds}: give how many fresh seeds the winner runs on; 0 only searches")
    return None if options.budget is None else seconds_of("--budget", options.budget)


def check_ranges(sweep: "Sweep") -> "Mapping[str, object]":
    """Parses the options of the first and last values of all ranges, before a trial begins.

    Returns:
        The whole config of the sweep's own values.

    Raises:
        InputError: An option is not there, or does not take a value of its range.
    """
    from pet_cifar.cli.found_runs import whole_config

    ends = [one.ends() for one in sweep.ranges]
    try:
        for number in range(max(map(len, ends))):
            names = (one.name for one in sweep.ranges)
            values = dict(zip(names, (own[number % len(own)] for own in ends), strict=True))
            whole_config(sweep.words(values), [("fixed and ranges", sweep.as_config(values))])
        return whole_config(sweep.words())
    except InputError as error:
        raise InputError(f"--config {sweep.file}: {error}") from error
