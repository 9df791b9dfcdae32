"""Anybody's pictures: any layout gives the same classes and splits, and every bad input its one line."""

import logging
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pet_cifar.cli.main import main
from pet_cifar.data import CatsDogsDataModule, ImageFolderDataModule
from pet_cifar.data.layout import read_layout
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.split import stratified_split
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import InputError
from tests.cli.commands import refused

FRUITS = ("apple", "pear", "plum")


def write(root: Path, *names: str, count: int = 12, first: int = 0) -> Path:
    for label, name in enumerate(names or FRUITS):
        write_pictures(root / name, 3 * label, count=count, size=16, first=first)
    return root


def ready(root: Path | None, **options: Any) -> ImageFolderDataModule:
    data = ImageFolderDataModule(root, **{"image_size": 16, "batch_size": 4, "cache": "none", **options})
    data.prepare_data()
    data.setup("fit")
    return data


def sizes(data: ImageFolderDataModule) -> list[int]:
    return [len(data.splits[split]) for split in ("train", "val", "test")]


def test_classes_follow_the_folders(tmp_path: Path) -> None:
    data = ready(write(tmp_path))
    assert data.class_names == FRUITS
    assert data.num_classes == 3
    assert sizes(data) == [28, 4, 4]
    for records in data.splits.values():
        assert {record.label for record in records} == set(FRUITS)


def _wrapped(source: Path, target: Path) -> Path:
    shutil.copytree(source, target / "download/fruits")
    return target


def _zipped(source: Path, target: Path) -> Path:
    target.mkdir()
    with zipfile.ZipFile(target / "fruits.zip", "w") as archive:
        for file in sorted(source.rglob("*.png")):
            archive.write(file, file.relative_to(source))
    return target / "fruits.zip"


def _tarred(source: Path, target: Path) -> Path:
    target.mkdir()
    with tarfile.open(target / "fruits.tar.gz", "w:gz") as archive:
        archive.add(source, "fruits")
    return target


def _named(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.rglob("*.png"):
        shutil.copyfile(file, target / f"{file.parent.name}.{file.name}")
    return target


def _trained(source: Path, target: Path) -> Path:
    shutil.copytree(source, target / "train")
    return target


@pytest.mark.parametrize("lay_out", [_wrapped, _zipped, _tarred, _named, _trained])
def test_every_layout_gives_the_same_split(tmp_path: Path, lay_out: Any) -> None:
    expected = ready(write(tmp_path / "source"))
    found = ready(lay_out(tmp_path / "source", tmp_path / "other"))
    assert found.class_names == expected.class_names
    assert found.fingerprint == expected.fingerprint


def test_a_table_gives_the_same_split(tmp_path: Path) -> None:
    expected = ready(write(tmp_path / "source"))
    rows = [f"{name}/{number}.png;{name}" for name in FRUITS for number in range(12)]
    (tmp_path / "source/labels.csv").write_text("\n".join(["file;label", *rows]))
    assert ready(None, labels=tmp_path / "source/labels.csv").fingerprint == expected.fingerprint


def test_splits_that_are_given_are_kept_and_others_taken_out_of_train(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "train")
    write(tmp_path / "valid", count=3, first=100)
    data = ready(tmp_path)
    assert sizes(data) == [32, 9, 4]
    assert {record.path.split("/")[0] for record in data.splits["val"]} == {"valid"}
    assert {record.path.split("/")[0] for record in data.splits["test"]} == {"train"}
    assert "test is taken out of train" in caplog.text


def test_a_class_that_a_split_lacks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", "apple", "pear", count=3, first=100)
    data = ready(tmp_path)
    assert data.class_names == FRUITS
    assert "class plum has no picture in test" in caplog.text


def test_a_class_without_training_pictures_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train", "apple", "pear")
    write(tmp_path / "test", count=3, first=100)
    with pytest.raises(InputError, match="class plum has no training picture"):
        ready(tmp_path)


def test_files_of_no_class_are_listed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "readme.txt").write_text("fruits")
    (tmp_path / "apple/Thumbs.db").write_text("")
    (tmp_path / ".DS_Store").write_text("")
    data = ready(tmp_path)
    assert [record.path for record in data.listed if record.verdict == "no class"] == ["readme.txt"]


