"""``pet-cifar predict --run RUN PATH...``: says what is in pictures that a run has never seen."""

import argparse
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pet_cifar.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pet_cifar.runs.load import Classifier
    from pet_cifar.runs.prediction_table import Row
    from pet_cifar.runs.sources import Source

OWN = ("--output", "--top", "--explain", "--sort", "--copy", "--move", "--device")
"""The options that only pictures by their paths have."""
AHEAD = 3
"""The batches that are decoded while one is computed."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"unrecognized arguments: (\S+)", message)
        near = did_you_mean(wrong[1], list(self._option_string_actions)) if wrong else ""
        raise InputError(f"predict: {message}{near or '; see pet-cifar predict --help'}")


def _parser() -> _Parser:
    parser = _Parser(
        prog="pet-cifar predict",
        allow_abbrev=False,
        description="Say what is in pictures. Without PATH, the run's own test pictures are scored again, and "
        "the options are those of test: pet-cifar test --help lists them.",
        epilog="The exit status is 1 where a picture could not be read, and 2 where an option was wrong.",
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="Files, folders, patterns, zip archives, or - for a list."
    )
    parser.add_argument("--run", required=True, help="The run directory, a directory of runs, or a checkpoint.")
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
    parser.add_argument("--device", help="Where the net runs, such as cpu or cuda; a GPU where there is one.")
    return parser


def takes_pictures(words: Sequence[str]) -> bool:
    """Whether the words name pictures, and not the run's own test pictures with the options of the Trainer."""
    if any(word in ("-h", "--help") for word in words):
        return True
    if any(word.partition("=")[0] in OWN for word in words):
        return True
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--run")
    finder.add_argument("paths", nargs="*")
    try:
        found, others = finder.parse_known_args(list(words))
    except (argparse.ArgumentError, SystemExit):
        return False
    return bool(found.paths) and not others


def run_predict(words: Sequence[str]) -> int:
    """Predicts pictures, prints and writes the table.

    Returns:
        The exit status: 1 where a picture could not be read, else 0.

    Raises:
        InputError: An option is wrong, a path names nothing, or the run cannot be loaded.
    """
    options = _parser().parse_args(list(words))
    if options.top < 1:
        raise InputError(f"--top {options.top}: it is a number of classes, at least 1")
    if options.copy and options.move:
        raise InputError("--copy and --move: the pictures can be copied or moved; give one of the two")
    if not options.paths:
        raise InputError("predict: no picture is named; give PATH, such as a folder, a file or - for a list")
    # These imports take seconds, and --help answers without them.
    from pet_cifar.runs import explanation, prediction_table
    from pet_cifar.runs.sources import find_sources

    if options.output:
        prediction_table.check_output(options.output)
    if options.explain:
        explanation.check_folder(options.explain)
    sources = find_sources(options.paths, sys.stdin if "-" in options.paths else ())
    if options.move and (inside := next((one for one in sources if one.member), None)):
        raise InputError(f"--move: {inside.name} lies in an archive; give --copy")
    net = _loaded(options.run, options.device)
    rows = list(_with_bar(predict_sources(net, sources), len(sources)))
    if options.sort == "uncertain":
        rows.sort(key=lambda row: row.prediction.margin if row.prediction else -1.0)
    top = min(options.top, len(net.class_names))
    for line in prediction_table.lines(rows, top):
        print(line)
    if options.output:
        prediction_table.write_table(rows, options.output, top)
        print(f"table written to {options.output}")
    if options.explain:
        print(f"page written to {explanation.write(net, rows, options.explain)}")
    if options.copy or options.move:
        _sort_into_folders(rows, options.copy or options.move, move=bool(options.move))
    bad = sum(row.prediction is None for row in rows)
    if bad:
        print(f"pet-cifar: {bad} of {len(rows)} pictures could not be read", file=sys.stderr)
    return 1 if bad else 0


def _loaded(run: str, device: str | None) -> "Classifier":
    from pet_cifar.runs.load import load

    try:
        return load(run, device)
    except InputError as error:
        raise InputError(f"--run {error}" if str(error).startswith(run) else str(error)) from error
    except (RuntimeError, AssertionError) as error:  # torch has no such device, or was built without it.
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}; give cpu or cuda") from error


def predict_sources(net: "Classifier", sources: "Sequence[Source]") -> "Iterator[Row]":
    """Yields a row for each picture, in order; pictures are decoded in threads while the net computes.

    Args:
        net: The net.
        sources: The pictures.
    """
    from pet_cifar.data.pixels.decode import DecodeError, decode
    from pet_cifar.hardware import cores, keep_freed_memory
    from pet_cifar.runs.load import BATCH
    from pet_cifar.runs.prediction_table import Row

    def read(source: "Source") -> object:
        try:
            return decode(source.read(), net.image_size, net.num_channels)
        except DecodeError as error:
            return f"{error.verdict}: {error}"
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)

    keep_freed_memory()
    batches = [sources[start : start + BATCH] for start in range(0, len(sources), BATCH)]
    with ThreadPoolExecutor(cores(), thread_name_prefix="decode") as pool:
        waiting: deque[list[Future[object]]] = deque()
        try:
            for number, batch in enumerate(batches):
                while len(waiting) < AHEAD and number + len(waiting) < len(batches):
                    waiting.append([pool.submit(read, source) for source in batches[number + len(waiting)]])
                found = [future.result() for future in waiting.popleft()]
                predictions = iter(net.predict_pixels([one for one in found if not isinstance(one, str)]))  # type: ignore[misc]
                for source, one in zip(batch, found, strict=True):
                    yield Row(source, None, one) if isinstance(one, str) else Row(source, next(predictions))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _with_bar(rows: "Iterator[Row]", count: int) -> "Iterator[Row]":
    from tqdm import tqdm

    yield from tqdm(rows, total=count, desc="predicting", unit="", disable=None, leave=False)


def _sort_into_folders(rows: "Sequence[Row]", folder: Path, *, move: bool) -> None:
    from pet_cifar.runs.sources import put_into

    count = 0
    for row in rows:
        if row.prediction is not None:
            name = "none_of_these" if row.prediction.none_of_these else row.prediction.label
            # A name of a class is a name of one folder, whatever it holds.
            safe = re.sub(r'[/\\:*?"<>|]', "_", name).strip(". ") or "_"
            put_into(row.source, folder / safe, move=move)
            count += 1
    print(f"{count} pictures {'moved' if move else 'copied'} into {folder}")
