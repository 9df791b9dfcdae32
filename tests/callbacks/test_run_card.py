import shlex
import subprocess
from pathlib import Path

import torch
from lightning import seed_everything

from pet_cifar.callbacks import RunCard
from pet_cifar.callbacks.images.base import escape
from pet_cifar.callbacks.run_card import wrap_command
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.models import CatsDogsCNN
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, run, small


def test_a_long_command_is_wrapped_so_that_a_shell_takes_it() -> None:
    command = "pet-cifar fit --config 'a file --with spaces.yaml' " + " ".join(
        f"--model.option_{number} value" for number in range(9)
    )
    lines = wrap_command(command).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < 120
    assert shlex.split("".join(line.removesuffix("\\") for line in lines)) == shlex.split(command)
    assert wrap_command("pet-cifar fit") == "pet-cifar fit"


def test_the_run_card_says_what_the_run_was() -> None:
    seed_everything(7)
    model = small(lr=0.0123)
    _, directory = run(model, digits(), [RunCard(command="pet-cifar fit --seed_everything 7")])
    events = Events(directory)
    assert "    pet-cifar fit --seed_everything 7" in events.text("run/command")
    assert "lr: 0.0123" in events.text("run/config")
    card = events.text("run/data")
    assert "| all | 1437 | 180 | 180 |" in card
    assert "no file was left out" in card
    assert "backbone.0" in events.text("run/net")
    environment = events.text("run/environment")
    assert f"| torch | {torch.__version__} |" in environment
    assert "| seed | 7 |" in environment
    here = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(here, capture_output=True, text=True, check=False).stdout.strip()
    assert (f"git {commit[:12]}" if commit else "not from a git checkout") in environment


def test_the_run_card_names_bad_files(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8)
    _, directory = run(CatsDogsCNN(image_size=40), data, [RunCard()])
    assert "Cat/20.jpg" in Events(directory).text("run/data")


def test_names_are_shown_as_they_are() -> None:
    assert escape("__a__|*b*.jpg") == r"\_\_a\_\_\|\*b\*.jpg"
    assert escape("Cat/20.jpg") == "Cat/20.jpg"
