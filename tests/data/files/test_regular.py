"""What is no file, or a giant one, is neither waited for nor read to its end, wherever a stranger may have put it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pet_cifar.callbacks.experiment import read_record
from pet_cifar.data import ImageFolderDataModule
from pet_cifar.data.exclusions import read_exclusions
from pet_cifar.data.files.plain_tensors import read_tensors
from pet_cifar.data.files.plain_yaml import read_yaml_file
from pet_cifar.data.files.regular import MAX_BYTES, read_regular
from pet_cifar.data.labels_file import read_labels_file
from pet_cifar.data.manifest import is_listing, read_csv
from pet_cifar.data.pixels.convert import pixels_of
from pet_cifar.errors import InputError
from pet_cifar.runs.checkpoint_file import check_hash
from pet_cifar.runs.curves import read_curves
from pet_cifar.runs.tested_run import read_run


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    # A socket takes no long name.
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)


KINDS = [pipe, device, listener]
READERS: list[Callable[[Path], Any]] = [
    check_hash,
    read_curves,
    read_exclusions,
    read_labels_file,
    read_regular,
    read_tensors,
    lambda path: pixels_of(path, 8, 3),
    lambda path: read_yaml_file(path, "--config"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(len(READERS)))
def test_a_reader_says_what_it_is(number: int, kind: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x"
    kind(path)
    with pytest.raises((InputError, OSError), match="pipe, a socket or a device"):
        READERS[number](path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_optional_counts_as_absent(kind: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("run.json", "manifest.csv"):
        kind(tmp_path / name)
    assert read_record(tmp_path) is None
    assert read_csv(tmp_path / "manifest.csv") == []
    assert not is_listing(tmp_path / "manifest.csv")


def test_a_giant_file_is_not_read(tmp_path: Path) -> None:
    giant(tmp_path / "x.png")
    with pytest.raises(OSError, match="512 MB"):
        read_regular(tmp_path / "x.png")


@pytest.mark.parametrize("kind", [*KINDS, giant])
def test_among_pictures_it_is_no_image(kind: Callable[[Path], None], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
    kind(tmp_path / "set" / "a" / "odd.png")
    data = ImageFolderDataModule(root=tmp_path / "set", image_size=8)
    data.setup("fit")
    assert [one.verdict for one in data.listed if one.path == "a/odd.png"] == ["not an image"]
    assert sum(map(len, data.splits.values())) == 40


@pytest.mark.parametrize("name", ["run.json", "test/scored.json", "test/metrics.json"])
def test_a_table_of_a_run_that_is_too_deep_is_told(name: str, tmp_path: Path) -> None:
    run = tmp_path / "a" / "version_0"
    (run / "test").mkdir(parents=True)
    (run / "test" / "predictions.csv").write_text("path,label,prediction,p_a,p_b\nx,a,a,1,0\n")
    for one in ("run.json", "test/scored.json", "test/metrics.json"):
        (run / one).write_text("{}")
    (run / name).write_text("[" * 200_000)
    with pytest.raises(InputError, match=name):
        read_run(run)
