"""Shows how the net arranges the pictures in front of its last layer."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, warn
from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, scale_to
from pet_cifar.callbacks.images.inspection import as_input, balanced_rows, pictures_of
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.names import printable
from pet_cifar.training.classifier import ImageClassifier

DIMENSIONS = 64
BYTES_PER_NUMBER = 11
"""The bytes that a number and its tab take in TensorBoard's file, roughly."""


class Embeddings(ImageCallback):
    """Writes the input of the last dense layer for some validation pictures; the Projector tab shows it.

    Feature maps that are flattened just before that layer are averaged over their places. Where there are more than 64
    numbers for each picture, their first 64 principal components are written, which the Projector would start from
    anyway.

    Args:
        pictures: The number of pictures, from 2 to 2,000, balanced over the classes.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the end.
        side: The side of the thumbnails, in pixels.
    """

    by_default = False
    draws_at_start = False

    def __init__(self, pictures: int = 1000, every_n_epochs: int = 0, side: int = 32) -> None:
        super().__init__(every_n_epochs)
        if not 2 <= pictures <= 2000:
            raise InputError(f"Embeddings' pictures is {pictures}; the Projector takes from 2 to 2000")
        if not 1 <= side <= 180:
            raise InputError(f"Embeddings' side is {side}; it is from 1 to 180, for which the Projector has room")
        self.pictures = pictures
        self.side = side

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses a net without a dense layer."""
        _last_dense(module)

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Writes the tensor ``embeddings`` with labels, file names and thumbnails."""
        labels = data.labels("val")
        rows = balanced_rows(labels, self.pictures, data.split_seed)
        inputs, thumbnails, predicted = [], [], []
        for start in range(0, len(rows), data.batch_size):
            image = pictures_of(data, "val", rows[start : start + data.batch_size])
            vector, probabilities = _last_layer_input(module, as_input(module, image))
            inputs.append(vector)
            predicted += probabilities.argmax(1).tolist()
            thumbnails += [_square(scale_to(channels_last(one.numpy()), self.side), self.side) for one in image]
        vectors = torch.cat(inputs).numpy()
        if not np.isfinite(vectors).all():
            warn("no embeddings are written: the last layer's input is not finite; try a smaller learning rate")
            return
        if min(vectors.shape) > DIMENSIONS:
            # scikit-learn takes up to a second to import, and these are drawn on request alone.
            from sklearn.decomposition import PCA

            vectors = PCA(DIMENSIONS, svd_solver="full").fit_transform(vectors).astype(np.float32)
        if not board.spend(vectors.size * BYTES_PER_NUMBER + len(rows) * self.side**2 * 3):
            return
        board.writer.add_embedding(
            vectors,
            metadata=[
                [
                    data.class_names[labels[row]],
                    data.class_names[number],
                    printable(" ".join(data.splits["val"][row].path.split())),
                ]
                for row, number in zip(rows, predicted, strict=True)
            ],
            metadata_header=["label", "prediction", "file"],
            label_img=torch.from_numpy(np.stack(thumbnails)).permute(0, 3, 1, 2) / 255,
            global_step=board.step,
            tag="embeddings",
        )


def _last_dense(module: ImageClassifier) -> nn.Linear:
    dense = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not dense:
        raise InputError(f"Embeddings shows what goes into the last dense layer; {type(module).__name__} has none")
    return dense[-1]


def _last_layer_input(module: ImageClassifier, image: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the input of the last dense layer (n, d) and the probabilities (n, num_classes), both on the CPU."""
    dense: list[Tensor] = []
    flattened: list[Tensor] = []
    handles = [_keep_input(_last_dense(module), dense)]
    handles += [_keep_input(layer, flattened) for layer in module.modules() if isinstance(layer, nn.Flatten)]
    try:
        probabilities = module.probabilities(module(image)).cpu()
    finally:
        for handle in handles:
            handle.remove()
    features = dense[-1]
    if flattened and flattened[-1].ndim == 4 and flattened[-1][0].numel() == features.shape[1]:
        features = flattened[-1].mean((2, 3))
    return features.cpu(), probabilities


def _keep_input(layer: nn.Module, kept: list[Tensor]) -> RemovableHandle:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].detach().float())

    return layer.register_forward_pre_hook(hook)


def _square(picture: PixelArray, side: int) -> PixelArray:
    height, width = picture.shape[:2]
    sheet = np.full((side, side, 3), 255, np.uint8)
    sheet[:height, :width] = picture
    return sheet
