"""Measures pretrained backbones on cats and dogs: how right a head is that is solved on their features, and how soon.

    python benchmarks/backbones.py --root data tf_efficientnet_lite0=lite0.safetensors tf_efficientnet_lite2=lite2.pth

For each backbone, a name of timm's and a file of weights, the pictures are decoded before. The features of all of them
are then computed with nothing kept, and a linear head is solved in closed form. The table shows the accuracy of all
pictures, each scored by a head that has not seen it, with its 95 % interval, and the seconds of the features and of the
head.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from report import Report, parser, run_or_explain

from pet_cifar.data import CatsDogsDataModule
from pet_cifar.doctor.features import features_of, prepare_for_net
from pet_cifar.errors import InputError
from pet_cifar.training.ridge import fit_ridge, wilson_interval


def main() -> None:
    """Measures and prints one backbone after the other."""
    options = parser(__doc__)
    options.add_argument("backbones", nargs="+", metavar="NAME=FILE", help="a net of timm's and its weights, or timm")
    options.add_argument("--image-size", type=int, default=200, help="the side of the pictures in pixels")
    arguments = options.parse_args()
    for word in arguments.backbones:
        if "=" not in word:
            raise InputError(f"{word}: give NAME=FILE, such as tf_efficientnet_lite0=timm")
    size = arguments.image_size
    report = Report(
        ("backbone", "right of all left out", "95 % interval", "features, s", "pictures/s", "head, s"),
        arguments,
        f"images_per_class 2000, {size} x {size}, float32",
    )
    for word in arguments.backbones:
        name, _, weights = word.partition("=")
        with tempfile.TemporaryDirectory(prefix="pet_cifar_backbones_") as temporary:
            root = Path(temporary)
            for entry in arguments.root.resolve().glob("[!.]*"):  # The hidden folder of what was kept is left out.
                (root / entry.name).symlink_to(entry)
            data = CatsDogsDataModule(root, images_per_class=2000, grayscale=False, image_size=size, cache="ram")
            prepare_for_net(data)
            data.setup("fit")
            for split in data.splits:
                data.pixels(split)
            start = time.perf_counter()
            features = features_of(data, name, weights)
            computed = time.perf_counter() - start
        labels = np.concatenate([data.labels(split) for split in data.splits])
        start = time.perf_counter()
        right = int((fit_ridge(features, labels, 2).left_out.argmax(1) == labels).sum())
        solved = time.perf_counter() - start
        low, high = wilson_interval(right, len(labels))
        report.row(
            f"{name}, {features.shape[1]:,} features",
            (
                f"{100 * right / len(labels):.2f} % ({len(labels) - right} of {len(labels):,} wrong)",
                f"{100 * low:.2f} to {100 * high:.2f} %",
                f"{computed:.0f}",
                f"{len(labels) / computed:.0f}",
                f"{solved:.1f}",
            ),
            {"right": right, "count": len(labels), "seconds": computed, "solved": solved},
        )


if __name__ == "__main__":
    run_or_explain(main)
