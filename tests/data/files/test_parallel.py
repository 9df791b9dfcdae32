import os
import threading
import time

import pytest

from pet_cifar.data.files.parallel import map_in_threads
from pet_cifar.hardware import cores


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_everything_is_done_once_and_in_order(threads: int, count: int) -> None:
    assert list(map_in_threads(lambda item: 2 * item, range(count), threads, "")) == [2 * item for item in range(count)]


def test_long_work_is_shared_and_short_work_is_not() -> None:
    def run(seconds: float) -> set[int]:
        seen = set()

        def work(item: int) -> None:
            seen.add(threading.get_ident())
            time.sleep(seconds)

        list(map_in_threads(work, range(64), 3, ""))
        return seen

    assert len(run(0.002)) > 2
    assert run(0) == {threading.get_ident()}


@pytest.mark.parametrize("quick", range(4))
def test_one_quick_item_among_the_first_changes_nothing(quick: int) -> None:
    seen = set()

    def work(item: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0 if item == quick else 0.002)

    list(map_in_threads(work, range(64), 3, ""))
    assert len(seen) > 2


@pytest.mark.parametrize("slow", [(0, 1), (1, 3)])
def test_two_slow_items_among_the_first_change_nothing(slow: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    now = 0.0
    # The clock is the test's own, since on a busy machine a third item may take long.
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def work(item: int) -> None:
        nonlocal now
        seen.add(threading.get_ident())
        now += 0.02 if item in slow else 0

    list(map_in_threads(work, range(64), 3, ""))
    assert seen == {threading.get_ident()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux ties a process to cores")
def test_the_cores_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_a_failure_stops_what_waits(seconds: float) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(seconds)
        if item == 70:
            raise OSError("unplugged")
        done.append(item)

    with pytest.raises(OSError, match="unplugged"):
        list(map_in_threads(work, range(5000), 2, ""))
    assert len(done) < 1000
