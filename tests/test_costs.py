"""What a step and an epoch cost, in operations that repeat exactly; never in seconds."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import pet_cifar
from pet_cifar.cli.main import main
from pet_cifar.data import CatsDogsDataModule
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.near_duplicates import SIDE
from pet_cifar.training import loss_watch
from tests.conftest import write_cats_dogs

pytestmark = [
    # A run that ends within an epoch keeps no best checkpoint.
    pytest.mark.filterwarnings("ignore:.ModelCheckpoint"),
]

# This is one epoch of 28 steps, without validation in between.
FEW, MANY = 4, 14
# The loader has no threads, because what counts here sees only the thread that it was started in.
DIGITS = str(Path(__file__).parents[1] / "configs" / "digits_residual.yaml")
RUN = ("fit", "--config", DIGITS, "--data.num_workers", "0")


def fit(steps: int, *options: str) -> None:
    """The command line with all its default loggers and callbacks."""
    main([*RUN, "--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps), "--data.batch_size", "50", *options])


def each_step(count: Callable[[int], Counter[str]]) -> dict[str, float]:
    """What more steps add, divided by their number."""
    few, many = count(FEW), count(MANY)
    return {name: (many[name] - few[name]) / (MANY - FEW) for name in many if many[name] != few[name]}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation of torch by name, and the tensors that it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in tree_iter([args, kwargs]) if isinstance(one, Tensor)}
        for one in tree_iter(result):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in given:
                self.made["tensors"] += 1
                self.made["bytes"] += one.nbytes
        return result


# These wait for the device: a value that Python asks for, a shape that follows from values,
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "bincount", "is_nonzero", "equal.default")
# and a copy to the host, or of Python's numbers from it, which on the CPU is no operation.
COPIES = ("cpu", "numpy", "tolist", "new_tensor")


def operations(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What a run does: torch's operations and those copies, by name."""
    copies: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def copy(self: Tensor, *arguments: Any, **options: Any) -> Any:
            copies[name] += 1
            return original(self, *arguments, **options)

        return copy

    def tensor(*arguments: Any, **options: Any) -> Tensor:
        if options.get("device") is not None:
            copies["tensor"] += 1
        return made(*arguments, **options)

    made = torch.tensor
    with monkeypatch.context() as patched, Operations() as mode:
        for name in COPIES:
            patched.setattr(Tensor, name, counted(name))
        patched.setattr(torch, "tensor", tensor)
        run()
    counts: Counter[str] = mode.counts
    return counts + copies


