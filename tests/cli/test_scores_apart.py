"""Scores of other data, or of a part of the pictures, stand apart from those of the run's own test."""

import csv
import json
from pathlib import Path

import pytest

from pet_cifar.cli.main import main
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.data.synthetic import write_pictures
from tests.cli.commands import fit, refused

RUN = Path("lightning_logs/ResidualCNN/version_0")
DIGITS = Path("lightning_logs/digits_residual/version_0")


def fit_pets(root: Path) -> None:
    net = ["--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"]
    main(["fit", "--data", "CatsDogsDataModule", "--data.root", str(root), "--data.image_size", "16", *net])


def write_pets(root: Path, first: int = 0, count: int = 20) -> Path:
    for label, name in enumerate(("Cat", "Dog")):
        write_pictures(root / "PetImages" / name, label, count=count, size=16, first=first)
    return root


def results_of(*options: str) -> Path:
    """The directory of a test's results."""
    before = set(RUN.iterdir())
    main(["test", "--run", str(RUN), *options])
    (new,) = set(RUN.iterdir()) - before - {path for path in RUN.iterdir() if path.name.startswith("events")}
    return new


def paths(directory: Path) -> set[str]:
    with (directory / "predictions.csv").open() as file:
        return {row["path"] for row in csv.DictReader(file)}


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def scalars(directory: Path) -> dict[str, int]:
    """How often each test value stands in TensorBoard's files."""
    events = b"".join(path.read_bytes() for path in directory.glob("events.out.tfevents.*"))
    return {"own": events.count(b"\x0a\x08test/acc\x15"), "other": events.count(b"/acc\x15")}


def test_a_test_on_other_pictures_scores_all_of_them_and_replaces_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_pets(write_pets(tmp_path / "own"))
    main(["test", "--run", str(RUN)])
    own, counted = snapshot(RUN / "test"), scalars(RUN)
    assert counted["own"] == 1
    other = write_pets(tmp_path / "others pictures", first=100, count=15)
    message = refused(capsys, "test", "--run", str(RUN), "--data.root", str(other))
    assert "--data.allow_other_data true" in message
    results = results_of("--data.root", str(other), "--data.allow_other_data", "true")
    assert results.name.startswith("test_on_others_pictures_")
    assert len(paths(results)) == json.loads((results / "metrics.json").read_text())["pictures"] == 30
    assert snapshot(RUN / "test") == own
    assert scalars(RUN)["own"] == counted["own"]
    assert str(results) in capsys.readouterr().out


def test_pictures_that_were_trained_on_are_not_scored(tmp_path: Path) -> None:
    root = write_pets(tmp_path / "own")
    fit_pets(root)
    data = CatsDogsDataModule(root, image_size=16)
    data.prepare_data()
    data.setup("test")
    unseen = {record.path for record in data.splits["test"]}
    # Another split of the same pictures holds some that were trained on.
    assert paths(results_of("--data.split_seed", "7", "--data.allow_other_data", "true")) == unseen
    # New pictures beside the old ones are all scored.
    for label, name in enumerate(("Cat", "Dog")):
        write_pictures(tmp_path / "new", label, count=5, size=16, first=200)
        for number in range(5):
            (tmp_path / f"new/{number}.png").rename(root / f"PetImages/{name}/new{number}.png")
        (tmp_path / "new").rmdir()
    new = {f"{name}/new{number}.png" for name in ("Cat", "Dog") for number in range(5)}
    assert paths(results_of("--data.allow_other_data", "true")) == unseen | new


def test_nothing_is_left_where_all_pictures_were_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pets(tmp_path / "own")
    fit_pets(root)
    data = CatsDogsDataModule(root, image_size=16)
    data.prepare_data()
    data.setup("test")
    for record in data.splits["test"]:
        (root / "PetImages" / record.path).unlink()
    message = refused(capsys, "test", "--run", str(RUN), "--data.allow_other_data", "true")
    assert "trained on all" in message
    assert str(root) in message


def test_a_part_of_the_pictures_replaces_nothing() -> None:
    fit()
    main(["test", "--run", str(DIGITS)])
    own = snapshot(DIGITS / "test")
    main(["test", "--run", str(DIGITS), "--trainer.limit_test_batches", "1"])
    assert json.loads((DIGITS / "test_of_1_batches/metrics.json").read_text())["pictures"] == 60
    assert snapshot(DIGITS / "test") == own


def test_predictions_of_a_part_replace_nothing_either(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    main(["predict", "--run", str(DIGITS)])
    own = snapshot(DIGITS / "predict")
    main(["predict", "--run", str(DIGITS), "--trainer.limit_predict_batches", "1"])
    assert len(paths(DIGITS / "predict_of_1_batches")) == 60
    assert snapshot(DIGITS / "predict") == own
    assert "predict_of_1_batches/predictions.csv" in capsys.readouterr().out


def test_a_class_without_test_pictures_has_no_accuracy(tmp_path: Path) -> None:
    for split, first, names in (("train", 0, ("Cat", "Dog")), ("test", 100, ("Cat",))):
        for label, name in enumerate(names):
            write_pictures(tmp_path / split / name, label, count=10, size=16, first=first)
    fit_pets(tmp_path)
    main(["test", "--run", str(RUN)])
    metrics = json.loads((RUN / "test/metrics.json").read_text())
    assert "test/acc_dog" not in metrics
    assert metrics["test/acc_cat"] == metrics["test/acc"]


def test_scores_that_are_no_numbers_stay_json() -> None:
    # The loss of a third step would not be finite, which would end the run.
    fit(
        "--model.lr",
        "1e30",
        "--model.optimizer",
        "sgd",
        "--model.schedule",
        "constant",
        "--trainer.limit_train_batches",
        "2",
    )
    main(["test", "--run", str(DIGITS)])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    metrics = json.loads((DIGITS / "test/metrics.json").read_text(), parse_constant=refuse)
    assert metrics["test/loss"] is None


def test_other_classes_are_never_scored_as_the_nets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, names in (("own", ("apple", "pear")), ("other", ("pear", "plum")), ("same", ("Apple", "PEAR"))):
        for label, name in enumerate(names):
            write_pictures(tmp_path / folder / name, 3 * label, count=12, size=16, first=len(folder) * 50)
    net = ["--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"]
    main(["fit", "--data", "ImageFolderDataModule", "--data.root", str(tmp_path / "own"), *SIZE, *net])
    run = ["test", "--run", "lightning_logs/ResidualCNN", "--data.allow_other_data", "true", "--data.root"]
    message = refused(capsys, *run, str(tmp_path / "other"))
    assert "apple, pear" in message
    assert "pear, plum" in message
    main([*run, str(tmp_path / "same")])


SIZE = ["--data.image_size", "16", "--data.grayscale", "false"]
