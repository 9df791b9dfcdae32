"""What a run that was killed and gone on with is compared by, and the runs that are killed."""

from pathlib import Path

import torch

from pet_cifar.callbacks import drawing_time, last_checkpoint
from tests.cli.kills import events_of, rows_of

NAME = Path("lightning_logs") / "digits_residual"
RUN = NAME / "version_0"
LAST, PREVIOUS = RUN / "checkpoints" / "last.ckpt", RUN / "checkpoints" / "previous.ckpt"
BEST, BEST_BEFORE = RUN / "checkpoints" / "best.ckpt", RUN / "checkpoints" / "best_before.ckpt"
WITHOUT_PICTURES = ["--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"]
FIT = [
    *("fit", "--config", "digits_residual", "--model.widths", "[4]", "--data.batch_size", "200"),
    *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2"),
]
RESUME = ["fit", "--resume", str(RUN)]
WAYS = {
    "pictures": ["--trainer.callbacks+", "Embeddings"],
    "epochs": WITHOUT_PICTURES,
    "steps": [*WITHOUT_PICTURES, "--trainer.max_epochs", "-1", "--trainer.max_steps", "14"],
    "validations": [
        *WITHOUT_PICTURES,
        *("--trainer.val_check_interval", "3", "--trainer.accumulate_grad_batches", "2"),
    ],
}


def draw_and_save_at_every_epoch() -> None:
    """Makes runs the same whatever time they take: every drawing is affordable, and every epoch saves."""
    drawing_time.LARGEST_SHARE = float("inf")
    last_checkpoint.SECONDS_BETWEEN_EPOCHS = 0.0


def nothing() -> None:
    """Changes nothing."""


def save_at_every_step() -> None:
    """Lets the time after which a run is saved within an epoch be over at once."""
    times = iter(range(0, 10**9, 1000))
    last_checkpoint.LARGEST_SHARE = float("inf")
    vars(last_checkpoint)["monotonic"] = lambda: next(times)


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
    return found


def names_of(run: Path) -> set[str]:
    """The names of all files but TensorBoard's events, of which each start has its own."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if ".tfevents." not in path.name}


def differences(run: Path, other: Path) -> list[str]:
    """What is not the same in two runs: values once each, pictures, files, and weights bit by bit."""
    found = []
    if rows_of(run) != rows_of(other):
        found.append("metrics.csv")
    ours, theirs = events_of(run), events_of(other)
    if [event[:2] for event in ours] != [event[:2] for event in theirs]:
        found.append("the tags and steps of TensorBoard's events")
    else:
        found += [f"the event {a[:2]}" for a, b in zip(ours, theirs, strict=True) if a != b]
    found += sorted(f"the file {name}" for name in names_of(run) ^ names_of(other))
    for name in ("last.ckpt", "best.ckpt"):
        mine, others = weights(run, name), weights(other, name)
        found += [f"{key} in {name}" for key in others if key not in mine or not torch.equal(mine[key], others[key])]
    return found


def assert_same(run: Path, other: Path) -> None:
    assert differences(run, other) == []
