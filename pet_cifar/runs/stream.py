"""Predicts many files: they are decoded in threads while the net computes, and what cannot be read stops nothing."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pet_cifar.data.pixels.convert import described
from pet_cifar.data.pixels.decode import DecodeError, decode
from pet_cifar.hardware import cores, keep_freed_memory
from pet_cifar.names import printable
from pet_cifar.runs.sources import Source
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import Prediction, batch_size_for, predict_pixels

AHEAD = 3
"""The batches that are decoded while one is computed."""


@dataclass(frozen=True)
class Row:
    """What came of one picture.

    Attributes:
        source: The picture.
        prediction: What the net says; None where it could not be read.
        error: Why it could not be read; empty where it could.
    """

    source: Source
    prediction: Prediction | None
    error: str = ""


def predict_sources(net: ImageClassifier, sources: Sequence[Source]) -> Iterator[Row]:
    """Yields a row for each picture, in order.

    Args:
        net: The net, in evaluation.
        sources: The pictures.
    """
    channels, size = net.picture_shape
    if net.device.type == "cpu":
        keep_freed_memory()
    step = batch_size_for(size)
    batches = [sources[start : start + step] for start in range(0, len(sources), step)]
    waiting: deque[list[Future[NDArray[np.uint8] | str]]] = deque()
    with ThreadPoolExecutor(cores(), thread_name_prefix="decode") as pool:
        try:
            for number, batch in enumerate(batches):
                for later in batches[number + len(waiting) : number + AHEAD + 1]:
                    waiting.append([pool.submit(_read, source, size, channels) for source in later])
                yield from _predict_batch(net, batch, [future.result() for future in waiting.popleft()])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _read(source: Source, size: int, channels: Literal[1, 3]) -> NDArray[np.uint8] | str:
    """The pixels, or why there are none."""
    try:
        return decode(source.read(), size, channels)
    except DecodeError as error:
        return printable(described(error))
    except (OSError, ValueError) as error:
        return printable(getattr(error, "strerror", None) or str(error))


def _predict_batch(
    net: ImageClassifier, batch: Sequence[Source], found: "Sequence[NDArray[np.uint8] | str]"
) -> Iterator[Row]:
    images = [torch.from_numpy(one) for one in found if not isinstance(one, str)]
    names = [source.name for source, one in zip(batch, found, strict=True) if not isinstance(one, str)]
    predictions = iter(predict_pixels(net, images, names))
    for source, one in zip(batch, found, strict=True):
        yield Row(source, None, one) if isinstance(one, str) else Row(source, next(predictions))
