"""Processes that have other options or other pictures than the first are stopped before the first step."""

import time
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli import ranks_agree
from pet_cifar.cli.ranks_agree import RanksAgree
from pet_cifar.data import manifest
from pet_cifar.data.files import locking
from pet_cifar.errors import InputError
from tests.cli.ranks import SPREAD, together
from tests.conftest import write_cats_dogs

FIT = ["fit", "--config", "digits_residual", "--model.widths", "[4]", *SPREAD, "--trainer.max_epochs", "1"]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_with_another_option_stops_all_in_one_line() -> None:
    ends, said, _ = together([*FIT, "--model.lr", "0.01"], [*FIT, "--model.lr", "0.02", "--data.cache", "none"])
    assert ends == [2, 2], said
    for text in said:
        (line,) = [line for line in text.splitlines() if line.startswith("pet-cifar: error: ")]
        assert "--model.lr is 0.02 in process 1 and 0.01 in process 0" in line
        assert "--data.cache is none in process 1 and ram in process 0" in line
        assert "Traceback" not in text
    assert not list(Path("lightning_logs").glob("*/version_*"))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_machine_with_another_picture_stops_all_and_one_with_another_folder_does_not(tmp_path: Path) -> None:
    roots = [write_cats_dogs(tmp_path / name, per_class=12) for name in ("a", "b")]
    fit = [
        *("fit", "--model", "CatsDogsCNN", "--data", "CatsDogsDataModule", "--data.image_size", "32", *SPREAD),
        *("--data.batch_size", "4", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"),
    ]
    commands = [[*fit, "--data.root", str(root)] for root in roots]
    ends, said, _ = together(*commands)
    assert ends == [0, 0], said
    (roots[1] / "PetImages/Dog/3.jpg").unlink()
    ends, said, _ = together(*commands)
    assert ends == [2, 2], said
    line = said[0].splitlines()[-1]
    assert f"--data.root: process 1 ({roots[1]}) has other pictures than process 0 ({roots[0]})" in line
    assert "Dog/3.jpg is in process 0 alone" in line


def test_every_kind_of_difference_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = RanksAgree("fit", {"data": {"init_args": {"root": "a", "fold": None}}, "trainer": {"max_epochs": 3}}).facts
    assert "--data.root" not in own
    other = RanksAgree("fit", {"data": {"init_args": {"root": "b", "fold": "1/5"}}, "trainer": {"max_epochs": 4}}).facts
    with pytest.raises(
        InputError, match=r"--data.fold is 1/5 in processes 1, 2 and None in process 0; --trainer.max_e"
    ):
        ranks_agree._refuse_other_facts([own, other, other])
    with pytest.raises(InputError, match="torch is 1.0 in process 2 and "):
        ranks_agree._refuse_other_facts([own, own, {**own, "torch": "1.0"}])
    ranks_agree._refuse_other_facts([own, own])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"a/1.png": "x", "a/2.png": "z"}, ": a/2.png is another file"),
        ({"a/1.png": "x"}, ": a/2.png is in process 0 alone"),
        (
            {"a/1.png": "x", "a/2.png": "y", "a/10.png": "y", "a/3.png": "y"},
            ": a/3.png is in process 1 alone, and 1 more",
        ),
        ({"a/2.png": "y", "a/1.png": "x"}, ""),
    ],
)
def test_the_first_differing_picture_is_named(other: Any, told: str) -> None:
    found = ranks_agree._example([{"a/1.png": "x", "a/2.png": "y"}, other], 1)
    assert found.startswith(told)
    assert bool(found) == bool(told)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_one_process_checks_the_pictures_and_the_other_says_that_it_waits(cats_dogs_zip_root: Path) -> None:
    def slow() -> None:
        own = manifest.check_file

        def check_file(*args: Any) -> manifest.ImageRecord:
            with Path("checked").open("a") as file:
                file.write(f"{args[1]}\n")
            time.sleep(0.1)
            return own(*args)

        vars(manifest)["check_file"] = check_file
        vars(locking)["TELL_AFTER"] = 0.2

    fit = [
        *("fit", "--model", "CatsDogsCNN", "--data", "CatsDogsDataModule", "--data.image_size", "32", *SPREAD),
        *("--data.batch_size", "4", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"),
        *("--data.root", str(cats_dogs_zip_root)),
    ]
    ends, said, _ = together(fit, fit, before=[slow, slow])
    assert ends == [0, 0], said
    checked = Path("checked").read_text().splitlines()
    assert len(checked) == len(set(checked)) > 40
    told = [f"makes the list of pictures of {cats_dogs_zip_root}" in text for text in said]
    assert sorted(told) == [False, True]
