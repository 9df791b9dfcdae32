"""A run that was killed goes on on more or fewer processes, and comes to the weights of one that was not."""

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pet_cifar.cli.main import main
from pet_cifar.training.epoch_position import recount_steps
from tests.cli.commands import refused
from tests.cli.kills import apart, kill_at, rows_of
from tests.cli.ranks import ALONE, SPREAD, together
from tests.runs.killed_runs import RUN, draw_and_save_at_every_epoch, save_at_every_step, weights
from tests.runs.test_continuation import step_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# This net has no batch normalization, whose statistics are those of each process. An epoch has 5 steps.
FIT = [
    *("fit", "--config", "digits_residual", "--model", "CatsDogsCNN", "--data.image_size", "32"),
    *("--model.dropout", "0.3", "--model.optimizer", "sgd", "--model.lr", "0.05"),
    *("--trainer.max_epochs", "2", "--trainer.callbacks", "[]", "--trainer.enable_progress_bar", "false"),
    *("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"),
]
STEP = 280
WAYS = {
    "sgd": ([], 1e-5),
    # AdamW divides by the size of the gradient, which makes a difference of rounding as large as a step. In double
    # precision little rounding is left, so that whatever else the number of processes changed would be seen.
    "adamw": (["--model.optimizer", "adamw", "--model.lr", "1e-3", "--trainer.precision", "64-true"], 1e-12),
}
"""The options of runs that go on, and how far the weights may be from those of a run of one process."""


def options(processes: int) -> list[str]:
    """The options of so many processes, and what each takes of a step's pictures."""
    return [*(ALONE if processes == 1 else SPREAD), "--data.batch_size", str(STEP // processes)]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directories of runs of one process that nothing stops, one of each way."""

    @cache
    def made(way: str) -> Path:
        folder = tmp_path_factory.mktemp(way)
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)
            assert apart([*FIT, *options(1), *WAYS[way][0]])[0] == 0
        return folder / RUN

    return made


def killed(processes: int, epoch: int, batch: int, *words: str) -> None:
    """A run that was killed within an epoch, and whose checkpoint is of the step before."""
    kills = [kill_at("on_train_batch_start", epoch, batch) for _ in range(processes)]
    if processes == 1:
        assert apart([*FIT, *options(1), *words], kills[0], before=save_at_every_step)[0] == -signal.SIGKILL
    else:
        ends, _, said = together(
            *2 * [[*FIT, *options(2), *words]], callbacks=[[one] for one in kills], before=2 * [every_step]
        )
        assert ends == 2 * [-signal.SIGKILL], said


def every_step() -> None:
    """Lets the processes agree on saving at every step."""
    from pet_cifar.callbacks import last_checkpoint

    draw_and_save_at_every_epoch()
    save_at_every_step()
    last_checkpoint.AGREE_EVERY = 1


def gone_on(processes: int, *words: str) -> str:
    command = ["fit", "--resume", str(RUN), *(ALONE if processes == 1 else SPREAD), *words]
    if processes == 1:
        status, said = apart(command)
        assert status == 0, said
        return said
    ends, _, said = together(command, command)
    assert ends == [0, 0], said
    return said


def test_two_processes_come_to_what_one_does(wholes: Callable[[str], Path]) -> None:
    # In double precision the order in which numbers are added up leaves no trace. The net has dropout, and the config
    # an augmentation, whose random numbers a picture has on whichever process it is.
    words, furthest = WAYS["adamw"]
    ends, _, said = together(*2 * [[*FIT, *options(2), *words]])
    assert ends == [0, 0], said
    mine, others = weights(RUN, "last.ckpt"), weights(wholes("adamw"), "last.ckpt")
    assert max(float((mine[key] - others[key]).abs().max()) for key in others) < furthest
    assert weights(RUN, "best.ckpt").keys() == others.keys()
    for row, other in zip(rows_of(RUN), rows_of(wholes("adamw")), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-6)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_within_an_epoch(before: int, after: int, way: str, wholes: Callable[[str], Path]) -> None:
    whole, (words, furthest) = wholes(way), WAYS[way]
    killed(before, 1, 3, *words)
    assert step_of(RUN / "checkpoints/last.ckpt") == 5 + 3
    said = gone_on(after)
    assert f"--data.batch_size {STEP // before} -> {STEP // after}" in said
    assert f"batch_size: {STEP // after}\n" in (RUN / "config.yaml").read_text()
    mine, others = weights(RUN, "last.ckpt"), weights(whole, "last.ckpt")
    assert max(float((mine[key] - others[key]).abs().max()) for key in others) < furthest
    assert step_of(RUN / "checkpoints/last.ckpt") == 10
    for row, other in zip(rows_of(RUN), rows_of(whole), strict=True):
        assert row.keys() == other.keys()
        assert {k: float(v) for k, v in row.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-3)


def test_other_steps_go_on_at_the_same_picture() -> None:
    killed(1, 0, 3)
    said = gone_on(1, "--data.batch_size", "140", "--trainer.max_epochs", "1")
    assert "trained on twice" not in said
    # Of 1,437 pictures 840 were trained on in 3 steps, and the whole epoch is 10 of the small ones.
    assert step_of(RUN / "checkpoints/last.ckpt") == 3 + (10 - 6)


def within_epoch(made: int, step: int, begun_at: int = 0) -> dict[str, Any]:
    """What a checkpoint within an epoch says of its place."""
    return {
        "pictures_a_step": step,
        "epoch_start": [1, begun_at],
        "loops": {
            "fit_loop": {
                "state_dict": {"combined_loader": [{"step": made}]},
                "epoch_loop.batch_progress": {
                    "current": {**dict.fromkeys(("ready", "started", "processed"), made), "completed": made - 1},
                    "is_last_batch": False,
                },
            }
        },
    }


@pytest.mark.parametrize(
    ("made", "before", "now", "steps", "told"),
    [
        (6, 40, 20, 12, ""),
        (6, 40, 80, 3, ""),
        (6, 40, 40, 6, ""),
        (5, 40, 80, 2, "40 of its pictures are trained on twice"),
        (24, 40, 400, 1, "560 of its pictures are trained on twice"),
    ],
)
def test_the_place_in_an_epoch_is_counted_in_pictures(
    made: int, before: int, now: int, steps: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = within_epoch(made, before, begun_at=25)
    trainer: Any = SimpleNamespace(world_size=2)
    data: Any = SimpleNamespace(batch_size=now // 2, splits={"train": [None] * 1000})
    recount_steps(checkpoint, trainer, data)
    fit_loop = checkpoint["loops"]["fit_loop"]
    assert fit_loop["state_dict"]["combined_loader"] == [{"step": steps}]
    counts = fit_loop["epoch_loop.batch_progress"]["current"]
    assert counts == {"ready": steps, "started": steps, "processed": steps, "completed": steps - 1}
    # The steps of the run so far stay what they are.
    assert checkpoint["epoch_start"][1] + steps == 25 + made
    assert told in caplog.text
    assert bool(caplog.records) == bool(told)


def test_steps_that_cannot_be_shared_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    three = ["--trainer.accelerator", "cpu", "--trainer.devices", "3", "--trainer.strategy", "ddp"]
    main([*FIT, *ALONE, "--data.batch_size", "200", "--trainer.max_epochs", "1"])
    message = refused(capsys, "fit", "--resume", str(RUN), *three, "--trainer.max_epochs", "2")
    assert "200 pictures a step (1 x 200), which 3 processes" in message
    assert "--data.batch_size" in message
