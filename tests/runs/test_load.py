"""A loaded run says of every kind of picture what its test said, needs no data, and writes nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pet_cifar
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN, TimmClassifier
from pet_cifar.runs.load import Classifier, load
from pet_cifar.training.prediction import Prediction
from tests.conftest import quiet_trainer
from tests.runs.conftest import predictions_of
from tests.training.test_outliers import digits, net


def expected(run: Path, pictures: Path) -> dict[str, dict[str, str]]:
    by_number = {f"{int(row['path'].partition('#')[2]):04d}.png": row for row in predictions_of(run)}
    return {path.name: by_number[path.name] for path in sorted(pictures.iterdir())}


def one(found: object) -> Prediction:
    assert isinstance(found, Prediction)
    return found


def test_every_kind_of_picture_gets_what_the_test_said(digits_run: Path, pictures: Path) -> None:
    loaded = pet_cifar.load(digits_run)
    assert loaded.class_names == tuple("0123456789")
    assert (loaded.image_size, loaded.num_channels) == (32, 3)
    assert not loaded.module.training
    for name, row in expected(digits_run, pictures).items():
        path = pictures / name
        with Image.open(path) as picture:
            assert one(loaded(picture)).label == row["prediction"]
            pixels = np.array(picture)
            loose = picture.copy()
        kinds: list[Any] = [path, str(path), path.read_bytes(), loose, pixels, pixels[..., None]]
        kinds += [torch.from_numpy(pixels)[None], torch.from_numpy(loaded.pixels(path)).float() / 255]
        for kind in kinds:
            found = one(loaded(kind))
            assert found.label == row["prediction"]
            probabilities = [float(row[f"p_{digit}"]) for digit in range(10)]
            np.testing.assert_allclose(found.probabilities, probabilities, atol=2e-5)
            assert found.is_outlier is None


def test_many_pictures_come_in_order(digits_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("training.prediction", "runs.stream"):
        monkeypatch.setattr(f"pet_cifar.{module}.batch_size_for", lambda size: 5)
    loaded = load(digits_run)
    labels = [row["prediction"] for row in expected(digits_run, pictures).values()]
    batch = torch.from_numpy(np.stack([loaded.pixels(path) for path in sorted(pictures.iterdir())]))
    for many in (pictures, str(pictures), sorted(pictures.iterdir()), batch, batch.float() / 255):
        found = loaded(many)
        assert isinstance(found, list)
        assert [prediction.label for prediction in found] == labels


def test_nothing_is_written_and_no_data_needed(
    digits_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in digits_run.parents[2].rglob("*")}
    load(digits_run)(pictures)
    assert {path: path.stat().st_mtime_ns for path in digits_run.parents[2].rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_found_in_every_way(digits_run: Path) -> None:
    for path in (digits_run, digits_run.parent, digits_run / "checkpoints", digits_run / "checkpoints" / "last.ckpt"):
        assert load(path).class_names == tuple("0123456789")
    assert "ResidualCNN" in repr(load(digits_run))


def test_a_prediction_reads_well() -> None:
    found = Prediction(np.array([0.2, 0.7, 0.1], np.float32), ("cat", "dog", "cow"))
    assert found.label == "dog"
    assert found.probability == pytest.approx(0.7)
    assert [name for name, _ in found.top(2)] == ["dog", "cat"]
    assert found.margin == pytest.approx(0.5)
    assert str(found) == "dog 70.0 %"
    assert "none of these" in str(Prediction(found.probabilities, found.class_names, True))


def test_a_net_on_kept_features_knows_what_is_none_of_its_classes(tmp_path: Path) -> None:
    data, model = digits(test_fraction=0.5), net()
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load(tmp_path / "last.ckpt")
    assert isinstance(loaded.module, TimmClassifier)
    images = data.view("test", np.arange(64), 0)
    outcomes = [model.predict_pictures(some)[1] for some in (images, 1 - images)]
    for kind, refused in zip((images, 1 - images), outcomes, strict=True):
        found = loaded(kind)
        assert isinstance(found, list)
        assert refused is not None
        assert [prediction.none_of_these for prediction in found] == refused.tolist()
    assert loaded.class_names == data.class_names


def test_an_older_checkpoint_gets_names_from_its_data(digits_run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(digits_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint.pop("class_names") == list("0123456789")
    torch.save(checkpoint, tmp_path / "older.ckpt")
    assert load(tmp_path / "older.ckpt").class_names == tuple("0123456789")
    checkpoint["config"] = checkpoint["config"].replace("DigitsDataModule", "OthersDataModule")
    torch.save(checkpoint, tmp_path / "others.ckpt")
    assert load(tmp_path / "others.ckpt").class_names == tuple(map(str, range(10)))


class Own(ResidualCNN):
    """A net that a user has written."""


def test_a_net_of_ones_own_is_found_once_it_is_imported(digits_run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(digits_run / "checkpoints" / "last.ckpt", weights_only=True)
    for name in ("Own", "Owen"):
        torch.save(checkpoint | {"net": name}, tmp_path / f"{name}.ckpt")
    assert isinstance(load(tmp_path / "Own.ckpt").module, Own)
    with pytest.raises(InputError, match="Owen.*import the module"):
        load(tmp_path / "Owen.ckpt")


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("nowhere.png", "nowhere.png"),
        (b"GIF", "these bytes"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 of shape \(3, 8, 8\)"),
        (np.zeros((8, 8)), r"float64 of shape \(8, 8\)"),
        (torch.zeros(3, 8, 8), r"float32 of shape \(3, 8, 8\)"),
        (7, "int"),
    ],
)
def test_what_is_no_picture_is_told(picture: Any, told: str, digits_run: Path) -> None:
    with pytest.raises(InputError, match=told):
        load(digits_run)([picture])


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}/nothing: there is no such directory"):
        load(tmp_path / "nothing")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="text.ckpt"):
        load(tmp_path / "text.ckpt")


def test_a_folder_without_pictures_is_told(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds no pictures"):
        load(digits_run)(tmp_path)


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, pet_cifar; assert 'torch' not in sys.modules; assert 'load' not in vars(pet_cifar)"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        pet_cifar.lood  # noqa: B018


def test_a_classifier_needs_no_gradients(digits_run: Path) -> None:
    loaded = load(digits_run, device="cpu")
    assert isinstance(loaded, Classifier)
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
