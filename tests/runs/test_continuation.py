"""A run that was killed goes on in its own directory, and comes to the same as one that was not."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from errno import EROFS
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from pet_cifar.callbacks import drawing_time, last_checkpoint
from pet_cifar.callbacks.experiment import read_record
from pet_cifar.cli import run_options
from pet_cifar.cli.main import main
from pet_cifar.errors import InputError
from pet_cifar.runs import continuation
from pet_cifar.runs.continuation import LOCK, continuation_of, ends_a_run, is_finished, lock, rewind
from pet_cifar.runs.directory import read_checkpoint
from tests.cli.commands import refused
from tests.cli.kills import apart, events_of, kill_at, rows_of, timed
from tests.conftest import HOME
from tests.runs.killed_runs import (
    BEST,
    BEST_BEFORE,
    FIT,
    LAST,
    NAME,
    PREVIOUS,
    RESUME,
    RUN,
    WAYS,
    WITHOUT_PICTURES,
    assert_same,
    draw_and_save_at_every_epoch,
    nothing,
    save_at_every_step,
)

CONFIG = HOME / "configs" / "digits_residual.yaml"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    # Coverage learns nothing of the forks, and would make them a third slower.
    pytest.mark.no_cover,
]


@pytest.fixture(autouse=True, scope="module")
def _as_often_as_it_goes() -> Iterator[None]:
    """How often a run draws and saves depends on its time; here every drawing is affordable, and every epoch saves."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(drawing_time, "LARGEST_SHARE", drawing_time.LARGEST_SHARE)
        patched.setattr(last_checkpoint, "SECONDS_BETWEEN_EPOCHS", last_checkpoint.SECONDS_BETWEEN_EPOCHS)
        draw_and_save_at_every_epoch()
        yield


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


