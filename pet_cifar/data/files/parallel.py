"""Work on many pictures in a few threads."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

PROBE = 4
"""The number of items whose time decides how the others are handed out."""
CHUNK_SECONDS = 0.02
"""The work that a thread gets at a time: for small pictures, handing over one by one costs as much as the work."""
SHORT = 0.0005
"""Seconds an item takes below which threads only wait for Python's lock: pictures of 32 x 32 take longer in two."""


def map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], num_threads: int, title: str
) -> Iterator[Result]:
    """Yields ``work`` of each item, in order, under a progress bar.

    An exception, Ctrl-C too, stops the work at once and not after all that waits. Where the first items take hardly
    any time, one thread does all.

    Args:
        work: The function that is called with each item, from several threads.
        items: The items.
        num_threads: The number of threads; at least one is used.
        title: The title of the progress bar.
    """
    bar = tqdm(total=len(items), desc=title, unit="", disable=None, leave=False)
    with bar:
        took = []
        for item in items[:PROBE]:
            start = time.perf_counter()
            result = work(item)
            took.append(time.perf_counter() - start)
            yield result
            bar.update()
        # The second shortest time counts: one item may be damaged and done at once, and two may have had to wait.
        seconds = statistics.median_low(took or [0.0])
        size = max(1, min(64, int(CHUNK_SECONDS / max(seconds, 1e-6))))
        chunks = [items[first : first + size] for first in range(PROBE, len(items), size)]

        def work_on(chunk: Sequence[Item]) -> list[Result]:
            return [work(item) for item in chunk]

        with ThreadPoolExecutor(max(1, num_threads)) as pool:
            try:
                for done in map(work_on, chunks) if seconds < SHORT else pool.map(work_on, chunks):
                    yield from done
                    bar.update(len(done))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
