"""Finds pictures that show the same: re-encoded, resized, slightly cropped or mirrored copies of each other.

A short descriptor of every picture finds candidates by matrix products. Each candidate is then verified: one picture
is shifted, scaled and brightened until it lies on the other as well as it can, and their edges are compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from pet_cifar.data.manifest_report import warn_line

SIDE = 32
"""The side in pixels of the pictures that are compared."""
CANDIDATE = 0.75
"""The cosine of two descriptors from which on a pair is verified."""
STEPS = 3
"""The Gauss-Newton steps that align two pictures."""
NEAREST = 10
"""The most candidates of one picture that are verified, among the pictures after it."""
SAME_PIXELS = 0.9
"""The correlation of two aligned pictures that near duplicates have at least."""
SAME_EDGES = 0.77
"""The correlation of the edges of two aligned pictures that near duplicates have at least.

Copies that lost 2 % at each side have 0.78 or more. In CIFAR-10 pairs of two subjects begin at about 0.7.
"""
BLANK = 4.0
"""The standard deviation of the gray values, of 0 to 255, below which a picture shows nothing to be compared."""
BLOCK = 4096
"""The pictures on each side of one matrix product."""
PAIRS = 64
"""The pairs that are aligned together, which bounds the memory; so few of them stay in the processor's cache."""
CROWD = 256
"""A group of more pictures than this is a crowd: its pictures are no longer aligned with each other, see `_compared`.

The largest group of CIFAR-10 has 97.
"""
ALIGNED, FEW = 3, 20_000
"""The most pairs that are aligned for each picture on average, and how many are in any case.

CIFAR-10's 60,000 pictures have 43,000 candidates, 0.7 for each picture. Pictures that all look alike have 20 for each.
"""

