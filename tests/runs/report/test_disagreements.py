import base64
import shutil
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pet_cifar.cli.run_option import data_of_run
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.report import disagreements
from pet_cifar.runs.report.disagreements import EACH, SIDE, Gallery
from pet_cifar.runs.tested_run import read_run
from tests.runs.report.synthetic import two_runs


def open_data(checkpoint: Mapping[str, Any]) -> ImageDataModule:
    return data_of_run(checkpoint, None)


@pytest.fixture
def two(digits_run: Path, tmp_path: Path) -> Comparison:
    return compare([read_run(run) for run in two_runs(digits_run, tmp_path)])


def test_the_surest_disagreements_come_first_with_the_maps_of_both_nets(two: Comparison) -> None:
    first, second = two.experiments
    assert first.name == "first"
    gallery = Gallery(two.experiments, open_data)
    groups = gallery.groups()
    assert gallery.missing == []
    assert [group.title for group in groups] == ["first is right, second is wrong", "second is right, first is wrong"]
    ours, theirs = first.rights[0], second.rights[0]
    assert [group.count for group in groups] == [(ours & ~theirs).sum(), (theirs & ~ours).sum()]
    wanted = [first.runs[0].paths[row] for row in np.flatnonzero(ours & ~theirs)[::-1][:EACH]]
    assert [shown.path for shown in groups[0].pictures] == wanted
    for group in groups:
        for shown in group.pictures:
            assert [answer.is_right for answer in shown.answers] == [True, False]
            assert shown.answers[0].predicted == shown.label != shown.answers[1].predicted
            for address in (shown.picture, *(answer.overlay for answer in shown.answers)):
                with Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
                    assert picture.size == (SIDE, SIDE)


def test_a_single_experiment_has_its_surest_mistakes(two: Comparison) -> None:
    (group,) = Gallery(two.experiments[:1], open_data).groups()
    run = two.experiments[0].runs[0]
    assert group.count == (~run.right).sum()
    assert [shown.path for shown in group.pictures] == [run.paths[row] for row in np.flatnonzero(~run.right)[::-1]][
        : 2 * EACH
    ]


def test_without_the_data_there_is_a_line_and_no_picture(two: Comparison) -> None:
    def gone(checkpoint: Mapping[str, Any]) -> ImageDataModule:
        raise InputError("there is no data/PetImages")

    gallery = Gallery(two.experiments, gone)
    assert gallery.groups() == []
    assert len(gallery.missing) == 2
    assert all("data/PetImages" in line and "--data.root" in line for line in gallery.missing)


def test_without_a_checkpoint_the_other_net_still_shows_the_pictures(two: Comparison) -> None:
    shutil.rmtree(two.experiments[1].runs[0].directory / "checkpoints")
    gallery = Gallery(two.experiments, open_data)
    groups = gallery.groups()
    (line,) = gallery.missing
    assert "second/version_0" in line
    assert "checkpoint" in line
    for shown in groups[0].pictures:
        assert shown.picture
        assert [bool(answer.overlay) for answer in shown.answers] == [True, False]


def test_without_captum_the_pictures_have_no_maps(two: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pet_cifar.callbacks.images.grad_cam.find_spec", lambda name: None)
    gallery = Gallery(two.experiments, open_data)
    groups = gallery.groups()
    assert len(groups[0].pictures) == EACH
    assert not any(answer.overlay for shown in groups[0].pictures for answer in shown.answers)
    assert all("captum" in line for line in gallery.missing)


def test_the_pictures_have_a_limit_of_bytes(two: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disagreements, "MOST_BYTES", 1)
    gallery = Gallery(two.experiments, open_data)
    assert [len(group.pictures) for group in gallery.groups()] == [1]
    (line,) = gallery.missing
    assert "MB" in line


def test_data_that_lacks_a_test_picture_is_told(two: Comparison) -> None:
    def fewer(checkpoint: Mapping[str, Any]) -> ImageDataModule:
        data = open_data(checkpoint)
        data.splits = {**data.splits, "test": data.splits["test"][1:]}
        return data

    gallery = Gallery(two.experiments, fewer)
    assert gallery.groups() == []
    assert all(two.experiments[0].runs[0].paths[0] in line for line in gallery.missing)
