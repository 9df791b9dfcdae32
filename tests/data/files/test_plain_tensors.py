"""A file of torch takes no more memory than it has bytes, whatever it claims."""

import io
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from pet_cifar.data.files.plain_tensors import read_tensors
from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import read_weights
from pet_cifar.runs.continuation import is_finished
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
    if way.startswith("bytes"):
        forged = {"state_dict": {}, "x": _ManyBytes()}
        torch.save(forged, path, _use_new_zipfile_serialization=way == "bytes in a part")
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
    if way == "two lists of parts":
        large = {name: bytes(4 * CLAIMED) if name.endswith("data/0") else content for name, content in parts.items()}
        small = {name: content + bytes(CLAIMED // 200) for name, content in parts.items()}
        path.write_bytes(with_two_lists(zipped(large, zipfile.ZIP_DEFLATED), zipped(small)))
        return
    path.write_bytes(zipped(parts, zipfile.ZIP_DEFLATED if way == "compressed" else zipfile.ZIP_STORED))


class _ManyBytes:
    """Is saved as the call that makes as many bytes."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (4 * CLAIMED,)


def zipped(parts: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_two_lists(large: bytes, small: bytes) -> bytes:
    """A zip file in which torch finds the parts of the one, by the place of their list, and Python those of the other.

    Python finds a list from the end of the file.
    """
    (length, place), (length_of_large, place_of_large) = (struct.unpack("<II", one[-10:-2]) for one in (small, large))
    assert length == length_of_large
    assert place > place_of_large
    names = large[place_of_large : place_of_large + length]
    return large[:place_of_large] + bytes(place - place_of_large) + names + small


@pytest.mark.parametrize(
    "way",
    ["one number for all", "compressed", "wrong sizes", "two lists of parts", "bytes in a part", "bytes"],
)
def test_a_file_that_claims_more_than_it_holds_takes_no_memory(way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    forge(way, path)
    assert path.stat().st_size < 10**7
    before = peak()
    with pytest.raises(Exception, match=r"bytes|list of parts"):
        read_tensors(path)
    for read in (lambda: read_checkpoint(path), lambda: read_weights(str(path), "none")):
        with pytest.raises(InputError, match=r"a\.ckpt cannot be read"):
            read()
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    path.rename(run / "checkpoints" / "last.ckpt")
    assert not is_finished(run)
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
