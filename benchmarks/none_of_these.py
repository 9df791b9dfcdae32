"""Measures how well a net on kept features refuses pictures of none of its classes: cats and dogs against all else.

    python benchmarks/none_of_these.py --root data --weights tf_efficientnet_lite0.safetensors --cifar10 data
    python benchmarks/none_of_these.py --root data --weights tf_efficientnet_lite0.safetensors --folder photographs

EfficientNet-Lite0's features of cats and dogs are learned as a run learns them, with the threshold on its validation
pictures. The table shows how many of the test pictures are refused, and how many of each kind of foreign pictures:
digits, noise, two photographs of scikit-learn's in pieces; with ``--cifar10`` the test pictures of CIFAR-10's other
eight classes, enlarged; and with ``--folder`` the pictures below each folder that is named, but those with cat, dog or
mammal in their path.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from report import Report, parser, run_or_explain
from sklearn.datasets import load_digits, load_sample_images

from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule
from pet_cifar.data.files.walk import walk
from pet_cifar.data.pixels.decode import DecodeError, decode, fit_array
from pet_cifar.doctor.features import features_of, prepare_for_net
from pet_cifar.models import TimmClassifier
from pet_cifar.training.outliers import OutlierDetector
from pet_cifar.training.ridge import wilson_interval

SIDE = 200
FRACTION = 0.04
MOST = 400
"""The pictures of each kind, at most."""
Pictures = Iterator[NDArray[np.uint8]]


def main() -> None:
    """Measures and prints one kind of pictures after the other."""
    options = parser(__doc__)
    options.add_argument("--weights", default="timm", help="weights of EfficientNet-Lite0: timm, or a file")
    options.add_argument("--cifar10", type=Path, help="the root of CIFAR-10")
    options.add_argument("--folder", type=Path, action="append", default=[], help="a folder of foreign pictures")
    arguments = options.parse_args()
    report = Report(
        ("pictures", "refused", "95 % interval"), arguments, f"{SIDE} x {SIDE}, outlier_fraction {FRACTION}"
    )
    data = CatsDogsDataModule(arguments.root, images_per_class=2000, grayscale=False, image_size=SIDE)
    prepare_for_net(data)
    data.setup("fit")
    features = features_of(data, "tf_efficientnet_lite0", arguments.weights)
    train, val, test = np.split(features, np.cumsum([len(own) for own in data.splits.values()])[:2])
    detector = OutlierDetector(2, features.shape[1])
    detector.fit(train, data.labels("train"), val, FRACTION)
    add(report, "cats and dogs of the test", detector(torch.from_numpy(test)))
    net = TimmClassifier(image_size=SIDE, weights=arguments.weights, freeze_until="all", cache_features=True).eval()
    compute = net.feature_extractor(torch.device("cpu")).compute
    for name, pictures in foreign(arguments.cifar10, arguments.folder):
        kept = list(pictures)
        refused = [
            detector(compute(torch.from_numpy(np.stack(kept[start : start + 32])).float() / 255))
            for start in range(0, len(kept), 32)
        ]
        if refused:
            add(report, name, torch.cat(refused))


def add(report: Report, name: str, refused: torch.Tensor) -> None:
    """Adds a row: how many of some pictures are refused."""
    count, found = len(refused), int(refused.sum())
    low, high = wilson_interval(found, count)
    cells = (f"{found} of {count} ({100 * found / count:.1f} %)", f"{100 * low:.1f} to {100 * high:.1f} %")
    report.row(name, cells, {"refused": found, "count": count})


def foreign(cifar10: Path | None, folders: Sequence[Path]) -> Iterator[tuple[str, Pictures]]:
    """The kinds of foreign pictures, each uint8 of shape (3, 200, 200)."""
    digits = (np.rint(one * (255 / 16)).astype(np.uint8) for one in load_digits().images[:MOST])
    yield "handwritten digits", (fit_array(one, SIDE, 3) for one in digits)
    rng = np.random.default_rng(0)
    yield "noise, pixel by pixel", (rng.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8) for _ in range(50))
    patches = (rng.integers(0, 256, (3, 10, 10)).astype(np.uint8) for _ in range(50))
    yield "noise in patches", (np.kron(one, np.ones((1, SIDE // 10, SIDE // 10), np.uint8)) for one in patches)
    pieces = (
        whole[y : y + 200, x : x + 200]
        for whole in load_sample_images().images
        for y in range(0, 227, 75)
        for x in range(0, 440, 80)
    )
    yield "pieces of a temple and of a flower", (fit_array(np.ascontiguousarray(one), SIDE, 3) for one in pieces)
    if cifar10:
        data = CIFAR10DataModule(cifar10, image_size=SIDE)
        data.setup("test")
        for name in data.class_names:
            if name not in ("cat", "dog"):
                own = [record for record in data.splits["test"] if record.label == name][:MOST]
                yield f"CIFAR-10, {name}", (data.read(record) for record in own)
    for folder in folders:
        yield str(folder.name), pictures_below(folder)


def pictures_below(folder: Path) -> Pictures:
    """The pictures below a folder that show no cat, dog or other mammal by their path."""
    paths = [path for path in walk(folder) if not re.search("cat|dog|mammal|chelsea", path, re.IGNORECASE)]
    for path in paths:
        try:
            yield decode((folder / path).read_bytes(), SIDE, 3)
        except DecodeError:
            continue


if __name__ == "__main__":
    run_or_explain(main)
