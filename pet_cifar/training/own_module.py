"""Checks an ordinary ``nn.Module`` that is to be trained and scored as an `ImageClassifier`."""

import torch
from torch import Tensor, nn

from pet_cifar.errors import InputError
from pet_cifar.training.prediction import evaluating


def count_outputs(backbone: nn.Module, head: nn.Module, num_channels: int, image_size: int) -> int:
    """How many logits a net gives for each picture; it is run once in evaluation, on one black picture.

    Args:
        backbone: The layers from pictures to features.
        head: The layers from features to logits.
        num_channels: The channels of a picture.
        image_size: The side of a picture in pixels.

    Raises:
        InputError: The net cannot take such a picture, or gives no row of logits for it.
    """
    parameter = next((one for one in [*backbone.parameters(), *head.parameters()] if not _is_lazy(one)), None)
    picture = torch.zeros(1, num_channels, image_size, image_size)
    picture = picture if parameter is None else picture.to(parameter.device, parameter.dtype)
    try:
        with evaluating(backbone), evaluating(head), torch.no_grad():
            logits = head(backbone(picture))
    # What a layer raises for a picture of another size or depth differs from layer to layer.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the net cannot take a picture of shape {tuple(picture.shape[1:])} ({reason}); give the num_channels and "
            "image_size of its pictures"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.shape[1]:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(
            f"the net gives {found} for one picture where logits have the shape (1, num_classes); give a head, such as "
            "nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(num_classes))"
        )
    return int(logits.shape[1])


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.parameter.UninitializedParameter)


def check_outputs(outputs: int, num_classes: int) -> None:
    """Refuses a net whose logits are not those of its classes.

    Args:
        outputs: How many logits it gives for each picture.
        num_classes: The number of classes; two may have one logit.

    Raises:
        InputError: There are more or fewer logits.
    """
    if outputs != num_classes and (outputs, num_classes) != (1, 2):
        raise InputError(
            f"num_classes is {num_classes}, but the net gives {outputs} logits for each picture; give num_classes "
            f"{max(2, outputs)}, or a net with {num_classes} logits"
        )
