"""Where in the picture the decision comes from."""

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import Drawn, ImageCallback, tell
from pet_cifar.callbacks.images.drawing import Pixels, channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import as_input, balanced_rows, named_layers, outputs_of, take
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier


class GradCAM(ImageCallback):
    """Draws Grad-CAM (Selvaraju et al., arXiv 1610.02391) over a few validation pictures, by captum.

    Red is where the layer's maps speak for the predicted class, positive contributions only; each picture is scaled
    by itself. The pictures are those of `FeatureMaps`.

    Args:
        layer: whose maps are weighted, by name; null for the last that gives any.
        pictures: how many, of all classes in turn.
        every_n_epochs: 1 or more; 0 draws only at the start and at the end.
        side: of a picture in the drawing, in pixels.
    """

    by_default = False

    def __init__(self, layer: str | None = None, pictures: int = 8, every_n_epochs: int = 5, side: int = 128) -> None:
        super().__init__(every_n_epochs)
        self._at_least_one(pictures=pictures, side=side)
        self.layer = layer
        self.pictures = pictures
        self.side = side

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses a layer that the net does not have, and to go without captum."""
        if find_spec("captum") is None:
            raise InputError("GradCAM needs captum, which is not installed: pip install 'pet_cifar[gradcam]'")
        layers = named_layers(module)
        if self.layer is not None and self.layer not in layers:
            raise InputError(
                f"GradCAM's layer: {type(module).__name__} has no layer {self.layer}; it has {', '.join(layers)}"
            )

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
        """Draws ``grad_cam``."""
        labels = data.labels("val")
        rows = balanced_rows(labels, self.pictures, data.split_seed)
        images = take(data, "val", rows)
        name = self.layer or last_maps(module, as_input(module, images[:1]))
        if name is None:
            tell(f"no Grad-CAM is drawn: no layer of {type(module).__name__} gives maps")
            return
        layer = named_layers(module)[name]
        pictures, captions = [], []
        for row, image in zip(rows, images, strict=True):
            weight, said, share = self._explain(module, layer, as_input(module, image[None]))
            pictures.append(_overlay(channels_last(image.numpy()), weight, self.side))
            captions.append(
                [f"is {data.class_names[labels[row]]}", f"said {data.class_names[said]} {100 * share:.1f} %"]
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

    def _explain(
        self, module: ImageClassifier, layer: nn.Module, image: Tensor
    ) -> tuple[NDArray[np.float32], int, float]:
        """Weights in [0, 1] of shape (h, w), the predicted class and its probability."""
        # heavy, and no other picture needs it
        from captum.attr import LayerGradCam

        probabilities = module.probabilities(module(image))[0]
        said = int(probabilities.argmax())

        def score(image: Tensor) -> Tensor:
            logits = module(image).float()
            # one logit speaks for the second class, its negative for the first
            own: Tensor = logits[:, said] if module.num_outputs > 1 else logits[:, 0] * (1 if said else -1)
            return own

        with torch.enable_grad():
            maps = LayerGradCam(score, layer).attribute(image.clone().requires_grad_(), relu_attributions=True)
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise InputError(f"GradCAM's layer: {self.layer} gives no maps; choose one of the backbone")
        maps = interpolate(maps.detach().float(), (self.side, self.side), mode="bilinear", align_corners=False)
        weight: NDArray[np.float32] = (maps / maps.amax().clamp(min=1e-12))[0, 0].cpu().numpy()
        return weight, said, float(probabilities[said])


def last_maps(module: ImageClassifier, image: Tensor) -> str | None:
    """The name of the layer that is the last to give square maps of more than one place; None where none does."""
    ran: list[str] = []

    def keep(name: str, output: Tensor) -> Tensor:
        # pictures are square: others are maps with channels last, or attention's heads
        if output.ndim == 4 and output.shape[2] == output.shape[3] > 1:
            ran.append(name)
        return output.new_empty(0)

    with outputs_of(named_layers(module), keep):
        module(image)
    return ran[-1] if ran else None


def _overlay(picture: Pixels, weight: NDArray[np.float32], side: int) -> Pixels:
    large = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((side, side), Image.Resampling.BICUBIC))
    gray = large.mean(2, keepdims=True) * 0.75 + 40
    strength = 0.75 * weight[..., None]
    mixed: Pixels = (gray * (1 - strength) + np.array([225, 30, 30]) * strength).round().astype(np.uint8)
    return mixed
