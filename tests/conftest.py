"""What tests share: tiny data in the real formats, made anew for each test, and a machine without a network."""

import functools
import os
import pickle
import shutil
import signal
import socket
import sys
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# This file imports nothing of the package above its functions: the process that hands out the tests reads it, too.
if TYPE_CHECKING:
    from lightning import Trainer
    from numpy.typing import NDArray

# The threads of one test would compete with those of the next for two cores. Torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts background jobs with Ctrl-C ignored, and nohup ignores a hang-up; what a test starts and ends by these
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore::UserWarning:torch.*")
"""Marks a test that compiles a net, of which torch's compiler warns by itself."""

HOME = Path(__file__).parents[1]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WITHOUT_LIGHTNING = f"""
import sys, types
for name in ("pet_cifar", "pet_cifar.data", "pet_cifar.data.files", "pet_cifar.data.pixels"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{str(HOME)!r} + "/" + name.replace(".", "/")]
"""
"""A child process that begins with these lines imports a module of pet_cifar.data without Lightning, in a second."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "localhost",
            "::1",
        ):
            raise OSError(f"a test may not connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture(autouse=True)
def _no_group_is_left() -> Iterator[None]:
    """What a run of several processes leaves in the environment would make the next one wait for its first."""
    names = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs land in the test's directory, and nothing is read from or written to the user's."""
    # To find a free number, pytest would look at the directories of all tests before this one.
    work = tmp_path.with_name(f"{tmp_path.name}_work")
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PET_CIFAR_DATA", raising=False)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _digits_are_scaled_once() -> Iterator[None]:
    """Keeps the digits that a test has scaled for the next one, because scaling takes half the time of a small run."""
    digits = sys.modules.get("pet_cifar.data.datasets.digits")
    if digits is None:
        yield
        return
    fit_array = digits.fit_array

    @functools.lru_cache(maxsize=8192)
    def scaled(pixels: bytes, shape: tuple[int, ...], size: int, channels: int) -> "NDArray[np.uint8]":
        picture: NDArray[np.uint8] = fit_array(np.frombuffer(pixels, np.uint8).reshape(shape), size, channels)
        return picture

    def fit_small_array(pixels: "NDArray[np.uint8]", size: int, channels: int) -> "NDArray[np.uint8]":
        if size > 32:
            return fit_array(pixels, size, channels)  # type: ignore[no-any-return]
        return scaled(pixels.tobytes(), pixels.shape, size, channels).copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "fit_array", fit_small_array)
        yield


def write_cats_dogs(root: Path, per_class: int = 20, size: int = 48) -> Path:
    """``root/PetImages`` as Microsoft lays it out: with an empty file, a Thumbs.db and a readme."""
    from pet_cifar.data.synthetic import write_pictures

    for label, name in enumerate(("Cat", "Dog")):
        folder = root / "PetImages" / name
        write_pictures(folder, 3 * label, per_class, size, suffix=".jpg")
        (folder / f"{per_class}.jpg").touch()
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 not a picture")
    (root / "readme[1].txt").write_text("a glob trap")
    return root


def write_cifar10_folders(root: Path, train: int = 12, test: int = 3) -> Path:
    """``root/cifar10/{train,test}/<class>/N.png``."""
    from pet_cifar.data.synthetic import write_pictures

    for split, count, first in (("train", train, 0), ("test", test, 1000)):
        for label, name in enumerate(CIFAR10):
            write_pictures(root / "cifar10" / split / name, label, count, 32, first=first)
    return root


def write_cifar10_batches(root: Path, per_class: int = 2) -> Path:
    """``root/cifar-10-batches-py`` with five training batches and a test batch, ``per_class`` pictures in each."""
    from pet_cifar.data.synthetic import synthetic_picture

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for batch in range(6):
        labels = [label for label in range(10) for _ in range(per_class)]
        pixels = [
            synthetic_picture(label, 100 * batch + number, 32).transpose(2, 0, 1).reshape(-1)
            for number, label in enumerate(labels)
        ]
        name = f"data_batch_{batch + 1}" if batch < 5 else "test_batch"
        content = {b"data": np.stack(pixels), b"labels": labels, b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"label_names": [name.encode() for name in CIFAR10], b"num_cases_per_batch": 10 * per_class}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return root


def quiet_trainer(**options: Any) -> "Trainer":
    """A Trainer on one CPU that says and writes nothing unless it is told to."""
    from lightning import Trainer

    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**defaults, **options})


def set_free_space(monkeypatch: pytest.MonkeyPatch, free: float | Callable[[], float]) -> None:
    """Makes every disk say that it has so many bytes free."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free() if callable(free) else free))


@pytest.fixture
def cats_dogs_root(tmp_path: Path) -> Path:
    return write_cats_dogs(tmp_path / "data")


@pytest.fixture
def cats_dogs_zip_root(tmp_path: Path) -> Path:
    source = write_cats_dogs(tmp_path / "source")
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "kagglecatsanddogs_5340.zip", "w") as archive:
        for file in sorted(source.rglob("*.*")):
            archive.write(file, file.relative_to(source))
    return root


@pytest.fixture
def cifar10_root(tmp_path: Path) -> Path:
    return write_cifar10_folders(tmp_path / "data")


@pytest.fixture
def cifar10_batches_root(tmp_path: Path) -> Path:
    return write_cifar10_batches(tmp_path / "data")


@pytest.fixture
def cifar10_archive_root(tmp_path: Path) -> Path:
    source = write_cifar10_batches(tmp_path / "source")
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    return root
