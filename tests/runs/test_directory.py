import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from pet_cifar.errors import InputError
from pet_cifar.runs.directory import best_checkpoint, find_run, read_checkpoint, run_of_checkpoint


def make_run(run: Path, *checkpoints: str) -> Path:
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    for name in checkpoints:
        torch.save({"state_dict": {"weight": torch.ones(2)}}, run / "checkpoints" / name)
    return run


# Finding a run


def test_the_newest_version_is_found_by_its_number(tmp_path: Path) -> None:
    for number in (2, 10, 9):
        make_run(tmp_path / f"version_{number}", "best.ckpt")
    assert find_run(tmp_path) == tmp_path / "version_10"
    assert find_run(str(tmp_path)) == tmp_path / "version_10"


def test_a_newer_version_without_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path / "version_0", "last.ckpt")
    make_run(tmp_path / "version_1")
    (tmp_path / "version_2").mkdir()
    (tmp_path / "version_old").mkdir()
    assert find_run(tmp_path) == tmp_path / "version_0"


def test_a_run_itself_is_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "version_3", "best.ckpt")
    make_run(tmp_path / "version_4", "best.ckpt")
    assert find_run(run) == run


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such directory") as caught:
        find_run(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint in"):
        find_run(tmp_path)
    make_run(tmp_path / "version_0")
    with pytest.raises(InputError, match=r"version_0.checkpoints"):
        find_run(tmp_path)


# Its checkpoints


def test_the_best_checkpoint_goes_before_the_last(tmp_path: Path) -> None:
    both = make_run(tmp_path / "both", "last.ckpt", "best.ckpt")
    last = make_run(tmp_path / "last", "last.ckpt")
    assert best_checkpoint(both) == both / "checkpoints" / "best.ckpt"
    assert best_checkpoint(last) == last / "checkpoints" / "last.ckpt"


def test_checkpoints_of_other_names_must_be_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "epoch=3.ckpt")
    with pytest.raises(InputError, match="give the checkpoint's file itself"):
        best_checkpoint(run)


def test_the_run_of_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "best.ckpt")
    assert run_of_checkpoint(run / "checkpoints" / "best.ckpt") == run


@pytest.mark.parametrize(("inside", "path"), [("run/checkpoints", "best.ckpt"), ("run", "checkpoints/best.ckpt")])
def test_the_run_of_a_checkpoint_named_from_within(
    inside: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", "best.ckpt")
    monkeypatch.chdir(tmp_path / inside)
    found = run_of_checkpoint(Path(path))
    assert found is not None
    assert found.resolve() == run.resolve()


def test_a_checkpoint_outside_of_a_run_has_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "best.ckpt")
    assert run_of_checkpoint(run / "best.ckpt") is None
    (run / "config.yaml").unlink()
    assert run_of_checkpoint(run / "checkpoints" / "best.ckpt") is None


# Reading one


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_checkpoint_is_read() -> None:
    content = {"state_dict": {"weight": torch.arange(3)}, "hyper_parameters": {"lr": 0.1}, "config": "a: 1\n"}
    torch.save(content, "run.ckpt")
    checkpoint = read_checkpoint(Path("run.ckpt"))
    assert checkpoint["hyper_parameters"] == {"lr": 0.1}
    assert checkpoint["state_dict"]["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_bare_weights_are_told_from_a_checkpoint_with_the_way_out(wrapper: str | None) -> None:
    state = {"layer.weight": torch.zeros(2)}
    torch.save({wrapper: state} if wrapper else state, "my net.pth")
    message = refusal(Path("my net.pth"))
    assert "bare state dict" in message
    assert "layer.weight" in message
    assert "--model.weights 'my net.pth'" in message


@pytest.mark.parametrize("part", ["state_dict", "hyper_parameters", "callbacks"])
def test_a_part_of_another_shape_is_named(part: str) -> None:
    content = {"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": {}, "callbacks": {}, part: [1]}
    torch.save({**content, "pytorch-lightning_version": "2.6"}, "run.ckpt")
    message = refusal(Path("run.ckpt"))
    assert f"its {part} is of the type list" in message


def test_a_missing_checkpoint_is_refused() -> None:
    assert "there is no such file" in refusal(Path("nowhere.ckpt"))


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text\n", b"\x80\x02 garbage"], ids=["empty", "text", "noise"]
)
def test_a_file_of_something_else_is_refused(content: bytes) -> None:
    Path("other.ckpt").write_bytes(content)
    assert "cannot be read as a checkpoint" in refusal(Path("other.ckpt"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share: float) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, "cut.ckpt")
    content = Path("cut.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(content[: int(share * len(content))])
    assert "cannot be read as a checkpoint" in refusal(Path("cut.ckpt"))


class Code:
    """What a malicious file holds."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch was_run",)


@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(how: str) -> None:
    content = {"state_dict": {}, "callbacks": Code()}
    if how == "zip":
        torch.save(content, "evil.ckpt")
    else:
        Path("evil.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    assert "cannot be read as a checkpoint" in refusal(Path("evil.ckpt"))
    assert not Path("was_run").exists()


@pytest.mark.parametrize("content", [[1, 2], {"weight": torch.zeros(2)}], ids=["list", "weights"])
def test_what_is_no_checkpoint_is_refused(content: object) -> None:
    torch.save(content, "other.ckpt")
    assert "is no checkpoint of a run" in refusal(Path("other.ckpt"))
