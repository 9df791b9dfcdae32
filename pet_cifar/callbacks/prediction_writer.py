"""What a test or a prediction leaves in the run directory."""

import csv
import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks.images.confusion_matrix import count_confusions, write_confusions
from pet_cifar.callbacks.predictions import Collector
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError


class PredictionWriter(Callback):
    """Writes ``test/metrics.json``, ``test/predictions.csv`` and ``test/confusion_matrix.csv`` after a test.

    After a prediction it writes ``predict/predictions.csv``. Only rank zero writes, the pictures of all ranks.

    Args:
        directory: the run directory; null for the trainer's log directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = None if directory is None else Path(directory)
        self._collector = Collector()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses data that has no names for its pictures."""
        if stage in ("test", "predict") and not isinstance(self._data(trainer), ImageDataModule):
            raise InputError(
                "PredictionWriter names pictures by their data module; give the trainer an ImageDataModule"
            )

    def _data(self, trainer: Trainer) -> Any:
        return getattr(trainer, "datamodule", None)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier test."""
        self._collector = Collector()

    on_predict_start = on_test_start

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the batch's probabilities where they are, so that no step waits for the device."""
        self._collector.add(outputs, batch)

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the three files."""
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions."""
        self._write(trainer, "predict")

    def _write(self, trainer: Trainer, stage: str) -> None:
        scores = self._collector.collect()
        directory = self.directory or (Path(trainer.log_dir) if trainer.log_dir else None)
        if scores is None or not trainer.is_global_zero or directory is None:
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        names = self._data(trainer).class_names
        directory = directory / stage
        directory.mkdir(parents=True, exist_ok=True)
        pictures = self._data(trainer).splits["test"]
        with (directory / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "prediction", *(f"p_{name}" for name in names)])
            for row, label, prediction, p in zip(
                *(scores.row.tolist(), scores.label.tolist(), scores.prediction.tolist()),
                scores.probabilities.tolist(),
                strict=True,
            ):
                writer.writerow([pictures[row].path, names[label], names[prediction], *(f"{x:.6f}" for x in p)])
        if stage == "test":
            write_confusions(directory / "confusion_matrix.csv", count_confusions(scores, len(names)), names)
            metrics = {
                name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("test/")
            }
            (directory / "metrics.json").write_text(
                json.dumps({"pictures": len(scores.row), **metrics}, indent=2) + "\n"
            )
