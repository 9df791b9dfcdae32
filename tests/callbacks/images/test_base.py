"""When image callbacks draw, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from pet_cifar import callbacks
from pet_cifar.callbacks import Board, FeatureMaps, FirstLayerFilters
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, every_callback, run
from tests.conftest import quiet_trainer


def test_pictures_come_at_the_start_every_few_epochs_and_at_the_end() -> None:
    _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), every_callback(every_n_epochs=2), epochs=5)
    events = Events(directory)
    assert events.steps("feature_maps/backbone.0") == [0, 6, 12, 15]
    assert events.steps("first_layer_filters") == [0, 6, 12, 15]
    assert events.steps("predictions/confusion_matrix/val") == [6, 12, 15]
    assert events.steps("uncertainty/calibration/val") == [6, 12, 15]
    assert events.steps("sample_pictures") == [0]
    assert events.steps("training_batch") == [0]


def steps_of_predictions(every: int = 1, **options: Any) -> list[int]:
    pictures = [callbacks.ConfusionMatrix(every_n_epochs=every), callbacks.Calibration(every_n_epochs=every)]
    _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), pictures, **options)
    events = Events(directory)
    assert events.steps("predictions/confusion_matrix/val") == events.steps("uncertainty/calibration/val")
    return events.steps("predictions/confusion_matrix/val")


def test_predictions_are_drawn_once_and_at_the_step_that_they_belong_to() -> None:
    assert steps_of_predictions(epochs=5, check_val_every_n_epoch=2) == [6, 12]
    assert steps_of_predictions(epochs=2, limit_train_batches=4, val_check_interval=2) == [2, 4, 6, 8]
    assert steps_of_predictions(every=3, epochs=4) == [9, 12]
    assert steps_of_predictions(epochs=9, max_steps=4) == [3]


def test_validate_and_then_test_with_one_trainer() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    trainer, directory = run(model, data, [callbacks.ConfusionMatrix(), callbacks.WorstMistakes()], epochs=1)
    trainer.validate(model, data, verbose=False)
    trainer.test(model, data, verbose=False)
    assert Events(directory).steps("predictions/confusion_matrix/val") == [3, 3]
    assert Events(directory).steps("predictions/confusion_matrix/test") == [3]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_pictures_refuse_what_they_cannot_show() -> None:
    loader = digits(8)
    loader.setup("fit")
    trainer = quiet_trainer(max_epochs=1, callbacks=[FeatureMaps()])
    with pytest.raises(InputError, match="FeatureMaps shows what an ImageClassifier makes of .* with loaders"):
        trainer.fit(ResidualCNN(image_size=8, widths=[8]), loader.train_dataloader())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Board(-1), "Board's max_megabytes is -1"),
        (lambda: FeatureMaps(every_n_epochs=-1), "FeatureMaps' every_n_epochs is -1"),
        (lambda: FeatureMaps(pictures=0), "FeatureMaps' pictures is 0"),
        (lambda: FirstLayerFilters(most=0), "FirstLayerFilters' most is 0"),
        (lambda: callbacks.SamplePictures(per_class=0), "SamplePictures' per_class is 0"),
        (lambda: callbacks.WorstMistakes(most=0), "WorstMistakes' most is 0"),
        (lambda: callbacks.Calibration(bins=0), "Calibration's bins is 0"),
        (lambda: callbacks.GradCAM(pictures=0), "GradCAM's pictures is 0"),
        (lambda: callbacks.Embeddings(pictures=3000), "Embeddings' pictures is 3000"),
        (lambda: callbacks.Embeddings(side=0), "Embeddings' side is 0"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
