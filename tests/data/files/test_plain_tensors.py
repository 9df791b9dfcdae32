"""A file of torch takes no more memory than it has bytes, whatever it claims."""

import resource
import zipfile
from pathlib import Path

import pytest
import torch

from pet_cifar.data.files.plain_tensors import read_tensors
from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import read_weights
from pet_cifar.runs.directory import read_checkpoint

CLAIMED = 10**8
"""The numbers that a file claims, which would take 400 MB."""
FOUR, MANY = b"q\x08K\x04t", b"q\x08J" + CLAIMED.to_bytes(4, "little") + b"t"
SHAPE, LONG = b"K\x00K\x04\x85", b"K\x00J" + CLAIMED.to_bytes(4, "little") + b"\x85"
"""How the pickle of four numbers tells their count and their shape, and how that of many does."""


def peak() -> int:
    """The largest memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def forge(way: str, path: Path) -> None:
    """Writes a small file that claims many numbers."""
    if way == "one number for all":
        torch.save({"state_dict": {"weight": torch.zeros(1).expand(CLAIMED)}}, path)
        return
    torch.save({"state_dict": {"weight": torch.zeros(4)}}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    for name, content in parts.items():
        if name.endswith("data.pkl"):
            assert FOUR in content
            assert SHAPE in content
            parts[name] = content.replace(FOUR, MANY).replace(SHAPE, LONG)
        elif name.endswith("data/0") and way == "compressed":
            parts[name] = bytes(4 * CLAIMED)
    kind = zipfile.ZIP_DEFLATED if way == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("way", ["one number for all", "compressed", "wrong sizes"])
def test_a_file_that_claims_more_than_it_holds_takes_no_memory(way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    forge(way, path)
    assert path.stat().st_size < 10**6
    before = peak()
    with pytest.raises(Exception, match="bytes"):
        read_tensors(path)
    for read in (lambda: read_checkpoint(path), lambda: read_weights(str(path), "none")):
        with pytest.raises(InputError, match=r"a\.ckpt cannot be read"):
            read()
    assert peak() - before < 100


@pytest.mark.parametrize("is_new", [True, False])
def test_what_was_saved_is_read(is_new: bool, tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    # Of two views of the same numbers each is smaller than what they share.
    content = {"a": shared[:4], "b": [shared[2:].view(2, 2).t(), {"c": 3}], "empty": torch.zeros(0)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=is_new)
    found = read_tensors(tmp_path / "a.pt")
    assert torch.equal(found["a"], content["a"])  # type: ignore[arg-type]
    assert torch.equal(found["b"][0], torch.tensor([[2.0, 4.0], [3.0, 5.0]]))
    assert found["b"][1] == {"c": 3}
