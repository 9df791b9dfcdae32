"""Reads what TensorBoard would show of a run."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class Events:
    """Holds the content of a run directory's event files."""

    def __init__(self, run: Path) -> None:
        self._events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
        self._events.Reload()
        self.images: list[str] = self._events.Tags()["images"]
        self.scalars: list[str] = self._events.Tags()["scalars"]
        self.tensors: list[str] = self._events.Tags()["tensors"]

    def steps(self, tag: str) -> list[int]:
        events = self._events.Images(tag) if tag in self.images else self._events.Scalars(tag)
        return [event.step for event in events]

    def values(self, tag: str) -> list[float]:
        return [event.value for event in self._events.Scalars(tag)]

    def picture(self, tag: str) -> NDArray[np.uint8]:
        """Decodes the last picture of a tag: uint8, shape (H, W, 3)."""
        content = self._events.Images(tag)[-1].encoded_image_string
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def text(self, tag: str) -> str:
        event = self._events.Tensors(f"{tag}/text_summary")[-1]
        return b"".join(event.tensor_proto.string_val).decode()

    def tensor(self, tag: str) -> bytes:
        """Reads the last tensor that a plugin wrote."""
        return bytes(self._events.Tensors(tag)[-1].tensor_proto.string_val[0])

    def message(self, tag: str) -> bytes:
        """Reads the message that a plugin wrote."""
        return bytes(self._events.SummaryMetadata(tag).plugin_data.content)


def size(run: Path) -> int:
    """Counts the bytes of all event files."""
    return sum(file.stat().st_size for file in run.glob("events.out.tfevents.*"))
