"""Pictures are used while others are still being decoded."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.pixels import growing
from pet_cifar.data.pixels.cache import FilePixels, open_pixels
from pet_cifar.data.pixels.growing import GrowingPixels, Pixels
from pet_cifar.data.pixels.placement import Placement
from pet_cifar.data.split_pixels import SplitPixels

SHAPE, COUNT = (3, 4, 5), 40
ARRAY = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)
FIRST = np.array([3, 0, 7])


class Decoder:
    """Decodes the first pictures at once, and the others when `rest` is set."""

    def __init__(self) -> None:
        self.rest = threading.Event()
        self.error: Exception | None = None

    def read(self, row: int) -> NDArray[np.uint8]:
        if row >= COUNT // 2:
            assert self.rest.wait(60)
            if self.error is not None:
                raise self.error
        pixels: NDArray[np.uint8] = ARRAY[row]
        return pixels

    def open(self, cache: Placement, file: Path, told: GrowingPixels) -> Pixels:
        return open_pixels(
            *(self.read, COUNT, SHAPE, cache),
            file=file,
            device=torch.device("cpu"),
            num_threads=2,
            growing=told,
        )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.npy"


@pytest.mark.parametrize("cache", ["disk", "ram", "device"])
def test_an_access_waits_for_its_own_pictures_alone(cache: Placement, file: Path) -> None:
    decoder = Decoder()
    pictures = GrowingPixels(COUNT, partial(decoder.open, cache, file))
    assert pictures.whole() is None
    assert torch.equal(pictures.take(FIRST), torch.from_numpy(ARRAY[FIRST]))
    assert not file.exists()
    decoder.rest.set()
    rows = np.arange(COUNT)
    assert torch.equal(pictures.take(rows), torch.from_numpy(ARRAY))
    whole = pictures.whole()
    assert whole is not None
    assert torch.equal(whole.take(rows), torch.from_numpy(ARRAY))
    if cache == "disk":
        # What was read meanwhile has left the file as it is to be.
        assert torch.equal(FilePixels(file).take(rows), torch.from_numpy(ARRAY))


def test_what_decoding_raises_is_raised_where_pictures_are_taken(file: Path) -> None:
    decoder = Decoder()
    decoder.error = ValueError("no picture")
    pictures = GrowingPixels(COUNT, partial(decoder.open, "disk", file))
    pictures.take(FIRST)
    decoder.rest.set()
    with pytest.raises(ValueError, match="no picture"):
        pictures.take(np.array([COUNT - 1]))
    assert not list(file.parent.glob("*.part"))


def test_a_pass_that_fails_ends_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder()
    records = [ImageRecord(str(row), "cat", "", *(1,) * 5, "L", str(row), "ok") for row in range(COUNT)]
    pixels = SplitPixels(
        {"train": records},
        lambda record: decoder.read(int(record.path)),
        SHAPE,
        cache="disk",
        root=tmp_path,
        device=torch.device("cpu"),
        num_processes=1,
    )

    def decode_the_rest(decoding: Iterable[Future[Pixels]]) -> None:
        decoder.rest.set()
        wait(decoding)

    def fail() -> None:
        with pixels.opening("train") as opened:
            opened.take(FIRST)
            raise KeyboardInterrupt

    # The others can be decoded only once it is known that nobody wants them.
    monkeypatch.setattr(growing, "wait", decode_the_rest)

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not [file for ending in ("npy", "part") for file in tmp_path.rglob(f"*.{ending}")]
    with pixels.opening("train") as opened:
        assert torch.equal(opened.take(FIRST), torch.from_numpy(ARRAY[FIRST]))
    with pixels.opening("train") as opened:
        assert opened is pixels.open("train")
