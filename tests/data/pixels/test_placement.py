"""Where decoded pictures are kept, by the room there is."""

from pathlib import Path

import pytest
import torch

from pet_cifar.data.pixels import placement
from pet_cifar.data.pixels.placement import Placement, choose_placement, missing_bytes
from pet_cifar.hardware import available_memory
from tests.conftest import set_free_space

GB = 10**9


@pytest.mark.parametrize(
    ("needed", "missing", "disk", "memory", "expected"),
    [
        (GB, GB, 2.1 * GB, 9 * GB, "disk"),
        (GB, GB, 2 * GB, 9 * GB, "ram"),
        (GB, GB, 1.01 * GB, 9 * GB, "ram"),
        (GB, GB, 1.01 * GB, 1.9 * GB, "none"),
        (9 * GB, 0, 1, 1, "disk"),
        (18 * GB, 18 * GB, 30 * GB, GB, "disk"),
    ],
)
def test_auto_takes_what_there_is_room_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    needed: int,
    missing: int,
    disk: float,
    memory: float,
    expected: Placement,
) -> None:
    set_free_space(monkeypatch, disk)
    monkeypatch.setattr(placement, "available_memory", lambda: memory)
    placement_found, why = choose_placement(needed, missing, tmp_path, torch.device("cpu"))
    assert placement_found == expected
    assert f"{needed / 1e9:.2f} GB of decoded pictures" in why


@pytest.mark.parametrize(("free", "expected"), [(4 * GB, "device"), (3.9 * GB, "disk")])
def test_auto_takes_the_device_where_it_has_four_times_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, expected: Placement
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    assert choose_placement(GB, 0, tmp_path, torch.device("cuda"))[0] == expected


def test_available_memory_is_a_plausible_number() -> None:
    assert 10**8 < available_memory() < 10**14


def test_each_process_has_pictures_in_memory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_space(monkeypatch, 0)
    monkeypatch.setattr(placement, "available_memory", lambda: 5 * GB)
    places = [choose_placement(GB, GB, tmp_path, torch.device("cpu"), processes)[0] for processes in (1, 2, 3)]
    assert places == ["ram", "ram", "none"]


def test_what_another_process_is_writing_is_not_asked_for_again(tmp_path: Path) -> None:
    file = tmp_path / "train.npy"
    assert missing_bytes(file, 10**6) == 10**6
    (tmp_path / "train.npy.part").write_bytes(bytes(4096) + b"x" * 400_000)
    assert 500_000 < missing_bytes(file, 10**6) < 700_000
    file.touch()
    assert missing_bytes(file, 10**6) == 0
