"""``pet-cifar export``: a trained net as a file for other programs, proved to answer as the run does."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.cli.run_option import add_root_option, add_run_option, check_run, data_of_run, load_run
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable

if TYPE_CHECKING:
    from torch import Tensor

    from pet_cifar.data import ImageDataModule
    from pet_cifar.runs.export import Card
    from pet_cifar.runs.export_check import Answers
    from pet_cifar.runs.load import Classifier

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors", "web": ""}
DRAWN = 64
"""The number of drawn pictures that a file is checked with where the run's data is not there."""


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar export",
        description="Write a trained net as a file for other programs, with resizing and normalization inside, and "
        "prove that it answers as the run does.",
    )
    add_run_option(parser)
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default="onnx",
        help="onnx, for onnxruntime and others; torch, a program of torch.export; safetensors, the weights alone; web, "
        "a page that needs no network.",
    )  # fmt: skip
    parser.add_argument(
        "--input", choices=("pixels", "picture"),
        help="What the file takes: pixels, uint8 in the net's size (the default); picture, uint8 of any size.",
    )  # fmt: skip
    parser.add_argument(
        "--int8", action="store_true", help="Also write an ONNX file of 8-bit numbers, and measure both."
    )
    parser.add_argument("--output", type=Path, help="The file, or for web the folder; RUN/exported/NAME if left out.")
    parser.add_argument("--most", type=int, default=1000, help="With how many test pictures it is checked at most.")
    parser.add_argument(
        "--onnxruntime_web", type=Path, metavar="PATH",
        help="For web: the npm package onnxruntime-web, as the folder or the .tgz that npm pack makes; npm is asked if "
        "left out.",
    )  # fmt: skip
    add_root_option(parser)
    return parser


def run_export(words: Sequence[str]) -> None:
    """Writes the file, checks it and says what came of it.

    Raises:
        InputError: An option is wrong, a package is missing, the net cannot be exported, or the file answers otherwise.
    """
    options = _parser().parse_args(words)
    _check_options(options)
    check_run(options.run)
    # These imports take seconds, and --help and a run that is not there are answered without them.
    from pet_cifar.runs import export
    from pet_cifar.runs.directory import read_checkpoint, run_of_checkpoint

    if options.format in ("onnx", "web"):
        export.check_packages("onnx", "onnxscript", "onnxruntime")
    classifier = load_run(options.run, "cpu")
    classifier.check_layers("--run")
    checkpoint = read_checkpoint(classifier.checkpoint)
    takes: export.Input = options.input or ("picture" if options.format == "web" else "pixels")
    card = export.card_of(classifier, checkpoint, takes)
    run = run_of_checkpoint(classifier.checkpoint) or classifier.checkpoint.parent
    target = _target(options, run, card)
    data = None if options.format == "safetensors" else _data(checkpoint, options.root)
    if options.int8 and data is None:
        raise InputError("--int8 needs training pictures, and the run's data cannot be read; give --data.root DIR")
    runtime = None
    if options.format == "web":
        from pet_cifar.runs import web_page

        runtime = web_page.read_runtime(options.onnxruntime_web)
    with disk_errors(target, "; give another --output"):
        target.parent.mkdir(parents=True, exist_ok=True)
        # What is not proved yet, or is interrupted, never lies under the name that was asked for.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
            made = Path(folder) / target.name
            lines = _write(classifier, card, made, data, options, runtime)
            for path in sorted(Path(folder).iterdir()):
                path.replace(target.parent / path.name)
    for line in lines:
        print(line)
    print(
        f"written to {printable(str(target))}: {_in_words(card) if options.format != 'safetensors' else 'the weights'}"
    )


def _target(options: Any, run: Path, card: "Card") -> Path:
    """Where the file goes, of which nothing is there yet.

    Raises:
        InputError: ``--output`` or what is written beside it is there, or the run's own folder for it is a link.
    """
    ending = FORMATS[options.format]
    if options.output is not None:
        target: Path = options.output.expanduser()
        taken = next((path for path in _beside(target, options) if path.exists()), None)
        if taken is not None and not (options.format == "web" and taken.is_dir() and not any(taken.iterdir())):
            raise InputError(f"--output {target}: {taken} is there already; give another name")
        if options.format == "web" and target.is_dir():
            target.rmdir()  # It is empty, and the whole folder is put in its place.
        return target
    name = card.run.replace("/", "_").removesuffix(".ckpt") + ("_picture" if card.input == "picture" and ending else "")
    # All of the data's modules come with this one.
    from pet_cifar.data.links import refuse_links

    refuse_links([run / "exported"])
    number = 1
    while True:
        stem = name if number == 1 else f"{name}_{number}"
        target = run / "exported" / f"{stem}{ending}"
        if not any(path.exists() for path in _beside(target, options)):
            return target
        number += 1


def _beside(target: Path, options: Any) -> list[Path]:
    """All files that are written for a target."""
    paths = [target]
    if options.format == "safetensors":
        paths.append(target.with_suffix(".json"))
    if options.int8:
        paths.append(_int8_name(target))
    return paths


def _int8_name(target: Path) -> Path:
    return target.with_name(f"{target.stem}_int8.onnx")


