"""Writes what a test or a prediction leaves in the run directory."""

import csv
import hashlib
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from pet_cifar import __version__
from pet_cifar.callbacks.experiment import experiment_of, read_seed
from pet_cifar.callbacks.images.confusion_matrix import count_confusions, write_confusions
from pet_cifar.callbacks.predictions import PredictionCollector, Predictions
from pet_cifar.data.datamodule import ImageDataModule, image_data_of
from pet_cifar.data.files.replacing import replacing_text
from pet_cifar.data.identity import contents_of, names_of
from pet_cifar.data.scored import name_of_results
from pet_cifar.data.test_log import LoggedTest, log_test
from pet_cifar.errors import ELSEWHERE, InputError, disk_errors
from pet_cifar.names import as_cell, without_codes
from pet_cifar.training.classifier import ImageClassifier

FORMAT = 1
"""This number changes when ``scored.json`` means something else."""


class PredictionWriter(Callback):
    """Writes ``test/metrics.json``, ``test/predictions.csv`` and ``test/confusion_matrix.csv`` after a test.

    ``test/scored.json`` says which pictures were scored, and by which checkpoint, and a line about the test goes into
    a log beside the data; see `pet_cifar.data.test_log`. A test on other data, or of a part of the pictures, gets a
    directory of its own beside ``test``; see `pet_cifar.data.scored`. After a prediction it writes
    ``predict/predictions.csv``. Only rank zero writes, and it writes the pictures of all ranks.

    Args:
        directory: The run directory; null takes the trainer's log directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = None if directory is None else Path(directory)
        self._collector = PredictionCollector()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses data that does not name its pictures."""
        if stage in ("test", "predict") and image_data_of(trainer) is None:
            raise InputError(
                "PredictionWriter names pictures by their data module; give the trainer an ImageDataModule"
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the batches of an earlier test, which an error may have left."""
        self._collector = PredictionCollector()

    on_predict_start = on_test_start

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the batch's probabilities."""
        is_outlier = pl_module.is_outlier(batch) if isinstance(pl_module, ImageClassifier) else None
        self._collector.add(outputs, batch, is_outlier)

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the four files."""
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions."""
        self._write(trainer, "predict")

    def _write(self, trainer: Trainer, stage: Literal["test", "predict"]) -> None:
        predictions = self._collector.collect()
        directory = self.directory or (Path(trainer.log_dir) if trainer.log_dir else None)
        if predictions is None or not trainer.is_global_zero or directory is None:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = image_data_of(trainer)
        assert data is not None, "setup refuses all others"
        directory = directory / name_of_results(trainer, stage)
        with disk_errors(directory, ELSEWHERE):
            directory.mkdir(parents=True, exist_ok=True)
        write_predictions(directory / "predictions.csv", predictions, data)
        if stage == "test":
            counts = count_confusions(predictions, data.num_classes)
            write_confusions(directory / "confusion_matrix.csv", counts, data.class_names)
            metrics = {
                name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("test/")
            }
            # JSON knows no number that is none.
            plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            text = json.dumps({"pictures": len(predictions.row), **plain}, indent=2, allow_nan=False) + "\n"
            _write_whole(directory / "metrics.json", text)
            self._keep_what_was_scored(trainer, predictions, data, directory)

    def _keep_what_was_scored(
        self, trainer: Trainer, predictions: Predictions, data: ImageDataModule, directory: Path
    ) -> None:
        records = data.splits["test"]
        groups = {name: number for number, name in enumerate(dict.fromkeys(data.groups.values()))}
        checkpoint = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
        now, contents = datetime.now(UTC).isoformat(timespec="seconds"), contents_of(data, "test")
        digest = _sha256(checkpoint) if checkpoint and checkpoint.is_file() else ""
        scored = {
            "format": FORMAT,
            "pet_cifar": __version__,
            "time": now,
            "checkpoint": checkpoint.name if checkpoint else None,
            "checkpoint_sha256": digest or None,
            "pictures": len(predictions.row),
            "contents": contents,
            "names": names_of(data, "test"),
            "groups": [groups[records[row].path] for row in predictions.row.tolist()] if groups else None,
        }
        _write_whole(directory / "scored.json", json.dumps(scored) + "\n")
        run = directory.parent
        log_test(
            data.root,
            LoggedTest(
                time=now,
                pictures=contents,
                experiment=experiment_of(run) or type(trainer.lightning_module).__name__,
                seed=read_seed(run),
                checkpoint=digest[:16],
                run=f"{run.parent.name}/{run.name}",
            ),
        )


def _write_whole(path: Path, text: str) -> None:
    with disk_errors(path, ELSEWHERE), replacing_text(path) as file:
        file.write(text)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_predictions(path: Path, predictions: Predictions, data: ImageDataModule) -> None:
    """Writes ``path,label,prediction,p_<class>...`` with one line for each picture of the test split.

    Where the net can tell pictures of none of the classes, a last column ``none_of_these`` is 1 for them, else 0. The
    file is whole or unchanged.

    Raises:
        InputError: It cannot be written.
    """
    outliers = predictions.is_outlier
    names, records = data.class_names, data.splits["test"]
    with disk_errors(path, ELSEWHERE), replacing_text(path) as file:
        writer = csv.writer(file)
        last = ["none_of_these"] if outliers is not None else []
        writer.writerow(["path", "label", "prediction", *(f"p_{name}" for name in names), *last])
        flags = [[]] * len(predictions.row) if outliers is None else outliers.int()[:, None].tolist()
        for row, label, predicted, probabilities, flag in zip(
            *(predictions.row.tolist(), predictions.label.tolist(), predictions.predicted.tolist()),
            predictions.probabilities.tolist(),
            flags,
            strict=True,
        ):
            scores = (f"{p:.6f}" for p in probabilities)
            cells = (without_codes(records[row].path), names[label], names[predicted])
            writer.writerow([*map(as_cell, cells), *scores, *flag])
