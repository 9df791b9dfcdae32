"""``pet-cifar draw``: the pictures of a run as PNG files, so that a report needs no screenshots."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.cli.run_option import add_root_option, add_run_option, check_run, data_of_run, load_run
from pet_cifar.errors import InputError, check_new_folder
from pet_cifar.names import printable

if TYPE_CHECKING:
    from pet_cifar.data import ImageDataModule
    from pet_cifar.runs.drawings import NamedPicture
    from pet_cifar.runs.load import Classifier

OWN_PICTURES = 4
"""The number of the run's own pictures that are drawn where none is named."""


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar draw",
        description="Draw the pictures of a run as files: curves, confusion matrix, first-layer filters, samples, and "
        "for some pictures the feature maps of every channel, and Grad-CAM.",
        epilog="The exit status is 1 where something that was asked for could not be drawn, and 2 where an option was "
        "wrong.",
    )
    add_run_option(parser)
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH",
        help=f"Pictures: files, folders, patterns or zip archives; {OWN_PICTURES} of the run's own if left out.",
    )  # fmt: skip
    parser.add_argument(
        "--layers", nargs="+", default=["all"], metavar="NAME",
        help="Layers whose maps are drawn, by name or pattern such as backbone.*; all takes every convolution.",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, help="A new folder for the files; RUN/drawings, or drawings_2, if left out."
    )
    add_root_option(parser)
    return parser


def run_draw(words: Sequence[str]) -> int:
    """Draws what can be drawn of a run, and says what could not and why.

    Returns:
        The exit status: 1 where something could not be drawn, else 0.

    Raises:
        InputError: An option is wrong, or the run cannot be loaded.
    """
    options = _parser().parse_args(words)
    check_run(options.run)
    # These imports take seconds, and --help and a run that is not there are answered without them.
    from pet_cifar.runs import drawings
    from pet_cifar.runs.directory import read_checkpoint, run_of_checkpoint
    from pet_cifar.runs.sources import find_sources

    classifier = load_run(options.run)
    classifier.check_layers("--run")
    net = classifier.module
    layers = drawings.chosen_layers(net, options.layers)
    sources = find_sources(options.images).sources if options.images else []
    run = run_of_checkpoint(classifier.checkpoint)
    folder = _new_folder(options.output, run or classifier.checkpoint.parent)
    checkpoint = read_checkpoint(classifier.checkpoint)
    missing: list[str] = []

    def attempt(what: str, draw: Callable[[], int]) -> None:
        """Draws one kind of picture; one that cannot be drawn does not stop the others."""
        try:
            count = draw()
        except InputError as error:
            missing.append(f"{what}: {error}")
        else:
            print(f"{what}: {count} file{'s' if count != 1 else ''}")

    if run is None:
        missing.append(f"curves, confusion matrix: {classifier.checkpoint} lies in no run directory")
    else:
        attempt("curves", lambda: drawings.draw_run_curves(run, folder))
        attempt("confusion matrix", lambda: drawings.draw_confusions(run, folder))
    attempt("first-layer filters", lambda: drawings.draw_filters(net, checkpoint, folder))
    try:
        data = data_of_run(checkpoint, options.root)
        attempt("samples", lambda: drawings.draw_samples(data, folder))
    except InputError as error:
        data = None
        missing.append(f"samples: the run's data cannot be read: {error}; give --data.root DIR")
    pictures, bad = _pictures(classifier, data, sources)
    missing += bad
    if pictures:
        attempt("feature maps", lambda: drawings.draw_feature_maps(net, pictures, layers, folder))
        attempt("Grad-CAM", lambda: drawings.draw_grad_cam(net, pictures, folder))
    for line in missing:
        print(f"not drawn: {printable(line)}", file=sys.stderr)
    print(f"drawn into {printable(str(folder))}")
    return 1 if missing else 0


def _pictures(
    classifier: "Classifier", data: "ImageDataModule | None", sources: Sequence[Any]
) -> "tuple[list[NamedPicture], list[str]]":
    from pet_cifar.runs import drawings

    if sources:
        return drawings.named_pictures(sources, classifier.module)
    if data is None:
        return [], ["feature maps, Grad-CAM: there are no pictures; give --images PATH"]
    return drawings.pictures_of_run(data, OWN_PICTURES), []


def _new_folder(output: Path | None, run: Path) -> Path:
    if output is None:
        number = 1
        # A link that leads nowhere would be made there.
        while os.path.lexists(folder := run / ("drawings" if number == 1 else f"drawings_{number}")):
            number += 1
        return folder
    output = output.expanduser()
    check_new_folder("--output", output)
    return output
