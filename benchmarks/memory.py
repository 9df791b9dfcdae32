"""Shows that memory is bounded by the batch, not by the data.

    python benchmarks/memory.py --root data -- --model.weights vgg16.safetensors

Makes ``--pictures`` files out of the root's cats and dogs, each distinct by a JPEG comment behind its end, checks all
of them, trains and tests a config on them for ``--steps`` steps, and prints the largest resident memory of each command
beside that of an idle one, which builds the net and stops. Further options for all commands come after ``--``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import hardware

from pet_cifar.data import CatsDogsDataModule

CONFIG = Path(__file__).parents[1] / "configs" / "cats_dogs_vgg16_500px_frozen.yaml"


def make(root: Path, source: Path, pictures: int) -> None:
    """``root/PetImages`` with as many pictures, all different by content."""
    data = CatsDogsDataModule(source)
    data.prepare_data()
    data.setup("fit")
    for name in ("Cat", "Dog"):
        folder = root / "PetImages" / name
        folder.mkdir(parents=True)
        own = [one for part in data.parts.values() for one in part if one.label == name.lower()]
        for number in range(pictures // 2):
            content = (data.folder / own[number % len(own)].path).read_bytes()
            comment = f"picture {number}".encode()
            (folder / f"{number}.jpg").write_bytes(
                content + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            )


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest resident memory in 10^9 bytes, of a command of ours."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pet_cifar", *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"pet-cifar {' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Prints one line a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--root", type=Path, default=Path("data"), help="where cats and dogs are")
    parser.add_argument("--pictures", type=int, default=25_000)
    parser.add_argument("--steps", type=int, default=36, help="of training; a third of them for validation and test")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    print(f"hardware: {hardware()}; {arguments.pictures:,} pictures; {arguments.config.stem}")
    with tempfile.TemporaryDirectory(prefix="pet_cifar_memory_") as temporary:
        root = Path(temporary)
        make(root, arguments.root, arguments.pictures)
        some = str(max(2, arguments.steps // 3))
        same = ["--data.root", str(root), "--model.cache_features", "false", *options]
        fit = ["fit", "--config", str(arguments.config), *same]
        steps = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(arguments.steps)]
        run = f"lightning_logs/{arguments.config.stem}"
        listing = ["--output", str(root / "manifest.csv")]
        results = {
            "idle": measured([*fit, "--print_model"]),
            "check": measured(["data", "check", "--data", "CatsDogsDataModule", "--data.root", str(root), *listing]),
            "fit": measured([*fit, *steps, "--trainer.limit_val_batches", some]),
            "test": measured(["test", "--run", run, "--data.root", str(root), "--trainer.limit_test_batches", some]),
        }
    idle = results["idle"][1]
    for name, (seconds, memory) in results.items():
        print(f"{name:6} {seconds:6.0f} s, {memory:.2f} GB resident at most, {memory - idle:+.2f} GB against idle")
    if arguments.output:
        arguments.output.write_text(json.dumps({"hardware": hardware(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