def test_few_and_rare_pictures_are_divided(tmp_path: Path) -> None:
    write(tmp_path, "cat", count=63)
    write(tmp_path, "dog", count=3, first=100)
    data = ready(tmp_path)
    for records in data.splits.values():
        assert Counter(record.label for record in records)["dog"] == 1


def test_one_class_that_is_nearly_all_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "cat", count=95)
    write(tmp_path, "dog", count=5, first=200)
    ready(tmp_path)
    assert " % of the training pictures are of the class cat" in caplog.text
    assert "--model.class_weights balanced" in caplog.text


@pytest.mark.parametrize("options", [{}, {"group_by": r"(\w+/\d)"}], ids=["plain", "groups"])
def test_the_tests_of_all_folds_score_every_picture_once(tmp_path: Path, options: dict[str, str]) -> None:
    write(tmp_path, count=20)
    scored: Counter[str] = Counter()
    sides: dict[str, set[int]] = {}
    for number in range(1, 5):
        data = ready(tmp_path, fold=f"{number}/4", **options)
        scored.update(record.path for record in data.splits["test"])
        for record in data.splits["test"]:
            sides.setdefault(data.groups.get(record.path, record.path), set()).add(number)
        assert not {record.path for record in data.splits["test"]} & {record.path for record in data.splits["train"]}
    assert scored == Counter(record.path for record in data.listed)
    assert {len(found) for found in sides.values()} == {1}
    assert not options or len(sides) < len(scored)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "a/b", "-1/5"])
def test_a_fold_that_makes_no_sense_is_refused(tmp_path: Path, fold: str) -> None:
    with pytest.raises(InputError, match=f"fold is {fold}"):
        ImageFolderDataModule(write(tmp_path), fold=fold)


