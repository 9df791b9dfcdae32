"""Short runs on digits, and refusals."""

import pytest

from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI

QUICK = [
    *("--config", "digits_residual", "--trainer.max_epochs", "1"),
    *("--model.widths", "[8]", "--trainer.limit_train_batches", "4"),
]


def fit(*options: str) -> PetCifarCLI:
    """The finished command of a run of one short epoch."""
    cli = main(["fit", *QUICK, *options])
    assert cli is not None
    return cli


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The line that a wrong command is answered with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("pet-cifar: error: ")
    assert sum(line.startswith("pet-cifar: ") for line in lines) == 1
    return lines[-1]


def status_of(*words: object) -> int:
    """Runs a command, and gives its exit status."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(str(end.code))
    return 0
