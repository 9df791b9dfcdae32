"""All files below a folder: links, loops and hidden files."""

from pathlib import Path

import pytest

from pet_cifar.data.files.walk import walk
from pet_cifar.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_at_any_depth_are_found_and_hidden_ones_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "x/b.jpg", "x/y/z/c d.JPG", ".hidden/d.jpg", "x/.e.jpg", "x/._b.jpg", "__MACOSX/f.jpg")
    touch(tmp_path, "x/.ipynb_checkpoints/g.jpg")
    assert sorted(walk(tmp_path)) == ["a.jpg", "x/b.jpg", "x/y/z/c d.JPG"]


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.jpg", "data/own/2.jpg")
    (tmp_path / "data/linked").symlink_to(tmp_path / "real")
    (tmp_path / "data/own/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/own/self").symlink_to(tmp_path / "data/own")
    (tmp_path / "data/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert sorted(walk(tmp_path / "data")) == ["gone.jpg", "linked/1.jpg", "own/2.jpg"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot list .*Dog: No such file"):
        walk(tmp_path / "Dog")
