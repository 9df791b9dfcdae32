"""README and docs say what is true: their commands run, their options exist, their tables and links hold."""

import functools
import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningCLI

from pet_cifar import callbacks, data, models
from pet_cifar.cli.main import COMMANDS, TRAINER_COMMANDS, main
from pet_cifar.cli.predict import takes_pictures
from pet_cifar.data import ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.training import ImageClassifier
from tests.conftest import HOME, write_cats_dogs, write_cifar10_folders

README = HOME / "README.md"
PAGES = [README, HOME / "CONTRIBUTING.md", *sorted((HOME / "docs").glob("*.md"))]
BENCHMARKS = HOME / "benchmarks"
CONFIGS = sorted((HOME / "configs").glob("*.yaml"))
RUN = "lightning_logs/digits_residual/version_0"
# These stand in for the words that a reader replaces.
PLACEHOLDERS = {"N": "2", "HOST": "localhost", "DIR": "data", "RUN_DIR": RUN, "FILE": "weights.safetensors"}
# A command that trains is made as small as this; the others are only parsed.
TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--model.widths", "[8]"]
# These options name another net, whose weights or widths are not at hand, or more processes.
NOT_TINY = ("--model", "--trainer.devices", "--trainer.callbacks+", "--trainer.callbacks.help", "--print_model")


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands_of(page: Path) -> Iterator[str]:
    """The commands of a page, in blocks and within sentences, without comments."""
    text = page.read_text()
    lines = [line for block in fenced(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"`((?:pet-cifar|make) [^`\n]+)`", text)]:
        words = shlex.split(line, comments=True)
        if words:
            yield shlex.join(words)


COMMAND_LINES = sorted({command for page in PAGES for command in commands_of(page)})


class Parsed(BaseException):
    """Ends a command as soon as its options are known to be right."""


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on digits with its test, which stands in for every run that a page names."""
    home = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("run"))
    try:
        main(["fit", "--config", str(HOME / "configs/digits_residual.yaml"), *TINY])
        main(["test", "--run", RUN])
        return Path(RUN).absolute()
    finally:
        os.chdir(home)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of a reader, which no command changes."""
    root = tmp_path_factory.mktemp("pictures")
    write_cats_dogs(root)
    write_cifar10_folders(root)
    return root


