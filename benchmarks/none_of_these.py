"""Measures how well a net on kept features refuses pictures of none of its classes: cats and dogs against all else.

    python benchmarks/none_of_these.py --root data --weights tf_efficientnet_lite0.safetensors --cifar10 data
    python benchmarks/none_of_these.py --root data --weights tf_efficientnet_lite0.safetensors --folder photographs

A head is solved on EfficientNet-Lite0's features of cats and dogs as ``cats_dogs_linear`` does it, and the checkpoint
of this run is asked. The first table shows how many of the test pictures are refused, and how many of each kind of
foreign pictures: digits, noise, scikit-learn's two photographs in pieces; with ``--cifar10`` the test pictures of
CIFAR-10, enlarged; and with ``--folder`` the pictures below each folder that is named, those with cat or dog in their
path left out and other mammals apart.

Enlarged pictures are blurred, and a net may refuse them for that alone. So the table also has cats and dogs that are
shrunk to 32 x 32 and enlarged again, and those of CIFAR-10: they are of the classes, and should be accepted. A last row
tells how well the distance alone, whatever the threshold, tells CIFAR-10's other classes from its cats and dogs.

The second table compares methods, each with its own threshold, in ``--splits`` random divisions of all cats and dogs.
"""

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from report import Measured, Report, parser, positive, run_or_explain
from sklearn.covariance import ledoit_wolf
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule
from pet_cifar.data.files.walk import walk
from pet_cifar.data.pixels.decode import DecodeError, decode, fit_array
from pet_cifar.models import TimmClassifier
from pet_cifar.training import ClosedFormHead
from pet_cifar.training.outliers import OutlierDetector
from pet_cifar.training.ridge import fit_ridge, wilson_interval

SIDE = 200
FRACTION = 0.04
MOST = 400
"""The pictures of each kind, at most."""
Pictures = Iterator[NDArray[np.uint8]]
Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]


def main() -> None:
    """Measures and prints one kind of pictures after the other, and then one method after the other."""
    options = parser(__doc__)
    options.add_argument("--weights", default="timm", help="weights of EfficientNet-Lite0: timm, or a file")
    options.add_argument("--cifar10", type=Path, help="the root of CIFAR-10")
    options.add_argument("--folder", type=Path, action="append", default=[], help="a folder of foreign pictures")
    options.add_argument("--splits", type=positive, default=10, help="how many divisions compare the methods")
    arguments = options.parse_args()
    columns = ("pictures", "refused", "95 % interval")
    report = Report(columns, arguments, f"{SIDE} x {SIDE}, outlier_fraction {FRACTION}")
    data = CatsDogsDataModule(arguments.root, images_per_class=2000, grayscale=False, image_size=SIDE, batch_size=32)
    net = trained(data, arguments.weights, report)
    compute = net.feature_extractor(torch.device("cpu")).compute
    labels = np.concatenate([data.labels(split) for split in data.splits])
    data.keep_features(net.feature_extractor())
    own = [features for split in data.splits for _, features in data.features(split).chunks()]
    foreign: dict[str, Tensor] = {}
    shrunk = (enlarged(image) for image in data.pixels("test").take(np.arange(len(data.splits["test"]))).numpy())
    of_the_classes: list[tuple[str, Pictures]] = [("cats and dogs of the test, at 32 x 32 and enlarged", shrunk)]
    if arguments.cifar10:
        of_the_classes.append(("CIFAR-10, cats and dogs", cifar10(arguments.cifar10, ("cat", "dog"))))
    for name, pictures in of_the_classes:
        of_cifar10 = features_of(compute, pictures)
        measure(report, net, name, of_cifar10)
    for name, pictures in foreign_pictures(arguments.cifar10, arguments.folder):
        features = features_of(compute, pictures)
        if len(features):
            measure(report, net, name, features)
            foreign[name] = features
    if arguments.cifar10:
        rank(report, net, of_cifar10, torch.cat([one for name, one in foreign.items() if name.startswith("CIFAR-10")]))
    compare(report, torch.cat(own), labels, torch.cat([*foreign.values()]), arguments.splits)