def test_folds_and_a_test_split_of_its_own_do_not_go_together(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", count=3, first=100)
    with pytest.raises(InputError, match="fold is 1/2, but this dataset has a test split of its own"):
        ready(tmp_path, fold="1/2")


def test_gray_or_color_follows_the_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert ready(write(tmp_path / "color")).num_channels == 3
    for label, name in enumerate(FRUITS):
        (tmp_path / "gray" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([number, label]).integers(0, 255, (16, 16), np.uint8)
            gray = Image.fromarray(pixels)
            # A gray picture may be saved in color.
            (gray.convert("RGB") if number % 2 else gray).save(tmp_path / "gray" / name / f"{number}.png")
    assert ready(tmp_path / "gray").num_channels == 1
    assert "grayscale: true, since 20 of 36 pictures" in caplog.text
    assert "grayscale: false, since apple/0.png has colors" in caplog.text
    assert ready(tmp_path / "gray", grayscale=False).num_channels == 3


def test_pictures_of_one_group_are_in_one_split(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        for animal in range(10):
            folder = tmp_path / "all" / name
            write_pictures(tmp_path / "new", label, count=4, size=16, first=10 * animal)
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(4):
                shutil.move(tmp_path / f"new/{number}.png", folder / f"animal{animal}_{number}.png")
            (tmp_path / "new").rmdir()
    data = ready(tmp_path / "all", group_by=r"(\w+/animal\d+)_", test_fraction=0.2, val_fraction=0.25)
    groups = [{record.path.rpartition("_")[0] for record in data.splits[split]} for split in ("train", "val", "test")]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 20, "no group is in two splits"
    rows = [
        f"{name}/animal{animal}_{number}.png,{name},{name}/animal{animal}"
        for name in ("cat", "dog")
        for animal in range(10)
        for number in range(4)
    ]
    (tmp_path / "all/labels.csv").write_text("\n".join(["path,label,animal", *rows]))
    table = ready(None, labels=tmp_path / "all/labels.csv", group_by="animal", test_fraction=0.2, val_fraction=0.25)
    assert table.fingerprint == data.fingerprint


def test_names_of_any_script_train_and_test(tmp_path: Path) -> None:
    write(tmp_path, "Érable à sucre", "猫", os.fsdecode(b"caf\xe9"))
    quick = ["--data.image_size", "16", "--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"]
    main(["fit", "--data", "ImageFolderDataModule", "--data.root", str(tmp_path), *quick])
    cli = main(["test", "--run", "lightning_logs/ResidualCNN"])
    assert cli is not None
    assert set(cli.datamodule.class_names) == {"Érable à sucre", "猫", "caf\\xe9"}
    assert "猫" in Path("lightning_logs/ResidualCNN/version_0/test/predictions.csv").read_text(encoding="utf-8")


def _one_class(root: Path) -> None:
    write(root, "apple")


def _strangers(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("")


def _single(root: Path) -> None:
    write(root, "apple", "pear")
    write(root, "plum", count=1, first=100)


def _bad(root: Path) -> None:
    for name in FRUITS:
        (root / name).mkdir(parents=True)
        for number in range(4):
            (root / name / f"{number}.jpg").write_bytes(b"no picture")


def _case(root: Path) -> None:
    write(root, "Apple", "apple", "pear")


def _empty(root: Path) -> None:
    root.mkdir()


def _nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("lay_out", "options", "words"),
    [
        (_nothing, [], ["--data.root", "there is no such folder"]),
        (_empty, [], ["--data.root", "nothing", "--data.labels"]),
        (_strangers, [], ["--data.root", "notes.txt"]),
        (_one_class, [], ["--data.root", "apple", "at least 2"]),
        (_single, [], ["class plum has 1 usable picture"]),
        (_bad, [], ["class apple has no readable picture"]),
        (_case, [], ["Apple", "apple", "case"]),
        (write, ["--data.images_per_class", "99"], ["--data.images_per_class is 99", "12"]),
        (write, ["--data.images_per_class", "0"], ["--data.images_per_class is 0"]),
        (write, ["--data.group_by", "("], ["--data.group_by is (", "regular expression"]),
        (write, ["--data.group_by", "animal"], ["--data.group_by is animal"]),
        (write, ["--data.group_by", "(animal)"], ["--data.group_by is (animal)", "does not match"]),
        (write, ["--data.labels", "nowhere.csv"], ["--data.labels is nowhere.csv"]),
    ],
)
def test_bad_input_gets_its_line(
    tmp_path: Path, lay_out: Any, options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    lay_out(root)
    existed = root.exists()
    net = ["--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"]
    message = refused(
        capsys,
        "fit",
        "--data",
        "ImageFolderDataModule",
        "--data.image_size",
        "16",
        "--data.root",
        str(root),
        *net,
        *options,
    )
    for word in words:
        assert word in message
    assert root.exists() == existed, "a folder that is not there is not made"


def test_classes_have_one_order_in_every_process(tmp_path: Path) -> None:
    names = ["plate 1", "plate 01", "plate 001", "plate 2"]
    found = {
        tuple(read_layout(f"{name}/{n}.jpg" for name in order for n in range(2)).classes)
        for order in permutations(names)
    }
    assert found == {("plate 001", "plate 01", "plate 1", "plate 2")}


def test_a_cover_beside_the_only_folder_is_no_class() -> None:
    layout = read_layout(["ds/a/1.jpg", "ds/a/2.jpg", "ds/b/1.jpg", "ds/b/2.jpg", "cover.png"])
    assert layout.classes == ["a", "b"]
    assert layout.others == ["cover.png"]


def test_accents_make_one_class_however_they_are_written() -> None:
    assert read_layout(["train/caf\u00e9/1.jpg", "train/x/1.jpg", "test/cafe\u0301/2.jpg"]).classes == [
        "caf\u00e9",
        "x",
    ]


def _two_splits(root: Path) -> None:
    write(root / "val", "cat", "dog")
    write(root / "test", "cat", "dog", first=100)


def _misspelled(root: Path) -> None:
    write(root / "train", "cat", "dog")
    write(root / "val", "catt", "dog", count=3, first=100)


def _phones(root: Path) -> None:
    root.mkdir()
    for number in range(4):
        for name in ("IMG", "PXL"):
            write_pictures(root / "new", 0, count=1, size=16, first=10 * number)
            shutil.move(root / "new/0.png", root / f"{name}_{number}.png")
            (root / "new").rmdir()


@pytest.mark.parametrize(
    ("lay_out", "words"),
    [
        (_two_splits, ["test and val", "no train"]),
        (_misspelled, ["class catt has no training picture", "did you mean cat?"]),
        (_phones, ["IMG and PXL", "--data.labels FILE"]),
        (_single, ["class plum has 1 usable picture"]),
    ],
)
def test_the_check_refuses_what_a_run_would_refuse(
    tmp_path: Path, lay_out: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path / "data")
    options = ["--data", "ImageFolderDataModule", "--data.root", str(tmp_path / "data"), "--data.image_size", "16"]
    for command in (["data", "check"], ["fit", "--model", "ResidualCNN"]):
        message = refused(capsys, *command, *options)
        for word in words:
            assert word in message


def test_a_folder_is_given_as_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--data.root {tmp_path}" in refused(capsys, "data", "check", str(tmp_path))
    assert "data doctor" in refused(capsys, "doctor", str(tmp_path))


def test_a_table_beside_the_pictures_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label, name in enumerate(("oak", "elm")):
        write_pictures(tmp_path / "new", label, count=4, size=16)
        for number in range(4):
            shutil.move(tmp_path / f"new/{number}.png", tmp_path / f"{name}_{number}.png")
        (tmp_path / "new").rmdir()
    (tmp_path / "labels.csv").write_text("path,label\n")
    ready(tmp_path)
    assert "labels.csv" in caplog.text
    assert "--data.labels" in caplog.text


def test_files_in_the_folder_of_a_class_that_are_no_pictures_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    (tmp_path / "apple/raw.CR2").write_bytes(b"")
    ready(tmp_path)
    assert "1 .cr2" in caplog.text


def table(root: Path, rows: list[str], header: str = "path,label,animal") -> Path:
    (root / "labels.csv").write_text("\n".join([header, *rows]))
    return root / "labels.csv"


def test_pictures_without_a_group_stand_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "cat", "dog", count=20)
    rows = [f"{name}/{n}.png,{name},{'a' if n < 2 else ''}" for name in ("cat", "dog") for n in range(20)]
    with caplog.at_level("INFO"):
        data = ready(None, labels=table(tmp_path, rows), group_by="animal")
    assert "36 of 40 pictures have no group" in caplog.text
    assert len(set(data.groups.values())) == 37


@pytest.mark.parametrize(
    ("share", "groups"), [(0.1, 20), (0.3, 20), (0.4, 20), (0.6, 20), (0.8, 20), (0.1, 5), (0.1, 3)]
)
def test_whole_groups_come_near_the_share(share: float, groups: int, caplog: pytest.LogCaptureFixture) -> None:
    records = [
        ImageRecord(f"{label}/{group}_{n}.jpg", label, "", 1, 0, 0, 8, 8, "RGB", f"{label}{group}{n}", "ok")
        for label in ("a", "b")
        for group in range(groups)
        for n in range(4)
    ]
    with caplog.at_level("INFO"):
        rest, taken = stratified_split(records, share, 1, "test_fraction", lambda one: one.path.partition("_")[0])
    names = [{one.path.partition("_")[0] for one in side} for side in (rest, taken)]
    assert not names[0] & names[1]
    found = len(taken) / len(records)
    if groups == 20:
        assert found == pytest.approx(share, abs=0.051)
    else:  # There is no smaller share of so few groups.
        assert found == pytest.approx(1 / groups, abs=0.01)
        assert "test_fraction: whole groups make it" in caplog.text


def test_a_split_of_groups_is_found_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        rare = set(rng.choice(24, 6, replace=False).tolist())
        records = [
            ImageRecord(f"{g}_{n}", "b" if g in rare else "a", "", 1, 0, 0, 8, 8, "RGB", f"{g}{n}", "ok")
            for g in range(24)
            for n in range(3)
        ]
        for side in stratified_split(records, 0.1, seed, "test_fraction", lambda one: one.path.partition("_")[0]):
            assert {one.label for one in side} == {"a", "b"}


def test_groups_that_the_data_itself_divides_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "cat", "dog")
    rows = [
        f"{name}/{n}.png,{name},{n % 3},{'test' if n > 8 else 'train'}" for name in ("cat", "dog") for n in range(12)
    ]
    file = table(tmp_path, rows, "path,label,animal,split")
    with pytest.raises(
        InputError, match="group_by divides 3 groups, such as .*, which is in the splits test and train"
    ):
        ready(None, labels=file, group_by="animal")
    assert sizes(ready(None, labels=file))[2] == 6


def test_pictures_that_a_table_does_not_name_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "cat", "dog")
    data = ready(
        None,
        labels=table(tmp_path, [f"{name}/{n}.png,{name}" for name in ("cat", "dog") for n in range(9)], "path,label"),
    )
    assert Counter(record.verdict for record in data.listed)["no class"] == 6 + 1


def test_a_table_may_lie_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "pictures", "cat", "dog")
    file = table(tmp_path, [f"{name}/{n}.png,{name}" for name in ("cat", "dog") for n in range(9)], "path,label")
    assert sum(sizes(ready(tmp_path / "pictures", labels=file))) == 18
    with pytest.raises(InputError, match="labels is .*, and none of its 18 files is there"):
        ready(None, labels=file)
    with pytest.raises(InputError, match="root is .*nowhere"):
        ready(tmp_path / "nowhere", labels=file)


