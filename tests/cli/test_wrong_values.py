"""Every option, given a wrong value: one line that names an option which exists, and no traceback."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from lightning import Callback

from pet_cifar.cli.main import main
from pet_cifar.cli.options import Option, accepts, alternatives, choices, classes_in, options_of, options_of_class
from pet_cifar.cli.trainer import PetCifarCLI
from pet_cifar.data import ImageDataModule
from pet_cifar.training import ImageClassifier

BASE = {"model": ["--model", "ResidualCNN", "--model.widths", "[8]"], "data": ["--data", "DigitsDataModule"]}
WRONG = "wrong, whatever it is!"
VALID = {str: "val/loss", int: "1", float: "0.5", dict[int, int]: "{0: 1}"}
"""Values for the arguments that a callback cannot be built without, by their kinds."""


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> ArgumentParser:
    """The parser of ``fit``, built once for all calls of a test; no call begins to train."""
    build, kept = PetCifarCLI.setup_parser, dict[str, Any]()

    def keep(self: PetCifarCLI, *args: Any) -> None:
        if not kept:
            build(self, *args)
            kept.update(
                {key: vars(self)[key] for key in vars(self) if "parser" in key or key.startswith("_subcommand")}
            )
        vars(self).update(kept)

    monkeypatch.setattr(PetCifarCLI, "setup_parser", keep)
    monkeypatch.setattr(PetCifarCLI, "_run_subcommand", lambda self, subcommand: None)
    main(["fit", *BASE["model"], *BASE["data"]])
    found = kept["_subcommand_parsers"]["fit"]
    assert isinstance(found, ArgumentParser)
    return found


@pytest.fixture
def _no_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong option of a class is refused before there is a Trainer, which takes the most time."""
    monkeypatch.setattr(PetCifarCLI, "instantiate_trainer", lambda self, **kwargs: None)


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """The one line of a refusal; None where the words are taken."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main(["fit", *words])
        except SystemExit as stop:
            status = stop.code
        else:
            return None
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2, words
    assert len(lines) == 1, (words, lines)
    assert lines[0].startswith("pet-cifar: error: "), (words, lines)
    return lines[0]


def exists(name: str, parser: ArgumentParser, chosen: dict[str, type]) -> bool:
    """Whether the parser takes an option, which may be one of a chosen class."""
    if name in parser._option_string_actions:
        return True
    for path, cls in chosen.items():
        inner = ArgumentParser(exit_on_error=False)
        inner.add_class_arguments(cls, fail_untyped=False, sub_configs=True)
        argument = name.removeprefix(f"--{path}.")
        if argument == name:
            continue
        head, _, field = argument.partition(".")
        kinds = [kind for kind in classes_in(options_of_class(cls).get(head, Option(None)).kind) if is_dataclass(kind)]
        return f"--{argument}" in inner._option_string_actions or field in (
            f.name for kind in kinds for f in fields(kind)
        )
    return False


def wrong_values(option: Option) -> Iterator[tuple[str, bool]]:
    """Values that are wrong, and whether the parser itself must refuse them."""
    yield WRONG, not accepts(option.kind, WRONG)
    if any(kind in (int, float) for kind in alternatives(option.kind)):
        yield "-7", False


def check(
    path: str,
    option: Option,
    words: list[str],
    chosen: dict[str, type],
    parser: ArgumentParser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for value, refused in wrong_values(option):
        line = answer([*words, f"--{path}={value}"], capsys)
        assert line is not None or not refused, f"--{path}={value} was taken"
        if line is None:
            continue
        named = re.findall(r"(?<![\w-])--[a-z]\w*(?:\.\w+)*\+?", line.replace(value, ""))
        assert named, line
        assert not refused or named[0] == f"--{path}", line
        for name in named:
            assert exists(name, parser, chosen), line


def classes_and_options(base: type) -> Iterator[tuple[type, str, Option]]:
    """Each option of each class once, with those of its dataclasses; many classes share the options of their base."""
    seen = set()
    for cls in choices([base]):
        if cls.__module__.split(".")[0] not in ("pet_cifar", "lightning"):
            continue
        for name, option in options_of_class(cls).items():
            inner = [
                (f"{name}.{one.name}", Option(one.type))
                for kind in classes_in(option.kind)
                if is_dataclass(kind)
                for one in fields(kind)
            ]
            for path, own in [(name, option), *inner]:
                if (path, str(own.kind)) not in seen:
                    seen.add((path, str(own.kind)))
                    yield cls, path, own


@pytest.mark.usefixtures("_no_trainer")
def test_every_option_of_every_net(parser: ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    for cls, name, option in classes_and_options(ImageClassifier):
        words = [*BASE["data"], "--model", cls.__name__]
        check(f"model.{name}", option, words, {"model": cls}, parser, capsys)


@pytest.mark.usefixtures("_no_trainer")
def test_every_option_of_every_data_module(parser: ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    for cls, name, option in classes_and_options(ImageDataModule):
        words = [*BASE["model"], "--data", cls.__name__]
        check(f"data.{name}", option, words, {"data": cls}, parser, capsys)


@pytest.mark.usefixtures("_no_trainer")
def test_every_option_of_every_callback(parser: ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    for cls, name, option in classes_and_options(Callback):
        words = [*BASE["model"], *BASE["data"], "--trainer.callbacks+", cls.__name__]
        for other, needed in options_of_class(cls).items():
            if needed.required and other != name and needed.kind in VALID:
                words += [f"--trainer.callbacks.{other}", VALID[needed.kind]]
        check(f"trainer.callbacks.{name}", option, words, {"trainer.callbacks": cls}, parser, capsys)


def test_every_option_of_the_trainer(parser: ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    for path, option in options_of(parser).items():
        if path not in ("run", "ckpt_path"):  # These name files, and are looked at before anything is parsed.
            check(path, option, [*BASE["model"], *BASE["data"]], {}, parser, capsys)
