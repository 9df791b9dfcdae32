import numpy as np
import torch

from pet_cifar.callbacks import SamplePictures
from pet_cifar.callbacks.images.drawing import channels_last, scale_to
from pet_cifar.callbacks.images.inspection import balanced_rows
from pet_cifar.data import DigitsDataModule
from pet_cifar.data.augment import Augment
from tests.callbacks.small_runs import RecordingBoard, holds, run, small


def test_samples_show_every_class_and_the_batch_as_the_net_gets_it() -> None:
    board, model = RecordingBoard(), small()
    data = DigitsDataModule(image_size=16, batch_size=101, augment=Augment(translate=5, brightness=0.5))
    received: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: received.append(inputs[0].clone()))
    run(model, data, [board, SamplePictures(per_class=2, batch=4, side=32)], limit_val_batches=0)
    batch = (received[0][:4] * 255).round().byte().numpy()
    for picture in batch:
        assert holds(board.drawn["training_batch"][0], scale_to(channels_last(picture), 32))
    pixels, labels = data.pixels("train").take(np.arange(1437)).numpy(), data.labels("train")
    sheet = board.drawn["sample_pictures"][0]
    rows = balanced_rows(labels, 20, data.split_seed)
    assert np.bincount(labels[rows]).tolist() == [2] * 10
    assert all(holds(sheet, scale_to(channels_last(pixels[row]), 32)) for row in rows)
    assert len(board.drawn["sample_pictures"]) == len(board.drawn["training_batch"]) == 1
