"""What the programs in ``benchmarks`` print, and which configs they list."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pictures
import pytest
import torch
import waiting
from features import keeps_features
from report import CONFIGS, Measured, Report, parsed, parser, run_or_explain, share
from speedrun import cells, hand_over, reference
from startup import DIGITS
from step import bare, fit, operations, step_seconds

import results
from pet_cifar.callbacks import RunRecord
from pet_cifar.data import CIFAR10DataModule
from pet_cifar.data.manifest import Split
from pet_cifar.errors import InputError
from tests.conftest import CIFAR10, write_cifar10_folders

# This program prints what the reference prints, about the pictures that it finds.
REFERENCE = """
import sys
import torch
train, test = (torch.load(f"cifar10/{name}.pt") for name in ("train", "test"))
assert train["images"].dtype == torch.uint8 and train["images"].shape[1:] == (32, 32, 3)
assert test["classes"] == train["classes"]
print("|  run     |  epoch  |  train_loss  |  val_acc  |  tta_val_acc  |  total_time_seconds  |")
for number, accuracy in enumerate((0.1, 0.94, 0.9425)):
    print(f"|  {number}     |      0  |      1.2345  |   0.5000  |               |              0.1234  |")
    print(f"|          |   eval  |      1.2345  |   0.9000  |  {accuracy:.4f}  |  {number + 3}.1250  |")
