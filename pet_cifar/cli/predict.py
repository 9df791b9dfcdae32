"""``pet-cifar predict --run RUN PATH...``: says what is in pictures that a run has never seen."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.cli.run_option import add_run_option, check_run, load_run
from pet_cifar.cli.threads import check_number
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.names import printable

if TYPE_CHECKING:
    from pet_cifar.runs.load import Classifier
    from pet_cifar.runs.sources import Found
    from pet_cifar.runs.stream import Row

SHOWN = 20
"""The rows that are printed where a file gets all of them."""


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar predict",
        description="Say what is in pictures. Without PATH, the run's own test pictures are scored again, and "
        "the options are those of test: pet-cifar test --help lists them.",
        epilog="The exit status is 1 where a picture could not be read, and 2 where an option was wrong.",
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="Files, folders, patterns, zip archives, or - for a list."
    )
    add_run_option(parser, required=False)
    parser.add_argument("--ckpt_path", metavar="FILE", help="A checkpoint, in the place of --run.")
    parser.add_argument("--output", type=Path, help="A file for the table: .csv, .json, .jsonl or .parquet.")
    parser.add_argument("--top", type=int, default=1, help="How many of the most probable classes are listed.")
    parser.add_argument(
        "--sort", choices=("none", "uncertain"), default="none", help="uncertain: the least certain first."
    )
    parser.add_argument("--explain", type=Path, metavar="DIR", help="A new folder for pictures of what decided.")
    parser.add_argument(
        "--copy", type=Path, metavar="DIR", help="Copy the pictures into a folder for each class there."
    )
    parser.add_argument("--move", type=Path, metavar="DIR", help="Move them there instead.")
    parser.add_argument("--threads", metavar="N", help="How many threads compute.")
    parser.add_argument("--device", help="Where the net runs, such as cpu or cuda; a GPU where there is one.")
    return parser


class _Words(NamedTuple):
    """The words of the command: those that its own options and PATH may be, and the options that it does not know."""

    own: list[str]
    unknown: list[str]


def _divided(words: Sequence[str], parser: PlainParser) -> _Words:
    """Takes the options of the Trainer out, each with the value behind it."""
    end = words.index("--") if "--" in words else len(words)
    own: list[str] = []
    unknown: list[str] = []
    known = {name for action in parser._actions for name in action.option_strings}
    place = 0
    while place < end:
        word = words[place]
        name = word.partition("=")[0]
        place += 1
        if not word.startswith("-") or word == "-" or name in known:
            own.append(word)
            if name in known and "=" not in word and name not in ("-h", "--help"):
                own += words[place : place + 1]
                place += 1
            continue
        unknown.append(name)
        if "=" not in word and place < end and not words[place].startswith("-"):
            place += 1
    return _Words([*own, *words[end:]], unknown)


def takes_pictures(words: Sequence[str]) -> bool:
    """Whether the words name pictures, and not the run's own test pictures with the options of the Trainer."""
    parser = _parser()
    divided = _divided(words, parser)
    if any(word in ("-h", "--help") for word in divided.own):
        return True
    options = vars(parser.parse_intermixed_args(divided.own))
    others = {name: value for name, value in options.items() if name not in ("run", "ckpt_path", "threads")}
    return any(value != parser.get_default(name) and value != [] for name, value in others.items())


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    own, unknown = _divided(words, parser)
    options = parser.parse_intermixed_args(own)
    if unknown:
        near = did_you_mean(unknown[0], [name for action in parser._actions for name in action.option_strings])
        why = near or "; the options of the Trainer belong to predict without PATH, so leave it out"
        raise InputError(f"predict PATH has no option {unknown[0]}{why}")
    if not (options.run or options.ckpt_path):
        raise InputError(
            "predict needs a trained net: give --run RUN_DIR, such as lightning_logs/digits_residual, or --ckpt_path "
            "FILE"
        )
    if options.top < 1:
        raise InputError(f"--top {options.top}: it is a number of classes, at least 1")
    if options.copy and options.move:
        raise InputError("--copy and --move: the pictures can be copied or moved; give one of the two")
    if not options.paths:
        raise InputError("predict: no picture is named; give PATH, such as a folder, a file or - for a list")
    return options


