"""A link within a stranger's run leads nothing that is written elsewhere; a link that is typed does."""

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import refused, status_of

QUIET = ("--trainer.enable_progress_bar", "false")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.fixture
def run(own_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(own_checkpoint.parent.parent, tmp_path / "strangers" / "version_0"))


@pytest.mark.parametrize("place", ["test", "test/metrics.json", "test_of_1_batches", "predict", "val", "run.json"])
@pytest.mark.parametrize("verb", ["test", "predict"])
def test_results_stay_in_the_run(
    place: str, verb: str, run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / place).parent.mkdir(exist_ok=True)
    shutil.rmtree(run / "val")
    (run / "run.json").unlink()
    (run / place).symlink_to(elsewhere if "." not in place else elsewhere / "new")
    before = sorted(run.rglob("*"))
    line = refused(capsys, verb, "--run", str(run), *QUIET)
    assert f"{run / place} is a link" in line
    assert list(elsewhere.iterdir()) == []
    assert sorted(run.rglob("*")) == before


def test_a_typed_link_to_a_run_is_the_users_own(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    # Checkpoints are large and may lie on another disk.
    moved = (run / "checkpoints").rename(tmp_path / "moved")
    (run / "checkpoints").symlink_to(moved)
    assert status_of("test", "--run", tmp_path / "link", *QUIET) == 0
    assert (run / "test" / "metrics.json").is_file()


@pytest.mark.parametrize("is_there", [True, False])
def test_drawings_and_exports_stay_in_the_run(
    is_there: bool, run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("drawings", "exported"):
        (run / name).symlink_to(elsewhere if is_there else elsewhere / "new")
    assert f"drawn into {run / 'drawings_2'}" in _said(capsys, "draw", "--run", run)
    line = refused(capsys, "export", "--run", str(run), "--format", "safetensors")
    assert f"{run / 'exported'} is a link" in line
    assert list(elsewhere.iterdir()) == []


def _said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status_of(*words)
    return capsys.readouterr().out