Whole = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The directory of a run that nothing stops, for each of the ways."""
    made: dict[str, Path] = {}

    def make(way: str) -> Path:
        if way not in made:
            folder = tmp_path_factory.mktemp("whole")
            with pytest.MonkeyPatch.context() as patched:
                patched.chdir(folder)
                main([*FIT, *WAYS[way]])
            made[way] = folder / RUN
        return made[way]

    return make


# An epoch has 7 steps.
KILLS: list[tuple[str, Any, Callable[[], None], int]] = [
    ("pictures", ("on_train_batch_start", 1, 3), save_at_every_step, 10),
    ("pictures", ("on_train_end", 2), nothing, 7),
    ("epochs", ("on_train_batch_end", 0, 3), nothing, 0),
    ("epochs", ("on_train_epoch_start", 1), nothing, 0),
    ("epochs", ("on_before_backward", 1), save_at_every_step, 7),
    ("epochs", ("on_validation_batch_end", 1, 0), save_at_every_step, 13),
    ("epochs", ("on_validation_end", 1), nothing, 7),
    ("epochs", ("on_train_epoch_end", 1), save_at_every_step, 13),
    ("steps", ("on_train_epoch_start", 1), nothing, 0),
    ("steps", ("on_train_batch_start", 1, 4), save_at_every_step, 11),
    ("validations", ("on_train_batch_start", 1, 5), save_at_every_step, 6),
    ("validations", ("on_validation_end", 1), save_at_every_step, 5),
    ("validations", ("on_train_batch_start", 0, 6), save_at_every_step, 3),
]


@pytest.mark.parametrize(
    ("way", "place", "before", "step"), KILLS, ids=[f"{way}-{place[0]}-{place[1]}" for way, place, _, _ in KILLS]
)
def test_after_sigkill_every_value_stands_once(
    way: str, place: Any, before: Callable[[], None], step: int, whole: Whole
) -> None:
    status, said = apart([*FIT, *WAYS[way]], kill_at(*place), before=before)
    assert status == -signal.SIGKILL, said
    assert step_of(LAST) == step
    status, said = apart(RESUME)
    assert status == 0, said
    assert [path.name for path in NAME.iterdir()] == ["version_0"]
    assert_same(RUN, whole(way))


@pytest.mark.parametrize(("epoch", "step"), [(0, 2), (1, 6)])
def test_a_stop_within_a_validation_that_falls_into_a_step(epoch: int, step: int, whole: Whole) -> None:
    stop = kill_at("on_validation_batch_end", epoch, 0, signal.SIGTERM)
    assert apart([*FIT, *WAYS["validations"]], stop)[0] == 128 + signal.SIGTERM
    assert step_of(LAST) == step
    status, said = apart(RESUME)
    assert status == 0, said
    assert_same(RUN, whole("validations"))


@pytest.mark.parametrize("number", [3, 5, 8])
def test_a_kill_while_a_file_is_written(number: int, whole: Whole) -> None:
    def kill_in_a_write() -> None:
        own, calls = os.fsync, iter(range(10**6))

        def fsync(descriptor: int) -> None:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            own(descriptor)

        vars(os)["fsync"] = fsync

    assert apart([*FIT, *WITHOUT_PICTURES], before=kill_in_a_write)[0] == -signal.SIGKILL
    assert apart(RESUME)[0] == 0
    assert not list(RUN.rglob("*.part"))
    assert_same(RUN, whole("epochs"))


def test_a_resume_of_a_resume_in_a_moved_directory(whole: Whole) -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 0, 2))[0] == -signal.SIGKILL
    # The best net of the whole run may lie before the kill, and is to be known again under another name.
    NAME.rename("moved")
    moved = Path("moved") / "version_0"
    status, said = apart(["fit", "--resume", "moved"], kill_at("on_train_batch_start", 1, 2))
    assert status == -signal.SIGKILL, said
    assert apart(["fit", "--resume", str(moved.absolute())])[0] == 0
    assert not NAME.exists()
    record = json.loads((moved / "run.json").read_text())
    assert (record["state"], record["steps"]) == ("finished", 14)
    assert "--resume" not in record["command"]
    assert_same(moved, whole("epochs"))
    state = next(
        state
        for name, state in torch.load(moved / "checkpoints/last.ckpt", weights_only=True)["callbacks"].items()
        if name.startswith("BestCheckpoint")
    )
    assert Path(state["best_model_path"]).absolute() == (moved / "checkpoints/best.ckpt").absolute()


def test_with_other_options_the_best_net_is_one_that_the_run_has_had() -> None:
    # The net of the second epoch is the better one, and is saved after the checkpoint that the run goes on from.
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_end", 2))[0] == -signal.SIGKILL
    assert (step_of(BEST), step_of(LAST)) == (14, 7)
    status, said = apart([*RESUME, "--model.lr", "5"])
    assert status == 0, said
    first, second = ((float(row["val/acc"]), -float(row["val/loss"])) for row in rows_of(RUN) if "val/acc" in row)
    assert first > second
    assert step_of(BEST) == 7
    assert not BEST_BEFORE.exists()


def test_the_seconds_of_an_epoch_add_up() -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 0, 5), before=save_at_every_step)[0] < 0
    before = torch.load(LAST, weights_only=True)["callbacks"]
    assert apart(RESUME)[0] == 0
    assert timed(RUN, "epoch_seconds")[0] > before["ThroughputMonitor"]["seconds"] > 0
    assert before["ThroughputMonitor"]["images"] == 5 * 200
    after = torch.load(LAST, weights_only=True)["callbacks"]["HyperParameters"]["seconds"]
    assert after > before["HyperParameters"]["seconds"] > 0
    # All of the epoch's pictures are counted in all of its seconds.
    assert timed(RUN, "images_per_second")[0] * timed(RUN, "epoch_seconds")[0] == pytest.approx(1400)


def test_more_epochs_than_planned(capsys: pytest.CaptureFixture[str]) -> None:
    main([*FIT, *WITHOUT_PICTURES, "--trainer.max_epochs", "1"])
    assert is_finished(RUN)
    rows, events = rows_of(RUN), events_of(RUN)
    message = refused(capsys, "fit", "--resume", str(NAME))
    assert f"--resume {RUN} --trainer.max_epochs" in message
    main(RESUME)
    assert "nothing was left to train: raise --trainer.max_epochs" in capsys.readouterr().out
    assert (rows_of(RUN), events_of(RUN)) == (rows, events)
    main([*RESUME, "--trainer.max_epochs", "2"])
    assert rows_of(RUN)[: len(rows)] == rows
    assert events_of(RUN)[: len(events)] == events
    assert [row["epoch"] for row in rows_of(RUN) if "val/loss" in row] == ["0", "1"]
    assert "max_epochs: 2" in (RUN / "config.yaml").read_text()


ENDS = {
    "steps": ["--trainer.max_steps", "7", "--trainer.max_epochs", "-1"],
    "early stopping": [
        *("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.callbacks.divergence_threshold", "0"),
    ],
    "a budget": ["--budget", "2s", "--trainer.limit_val_batches", "1"],
    "a time limit": ["--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", "500"],
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_is_finished_whatever_ends_it(end: str) -> None:
    main([*FIT, *WITHOUT_PICTURES, *ENDS[end]])
    assert is_finished(RUN)
    assert (read_record(RUN) or {})["state"] == "finished"


def test_a_run_that_its_time_limit_has_ended_goes_on_with_a_larger_one(capsys: pytest.CaptureFixture[str]) -> None:
    main([*FIT, *WITHOUT_PICTURES, *ENDS["a time limit"]])
    steps = step_of(LAST)
    assert "--trainer.max_time" in refused(capsys, "fit", "--resume", str(NAME))
    main([*RESUME, "--trainer.max_time", "00:00:00:02"])
    assert step_of(LAST) > steps
    assert is_finished(RUN)


@pytest.mark.parametrize("callbacks", [{}, 3, {"LastCheckpoint": 3}, {"LastCheckpoint{}": {"finished": False}}])
def test_a_checkpoint_that_does_not_say_so_ends_no_run(callbacks: object) -> None:
    assert not ends_a_run({"callbacks": callbacks})


def test_a_torn_checkpoint_is_told_and_the_one_before_it_is_taken(whole: Whole) -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 1, 2))[0] == -signal.SIGKILL
    LAST.write_bytes(LAST.read_bytes()[:5000])
    status, said = apart(RESUME)
    assert status == 0, said
    assert sum("damaged" in line for line in said.splitlines()) == 1
    line = next(line for line in said.splitlines() if "damaged" in line)
    assert str(LAST) in line
    assert str(PREVIOUS) in line
    assert_same(RUN, whole("epochs"))


def test_the_newest_unfinished_run_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 1, 2))[0] == -signal.SIGKILL
    for number in (1, 2):
        shutil.copytree(RUN, NAME / f"version_{number}")
    main(["fit", "--resume", str(NAME / "version_2")])
    (NAME / "version_3").mkdir()  # A run that has left no checkpoint is passed over.
    assert continuation_of(str(NAME))[0].run == NAME / "version_1"
    held = lock(NAME / "version_1")
    assert f"{NAME / 'version_1'} is being trained by another process" in refused(capsys, "fit", "--resume", str(NAME))
    held.release()
    # What cannot be gone on with is refused, and stays as it is.
    for name in ("last.ckpt", "previous.ckpt"):
        (NAME / "version_1" / "checkpoints" / name).write_bytes(b"torn")
    assert "last.ckpt and" in refused(capsys, "fit", "--resume", str(NAME / "version_1"))
    kept, content = LAST.read_bytes(), torch.load(LAST, weights_only=True)
    torch.save({name: value for name, value in content.items() if name != "logs"}, LAST)
    assert f"--ckpt_path {LAST}" in refused(capsys, *RESUME)
    LAST.write_bytes(kept)
    (RUN / "metrics.csv").write_text("epoch\n")
    assert "metrics.csv has 0 rows" in refused(capsys, *RESUME)
    for damaged in (b"epoch\n\xff\xfe\n", b"epoch\n" + b"1" * 200_000 + b"\n"):
        (RUN / "metrics.csv").write_bytes(damaged)
        assert f"{RUN / 'metrics.csv'} is damaged" in refused(capsys, *RESUME)
    (RUN / LOCK).unlink()
    (RUN / LOCK).symlink_to(Path("mine").absolute())
    assert f"{RUN / LOCK} is a link" in refused(capsys, *RESUME)
    assert not Path("mine").exists()


def test_what_a_run_goes_on_from_is_not_changed_meanwhile(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 1, 2))[0] == -signal.SIGKILL
    ended = []

    def read_while_another_ends(path: Path) -> dict[str, Any]:
        content = read_checkpoint(path)
        try:
            held = lock(RUN)
        except InputError:
            return content
        # Whoever trains there makes the rest of the run, saves its end, and lets go.
        ended.append(path)
        shutil.copy(whole("epochs") / "metrics.csv", RUN)
        shutil.copy(whole("epochs") / "checkpoints" / "last.ckpt", LAST)
        held.release()
        return content

    monkeypatch.setattr(continuation, "read_checkpoint", read_while_another_ends)
    main(RESUME)
    assert rows_of(RUN) == rows_of(whole("epochs"))
    assert not ended


def test_whose_the_lock_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart([*FIT, *WITHOUT_PICTURES], kill_at("on_train_batch_start", 1, 2))[0] == -signal.SIGKILL
    asked = run_options.complete(RESUME)
    with pytest.raises(InputError, match=f"{RUN} is being trained by another process"):
        run_options.complete(RESUME)
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        # The first of several processes holds it for all of them.
        with monkeypatch.context() as patched:
            patched.setenv(name, "1")
            assert run_options.complete(RESUME).continued == asked.continued
    # To look at a run that is being trained disturbs nobody.
    assert run_options.complete([*RESUME, "--print_model"]).continued == asked.continued
    asked.let_go()
    # Whoever is refused keeps nothing, also where the error is kept, as a notebook does.
    with pytest.raises(InputError) as wrong_config:
        run_options.complete([*RESUME, "--config", "nowhere"])
    with pytest.raises(SystemExit) as wrong_option:
        main([*RESUME, "--model.widths", "x"])
    lock(RUN).release()
    LAST.write_bytes(b"torn")
    PREVIOUS.write_bytes(b"torn")
    with pytest.raises(InputError) as torn:
        run_options.complete(RESUME)
    lock(RUN).release()
    del wrong_config, wrong_option, torn


def advised(message: str) -> list[str]:
    """The words of the command that ends a line."""
    return shlex.split(message.rpartition("pet-cifar fit ")[2])


def test_every_refusal_names_a_command_that_works(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(whole("epochs"), RUN)
    main([*RESUME, "--trainer.max_epochs", "3"])
    checkpoints = RUN / "checkpoints"
    further = ["--trainer.max_epochs", "4"]
    rows = (RUN / "metrics.csv").read_bytes()
    (RUN / "metrics.csv").unlink()
    message = refused(capsys, *RESUME, *further)
    assert f"{RUN / 'metrics.csv'} has 0 rows" in message
    assert advised(message) == ["--ckpt_path", str(LAST)]
    main(["fit", *advised(message), *further])
    (RUN / "metrics.csv").write_bytes(rows)
    for path in (LAST, PREVIOUS):
        path.write_bytes(b"torn")
    message = refused(capsys, *RESUME)
    assert f"{LAST} and {PREVIOUS}" in message
    assert advised(message) == ["--ckpt_path", str(checkpoints / "best.ckpt")]
    main(["fit", *advised(message), *further])
    (checkpoints / "best.ckpt").write_bytes(b"torn")
    assert advised(refused(capsys, *RESUME)) == ["--config", str(RUN / "config.yaml")]
    shutil.rmtree(checkpoints)
    message = refused(capsys, *RESUME)
    assert f"no last.ckpt in {checkpoints}" in message
    assert advised(message) == ["--config", str(RUN / "config.yaml")]
    assert advised(refused(capsys, "test", "--run", str(RUN))) == advised(message)
    main(["fit", *advised(message), "--trainer.max_epochs", "1"])
    assert (NAME / "version_3" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (rb"\A(.*\n)0,", rb"\1x\0y,", ["epoch of row 1", "x\\x00y"]),
        (rb"(?m)^(1,.*),6,", rb"\1,six,", ["step of row", "'six'"]),
        (rb"\A(.*\n)0,", rb"\g<1>0", ["row 1 has 6 cells", "header 7"]),
        (rb"(?m)^1,", rb"1,,", ["8 cells", "header 7"]),
        (rb"\A(.*)step", rb"\1stop", ["step of row 1"]),
    ],
    ids=["epoch", "step", "a cell less", "a cell more", "header"],
)
def test_a_damaged_row_is_told(
    old: bytes, new: bytes, told: list[str], whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole("epochs"), RUN)
    rows = b"""epoch,lr,step,train/loss,val/acc,val/loss,epoch_seconds
