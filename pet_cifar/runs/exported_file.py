"""An exported file as a net that takes pictures, so that it can be asked as its run is."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pet_cifar.data.files.regular import check_regular
from pet_cifar.errors import InputError
from pet_cifar.names import printable
from pet_cifar.runs.net_size import COPIES, SPARE
from pet_cifar.training.prediction import check_names

SUFFIX = ".onnx"
"""The ending of the files that can be asked. A torch program is none, because code in it could run when it is read."""
METADATA = "pet_cifar"
"""The key of a file's metadata under which its card lies, as JSON."""


class ExportedNet(nn.Module):
    """Answers by an exported file that takes ``pixels``.

    Args:
        class_names: The names of the classes.
        picture_shape: The channels and the side of its pictures.
        ask: Gives the file's outputs for uint8 pictures of shape (B, C, S, S).
    """

    memory_format = torch.contiguous_format
    device = torch.device("cpu")

    def __init__(
        self,
        class_names: tuple[str, ...],
        picture_shape: "tuple[Literal[1, 3], int]",
        ask: Callable[[Tensor], Sequence[Tensor]],
    ) -> None:
        super().__init__()
        self.class_names = class_names
        self.picture_shape = picture_shape
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


def session_of(model: Path | bytes) -> Any:
    """An onnxruntime session on the CPU, of a file or of its content."""
    import onnxruntime

    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"]
    )


def check_strangers_file(file: Path) -> None:
    """Refuses what no file of ``pet-cifar export`` has: other files, loops, and numbers made of next to nothing.

    Args:
        file: An ONNX file.

    Raises:
        ImportError: The package that reads it is missing.
        ValueError: It has one of these.
        Exception: It is damaged.
    """
    import onnx

    check_regular(file)
    model = onnx.load(str(file), load_external_data=False)
    attributes = [one for node in model.graph.node for one in node.attribute]
    tensors = [*model.graph.initializer, *(one.t for one in attributes)]
    tensors += [tensor for one in attributes for tensor in one.tensors]
    if model.graph.sparse_initializer or any(one.HasField("sparse_tensor") or one.sparse_tensors for one in attributes):
        raise ValueError("it holds sparse numbers, which stand for any number of others")
    # It would be read from a place that the file names.
    if any(one.external_data or one.data_location == onnx.TensorProto.EXTERNAL for one in tensors):
        raise ValueError("its numbers lie in another file")
    for node in model.graph.node:
        if any(one.HasField("g") or one.graphs for one in node.attribute):
            raise ValueError(f"it holds the operation {printable(node.op_type)}, which may never end")
    if model.functions:
        raise ValueError("it brings operations of its own")
    most = SPARE + COPIES * file.stat().st_size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shape = value.type.tensor_type.shape
        # A side that depends on the number of pictures counts as one; a number takes four bytes.
        if 4 * math.prod(max(1, side.dim_value) for side in shape.dim) > most:
            raise ValueError(f"one step of it takes more than {most / 1e6:.0f} MB for each picture")


def open_exported(file: Path) -> ExportedNet:
    """Opens an ONNX file.

    Raises:
        InputError: It is damaged, takes something else than pixels, was not written by this package, asks for more
            than a net does, or a package is missing.
    """
    try:
        check_strangers_file(file)
        session = session_of(file)
        card = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA, "null"))
        (given, *others), shapes = session.get_inputs(), {one.name: one.shape for one in session.get_outputs()}
    except ImportError as error:
        raise InputError(
            f"{file} needs onnx and onnxruntime, which are not installed: pip install 'pet_cifar[export]'"
        ) from error
    # onnx and onnxruntime have many errors for damage.
    except Exception as error:
        reason = printable((str(error) or type(error).__name__).splitlines()[0])
        raise InputError(f"{file} cannot be read as an exported net: {reason}") from error
    names = card.get("class_names") if isinstance(card, dict) else None
    if not isinstance(names, list) or others or "probabilities" not in shapes:
        raise InputError(f"{file} does not say what it takes; give a file that pet-cifar export wrote")
    if given.name != "pixels":
        raise InputError(f"{file} takes a {printable(given.name)}; give one of export --input pixels, or its run")
    # What the file itself says counts, since the card may have been written by anybody.
    shape, classes = given.shape, shapes["probabilities"][-1]
    if len(shape) != 4 or shape[1] not in (1, 3) or not isinstance(shape[2], int) or shape[2] != shape[3]:
        raise InputError(f"{file} takes pixels of the shape {printable(str(shape))}; give a file of pet-cifar export")
    class_names = check_names(
        [printable(str(name)) for name in names], classes if isinstance(classes, int) else len(names)
    )

    def ask(pixels: Tensor) -> list[Tensor]:
        return [torch.from_numpy(one) for one in session.run(None, {"pixels": pixels.numpy()})]

    return ExportedNet(class_names, (shape[1], shape[2]), ask)
