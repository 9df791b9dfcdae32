"""Names of files with control codes, formulas and bytes that are no UTF-8, from the check to a table of predictions."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import status_of
from tests.cli.forging import QUIET

ROOT = os.fsdecode(b"pictures \xe9\x1b[31m")
CLASSES = (os.fsdecode(b"ch\xe8vre"), "=SUM(1)", "-dash\x1b[5m")
NET = ("--model", "ResidualCNN", "--model.widths", "[4]", "--data.image_size", "16", "--trainer.max_epochs", "1")
FOLDER = ("--data", "ImageFolderDataModule", "--data.root", ROOT)
RUN = "lightning_logs/ResidualCNN"


@pytest.fixture(autouse=True)
def _pictures() -> None:
    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        folder = Path(ROOT) / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 90, (24, 24, 3), np.uint8)
            pixels[:, :12] += np.uint8(60 * label)
            file = (f"={number}.png", f"+{number}\x1b[31m.png", os.fsdecode(b"\xff%d.png" % number), f"\n{number}.png")
            with (folder / file[number % 4]).open("wb") as stream:
                Image.fromarray(pixels).save(stream, "PNG")
    (Path(ROOT) / CLASSES[0] / os.fsdecode(b"bad\xfe\x1b.png")).write_bytes(b"no picture")


def codes_in(text: str) -> list[str]:
    return [letter for letter in text.replace("\n", "") if not letter.isprintable() and letter not in "\r\t"]


def cells_of(file: Path) -> Iterator[str]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        for row in csv.reader(stream):
            yield from row


def test_they_come_through_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of("data", "check", *FOLDER, "--output", os.fsdecode(b"list \xe9.csv")) == 0
    assert status_of("data", "doctor", *FOLDER, "--weights", "none", "--output", "examined") == 0
    bar = QUIET[2:]
    assert status_of("fit", *NET, *FOLDER, *bar) == 0
    assert status_of("test", "--run", RUN, *bar) == 0
    run = Path(RUN) / "version_0"
    assert status_of("fit", "--ckpt_path", run / "checkpoints" / "last.ckpt", "--trainer.max_epochs", "2", *bar) == 0
    assert status_of("fit", "--config", run / "config.yaml", *bar) == 0
    assert status_of("predict", "--run", run, ROOT, "--output", "table.csv", "--copy", "copies") == 1
    shown = capfd.readouterr()
    assert not codes_in(shown.out + shown.err)
    tables = [*Path().glob("*.csv"), *Path("examined").glob("*.csv"), *run.rglob("*.csv")]
    assert len(tables) > 5
    for table in tables:
        assert not [cell for cell in cells_of(table) if cell.startswith(("=", "+", "@", "-dash", "\t", "\r"))], table
    for page in [*Path("examined").glob("*.html"), *run.rglob("*.json"), Path("table.csv")]:
        assert b"\x1b" not in page.read_bytes(), page


def test_a_list_keeps_the_names_as_they_are() -> None:
    assert status_of("data", "check", *FOLDER, "--output", "list.csv") == 0
    from pet_cifar.data.manifest import read_csv

    listed = {record.path for record in read_csv(Path("list.csv"))}
    found = {os.path.relpath(path, ROOT) for path in Path(ROOT).rglob("*.png")}
    assert listed == found
