"""Shows what each layer answers to a few pictures."""

from torch import Tensor, nn

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, warn
from pet_cifar.callbacks.images.drawing import channels_last, grid
from pet_cifar.callbacks.images.inspection import (
    as_input,
    balanced_rows,
    convolutions,
    layers_like,
    named_layers,
    normalized_maps,
    outputs_of,
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
        side: The side of a map in the drawing, in pixels; larger ones are reduced.
    """

    def __init__(
        self,
        layers: list[str] | None = None,
        pictures: int = 4,
        maps: int = 8,
        every_n_epochs: int = 5,
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
            valid = [name for name, layer in named_layers(module).items() if not list(layer.children())]
            raise InputError(
                f"FeatureMaps' layers: {type(module).__name__} has no layer like {error.args[0]}; it has "
                f"{', '.join(valid)}"
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
        shapes: dict[str, tuple[int, ...]] = {}

        def keep(name: str, output: Tensor) -> Tensor:
            if output.ndim != 4:
                raise InputError(
                    f"FeatureMaps' layers: {name} gives {output[0].numel()} numbers a picture and no maps; leave it out"
                )
            shapes[name] = tuple(output.shape[1:])
            return normalized_maps(output, self.maps, self.side)

        with outputs_of(chosen, keep) as found:
            for image in images:  # A large net's maps of several pictures at a time would need gigabytes.
                module(as_input(module, image[None]))
        inputs = [channels_last(image.numpy()) for image in images]
        for name, maps in found.items():
            if not maps:  # This may be an auxiliary head that only training uses.
                warn(f"no feature maps of {name} are drawn: it does not run, or gives no tensor")
                continue
            channels, height, width = shapes[name]
            shown = spread(range(channels), self.maps)
            # Where a layer runs several times for each picture, its last output is shown.
            last = maps[len(maps) // len(images) - 1 :: len(maps) // len(images)]
            picture = grid(
                f"{name}, {type(chosen[name]).__name__}, {when}",
                [
                    [first, *(channels_last(one[None].numpy()) for one in own[0])]
                    for first, own in zip(inputs, last, strict=True)
                ],
                side=self.side,
                subtitle=f"{len(shown)} of {channels} maps of {height} x {width}; each scaled by itself",
                row_labels=[data.class_names[labels[row]] for row in rows],
                column_labels=["input", *(str(channel) for channel in shown)],
            )
            board.image(f"feature_maps/{name}", picture)
