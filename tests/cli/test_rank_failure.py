"""Of several processes that fail, the error that is read last is that of the one that failed first."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from torch import distributed

from pet_cifar.cli.main import main
from pet_cifar.cli.rank_failure import is_cut_off, note_for_torchrun
from pet_cifar.errors import InputError
from tests.cli.kills import At
from tests.cli.ranks import ALONE, SPREAD, together

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

FIT = [
    *("fit", "--config", "digits_residual", "--model.widths", "[4]", "--data.batch_size", "100", *SPREAD),
    *("--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"),
    *("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"),
]


def broken() -> None:
    raise ZeroDivisionError("this part is broken")


def refusing() -> None:
    raise InputError("lr is broken; mend it")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def quiet() -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("act", "statuses", "last"),
    [
        (broken, [1, 1], "process 1 of 2 has failed: ZeroDivisionError: this part is broken"),
        (refusing, [1, 2], "process 1 of 2 has failed: --model.lr is broken; mend it"),
        (killed, [1, -9], "one of the 2 processes has ended without a word"),
    ],
)
def test_what_the_second_process_fails_with_is_the_last_of_the_first(
    act: Callable[[], None], statuses: list[int], last: str
) -> None:
    ends, said, _ = together(FIT, FIT, callbacks=[[], [At("on_train_batch_end", 0, 2, act)]])
    assert ends == statuses, said
    assert said[0].splitlines()[-1].startswith(f"pet-cifar: error: {last}")
    assert "Traceback" not in said[0]


def test_what_the_first_process_fails_with_is_told_by_it_alone() -> None:
    ends, said, everything = together(FIT, FIT, callbacks=[[At("on_train_batch_end", 0, 2, broken)], []])
    assert ends == [1, 1], said
    assert everything.strip().splitlines()[-1].endswith("ZeroDivisionError: this part is broken")
    assert "Traceback" not in said[1]
    assert "error" not in said[1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("hook", ["on_fit_start", "on_sanity_check_start", "on_test_batch_end"])
def test_a_signal_to_one_process_where_no_step_can_answer_it_ends_all_with_its_number(hook: str, rank: int) -> None:
    command = FIT if hook.startswith("on_fit") else [*FIT, "--trainer.num_sanity_val_steps", "1"]
    if hook == "on_test_batch_end":
        main([*FIT[:-8], *ALONE, "--trainer.max_epochs", "1"])
        command = ["test", "--run", "lightning_logs/digits_residual", *SPREAD]
    callbacks: list[list[Callback]] = [[], []]
    callbacks[rank] = [At(hook, 0, 0, lambda: os.kill(os.getpid(), signal.SIGTERM))]
    ends, said, everything = together(command, command, callbacks=callbacks)
    assert ends == [143, 0], everything
    assert "stopped by SIGTERM" in said[0]
    assert "error" not in everything


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:9636"), True),
        (distributed.DistBackendError("NCCL error"), True),
        (distributed.DistNetworkError("was closed"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (InputError("lr is -1"), False),
    ],
)
def test_a_lost_process_is_told_from_an_error(error: Exception, expected: bool) -> None:
    assert is_cut_off(error) == expected


def test_torchrun_finds_the_error_in_the_file_that_it_has_named(monkeypatch: Any) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    note_for_torchrun("nobody has asked for it")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "error.json")
    note_for_torchrun("pet-cifar: error: lr is -1")
    assert json.loads(Path("error.json").read_text())
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file="error.json")
    assert failure.message["extraInfo"]["py_callstack"] == "pet-cifar: error: lr is -1"  # type: ignore[index]
