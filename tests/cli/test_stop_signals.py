"""A signal stops a run at its next step, after a checkpoint, and says how to go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pet_cifar.callbacks.run_loggers import read_rows
from pet_cifar.callbacks.stop_request import Stopped, StopRequest
from pet_cifar.cli import stop_signals
from pet_cifar.cli.stop_signals import StopSignals, requeue
from tests.cli.kills import At, apart, kill_at, rows_of
from tests.cli.ranks import free_port
from tests.runs.killed_runs import draw_and_save_at_every_epoch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    # Coverage learns nothing of the forks, and would make them a third slower.
    pytest.mark.no_cover,
]

RUN = Path("lightning_logs/digits_residual/version_0")
FIT = [
    *("fit", "--config", "digits_residual", "--model.widths", "[4]", "--data.batch_size", "200"),
    *("--trainer.max_epochs", "2", "--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"),
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_checkpoint_at_the_next_step_and_the_status_that_a_shell_expects(number: signal.Signals) -> None:
    status, said = apart(FIT, kill_at("on_train_batch_start", 1, 3, number))
    assert status == 128 + number, said
    assert said.splitlines()[-2:] == [
        f"stopped by {number.name}",
        f"go on with: pet-cifar fit --resume {RUN}",
    ]
    assert "Traceback" not in said
    checkpoint = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 7 + 4
    # The logs are closed: all that was logged is in the file.
    assert [row["epoch"] for row in rows_of(RUN)] == ["0", "0"]


def test_another_signal_while_it_stops_changes_nothing() -> None:
    stop = StopRequest(is_heard=True)
    signals = StopSignals()
    signals.stop = stop
    with signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_within_validation_it_does_not_wait_for_the_end_of_it() -> None:
    status, said = apart([*FIT, "--data.batch_size", "60"], kill_at("on_validation_batch_start", 0, 0, signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, said
    loops = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert loops["epoch_progress"]["current"]["processed"] == 0
    assert loops["epoch_loop.val_loop.batch_progress"]["current"]["processed"] == 0
    assert apart(["fit", "--resume", str(RUN)])[0] == 0
    assert [row["epoch"] for row in rows_of(RUN) if "val/loss" in row] == ["0", "1"]


@pytest.mark.parametrize(
    ("hook", "batch", "steps"),
    [
        ("on_train_batch_start", 2, 10),  # The second epoch is cut after its third step.
        ("on_train_batch_start", 6, 14),
        ("on_validation_batch_start", 0, 14),
    ],
)
def test_behind_the_last_step_of_all_nothing_is_lost(hook: str, batch: int, steps: int) -> None:
    limit = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)]
    status, said = apart([*FIT, *limit], kill_at(hook, 1, batch, signal.SIGTERM))
    assert status == 0, said
    rows = read_rows(RUN / "metrics.csv")
    assert [row["epoch"] for row in rows if row["train/loss"]] == ["0", "1"]
    assert [row["epoch"] for row in rows if row["val/loss"]] == (["0", "1"] if steps == 14 else ["0"])


def test_ctrl_c_twice_ends_at_once_also_while_torch_computes() -> None:
    def ctrl_c() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def twice() -> None:
        large = torch.ones(8_000, 8_000)
        ctrl_c()
        threading.Thread(target=ctrl_c).start()
        torch.mm(large, large)  # It takes many seconds.
        raise AssertionError("this process should have ended")

    status, said = apart(FIT, At("on_train_batch_start", 1, 3, twice), before=draw_and_save_at_every_epoch)
    assert status == 128 + signal.SIGINT, said
    assert torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 7


WAITS = """
import sys
from pet_cifar.cli import stop_signals
from pet_cifar.cli.main import main
stop_signals.PATIENCE = 0.2
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_another_machine_ends(number: signal.Signals) -> None:
    """No Python runs in it meanwhile, since torch waits."""
    words = [*FIT, "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.num_nodes", "2"]
    around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    with Path("out.txt").open("w+") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", WAITS, *words, "--trainer.strategy", "ddp"],
            stdout=out,
            stderr=out,
            env={**os.environ, **around},
        )
        try:
            while "MEMBER: 1/2" not in Path("out.txt").read_text():
                assert child.poll() is None, Path("out.txt").read_text()
                time.sleep(0.1)
            time.sleep(0.5)
            child.send_signal(number)
            assert child.wait(60) == 128 + number
        finally:
            child.kill()
            child.wait()
        assert Path("out.txt").read_text().splitlines()[-1] == f"stopped by {number.name}"
    assert not Path("lightning_logs/digits_residual/version_0").exists()


def test_before_the_first_step_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = apart(FIT, kill_at("setup", 0, number=signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, said
    assert not RUN.exists()
    assert said.splitlines()[-1] == "stopped by SIGTERM"


def test_a_signal_that_was_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "_signals", lambda: [signal.SIGHUP])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_does_not_train_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


# SLURM


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Is a job of SLURM, whose scontrol writes what it is asked for into a file."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "train", "NODELIST": "n", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    return asked


def test_slurm_requeues_the_job_which_then_goes_on(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = apart(FIT, kill_at("on_train_batch_start", 0, 3, signal.SIGUSR1))
    assert status == 128 + signal.SIGUSR1, said
    assert slurm.read_text() == "requeue 77\n"
    assert "job 77 is requeued" in said
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    status, said = apart(FIT)
    assert status == 0, said
    assert [path.name for path in RUN.parent.iterdir()] == ["version_0"]
    assert [row["epoch"] for row in rows_of(RUN) if "val/loss" in row] == ["0", "1"]


def test_slurm_that_does_not_requeue_is_told(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = slurm.parent / "bin" / "scontrol"
    program.write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    line = requeue(signal.SIGUSR1)
    assert line is not None
    assert "70_2" in line
    assert "no such job" in line
    assert requeue(signal.SIGTERM) is None
