"""Which net is the best one, and that a run that an error has ended goes on as if nothing had happened."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks import BestCheckpoint
from pet_cifar.cli.main import main
from pet_cifar.data import DigitsDataModule
from pet_cifar.models import ResidualCNN
from tests.conftest import quiet_trainer

RUN = ["--config", "digits_residual", "--model.widths", "[8]", "--trainer.max_epochs", "2", "--data.batch_size", "200"]


class Interruption(Callback):
    """Is an error at one place of the first epoch."""

    def __init__(self, place: str) -> None:
        self.place = place

    def _at(self, place: str, trainer: Trainer) -> None:
        if place == self.place and trainer.current_epoch == 0 and not trainer.sanity_checking:
            raise MemoryError

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._at("last batch" if trainer.is_last_batch else "a batch", trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at("before validation", trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._at("within validation", trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at("after validation", trainer)


def values_of(run: Path) -> dict[tuple[str, str], float]:
    """Every value of ``metrics.csv`` that does not depend on the time, by its epoch and name."""
    with (run / "metrics.csv").open(newline="") as file:
        return {
            (row["epoch"], name): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name.startswith(("train/", "val/"))
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """What a run logs that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        main(["fit", *RUN])
    return values_of(folder / "lightning_logs" / "digits_residual" / "version_0")


@pytest.mark.parametrize(
    "place", ["a batch", "last batch", "before validation", "within validation", "after validation"]
)
@pytest.mark.filterwarnings("error:The ``compute`` method")
def test_a_run_that_goes_on_logs_what_a_whole_run_logs(
    place: str,
    whole: dict[tuple[str, str], float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", *RUN], callbacks=[Interruption(place)])
    run = Path("lightning_logs") / "digits_residual"
    assert f"go on with: pet-cifar fit --resume {run / 'version_0'}" in capsys.readouterr().out
    main(["fit", "--resume", str(run / "version_0")])
    assert values_of(run / "version_0") == whole


def test_of_the_same_accuracy_the_lowest_loss_wins(tmp_path: Path) -> None:
    losses = iter([3.0, 1.0, 2.0])

    class SameAccuracy(ResidualCNN):
        def on_validation_epoch_end(self) -> None:
            self.log("val/acc", torch.tensor(0.5))
            self.log("val/loss", torch.tensor(next(losses)))

    best = BestCheckpoint()
    trainer = quiet_trainer(
        max_epochs=3, callbacks=[best], enable_checkpointing=True, default_root_dir=tmp_path, limit_train_batches=1
    )
    trainer.fit(SameAccuracy(num_classes=10, widths=[4]), DigitsDataModule(image_size=8))
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    assert checkpoint["epoch"] == 1
    state = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert state["best_loss"] == 1.0
    later = BestCheckpoint()
    later.dirpath = best.dirpath
    later.load_state_dict(state)
    assert later.state_dict()["best_loss"] == 1.0
    later.load_state_dict({name: value for name, value in state.items() if name != "best_loss"})