def _write(
    classifier: "Classifier", card: "Card", file: Path, data: "ImageDataModule | None", options: Any, runtime: Any
) -> list[str]:
    """Writes and proves one format; also returns the lines that say what came of it."""
    from pet_cifar.runs import export

    if options.format == "safetensors":
        export.write_safetensors(classifier, card, file)
        return []
    asked = _asked(classifier, data, options.most)
    if options.format == "torch":
        program = export.torch_program(classifier, card.input)
        export.write_torch(program, card, file)
        proved, lines = _prove(classifier, card, file, asked, "torch")
        export.write_torch(program, proved, file)
        return lines
    if options.format == "web":
        from pet_cifar.runs import web_page

        file.mkdir()
        export.write_onnx(classifier, card, file / "net.onnx")
        proved, lines = _prove(classifier, card, file / "net.onnx", asked, "onnx")
        web_page.write(file, file / "net.onnx", proved, runtime, classifier.image_size)
        return [*lines, "open index.html in a browser; it needs no network"]
    export.write_onnx(classifier, card, file)
    _, lines = _prove(classifier, card, file, asked, "onnx")
    return lines + (_quantize(card, file, data, asked) if options.int8 and data else [])


def _check_options(options: Any) -> None:
    ending = FORMATS[options.format]
    if options.output and ending and options.output.suffix.lower() != ending:
        raise InputError(f"--output {options.output}: give a name that ends with {ending}, by which it is known later")
    if options.most < 1:
        raise InputError(f"--most {options.most}: it is a number of pictures, at least 1")
    if options.int8 and (options.format != "onnx" or options.input == "picture"):
        raise InputError("--int8 belongs to --format onnx and --input pixels; give these, or leave it out")
    if options.onnxruntime_web and options.format != "web":
        raise InputError("--onnxruntime_web belongs to --format web; give it, or leave the option out")
    if options.format in ("safetensors", "web") and options.input == "pixels":
        raise InputError(f"--input pixels: --format {options.format} has no such choice; leave --input out")


def _data(checkpoint: dict[str, Any], root: str | None) -> "ImageDataModule | None":
    try:
        return data_of_run(checkpoint, root)
    except InputError as error:
        if root:
            raise

        why = printable(str(error))
        print(f"checked with drawn pictures, since the run's data cannot be read: {why}", file=sys.stderr)
        return None


def _in_words(card: "Card") -> str:
    shape = " x ".join(map(str, card.input_shape))
    return f"{card.input} (uint8, {shape}) to {' and '.join(card.outputs)}"


class _Asked(NamedTuple):
    """What files are compared by; it is computed once for all of them.

    Attributes:
        pixels: Pictures in the net's size.
        called: What they are called.
        expected: What the run says of them.
        data: Where they come from; None for drawn ones.
        most: How many of the test pictures are taken at most.
    """

    pixels: "Tensor"
    called: str
    expected: "Answers"
    data: "ImageDataModule | None"
    most: int


def _asked(classifier: "Classifier", data: "ImageDataModule | None", most: int) -> _Asked:
    import torch

    from pet_cifar.runs import export_check as check

    if data is None:
        pixels, called = check.drawn_pictures(classifier.module, DRAWN), "drawn pictures"
    else:
        batches = check.batches_of(data.pixels("test"), len(data.splits["test"]), most)
        pixels, called = torch.cat(list(batches)), "test pictures"
    return _Asked(pixels, called, check.run_answers(classifier.module, pixels), data, most)


def _prove(classifier: "Classifier", card: "Card", file: Path, asked: _Asked, kind: str) -> "tuple[Card, list[str]]":
    """Compares the file with the run; also returns the card with what came of it, and the lines to print.

    Raises:
        InputError: It answers otherwise.
    """
    from pet_cifar.runs import export_check as check

    net, called, expected = classifier.module, asked.called, asked.expected
    ask = check.file_asker(file, kind)
    if card.input == "pixels":
        found = check.compare(expected, check.answers_of(ask, asked.pixels), called)
        check.refuse_difference(net, found, asked.pixels if kind == "onnx" else None)
        told = [str(found)]
    else:
        same_size = check.picture_answers(ask, check.as_pictures(asked.pixels))
        found = check.compare(expected, same_size, f"{called} in its size")
        check.refuse_difference(net, found, None)
        pictures = check.whole_pictures(asked.data, asked.most) if asked.data is not None else None
        if pictures is not None:
            whole = check.compare(expected, check.picture_answers(ask, pictures), f"{called} in their own size")
        else:  # The data has no files, or is not there.
            drawn = check.large_pictures(net)
            expected = check.run_answers(net, check.in_its_size(net, drawn))
            whole = check.compare(expected, check.picture_answers(ask, drawn), "drawn pictures of other sizes")
        told = [str(found), str(whole)]
    card = replace(card, check="; ".join(told))
    if kind == "onnx":
        check.write_check(file, card)
    return card, [f"checked: {told[0]}", *(f"measured: {line}" for line in told[1:])]


def _quantize(card: "Card", file: Path, data: "ImageDataModule", asked: _Asked) -> list[str]:
    """Writes the file of 8-bit numbers; returns the lines that compare both."""
    from pet_cifar.runs import export_check as check
    from pet_cifar.runs.quantize import pictures_a_second, quantize

    target = _int8_name(file)
    quantize(file, target, check.batches_of(data.pixels("train"), len(data.splits["train"]), 256, size=32))
    labels = check.labels_of(data, asked.most)
    lines = []
    for name, one in (("float32", file), ("int8", target)):
        ask = check.file_asker(one, "onnx")
        answers = check.answers_of(ask, asked.pixels)
        right = 100 * float((answers[0].argmax(1) == labels).mean())
        speed = pictures_a_second(ask, asked.pixels)
        found = check.compare(asked.expected, answers, asked.called)
        lines.append(
            f"{name}: {one.stat().st_size / 1e6:.1f} MB, {speed:,.0f} pictures/s, {right:.2f} % right; {found}"
        )
        if one == target:
            check.write_check(target, replace(card, check=f"8-bit numbers, not equal: {found}"))
    return lines
