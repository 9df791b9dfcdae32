"""A link within a stranger's pictures leads nothing that is written elsewhere; a link that is typed does."""

import os
from pathlib import Path

import pytest

from pet_cifar.data.files.download import fetch
from pet_cifar.data.files.replacing import replacing
from pet_cifar.data.root import state_directory
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import InputError
from tests.cli.commands import refused, status_of


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for label, name in enumerate(("apple", "pear")):
        write_pictures(tmp_path / "pictures" / name, 3 * label, count=12, size=16)
    return tmp_path / "pictures"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


@pytest.mark.parametrize("place", [".pet_cifar", ".pet_cifar/folder.csv", ".pet_cifar/a.lock", ".pet_cifar/features"])
@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_derived_from_pictures_stays_beside_them(
    place: str, is_there: bool, pictures: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / place).parent.mkdir(exist_ok=True)
    (pictures / place).symlink_to(
        os.path.relpath(elsewhere if is_there else elsewhere / "new", pictures / place / "..")
    )
    line = refused(capsys, "data", "check", "--data", "ImageFolderDataModule", "--data.root", str(pictures))
    assert f"{pictures / place} is a link" in line
    assert list(elsewhere.iterdir()) == []


def test_kept_features_stay_beside_the_pictures(pictures: Path, elsewhere: Path) -> None:
    state = state_directory(pictures)
    (state / "features").mkdir()
    assert state_directory(pictures) == state
    (state / "features" / "train-1.npy").symlink_to(elsewhere / "new")
    with pytest.raises(InputError, match=r"train-1\.npy is a link"):
        state_directory(pictures)


def test_a_typed_link_to_pictures_is_the_users_own(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pictures)
    assert status_of("data", "check", "--data", "ImageFolderDataModule", "--data.root", tmp_path / "link") == 0
    assert list((pictures / ".pet_cifar").iterdir())


def test_a_download_stays_where_it_belongs(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to(elsewhere / "new")
    with pytest.raises(InputError, match=r"a\.zip\.part is a link"):
        fetch(["http://127.0.0.1:1/a.zip"], tmp_path / "a.zip")
    assert list(elsewhere.iterdir()) == []


def test_a_file_that_is_replaced_is_written_through_no_link(tmp_path: Path, elsewhere: Path) -> None:
    file = tmp_path / "a.csv"
    for name in (file.name, f"{file.name}.{os.getpid()}.part"):
        (tmp_path / name).symlink_to(elsewhere / "new")
    with replacing(file) as content:
        content.write(b"own")
    assert list(elsewhere.iterdir()) == []
    assert not file.is_symlink()
    assert file.read_bytes() == b"own"
