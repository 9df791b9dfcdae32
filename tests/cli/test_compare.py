"""``pet-cifar compare``: which of some runs is better."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli.main import main
from pet_cifar.cli.run_option import data_of_run
from pet_cifar.data import ImageDataModule
from pet_cifar.data.manifest_report import warn_line
from tests.cli.commands import fit, refused, status_of
from tests.runs.conftest import digits_run as digits_run
from tests.runs.report.synthetic import two_runs
from tests.runs.run_folders import answers, make_run


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def two_experiments(count: int = 3) -> list[str]:
    for name, accuracy in (("residual", 0.9), ("plain", 0.7)):
        for seed in range(count):
            make_run(Path(f"logs/{name}/version_{seed}"), answers(accuracy, hash((accuracy, seed)) % 1000), seed,
                     options={"lr": accuracy})  # fmt: skip
    return ["logs/residual", "logs/plain"]


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    main(["compare", *words])
    return capsys.readouterr().out.splitlines()


def test_what_is_assumed_of_an_experiment_of_one_run_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    residual, plain = two_experiments()
    verdict = lines_of(capsys, residual, f"{plain}/version_0")[-1]
    assert verdict.startswith("residual is better than plain by ")
    assert "plain has one run" in verdict


def test_the_better_experiment_is_named_with_its_lead(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys, *two_experiments())
    head, best, other, _, verdict = lines
    assert head.split()[0] == "experiment"
    assert (best.split()[0], best.split()[1]) == ("residual", "3")
    assert other.split()[0] == "plain"
    assert verdict.startswith("residual is better than plain by ")
    assert ", p < 0.0001" in verdict


def test_runs_that_cannot_be_told_apart_say_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(Path("logs/a/version_0"), answers(0.9, 1))
    make_run(Path("logs/b/version_0"), answers(0.895, 2), options={"lr": 2})
    (line,) = [line for line in lines_of(capsys, "logs/a", "logs/b") if "apart" in line]
    assert "more test pictures" in line


def test_a_report_has_the_same_in_four_forms(capsys: pytest.CaptureFixture[str]) -> None:
    lines_of(capsys, *two_experiments(), "--output", "reports/mine.html")
    found = json.loads(Path("reports/mine.json").read_text())
    assert [one["experiment"] for one in found["experiments"]] == ["residual", "plain"]
    assert found["experiments"][0]["seeds"] == ["0", "1", "2"]
    assert found["verdicts"][0]["is_better"]
    assert found["differing_options"] == {"model.init_args.lr": ["0.9", "0.7"]}
    with Path("reports/mine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["accuracy"]) == pytest.approx(found["experiments"][0]["accuracy"])
    text = Path("reports/mine.md").read_text()
    assert found["verdicts"][0]["words"] in text
    assert "| residual | 3 | 400 |" in text


def test_a_real_run_gets_its_report_card(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys, str(digits_run))
    assert not any("better" in line or "apart" in line for line in lines)
    assert "digits_residual" in lines[1]
    assert "180" in lines[1].split()


def test_a_real_run_is_told_from_a_copy_with_another_seed(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("logs/digits_residual")
    for number in range(2):
        shutil.copytree(digits_run, folder / f"version_{number}")
    config = folder / "version_1" / "config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 0", "seed_everything: 1"))
    lines = lines_of(capsys, str(folder))
    assert any(line.startswith("beware: ") and "same predictions" in line for line in lines)


def test_an_untested_run_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    two_experiments()
    shutil.rmtree("logs/plain/version_1/test")
    main(["compare", "logs/plain", "logs/residual"])
    captured = capsys.readouterr()
    assert "logs/plain/version_1" in captured.err
    assert captured.out.splitlines()[2].split()[:2] == ["plain", "2"]


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_an_unfinished_run_is_to_be_finished_before_its_test(
    has_checkpoint: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    two_experiments(1)
    run = make_run(Path("logs/cut/version_0"), answers(0.9, 1), epochs=2, planned=10, state="unfinished")
    shutil.rmtree(run / "test")
    if has_checkpoint:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").touch()
    capsys.readouterr()
    main(["compare", "logs/residual", str(run)])
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert f"{run} is unfinished (2 of 10 epochs)" in line
    assert (f"pet-cifar fit --resume {run}" in line) == (f"pet-cifar test --run {run}" in line) == has_checkpoint
    (note,) = [line for line in captured.out.splitlines() if "nothing is left" in line]
    assert "residual/version_0" in note
    assert "2 of 10 epochs" in refused(capsys, "compare", str(run))


def test_seeds_of_one_experiment_are_told_to_count_together(capsys: pytest.CaptureFixture[str]) -> None:
    two_experiments(2)
    lines = lines_of(capsys, "logs/plain/version_0", "logs/plain/version_1")
    (note,) = [line for line in lines if "one experiment" in line]
    assert note.startswith("note: ")
    assert "seeds 0, 1," in note
    assert not any("one experiment" in line for line in lines_of(capsys, "logs/plain", "logs/residual"))


def test_a_run_that_is_given_twice_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    two_experiments(1)
    lines = lines_of(capsys, "logs/plain/version_0", "logs/plain")
    assert any(line.startswith("note: logs/plain/version_0 was given 2 times") for line in lines)
    assert lines[1].split()[:2] == ["plain", "1"]


def test_the_two_kinds_of_intervals_have_a_column_each(capsys: pytest.CaptureFixture[str]) -> None:
    head = lines_of(capsys, *two_experiments(2), "--output", "report.html")[0]
    assert "95 % over seeds" in head
    assert "95 % over pictures" in head
    row = next(csv.DictReader(Path("report.csv").read_text().splitlines()))
    assert {"accuracy_low", "accuracy_high", "interval_over", "pictures_low", "pictures_high"} <= set(row)
    assert "over seeds" not in lines_of(capsys, "logs/plain/version_0")[0]


@pytest.mark.parametrize(("right", "is_wide"), [((0.9, 0.7), True), ((1.5, 1.5), False)])
def test_a_wide_interval_over_two_seeds_asks_for_a_third(
    right: tuple[float, float], is_wide: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, accuracy in enumerate(right):
        make_run(Path(f"logs/net/version_{seed}"), answers(accuracy, seed), seed)
    assert any("third seed" in line for line in lines_of(capsys, "logs/net")) == is_wide


def test_a_tested_run_is_in_the_log_of_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("0", "1"):
        fit("--seed_everything", seed, "--data.root", ".")
        main(["test", "--run", "lightning_logs/digits_residual"])
    lines = lines_of(capsys, "lightning_logs/digits_residual/version_1")
    assert any(line.startswith("note: ") and "tested too: 0;" in line for line in lines)
    assert not any("tested too" in line for line in lines_of(capsys, "lightning_logs/digits_residual"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere"),
        (["a_file"], "a_file"),
        (["empty"], "empty"),
        (["logs"], "logs/residual"),
        (["logs/untested"], "pet-cifar test --run logs/untested/version_0"),
        (["logs/damaged"], "predictions.csv, line 3"),
        (["logs/foreign"], "predictions.csv, line 1"),
        (["logs/torn"], "run.json"),
        (["logs/residual", "--output", "report.pdf"], "--output report.pdf"),
        (["--run", "logs/residual"], "pet-cifar compare RUN_DIR"),
        (["--run=logs/residual"], "pet-cifar compare RUN_DIR"),
        (["logs/residual", "--outptu", "report.html"], "--output"),
        ([], "RUN_DIR"),
    ],
)
def test_a_wrong_input_is_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    two_experiments(1)
    Path("a_file").touch()
    Path("empty").mkdir()
    for name in ("untested", "damaged", "foreign", "torn"):
        shutil.copytree("logs/plain", f"logs/{name}")
    shutil.rmtree("logs/untested/version_0/test")
    table = Path("logs/damaged/version_0/test/predictions.csv")
    table.write_text("\n".join([*table.read_text().splitlines()[:2], "1.jpg,cat,dog,0.5"]))
    Path("logs/foreign/version_0/test/predictions.csv").write_text("path,prediction,p_cat\n1.jpg,cat,1\n")
    Path("logs/torn/version_0/run.json").write_text('{"state": ')
    assert told in refused(capsys, "compare", *words)


def test_a_report_without_pictures_says_so_and_has_everything_else(capsys: pytest.CaptureFixture[str]) -> None:
    paths = two_experiments(1)
    capsys.readouterr()
    main(["compare", *paths, "--output", "report.html"])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all(line.startswith("not drawn: ") and "checkpoint" in line for line in told)
    assert any("residual/version_0" in line for line in told)
    page = Path("report.html").read_text()
    assert "Reliability" in page
    assert "pet-cifar compare logs/residual logs/plain --output report.html" in page


def test_the_pictures_of_two_runs_of_the_same_data_are_told_of_once(
    digits_run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = two_runs(digits_run, Path("logs"))
    asked: list[str | None] = []

    def tell(checkpoint: Mapping[str, Any], root: str | None) -> ImageDataModule:
        asked.append(root)
        warn_line("left out 4 of 4004 files")
        return data_of_run(checkpoint, root)

    monkeypatch.setattr("pet_cifar.cli.run_option.data_of_run", tell)
    main(["compare", *map(str, runs), "--output", "report.html", "--data.root", "elsewhere"])
    assert asked == ["elsewhere", "elsewhere"]
    assert caplog.messages.count("left out 4 of 4004 files") == 1
    assert Path("report.html").read_text().count("data:image/jpeg") > 20


@pytest.mark.parametrize("file", ["config.yaml", "run.json", "test/scored.json", "test/metrics.json"])
@pytest.mark.parametrize("content", ["[1, 2]", "3", '"abc"', "null", '{"data": [1]}', '{"trainer": {"callbacks": 3}}'])
def test_a_file_of_another_shape_is_told_in_one_line_or_does_no_harm(file: str, content: str) -> None:
    runs = two_experiments(1)
    Path(runs[0], "version_0", file).write_text(content)
    assert status_of("compare", *runs) in (0, 2)


def test_a_config_that_names_an_address_sends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    runs = two_experiments(1)
    Path(runs[0], "version_0", "config.yaml").write_text("data: {init_args: {root: 'http://127.0.0.1:9/data'}}")
    assert "http://127.0.0.1:9/data" in refused(capsys, "compare", *runs)
