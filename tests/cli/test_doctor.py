"""``pet-cifar data doctor`` finds what was planted, changes nothing, and its list can be given back."""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from pet_cifar.cli.main import main
from pet_cifar.data import ImageFolderDataModule
from pet_cifar.data.manifest import EXCLUDED
from pet_cifar.errors import InputError
from pet_cifar.models import timm_classifier
from tests.data.test_leakage import write_photographs

NO_NET = ["--weights", "none"]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photographs in two classes, with copies, a blank one, a long one and a name that is a formula."""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path / "set")
    Image.new("RGB", (90, 90), (10, 200, 10)).save(tmp_path / "set" / "a" / "blank.png")
    noise = np.random.default_rng(0).integers(0, 256, (20, 90, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "set" / "a" / "=HYPERLINK(<b>).png")
    return tmp_path / "set"


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".pet_cifar" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(root: Path, *options: str) -> None:
    main(["data", "doctor", "--data", "ImageFolderDataModule", f"--data.root={root}", *options])


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_what_was_planted_is_told_and_nothing_changed(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashes(pictures)
    run(pictures, *NO_NET)
    assert hashes(pictures) == before
    shown = capsys.readouterr().out
    assert "24 pictures in 12 groups" in shown
    assert re.search(r"blank pictures +1 picture\b", shown)
    assert re.search(r"odd shapes +1 picture\b", shown)
    assert re.search(r"wrong labels +not looked for\n.*--weights FILE", shown)
    folder = Path("lightning_logs/data_doctor/version_0")
    found = rows_of(folder / "findings.csv")
    copies = {row["path"] for row in found if row["finding"] == "near duplicate"}
    assert copies == {f"b/{name}.jpg" for number in range(12) for name in (number, f"copy{number}")}
    assert [row["path"] for row in found if row["finding"] == "odd shape"] == ["a/=HYPERLINK(<b>).png"]
    assert [row["path"] for row in rows_of(folder / "exclude.csv")] == ["a/blank.png"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "=HYPERLINK(&lt;b&gt;).png" in page
    assert "<b>).png" not in page
    # No picture, script or style comes from elsewhere.
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("data:image/jpeg;base64,") == 27  # The long one is small as well.
    run(pictures, *NO_NET)
    assert Path("lightning_logs/data_doctor/version_1/index.html").exists()


def test_its_list_can_be_given_back(pictures: Path) -> None:
    run(pictures, *NO_NET, "--output", "out")
    data = ImageFolderDataModule(pictures, exclude=Path("out/exclude.csv"))
    assert [one.path for one in data.list_pictures() if one.verdict == EXCLUDED] == ["a/blank.png"]
    run(pictures, *NO_NET, "--output", "again", "--data.exclude", "out/exclude.csv")
    assert rows_of(Path("again/exclude.csv")) == []


def test_wrong_labels_are_looked_for_with_the_weights_of_a_file(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = timm.create_model("test_efficientnet", num_classes=0)
    save_file(net.state_dict(), "net.safetensors")
    run(pictures, "--weights", "net.safetensors", "--backbone", "test_efficientnet", "--output", "out", "--most", "2")
    shown = capsys.readouterr().out
    suspects = [row for row in rows_of(Path("out/findings.csv")) if row["finding"] == "suspect label"]
    assert re.search(rf"suspect labels +{len(suspects)} picture", shown)
    assert re.search(r"wrong labels, estimated +.*95 % interval", shown)
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert f"{10} more are in findings.csv" in page  # of the 12 groups


def test_without_a_network_all_else_is_examined(
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise InputError("cannot get tf_efficientnet_lite0's weights (ConnectionError); connect to the network")

    monkeypatch.setattr(timm_classifier, "_downloaded", fail)
    run(pictures, "--output", "out")
    assert "--weights FILE" in caplog.text
    assert "24 pictures in 12 groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--weights", "nowhere.safetensors"], "--weights nowhere.safetensors"),
        (["--output", "set"], "--output set"),
        (["--most", "-1"], "--most -1"),
        (["--weigths", "none"], "--weights"),
        (["--data.image_size", "0"], "--data.image_size is 0"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    options: list[str], told: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(pictures)
    with pytest.raises(SystemExit) as stopped:
        run(pictures, *options)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert told in line
    assert hashes(pictures) == before


def test_a_config_names_the_data_and_the_net(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "doctor", "--config", "folder_efficientnet", f"--data.root={pictures}", "--weights", "other.pth"])
    assert "--weights other.pth" in capsys.readouterr().err
    main(["data", "doctor", "--config", "folder_efficientnet", f"--data.root={pictures}", *NO_NET])
    assert "24 pictures in 12 groups" in capsys.readouterr().out


def test_copies_with_two_labels_come_first(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "b" / "copy5.jpg").rename(pictures / "a" / "copy5.jpg")
    run(pictures, *NO_NET, "--output", "out")
    shown = capsys.readouterr().out
    assert re.search(r"near duplicates of two classes +1 group\b", shown)
    page = Path("out/index.html").read_text(encoding="utf-8")
    section = page[page.index("near duplicates</h2>") :]
    assert section.index("a/copy5.jpg") < section.index("b/copy0.jpg")


def test_a_wrong_net_is_refused(pictures: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(pictures, "--backbone", "tf_efficentnet_lite0")
    assert "tf_efficentnet_lite0" in str(caught.value.__context__)


def test_one_picture_has_one_answer_on_the_page(pictures: Path) -> None:
    Image.new("RGB", (90, 90), (10, 200, 10)).resize((20, 20)).save(pictures / "b" / "small_blank.png")
    run(pictures, *NO_NET, "--output", "out")
    page = Path("out/index.html").read_text(encoding="utf-8")
    boxes = re.findall(r"data-path='\"b/small_blank.png\"'[^>]*>", page)
    assert len(boxes) >= 2
    assert all("checked" in box for box in boxes)
    assert [row["path"] for row in rows_of(Path("out/exclude.csv"))].count("b/small_blank.png") == 1


def test_what_is_said_of_classes_and_of_nothing_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ImageFolderDataModule.write_sample(tmp_path / "set")
    run(tmp_path / "set", *NO_NET, "--output", "out")
    shown = capsys.readouterr().out
    assert re.search(r"classes +3, 14 pictures each", shown)
    assert "no picture is proposed to be left out" in shown
