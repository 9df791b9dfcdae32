"""Shows that the size of the batch bounds the memory, and not the size of the data.

    python benchmarks/memory.py --root data -- --model.weights vgg16.safetensors

It makes ``--pictures`` files out of the root's cats and dogs, which differ by a JPEG comment after their end. It checks
all of them, trains and tests a config on them for ``--steps`` steps, and prints the largest resident memory of each
command beside that of an idle one, which builds the net and stops. Options for all commands come after ``--``.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import yaml
from report import Report, parsed, parser, positive, resident, run_or_explain

CONFIG = Path(__file__).parents[1] / "configs" / "cats_dogs_vgg16_500px_frozen.yaml"


def make(root: Path, source: Path, pictures: int) -> None:
    """Writes ``root/PetImages`` with this many pictures, no two of which have the same content."""
    from pet_cifar.data import CatsDogsDataModule

    data = CatsDogsDataModule(source)
    data.prepare_data()
    data.setup("fit")
    for name in ("Cat", "Dog"):
        folder = root / "PetImages" / name
        folder.mkdir(parents=True)
        own = [one for split in data.splits.values() for one in split if one.label == name.lower()]
        for number in range(pictures // 2):
            content = (data.folder / own[number % len(own)].path).read_bytes()
            comment = f"picture {number}".encode()
            (folder / f"{number}.jpg").write_bytes(
                content + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            )


def measured(command: list[str]) -> tuple[float, float]:
    """Runs a command of ours; returns its seconds and its largest resident memory in 10^9 bytes."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pet_cifar", *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"pet-cifar {' '.join(command)} failed")
    return time.perf_counter() - start, resident(usage)


def main() -> None:
    """Prints a row for each command as soon as it is done."""
    options = parser(__doc__)
    options.add_argument("config", nargs="?", type=Path, default=CONFIG)
    options.add_argument("--pictures", type=positive, default=25_000)
    options.add_argument("--steps", type=positive, default=36, help="training steps; validation and test have a third")
    arguments, rest = parsed(options)
    note = f"{arguments.pictures:,} pictures; {arguments.config.stem}"
    with tempfile.TemporaryDirectory(prefix="pet_cifar_memory_") as temporary:
        root = Path(temporary)
        # The system counts the memory of this process as that of the processes that it starts, so another one makes the
        # pictures.
        making = partial(make, root, arguments.root, arguments.pictures)
        maker = multiprocessing.get_context("spawn").Process(target=run_or_explain, args=(making,))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(maker.exitcode)
        some = str(max(1, arguments.steps // 3))
        keeps = "cache_features" in yaml.safe_load(arguments.config.read_text())["model"].get("init_args", {})
        same = ["--data.root", str(root), *(["--model.cache_features", "false"] if keeps else []), *rest]
        fit = ["fit", "--config", str(arguments.config), *same]
        steps = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(arguments.steps)]
        run = f"lightning_logs/{arguments.config.stem}"
        listing = ["--output", str(root / "manifest.csv")]
        commands = {
            "idle": [*fit, "--print_model"],
            "check": ["data", "check", "--data", "CatsDogsDataModule", "--data.root", str(root), *listing],
            "fit": [*fit, *steps, "--trainer.limit_val_batches", some],
            "test": ["test", "--run", run, "--data.root", str(root), "--trainer.limit_test_batches", some],
        }
        report = Report(["command", "seconds", "resident at most, GB", "above idle, GB"], arguments, note)
        idle = None
        for name, command in commands.items():
            seconds, memory = measured(command)
            idle = memory if idle is None else idle
            cells = [f"{seconds:.0f}", f"{memory:.2f}", f"{memory - idle:+.2f}"]
            report.row(name, cells, {"seconds": seconds, "gigabytes": memory})


if __name__ == "__main__":
    run_or_explain(main)
