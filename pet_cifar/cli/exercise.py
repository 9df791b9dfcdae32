"""``pet-cifar exercise``: the original Keras exercise, made again as one page."""

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError, check_choice

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
        help="quick takes less than 25 minutes on two cores; full trains each net as its config says (quick).",
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
    from pet_cifar.cli.configs import shipped_configs
    from pet_cifar.data.files.names import printable
    from pet_cifar.runs.exercise import make
    from pet_cifar.runs.exercise.plan import MODES as PLANS

    # Whoever ends this process also means the run that it waits for.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        missing = make.make(
            PLANS[options.mode],
            root=options.root,
            weights=options.weights,
            folder=options.runs.expanduser() / options.mode,
            output=options.output.expanduser(),
            configs=shipped_configs(),
            command=shlex.join(["pet-cifar", "exercise", *words]),
            say=lambda line: print(printable(line), flush=True),
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in missing:
        print(f"missing: {printable(line)}", file=sys.stderr)
    print(f"page: {printable(str(options.output))}")
    return 1 if missing else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
