"""What is refused before torch is imported."""

import json
import subprocess
import sys

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
        assert len(words) == 1 or words[-1] in told, words
        assert imported == [], words
