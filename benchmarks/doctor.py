"""Measures what ``pet-cifar data doctor`` finds of what is planted, and how long it takes.

    python benchmarks/doctor.py --root data --weights tf_efficientnet_lite0.safetensors    # cats and dogs
    python benchmarks/doctor.py --root data --weights tf_efficientnet_lite0.safetensors --cifar10 data

Near duplicates: of ``--copies`` cats and dogs a copy is added that is re-encoded, resized to 70 %, cropped by 2 % at
each side or mirrored; the table shows the share that is found, and the share of the others that is accused. With
``--cifar10`` it counts CIFAR-10's test pictures that show the same as a training picture; Barz and Denzler (ciFAIR,
arXiv 1902.00423) published 3.3 %. Wrong labels: a share of the labels is made wrong in ``--rounds`` ways; the table
shows how many of the first suspects are wrong until 95 % of the wrong ones are found, and how often the interval of the
share covers the truth. The features are computed before.
"""

import time
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report import Measured, Report, parser, positive, run_or_explain

from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule, leakage
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.near_duplicates import SIDE, near_duplicates
from pet_cifar.data.pixels.decode import decode
from pet_cifar.doctor.features import features_of, prepare_for_net
from pet_cifar.doctor.label_errors import find_label_errors
from pet_cifar.training.ridge import wilson_interval

SHARES = (0.005, 0.02, 0.05)
"""The shares of the labels that are made wrong."""
WRONG = ("Cat/1085.jpg", "Dog/1333.jpg")
"""The pictures of the first 2,000 of each class whose labels are wrong from the beginning: they were looked at."""


def main() -> None:
    """Measures and prints everything."""
    options = parser(__doc__)
    options.add_argument("--weights", default="timm", help="Weights of EfficientNet-Lite0: timm, or a file.")
    options.add_argument(
        "--cifar10", type=Path, help="The root of CIFAR-10, where its near duplicates are counted too."
    )
    options.add_argument("--copies", type=positive, default=200, help="How many copies are planted.")
    options.add_argument("--rounds", type=positive, default=200, help="In how many ways labels are made wrong.")
    arguments = options.parse_args()
    report = Report(("what", "found", "beside it", "seconds"), arguments, "images_per_class 2000")
    data = CatsDogsDataModule(arguments.root, images_per_class=2000, grayscale=False)
    prepare_for_net(data)
    data.prepare_data()
    data.setup("fit")
    records = [record for own in data.splits.values() for record in own]
    measure_near_duplicates(report, data, records, arguments.copies)
    measure_wrong_labels(
        report, data, records, features_of(data, "tf_efficientnet_lite0", arguments.weights), arguments.rounds
    )
    if arguments.cifar10:
        count_in_cifar10(report, arguments.cifar10)


def copy_of(file: Path, number: int) -> NDArray[np.uint8]:
    """A changed copy of a picture, as the search reads it; the number decides the change."""
    picture = Image.open(file).convert("RGB")
    width, height = picture.size
    x, y = round(0.02 * width), round(0.02 * height)
    quality = 90
    if number % 4 == 0:
        quality = 40
    elif number % 4 == 1:
        picture = picture.resize((round(0.7 * width), round(0.7 * height)), Image.Resampling.LANCZOS)
    elif number % 4 == 2:
        picture = picture.crop((x, y, width - x, height - y))
    else:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return decode(stream.getvalue(), SIDE, 3)


def measure_near_duplicates(report: Report, data: ImageDataModule, records: list[ImageRecord], copies: int) -> None:
    """Counts the planted copies that are found, and the other pictures that are accused."""
    start = time.perf_counter()
    small = leakage.small_pictures(records, leakage.at_small_size(data))
    read = time.perf_counter() - start
    rows = np.random.default_rng(0).choice(len(records), copies, replace=False)
    planted = np.stack([copy_of(data.folder / records[row].path, number) for number, row in enumerate(rows)])
    start = time.perf_counter()
    pairs = near_duplicates(np.concatenate([small, planted]))
    seconds = time.perf_counter() - start
    ends = {(pair.first, pair.second) for pair in pairs}
    found = sum((row, len(records) + number) in ends for number, row in enumerate(rows.tolist()))
    others = {row for pair in ends for row in pair if row < len(records)} - set(rows.tolist())
    low, high = wilson_interval(found, copies)
    report.row(
        f"near duplicates: {copies} copies among {len(records):,}",
        (
            f"{100 * found / copies:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
            f"{len(others)} others accused ({100 * len(others) / len(records):.2f} %)",
            f"{seconds:.1f}, and {read:.1f} to read",
        ),
        {"copies": copies, "found": found, "others": sorted(records[row].path for row in others), "seconds": seconds},
    )


def measure_wrong_labels(
    report: Report, data: ImageDataModule, records: list[ImageRecord], features: NDArray[np.float32], rounds: int
) -> None:
    """Counts the wrong labels among the first suspects, and how often the interval covers their share."""
    labels = np.concatenate([data.labels(split) for split in data.splits])
    known = np.array([record.path in WRONG for record in records])
    rng = np.random.default_rng(0)
    for share in SHARES:
        precisions, covered, widths, seconds = [], [], [], []
        for _ in range(rounds):
            wrong = known.copy()
            changed = labels.copy()
            rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
            changed[rows] = 1 - changed[rows]
            wrong[rows] ^= True
            start = time.perf_counter()
            found = find_label_errors(features, changed, 2)
            seconds.append(time.perf_counter() - start)
            hits = np.cumsum(wrong[np.argsort(found.margin)])
            needed = int(np.searchsorted(hits, 0.95 * wrong.sum())) + 1
            precisions.append(float(hits[needed - 1]) / needed)
            covered.append(bool(found.low <= wrong.mean() <= found.high))
            widths.append(100 * (found.high - found.low))
        enough = np.mean(np.array(precisions) >= 0.8)
        report.row(
            f"wrong labels: {100 * share:g} % planted, {rounds} ways",
            (
                f"95 % of them at precision {100 * np.mean(precisions):.1f} % ({100 * min(precisions):.0f} to "
                f"{100 * max(precisions):.0f}; 80 % or more in {100 * enough:.0f} % of the ways)",
                f"interval covers in {100 * np.mean(covered):.1f} %, {np.mean(widths):.2f} points wide",
                Measured(seconds),
            ),
            {"share": share, "precisions": precisions, "covered": covered, "widths": widths, "seconds": seconds},
        )


def count_in_cifar10(report: Report, root: Path) -> None:
    """Counts the test pictures that show the same as a training or validation picture."""
    data = CIFAR10DataModule(root)
    data.prepare_data()
    data.setup("fit")
    start = time.perf_counter()
    records = [record for own in data.splits.values() for record in own]
    pairs = near_duplicates(leakage.small_pictures(records, leakage.at_small_size(data)))
    seconds = time.perf_counter() - start
    first = len(records) - len(data.splits["test"])
    test = {pair.second for pair in pairs if pair.first < first <= pair.second}
    report.row(
        "CIFAR-10: test pictures like a training picture",
        (
            f"{len(test)} of {len(data.splits['test']):,}",
            f"{100 * len(test) / len(data.splits['test']):.2f} %",
            f"{seconds:.0f}",
        ),
        {"test": len(test), "pairs": len(pairs), "seconds": seconds},
    )


if __name__ == "__main__":
    run_or_explain(main)