@pytest.fixture
def workplace(
    command: str, run_directory: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory of a reader: the configs, a run of every config that the command names, and data."""
    for name in {"digits_residual", *re.findall(r"lightning_logs/(\w+)", command)}:
        shutil.copytree(run_directory, Path("lightning_logs", name, "version_0"))
    Path("configs").symlink_to(HOME / "configs")
    # What a command keeps beside the pictures lies in a folder of its own.
    shutil.copytree(pictures, tmp_path / "data", copy_function=os.link)
    for name in ("data", "my_data"):
        Path(name).symlink_to(tmp_path / "data")
    write_pictures(Path("my_photos"), 0, count=2, size=20)
    for name in ("new_photos", "b"):
        Path(name).symlink_to("my_photos")
    Path("a.jpg").symlink_to("my_photos/0.png")
    (sweep,) = fenced((HOME / "docs/repeat.md").read_text(), "yaml")
    Path("my_sweep.yaml").write_text(sweep)
    shutil.make_archive("photos", "zip", "my_photos")
    monkeypatch.setenv("PET_CIFAR_DATA", str(tmp_path / "data"))


@pytest.mark.filterwarnings("ignore")  # They are the libraries' own, and other tests hold what a run warns of.
@pytest.mark.parametrize("command", COMMAND_LINES, ids=lambda command: str(command[:100]))
@pytest.mark.usefixtures("workplace")
def test_a_command_can_be_typed_as_it_stands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [PLACEHOLDERS.get(word, word.replace("HOST:", "localhost:")) for word in shlex.split(command)]
    while re.fullmatch(r"[A-Z_]+=\w+", words[0]):
        words.pop(0)
    if words[0] == "srun":
        words = words[1:]
        while words[0].startswith("-"):
            words.pop(0)
    program, *options = words
    if program == "pet-cifar":
        run_pet_cifar(options, monkeypatch)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        found = get_args_parser().parse_args(options)
        assert (found.module, found.training_script) == (True, "pet_cifar")
        run_pet_cifar(found.training_script_args, monkeypatch)
    elif Path(program).name == "python" and options[0].startswith("benchmarks/"):
        run_benchmark(HOME / options[0], options[1:], monkeypatch)
    elif Path(program).name == "python":
        assert options[:3] == ["-m", "pytest", "-m"]
        assert options[3] in (HOME / "setup.cfg").read_text()
    elif program == "make":
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        subprocess.run(["make", "--dry-run", *options], cwd=HOME, env=quiet, check=True, capture_output=True)
    elif program == "pip":
        assert options[:2] == ["install", "-e"]
        (extra,) = re.findall(r"\[(\w+)\]", options[2])
        assert re.search(rf"^{extra} =$", (HOME / "setup.cfg").read_text(), re.MULTILINE)
    else:
        assert words == ["source", ".venv/bin/activate"], f"the test does not know how to run {command}"


def run_pet_cifar(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what is quick, and parses the rest with the command's own parser."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Parsed

    verb = options[0]
    assert verb in COMMANDS or verb.startswith("--"), verb
    tiny = verb == "fit" and "configs/digits_residual.yaml" in options and not set(options) & set(NOT_TINY)
    if tiny:
        options = [*options, *TINY]
    elif verb == "fit":
        monkeypatch.setattr(LightningCLI, "instantiate_classes", stop)
    elif options[:2] == ["data", "doctor"]:  # Its own tests run it, and it may want to download weights.
        monkeypatch.setattr("pet_cifar.cli.doctor.run_doctor", stop)
    elif verb == "export":  # Its own tests write every format, and make a page with the runtime of a browser.
        monkeypatch.setattr("pet_cifar.cli.export._write", stop)
        monkeypatch.setattr("pet_cifar.runs.web_page.read_runtime", stop)
    elif verb == "repeat":  # Its own tests make the runs.
        monkeypatch.setattr("pet_cifar.cli.repeat.make_and_compare", stop)
    elif verb == "sweep":
        monkeypatch.setattr("pet_cifar.cli.search.Search.run", stop)
    elif verb == "exercise":  # Its own tests make it small.
        monkeypatch.setattr("pet_cifar.runs.exercise.make.make", stop)
    elif verb == "board":
        monkeypatch.setattr("tensorboard.program.TensorBoard.launch", stop)
    status: object = None
    try:
        done = main(options)
    except Parsed:
        return
    except SystemExit as end:  # Help was asked for, or something is wrong.
        done, status = None, end.code
    assert status in (0, None)
    helps = any(option.endswith("help") for option in options)
    trains_or_scores = verb in TRAINER_COMMANDS and not (verb == "predict" and takes_pictures(options[1:]))
    assert (done is not None) == (trains_or_scores and not helps)


def run_benchmark(program: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a benchmark until it has parsed its options."""
    parse = ArgumentParser.parse_args

    def only_parse(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    monkeypatch.setattr(sys, "argv", [str(program), *options])
    monkeypatch.setattr(ArgumentParser, "parse_args", only_parse)
    for name in ("keras", "keras.layers"):  # One benchmark runs in an environment of its own.
        monkeypatch.setitem(sys.modules, name, MagicMock())
    with pytest.raises(Parsed):
        runpy.run_path(str(program), run_name="__main__")
    # What stands behind two dashes goes to pet-cifar.
    for option in re.findall(r"--(\w+)\.(\w+)", " ".join(options)):
        assert option in known_options()


@functools.cache
def known_options() -> set[tuple[str, str]]:
    """Every option of the command line with a dot, such as ("model", "lr"), of whatever net, data and callback."""
    families: dict[str, list[type]] = {"trainer": [Trainer]}
    for option, base in (("model", ImageClassifier), ("data", ImageDataModule), ("callbacks", Callback)):
        kinds: list[type] = [base]
        for kind in kinds:
            kinds += kind.__subclasses__()
        families[option] = kinds
    assert callbacks.Board in families["callbacks"]
    families["augment"] = [Augment]
    return {
        (option, name)
        for option, kinds in families.items()
        for kind in kinds
        for base in kind.__mro__
        for name in [*inspect.signature(vars(base).get("__init__", object)).parameters, "help"]
    } | {("data", "augment"), ("trainer", "callbacks")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_in_the_text_exists(page: Path) -> None:
    known = known_options()
    found = re.findall(r"--(model|data|trainer)\.(\w+)(?:\.(\w+))?", page.read_text())
    for option, name, inner in found:
        assert (option, name) in known, f"--{option}.{name}"
        assert not inner or (name, inner) in known, f"--{option}.{name}.{inner}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    # Not the files that docs/extending.md adds, each before its block, nor the old names.
    named = r"`((?:pet_cifar|tests|configs|benchmarks|docs)/[\w/.]+\.\w+)`(?!:\n\n```)"
    missing += [name for name in re.findall(named, text.partition("## Old and new")[0]) if not (HOME / name).exists()]
    assert missing == []


def test_the_readme_is_a_door() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("![") for line in lines[:15])
    linked = set(re.findall(r"\]\(docs/(\w+\.md)\)", README.read_text()))
    assert linked == {page.name for page in PAGES if page.parent.name == "docs"}


# On a machine of two cores Lightning advises more workers for every loader; ours are threads.
@pytest.mark.filterwarnings("ignore")
def test_the_python_example_trains_and_tests_in_under_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = fenced(README.read_text(), "python")
    assert len([line for line in example.splitlines() if line]) < 10
    exec(compile(example, "README.md", "exec"), {})
    assert "'test/acc': " in capsys.readouterr().out


def configs_table() -> dict[str, list[str]]:
    """The rows of README's table of configs by the names that they stand for; braces stand for several."""
    rows: dict[str, list[str]] = {}
    for name, *cells in re.findall(r"^\| `(\S+)` \| `(\w+)`(.*?) \| ([\d,].*) \|$", README.read_text(), re.MULTILINE):
        head, _, rest = name.partition("{")
        choices, _, tail = rest.partition("}")
        rows |= {f"{head}{choice}{tail}": cells for choice in choices.split(",")}
    return rows


def test_the_readmes_table_names_every_config() -> None:
    assert set(configs_table()) == {config.stem for config in CONFIGS}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_readmes_table_counts_a_nets_parameters_right(config: Path, tmp_path: Path) -> None:
    wanted = yaml.safe_load(config.read_text())
    kind, words, counted = configs_table()[config.stem]
    assert kind == wanted["model"]["class_path"]
    arguments = wanted["model"]["init_args"] | (
        {"weights": "none"} if "weights" in wanted["model"]["init_args"] else {}
    )
    pictures = getattr(data, wanted["data"]["class_path"])(
        **{**wanted["data"]["init_args"], "augment": None}, root=write_cats_dogs(tmp_path) / "PetImages"
    )
    net = getattr(models, kind)(
        num_classes=pictures.num_classes,
        num_channels=pictures.num_channels,
        image_size=pictures.image_size,
        # What a config freezes depends on nothing that is counted, and needs no epochs here.
        **{
            name: value
            for name, value in arguments.items()
            if name not in ("freeze_until", "unfreeze", "cache_features")
        },
    )
    fixed = sum(parameter.numel() for parameter in net.parameters() if not parameter.requires_grad)
    total = sum(parameter.numel() for parameter in net.parameters())
    assert counted == f"{total:,}" + (f", of them {fixed:,} fixed" if fixed else "")
    size = re.search(r"(\d+) x \d+", words)
    assert size is None or int(size[1]) == pictures.image_size