def waiting(counts: Mapping[str, float]) -> dict[str, float]:
    """What of it waits for the device."""
    copies = (*COPIES, "tensor")
    return {name: counts[name] for name in counts if name in copies or any(word in name for word in WAITING)}


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of every step is read at once on the CPU alone, where that costs nothing."""
    monkeypatch.setattr(loss_watch, "READ_AT_ONCE", ())


# An epoch of few steps and small pictures costs as many operations at its end as a long one.
SHORT = ("--trainer.limit_train_batches", "3", "--data.image_size", "16")
# TensorBoard's pictures have their own budget.
UNDRAWN = ("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0")


def test_a_batch_of_validation_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(batches: int) -> Counter[str]:
        options = ["--data.batch_size", "10", "--trainer.limit_val_batches", str(batches), "--trainer.max_epochs", "1"]
        return operations(lambda: main([*RUN, *options, *SHORT, *UNDRAWN]), monkeypatch)

    few, many = count(4), count(14)
    assert few["cpu"] > 0
    # The calibration error of torchmetrics asks whether it was given logits, on the CPU alone.
    assert waiting(many - few) == {"aten._local_scalar_dense.default": 10}


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_an_epoch_copies_to_the_host_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(epochs: int) -> Counter[str]:
        options = ["--data.batch_size", "50", "--trainer.max_epochs", str(epochs)]
        return operations(lambda: main([*RUN, *options, *SHORT, *UNDRAWN]), monkeypatch)

    few, many = count(2), count(4)
    an_epoch = waiting({name: (many[name] - few[name]) / 2 for name in many if many[name] != few[name]})
    # Python may read what is on the host already as often as it likes.
    an_epoch.pop("aten._local_scalar_dense.default")
    # These are the metrics of each stage, the scores that pictures share, and the losses of the last steps.
    assert an_epoch == {"cpu": 6}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--model.optimizer", "adamw", "--model.label_smoothing", "0.1"),
        ("--data.augment", '{"flip": "alternating", "translate": 1, "cutout": 2, "brightness": 0.1}'),
        ("--data.augment", '{"saturation": 0.1, "contrast": 0.1, "crop": 0.9}', "--data.image_size", "16"),
    ],
)
@pytest.mark.usefixtures("_as_on_a_gpu")
def test_no_step_waits_for_the_device(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    done = each_step(lambda steps: operations(lambda: fit(steps, *options), monkeypatch))
    assert done["aten.convolution_backward.default"] >= 1
    assert waiting(done) == {}
    # The pictures become floats, and the numbers of an augmentation become places.
    assert done["aten._to_copy.default"] <= 4


def test_a_step_calls_little_python() -> None:
    ours = str(Path(pet_cifar.__file__).parent)

    def count(steps: int) -> Counter[str]:
        calls: Counter[str] = Counter()

        def note(frame: Any, event: str, argument: Any) -> None:
            if event == "call":
                calls["pet_cifar" if frame.f_code.co_filename.startswith(ours) else "libraries"] += 1

        sys.setprofile(note)
        try:
            fit(steps)
        finally:
            sys.setprofile(None)
        return calls

    # What is imported, and found, at the first run of a process is no cost of a step.
    fit(FEW)
    calls = each_step(count)
    assert calls["pet_cifar"] < 60
    # Most of it is Lightning, which asks every callback at every hook.
    assert calls["libraries"] < 5500


def test_a_step_allocates_little() -> None:
    def count(steps: int) -> Counter[str]:
        with Operations() as mode:
            fit(steps)
        made: Counter[str] = mode.made
        return made

    made = each_step(count)
    # 19 layers with their gradients, loss, metrics and the optimizer's step
    assert 0 < made["tensors"] <= 180
    # 41 MB when this was written, with torch 2.15
    assert made["bytes"] < 45e6


def test_pictures_are_decoded_once_for_all_runs_and_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cats_dogs(tmp_path / "data")
    decoded: dict[int, Counter[str]] = defaultdict(Counter)
    read = CatsDogsDataModule.read

    def counted(self: CatsDogsDataModule, picture: ImageRecord) -> NDArray[np.uint8]:
        decoded[self.image_size][picture.path] += 1
        return read(self, picture)

    monkeypatch.setattr(CatsDogsDataModule, "read", counted)
    config = str(Path(__file__).parents[1] / "configs" / "cats_dogs_cnn.yaml")
    options = ["--data.root", str(root), "--data.image_size", "40", "--data.images_per_class", "null"]
    for _ in range(2):
        main(["fit", "--config", config, "--trainer.max_epochs", "3", *options])
    assert set(decoded) == {40, SIDE}
    for_the_net, for_near_duplicates = decoded[40], decoded[SIDE]
    assert set(for_the_net.values()) == {1}
    assert len(for_the_net) == 40 - 4  # the test split waits for a test
    # Near duplicates are looked for among all pictures, before they are divided.
    assert set(for_near_duplicates.values()) == {1}
    assert len(for_near_duplicates) == 40


STARTED = """
import json, sys
import torch, lightning.pytorch
before = set(sys.modules)
from lightning import Callback
from pet_cifar.cli.main import main
class Stop(Callback):
    def on_train_batch_end(self, *arguments):
        print(json.dumps(sorted(sys.modules.keys() - before)), flush=True)
        raise SystemExit
main(["fit", "--config", sys.argv[1], "--data.num_workers", "0"], callbacks=[Stop()])
"""
# jsonargparse reads the options, tensorboard and protobuf (google) write the events; these import the last line.
NEEDED = {
    *("pet_cifar", "lightning", "torch", "torchmetrics", "jsonargparse", "tensorboard", "google", "tqdm"),
    *("filelock", "platformdirs", "safetensors", "scipy", "PIL", "yaml"),
    *("absl", "docstring_parser", "typeshed_client", "psutil", "attr", "attrs", "fsspec"),
}


def test_a_run_imports_no_more_than_it_uses(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTED, DIGITS]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if line.startswith("["))
    modules: list[str] = json.loads(line)
    packages = {name.partition(".")[0] for name in modules}
    packages -= sys.stdlib_module_names
    assert {name for name in packages if name[0] != "_"} <= NEEDED
    # It was 1,098 with scikit-learn, and pandas with it.
    assert len(modules) < 550
