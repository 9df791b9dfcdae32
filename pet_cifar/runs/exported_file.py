"""An exported file as a net that takes pictures, so that it can be asked as its run is."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pet_cifar.errors import InputError

SUFFIX = ".onnx"
"""The ending of the files that can be asked. A torch program is none, because code in it could run when it is read."""
METADATA = "pet_cifar"
"""The key of a file's metadata under which its card lies, as JSON."""


class ExportedNet(nn.Module):
    """Answers by an exported file that takes ``pixels``.

    Args:
        card: What the file says of itself.
        ask: Gives the file's outputs for uint8 pictures of shape (B, C, S, S).
    """

    memory_format = torch.contiguous_format
    device = torch.device("cpu")

    def __init__(self, card: Mapping[str, Any], ask: Callable[[Tensor], Sequence[Tensor]]) -> None:
        super().__init__()
        self.class_names = tuple(map(str, card["class_names"]))
        self.num_classes = len(self.class_names)
        _, channels, size, _ = card["input_shape"]
        self.picture_shape = cast("tuple[Literal[1, 3], int]", (channels, size))
        self._ask = ask

    def predict_pictures(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities of floats in [0, 1], shape (B, C, S, S), and whether each picture is of none of the classes."""
        found = self._ask((image.float() * 255).round().to(torch.uint8).contiguous())
        return found[0], found[1] if len(found) > 1 else None

    def forward(self, image: Tensor) -> Tensor:
        """An exported file gives probabilities and no logits.

        Raises:
            InputError: Always.
        """
        raise InputError("an exported file has no layers and no logits; load the run, or ask predict_pictures")


def open_exported(file: Path) -> ExportedNet:
    """Opens an ONNX file.

    Raises:
        InputError: It is damaged, takes something else than pixels, was not written by this package, or a package is
            missing.
    """
    try:
        card, ask = _opened(file)
    except ImportError as error:
        raise InputError(
            f"{file} needs onnxruntime, which is not installed: pip install 'pet_cifar[export]'"
        ) from error
    # onnxruntime has many errors for damage.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{file} cannot be read as an exported net: {reason}") from error
    if not isinstance(card, Mapping) or not {"class_names", "input_shape", "input"} <= card.keys():
        raise InputError(f"{file} does not say what it takes; give a file that pet-cifar export wrote")
    if card["input"] != "pixels":
        raise InputError(f"{file} takes a {card['input']} at a time; give one of export --input pixels, or its run")
    return ExportedNet(card, ask)


def _opened(file: Path) -> tuple[Any, Callable[[Tensor], Sequence[Tensor]]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA, "null"))
    return card, lambda pixels: [torch.from_numpy(one) for one in session.run(None, {"pixels": pixels.numpy()})]
