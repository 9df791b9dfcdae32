"""A regular expression is matched as Python does it, and is ended where it would take for ever."""

import time
from pathlib import Path

import pytest

from pet_cifar.data import patterns
from pet_cifar.data.patterns import first_groups
from pet_cifar.errors import InputError
from tests.cli.commands import refused
from tests.data.test_image_folder import write

PATHS = ["cat/rex_1.jpg", "cat/\udcff_2.jpg", "dög/x_3.jpg"]


def test_the_first_group_is_found_in_each_path() -> None:
    assert first_groups(r"/(\w+|[^a])_(\d+)", PATHS, "group_by") == ["rex", "\udcff", "x"]
    assert first_groups(r"(rex)?_\d", PATHS, "group_by") == ["rex", "", ""]
    # Repetitions within repetitions may be meant well.
    assert first_groups(r"((?:[^/_]+_?)+)\d+\.jpg$", PATHS, "group_by") == ["rex_", "\udcff_", "x_"]
    assert first_groups("x_", PATHS, "group_by") is None


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "unterminated"), ("(" * 50_000, "recursion"), ("(a{99999999999})", "too large"), ("(rex)", PATHS[1])],
)
def test_what_is_no_pattern_is_told(pattern: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        first_groups(pattern, PATHS, "group_by")
    assert str(caught.value).startswith(f"group_by is {pattern[:100]}")
    assert len(str(caught.value)) < 400
    assert told in str(caught.value)


@pytest.mark.parametrize("pattern", ["^(([a-zA-Z/.0-9]+)+)+!$", "^((a|a|[^!])*)!", "(" + ".*" * 40 + "!)"])
def test_no_pattern_takes_for_ever(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.5)
    root = write(tmp_path / "all")
    any_picture = next((root / "apple").iterdir())
    any_picture.rename(any_picture.with_stem("a_long_name_of_a_picture_of_an_apple"))
    began = time.monotonic()
    words = ("--data", "ImageFolderDataModule", "--data.root", str(root), "--data.group_by", pattern)
    line = refused(capsys, "data", "check", *words)
    assert f"--data.group_by is {pattern}" in line
    assert time.monotonic() - began < 60
