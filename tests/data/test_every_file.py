"""Every file below the data's folder is used, or listed with a verdict and told."""

import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pet_cifar.cli.main import main
from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule, ImageDataModule, manifest_report
from pet_cifar.data.files.walk import walk
from pet_cifar.data.synthetic import synthetic_picture, write_pictures
from pet_cifar.errors import InputError
from tests.cli.commands import refused
from tests.conftest import write_cats_dogs, write_cifar10_batches, write_cifar10_folders


def cats(root: Path, **options: Any) -> ImageDataModule:
    return ready(CatsDogsDataModule(root, image_size=16, cache="none", **options))


def ready(data: ImageDataModule) -> ImageDataModule:
    data.prepare_data()
    data.setup("fit")
    return data


def verdicts(data: ImageDataModule) -> dict[str, str]:
    return {record.path: record.verdict for record in data.listed}


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(synthetic_picture(0, len(form), 24)).save(buffer, form)
    return buffer.getvalue()


def test_the_list_counts_what_lies_on_the_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets = write_cats_dogs(tmp_path) / "PetImages"
    write_pictures(pets / "Cat/kittens/2024", 7, count=4, size=16)
    write_pictures(pets / "Bird", 9, count=3, size=16)
    (pets / "Dog/lost.jpg").symlink_to(tmp_path / "not_mounted/lost.jpg")
    (pets / "Dog/phone.heic").write_bytes(heic())
    (pets / "Dog/new.avif").write_bytes(encoded("AVIF"))
    (pets / "Dog/new.jp2").write_bytes(encoded("JPEG2000"))
    (pets / "notes.txt").write_text("about the pets")
    data = cats(tmp_path)
    on_disk = [path for path in pets.rglob("*") if path.is_symlink() or path.is_file()]
    assert len(data.listed) == len(on_disk)
    found = verdicts(data)
    assert {found[f"Cat/kittens/2024/{number}.png"] for number in range(4)} == {"ok"}
    assert {found[f"Bird/{number}.png"] for number in range(3)} == {"no class"}
    assert found["notes.txt"] == "no class"
    assert found["Dog/lost.jpg"] == "broken link"
    assert found["Dog/new.avif"] == found["Dog/new.jp2"] == "ok"
    assert caplog.text.count("3 in Bird/") == 1
    assert "1 broken link (Dog/lost.jpg)" in caplog.text
    used = {record.path for records in data.splits.values() for record in records}
    assert used == {path for path, verdict in found.items() if verdict == "ok"}


def test_a_format_that_is_not_read_is_bad_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    pets = write_cats_dogs(tmp_path) / "PetImages"
    for empty in pets.glob("*/20.jpg"):
        empty.unlink()
    (pets / "Dog/phone.heic").write_bytes(heic())
    assert verdicts(cats(tmp_path))["Dog/phone.heic"] == "unsupported format"
    with pytest.raises(InputError, match=r"1 unsupported format \(Dog/phone\.heic\)"):
        cats(tmp_path, on_bad_file="error")


def test_most_links_of_a_class_lead_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pets = write_cats_dogs(tmp_path, per_class=10) / "PetImages"
    for number in range(100, 128):
        (pets / f"Cat/{number}.jpg").symlink_to(tmp_path / f"mount/{number}.jpg")
    cats(tmp_path)
    assert "28 broken link (Cat/100.jpg" in caplog.text
    with pytest.raises(InputError, match="28 broken link"):
        cats(tmp_path, on_bad_file="error")


def test_names_that_are_no_utf8_are_used_like_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, first_number in (("train", 0), ("test", 100)):
        for label, name in enumerate(("Cat", "Dog")):
            write_pictures(tmp_path / split / name, label, count=8, size=16, first=first_number)
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "test/Cat/0.png").rename(tmp_path / "test/Cat" / odd)
    first = cats(tmp_path)
    assert verdicts(first)[f"test/Cat/{odd}"] == "ok"
    assert verdicts(cats(tmp_path)) == verdicts(first), "the list comes back as it was"
    assert not list(tmp_path.rglob("*.part"))
    main(["data", "check", "--data", "CatsDogsDataModule", "--data.root", str(tmp_path)])
    assert "ok" in capsys.readouterr().out
    quick = ["--data.image_size", "16", "--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"]
    main(["fit", "--data", "CatsDogsDataModule", "--data.root", str(tmp_path), *quick])
    main(["test", "--run", "lightning_logs/ResidualCNN"])
    assert "caf\\xe9.png" in Path("lightning_logs/ResidualCNN/version_0/test/predictions.csv").read_text()


