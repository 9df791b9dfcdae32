"""The original Keras exercise that this project grew from, written anew; our figures are compared with its.

    make keras                                                        # its own virtual environment, once
    .venv-keras/bin/python benchmarks/keras_baseline.py cats_dogs --root data --epochs 1
    .venv-keras/bin/python benchmarks/keras_baseline.py cifar10 --root data --until 73.6 --max-seconds 3000

Like the exercise's notebook, it reads all pictures into one float array before anything else, and calls ``model.fit``.
It prints a row after every epoch: seconds since the program started, pictures per second, validation and test accuracy.
``--until`` stops at a test accuracy, and ``--max-seconds`` stops in the middle of an epoch. ``root`` holds
``PetImages/{Cat,Dog}`` or a ``kagglecatsanddogs_*.zip``, and ``cifar10/{train,test}/<class>`` or
``cifar-10-batches-py``.
"""

import argparse
import io
import json
import os
import pickle
import platform
import random
import resource
import statistics
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

START = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    import keras
except ModuleNotFoundError:
    raise SystemExit("Keras is not here; run `make keras`, then .venv-keras/bin/python with this program") from None
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

Data = tuple[np.ndarray, np.ndarray]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cats_dogs(root: Path, limit: int) -> tuple[Data, Data, Data]:
    """Loads gray pictures of 200 x 200; a tenth of them tests, and a tenth of the rest validates."""
    archive = next(root.glob("kagglecatsanddogs_*.zip"), None)
    zipped = None if (root / "PetImages").is_dir() or archive is None else zipfile.ZipFile(archive)
    pictures, labels = [], []
    for label, name in enumerate(("Cat", "Dog")):
        taken = 0
        for number in range(12500):
            if taken == limit:
                break
            path = f"PetImages/{name}/{number}.jpg"
            try:
                data = zipped.read(path) if zipped else (root / path).read_bytes()
                picture = Image.open(io.BytesIO(data)).convert("RGB").convert("L").resize((200, 200))
            except (KeyError, OSError):  # Missing and unreadable files are left out, as in the exercise.
                continue
            pictures.append(np.asarray(picture))
            labels.append(label)
            taken += 1
    x = np.array(pictures, dtype="float32").reshape(-1, 200, 200, 1) / 255.0
    y = np.array(labels)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.1, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.1, random_state=0)
    return (x, y), (x_val, y_val), (x_test, y_test)


def cifar10(root: Path, limit: int) -> tuple[Data, Data, Data]:
    """Loads color pictures of 32 x 32; a tenth of the training pictures validates."""
    splits = {}
    for split in ("train", "test"):
        if (root / "cifar10").is_dir():
            files = [
                (path, label)
                for label, name in enumerate(CIFAR10)
                for path in sorted((root / "cifar10" / split / name).iterdir())[:limit]
            ]
            x = np.array([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
            y = np.array([label for _, label in files])
        else:
            names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
            # These are the official files. Unpickling can run code, so whoever does not trust them uses the folders.
            batches = [
                pickle.loads((root / "cifar-10-batches-py" / name).read_bytes(), encoding="bytes") for name in names
            ]
            x = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            y = np.concatenate([batch[b"labels"] for batch in batches])
        splits[split] = x.astype("float32") / 255.0, y
    (x, y), test = splits["train"], splits["test"]
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.1, random_state=0)
    return (x, y), (x_val, y_val), test


def cats_dogs_net() -> keras.Model:
    """Builds the small CNN of 4,737,473 parameters."""
    return keras.Sequential(
        [
            keras.Input((200, 200, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def cifar10_net() -> keras.Model:
    """Builds the plain CNN of 1,442,954 parameters."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


class Rows(keras.callbacks.Callback):
    """Prints and keeps a row for each epoch, and stops when a limit is reached."""

    def __init__(self, test: Data, batch_size: int, until: float, max_seconds: float) -> None:
        super().__init__()
        self.test, self.batch_size = test, batch_size
        self.until, self.max_seconds = until / 100, max_seconds
        self.rows: list[dict[str, float]] = []
        self.steps: list[float] = []
        self.start = self.step = self.testing = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock of an epoch."""
        self.start = self.step = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes how long the step took, and stops when the time is over."""
        now = time.perf_counter()
        self.steps.append(now - self.step)
        self.step = now
        if now - START - self.testing > self.max_seconds:
            # By itself Keras only stops at the end of an epoch.
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tests the net; the time that this takes does not count."""
        now = time.perf_counter()
        seconds = now - START - self.testing
        _, accuracy = self.model.evaluate(*self.test, verbose=0, batch_size=256)
        self.testing += time.perf_counter() - now
        row = {
            "epoch": epoch + 1,
            "seconds": seconds,
            "pictures_per_second": self.batch_size / statistics.median(self.steps),
            "val_accuracy": 100 * logs["val_accuracy"],
            "test_accuracy": 100 * accuracy,
        }
        self.steps = []
        self.rows.append(row)
        print("| " + " | ".join(f"{value:.1f}" for value in row.values()) + " |", flush=True)
        if accuracy >= self.until:
            self.model.stop_training = True


def main() -> None:
    """Loads the pictures, trains the net and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["cats_dogs", "cifar10"])
    parser.add_argument("--root", type=Path, default=Path("data"), help="where the data is")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=0, help="0 for 32 (cats_dogs) and 64 (cifar10)")
    parser.add_argument("--limit", type=int, default=0, help="pictures a class; 0 for 2,000 (cats_dogs) and all")
    parser.add_argument("--until", type=float, default=101.0, help="test accuracy in percent to stop at")
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="seconds after which to stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("keras_baseline.json"), help="a JSON file for all figures")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    keras.utils.set_random_seed(arguments.seed)
    animals = arguments.experiment == "cats_dogs"
    start = time.perf_counter()
    load, net = (cats_dogs, cats_dogs_net()) if animals else (cifar10, cifar10_net())
    train, val, test = load(arguments.root, arguments.limit or (2000 if animals else 10**6))
    loaded = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    batch_size = arguments.batch_size or (32 if animals else 64)
    loss = "binary_crossentropy" if animals else "sparse_categorical_crossentropy"
    net.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    versions = f"Keras {keras.__version__} on {keras.backend.backend()}, Python {platform.python_version()}"
    print(f"{versions}, {os.cpu_count()} cores; {net.count_params():,} parameters, batches of {batch_size}")
    print(f"loaded {len(train[0]) + len(val[0]) + len(test[0]):,} pictures in {loaded:.1f} s, {memory:.2f} GB resident")
    print("| epoch | seconds since start | pictures/s | validation, % | test, % |\n| --- | --- | --- | --- | --- |")
    rows = Rows(test, batch_size, arguments.until, arguments.max_seconds)
    stopped, seconds = False, 0.0
    try:
        net.fit(
            *train,
            batch_size=batch_size,
            epochs=arguments.epochs,
            validation_data=val,
            callbacks=[rows],
            verbose=0,
        )
    except KeyboardInterrupt:
        stopped = True
        rate = batch_size / statistics.median(rows.steps) if rows.steps else float("nan")
        seconds = time.perf_counter() - START - rows.testing
        print(f"stopped after {seconds:.0f} s; {rate:.1f} pictures/s in the last, unfinished epoch")
    found = {
        "versions": versions,
        "cores": os.cpu_count(),
        "experiment": arguments.experiment,
        "load_seconds": loaded,
        "load_gigabytes": memory,
        "pictures": len(train[0]),
        "batch_size": batch_size,
        "rows": rows.rows,
        "unfinished": {"seconds": seconds, "steps": rows.steps} if stopped else None,
    }
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