print("Mean: 0.9412    Std: 0.0013")
sys.exit(len(sys.argv) - 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> CIFAR10DataModule:
    return CIFAR10DataModule(write_cifar10_folders(tmp_path / "data"))


def test_the_reference_gets_all_our_pictures_mixed_with_their_labels(folder: CIFAR10DataModule, tmp_path: Path) -> None:
    hand_over(folder, tmp_path / "handed")
    files: tuple[tuple[str, tuple[Split, ...]], ...] = (("train", ("train", "val")), ("test", ("test",)))
    for name, splits in files:
        found = torch.load(tmp_path / "handed" / f"{name}.pt")
        images, labels = found["images"], found["labels"]
        assert found["classes"] == list(CIFAR10)
        ours = [
            (int(label), pixels.tobytes())
            for split in splits
            for label, pixels in zip(
                folder.labels(split),
                folder.pixels(split).take(np.arange(len(folder.splits[split]))).numpy(),
                strict=True,
            )
        ]
        theirs = [
            (int(label), image.permute(2, 0, 1).contiguous().numpy().tobytes())
            for label, image in zip(labels, images, strict=True)
        ]
        assert sorted(theirs) == sorted(ours)
        # The pictures do not come one class after the other, as in the folders.
        assert len(set(labels[: len(labels) // 5].tolist())) > 3


def test_what_the_reference_says_of_its_runs(folder: CIFAR10DataModule, tmp_path: Path) -> None:
    program = tmp_path / "reference.py"
    program.write_text(REFERENCE)
    runs = reference(program, folder)
    assert [run["accuracy"] for run in runs] == pytest.approx([10, 94, 94.25])
    assert [run["seconds"] for run in runs] == [3.125, 4.125, 5.125]


@pytest.mark.parametrize(("code", "words"), [("raise SystemExit(3)", "ended with status 3"), ("", "told of 0 runs")])
def test_a_reference_that_fails_is_an_error(folder: CIFAR10DataModule, tmp_path: Path, code: str, words: str) -> None:
    program = tmp_path / "reference.py"
    program.write_text(code)
    with pytest.raises(SystemExit, match=words):
        reference(program, folder)


def test_the_cells_of_a_speedrun() -> None:
    found = cells([94.0, 93.0, 95.0, 94.2], [3.0, 1.0, 2.0], 93.9, 60.0)
    assert list(map(str, found)) == ["94.05", "0.82", "75 %", "2 (1 to 3)", "60.0"]
    assert list(map(str, cells([94.0], [3.0], 94.0, 5.0))) == ["94.00", "", "0 %", "3", "5.0"]


@pytest.mark.parametrize(("gpu", "seconds"), [(False, 2.0), (True, 4.0)])
def test_the_first_steps_do_not_count(monkeypatch: pytest.MonkeyPatch, gpu: bool, seconds: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    # The median counts where the CPU does the work, else the mean.
    assert step_seconds([0.0, 50.0, 100.0, 101.0, 103.0, 112.0]) == seconds


def test_a_report_prints_its_rows_and_keeps_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    output.write_text("an hour's figures")
    report = Report(["what", "ours", "share"], Namespace(output=output, root=Path("data")), "two rounds")
    one, limit = Measured([3.0, 1.0, 2.0]), Measured([4.0])
    report.row("a row", [one, share(one, limit)], {"ours": one, "limit": limit})
    report.keep("beside", {"seconds": 5.0})
    assert (tmp_path / "figures_1.json").read_text() == "an hour's figures"
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == ["| what | ours | share |", "| --- | --- | --- |", "| a row | 2 (1 to 3) | 50 % |"]
    known = json.loads(output.read_text())
    assert known["figures"]["a row"]["ours"] == {"n": 3, "median": 2, "spread": [1, 3], "values": [3, 1, 2]}
    assert known["figures"]["beside"] == {"seconds": 5.0}
    assert torch.__version__.startswith(known["conditions"]["versions"]["torch"].split("+")[0])


def test_options_behind_two_dashes_are_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["step.py", "--root", "here", "--", "--trainer.precision", "bf16-mixed"])
    arguments, rest = parsed(parser("What a step costs."))
    assert (arguments.root, arguments.output) == (Path("here"), Path("step.json"))
    assert rest == ["--trainer.precision", "bf16-mixed"]


def test_wrong_input_is_answered_in_a_line() -> None:
    def fails() -> None:
        raise InputError("no pictures in data; give --root")

    with pytest.raises(SystemExit, match="^error: no pictures in data; give --root$"):
        run_or_explain(fails)


def test_every_config_is_measured_unless_others_are_named() -> None:
    configs = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    assert configs == CONFIGS == vars(results)["CONFIGS"] == vars(pictures)["CONFIGS"]
    frozen = {path.stem for path in filter(keeps_features, configs)}
    assert {"cats_dogs_efficientnet", "cats_dogs_vgg16_frozen"} <= frozen < {path.stem for path in configs}


def test_the_cost_of_pictures_is_measured_within_the_callbacks(tmp_path: Path) -> None:
    drawn, steps_an_epoch = pictures.measure(DIGITS, tmp_path, 1, 2, [])
    undrawn, _ = pictures.measure(DIGITS, tmp_path, 1, 2, pictures.WITHOUT_PICTURES)
    assert len(drawn.steps) == len(undrawn.steps) == 2 < steps_an_epoch
    assert 0 < undrawn.inside < drawn.inside
    assert undrawn.fit > sum(undrawn.steps) > 0


def test_what_an_epoch_waits_for_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(["what"], Namespace(output=tmp_path / "figures.json", root=tmp_path), "")
    before = RunRecord._write
    waiting.epochs(3, [], report)
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    parts = ["checkpoints", "events and CSV", "run.json", "together"]
    assert [name.partition(",")[0] for name in found] == parts
    assert all(one["processor_ms"] > 0 and one["clock_ms"] > 0 for one in found.values())
    assert found["together, an epoch"]["clock_ms"] < 1000
    assert RunRecord._write is before


def test_the_share_of_pictures_is_that_of_two_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "fit_seconds", lambda config, root, options: 9.5 if "Board" in options else 10.0)
    report = Report(["what"], Namespace(output=tmp_path / "figures.json", root=tmp_path), "")
    waiting.pictures(["digits_residual"], tmp_path, 2, [], report)
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert found["pictures of `digits_residual`"]["share"]["values"] == pytest.approx([0.05, 0.05])


def test_two_runs_are_compared_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "throughput", lambda runs, threads, waits, rest: (8.0 if waits else 9.0) * runs)
    report = Report(["what"], Namespace(output=tmp_path / "figures.json", root=tmp_path), "")
    waiting.side_by_side(1, 2, [], report)
    found = json.loads((tmp_path / "figures.json").read_text())["figures"]
    for way in ("by itself", "--threads 2", "--threads 2, waiting as by default"):
        assert found[f"pictures/s, threads: {way}"]["lost"] == -1
    assert found["one run alone, ours beside the default"]["lost"] == 1 - 9 / 8


def test_a_step_of_the_command_line_and_of_a_plain_loop(tmp_path: Path) -> None:
    seconds, done = fit(DIGITS, tmp_path, 5, [])
    assert done.trainer.global_step == 5
    assert seconds > 0
    assert bare(done, 5, None) > 0
    assert operations(done, None) > 1e6
