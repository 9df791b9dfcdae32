"""``pet-cifar data doctor``: says what is wrong with pictures, on the terminal and on a page."""

import logging
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pet_cifar.cli.parser import Parser
from pet_cifar.data import ImageDataModule
from pet_cifar.errors import InputError, check_new_folder
from pet_cifar.names import printable

log = logging.getLogger(__name__)

BACKBONE = "tf_efficientnet_lite0"
FOLDER = Path("lightning_logs") / "data_doctor"


def add_arguments(parser: Parser) -> None:
    """Adds the options that this command has beside those of the data."""
    parser.add_argument(
        "--weights",
        type=str,
        default="timm",
        help="Weights of the net that looks for wrong labels: timm downloads them, a safetensors or pth file needs no "
        "network, and none looks for no wrong labels.",
    )
    parser.add_argument("--backbone", type=str, default=BACKBONE, help="The name of that net in timm.")
    parser.add_argument(
        "--output", type=Path | None, help=f"A new folder for the page and the tables; {FOLDER}/version_N if null."
    )
    parser.add_argument("--most", type=int, default=100, help="How many findings of each kind the page shows.")


def options_of_config(config: dict[str, Any]) -> list[str]:
    """The words for the net that a config trains, where it is one of timm's."""
    model = config.get("model") or {}
    if not isinstance(model, dict) or str(model.get("class_path")).rpartition(".")[2] != "TimmClassifier":
        return []
    given = model.get("init_args") or {}
    names = (("backbone", given.get("name")), ("weights", given.get("weights")))
    return [word for name, value in names if value not in (None, "none") for word in (f"--{name}", str(value))]


def run_doctor(data: ImageDataModule, options: Namespace) -> None:
    """Examines the pictures, prints the summary and writes the page.

    Args:
        data: The data module, which has not been set up.
        options: The options of `add_arguments`.

    Raises:
        InputError: An option is wrong, or the pictures cannot be used at all.
    """
    if options.most < 0:
        raise InputError(f"--most {options.most}: it is a number of findings, 0 or more")
    folder = _new_folder(options.output)
    # These imports take a while, and --help answers without them.
    from pet_cifar.doctor import page
    from pet_cifar.doctor.examination import examine, summarize
    from pet_cifar.doctor.features import features_of, prepare_for_net

    size = data.image_size
    prepare_for_net(data)
    data.prepare_data()
    data.setup("fit")
    features = None
    if options.weights != "none":
        try:
            features = features_of(data, options.backbone, options.weights)
        except InputError as error:
            # Without a network all else can be examined; weights and a net that the user names must be right.
            if options.weights != "timm" or options.backbone != BACKBONE:
                told = str(error).replace("--model.weights", "--weights").replace("--model.name", "--backbone")
                raise InputError(told) from error
            reason = str(error).partition(";")[0]
            log.warning("wrong labels are not looked for: %s; give --weights FILE, or --weights none", reason)
    found = examine(data, features, size)
    print(page.table(list(summarize(found))))
    page.write(found, data, folder, options.most)
    print(f"page written to {printable(str(folder / 'index.html'))}, and beside it findings.csv and exclude.csv")
    proposed = len(page.proposed_rows(page.findings_of(found)))
    print(
        f"{proposed} pictures are proposed to be left out: look at them on the page, delete the lines of those that "
        f"you keep from exclude.csv, and give --data.exclude {printable(str(folder / 'exclude.csv'))}"
        if proposed
        else "no picture is proposed to be left out"
    )


def _new_folder(output: Path | None) -> Path:
    if output is None:
        taken = [int(path.name[8:]) for path in FOLDER.glob("version_*") if path.name[8:].isdecimal()]
        return FOLDER / f"version_{max(taken, default=-1) + 1}"
    output = output.expanduser()
    check_new_folder("--output", output)
    return output
