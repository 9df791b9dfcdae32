"""What a list names is left out, and a list that cannot be right is told."""

from pathlib import Path

import pytest

from pet_cifar.cli.main import main
from pet_cifar.data import ImageFolderDataModule
from pet_cifar.data.exclusions import read_exclusions
from pet_cifar.data.manifest import EXCLUDED
from pet_cifar.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ImageFolderDataModule.write_sample(tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize(
    "text",
    [
        "path,reason\napple/1.jpg,wrong label\npear/2.jpg,blank\n",
        "reason,path\nwrong,apple/1.jpg\n\nblank,pear/2.jpg\n",
        "apple/1.jpg\npear/2.jpg\n",
        "# what I looked at\n./apple/1.jpg\npear\\2.jpg\n",
        "\ufeffpath\napple/1.jpg\npear/2.jpg\n",
        "path;reason\napple/1.jpg;a, b\npear/2.jpg;\n",
        "path\treason\napple/1.jpg\t\npear/2.jpg\t\n",
    ],
)
def test_what_a_list_names_is_left_out(text: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "exclude.csv").write_text(text, encoding="utf-8")
    data = ImageFolderDataModule(root, image_size=16, exclude=tmp_path / "exclude.csv")
    data.setup("fit")
    assert {one.path for one in data.listed if one.verdict == EXCLUDED} == {"apple/1.jpg", "pear/2.jpg"}
    assert sum(map(len, data.splits.values())) == 40
    whole = ImageFolderDataModule(root, image_size=16)
    whole.setup("fit")
    assert sum(map(len, whole.splits.values())) == 42
    assert data.fingerprint != whole.fingerprint


def test_whole_paths_count_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"{root.absolute()}/apple/0.jpg\n")
    data = ImageFolderDataModule(root, exclude=tmp_path / "list")
    assert [one.path for one in data.list_pictures() if one.verdict == EXCLUDED] == ["apple/0.jpg"]


def test_a_name_that_is_not_listed_is_told(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list").write_text("apple/0.jpg\napple/999.jpg\n")
    ImageFolderDataModule(root, exclude=tmp_path / "list").list_pictures()
    assert "apple/999.jpg" in caplog.text


@pytest.mark.parametrize("text", ["banana/0.jpg\n"])
def test_a_list_of_other_pictures_is_refused(text: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=r"exclude is .*list.* banana/0\.jpg"):
        ImageFolderDataModule(root, exclude=tmp_path / "list").list_pictures()


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exclude is .*nowhere"):
        read_exclusions(tmp_path / "nowhere")


def test_an_empty_list_leaves_out_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("path,reason\n")
    data = ImageFolderDataModule(root, exclude=tmp_path / "list")
    assert EXCLUDED not in {one.verdict for one in data.list_pictures()}


def test_the_command_line_names_the_option(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--data.root={root}", f"--data.exclude={tmp_path / 'nowhere.csv'}"]
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", "--data", "ImageFolderDataModule", *options])
    assert stopped.value.code == 2
    assert "--data.exclude is " in capsys.readouterr().err


def test_a_class_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("path,reason\n#1/2.jpg,blank\n")
    assert read_exclusions(tmp_path / "list") == ["#1/2.jpg"]
