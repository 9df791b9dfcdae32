"""``pet-cifar export``: a trained net as a file for other programs, proved to answer as the run does."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.cli.run_option import add_root_option, add_run_option, data_of_run, load_run
from pet_cifar.data.files.names import printable
from pet_cifar.errors import InputError, disk_errors

if TYPE_CHECKING:
    from torch import Tensor

    from pet_cifar.data import ImageDataModule
    from pet_cifar.runs.export import Card
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
    # These imports take seconds, and --help answers without them.
    from pet_cifar.runs import export
    from pet_cifar.runs.directory import read_checkpoint, run_of_checkpoint

    if options.format in ("onnx", "web"):
        export.check_packages("onnx", "onnxscript", "onnxruntime")
    classifier = load_run(options.run, "cpu")
    classifier.check_layers("--run")
    checkpoint = read_checkpoint(classifier.checkpoint)
    takes: export.Input = options.input or ("picture" if options.format == "web" else "pixels")
    card = export.card_of(classifier, checkpoint, takes)
    run = run_of_checkpoint(classifier.checkpoint)
    name = card.run.replace("/", "_").removesuffix(".ckpt")
    default = (run or classifier.checkpoint.parent) / "exported" / f"{name}{FORMATS[options.format]}"
    target: Path = options.output or default
    with disk_errors(target, "; give another --output"):
        target.parent.mkdir(parents=True, exist_ok=True)
    data = _data(checkpoint, options.root)
    if options.format == "safetensors":
        export.write_safetensors(classifier, card, target)
        print(f"weights written to {printable(str(target))}, and what they are to {target.with_suffix('.json').name}")
        return
    if options.format == "torch":
        export.write_torch(classifier, card, takes, target)
        _prove(classifier, card, target, data, options.most, "torch")
    elif options.format == "web":
        _export_page(classifier, card, target, data, options)
        return
    else:
        export.write_onnx(classifier, card, takes, target)
        _prove(classifier, card, target, data, options.most, "onnx")
    print(f"{options.format} file written to {printable(str(target))}: {_in_words(card)}")
    if options.int8:
        _quantize(classifier, target, data, options.most)


def _check_options(options: Any) -> None:
    if options.output and options.output.exists() and (options.format != "web" or any(options.output.iterdir())):
        raise InputError(f"--output {options.output}: there is something already; give another name")
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
        print(f"checked with drawn pictures, since the run's data cannot be read: {error}", file=sys.stderr)
        return None


def _in_words(card: "Card") -> str:
    shape = " x ".join(map(str, card.input_shape))
    return f"{card.input} (uint8, {shape}) to {' and '.join(card.outputs)}"


def _pixels(classifier: "Classifier", data: "ImageDataModule | None", most: int) -> "tuple[Tensor, str]":
    """The pictures that a file is checked with, in the net's size, and what they are called."""
    import torch

    from pet_cifar.runs.export_check import batches_of, drawn_pictures

    if data is None:
        return drawn_pictures(classifier.module, DRAWN), "drawn pictures"
    return torch.cat(list(batches_of(data.pixels("test"), len(data.splits["test"]), most))), "test pictures"


def _prove(
    classifier: "Classifier", card: "Card", file: Path, data: "ImageDataModule | None", most: int, kind: str
) -> "Card":
    """Compares the file with the run, and removes one that differs; the card that comes back says what came of it."""
    from pet_cifar.runs import export_check as check

    net = classifier.module
    pixels, called = _pixels(classifier, data, most)
    expected = check.run_answers(net, pixels)
    if card.input == "pixels":
        ask = check.torch_answers if kind == "torch" else check.onnx_file_answers
        found = check.compare(expected, ask(file, pixels), called)
    else:
        found = check.compare(
            expected, _picture_answers(file, check.as_pictures(pixels), kind), f"{called} in its size"
        )
    check.refuse_difference(net, found, pixels, card.input, file)
    print(f"checked: {found}")
    lines = [str(found)]
    if card.input == "picture" and data is not None and (pictures := check.whole_pictures(data, most)):
        whole = check.compare(expected, _picture_answers(file, pictures, kind), f"{called} in their own size")
        print(
            f"measured: {whole}"
            + ("" if whole.is_exact else "; a run decodes large pictures at a smaller scale at once")
        )
        lines.append(str(whole))
    card = replace(card, check="; ".join(lines))
    if kind == "onnx":
        check.write_check(file, card)
    return card


def _picture_answers(file: Path, pictures: Sequence[Any], kind: str) -> Any:
    from pet_cifar.runs import export_check as check

    if kind == "torch":
        import torch

        module = torch.export.load(file).module()
        return check.picture_answers(lambda picture: module(torch.from_numpy(picture)), pictures)
    session = check.session_of(file)
    return check.picture_answers(lambda picture: session.run(None, {"picture": picture}), pictures)


def _quantize(classifier: "Classifier", file: Path, data: "ImageDataModule | None", most: int) -> None:
    from pet_cifar.runs import export_check as check
    from pet_cifar.runs.quantize import pictures_a_second, quantize

    if data is None:
        raise InputError("--int8 needs training pictures, and the run's data cannot be read; give --data.root DIR")
    target = file.with_name(f"{file.stem}_int8.onnx")
    quantize(file, target, check.batches_of(data.pixels("train"), len(data.splits["train"]), 256, size=32))
    pixels, called = _pixels(classifier, data, most)
    expected = check.run_answers(classifier.module, pixels)
    labels = check.labels_of(data, most)
    for name, one in (("float32", file), ("int8", target)):
        session = check.session_of(one)
        answers = check.onnx_answers(session, pixels)
        right = 100 * float((answers[0].argmax(1) == labels).mean())
        speed = pictures_a_second(session, pixels)
        size = one.stat().st_size / 1e6
        found = check.compare(expected, answers, called)
        print(f"{name}: {size:.1f} MB, {speed:,.0f} pictures/s, {right:.2f} % right; {found}")
    print(f"int8 file written to {printable(str(target))}")


def _export_page(
    classifier: "Classifier", card: "Card", folder: Path, data: "ImageDataModule | None", options: Any
) -> None:
    from pet_cifar.runs import export, web_page

    runtime = web_page.read_runtime(options.onnxruntime_web)
    with disk_errors(folder, "; give another --output"):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / "net.onnx"
    export.write_onnx(classifier, card, "picture", file)
    card = _prove(classifier, card, file, data, options.most, "onnx")
    page = web_page.write(folder, file, card, runtime)
    print(f"page written to {printable(str(page))}; open it in a browser, it needs no network")