@pytest.mark.parametrize("size", [(0, 0), (5, 7)])
def test_a_file_that_is_replaced_under_its_size_and_date_is_read_again(tmp_path: Path, size: tuple[int, int]) -> None:
    pets = write_cats_dogs(tmp_path) / "PetImages"
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[size[0], size[1]] = 255
    file = pets / "Cat/0.bmp"
    Image.fromarray(pixels).save(file)
    status, before = file.stat(), cats(tmp_path)
    Image.fromarray(255 - pixels).save(tmp_path / "other.bmp")
    os.utime(tmp_path / "other.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    shutil.move(tmp_path / "other.bmp", file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = cats(tmp_path)
    hashes = [{record.path: record.hash for record in data.listed}["Cat/0.bmp"] for data in (before, after)]
    assert hashes[0] != hashes[1]
    assert before.fingerprint != after.fingerprint


def test_a_picture_that_is_replaced_under_its_size_and_date_after_the_check_is_refused(tmp_path: Path) -> None:
    pets = write_cats_dogs(tmp_path) / "PetImages"
    pixels = np.zeros((16, 16, 3), np.uint8)
    file = pets / "Cat/0.bmp"
    Image.fromarray(pixels).save(file)
    data, status = cats(tmp_path), file.stat()
    record = next(one for one in data.listed if one.path == "Cat/0.bmp")
    assert data.read(record).max() == 0
    Image.fromarray(255 - pixels).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    with pytest.raises(InputError, match=r"Cat/0\.bmp was changed after the pictures were checked; put it back"):
        data.read(record)


# Each split by itself


def test_a_class_without_a_training_picture_is_refused(tmp_path: Path) -> None:
    folder = write_cifar10_folders(tmp_path) / "cifar10"
    shutil.rmtree(folder / "train/frog")
    shutil.copytree(folder / "test/frog", folder / "train/frog")
    with pytest.raises(InputError, match="class frog .* under"):
        ready(CIFAR10DataModule(tmp_path))


def test_a_class_without_test_pictures_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_cifar10_folders(tmp_path) / "cifar10"
    for path in (folder / "test/frog").iterdir():
        path.unlink()
    ready(CIFAR10DataModule(tmp_path))
    assert "class frog has no picture in test" in caplog.text


# Layouts and archives that are one level off


def put(archive: Path, names: dict[str, str], root: Path) -> None:
    with zipfile.ZipFile(archive, "w") as target:
        for name, source in names.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            target.writestr(info, (root / source).read_bytes())


@pytest.mark.parametrize(
    "style", ["PetImages/{}/{}", "PetImages\\{}\\{}", "./PetImages/{}/{}", "kagglecatsanddogs_5340/PetImages/{}/{}"]
)
def test_every_style_of_the_zip_is_read(tmp_path: Path, style: str) -> None:
    source = write_cats_dogs(tmp_path / "source", per_class=12)
    names = {
        style.format(name, f"{number}.jpg"): f"PetImages/{name}/{number}.jpg"
        for name in ("Cat", "Dog")
        for number in range(12)
    }
    (tmp_path / "data").mkdir()
    put(tmp_path / "data/kagglecatsanddogs_5340.zip", names, source)
    data = cats(tmp_path / "data")
    assert sum(map(len, data.splits.values())) == 24
    assert data.fingerprint == cats(source).fingerprint


@pytest.mark.parametrize(
    "inside",
    ["kagglecatsanddogs_5340/PetImages", "a/petimages", "", "animals", "PetImages/all"],
)
@pytest.mark.parametrize("names", [("Cat", "Dog"), ("cats", "dogs"), ("CAT", "Dogs")])
def test_the_two_classes_are_found_where_people_put_them(tmp_path: Path, inside: str, names: tuple[str, str]) -> None:
    source = write_cats_dogs(tmp_path / "source", per_class=12) / "PetImages"
    for own, name in zip(("Cat", "Dog"), names, strict=True):
        shutil.copytree(source / own, tmp_path / "data" / inside / name)
    assert cats(tmp_path / "data").fingerprint == cats(tmp_path / "source").fingerprint


@pytest.mark.parametrize("pets", ["archive", "folders"])
def test_the_cats_and_dogs_of_cifar10_are_another_dataset(tmp_path: Path, pets: str) -> None:
    root = write_cifar10_folders(tmp_path / "data")
    source = write_cats_dogs(tmp_path / "source", per_class=12)
    if pets == "archive":
        names = [f"PetImages/{name}/{number}.jpg" for name in ("Cat", "Dog") for number in range(12)]
        put(root / "kagglecatsanddogs_5340.zip", dict(zip(names, names, strict=True)), source)
    else:
        shutil.copytree(source / "PetImages", root, dirs_exist_ok=True)
    assert cats(root).fingerprint == cats(source).fingerprint


def test_beside_cifar10_alone_cats_and_dogs_are_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_cifar10_folders(tmp_path)
    message = refused(capsys, "data", "check", "--data", "CatsDogsDataModule", "--data.root", str(root))
    assert "cannot download" in message


def test_the_layout_of_a_course_keeps_its_splits(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 100)):
        for label, name in enumerate(("cats", "dogs")):
            write_pictures(tmp_path / split / name, label, count=10, size=16, first=first)
    data = cats(tmp_path)
    assert len(data.splits["val"]) == 20
    assert {record.path.split("/")[0] for record in data.splits["val"]} == {"validation"}
    assert {record.path.split("/")[0] for record in data.splits["test"]} == {"train"}


