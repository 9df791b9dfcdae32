"""Mixup and CutMix: pictures and labels of a batch mixed in pairs."""

from typing import Literal

from torch import Tensor

Mix = Literal["none", "mixup", "cutmix", "both"]


def mixed(image: Tensor, label: Tensor, mix: Mix, alpha: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mixes each picture with another of its batch, by torchvision's transforms.

    Args:
        image: The pictures, shape (B, C, H, W).
        label: The class numbers, shape (B,).
        mix: ``mixup`` blends (Zhang et al., arXiv 1710.09412), ``cutmix`` pastes a rectangle (Yun et al., arXiv
            1905.04899), ``both`` takes one of the two at random for the whole batch.
        alpha: The parameter of the Beta distribution that a pair's shares are drawn from.
        num_classes: The number of classes.

    Returns:
        Pictures of the same shape, and each one's shares of the classes, shape (B, num_classes).
    """
    # This import takes a while, and few runs need it.
    from torchvision.transforms import v2

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    chosen = [kind(alpha=alpha, num_classes=num_classes) for name, kind in kinds.items() if mix in (name, "both")]
    mixing = chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
    image, label = mixing(image, label)
    return image, label
