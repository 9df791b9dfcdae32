"""Measures ``pet-cifar predict`` on files beside ``test`` on the same files, in pictures a second.

    python benchmarks/predict.py --root data

Both decode every picture anew, in threads, and compute on what there is. The start of the program does not count. The
nets are untrained, which changes no speed. ``predict`` should reach nine tenths of ``test``.
"""

import time
from typing import Any

import torch
from lightning import Callback, Trainer
from report import Measured, Report, parser, positive, run_or_explain, share

from pet_cifar.data import CatsDogsDataModule
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.models import CatsDogsCNN, TimmClassifier
from pet_cifar.runs.sources import Source
from pet_cifar.runs.stream import predict_sources
from pet_cifar.training import ImageClassifier


class Clock(Callback):
    """Notes how long the test loop takes."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0

    def on_test_start(self, *_: Any) -> None:
        """Starts."""
        self.began = time.perf_counter()

    def on_test_end(self, *_: Any) -> None:
        """Stops."""
        self.seconds = time.perf_counter() - self.began


def main() -> None:
    """Measures and prints everything."""
    options = parser(__doc__)
    options.add_argument("--pictures", type=positive, default=800, help="How many pictures are asked.")
    options.add_argument("--rounds", type=positive, default=3, help="How many times each is measured, in turn.")
    arguments = options.parse_args()
    report = Report(("net", "predict", "test", "predict of test"), arguments, f"{arguments.pictures} pictures")
    keep_freed_memory()
    nets: dict[str, tuple[ImageClassifier, bool]] = {
        "CatsDogsCNN": (CatsDogsCNN(), True),
        "EfficientNet-Lite0": (TimmClassifier(name="tf_efficientnet_lite0", weights="none", image_size=200), False),
    }
    for name, (net, grayscale) in nets.items():
        data = CatsDogsDataModule(arguments.root, grayscale=grayscale, cache="none", test_fraction=0.5)
        data.prepare_data()
        data.setup("test")
        data.splits["test"] = data.splits["test"][: arguments.pictures]
        count = len(data.splits["test"])
        tested: list[float] = []
        predicted: list[float] = []
        for _ in range(arguments.rounds):
            tested.append(count / test_seconds(net, data))
            predicted.append(count / predict_seconds(net, data))
        ours, limit = Measured(predicted), Measured(tested)
        report.row(name, (ours, limit, share(ours, limit)), {"predict": ours, "test": limit})


def test_seconds(net: ImageClassifier, data: CatsDogsDataModule) -> float:
    """The seconds of a test, with the decoding of its pictures."""
    clock = Clock()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(callbacks=[clock], enable_checkpointing=False, **quiet).test(net, data, verbose=False)
    return clock.seconds


def predict_seconds(net: ImageClassifier, data: CatsDogsDataModule) -> float:
    """The seconds of a prediction of the same files."""
    paths = [data.folder / record.path for record in data.splits["test"]]
    sources = [Source(str(path), path) for path in paths]
    net.eval()
    began = time.perf_counter()
    with torch.inference_mode():
        found = list(predict_sources(net, sources))
    assert all(row.prediction is not None for row in found)
    return time.perf_counter() - began


if __name__ == "__main__":
    run_or_explain(main)
