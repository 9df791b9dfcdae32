"""Shows where in the picture the decision comes from."""

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, warn
from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import as_input, balanced_rows, named_layers, outputs_of, pictures_of
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier


class GradCAM(ImageCallback):
    """Draws Grad-CAM (Selvaraju et al., arXiv 1610.02391) over a few validation pictures, with the library captum.

    Red shows where the layer's maps speak for the predicted class; what speaks against it is not shown. Each picture is
    scaled by itself. The first pictures of each class are those of `FeatureMaps`.

    Args:
        layer: The name of the layer whose maps are weighted; null takes the last one that gives maps.
        pictures: The number of pictures, balanced over the classes.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the start and at the end.
            Null is 5 where drawing takes at most a twentieth of the time.
        side: The side of a picture in the drawing, in pixels.
    """

    by_default = False

    usual_epochs = 5

    def __init__(
        self, layer: str | None = None, pictures: int = 8, every_n_epochs: int | None = None, side: int = 128
    ) -> None:
        super().__init__(every_n_epochs)
        self._check_at_least_one(pictures=pictures, side=side)
        self.layer = layer
        self.pictures = pictures
        self.side = side

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses a layer that the net does not have, and to work without captum."""
        check_captum("GradCAM")
        layers = named_layers(module)
        if self.layer is not None and self.layer not in layers:
            raise InputError(
                f"GradCAM's layer: {type(module).__name__} has no layer {self.layer}; it has {', '.join(layers)}"
            )

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``grad_cam``."""
        labels = data.labels("val")
        rows = balanced_rows(labels, self.pictures, data.split_seed)
        images = pictures_of(data, "val", rows)
        name = self.layer or last_layer_with_maps(module, as_input(module, images[:1]))
        if name is None:
            warn(f"no Grad-CAM is drawn: no layer of {type(module).__name__} gives maps")
            return
        pictures, captions = [], []
        for row, image in zip(rows, images, strict=True):
            weight, predicted, probability = explain(module, name, as_input(module, image[None]), self.side)
            pictures.append(overlay(channels_last(image.numpy()), weight, self.side))
            captions.append(
                [f"is {data.class_names[labels[row]]}", f"said {data.class_names[predicted]} {100 * probability:.1f} %"]
            )
            if not weight.any():
                captions[-1][1] += ", nothing for it"
        sheet = grid(
            f"Grad-CAM of {name}, {when}",
            in_rows(pictures, 4),
            side=self.side,
            subtitle="red speaks for the class that is predicted",
            captions=in_rows(captions, 4),
            gap=8,
        )
        board.image("grad_cam", sheet)


def check_captum(what: str) -> None:
    """Refuses to explain anything without captum.

    Args:
        what: What needs it, for the message.

    Raises:
        InputError: It is not installed.
    """
    if find_spec("captum") is None:
        raise InputError(f"{what} needs captum, which is not installed: pip install 'pet_cifar[gradcam]'")


def explain(module: ImageClassifier, name: str, image: Tensor, side: int) -> tuple[NDArray[np.float32], int, float]:
    """Weighs the places of one picture by how much they speak for the class that is predicted, by Grad-CAM.

    Args:
        module: The net, in evaluation.
        name: The name of the layer whose maps are weighted.
        image: The picture as the net takes it, shape (1, C, H, W).
        side: The side of the result in pixels.

    Returns:
        Weights in [0, 1] of shape (side, side), the predicted class and its probability.

    Raises:
        InputError: The layer gives no maps.
    """
    # This import takes long, and no other callback needs it.
    from captum.attr import LayerGradCam

    probabilities = module.probabilities(module(image))[0]
    predicted = int(probabilities.argmax())

    def score(image: Tensor) -> Tensor:
        logits = module(image).float()
        # A single logit speaks for the second class, and its negative for the first.
        own: Tensor = logits[:, predicted] if module.num_outputs > 1 else logits[:, 0] * (1 if predicted else -1)
        return own

    layer = named_layers(module)[name]
    with torch.enable_grad():
        maps = LayerGradCam(score, layer).attribute(image.clone().requires_grad_(), relu_attributions=True)
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        raise InputError(f"GradCAM's layer: {name} gives no maps; choose one of the backbone")
    maps = interpolate(maps.detach().float(), (side, side), mode="bilinear", align_corners=False)
    weight: NDArray[np.float32] = (maps / maps.amax().clamp(min=1e-12))[0, 0].cpu().numpy()
    return weight, predicted, float(probabilities[predicted])


def last_layer_with_maps(module: ImageClassifier, image: Tensor) -> str | None:
    """Names the last layer that gives square maps of more than one place; returns None where none does."""
    ran: list[str] = []

    def keep(name: str, output: Tensor) -> Tensor:
        # Pictures are square, so other outputs have their channels last or are the heads of an attention layer.
        if output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            ran.append(name)
        return output.new_empty(0)

    with outputs_of(named_layers(module), keep):
        module(image)
    return ran[-1] if ran else None


def overlay(picture: PixelArray, weight: NDArray[np.float32], side: int) -> PixelArray:
    """A picture in gray with the weights of `explain` in red over it; pixels of shape (H, W, 3) or (H, W, 1)."""
    large = Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.BICUBIC)
    return blend(np.asarray(large), weight)


def blend(picture: PixelArray, weight: NDArray[np.float32]) -> PixelArray:
    """A picture in gray with weights in [0, 1] of the same height and width in red over it."""
    gray = picture.mean(2, keepdims=True) * 0.75 + 40
    strength = 0.75 * weight[..., None]
    mixed: PixelArray = (gray * (1 - strength) + np.array([225, 30, 30]) * strength).round().astype(np.uint8)
    return mixed
