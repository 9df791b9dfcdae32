import csv
import json
from pathlib import Path

import numpy as np
import pytest
from lightning import seed_everything

from pet_cifar.callbacks import PredictionWriter
from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from tests.conftest import quiet_trainer


def trained() -> ResidualCNN:
    """Knows a little, so that its predictions vary."""
    seed_everything(1)
    model = ResidualCNN(image_size=8, widths=[8, 8], lr=0.01)
    quiet_trainer(max_epochs=1, limit_val_batches=0, log_every_n_steps=1).fit(model, digits())
    return model


def digits() -> DigitsDataModule:
    return DigitsDataModule(image_size=8, batch_size=101)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_test_leaves_four_files_that_agree(tmp_path: Path) -> None:
    model, data = trained(), digits()
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path / "run")])
    trainer.test(model, data, verbose=False)
    folder = tmp_path / "run" / "test"
    assert {file.name for file in folder.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "confusion_matrix.csv",
        "scored.json",
    }

    header = (folder / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,label,prediction," + ",".join(f"p_{name}" for name in data.class_names)
    predictions = rows(folder / "predictions.csv")
    assert [(row["path"], row["label"]) for row in predictions] == [
        (picture.path, picture.label) for picture in data.splits["test"]
    ]
    for row in predictions:
        p = np.array([float(row[f"p_{name}"]) for name in data.class_names])
        assert p.sum() == pytest.approx(1, abs=1e-5)
        assert p[int(row["prediction"])] == p.max()

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pictures"] == len(predictions) == len(data.splits["test"])
    accuracy = np.mean([row["label"] == row["prediction"] for row in predictions])
    assert metrics["test/acc"] == pytest.approx(accuracy)
    assert 0.12 < accuracy < 1, "the test would not tell a right count from a wrong one"
    assert set(metrics) == {"pictures"} | {name for name in trainer.callback_metrics if name.startswith("test/")}

    matrix = rows(folder / "confusion_matrix.csv")
    assert list(matrix[0]) == ["label", *(f"predicted_{name}" for name in data.class_names)]
    assert [row["label"] for row in matrix] == list(data.class_names)
    for row in matrix:
        for name in data.class_names:
            pairs = [one for one in predictions if (one["label"], one["prediction"]) == (row["label"], name)]
            assert int(row[f"predicted_{name}"]) == len(pairs)


def test_a_prediction_leaves_the_predictions_alone_and_the_same(tmp_path: Path) -> None:
    model = trained()
    quiet_trainer(callbacks=[PredictionWriter(tmp_path)]).test(model, digits(), verbose=False)
    quiet_trainer(callbacks=[PredictionWriter(tmp_path)]).predict(model, digits())
    assert [file.name for file in (tmp_path / "predict").iterdir()] == ["predictions.csv"]
    assert (tmp_path / "predict/predictions.csv").read_text() == (tmp_path / "test/predictions.csv").read_text()


def test_a_second_test_forgets_the_first(tmp_path: Path) -> None:
    model, data = ResidualCNN(image_size=8, widths=[8, 8]), digits()
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path)])
    for _ in range(2):
        trainer.test(model, data, verbose=False)
        assert len(rows(tmp_path / "test/predictions.csv")) == len(data.splits["test"])


def test_without_a_directory_the_trainers_is_taken(tmp_path: Path) -> None:
    trainer = quiet_trainer(callbacks=[PredictionWriter()], default_root_dir=tmp_path / "logs")
    trainer.predict(ResidualCNN(image_size=8, widths=[8, 8]), digits())
    assert (tmp_path / "logs/predict/predictions.csv").is_file()


def test_data_without_names_is_refused(tmp_path: Path) -> None:
    model, data = ResidualCNN(image_size=8, widths=[8, 8]), digits()
    data.prepare_data()
    data.setup("test")
    trainer = quiet_trainer(callbacks=[PredictionWriter(tmp_path)])
    with pytest.raises(InputError, match="give the trainer an ImageDataModule"):
        trainer.test(model, data.test_dataloader(), verbose=False)
    with pytest.raises(InputError, match="give the trainer an ImageDataModule"):
        trainer.predict(model, data.predict_dataloader())
    assert not (tmp_path / "test").exists()
