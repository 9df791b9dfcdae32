"""Copies of photographs are found, whatever was done to them, and different photographs are not taken for copies."""

from collections import Counter
from collections.abc import Callable
from io import BytesIO

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from pet_cifar.data import near_duplicates as nd
from pet_cifar.data.near_duplicates import Pair, candidates, descriptors, groups_of, near_duplicates
from pet_cifar.data.pixels.decode import decode


def tiles() -> list[Image.Image]:
    """104 different pieces of two photographs, of 120 x 90 pixels each, some of them of plain sky."""
    pieces = []
    for photograph in load_sample_images().images:
        whole = Image.fromarray(photograph).resize((960, 630))
        pieces += [
            whole.crop((x, y, x + 120, y + 90)) for y in range(0, whole.height, 90) for x in range(0, whole.width, 120)
        ]
    return pieces[:104]


def encoded(picture: Image.Image, quality: int = 90) -> bytes:
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def small(picture: Image.Image, quality: int = 90) -> NDArray[np.uint8]:
    return decode(encoded(picture, quality), 32, 3)


def cropped(picture: Image.Image) -> Image.Image:
    x, y = round(0.02 * picture.width), round(0.02 * picture.height)
    return picture.crop((x, y, picture.width - x, picture.height - y))


CHANGES: dict[str, Callable[[Image.Image], NDArray[np.uint8]]] = {
    "re-encoded": lambda picture: small(picture, 40),
    "resized": lambda picture: small(picture.resize((84, 63))),
    "cropped": lambda picture: small(cropped(picture)),
    "mirrored": lambda picture: small(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "brighter": lambda picture: small(picture.point(lambda value: min(255, round(1.15 * value + 8)))),
}


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [tile for tile in tiles() if np.asarray(tile.convert("L")).std() > 20]


@pytest.mark.parametrize("change", CHANGES)
def test_every_copy_is_found_and_no_other_picture_accused(change: str, originals: list[Image.Image]) -> None:
    copied = range(0, len(originals), 4)
    pictures = np.stack([small(one) for one in originals] + [CHANGES[change](originals[row]) for row in copied])
    pairs = near_duplicates(pictures)
    expected = {(row, len(originals) + number) for number, row in enumerate(copied)}
    assert {(pair.first, pair.second) for pair in pairs} == expected
    assert {pair.mirrored for pair in pairs} == {change == "mirrored"}
    assert all(nd.SAME_EDGES <= pair.similarity <= 1.0001 for pair in pairs)


@pytest.mark.parametrize("change", ["re-encoded", "resized", "cropped"])
def test_it_finds_what_a_perceptual_hash_finds(change: str, originals: list[Image.Image]) -> None:
    """imagehash's phash, at the distance that its users take (8 of 64 bits), knows no mirrored copy."""
    pictures = [small(one) for one in originals] + [CHANGES[change](one) for one in originals]
    hashes = [imagehash.phash(Image.fromarray(picture.transpose(1, 2, 0))) for picture in pictures]
    copies = [(row, row + len(originals)) for row in range(len(originals))]
    by_hash = {(row, copy) for row, copy in copies if hashes[row] - hashes[copy] <= 8}
    found = {(pair.first, pair.second) for pair in near_duplicates(np.stack(pictures))}
    assert len(by_hash) > len(originals) / 2
    assert by_hash <= found


def test_blank_pictures_are_no_copies_of_each_other() -> None:
    noise = np.random.default_rng(0).integers(120, 124, (6, 3, 32, 32)).astype(np.uint8)
    assert near_duplicates(np.concatenate([noise, np.full((4, 3, 32, 32), 200, np.uint8)])) == []


def test_blocks_give_what_one_product_gives(monkeypatch: pytest.MonkeyPatch, originals: list[Image.Image]) -> None:
    vectors, signs = descriptors(np.stack([small(one) for one in (*originals, *originals[:9])]))
    whole = candidates(vectors, np.ones_like(signs))
    monkeypatch.setattr(nd, "BLOCK", 7)
    again, _ = descriptors(np.stack([small(one) for one in (*originals, *originals[:9])]))
    assert np.array_equal(again, vectors)
    assert [rows.tolist() for rows in candidates(vectors, np.ones_like(signs))] == [rows.tolist() for rows in whole]


def test_a_hundred_equal_pictures_are_one_group(monkeypatch: pytest.MonkeyPatch, originals: list[Image.Image]) -> None:
    monkeypatch.setattr(nd, "BLOCK", 16)
    pictures = np.stack([small(originals[0])] * 100)
    pairs = near_duplicates(pictures)
    assert len(pairs) < 100 * 2 * nd.NEAREST
    assert groups_of([(pair.first, pair.second) for pair in pairs], 100) == [list(range(100))]


class Counted:
    """Counts the pairs that are compared, by the steps that align them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs: Counter[int] = Counter()
        self.similarity = nd.similarity
        monkeypatch.setattr(nd, "similarity", self)

    def __call__(self, one: NDArray[np.uint8], other: NDArray[np.uint8], steps: int) -> NDArray[np.float32]:
        self.pairs[steps] += len(one)
        return self.similarity(one, other, steps)


def variations(picture: NDArray[np.uint8], count: int, noise: float) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    bright = picture * random.uniform(0.8, 1.1, (count, 1, 1, 1)) + random.uniform(-15, 15, (count, 1, 1, 1))
    return np.clip(bright + random.normal(0, noise, (count, *picture.shape)), 0, 255).astype(np.uint8)


def test_a_crowd_costs_one_close_comparison_a_picture(
    monkeypatch: pytest.MonkeyPatch, originals: list[Image.Image]
) -> None:
    pictures = np.concatenate([variations(small(originals[0]), 300, 2), [small(one) for one in originals[1:5]]])
    counted = Counted(monkeypatch)
    monkeypatch.setattr(nd, "CROWD", 300)
    every = {(pair.first, pair.second) for pair in near_duplicates(pictures)}
    assert counted.pairs[nd.STEPS] > 2500
    assert counted.pairs[0] == 0
    counted.pairs.clear()
    monkeypatch.setattr(nd, "CROWD", 100)
    pairs = {(pair.first, pair.second) for pair in near_duplicates(pictures)}
    assert counted.pairs[nd.STEPS] <= len(pictures)
    assert pairs <= every
    # Pictures that lie on each other as they are need no alignment.
    assert len(pairs) > 0.9 * len(every)
    assert groups_of(pairs, len(pictures)) == groups_of(every, len(pictures)) == [list(range(300))]


def test_what_looks_alike_and_is_not_the_same_is_compared_within_a_bound_that_is_told(
    monkeypatch: pytest.MonkeyPatch, originals: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    copied = np.stack([small(one) for one in originals[1:9]])
    cropped = np.stack([CHANGES["cropped"](one) for one in originals[1:9]])
    pictures = np.concatenate([variations(small(originals[0]), 100, 25), copied, cropped])
    counted = Counted(monkeypatch)
    with caplog.at_level("WARNING"):
        every = near_duplicates(pictures)
        assert caplog.messages == []
        monkeypatch.setattr(nd, "FEW", 0)
        assert near_duplicates(pictures) == every
    expected = {(100 + row, 108 + row) for row in range(8)}
    assert expected <= {(pair.first, pair.second) for pair in every}
    assert counted.pairs[0] > 0
    (line,) = caplog.messages
    assert f"only the {nd.ALIGNED * len(pictures):,} nearest pairs were laid on each other" in line
    assert "--data.group_by" in line


def test_signs_turn_a_descriptor_into_that_of_the_mirror_image(originals: list[Image.Image]) -> None:
    pictures = np.stack([small(one) for one in originals])
    vectors, signs = descriptors(pictures)
    mirrored, _ = descriptors(pictures[..., ::-1])
    assert np.allclose(vectors * signs, mirrored, atol=1e-5)


def test_pairs_that_share_a_picture_are_one_group() -> None:
    assert groups_of([(4, 1), (1, 7), (2, 3)], 9) == [[1, 4, 7], [2, 3]]
    assert groups_of([], 3) == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_set_without_pairs(count: int) -> None:
    pairs: list[Pair] = near_duplicates(np.zeros((count, 3, 32, 32), np.uint8))
    assert pairs == []
