"""A checkpoint is whole or as it was, and a torn one is told."""

import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from pet_cifar.errors import InputError
from pet_cifar.runs.checkpoint_file import (
    LENGTH,
    HashedCheckpoints,
    check_hash,
    keep_best,
    use_hashed_checkpoints,
)
from pet_cifar.runs.directory import read_checkpoint
from tests.conftest import quiet_trainer

CONTENT = {"state_dict": {"weight": torch.arange(5000.0)}, "pytorch-lightning_version": "2.6.6", "callbacks": {}}


def saved(path: Path, content: dict[str, Any] = CONTENT) -> Path:
    HashedCheckpoints().save_checkpoint(content, path)
    return path


def test_it_is_a_checkpoint_as_any_other(tmp_path: Path) -> None:
    path = saved(tmp_path / "new folder" / "one.ckpt")
    for mmap in (False, True):
        assert torch.load(path, weights_only=True, mmap=mmap)["state_dict"]["weight"][-1] == 4999
    assert zipfile.ZipFile(path).testzip() is None
    assert read_checkpoint(path)["pytorch-lightning_version"] == "2.6.6"
    assert [entry.name for entry in path.parent.iterdir()] == ["one.ckpt"]


def test_any_other_byte_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "one.ckpt")
    content = path.read_bytes()
    for place in (0, len(content) // 2, len(content) - LENGTH - 3, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"one\.ckpt is damaged") as told:
            read_checkpoint(path)
        assert len(str(told.value)) < 200 + len(str(path))


@pytest.mark.parametrize("left", [0, 10, 5000, -1, -LENGTH])
def test_a_torn_one_is_refused(left: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "one.ckpt")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"one\.ckpt"):
        read_checkpoint(path)


def test_one_of_an_earlier_version_has_no_hash(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "one.ckpt")
    check_hash(tmp_path / "one.ckpt")
    assert read_checkpoint(tmp_path / "one.ckpt")["callbacks"] == {}


def test_the_one_before_the_last_is_kept(tmp_path: Path) -> None:
    for number in range(3):
        saved(tmp_path / "best.ckpt", {**CONTENT, "global_step": number})
        saved(tmp_path / "last.ckpt", {**CONTENT, "global_step": number})
    steps = {path.name: torch.load(path)["global_step"] for path in tmp_path.iterdir()}
    assert steps == {"last.ckpt": 2, "previous.ckpt": 1, "best.ckpt": 2}


def test_the_best_one_that_the_last_one_knows_of_is_kept_until_the_next_last_one(tmp_path: Path) -> None:
    last, best = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    before = tmp_path / "best_before.ckpt"

    def steps() -> dict[str, int]:
        return {path.name: torch.load(path)["global_step"] for path in (last, best, before) if path.exists()}

    def save(path: Path, step: int) -> Path:
        return saved(path, {**CONTENT, "global_step": step})

    for step in (1, 2):
        save(best, step)
        assert not before.exists()
    save(last, 2)
    for step in (4, 6):
        save(best, step)
        assert steps() == {"last.ckpt": 2, "best.ckpt": step, "best_before.ckpt": 2}
    keep_best(last)
    assert steps() == {"last.ckpt": 2, "best.ckpt": 2}
    # A kill may come before there is a new best one, and before the one that was kept is gone.
    best.replace(before)
    keep_best(last)
    assert steps() == {"last.ckpt": 2, "best.ckpt": 2}
    shutil.copy(best, before)
    save(best, 4)
    shutil.copy(best, last)
    keep_best(last)
    assert steps() == {"last.ckpt": 4, "best.ckpt": 4}
    # What is damaged replaces nothing, and a whole one replaces it.
    before.write_bytes(b"torn")
    keep_best(last)
    assert steps() == {"last.ckpt": 4, "best.ckpt": 4}
    best.replace(before)
    best.write_bytes(b"torn")
    keep_best(last)
    assert steps() == {"last.ckpt": 4, "best.ckpt": 4}
    save(best, 5)
    save(last, 5)
    assert steps() == {"last.ckpt": 5, "best.ckpt": 5}


class FullDisk:
    """A file that takes so many bytes."""

    def __init__(self, file: BinaryIO, room: int, number: int) -> None:
        self.file, self.room, self.number = file, room, number

    def write(self, content: bytes) -> int:
        self.room -= len(content)
        if self.room < 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.file.write(content)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("room", [0, 100, 10_000, 20_000])
def test_on_a_full_disk_the_one_that_is_there_stays(
    room: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "last.ckpt")
    before = path.read_bytes()
    own = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: own(content, limited(file)))

    def limited(file: Any) -> Any:
        file._file = FullDisk(file._file, room, number)
        return file

    with pytest.raises(InputError, match=rf"cannot write .*last\.ckpt: {os.strerror(number)}; make room"):
        saved(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_the_user_or_the_strategy_chose_stays() -> None:
    trainer = quiet_trainer()
    use_hashed_checkpoints(trainer)
    assert type(trainer.strategy.checkpoint_io) is HashedCheckpoints
    own = type("Own", (HashedCheckpoints,), {})()
    trainer.strategy.checkpoint_io = own
    use_hashed_checkpoints(trainer)
    assert trainer.strategy.checkpoint_io is own
