"""``pet-cifar data``: look at the pictures before any training."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from pet_cifar.cli.parser import Parser, unwrapped
from pet_cifar.data import ImageDataModule, manifest, manifest_report


def run_data(args: Sequence[str]) -> None:
    """Runs ``check`` or ``prepare``."""
    parser = Parser(prog="pet-cifar data", description="Look at the pictures before any training.")
    commands = parser.add_subcommands(dest="command")
    check = _parser("Check every picture; print how many there are of each kind and write the list as CSV.")
    check.add_argument("--output", type=Path, default=Path("manifest.csv"), help="Where the list goes.")
    commands.add_subcommand("check", check, help="list every picture with a verdict")
    commands.add_subcommand("prepare", _parser("Download and check, and nothing else."), help="download and check")
    arguments = list(args)
    if arguments[:1] in (["check"], ["prepare"]) and not {"--data", "--config", "-h", "--help"} & set(arguments):
        arguments[1:1] = ["--data", "CatsDogsDataModule"]
    config = parser.parse_args(arguments)
    options: Namespace = config[config.command]
    with unwrapped():
        data: ImageDataModule = parser.instantiate_classes(config)[config.command].data
    data.locate()
    pictures = data.check()
    print(manifest_report.summary(pictures))
    left_out = manifest_report.describe_left_out(pictures)
    if left_out:
        print(left_out)
    for kept, left in manifest_report.label_conflicts(pictures):
        print(f"label conflict: {kept.path} is {kept.label}, and the same picture {left.path} is {left.label}")
    if config.command == "check":
        manifest.write_csv(pictures, options.output)
        print(f"list written to {options.output}")
    if data.on_bad_file == "error":
        manifest_report.refuse_bad_files(pictures, data.root)
    manifest_report.refuse_empty_classes(pictures, data.class_names, data.root)


def _parser(description: str) -> Parser:
    parser = Parser(description=description)
    parser.add_subclass_arguments(
        ImageDataModule, "data", required=True, help="The data module; CatsDogsDataModule if none is given."
    )
    return parser
