"""Writes a trained net as a file for other programs, with all that a picture goes through inside it.

ONNX files and torch programs take uint8 pixels and give probabilities, so that nothing is left to the program that uses
them. What each file says is compared with what the run says before it counts as done; see `export_check`.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import ExportedProgram

from pet_cifar import __version__
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable
from pet_cifar.runs.directory import run_of_checkpoint
from pet_cifar.runs.exported_file import METADATA
from pet_cifar.runs.exported_net import FromPicture, FromPixels
from pet_cifar.runs.load import Classifier
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import evaluating

Input = Literal["pixels", "picture"]
OPSET = 18
"""The version of ONNX's operators; 18 is the oldest that torch's exporter writes, and the most runtimes take it."""
OUTPUTS = ("probabilities", "none_of_these")


@dataclass(frozen=True)
class Card:
    """What a file says of itself.

    Attributes:
        class_names: The names of the classes in the order of the probabilities.
        run: The run that it comes from, as its config's name and version.
        net: The name of the net's class.
        data_fingerprint: The fingerprint of the pictures that it was trained on; empty where the run does not say.
        input: What it takes.
        input_shape: The shape of that, with words for what may change.
        outputs: What it gives.
        pet_cifar_version: The version that wrote it.
        check: What came of comparing it with the run; empty before that.
    """

    class_names: tuple[str, ...]
    run: str
    net: str
    data_fingerprint: str
    input: Input
    input_shape: tuple[str | int, ...]
    outputs: tuple[str, ...]
    pet_cifar_version: str = __version__
    check: str = ""

    def text(self) -> str:
        """The card as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def card_of(classifier: Classifier, checkpoint: Mapping[str, Any], takes: Input) -> Card:
    """Describes a net.

    Args:
        classifier: The net.
        checkpoint: What its checkpoint holds.
        takes: What the file takes.
    """
    net = classifier.module
    channels, size = net.picture_shape
    run = run_of_checkpoint(classifier.checkpoint)
    states = (state for state in checkpoint.values() if isinstance(state, Mapping))
    fingerprint = next((str(state["fingerprint"]) for state in states if "fingerprint" in state), "")
    return Card(
        class_names=tuple(map(printable, net.class_names)),
        run=printable(f"{run.absolute().parent.name}/{run.name}" if run else classifier.checkpoint.name),
        net=type(net).__name__,
        data_fingerprint=fingerprint,
        input=takes,
        input_shape=("batch", channels, size, size) if takes == "pixels" else ("height", "width", 3),
        outputs=OUTPUTS[: len(_answers(net, takes))],
    )


def example_of(net: ImageClassifier, takes: Input) -> Tensor:
    """A picture, or two, as a file takes them."""
    channels, size = net.picture_shape
    shape = (2, channels, size, size) if takes == "pixels" else (size + 3, size + 5, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def wrapped(net: ImageClassifier, takes: Input) -> nn.Module:
    """The net with all that a picture goes through before it."""
    return FromPixels(net) if takes == "pixels" else FromPicture(net)


def _answers(net: ImageClassifier, takes: Input) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found: tuple[Tensor, ...] = wrapped(net, takes)(example_of(net, takes).to(net.device))
    return found


def check_packages(*names: str) -> None:
    """Refuses to export without the packages that it needs.

    Raises:
        InputError: One is missing.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(
            f"export needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'pet_cifar[export]'"
        )


def dynamic_shapes(takes: Input) -> tuple[dict[int, Any]]:
    """The dimensions of the input that may change."""
    names = ("batch",) if takes == "pixels" else ("height", "width")
    return ({place: torch.export.Dim(name) for place, name in enumerate(names)},)


def write_onnx(classifier: Classifier, card: Card, file: Path) -> None:
    """Writes an ONNX file that holds the weights too.

    Args:
        classifier: The net.
        card: What the file says of itself, and what it takes.
        file: The file.

    Raises:
        InputError: The net cannot be exported, or the file cannot be written.
    """
    program = onnx_program(wrapped(classifier.module, card.input), classifier.module, card.input, card.outputs)
    model = program.model_proto
    model.metadata_props.add(key=METADATA, value=card.text())
    with disk_errors(file, "; give another --output"):
        file.write_bytes(model.SerializeToString())


def onnx_program(module: nn.Module, net: ImageClassifier, takes: Input, outputs: tuple[str, ...]) -> Any:
    """Converts a module by torch's exporter for ONNX.

    Raises:
        InputError: It has an operator that ONNX does not have, or code that depends on values.
    """
    with _on_the_cpu(net), _quiet(), torch.no_grad():
        try:
            return torch.onnx.export(
                module.eval(),
                (example_of(net, takes),),
                dynamo=True,
                dynamic_shapes=dynamic_shapes(takes),
                input_names=[takes],
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
        # torch raises different errors at different steps.
        except Exception as error:
            raise InputError(f"{type(net).__name__} cannot be exported to ONNX: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Which operator an exporter does not know, or its first sentence."""
    text = str(error)
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    if operator:
        return f"ONNX has nothing for the operator {operator[1]}"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def torch_program(classifier: Classifier, takes: Input) -> ExportedProgram:
    """Converts a net by ``torch.export``.

    Raises:
        InputError: The net cannot be exported.
    """
    net = classifier.module
    with _on_the_cpu(net), _quiet(), torch.no_grad():
        try:
            module = wrapped(net, takes).eval()
            return torch.export.export(
                module, (example_of(net, takes),), dynamic_shapes=dynamic_shapes(takes), strict=False
            )
        except Exception as error:
            raise InputError(f"{type(net).__name__} cannot be exported by torch: {_reason(error)}") from error


def write_torch(program: ExportedProgram, card: Card, file: Path) -> None:
    """Writes a program of ``torch.export``, which ``torch.export.load`` reads without this package.

    Raises:
        InputError: The file cannot be written.
    """
    content = BytesIO()
    torch.export.save(program, content, extra_files={"card.json": card.text()})
    with disk_errors(file, "; give another --output"):
        file.write_bytes(content.getvalue())


def write_safetensors(classifier: Classifier, card: Card, file: Path) -> None:
    """Writes the weights without any code, and beside them the card as ``<name>.json``.

    Raises:
        InputError: A file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.module.state_dict().items()}
    with disk_errors(file, "; give another --output"):
        file.write_bytes(save(tensors, {METADATA: card.text()}))
        file.with_suffix(".json").write_text(card.text() + "\n", encoding="utf-8")


@contextmanager
def _on_the_cpu(net: ImageClassifier) -> Iterator[None]:
    device = net.device
    try:
        with evaluating(net):
            net.cpu()
            yield
    finally:
        net.to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the exporters print of their own progress and future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
