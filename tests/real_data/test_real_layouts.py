"""The real cats and dogs, laid out in other ways, are divided into the very same splits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pet_cifar.data import CatsDogsDataModule, ImageDataModule, ImageFolderDataModule
from tests.real_data.test_real_pictures import FOLDER

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="PET_CIFAR_REAL_DATA names no folder with the real archives"),
]


def splits_of(data: ImageDataModule) -> dict[str, set[str]]:
    data.prepare_data()
    data.setup("fit")
    return {split: {record.hash for record in records} for split, records in data.splits.items()}


def link(source: Path, place: Callable[[Path], Path]) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            target = place(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)


@pytest.mark.parametrize("layout", ["archive", "wrapped", "train", "names", "table"])
def test_another_layout_gives_the_same_splits(layout: str, tmp_path: Path) -> None:
    (archive,) = FOLDER.glob("kagglecatsanddogs_*.zip")
    original = tmp_path / "original"
    original.mkdir()
    (original / archive.name).symlink_to(archive)
    pets = CatsDogsDataModule(original)
    wanted = splits_of(pets)
    source, root = pets.folder, tmp_path / "laid out"
    options: dict[str, str | Path] = {}
    match layout:
        case "archive":
            root = tmp_path / "my pets.zip"
            root.symlink_to(archive)
        case "wrapped":
            link(source, lambda file: root / "a/b" / file.parent.name / file.name)
        case "train":
            link(source, lambda file: root / "train" / file.parent.name / file.name)
        case "names":
            link(source, lambda file: root / f"{file.parent.name}.{file.name}")
        case "table":
            link(source, lambda file: root / file.parent.name / file.name)
            rows = [f"{file.parent.name}/{file.name};{file.parent.name}" for file in source.rglob("*.jpg")]
            (root / "labels.csv").write_text("\n".join(["path;label", *rows]))
            options = {"labels": root / "labels.csv"}
    assert splits_of(ImageFolderDataModule(root, grayscale=False, **options)) == wanted  # type: ignore[arg-type]
