"""Pictures that show the same are on one side of every split that is made here, and are told where they are not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pet_cifar.data import ImageFolderDataModule, leakage
from pet_cifar.data.leakage import NearDuplicates, drop_from_training, group_numbers, keep_together, straddling
from pet_cifar.data.manifest import OK, ImageRecord, Split
from pet_cifar.errors import InputError
from tests.data.test_near_duplicates import cropped, tiles

Splits = dict[Split, list[ImageRecord]]


def record(path: str, label: str = "a", split: str = "") -> ImageRecord:
    return ImageRecord(path, label, split, 1, 0, 0, 8, 8, "RGB", path, OK)


def pair(first: ImageRecord, second: ImageRecord) -> NearDuplicates:
    return NearDuplicates(first, second, False, 0.9)


def paths(splits: Splits) -> dict[str, list[str]]:
    return {name: [one.path for one in records] for name, records in splits.items()}


A = [record(f"{number}.jpg") for number in range(12)]


def test_all_go_where_the_first_is() -> None:
    splits: Splits = {"train": A[:8], "val": A[8:10], "test": A[10:]}
    after = keep_together(splits, [pair(A[3], A[10])], {})
    assert paths(after)["train"] == [*(f"{number}.jpg" for number in range(8)), "10.jpg"]
    assert paths(after)["test"] == ["11.jpg"]
    after = keep_together({"train": A[4:], "val": A[:2], "test": A[2:4]}, [pair(A[3], A[5]), pair(A[5], A[8])], {})
    assert paths(after)["test"] == ["2.jpg", "3.jpg", "5.jpg", "8.jpg"]


def test_every_picture_is_tested_once_by_all_folds() -> None:
    halves = [A[::2], A[1::2]]
    pairs = [pair(A[0], A[3]), pair(A[5], A[8])]
    tested = []
    for fold in (0, 1):
        after = keep_together({"train": halves[1 - fold], "val": [], "test": halves[fold]}, pairs, {})
        tested += paths(after)["test"]
        assert not straddling(after, pairs)
    assert sorted(tested) == sorted(one.path for one in A)


def test_a_group_moves_as_a_whole() -> None:
    groups = {one.path: "cow" if one in (A[10], A[11]) else one.path for one in A}
    after = keep_together(
        {"train": A[:8], "val": A[8:10], "test": [*A[10:], record("x.jpg"), record("y.jpg")]},
        [pair(A[0], A[10])],
        groups,
    )
    assert paths(after)["test"] == ["x.jpg", "y.jpg"]
    assert {"10.jpg", "11.jpg"} <= set(paths(after)["train"])


def test_a_given_test_split_stays() -> None:
    test = [record("t0.jpg", split="test"), record("t1.jpg", split="test")]
    splits: Splits = {"train": A[:8], "val": A[8:], "test": test}
    pairs = [pair(A[0], test[0]), pair(A[9], test[0]), pair(A[1], A[8])]
    after = keep_together(splits, pairs, {})
    assert paths(after)["test"] == ["t0.jpg", "t1.jpg"]
    assert {two: len(found) for two, found in straddling(after, pairs).items()} == {
        ("train", "test"): 1,
        ("val", "test"): 1,
    }
    dropped = drop_from_training(after, pairs)
    assert "0.jpg" not in paths(dropped)["train"]
    assert "9.jpg" not in paths(dropped)["val"]
    assert paths(dropped)["test"] == ["t0.jpg", "t1.jpg"]
    assert not straddling(dropped, pairs)


def test_a_class_that_would_be_lost_stops_the_move(caplog: pytest.LogCaptureFixture) -> None:
    splits: Splits = {"train": A[:8], "val": A[8:10], "test": A[10:]}
    alike = [pair(A[0], other) for other in A[1:]]
    with caplog.at_level("WARNING"):
        assert paths(keep_together(splits, alike, {})) == paths(splits)
    assert "0.jpg" in caplog.text
    assert "--data.drop_near_duplicates train" in caplog.text


def test_a_rare_class_stops_no_other_move(caplog: pytest.LogCaptureFixture) -> None:
    rare = [record(f"z{number}.jpg", "rare") for number in range(3)]
    splits: Splits = {"train": [*A[:8], rare[0]], "val": [*A[8:10], rare[1]], "test": [*A[10:], rare[2]]}
    pairs = [pair(A[3], A[10]), pair(rare[0], rare[2])]
    with caplog.at_level("WARNING"):
        after = keep_together(splits, pairs, {})
    assert "10.jpg" in paths(after)["train"]
    # Neither side of the rare class can do without its only picture.
    assert paths(after)["test"] == ["11.jpg", "z2.jpg"]
    assert "z0.jpg" in caplog.text
    assert list(straddling(after, pairs)) == [("train", "test")]


def test_a_group_goes_to_the_other_side_where_the_first_one_cannot_take_it() -> None:
    few = [record(f"z{number}.jpg", "few") for number in range(4)]
    splits: Splits = {"train": [*A[:8], *few[:3]], "val": A[8:10], "test": [*A[10:], few[3]]}
    after = keep_together(splits, [pair(few[0], few[3])], {})
    assert "z0.jpg" in paths(after)["test"]


def test_group_numbers_join_what_shows_the_same_and_what_belongs_together() -> None:
    numbers = group_numbers(A[:6], [pair(A[0], A[3])], {A[3].path: "x", A[4].path: "x"})
    assert numbers[0] == numbers[3] == numbers[4]
    assert len(set(numbers.tolist())) == 4


def write_photographs(root: Path) -> None:
    """Two classes of 30 photographs each, and in class ``b`` cropped copies of 12 of its own."""
    pieces = [tile for tile in tiles() if np.asarray(tile.convert("L")).std() > 25]
    for name, own in (("a", pieces[:20]), ("b", pieces[20:40])):
        (root / name).mkdir(parents=True)
        for number, piece in enumerate(own):
            piece.save(root / name / f"{number}.jpg", quality=92)
    for number in range(12):
        cropped(pieces[20 + number]).save(root / "b" / f"copy{number}.jpg", quality=85)


def test_copies_in_a_folder_are_never_on_two_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "set")
    for seed in range(3):
        data = ImageFolderDataModule(tmp_path / "set", image_size=16, test_fraction=0.25, split_seed=seed)
        data.prepare_data()
        data.setup("fit")
        pairs = data.near_duplicates()
        assert len(pairs) == 12
        assert not straddling(data.splits, pairs)
        assert sum(map(len, data.splits.values())) == 52
    # What was found is kept beside the data, also where the folder is moved and its files are renamed.
    shutil.move(tmp_path / "set", tmp_path / "moved")
    (tmp_path / "moved" / "b" / "copy0.jpg").rename(tmp_path / "moved" / "b" / "first.jpg")
    monkeypatch.setattr(leakage, "small_pictures", lambda *_: pytest.fail("read again"))
    data = ImageFolderDataModule(tmp_path / "moved", image_size=16)
    data.setup("fit")
    assert {one.path for found in data.near_duplicates() for one in (found.first, found.second)} >= {"b/first.jpg"}
    # Other pictures are another question.
    Image.new("RGB", (20, 20), "red").save(tmp_path / "moved" / "a" / "new.png")
    with pytest.raises(pytest.fail.Exception, match="read again"):
        ImageFolderDataModule(tmp_path / "moved", image_size=16).setup("fit")


def test_a_damaged_result_is_found_anew(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    data = ImageFolderDataModule(tmp_path, image_size=16)
    data.setup("fit")
    (kept,) = (tmp_path / ".pet_cifar").glob("near_duplicates-*.json")
    for damaged in ("[[1, 2", "[[1, 99999, false, 1]]", "{}x", "[1]", "[" * 200_000, "[[Infinity, 2, false, 1]]"):
        kept.write_text(damaged)
        assert len(data.near_duplicates()) == 12


def test_training_pictures_like_those_of_a_given_test_split_can_be_dropped(tmp_path: Path) -> None:
    write_photographs(tmp_path / "train")
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
    for number in range(3):
        source = tmp_path / "train" / "b" / f"copy{number}.jpg"
        source.rename(tmp_path / "test" / "b" / f"{number}.jpg")
        (tmp_path / "train" / "a" / f"{number}.jpg").rename(tmp_path / "test" / "a" / f"{number}.jpg")
    kept = ImageFolderDataModule(tmp_path, image_size=16)
    kept.setup("fit")
    assert len(straddling(kept.splits, kept.near_duplicates())) > 0
    dropped = ImageFolderDataModule(tmp_path, image_size=16, drop_near_duplicates="train")
    dropped.setup("fit")
    assert len(dropped.splits["test"]) == 6
    gone = {one.path for one in kept.splits["train"] + kept.splits["val"]} - {
        one.path for one in dropped.splits["train"] + dropped.splits["val"]
    }
    assert gone == {"train/b/0.jpg", "train/b/1.jpg", "train/b/2.jpg"}
    with pytest.raises(InputError, match="drop_near_duplicates is 'test'"):
        ImageFolderDataModule(tmp_path, drop_near_duplicates="test")


def test_among_very_many_pictures_nothing_is_looked_for_unasked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path)
    monkeypatch.setattr(leakage, "MOST", 51)
    monkeypatch.setattr(leakage, "small_pictures", lambda *_: pytest.fail("looked for"))
    data = ImageFolderDataModule(tmp_path, image_size=16)
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert "52 pictures" in caplog.text
    assert len(set(data.group_numbers("train").tolist())) == len(data.splits["train"])
    with pytest.raises(pytest.fail.Exception, match="looked for"):
        ImageFolderDataModule(tmp_path, image_size=16, drop_near_duplicates="train").setup("fit")
