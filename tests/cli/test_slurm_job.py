"""A SLURM job that was requeued starts its script anew, and each of its commands goes on with its own run."""

import json
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pet_cifar.cli.found_runs import begun_before_requeue
from pet_cifar.cli.main import main
from pet_cifar.cli.slurm_job import JOB
from pet_cifar.runs.continuation import is_finished
from tests.cli.kills import apart, kill_at, rows_of
from tests.cli.ranks import SPREAD, together
from tests.conftest import HOME

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    # Coverage learns nothing of the forks, and would make them a third slower.
    pytest.mark.no_cover,
]

LOGS = Path("lightning_logs")
SHORT = [
    *("--model.widths", "[4]", "--data.batch_size", "200", "--trainer.max_epochs", "2"),
    *("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"),
]
FIT = ["fit", "--config", "digits_residual", *SHORT]
RUN = LOGS / "digits_residual" / "version_0"


@pytest.fixture(autouse=True)
def restarted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the tests run in a job, and gives what requeues it."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    starts = iter(range(1, 10))
    return lambda: monkeypatch.setenv("SLURM_RESTART_COUNT", str(next(starts)))


def config(name: str, root: str | None = None) -> Path:
    """A config of this name, that may say where its runs lie."""
    text = (HOME / "configs" / "digits_residual.yaml").read_text()
    assert "default_root_dir" not in text
    file = Path(f"{name}.yaml")
    file.write_text(text.replace("\ntrainer:\n", f"\ntrainer:\n  default_root_dir: {root}\n") if root else text)
    assert root is None or root in file.read_text()
    return file


def stopped(fit: list[str], epoch: int = 1) -> None:
    """Runs a fit that is stopped in an epoch."""
    status, said = apart(fit, kill_at("on_train_batch_start", epoch, 2, signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, said


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def validated(run: Path) -> list[str]:
    return [row["epoch"] for row in rows_of(run) if "val/loss" in row]


@pytest.mark.parametrize("options", [[], ["--trainer.default_root_dir", "typed"]])
def test_a_run_goes_on_where_its_config_has_put_it(options: list[str], restarted: Callable[[], None]) -> None:
    fit = ["fit", "--config", str(config("own", "elsewhere")), *SHORT, *options]
    stopped(fit)
    restarted()
    status, said = apart(fit)
    assert status == 0, said
    folder = Path("typed" if options else "elsewhere") / LOGS / "own"
    assert versions(folder) == ["version_0"]
    assert validated(folder / "version_0") == ["0", "1"]
    assert not LOGS.exists()


def test_of_two_fits_the_finished_one_is_passed_over_and_the_stopped_one_goes_on(restarted: Callable[[], None]) -> None:
    first, second = (["fit", "--config", str(config(name)), *SHORT] for name in "ab")
    assert apart(first)[0] == 0
    stopped(second)
    kept = rows_of(LOGS / "a" / "version_0")
    restarted()
    status, said = apart(first)
    assert status == 0, said
    assert f"{LOGS / 'a' / 'version_0'} has come to its end in this job" in said
    assert versions(LOGS / "a") == ["version_0"]
    assert rows_of(LOGS / "a" / "version_0") == kept
    assert not is_finished(LOGS / "b" / "version_0")
    status, said = apart(second)
    assert status == 0, said
    assert versions(LOGS / "b") == ["version_0"]
    assert validated(LOGS / "b" / "version_0") == ["0", "1"]


def test_of_two_fits_of_one_config_neither_takes_the_others_run(restarted: Callable[[], None]) -> None:
    first, second = [*FIT, "--model.lr", "0.01"], [*FIT, "--model.lr", "0.02"]
    stopped(first)
    restarted()
    assert begun_before_requeue(second) is None
    assert begun_before_requeue(first) == RUN


def test_a_command_that_stands_twice_in_the_script_makes_two_runs(restarted: Callable[[], None]) -> None:
    stopped(FIT)
    restarted()
    assert apart(FIT)[0] == 0
    stopped(FIT)
    restarted()
    assert begun_before_requeue(FIT) == RUN.with_name("version_1")
    assert apart(FIT)[0] == 0
    status, said = apart(FIT)
    assert (status, f"{RUN} has come to its end" in said) == (0, True), said
    assert versions(RUN.parent) == ["version_0", "version_1"]
    assert all(map(is_finished, RUN.parent.iterdir()))


def test_a_run_that_began_from_a_checkpoint_goes_on_with_its_own(restarted: Callable[[], None]) -> None:
    main([*FIT, "--trainer.max_epochs", "1"])
    fit = ["fit", "--ckpt_path", str(RUN / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "3"]
    stopped(fit, epoch=2)
    restarted()
    status, said = apart(fit)
    assert status == 0, said
    assert versions(RUN.parent) == ["version_0", "version_1"]
    assert validated(RUN.with_name("version_1")) == ["1", "2"]


@pytest.fixture
def stopped_run() -> Path:
    stopped(FIT)
    return RUN / JOB


def test_what_the_file_may_be(stopped_run: Path, restarted: Callable[[], None]) -> None:
    written = json.loads(stopped_run.read_bytes())
    assert begun_before_requeue(FIT) is None  # The job was not requeued.
    restarted()
    assert written["command"] == shlex.join(["pet-cifar", *FIT])
    for content in (json.dumps(written), "77", " 77\n"):  # An earlier version wrote the number alone.
        stopped_run.write_text(content)
        assert begun_before_requeue(FIT) == RUN, content
        assert begun_before_requeue([*FIT, "--seed_everything", "3"]) is None, content
    others = ['{"job": "77"', '{"job": "78"}', "[77]", "null", '{"job": "77", "command": 3, "start": "x"}', "[" * 10**5]
    for damaged in (b"77\xff\xfe", b"", b"78", *map(str.encode, others)):
        stopped_run.write_bytes(damaged)
        assert begun_before_requeue(FIT) is None, damaged


def test_a_run_without_a_checkpoint_is_begun_anew(stopped_run: Path, restarted: Callable[[], None]) -> None:
    shutil.rmtree(RUN / "checkpoints")
    restarted()
    assert begun_before_requeue(FIT) is None


def test_a_resume_keeps_whose_run_it_is(stopped_run: Path, restarted: Callable[[], None]) -> None:
    before = stopped_run.read_bytes()
    restarted()
    main(["fit", "--resume", str(RUN)])
    assert stopped_run.read_bytes() == before


def test_all_processes_go_on_with_the_same_run_and_pass_over_it_once_it_has_ended(
    restarted: Callable[[], None],
) -> None:
    fit = [*FIT, *SPREAD]
    kill = [kill_at("on_train_batch_start", 1, 2, signal.SIGTERM)]
    statuses, _, said = together(fit, fit, callbacks=[kill, []])
    assert statuses[0] == 128 + signal.SIGTERM, said
    restarted()
    statuses, _, said = together(fit, fit)
    assert statuses == [0, 0], said
    assert versions(RUN.parent) == ["version_0"]
    assert validated(RUN) == ["0", "1"]
    restarted()
    statuses, _, said = together(fit, fit)
    assert statuses == [0, 0], said
    assert said.count(f"{RUN} has come to its end in this job") == 1
    assert versions(RUN.parent) == ["version_0"]
