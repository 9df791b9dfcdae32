from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from pet_cifar.callbacks import FirstLayerFilters
from pet_cifar.callbacks.images.drawing import channels_last, scale_to
from tests.callbacks.small_runs import RecordingBoard, digits, holds, layer, run, small
from tests.conftest import quiet_trainer


@pytest.mark.parametrize("scale", ["layer", "filter"])
def test_filters_stand_beside_those_of_the_start(scale: Any) -> None:
    board, model = RecordingBoard(), small(num_channels=3, lr=0.1, optimizer="sgd")
    before = layer(model, "backbone.0").weight.detach().numpy().copy()
    run(model, digits(), [board, FirstLayerFilters(scale=scale, every_n_epochs=1)], epochs=3)
    first, *_, last = board.drawn["first_layer_filters"]
    assert len(board.drawn["first_layer_filters"]) == 4

    def shown(filters: np.ndarray, number: int) -> np.ndarray:
        among = filters if scale == "layer" else filters[number]
        shade = np.round((filters[number] - among.min()) / (among.max() - among.min()) * 255).astype(np.uint8)
        return scale_to(channels_last(shade), 48)

    after = layer(model, "backbone.0").weight.detach().numpy()
    for number in range(8):
        assert holds(first, shown(before, number))
        assert holds(last[:, : last.shape[1] // 2], shown(before, number))
        assert holds(last[:, last.shape[1] // 2 :], shown(after, number))
    assert np.abs(after - before).max() > 0.01


def test_a_run_that_goes_on_keeps_the_filters_of_its_start() -> None:
    model = small()
    start = layer(model, "backbone.0").weight.detach().numpy().copy()
    trainer, _ = run(model, digits(), [FirstLayerFilters()], epochs=1)
    trainer.save_checkpoint("half.ckpt")
    again = FirstLayerFilters()
    resumed = quiet_trainer(max_epochs=2, limit_train_batches=3, callbacks=[again], logger=TensorBoardLogger("more"))
    resumed.fit(small(), digits(), ckpt_path="half.ckpt", weights_only=True)
    assert again._initial is not None
    np.testing.assert_array_equal(again._initial, start)


def test_constant_filters_are_gray() -> None:
    model = small(lr=1e-9)
    torch.nn.init.zeros_(layer(model, "backbone.0").weight)
    board = RecordingBoard()
    run(model, digits(), [board, FirstLayerFilters()], epochs=1)
    assert holds(board.drawn["first_layer_filters"][0], np.full((48, 48, 3), 128, np.uint8))
