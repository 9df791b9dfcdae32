"""Disks that are really full: nothing hangs, one line ends the command, and room lets it go on.

Each test mounts a disk in memory of a few megabytes, which only root may do.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pet_cifar.errors import InputError
from pet_cifar.runs.directory import read_checkpoint
from tests.cli.kills import apart
from tests.conftest import HOME, write_cats_dogs

pytestmark = [
    pytest.mark.torture,
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may mount a disk"),
]

MB = 1 << 20
FIT = [
    *("fit", "--config", "digits_residual", "--model.widths", "[32, 64]", "--data.batch_size", "200"),
    *("--trainer.max_epochs", "2", "--trainer.callbacks+", "Embeddings"),
]


class Disk:
    """A disk in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, megabytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(self.path)], check=True)

    def fill(self, left: int) -> Path:
        """Leaves so many bytes free."""
        ballast = self.path / "ballast"
        status = os.statvfs(self.path)
        with ballast.open("wb") as file:
            file.write(bytes(max(0, status.f_bavail * status.f_frsize - left)))
        return ballast


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], check=False)
    if done.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


def note_the_first_failure() -> None:
    """Lets a file say when it was first found that something cannot be written."""
    own = InputError.__init__
    noted = Path("failed")
    noted.unlink(missing_ok=True)

    def init(self: InputError, *words: object) -> None:
        if not noted.exists():
            noted.touch()
        own(self, *words)

    # The class is changed in the new process alone.
    type.__setattr__(InputError, "__init__", init)


def ended(words: Sequence[str]) -> tuple[int, str]:
    """The status of a command and what it has printed; one that fails does so at once and in one line."""
    status, said = apart(words, before=note_the_first_failure)
    seconds = time.time() - Path("failed").stat().st_mtime if Path("failed").exists() else 0.0
    assert status in (0, 2), said
    if status == 2:
        lines = said.strip().splitlines()
        assert sum(line.startswith("pet-cifar: error:") for line in lines) == 1, said
        assert "Traceback" not in said
        assert "No space left on device" in lines[-1] or "are free" in lines[-1] or "bytes free" in lines[-1], lines[-1]
        assert seconds < 10
        print(f"ended {seconds:.1f} s after the first write that failed: {lines[-1]}")
    return status, said


@pytest.mark.parametrize("megabytes", range(2, 9))
def test_a_run_on_a_small_disk(megabytes: int, disk: Disk) -> None:
    disk.resize(megabytes)
    words = [*FIT, "--trainer.default_root_dir", str(disk.path)]
    status, _ = ended(words)
    runs = list(disk.path.glob("lightning_logs/digits_residual/version_0"))
    last = [run / "checkpoints" / "last.ckpt" for run in runs]
    kept = [file for file in last if file.is_file()]
    print(f"{megabytes} MB: status {status}, last.ckpt {'is there' if kept else 'is not there'}")
    for file in kept:
        read_checkpoint(file)
    disk.resize(64)
    again = ["fit", "--resume", str(runs[0])] if kept else words
    assert ended(again)[0] == 0
    assert ended(["test", "--run", str(runs[0] if runs else disk.path / "lightning_logs/digits_residual")])[0] == 0


@pytest.mark.parametrize("left", [0, 8_000, 64_000, 256_000])
def test_data_on_a_small_disk(left: int, disk: Disk) -> None:
    root = write_cats_dogs(disk.path / "data", per_class=60)
    words = [
        *("fit", "--data", "CatsDogsDataModule", "--data.root", str(root), "--data.image_size", "64"),
        *("--data.cache", "disk", "--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "1"),
    ]
    ballast = disk.fill(left)
    status, _ = ended(words)
    assert status == 2
    assert not list(root.rglob("*.part"))
    ballast.unlink()
    assert ended(words)[0] == 0


COMMANDS = {
    "test": ["test", "--run", "RUN"],
    "validate": ["validate", "--run", "RUN"],
    "predict": ["predict", "--run", "RUN", "PICTURES", "--output", "DISK/table.csv"],
    "compare": ["compare", "RUN", "RUN", "--output", "DISK/report.html"],
    "draw": ["draw", "--run", "RUN"],
    "export": ["export", "--run", "RUN", "--output", "DISK/net.onnx"],
    "safetensors": ["export", "--run", "RUN", "--format", "safetensors", "--output", "DISK/net.safetensors"],
    "check": ["data", "check", "--data", "CatsDogsDataModule", "--data.root", "DATA", "--output", "DISK/list.csv"],
    "doctor": ["data", "doctor", "--data", "CatsDogsDataModule", "--data.root", "DATA", "--output", "DISK/page"],
}


@pytest.mark.parametrize("left", [0, 4096, 32_768])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_full_disk(name: str, left: int, disk: Disk, tmp_path: Path) -> None:
    assert apart([*FIT[:-2], "--trainer.max_epochs", "1", "--trainer.default_root_dir", str(disk.path)])[0] == 0
    run = disk.path / "lightning_logs/digits_residual/version_0"
    if name == "compare":  # It compares tests.
        assert apart(["test", "--run", str(run)])[0] == 0
    data = write_cats_dogs(tmp_path / "data")
    places = {
        "RUN": str(run),
        "PICTURES": str(data / "PetImages/Cat/0.jpg"),
        "DATA": str(data),
    }
    words = [places.get(word, word.replace("DISK", str(disk.path))) for word in COMMANDS[name]]
    ballast = disk.fill(left)
    before = sorted(disk.path.rglob("*"))
    status, said = apart(words)
    print(status, said.strip().splitlines()[-1:])
    assert "Traceback" not in said
    assert status in (0, 1, 2)
    if status == 2:
        assert sum(line.startswith("pet-cifar: error:") for line in said.splitlines()) == 1
    assert not [path for path in disk.path.rglob("*.part") if path not in before]
    ballast.unlink()
    if name in ("draw", "compare", "doctor"):
        words = [*words, "--output", str(disk.path / ("again.html" if name == "compare" else "again"))]
    assert apart(words)[0] in ((0, 1, 3) if name == "compare" else (0, 1) if name == "draw" else (0,))


def test_the_marker_is_left_out_by_make_test() -> None:
    assert "not torture" in (HOME / "Makefile").read_text()
