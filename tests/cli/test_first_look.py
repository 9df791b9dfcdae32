"""What is refused before torch is imported."""

import json
import subprocess
import sys

import pytest

from pet_cifar.cli import kept_help
from pet_cifar.cli.main import main

COMMANDS = [
    ["fitt"],
    ["compare"],
    ["compare", "nowhere"],
    ["predict", "x.png", "--run", "nowhere"],
    ["test"],
    ["test", "--run", "nowhere"],
    ["validate", "--ckpt_path", "nowhere.ckpt"],
    ["fit", "--config", "nowhere"],
    ["fit", "--resume", "nowhere"],
    ["fit", "--ckpt_path", "https://example.org/x.ckpt"],
    ["fit", "--run", "nowhere"],
    ["repeat", "--config", "nowhere"],
    ["sweep"],
    ["draw", "--run", "nowhere"],
    ["exercise", "--mode", "slow"],
    ["export", "--format", "onnx", "--run", "nowhere"],
    ["board", "nowhere"],
    ["data", "chekc"],
    ["data", "check", "--config", "nowhere"],
]
PROGRAM = """
import contextlib, io, json, sys
from pet_cifar.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            main(words)
    except SystemExit as end:
        found.append([end.code, told.getvalue(), sorted({"torch", "lightning", "numpy"} & sys.modules.keys())])
print(json.dumps(found))
"""


def test_a_wrong_name_is_told_without_importing_torch() -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(COMMANDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for words, (status, told, imported) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        assert status == 2, words
        assert told.startswith("pet-cifar: error: "), words
        assert told.count("\n") == 1, words
        # A verb that misses its net, and a command that misses its file, have no word that is wrong.
        assert len(words) == 1 or any(word in told for word in words[1:]), words
        assert imported == [], words


HELP = """
import sys
from pet_cifar.cli.main import main
try:
    main(["fit", "--help"])
except SystemExit as end:
    print(end.code, sorted({"torch", "lightning"} & sys.modules.keys()), file=sys.stderr)
"""


def test_the_help_of_a_verb_is_made_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr(sys, "argv", ["-c"])  # The usage names the program.
    with pytest.raises(SystemExit) as end:
        main(["fit", "--help"])
    made = capsys.readouterr().out
    assert not end.value.code
    assert "--trainer.max_epochs" in made
    command = [sys.executable, "-c", HELP]
    kept = subprocess.run(command, check=True, capture_output=True, text=True)
    assert kept.stdout == made
    assert kept.stderr == "0 []\n"
    # Another width, or another version of a package, makes it anew.
    before = kept_help._key(["fit", "--help"])
    assert kept_help._key(["test", "--help"]) != before
    monkeypatch.setenv("COLUMNS", "91")
    assert kept_help._key(["fit", "--help"]) != before
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr(kept_help, "version", lambda name: "0.0")
    assert kept_help._key(["fit", "--help"]) != before
    # What a module of the user's may change is not kept.
    assert kept_help.is_kept(["fit", "-h"])
    assert not kept_help.is_kept(["fit", "--help", "--model", "mine.Net"])
    monkeypatch.setenv("PET_CIFAR_TRUST", "mine")
    assert not kept_help.is_kept(["fit", "--help"])
