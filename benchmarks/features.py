"""Measures what it costs to compute the features of frozen layers once, and what that saves.

    python benchmarks/features.py --root data                  # every config with cache_features
    python benchmarks/features.py --root data --weights vgg16.safetensors configs/cats_dogs_vgg16_frozen.yaml

For each config, two things are measured in turn, ``--rounds`` times in one process on ``--pictures`` training
pictures: the bare forward pass of its frozen layers (a plain PyTorch loop over pictures that are ready, in batches of
the config's size, in the same precision and layout), and our whole pass, which reads the pictures, computes the
features and writes them. The table shows medians. Unless ``--pass-only`` is given, the config is then trained once with
nothing kept from before. The time of the first epoch, which waits for pictures and features, stands beside that of the
slowest later one. Last, a user's ``pet-cifar fit --test`` counts from the start of its process to its end, with nothing
but the data as it was downloaded.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import yaml
from lightning import Callback, Trainer, seed_everything
from report import CONFIGS, Measured, Report, parser, positive, run_or_explain, share

from pet_cifar import data as datamodules
from pet_cifar import models
from pet_cifar.data import ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.pixels.feature_cache import FeatureExtractor, store_features
from pet_cifar.hardware import Precision, keep_freed_memory, native_precision
from pet_cifar.training import ImageClassifier, TransferClassifier
from results import run


def keeps_features(config: Path) -> bool:
    """Whether a config trains on features that are computed once."""
    return bool(yaml.safe_load(config.read_text())["model"].get("init_args", {}).get("cache_features"))


def build_data(config: dict[str, Any], root: Path) -> ImageDataModule:
    """Makes the config's data module as the command line does."""
    options = dict(config["data"].get("init_args", {}))
    if options.get("augment"):
        options["augment"] = Augment(**options["augment"])
    data: ImageDataModule = getattr(datamodules, config["data"]["class_path"])(root=root, **options)
    return data


def build(config: dict[str, Any], root: Path, weights: str | None) -> tuple[ImageClassifier, ImageDataModule]:
    """Makes the config's net and data module as the command line does."""
    data = build_data(config, root)
    options = {**config["model"].get("init_args", {}), **({"weights": weights} if weights else {})}
    net = getattr(models, config["model"]["class_path"])(
        num_classes=data.num_classes, num_channels=data.num_channels, image_size=data.image_size, **options
    )
    return net, data


def rates(
    net: ImageClassifier, data: ImageDataModule, pictures: int, rounds: int, directory: Path, precision: Precision
) -> dict[str, Any]:
    """Measures the pictures per second of the bare forward pass and of our whole pass."""
    data.prepare_data()
    data.setup("fit")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert isinstance(net, TransferClassifier)
    freezing = net.to(device).eval().freezing

    def compute(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            picture = net.normalized(image.to(device))
            if precision == "bf16-mixed":
                picture = picture.contiguous(memory_format=torch.channels_last)
            return freezing.before(picture)

    pictures = min(pictures, len(data.splits["train"]))
    rows = np.arange(pictures)
    ready = [
        data.view("train", some, 0).to(device) for some in np.split(rows, rows[data.batch_size :: data.batch_size])
    ]
    compute(ready[0])
    pixels = data.pixels("train")
    found: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(rounds):
        start = time.perf_counter()
        for image in ready:
            features = compute(image)
        features.cpu()  # This waits for an accelerator.
        found["bare"].append(pictures / (time.perf_counter() - start))
        start = time.perf_counter()
        store_features(
            FeatureExtractor(compute, partial(str, number), 1, 100.0),
            lambda rows, view: pixels.take(rows),
            pictures,
            ["pictures"],
            directory=directory,
            split="train",
            batch_size=data.batch_size,
            prepare=lambda taken, rows, view: taken.to(device).float().div_(255),
        )
        found["ours"].append(pictures / (time.perf_counter() - start))
    return {name: Measured(values) for name, values in found.items()}


class EpochEnds(Callback):
    """Notes when each epoch ends; validation is part of it."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())


def fit(net: ImageClassifier, data: ImageDataModule, epochs: int, precision: Precision) -> dict[str, float]:
    """Measures the seconds of the first epoch, with all that comes before it, and of the slowest later one."""
    watch = EpochEnds()
    trainer = Trainer(
        max_epochs=epochs,
        precision=precision,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(net, data)
    seconds = np.diff(watch.ends).tolist()
    return {"first": seconds[0], **({"later": max(seconds[1:])} if seconds[1:] else {})}


def link(data: Path, root: Path) -> None:
    """Makes a folder of the data without the hidden one of what was kept from it."""
    for entry in data.resolve().glob("[!.]*"):
        (root / entry.name).symlink_to(entry)


def whole(config: Path, data: Path, weights: str | None, precision: Precision) -> float:
    """The seconds of ``pet-cifar fit`` and ``test``, each from the start of its process to its end."""
    options = ["--trainer.precision", precision, *(["--model.weights", weights] if weights else [])]
    with tempfile.TemporaryDirectory(prefix="pet_cifar_whole_") as temporary:
        link(data, Path(temporary))
        done = run(config, temporary, 0, options)
    return float(done["seconds"])


def main() -> None:
    """Prints a row for each config as soon as it is done."""
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", type=Path, default=list(filter(keeps_features, CONFIGS)))
    options.add_argument("--weights", help="a file of weights for all of these configs, for machines without a network")
    options.add_argument("--pictures", type=positive, default=256)
    options.add_argument("--rounds", type=positive, default=3)
    options.add_argument("--pass-only", action="store_true", help="do not train")
    options.add_argument(
        "--precision", choices=["auto", *get_args(Precision)], default="auto", help="auto follows the hardware"
    )
    arguments = options.parse_args()
    precision = native_precision() if arguments.precision == "auto" else arguments.precision
    keep_freed_memory()
    note = f"{precision}, {arguments.rounds} rounds of {arguments.pictures} pictures, medians (lowest to highest)"
    columns = [
        "config",
        "bare, pictures/s",
        "ours, pictures/s",
        "share",
        "to the end of epoch 0, s",
        "slowest later, s",
    ]
    report = Report([*columns, "times", "fit and test, s"], arguments, note)
    for path in arguments.configs:
        config = yaml.safe_load(path.read_text())
        with tempfile.TemporaryDirectory(prefix="pet_cifar_features_") as temporary:
            root = Path(temporary)
            link(arguments.root, root)
            seed_everything(0)
            parts = build(config, root, arguments.weights)
            found = rates(*parts, arguments.pictures, arguments.rounds, root / "rounds", precision)
            cells = [found["bare"], found["ours"], share(found["ours"], found["bare"]), "", "", "", ""]
            if not arguments.pass_only:
                epochs = config["trainer"]["max_epochs"]
                found |= fit(*build(config, root, arguments.weights), epochs, precision)
                found |= {"whole": whole(path, arguments.root, arguments.weights, precision)}
                # A config of one epoch has no later one.
                later = found.get("later")
                slowest = [f"{later:.2f}", f"{found['first'] / later:.0f}"] if later else ["", ""]
                cells[3:] = [f"{found['first']:.1f}", *slowest, f"{found['whole']:.1f}"]
            report.row(f"`{path.stem}`", cells, found)


if __name__ == "__main__":
    run_or_explain(main)
