"""``pet-cifar data``: looks at the pictures before any training."""

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from pet_cifar.cli import doctor, trust
from pet_cifar.cli.config_files import find_config
from pet_cifar.cli.configs import read_config
from pet_cifar.cli.parser import Parser, check_values
from pet_cifar.cli.plain_parser import split_words
from pet_cifar.data import ImageDataModule, manifest, manifest_report
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.root import is_writable, state_directory
from pet_cifar.errors import InputError
from pet_cifar.names import printable
from pet_cifar.runs.trusted import HELP


def run_data(args: Sequence[str]) -> None:
    """Runs ``check``, ``doctor`` or ``prepare``."""
    parser = Parser(prog="pet-cifar data", description="Look at the pictures before any training.")
    commands = parser.add_subcommands(dest="command")
    check = _parser("Check every picture; print how many there are of each kind and write the list as CSV.")
    check.add_argument("--output", type=Path | None, help="Where the list goes; manifest.csv beside the data if null.")
    commands.add_subcommand("check", check, help="list every picture with a verdict")
    examine = _parser("Examine the pictures: near duplicates, wrong labels, shortcuts, blank and odd pictures.")
    doctor.add_arguments(examine)
    commands.add_subcommand("doctor", examine, help="say what is wrong with the pictures, with a page to look at")
    commands.add_subcommand("prepare", _parser("Download and check, and nothing else."), help="download and check")
    command = args[0]
    names, words = split_words(args[1:], "-c", "--config")
    files = [find_config(name) for name in names]
    configs = [read_config(file) for file in files]
    chosen = [config.get("data") or {} for config in configs]
    for file, one in zip(files, chosen, strict=True):
        trust.check_config(check, {"data": one}, f"--config {file}")
    trust.refuse_files(check, words)
    if not chosen and not any(word.partition("=")[0] == "--data" for word in words):
        chosen = ["CatsDogsDataModule"]
    words = [word for one in chosen for word in _words_of(one)] + words
    if command == "doctor":
        words = [word for config in configs for word in doctor.options_of_config(config)] + words
    config = parser.parse_args([command, *words])
    options: Namespace = config[config.command]
    check_values(commands.choices[config.command], options)
    data: ImageDataModule = parser.instantiate_classes(config)[config.command].data
    if config.command == "doctor":
        doctor.run_doctor(data, options)
        return
    data.prepare_data()
    pictures = data.listed
    print(manifest_report.verdict_table(pictures))
    left_out = manifest_report.describe_left_out(pictures)
    if left_out:
        print(left_out)
    for kept, left in manifest_report.label_conflicts(pictures):
        names = [printable(text) for text in (kept.path, kept.label, left.path, left.label)]
        print("label conflict: {} is {}, and the same picture {} is {}".format(*names))
    if config.command == "check":
        print(f"list written to {printable(str(_write(pictures, data.root, options.output)))}")
    if data.on_bad_file == "error":
        manifest_report.refuse_bad_files(pictures, data.root)
    manifest_report.refuse_empty_classes(pictures, data.class_names, data.root)
    # A run would refuse these splits, too.
    usable = [picture for picture in pictures if picture.verdict == manifest.OK]
    manifest_report.report_splits(data.divide(usable), data.class_names, data.root)


def data_module(data: object, source: str, words: Sequence[str] = ()) -> ImageDataModule:
    """Builds a data module.

    Args:
        data: What a config says of it.
        source: What the config is, for the message.
        words: Options that win over it, such as ``--data.root``.

    Raises:
        InputError: A word is wrong, or the config names a class that no file may name.
    """
    parser = _parser("")
    trust.check_config(parser, {"data": data}, source)
    found: ImageDataModule = parser.instantiate_classes(parser.parse_args([*_words_of(data), *words])).data
    return found


def _words_of(data: object) -> list[str]:
    return ["--data", data if isinstance(data, str) else json.dumps(data)]


def _write(pictures: Sequence[ImageRecord], root: Path, output: Path | None) -> Path:
    """Writes the list, but never over a file of the user's."""
    folder = root if root.is_dir() else root.parent
    # Where the data is read-only, what is derived from it goes to the user's cache.
    beside = folder if is_writable(folder) else state_directory(folder)
    output = (output or beside / "manifest.csv").expanduser()
    if output.exists() and not manifest.is_listing(output):
        raise InputError(
            f"--output {output}: this file is there, and it is no list of pictures; give another name, such as "
            "--output pictures.csv"
        )
    manifest.write_csv(pictures, output)
    return output


def _parser(description: str) -> Parser:
    parser = Parser(description=description)
    parser.add_argument(
        "-c", "--config", help="Take the data module of this config: a file or a shipped config's name."
    )
    parser.add_argument("--trust", type=str | None, metavar="MODULE", help=HELP)
    parser.add_subclass_arguments(
        ImageDataModule, "data", required=True, help="The data module; CatsDogsDataModule where none is given."
    )
    return parser
