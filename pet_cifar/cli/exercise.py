"""``pet-cifar exercise``: the original Keras exercise, made again as one page."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError, check_choice

if TYPE_CHECKING:
    from pet_cifar.runs.exercise.plan import Planned

MODES = ("quick", "full")


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar exercise",
        description="Make the original Keras exercise again, item by item, and write it as one page: data, nets, "
        "curves, feature maps, and what may be concluded. Runs that are there are found again, and one that was "
        "interrupted goes on.",
        epilog="The exit status is 1 where a part is missing, which the page says, too, and 2 where an option is "
        "wrong.",
    )
    parser.add_argument(
        "--mode", default="quick", metavar="{quick,full}",
        help="quick takes less than 25 minutes on two cores; full trains for hours: VGG16 and the small CNN as their "
        "configs say, the CIFAR-10 nets for 20 epochs each (quick).",
    )  # fmt: skip
    parser.add_argument(
        "--data.root", dest="root", metavar="DIR", help="Where the pictures are, or are downloaded to (data)."
    )
    parser.add_argument(
        "--weights", metavar="FILE",
        help="VGG16's weights. If left out, vgg16*.safetensors in the data's folder, or else a download.",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("exercise.html"), metavar="FILE", help="The page (exercise.html)."
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("exercise_runs"), metavar="DIR", help="Where the runs go (exercise_runs)."
    )
    return parser


def run_exercise(words: Sequence[str]) -> int:
    """Makes the runs that are missing, and writes the page.

    Returns:
        The exit status: 1 where a part is missing, else 0.

    Raises:
        InputError: An option is wrong, or a file cannot be written.
    """
    options = _parser().parse_args(words)
    check_choice("--mode", options.mode, MODES)
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {options.output}: give a name that ends in .html")
    if options.runs.exists() and not options.runs.is_dir():
        raise InputError(f"--runs {options.runs}: this is a file; give a folder")
    # These imports take seconds, and --help answers without them.
    from pet_cifar.cli.config_files import shipped_configs
    from pet_cifar.names import printable
    from pet_cifar.runs.exercise import make
    from pet_cifar.runs.exercise.plan import MODES as PLANS

    missing = make.make(
        PLANS[options.mode],
        root=options.root,
        weights=options.weights,
        folder=options.runs.expanduser() / options.mode,
        output=options.output.expanduser(),
        configs=shipped_configs(),
        command=shlex.join(["pet-cifar", "exercise", *words]),
        say=lambda line: print(printable(line), flush=True),
        make_runs=make_planned,
    )
    for line in missing:
        print(f"missing: {printable(line)}", file=sys.stderr)
    print(f"page: {printable(str(options.output))}")
    return 1 if missing else 0


def make_planned(planned: "Sequence[Planned]") -> "list[Path | str]":
    """Makes the runs that are missing, as ``repeat`` does.

    Returns:
        For each run its directory, or why there is none.
    """
    from pet_cifar.cli.found_runs import WantedRun, find_runs, whole_config
    from pet_cifar.cli.repeat import make_missing

    whole: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in planned:
        if one.words not in whole:
            whole[one.words] = whole_config(one.words)
    wanted = [WantedRun(one.item.config, one.words, whole[one.words], one.seed) for one in planned]
    failed = make_missing(wanted)
    return [
        found[0].folder
        if (found := find_runs(run)) and found[0].is_tested
        else failed.get(run.title, "it was not made").removeprefix(f"{run.title}: ")
        for run in wanted
    ]
