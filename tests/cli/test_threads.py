"""How many threads compute, and what they do while they wait."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pet_cifar.cli import threads
from pet_cifar.cli.main import main
from pet_cifar.cli.threads import OtherLoad, free_cores, share_cores, threads_of_fit
from tests.cli.commands import QUICK, fit, refused


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Load(OtherLoad):
    """Others keep so many cores busy."""

    def __init__(self, busy: float) -> None:
        super().__init__()
        self.busy = busy

    def cores(self) -> float:
        return self.busy


@pytest.mark.parametrize("name", threads.SPINNING)
def test_threads_do_not_spin_unless_the_user_has_said_how_they_wait(name: str) -> None:
    environ: dict[str, str] = {}
    share_cores(environ)
    assert environ == {"GOMP_SPINCOUNT": threads.FEW_TURNS, "KMP_BLOCKTIME": "0"}
    own = {name: "7"}
    share_cores(own)
    assert own == {name: "7"}


@pytest.mark.parametrize(
    ("machine", "allowed", "busy", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.4, 2),
        (2, 2, 1.0, 1),
        (2, 2, 7.5, 1),
        (64, 8, 30.0, 8),
        (64, 8, 60.0, 4),
        (1, 1, 1.0, 1),
    ],
)
def test_as_many_threads_as_cores_are_free(
    machine: int, allowed: int, busy: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(threads, "cores", lambda: allowed)
    assert free_cores(Load(busy)) == expected
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    number, line = threads_of_fit(Load(busy), None)
    assert number == expected
    # A line tells of fewer threads than cores, and of the option that takes all.
    assert (f"--threads {allowed}" in line) == (expected < allowed)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_fit(Load(busy), None) == (None, "")


def test_a_run_that_goes_on_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    (tmp_path / "run.json").write_text('{"threads": 3}')
    number, line = threads_of_fit(Load(0.0), tmp_path)
    assert number == 3
    assert "--threads" in line
    # A run of an earlier version does not say, and a machine that stopped may have left the file empty.
    for content in (b"{}", b"", b"[1]", b"\xff", b"[" * 100_000, b'{"threads": true}'):
        (tmp_path / "run.json").write_bytes(content)
        assert threads_of_fit(None, tmp_path) == (None, "")


def test_what_this_process_does_is_no_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0])
    busy, own = iter([100.0, 104.0]), iter([5.0, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(threads, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(threads, "_own_seconds", lambda: next(own))
    # In 2 s the cores worked 4 s, of which 2 s were this process's.
    assert OtherLoad().cores() == pytest.approx(1.0)


def test_the_system_tells_how_busy_it_is() -> None:
    load = OtherLoad()
    sum(range(10**6))
    assert 0 <= load.cores() <= (os.cpu_count() or 1) + 1


def test_the_option_sets_the_threads_and_the_record_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    cli = fit("--threads", "2", "--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0")
    assert torch.get_num_threads() == 2
    run = Path(str(cli.trainer.log_dir))
    assert json.loads((run / "run.json").read_text())["threads"] == 2
    main(["validate", "--run", str(run), "--threads", "1"])
    assert torch.get_num_threads() == 1
    for number in ("0", "-1", "two", "1.5"):
        assert f"--threads {number}" in refused(capsys, "fit", *QUICK, "--threads", number)
    assert "--threads 0" in refused(capsys, "predict", "x.png", "--run", str(run), "--threads", "0")