def run_predict(words: Sequence[str]) -> int:
    """Predicts pictures, prints and writes the table.

    Returns:
        The exit status: 1 where a picture could not be read, else 0.

    Raises:
        InputError: An option is wrong, a path names nothing, or the run cannot be loaded.
    """
    options = _parsed(words)
    name, run = ("--ckpt_path", options.ckpt_path) if options.ckpt_path else ("--run", options.run)
    check_run(run, name)
    number = None if options.threads is None else check_number(options.threads)
    # These imports take seconds, and --help and a run that is not there are answered without them.
    import torch
    from tqdm import tqdm

    from pet_cifar.runs import explanation, prediction_table
    from pet_cifar.runs.sources import find_sources
    from pet_cifar.runs.stream import predict_sources

    if number is not None:
        torch.set_num_threads(number)
    if options.output:
        prediction_table.check_output(options.output)
    if options.explain:
        explanation.check_folder(options.explain)
    found = find_sources(options.paths, sys.stdin if "-" in options.paths else ())
    _tell_passed_over(found)
    if options.move and (inside := next((one for one in found.sources if one.member), None)):
        raise InputError(f"--move: {printable(inside.name)} lies in an archive; give --copy")
    net = load_run(run, options.device, option=name)
    named = ", ".join(net.class_names[:10]) + (" and more" if len(net.class_names) > 10 else "")
    print(f"{printable(str(net.checkpoint))}: {len(net.class_names)} classes, {named}", file=sys.stderr)
    if options.explain:
        net.check_layers("--explain")
        explanation.explained_layer(net.module)
    stream = predict_sources(net.module, found.sources)
    rows = list(tqdm(stream, total=len(found.sources), desc="predicting", unit="", disable=None, leave=False))
    if options.sort == "uncertain":
        rows.sort(key=lambda row: row.prediction.margin if row.prediction else 2.0)
    top = min(options.top, len(net.class_names))
    _print_rows(rows, top, SHOWN if options.output else None)
    if options.output:
        prediction_table.write_table(rows, options.output, top)
        print(f"table written to {printable(str(options.output))}")
    if options.explain:
        page = explanation.write(net.module, rows, options.explain, max(2, top), str(net.checkpoint))
        print(f"page written to {printable(str(page))}")
    is_sorted = True
    if options.copy or options.move:
        is_sorted = _sort_into_folders(net, rows, options.copy or options.move, move=bool(options.move))
    bad = [row for row in rows if row.prediction is None]
    if bad:
        print(f"pet-cifar: {len(bad)} of {len(rows)} pictures could not be read", file=sys.stderr)
    return 1 if bad or not is_sorted else 0


def _tell_passed_over(found: "Found") -> None:
    from pet_cifar.names import listed

    if found.passed_over:
        some = listed(found.passed_over, 3)
        print(f"passed over, since they are no pictures by their names: {some}", file=sys.stderr)


def _print_rows(rows: "Sequence[Row]", top: int, most: int | None) -> None:
    from pet_cifar.runs import prediction_table

    # What cannot be read is always listed.
    shown = [row for number, row in enumerate(rows) if most is None or number < most or row.prediction is None]
    for line in prediction_table.lines(shown, top):
        print(line)
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more, which are in the table")
    print(prediction_table.summary(rows))


def _sort_into_folders(net: "Classifier", rows: "Sequence[Row]", folder: Path, *, move: bool) -> bool:
    """Puts the pictures into the folders of their classes; returns whether all could be."""
    from pet_cifar.runs.class_folders import OUTLIERS, folder_names, put_into

    names = folder_names(net.class_names)
    count = failed = 0
    for row in rows:
        if row.prediction is not None:
            name = OUTLIERS if row.prediction.none_of_these else names[row.prediction.label]
            try:
                put_into(row.source, folder / name, move=move)
                count += 1
            except (InputError, ValueError) as error:  # The others go on.
                failed += 1
                print(f"pet-cifar: {printable(str(error))}", file=sys.stderr)
    print(f"{count} pictures {'moved' if move else 'copied'} into {printable(str(folder))}")
    return not failed