_GRAY = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
_FREQUENCIES, _COLOR_FREQUENCIES = 8, 4
_FARTHEST = np.array([0.15, 0.15, 0.15, 0.15], np.float32)
_START = np.array([0, 1, 0, 1], np.float32)
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two pictures that show the same.

    Attributes:
        first, second: Their rows, the smaller first.
        mirrored: Whether one is the mirror image of the other.
        similarity: The correlation of their edges once they are aligned, 1 for equal pictures.
    """

    first: int
    second: int
    mirrored: bool
    similarity: float


def near_duplicates(pictures: NDArray[np.uint8]) -> list[Pair]:
    """Finds the pairs of pictures that show the same, in the order of their rows.

    Args:
        pictures: RGB, shape (n, 3, 32, 32).
    """
    vectors, flips = descriptors(pictures)
    contrast = [gray_of(block).std((1, 2)) for block in _blocks(pictures)]
    shown = np.flatnonzero(np.concatenate([np.empty(0), *contrast]) >= BLANK)
    found = []
    for mirrored, signs in enumerate((np.ones_like(flips), flips)):
        first, second = (shown[rows] for rows in candidates(vectors[shown], signs))
        cosine = np.einsum("nd,nd->n", vectors[first], vectors[second] * signs)
        found.append((first, second, np.full(len(first), mirrored, bool), cosine))
    best: dict[tuple[int, int], Pair] = {}
    for pair in _compared(pictures, *map(np.concatenate, zip(*found, strict=True))):
        rows = pair.first, pair.second
        known = best.get(rows)
        # Of a picture that is its own mirror image it is said that it is not mirrored.
        if known is None or (pair.similarity, not pair.mirrored) > (known.similarity, not known.mirrored):
            best[rows] = pair
    return [best[rows] for rows in sorted(best)]


def _compared(
    pictures: NDArray[np.uint8], first: Rows, second: Rows, mirrored: NDArray[np.bool_], cosine: Floats
) -> Iterator[Pair]:
    """The candidates that show the same, those first that are the nearest of a picture.

    Where thousands of pictures are alike, each has candidates in plenty, and to align them all would take minutes.
    Two pictures that are known to belong to one crowd are therefore compared as they lie: this can miss a pair of the
    crowd, and never changes which pictures are in it. So are pairs beyond the number of `ALIGNED` for each picture,
    which a warning tells.
    """
    order = np.lexsort((mirrored, -cosine, first))
    first, second, mirrored, cosine = first[order], second[order], mirrored[order], cosine[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    most = max(FEW, ALIGNED * len(pictures))
    aligned = unaligned = 0
    same: list[tuple[int, int]] = []
    for turn in range(rank.max(initial=-1) + 1):
        rows = np.flatnonzero(rank == turn)
        rows = rows[np.argsort(-cosine[rows], kind="stable")]
        crowd = _crowds(same, len(pictures))
        apart = (crowd[first[rows]] < 0) | (crowd[first[rows]] != crowd[second[rows]])
        closely = rows[apart][: most - aligned]
        beyond = rows[apart][most - aligned :]
        aligned += len(closely)
        unaligned += len(beyond)
        for chosen, steps in ((closely, STEPS), (np.concatenate([rows[~apart], beyond]), 0)):
            for start in range(0, len(chosen), PAIRS):
                part = chosen[start : start + PAIRS]
                others = pictures[second[part]]
                flipped = np.where(mirrored[part, None, None, None], others[..., ::-1], others)
                scores = similarity(pictures[first[part]], flipped, steps)
                for row, score in zip(part.tolist(), scores.tolist(), strict=True):
                    if score >= SAME_EDGES:
                        pair = Pair(int(first[row]), int(second[row]), bool(mirrored[row]), score)
                        same.append((pair.first, pair.second))
                        yield pair
    if unaligned:
        warn_line(
            f"near duplicates: so many pictures look alike that only the {aligned:,} nearest pairs were laid on each "
            f"other; {unaligned:,} were compared as they lie, and those of them that were cropped or resized may stay "
            "unnoticed: --data.group_by keeps pictures together that you know to belong together"
        )


def _crowds(pairs: Sequence[tuple[int, int]], count: int) -> Rows:
    """The number of the crowd that each picture is in, -1 where it is in none; shape (n,)."""
    crowd = np.full(count, -1)
    for number, rows in enumerate(groups_of(pairs, count)):
        if len(rows) > CROWD:
            crowd[rows] = number
    return crowd


def groups_of(pairs: Iterable[tuple[int, int]], count: int) -> list[list[int]]:
    """Joins pairs that share a picture.

    Args:
        pairs: The rows of each pair.
        count: The number of pictures.

    Returns:
        The rows of each group of two or more, in order.
    """
    rows = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(rows), np.int8), (rows[:, 0], rows[:, 1])), shape=(count, count))
    numbers = connected_components(graph, directed=False)[1]
    members: dict[int, list[int]] = {}
    for row in np.unique(rows).tolist():
        members.setdefault(int(numbers[row]), []).append(row)
    return sorted(members.values())


def descriptors(pictures: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Describes pictures by the low frequencies of their cosine transforms.

    Each frequency is weighted by its height, because in photographs the amplitude falls inversely to it (Field 1987,
    https://doi.org/10.1364/JOSAA.4.002379), and otherwise the lowest ones would decide alone.

    Args:
        pictures: RGB, shape (n, 3, 32, 32).

    Returns:
        Unit vectors of shape (n, 96), and the signs of shape (96,) that turn a vector into the mirror image's.
    """
    position = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    order = np.arange(_FREQUENCIES)
    basis = np.cos(order[:, None] * position).astype(np.float32)
    weight = np.hypot(order[:, None], order[None]).astype(np.float32)
    sign = np.broadcast_to(np.where(order % 2, -1, 1).astype(np.float32), weight.shape)
    small = slice(_COLOR_FREQUENCIES)
    signs = np.concatenate([sign.ravel(), *2 * [sign[small, small].ravel()]])
    vectors = np.empty((len(pictures), len(signs)), np.float32)
    for start, block in zip(range(0, len(pictures), BLOCK), _blocks(pictures), strict=True):
        gray = gray_of(block)
        luma, blue, red = ((basis @ part @ basis.T) * weight for part in (gray, block[:, 2] - gray, block[:, 0] - gray))
        parts = [part.reshape(len(block), -1) for part in (luma, blue[:, small, small], red[:, small, small])]
        vectors[start : start + BLOCK] = np.concatenate(parts, 1)
    # A constant picture has no direction.
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors, signs