def test_validation_takes_its_share_of_what_is_divided(tmp_path: Path) -> None:
    write(tmp_path / "train", "cat", "dog", "rabbit", count=30)
    write(tmp_path / "test", "cat", "dog", count=4, first=100)
    for count, val in ((None, 6), (10, 2)):
        data = CatsDogsDataModule(tmp_path, image_size=16, cache="none", images_per_class=count)
        data.setup("fit")
        assert len(data.splits["val"]) == val


@pytest.mark.parametrize("place", ["inside", "itself"])
def test_cats_and_dogs_in_an_archive_of_any_name(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pet_cifar.data.datasets.cats_dogs.fetch", lambda *_, **__: pytest.fail("a download"))
    write(tmp_path / "new", "cats", "dogs", count=6)
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/dogs-vs-cats.zip", "w") as archive:
        for file in sorted((tmp_path / "new").rglob("*.png")):
            archive.write(file, f"train/{file.parent.name[:-1]}.{file.stem}.png")
    root = tmp_path / "data"
    data = CatsDogsDataModule(root if place == "inside" else root / "dogs-vs-cats.zip", image_size=16, cache="none")
    data.setup("fit")
    assert sum(map(len, data.splits.values())) == 12


def test_the_list_that_a_check_writes_is_no_file_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set")
    check = ["data", "check", "--data", "ImageFolderDataModule", "--data.root", str(tmp_path / "set")]
    main(check)
    assert (tmp_path / "set/manifest.csv").exists()
    capsys.readouterr()
    main(check)
    assert "left out" not in "".join(capsys.readouterr())
