"""Which class and split a file belongs to, by the folders and names of files alone."""

import pytest

from pet_cifar.data.layout import LayoutFile, read_layout


def numbered(*folders: str, count: int = 3, suffix: str = ".jpg") -> list[str]:
    return [f"{folder}/{number}{suffix}" for folder in folders for number in range(count)]


def counts(paths: list[str]) -> dict[tuple[str, str], int]:
    """How many files there are of each (split, class)."""
    found: dict[tuple[str, str], int] = {}
    for file in read_layout(paths).files:
        found[file.split, file.label] = found.get((file.split, file.label), 0) + 1
    return found


BOTH = {("", "cats"): 3, ("", "dogs"): 3}


@pytest.mark.parametrize("around", ["", "photos/", "a/b/c/"])
def test_a_folder_a_class(around: str) -> None:
    assert counts(numbered(f"{around}cats", f"{around}dogs")) == BOTH


def test_folders_below_a_class_belong_to_it() -> None:
    paths = [*numbered("cats/white/old", "dogs"), *numbered("cats", count=2, suffix=".png")]
    assert counts(paths) == {("", "cats"): 5, ("", "dogs"): 3}


@pytest.mark.parametrize("around", ["", "petimages/", "x/data/"])
@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "valid", "testing"), ("TRAIN", "Val", "Test")]
)
def test_a_folder_a_split(around: str, names: tuple[str, str, str]) -> None:
    paths = numbered(*(f"{around}{split}/{name}" for split in names for name in ("cats", "dogs")))
    assert counts(paths) == {(split, name): 3 for split in ("train", "val", "test") for name in ("cats", "dogs")}


def test_only_some_splits_and_strangers_beside_them() -> None:
    paths = [*numbered("train/cats", "train/dogs", "valid/cats", "other/cats"), "train/odd.jpg", "notes.txt"]
    layout = read_layout(paths)
    assert counts(paths) == {("train", "cats"): 3, ("train", "dogs"): 3, ("val", "cats"): 3}
    assert layout.others == ["notes.txt", "other/cats/0.jpg", "other/cats/1.jpg", "other/cats/2.jpg", "train/odd.jpg"]
    assert layout.classes == ["cats", "dogs"]


def test_classes_that_are_called_like_a_split_are_classes_without_a_training_folder() -> None:
    assert counts(numbered("test", "control")) == {("", "control"): 3, ("", "test"): 3}


@pytest.mark.parametrize(
    "names",
    [
        ["cat.0.jpg", "cat.1.jpg", "dog.0.jpg", "dog.12.jpg"],
        ["cat_0.png", "cat_1.png", "dog_0.png", "dog_1.png"],
        ["cat (1).jpg", "cat (2).jpg", "dog (1).jpg", "dog (2).jpg"],
        ["0001_cat.png", "0002_cat.png", "a_dog.png", "0004_dog.png"],
        ["cat1.jpg", "cat2.jpg", "dog1.jpg", "dog2.jpg"],
    ],
)
@pytest.mark.parametrize("around", ["", "all/", "train/"])
def test_the_class_in_the_name_of_each_file(names: list[str], around: str) -> None:
    split = "train" if around == "train/" else ""
    assert counts([around + name for name in names]) == {(split, "cat"): 2, (split, "dog"): 2}


def test_pictures_without_any_class_are_others() -> None:
    paths = [*(f"train/{name}.{number}.jpg" for name in ("cat", "dog") for number in range(3)), *numbered("test")]
    assert counts(paths) == {("train", "cat"): 3, ("train", "dog"): 3}
    assert read_layout(paths).others == numbered("test")
    assert not read_layout(["1.jpg", "2.jpg", "3.jpg"]).files
    assert not read_layout([]).files


def test_names_of_any_script_and_with_spaces() -> None:
    names = ["Érable à sucre", "猫", "Ель", "class 10", "class 9"]
    layout = read_layout(numbered(*names))
    assert set(layout.classes) == set(names)
    assert layout.classes.index("class 9") < layout.classes.index("class 10")
    assert LayoutFile("Érable à sucre/0.jpg", "Érable à sucre", "") in layout.files


def test_other_files_decide_nothing() -> None:
    paths = [*numbered("photos/cats", "photos/dogs"), "readme.txt", "photos/labels.csv", "models/net.bin"]
    assert counts(paths) == BOTH