def test_nothing_is_downloaded_where_other_pictures_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "horses", 1, count=3, size=16)
    message = refused(capsys, "data", "check", "--data", "CatsDogsDataModule", "--data.root", str(tmp_path))
    assert "3 pictures" in message
    assert "horses/0.png" in message
    assert "PetImages/Cat" in message
    assert "cannot download" not in message


def test_the_archive_that_is_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = write_cats_dogs(tmp_path / "source", per_class=12)
    names = {
        f"PetImages/{name}/{number}.jpg": f"PetImages/{name}/{number}.jpg"
        for name in ("Cat", "Dog")
        for number in range(12)
    }
    (tmp_path / "data").mkdir()
    for version in ("3367a", "5340"):
        put(tmp_path / f"data/kagglecatsanddogs_{version}.zip", names, source)
    cats(tmp_path / "data")
    assert "kagglecatsanddogs_5340.zip is used" in caplog.text


@pytest.mark.parametrize("kind", ["batches", "folders"])
@pytest.mark.parametrize("deeper", [True, False])
def test_cifar10_is_found_one_level_off(tmp_path: Path, kind: str, deeper: bool) -> None:
    source = tmp_path / "source"
    (write_cifar10_batches if kind == "batches" else write_cifar10_folders)(source)
    folder = source / ("cifar-10-batches-py" if kind == "batches" else "cifar10")
    expected = ready(CIFAR10DataModule(source)).fingerprint
    if deeper:
        shutil.move(folder, tmp_path / "data/download" / folder.name)
    else:
        shutil.move(folder, tmp_path / "data")
    assert ready(CIFAR10DataModule(tmp_path / "data")).fingerprint == expected


def test_a_batch_that_is_changed_in_place_is_read_anew(tmp_path: Path) -> None:
    folder = write_cifar10_batches(tmp_path) / "cifar-10-batches-py"
    before = ready(CIFAR10DataModule(tmp_path)).fingerprint
    content, status = (folder / "data_batch_1").read_bytes(), (folder / "data_batch_1").stat()
    place = content.index(b"data") + 200
    (folder / "data_batch_1").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    os.utime(folder / "data_batch_1", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ready(CIFAR10DataModule(tmp_path)).fingerprint != before


# data check


def test_the_list_goes_beside_the_data_and_over_no_file_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_cats_dogs(tmp_path / "data")
    Path("manifest.csv").write_text("mine")
    words = ["data", "check", "--data", "CatsDogsDataModule", "--data.root", str(root)]
    for _ in range(2):  # It may replace its own.
        main(words)
    assert Path("manifest.csv").read_text() == "mine"
    assert str(root / "manifest.csv") in capsys.readouterr().out
    message = refused(capsys, *words, "--output", "manifest.csv")
    assert "--output manifest.csv" in message
    assert Path("manifest.csv").read_text() == "mine"
    main([*words, "--output", "pictures.csv"])
    assert len(Path("pictures.csv").read_text().splitlines()) == 1 + len(walk(root / "PetImages"))


def test_the_table_names_what_occurs(tmp_path: Path) -> None:
    data = cats(write_cats_dogs(tmp_path))
    header = manifest_report.verdict_table(data.listed).splitlines()[0]
    assert header.split() == ["split", "class", "ok", "empty", "not", "an", "image"]
