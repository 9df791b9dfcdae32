from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.plugins.hparams import metadata

from pet_cifar.callbacks import HyperParameters, RunCard
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.models import CatsDogsCNN
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, run, small
from tests.conftest import quiet_trainer


def hparams(directory: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    events = Events(directory)
    experiment = metadata.parse_experiment_plugin_data(events.message(metadata.EXPERIMENT_TAG))
    session = metadata.parse_session_start_info_plugin_data(events.message(metadata.SESSION_START_INFO_TAG))
    values = {key: value.string_value or value.number_value for key, value in session.hparams.items()}
    return [info.name for info in experiment.hparam_infos], [i.name.tag for i in experiment.metric_infos], values


def test_hyper_parameters_of_several_runs_share_their_columns(cats_dogs_root: Path) -> None:
    seed_everything(5)
    _, first = run(small(lr=0.02), digits(), [HyperParameters()], epochs=3)
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8)
    _, second = run(CatsDogsCNN(image_size=40, dropout=0.25), data, [HyperParameters()])
    assert hparams(first)[:2] == hparams(second)[:2]
    columns, metrics, values = hparams(first)
    assert metrics == ["hparams/best_val_acc", "test/acc", "hparams/parameters", "hparams/train_seconds"]
    assert values.keys() <= set(columns)
    assert values["lr"] == 0.02
    assert values["net"] == "ResidualCNN"
    assert values["augment"] == "flip True, translate 2"
    assert values["seed"] == 5
    assert "widths [8, 16]" in values["options"]
    assert "dropout 0.25" in hparams(second)[2]["options"]
    events = Events(first)
    assert events.values("hparams/best_val_acc") == list(np.maximum.accumulate(events.values("val/acc")))
    assert events.values("hparams/parameters") == [sum(parameter.numel() for parameter in small().parameters())]
    assert 0 < events.values("hparams/train_seconds")[-1] < 60
    assert "hp_metric" not in events.scalars


def test_a_run_that_goes_on_keeps_its_best_and_its_seconds() -> None:
    first = HyperParameters()
    trainer, _ = run(small(), digits(), [first], epochs=1)
    first._best, first._seconds = 0.99, 1000.0
    trainer.save_checkpoint("half.ckpt")
    logger = TensorBoardLogger("more")
    resumed = quiet_trainer(max_epochs=2, limit_train_batches=3, callbacks=[HyperParameters()], logger=logger)
    resumed.fit(small(), digits(), ckpt_path="half.ckpt", weights_only=True)
    events = Events(Path(logger.log_dir))
    assert events.values("hparams/best_val_acc") == [pytest.approx(0.99)]
    assert events.values("hparams/train_seconds")[-1] > 1000


def test_a_pretrained_net_is_not_shown_as_an_untrained_one(tmp_path: Path) -> None:
    model = small()
    model.hparams["widths"] = "forgotten"
    model.configure_optimizers = lambda: torch.optim.Adagrad(model.parameters(), lr=0.5)  # type: ignore[method-assign]
    _, directory = run(model, digits(), [HyperParameters(), RunCard()], epochs=1)
    values = hparams(directory)[2]
    assert "widths [8, 16]" in values["options"]
    assert (values["optimizer"], values["lr"]) == ("Adagrad", 0.5)
    assert "forgotten" not in Events(directory).text("run/config")
