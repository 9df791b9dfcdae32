"""The results that are kept, and the page that is written from them."""

import json
from pathlib import Path

import pytest
import results_page
from results_page import PAGE, ROWS, page, read_results

from pet_cifar.errors import InputError
from tests.runs.run_folders import answers, make_run


@pytest.fixture
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "RESULTS", tmp_path / "results")


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read_results()), "run benchmarks/results_page.py"


@pytest.mark.usefixtures("_own_folder")
def test_a_result_is_kept_with_all_its_seeds(tmp_path: Path) -> None:
    for name, accuracy in (("cifar10_residual", 0.9), ("cifar10_plain", 0.7)):
        runs = [make_run(tmp_path / name / f"version_{seed}", answers(accuracy, seed), seed, options={"lr": accuracy})
                for seed in range(2)]  # fmt: skip
        results_page.keep(name, [runs[0].parent], "JPEG copy")
    found = read_results()
    assert [run["seed"] for run in found["cifar10_residual"]["runs"]] == ["0", "1"]
    text = page(found)
    assert "2; *1 owed*" in text
    assert "JPEG copy" in text
    assert "- cifar10_residual is better than cifar10_plain by " in text
    assert text.count("*owed*") == len(ROWS) - 1, "the others, and the word in the introduction"


@pytest.mark.usefixtures("_own_folder")
def test_further_seeds_are_added_to_a_result(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{seed}/version_0", answers(0.9, seed), seed, options={"lr": 0.1}) for seed in range(12)
    ]
    results_page.keep("cifar10_residual", [runs[0], runs[10]], "JPEG copy")
    results_page.keep("cifar10_residual", [runs[2], runs[10]], "JPEG copy")
    (kept,) = read_results().values()
    assert [run["seed"] for run in kept["runs"]] == ["0", "2", "10"]
    mean = sum(run["accuracy"] for run in kept["runs"]) / 3
    assert f"| 3 | {100 * mean:.2f} % |" in page(read_results())
    other = make_run(tmp_path / "other/version_0", answers(0.8, 1), 5, options={"lr": 0.2})
    with pytest.raises(InputError, match=r"cifar10_residual.*model\.init_args\.lr; --replace"):
        results_page.keep("cifar10_residual", [other], "JPEG copy")
    with pytest.raises(InputError, match="copy; --replace"):
        results_page.keep("cifar10_residual", [runs[3]], "")
    results_page.keep("cifar10_residual", [other], "JPEG copy", replace=True)
    assert [run["seed"] for run in read_results()["cifar10_residual"]["runs"]] == ["5"]


@pytest.mark.usefixtures("_own_folder")
def test_what_could_mislead_is_not_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a/version_0", answers(0.9, 1), state="unfinished")
    with pytest.raises(InputError, match="cifar10_plain.*not finished"):
        results_page.keep("cifar10_plain", [run], "")
    with pytest.raises(InputError, match="--keep nothing"):
        results_page.keep("nothing", [run], "")
    other = make_run(tmp_path / "b/version_0", answers(0.8, 1), options={"lr": 1})
    (run / "run.json").write_text(json.dumps({"state": "finished"}))
    with pytest.raises(InputError, match="2 experiments"):
        results_page.keep("cifar10_plain", [run, other], "")
    assert not read_results()
