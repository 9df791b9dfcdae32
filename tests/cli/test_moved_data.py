"""A relative data folder is looked for in the working directory, and where else it lies is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.commands import refused
from tests.cli.forging import CONFIG, forged


def data_in(root: str | None) -> dict[str, Any]:
    init_args = {"root": root, "image_size": 32} if root else {"image_size": 32}
    return {**CONFIG, "data": {"class_path": "CatsDogsDataModule", "init_args": init_args}}


@pytest.mark.parametrize("root", ["pictures", ".", None])
def test_data_beside_a_run_is_named(
    root: str | None,
    own_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "home/lightning_logs/digits/version_0"
    (run / "checkpoints").mkdir(parents=True)
    there = (tmp_path / "home" / (root or "data")).resolve()
    there.mkdir(exist_ok=True)
    content = torch.load(own_checkpoint, weights_only=True)
    torch.save({**content, "config": yaml.safe_dump(data_in(root))}, run / "checkpoints/best.ckpt")
    (run / "config.yaml").write_text(yaml.safe_dump(data_in(root)))
    monkeypatch.delenv("PET_CIFAR_DATA", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    line = refused(capsys, "test", "--run", str(run))
    assert line.rstrip().endswith(f"{root or 'data'} counts from the working directory, and there is one at {there}")
    # What the user types is meant as it is.
    assert "counts from" not in refused(
        capsys, "fit", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--data.root", "x"
    )
    monkeypatch.chdir(tmp_path / "home")
    assert "counts from" not in refused(capsys, "test", "--run", str(run))


def test_where_there_is_none_nothing_is_named(own_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_dump(data_in("nowhere"))
    line = refused(capsys, "test", "--ckpt_path", forged(own_checkpoint, config=config))
    assert "nowhere" in line
    assert "counts from" not in line
