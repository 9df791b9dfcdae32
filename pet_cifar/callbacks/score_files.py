"""What a test or a prediction leaves in the run directory."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.utilities.distributed import gather_all_tensors

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError


class ScoreFiles(Callback):
    """Writes ``test/metrics.json``, ``test/predictions.csv`` and ``test/confusion_matrix.csv`` after a test.

    After a prediction it writes ``predict/predictions.csv``. Only rank zero writes, the pictures of all ranks.

    Args:
        directory: the run directory; null for the trainer's log directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = None if directory is None else Path(directory)
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._probabilities: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses data that has no names for its pictures."""
        if stage in ("test", "predict") and not isinstance(self._data(trainer), ImageDataModule):
            raise InputError("ScoreFiles names pictures by their data module; give the trainer an ImageDataModule")

    def _data(self, trainer: Trainer) -> Any:
        return getattr(trainer, "datamodule", None)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier test."""
        self._rows, self._labels, self._probabilities = [], [], []

    on_predict_start = on_test_start

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the batch's probabilities where they are, so that no step waits for the device."""
        self._rows.append(batch.row)
        self._labels.append(batch.label)
        self._probabilities.append(outputs if isinstance(outputs, Tensor) else outputs["probabilities"])

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the three files."""
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the predictions."""
        self._write(trainer, "predict")

    def _write(self, trainer: Trainer, stage: str) -> None:
        if not self._rows:  # --trainer.limit_test_batches 0
            return
        rows, labels, probabilities = map(_gather, (self._rows, self._labels, self._probabilities))
        directory = self.directory or (Path(trainer.log_dir) if trainer.log_dir else None)
        if not trainer.is_global_zero or directory is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        names = self._data(trainer).class_names
        order = rows.argsort()
        rows, labels, probabilities = rows[order], labels[order], probabilities[order]
        directory = directory / stage
        directory.mkdir(parents=True, exist_ok=True)
        pictures = self._data(trainer).parts["test"]
        predictions = probabilities.argmax(1)
        with (directory / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "prediction", *(f"p_{name}" for name in names)])
            for row, label, prediction, p in zip(
                *(rows.tolist(), labels.tolist(), predictions.tolist(), probabilities.tolist()), strict=True
            ):
                writer.writerow([pictures[row].path, names[label], names[prediction], *(f"{x:.6f}" for x in p)])
        if stage == "test":
            matrix = multiclass_confusion_matrix(predictions, labels, len(names)).tolist()
            with (directory / "confusion_matrix.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["label", *(f"predicted_{name}" for name in names)])
                writer.writerows([name, *counts] for name, counts in zip(names, matrix, strict=True))
            metrics = {
                name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("test/")
            }
            (directory / "metrics.json").write_text(json.dumps({"pictures": len(rows), **metrics}, indent=2) + "\n")


def _gather(own: list[Tensor]) -> Tensor:
    tensor = torch.cat(own)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        tensor = torch.cat(gather_all_tensors(tensor))
    return tensor.cpu()