def trained(data: CatsDogsDataModule, weights: str, report: Report) -> TimmClassifier:
    """Solves the head and tests it; returns the net that the checkpoint holds."""
    net = TimmClassifier(
        *(2, 3, SIDE, "tf_efficientnet_lite0"),
        weights=weights,
        freeze_until="all",
        cache_features=True,
        outlier_fraction=FRACTION,
        schedule="constant",
        warmup_fraction=0.0,
        lr=0.0,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[ClosedFormHead()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, data)
    (found,) = trainer.test(net, data, verbose=False)
    count = len(data.splits["test"])
    refused = count - round(count * found["test/coverage"])
    add(report, "cats and dogs of the test", refused, count)
    wrong = round(found["test/selective_risk"] * (count - refused))
    report.row(
        "the net errs on",
        (f"{wrong} of the {count - refused} that are left", f"{round(count * (1 - found['test/acc']))} of {count}"),
        found,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(f"{folder}/last.ckpt")
        return TimmClassifier.load_from_checkpoint(f"{folder}/last.ckpt", map_location="cpu", weights_only=True).eval()


def features_of(compute: Callable[[Tensor], Tensor], pictures: Pictures) -> Tensor:
    """The features of pictures, shape (n, F), rounded as kept features are."""
    kept = list(pictures)
    batches = (torch.from_numpy(np.stack(kept[start : start + 32])) for start in range(0, len(kept), 32))
    return torch.cat([torch.empty(0), *(compute(batch.float() / 255).half() for batch in batches)])


def measure(report: Report, net: TimmClassifier, name: str, features: Tensor) -> None:
    """Adds a row about some pictures."""
    scores = net.detect_outliers(features)
    assert scores is not None, "the run has validation pictures"
    add(report, name, int(scores.is_outlier.sum()), len(features))


def rank(report: Report, net: TimmClassifier, of_the_classes: Tensor, others: Tensor) -> None:
    """Adds a row: how often the distance of one of the others is larger than that of a picture of the classes."""
    near, far = (net.detect_outliers(features) for features in (of_the_classes, others))
    assert near is not None
    assert far is not None
    truth = np.repeat([0, 1], [len(of_the_classes), len(others)])
    area = float(roc_auc_score(truth, torch.cat([near.distance, far.distance]).numpy()))
    report.row("CIFAR-10, others against cats and dogs", (f"AUROC {100 * area:.1f} %", ""), {"auroc": area})


def add(report: Report, name: str, refused: int, count: int) -> None:
    """Adds a row: how many of some pictures are refused."""
    low, high = wilson_interval(refused, count)
    cells = (f"{refused} of {count} ({100 * refused / count:.1f} %)", f"{100 * low:.1f} to {100 * high:.1f} %")
    report.row(name, cells, {"refused": refused, "count": count})


# The pictures, each uint8 of shape (3, 200, 200)


def foreign_pictures(root: Path | None, folders: list[Path]) -> Iterator[tuple[str, Pictures]]:
    """The kinds of foreign pictures."""
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
    if root:
        names = [name for name in CIFAR10DataModule(root).class_names if name not in ("cat", "dog")]
        yield from ((f"CIFAR-10, {name}", cifar10(root, (name,))) for name in names)
    for folder in folders:
        paths = [path for path in walk(folder) if not re.search("cat|dog|chelsea", path, re.IGNORECASE)]
        mammals = [path for path in paths if "mammal" in path.lower()]
        yield folder.name, decoded(folder, [path for path in paths if path not in mammals])
        yield f"{folder.name}, mammals", decoded(folder, mammals)


def cifar10(root: Path, names: tuple[str, ...]) -> Pictures:
    """CIFAR-10's test pictures of some classes, enlarged."""
    data = CIFAR10DataModule(root, image_size=SIDE)
    data.setup("test")
    for name in names:
        own = [record for record in data.splits["test"] if record.label == name][:MOST]
        yield from (data.read(record) for record in own)


def enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as it is after CIFAR-10's resolution."""
    return fit_array(np.ascontiguousarray(fit_array(image.transpose(1, 2, 0), 32, 3).transpose(1, 2, 0)), SIDE, 3)


def decoded(folder: Path, paths: list[str]) -> Pictures:
    """The files that are pictures."""
    for path in paths:
        try:
            yield decode((folder / path).read_bytes(), SIDE, 3)
        except DecodeError:
            continue


# The methods: each makes of training features and labels a score that is higher for foreign pictures


def ours(features: Floats, labels: NDArray[np.int64]) -> Score:
    """What a run learns."""
    detector = OutlierDetector(2, features.shape[1:])
    inputs = torch.from_numpy(features).float()
    detector.fit([(inputs, torch.from_numpy(labels))], [inputs], FRACTION)
    return lambda new: detector.distance(torch.from_numpy(new)).double().numpy()


def gaussian(means: list[Floats], differences: Floats) -> Score:
    """The squared distance to the nearest mean, under the covariance of Ledoit and Wolf."""
    precision = np.linalg.inv(ledoit_wolf(differences, assume_centered=True)[0])
    return lambda new: np.asarray(np.min([((new - mean) @ precision * (new - mean)).sum(1) for mean in means], axis=0))


def mahalanobis(features: Floats, labels: NDArray[np.int64]) -> Score:
    """Lee et al., arXiv 1807.03888."""
    means = [features[labels == label].mean(0) for label in (0, 1)]
    return gaussian(means, features - np.stack(means)[labels])


def relative_mahalanobis(features: Floats, labels: NDArray[np.int64]) -> Score:
    """Ren et al., arXiv 2106.09022: less the distance to the mean of all pictures."""
    mean = features.mean(0)
    near, far = mahalanobis(features, labels), gaussian([mean], features - mean)
    return lambda new: near(new) - far(new)


def neighbors(features: Floats, labels: NDArray[np.int64]) -> Score:
    """Sun et al., arXiv 2204.06507: the distance to the tenth nearest training picture."""

    def score(new: Floats) -> Floats:
        squares = (new**2).sum(1)[:, None] - 2 * new @ features.T + (features**2).sum(1)
        return np.asarray(np.partition(squares, 9, axis=1)[:, 9])

    return score


def residual(features: Floats, labels: NDArray[np.int64]) -> Score:
    """The part of ViM (Wang et al., arXiv 2203.10807) that looks at features: what 256 principal directions lack."""
    mean = features.mean(0)
    directions = np.linalg.eigh(np.cov(features.T))[1][:, -256:]
    return lambda new: np.asarray(((new - mean) ** 2).sum(1) - (((new - mean) @ directions) ** 2).sum(1))


def confidence(features: Floats, labels: NDArray[np.int64]) -> Score:
    """Hendrycks and Gimpel, arXiv 1610.02136: how uncertain the solved head is."""
    head = fit_ridge(features, labels, 2)
    return lambda new: -np.abs(np.diff(new @ head.weight.T + head.bias, axis=1)[:, 0])


METHODS: dict[str, tuple[Callable[[Floats, NDArray[np.int64]], Score], bool]] = {
    "ours": (ours, False),
    "Mahalanobis, Ledoit-Wolf": (mahalanobis, False),
    "Mahalanobis, Ledoit-Wolf, unit length": (mahalanobis, True),
    "relative Mahalanobis, unit length": (relative_mahalanobis, True),
    "10th nearest neighbor": (neighbors, False),
    "10th nearest neighbor, unit length": (neighbors, True),
    "residual of 256 directions, unit length": (residual, True),
    "confidence of the head": (confidence, False),
}
"""Each method, and whether it gets features of length 1."""


def compare(report: Report, own: Tensor, labels: NDArray[np.int64], foreign: Tensor, splits: int) -> None:
    """Prints for each method how many pictures it refuses, in the mean of all divisions, lowest to highest."""
    print("\n| method | cats and dogs refused, % | foreign pictures refused, % |\n| --- | --- | --- |")
    for name, (method, unit) in METHODS.items():
        pets, others = (one.double().numpy() for one in (own, foreign))
        if unit:
            pets, others = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (pets, others))
        shares: list[tuple[float, float]] = []
        for seed in range(splits):
            test, val, train = np.split(np.random.default_rng(seed).permutation(len(pets)), (400, 760))
            score = method(pets[train], labels[train])
            known = np.sort(score(pets[val]))
            threshold = known[math.ceil((len(known) + 1) * (1 - FRACTION)) - 1]
            shares.append((100 * (score(pets[test]) > threshold).mean(), 100 * (score(others) > threshold).mean()))
        refused, found = (Measured(column) for column in zip(*shares, strict=True))
        report.row(name, (refused, found), {"cats and dogs": refused, "foreign": found})


if __name__ == "__main__":
    run_or_explain(main)
