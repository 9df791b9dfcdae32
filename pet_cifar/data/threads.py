"""Work on many pictures in a few threads."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 64
"""Items handed to a thread at a time: for small pictures, handing them over one by one costs as much as the work."""
SHORT = 0.0005
"""Seconds an item takes below which threads only wait for Python's lock: pictures of 32 x 32 take longer in two."""


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], num_threads: int, title: str) -> Iterator[Result]:
    """Yields ``work`` of each item, in order, under a progress bar.

    What fails, Ctrl-C too, stops the work now and not after everything that waits. Where the first items are done at
    once, one thread does all.
    """
    threads = max(1, num_threads)
    size = max(1, min(CHUNK, len(items) // (4 * threads)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]

    def each(chunk: Sequence[Item]) -> list[Result]:
        return [work(item) for item in chunk]

    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(items), desc=title, unit="", disable=None, leave=False) as bar,
    ):
        try:
            start = time.perf_counter()
            first = [each(chunk) for chunk in chunks[:1]]
            short = time.perf_counter() - start < SHORT * size
            rest = map(each, chunks[1:]) if short else pool.map(each, chunks[1:])
            for done in chain(first, rest):
                bar.update(len(done))
                yield from done
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
