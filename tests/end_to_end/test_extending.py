"""The files of docs/extending.md, added to a copy of the tree, are found by everything that must find them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HOME

PAGE = (HOME / "docs" / "extending.md").read_text()
# A path on a line of its own, or an export line's place, stands before each block.
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
EXPORTS = dict(re.findall(r"^The export line in `([\w/.]+)`:\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
SOURCES = [path for path in FILES if path.endswith(".py")]
CONFIGS = [path for path in FILES if path.endswith(".yaml")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the three files, their export lines and their configs, and nothing else changed."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pet_cifar", "tests", "configs", "benchmarks"):
        shutil.copytree(HOME / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(HOME / name, copy)
    for path, text in FILES.items():
        assert not (copy / path).exists(), path
        (copy / path).write_text(text)
    for path, line in EXPORTS.items():
        with (copy / path).open("a") as file:
            file.write(line)
    return copy


def run(tree: Path, *words: str) -> str:
    """Runs Python in the copy, and returns what it printed."""
    environment = os.environ | {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_example_is_a_file_of_at_most_40_lines_an_export_line_and_a_config() -> None:
    assert [len(text.splitlines()) <= 40 for path, text in FILES.items() if path in SOURCES] == [True] * 3
    assert [len(line.splitlines()) for line in EXPORTS.values()] == [1, 1, 1]
    assert len(CONFIGS) == 2


def test_the_examples_pass_ruff(tree: Path) -> None:
    run(tree, "-m", "ruff", "check", "--no-cache", *SOURCES)
    run(tree, "-m", "ruff", "format", "--no-cache", "--check", *SOURCES)


def test_the_suite_finds_the_examples_by_itself_and_they_pass(tree: Path) -> None:
    configs = [Path(path).stem for path in CONFIGS]
    files = ["end_to_end/test_configs.py", "models/test_architectures.py", "callbacks/images/test_promises.py"]
    chosen = " or ".join([*configs, "AllConvCNN", "(ends_as_one_with_none and residual)"])
    options = ["-v", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers", "-k", chosen]
    printed = run(tree, "-m", "pytest", *options, *(f"tests/{file}" for file in files))
    passed = re.findall(r"^tests/(\S+)::(\w+)\[(\S+)\] PASSED", printed, re.MULTILINE)
    assert {words for file, _, words in passed if file == files[0]} == set(configs)
    assert len({name for file, name, words in passed if file == files[1] and words.endswith("AllConvCNN")}) >= 6
    assert [words for file, _, words in passed if file == files[2]] == ["residual"]


# What the page says that one can type then, and what lists the new names.
COMMANDS = re.findall(r"^pet-cifar .+", PAGE.partition("## Looking at what you added")[2], re.MULTILINE)
PROGRAM = """
from contextlib import suppress
from pathlib import Path

import results
from pet_cifar import data
from pet_cifar.cli.main import main
from tests.callbacks.small_runs import IMAGE_CALLBACKS

for option, name in (("model", "AllConvCNN"), ("data", "FlowersDataModule"), ("trainer.callbacks", "ClassMeans")):
    print(f"== {name}")
    with suppress(SystemExit):
        main(["fit", f"--{option}.help", name])
print("== fit")
with suppress(SystemExit):
    main(["fit", "--help"])
print("== lists")
print([kind.__name__ for kind in IMAGE_CALLBACKS], [config.stem for config in results.CONFIGS])
data.FlowersDataModule.write_sample(Path("data"))
small = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
for command in {commands}:
    with suppress(SystemExit):
        main([*command.split()[1:], *(small if "--config" in command else [])])
"""


def test_help_benchmarks_and_tensorboard_have_the_new_names(tree: Path) -> None:
    printed = run(tree, "-c", PROGRAM.replace("{commands}", repr(COMMANDS)))
    pages = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", printed, re.MULTILINE | re.DOTALL))
    for page, words in {
        "AllConvCNN": ["--model.widths", "--model.lr"],
        "FlowersDataModule": ["--data.val_fraction"],
        "ClassMeans": ["most", "every_n_epochs"],
        "fit": ["AllConvCNN", "FlowersDataModule"],
        "lists": ["'ClassMeans'", *(f"'{Path(path).stem}'" for path in CONFIGS)],
    }.items():
        assert [word for word in words if word not in pages[page]] == [], page
    for config in CONFIGS:
        (events,) = (tree / "lightning_logs" / Path(config).stem / "version_0").glob("events.out.tfevents.*")
        assert b"predictions/class_means/val" in events.read_bytes()
