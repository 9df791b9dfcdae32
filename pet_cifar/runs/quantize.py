"""Makes an ONNX file of 8-bit whole numbers of one of floats, with onnxruntime's static quantizer."""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.errors import InputError

QUANTIZED = ("Conv", "Gemm")
"""The operators whose inputs and weights become whole numbers.

Products of matrices stay floats, because those that tell pictures of none of the classes need them.
"""


def quantize(source: Path, target: Path, pixels: Iterable[Tensor]) -> None:
    """Quantizes a file that takes ``pixels``; the ranges of all values are those of training pictures.

    Args:
        source: The ONNX file of floats.
        target: The new file; its metadata are those of ``source``.
        pixels: Training pictures in the net's size, in batches of uint8.

    Raises:
        InputError: onnxruntime cannot quantize it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(pixels)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch.numpy()}

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        # onnxruntime raises different errors for different operators.
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"onnxruntime cannot quantize {source.name}: {reason}; leave --int8 out") from error
        finally:
            logger.setLevel(level)
    model, whole = onnx.load(str(target)), onnx.load(str(source))
    del model.metadata_props[:]
    model.metadata_props.extend(whole.metadata_props)
    onnx.save(model, str(target))


def pictures_a_second(ask: Callable[[Tensor], object], pixels: Tensor, batch: int = 32, seconds: float = 2.0) -> float:
    """How many pictures are answered in a second, asked in batches of ``batch``; the first batch does not count."""
    images = pixels[:batch]
    ask(images)
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        ask(images)
        count += len(images)
    return count / passed