0,0.1,1,2.0,,,
0,,6,,0.5,1.0,
1,0.1,6,2.0,,,
"""
    content = torch.load(LAST, weights_only=True)
    torch.save({**content, "logs": {**content["logs"], "rows": 3}}, LAST)
    # What comes after them is dropped, whatever a kill has left of it.
    torn = b"1,0"
    (RUN / "metrics.csv").write_bytes(rows + torn)
    rewind(continuation_of(str(RUN))[0])
    assert (RUN / "metrics.csv").read_bytes().splitlines() == rows.splitlines()
    damaged = re.sub(old, new, rows, count=1) + torn
    assert damaged != rows + torn
    (RUN / "metrics.csv").write_bytes(damaged)
    message = refused(capsys, *RESUME, "--trainer.max_epochs", "3")
    assert f"{RUN / 'metrics.csv'} is damaged" in message
    for words in told:
        assert words in message
    assert (RUN / "metrics.csv").read_bytes() == damaged


@pytest.mark.parametrize("logs", [{"rows": -1}, {"rows": True}, {"rows": 0, "bytes": {"events": -1}}])
def test_a_place_in_the_logs_that_is_no_count_is_refused(
    logs: dict[str, Any], whole: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole("epochs"), RUN)
    torch.save({**torch.load(LAST, weights_only=True), "logs": logs}, LAST)
    (RUN / "metrics.csv").unlink()
    assert "go on in a new directory" in refused(capsys, *RESUME, "--trainer.max_epochs", "3")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fit", "--resume", "nowhere"], ["--resume nowhere", "there is no such directory"]),
        (["fit", "--resume", "x.ckpt"], ["--resume x.ckpt", "give --ckpt_path x.ckpt"]),
        (["fit", "--resume", "."], ["--resume .", "last.ckpt", "give a run directory"]),
        (["fit", "--resume", str(CONFIG)], [f"--resume {CONFIG}", f"--config {CONFIG}"]),
        (["test", "--run", str(CONFIG)], [f"--run {CONFIG}", f"--config {CONFIG}"]),
        (["test", "--resume", "run"], ["--resume run", "test --run run"]),
        (["fit", "--resume", "run", "--ckpt_path", "x.ckpt"], ["--resume and --ckpt_path"]),
    ],
)
def test_what_is_no_run_is_refused(words: list[str], told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, *words)
    for word in told:
        assert word in message
    assert ("--ckpt_path" in message) == any("ckpt" in word for word in words)


def test_a_run_that_cannot_be_written_to_is_refused(
    whole: Whole, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole("epochs"), RUN)

    def refuse(**_: object) -> NoReturn:
        # Root may write everywhere, so that no permission stands in for a read-only disk.
        raise OSError(EROFS, os.strerror(EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    message = refused(capsys, *RESUME, "--trainer.max_epochs", "9")
    assert f"cannot write {RUN}: Read-only file system" in message
    assert f"in a new directory: pet-cifar fit --ckpt_path {RUN / 'checkpoints' / 'last.ckpt'}" in message


@pytest.mark.parametrize(("way", "what"), [("pictures", ".fit"), ("epochs", ".ckpt")])
def test_on_a_full_disk_a_run_ends_with_one_line_and_goes_on_later(way: str, what: str, whole: Whole) -> None:
    largest = max(path.stat().st_size for path in whole(way).rglob(f"*{what}"))

    def less_room() -> None:
        # The limit of a file's size stands in for a full disk: the largest file of a run meets it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 2000, resource.RLIM_INFINITY))

    status, said = apart([*FIT, *WAYS[way]], before=less_room)
    assert status == 2, said
    *_, how, line = said.splitlines()
    assert how == f"go on with: pet-cifar fit --resume {RUN}"
    assert re.match(rf"pet-cifar: error: cannot write {RUN}/\S+{what}: File too large; ", line)
    assert "Traceback" not in said
    assert apart(["test", "--run", str(RUN)])[0] == 0
    assert apart(RESUME)[0] == 0
    shutil.rmtree(RUN / "test")
    for events in set(RUN.glob("*tfevents*")) - set(RUN.glob("*.fit")):
        events.unlink()
    assert_same(RUN, whole(way))


def test_the_saved_config_is_for_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    main([*FIT, *WITHOUT_PICTURES, "--trainer.max_epochs", "1"])
    kept = (RUN / "config.yaml").rename("kept.yaml")
    (RUN / "config.yaml").mkdir()
    assert f"{RUN / 'config.yaml'}: it is a folder" in refused(capsys, *RESUME, "--trainer.max_epochs", "2")
    (RUN / "config.yaml").rmdir()
    kept.rename(RUN / "config.yaml")
    main(["test", "--config", str(RUN / "config.yaml"), "--ckpt_path", str(LAST)])
    assert (RUN / "test" / "metrics.json").is_file()