def candidates(vectors: Floats, signs: Floats) -> tuple[Rows, Rows]:
    """Finds pairs of descriptors with a cosine of `CANDIDATE` or more: for each picture the nearest of those after it.

    At most `NEAREST` are kept for a picture, which bounds the memory where all are alike; a thousand equal pictures are
    still one group.

    Args:
        vectors: Unit vectors, shape (n, D).
        signs: What the second vector of a pair is multiplied with, shape (D,).

    Returns:
        The rows of the pairs, the smaller first.
    """
    others = vectors * signs
    starts = range(0, len(vectors), BLOCK)
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    # Below a few blocks the products take no time that a bar could show.
    for top in tqdm(starts, desc="comparing pictures", unit="", disable=None if len(starts) > 3 else True, leave=False):
        rows, columns, cosines = [], [], []
        for left in starts[top // BLOCK :]:
            product = vectors[top : top + BLOCK] @ others[left : left + BLOCK].T
            if left == top:
                product[np.tril_indices(len(product))] = -1
            row, column = _nearest(product)
            rows.append(row + top)
            columns.append(column + left)
            cosines.append(product[row, column])
        row, column, cosine = map(np.concatenate, (rows, columns, cosines))
        order = np.lexsort((column, -cosine, row))
        row, column = row[order], column[order]
        near = np.arange(len(row)) - np.searchsorted(row, row) < NEAREST
        first.append(row[near])
        second.append(column[near])
    one, other = np.concatenate(first), np.concatenate(second)
    order = np.lexsort((other, one))
    return one[order], other[order]


def _nearest(product: Floats) -> tuple[Rows, Rows]:
    """The places in a matrix of cosines that reach `CANDIDATE`, in each row at most the `NEAREST` highest."""
    row, column = np.divmod(np.flatnonzero(product >= CANDIDATE), product.shape[1])
    crowded = np.flatnonzero(np.bincount(row, minlength=len(product)) > NEAREST)
    if len(crowded):
        highest = np.argpartition(product[crowded], -NEAREST, axis=1)[:, -NEAREST:]
        others = ~np.isin(row, crowded)
        row = np.concatenate([row[others], crowded.repeat(NEAREST)])
        column = np.concatenate([column[others], highest.ravel()])
    return row, column


def similarity(pictures: NDArray[np.uint8], others: NDArray[np.uint8], steps: int = STEPS) -> Floats:
    """Lays each picture's partner on it, and measures how well their edges then agree.

    The partner may be shifted and scaled by 15 % of half a side, brightened and given more contrast: six unknowns,
    found by Gauss-Newton steps (Lucas and Kanade, "An iterative image registration technique", 1981). The margins do
    not count, because a crop has lost them.

    Args:
        pictures: RGB, shape (n, 3, 32, 32).
        others: Their partners, of the same shape.
        steps: The number of Gauss-Newton steps; with none the pictures are compared as they lie.

    Returns:
        The lower of the correlations of vertical and of horizontal edges, shape (n,); 0 where the pixels themselves
        agree less than `SAME_PIXELS`.
    """
    target: Floats = pictures.astype(np.float32) / np.float32(255)
    moving: Floats = others.astype(np.float32) / np.float32(255)
    count, inner = len(target), (..., slice(2, -2), slice(2, -2))
    grid = np.linspace(-1, 1, SIDE, dtype=np.float32)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    place = np.tile(_START, (count, 1))  # The shift and the scale of y and of x.
    pixels, edges = np.full(count, -1, np.float32), np.zeros(count, np.float32)
    for step in range(steps + 1):
        warped = _sample(moving, place)
        agreed = _correlation(target[inner], warped[inner])
        edges = np.where(agreed > pixels, _edge_correlation(target[inner], warped[inner]), edges)
        pixels = np.maximum(pixels, agreed)
        if step == steps:
            break
        dy, dx = np.gradient(warped, grid, axis=2), np.gradient(warped, grid, axis=3)
        columns = [dy, dy * y, dx, dx * x, warped, np.ones_like(warped)]
        design = np.stack([column[inner].reshape(count, -1) for column in columns], 2)
        gram = design.transpose(0, 2, 1) @ design
        # Without detail a shift changes nothing, and the equations would have no one solution.
        gram += np.eye(6, dtype=np.float32) * (1e-4 * np.trace(gram, axis1=1, axis2=2)[:, None, None] + 1e-6)
        goal = design.transpose(0, 2, 1) @ target[inner].reshape(count, -1, 1)
        solved = np.linalg.solve(gram, goal)[..., 0]
        place += np.clip(solved[:, :4] / np.maximum(np.abs(solved[:, 4:5]), 0.5), -0.1, 0.1)
        place = np.clip(place, _START - _FARTHEST, _START + _FARTHEST)
    return np.where(pixels >= SAME_PIXELS, edges, np.float32(0))


def gray_of(pictures: Floats) -> Floats:
    """The luma (ITU-R 601) of RGB pictures: from shape (n, 3, H, W) to (n, H, W)."""
    red, green, blue = (pictures[:, channel] for channel in range(3))
    found: Floats = _GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue
    return found


def _blocks(pictures: NDArray[np.uint8]) -> Iterable[Floats]:
    return (pictures[start : start + BLOCK].astype(np.float32) for start in range(0, len(pictures), BLOCK))


def _edge_correlation(one: Floats, other: Floats) -> Floats:
    gray, again = gray_of(one)[:, None], gray_of(other)[:, None]
    found: Floats = np.minimum(*(_correlation(np.diff(gray, axis=axis), np.diff(again, axis=axis)) for axis in (2, 3)))
    return found


def _correlation(one: Floats, other: Floats) -> Floats:
    a, b = ((part - part.mean((1, 2, 3), keepdims=True)).reshape(len(part), -1) for part in (one, other))
    found: Floats = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)
    return found


def _sample(pictures: Floats, place: Floats) -> Floats:
    """Samples pictures bilinearly on a grid that is shifted and scaled along both axes."""
    grid = np.linspace(-1, 1, SIDE, dtype=np.float32)
    weights = []
    for shift, scale in ((place[:, 0], place[:, 1]), (place[:, 2], place[:, 3])):
        at = np.clip((shift[:, None] + scale[:, None] * grid + 1) * ((SIDE - 1) / 2), 0, SIDE - 1)
        weights.append(np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(SIDE, dtype=np.float32))))
    found: Floats = weights[0][:, None] @ pictures @ weights[1][:, None].transpose(0, 1, 3, 2)
    return found
