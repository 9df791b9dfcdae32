"""``pet-cifar draw --run RUN``: the pictures of a run as files."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pet_cifar
from pet_cifar.callbacks.images.inspection import as_input, convolutions
from pet_cifar.runs.curves import read_curves
from tests.cli.commands import refused, status_of
from tests.runs.conftest import digits_run as digits_run
from tests.runs.conftest import pictures as pictures


def draw(run: Path, *words: object) -> int:
    """Runs the command, and gives its exit status."""
    return status_of("draw", "--run", run, *words)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_everything_is_drawn_without_a_word_about_pictures(digits_run: Path) -> None:
    assert draw(digits_run, "--output", "out") == 0
    single = {path.name for path in Path("out").iterdir() if path.is_file()}
    confusion = {"confusion_matrix_val.png", "confusion_matrix_test.png"}
    assert single == {"curves.png", "curves.svg", "first_layer_filters.png", "sample_pictures.png", *confusion}
    assert len(list(Path("out/grad_cam").iterdir())) == 4
    layers = convolutions(pet_cifar.load(digits_run).module)
    for folder in Path("out/feature_maps").iterdir():
        assert len(list(folder.iterdir())) == len(layers)
    for file in Path("out").rglob("*.png"):
        with Image.open(file) as picture:
            assert min(picture.size) > 50
    assert ET.parse("out/curves.svg").getroot().tag.endswith("svg")


def test_every_channel_of_a_named_picture_is_drawn(digits_run: Path, pictures: Path) -> None:
    first = min(pictures.iterdir())
    assert draw(digits_run, "--images", first, "--layers", "backbone.*", "--output", "out") == 0
    net = pet_cifar.load(digits_run)
    found: dict[str, torch.Tensor] = {}
    for name, layer in convolutions(net.module).items():
        layer.register_forward_hook(lambda _, __, output, name=name: found.update({name: output[0]}))
    with torch.no_grad():
        net.module(as_input(net.module, torch.from_numpy(net.pixels(first))[None]))
    (folder,) = Path("out/feature_maps").iterdir()
    assert first.stem in folder.name
    assert {file.stem[4:] for file in folder.iterdir()} >= set(found)
    name, maps = next(iter(found.items()))
    (file,) = folder.glob(f"*_{name}.png")
    sheet = np.asarray(Image.open(file).convert("L"))
    # Each of them is normalized as in the Keras exercise, enlarged to 96 pixels, and stands in rows of eight.
    for number, one in enumerate(maps.numpy()):
        shades, times = np.clip((one - one.mean()) / one.std() * 64 + 128, 0, 255).astype(np.uint8), 96 // len(one)
        wanted = shades.repeat(times, 0).repeat(times, 1)
        row, column = divmod(number, 8)
        top = sheet.shape[0] - 8 - 99 * -(-len(maps) // 8) + 99 * row
        cell = sheet[top : top + 96, 8 + 99 * column :][:, :96]
        assert cell.shape == wanted.shape
        assert np.abs(cell.astype(int) - wanted).max() <= 1


def test_layers_without_maps_stop_no_others(digits_run: Path, pictures: Path) -> None:
    assert draw(digits_run, "--images", min(pictures.iterdir()), "--layers", "*", "--output", "out") == 0
    (folder,) = Path("out/feature_maps").iterdir()
    assert len(list(folder.iterdir())) >= len(convolutions(pet_cifar.load(digits_run).module))


def test_nothing_is_downloaded_for_a_drawing(
    digits_run: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: pytest.fail("a download"))
    checkpoint = torch.load(digits_run / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["config"] = "data: {class_path: CatsDogsDataModule, init_args: {root: nowhere}}"
    torch.save(checkpoint, "alone.ckpt")
    capsys.readouterr()
    assert draw(Path("alone.ckpt"), "--images", min(pictures.iterdir()), "--output", "out") == 1
    error = capsys.readouterr().err
    assert "not drawn: samples: " in error
    assert "--data.root DIR" in error
    assert not Path("nowhere").exists()


def test_the_same_run_gives_the_same_curves(digits_run: Path) -> None:
    for name in ("a", "b"):
        draw(digits_run, "--layers", "backbone.0", "--output", name)
    for file in ("curves.png", "curves.svg"):
        assert Path("a", file).read_bytes() == Path("b", file).read_bytes()


def test_curves_take_the_last_value_of_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,3,,0.5\n0,3,0.9,\n1,5,,0.4\n1,6,,0.3\n")
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves["val/loss"] == ([1, 2], [0.5, 0.3])
    assert curves["train/loss"] == ([1], [0.9])


def test_a_run_is_drawn_beside_itself_and_never_over_another_drawing(digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved" / "version_0"
    shutil.copytree(digits_run, run)
    for name in ("drawings", "drawings_2"):
        assert draw(run, "--layers", "backbone.0") == 0
        assert (run / name / "curves.png").is_file()


def test_what_cannot_be_drawn_is_told_and_stops_nothing(
    digits_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "version_0"
    shutil.copytree(digits_run, run)
    (run / "metrics.csv").unlink()
    (run / "val" / "confusion_matrix.csv").write_text("label,predicted_a\na,1,2\n")
    Path("bad.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert draw(run, "--images", "bad.png", min(pictures.iterdir()), "--output", "out") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not drawn: ")]
    assert len(lines) == 3
    assert "metrics.csv" in lines[0]
    assert "confusion_matrix.csv" in lines[1]
    assert "bad.png" in lines[2]
    assert Path("out/first_layer_filters.png").is_file()
    assert len(list(Path("out/grad_cam").iterdir())) == 1


def test_a_checkpoint_alone_is_drawn_from_pictures(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(digits_run / "checkpoints" / "best.ckpt", "alone.ckpt")
    capsys.readouterr()
    assert draw(Path("alone.ckpt"), "--images", min(pictures.iterdir()), "--output", "out") == 1
    assert "alone.ckpt lies in no run directory" in capsys.readouterr().err
    assert Path("out/first_layer_filters.png").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--layers", "nothing"], ["layers", "nothing", "backbone."]),
        (["--images", "nowhere.jpg"], ["nowhere.jpg"]),
        (["--output", "full"], ["--output full"]),
        (["--layer", "all"], ["--layer", "--layers"]),
    ],
)
def test_wrong_words(words: list[str], named: list[str], digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full", "mine.txt").touch()
    line = refused(capsys, "draw", "--run", str(digits_run), *words)
    assert all(name in line for name in named)


def test_a_run_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run" in refused(capsys, "draw")
    assert "--run gone" in refused(capsys, "draw", "--run", "gone")


def test_missing_packages_are_named(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("runs.curves", "callbacks.images.grad_cam"):
        monkeypatch.setattr(f"pet_cifar.{module}.find_spec", lambda name: None)
    assert draw(digits_run, "--images", min(pictures.iterdir()), "--output", "out") == 1
    error = capsys.readouterr().err
    assert "not drawn: curves" in error
    assert "not drawn: Grad-CAM" in error
    assert error.count("pip install 'pet_cifar[") == 2
