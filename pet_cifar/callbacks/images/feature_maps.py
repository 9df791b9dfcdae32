"""Shows what each layer answers to a few pictures."""

from torch import nn

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, warn
from pet_cifar.callbacks.images.drawing import channels_last, grid
from pet_cifar.callbacks.images.inspection import (
    balanced_rows,
    convolutions,
    layers_like,
    leaf_layers,
    maps_of,
    pictures_of,
    spread,
)
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier

MOST_LAYERS = 8


class FeatureMaps(ImageCallback):
    """Draws one grid of feature maps for each layer, with one row for each picture and the picture itself first.

    The pictures are the same in every drawing and in every run with the same ``split_seed``. A map shows the output of
    the layer itself, before the activation. It is scaled as in the original Keras exercise: minus its mean, divided by
    its standard deviation, times 64, plus 128, clipped. So brightness compares the places within a map, but not one map
    with another.

    Args:
        layers: The names of layers, or patterns such as ``backbone.*.residual.0``. Null takes the convolutions, or 8
            of them spread over the depth where there are more.
        pictures: The number of pictures, balanced over the classes.
        maps: The number of channels that are shown of each layer, spread over all of them.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the start and at the end.
            Null is 5 where drawing takes at most a twentieth of the time.
        side: The side of a map in the drawing, in pixels; larger ones are reduced.
    """

    usual_epochs = 5

    def __init__(
        self,
        layers: list[str] | None = None,
        pictures: int = 4,
        maps: int = 8,
        every_n_epochs: int | None = None,
        side: int = 64,
    ) -> None:
        super().__init__(every_n_epochs)
        self._check_at_least_one(pictures=pictures, maps=maps, side=side)
        self.layers = layers
        self.pictures = pictures
        self.maps = maps
        self.side = side

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses a layer that the net does not have."""
        try:
            if not self._layers(module):
                warn(f"no feature maps are drawn: {type(module).__name__} has no convolution")
        except KeyError as error:
            raise InputError(
                f"FeatureMaps' layers: {type(module).__name__} has no layer like {error.args[0]}; it has "
                f"{', '.join(leaf_layers(module))}"
            ) from error

    def _layers(self, module: ImageClassifier) -> dict[str, nn.Module]:
        if self.layers is not None:
            return layers_like(module, self.layers)
        layers = convolutions(module)
        return {name: layers[name] for name in spread(list(layers), MOST_LAYERS)}

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``feature_maps/<layer>``."""
        chosen = self._layers(module)
        if not chosen:
            return
        labels = data.labels("val")
        rows = balanced_rows(labels, self.pictures, data.split_seed)
        images = pictures_of(data, "val", rows)
        try:
            found = maps_of(module, images, chosen, self.maps, self.side)
        except InputError as error:
            raise InputError(f"FeatureMaps' {error}") from error
        inputs = [channels_last(image.numpy()) for image in images]
        for name, layer in found.items():
            if not layer.maps:  # This may be an auxiliary head that only training uses.
                warn(f"no feature maps of {name} are drawn: it does not run, or gives no tensor")
                continue
            channels, height, width = layer.shape
            picture = grid(
                f"{name}, {type(chosen[name]).__name__}, {when}",
                [
                    [first, *(channels_last(one[None]) for one in own)]
                    for first, own in zip(inputs, layer.maps, strict=True)
                ],
                side=self.side,
                subtitle=f"{len(layer.channels)} of {channels} maps of {height} x {width}; each scaled by itself",
                row_labels=[data.class_names[labels[row]] for row in rows],
                column_labels=["input", *map(str, layer.channels)],
            )
            board.image(f"feature_maps/{name}", picture)
