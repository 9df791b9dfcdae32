"""``pet-cifar export``: every file answers as its run does, and what does not is refused."""

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

import pet_cifar
from pet_cifar.cli.main import main
from pet_cifar.data.pixels.decode import fit_array
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from pet_cifar.runs import export, export_check, web_page
from pet_cifar.runs.exported_net import FromPicture, gray, resize
from pet_cifar.runs.load import Classifier
from tests.cli.commands import refused
from tests.runs.conftest import digits_run as digits_run
from tests.runs.conftest import pictures as pictures
from tests.runs.conftest import predictions_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(run: Path, *words: object) -> None:
    main(["export", "--run", str(run), *map(str, words)])


def probabilities(net: Classifier, paths: list[Path]) -> Any:
    """What a net says of several pictures, shape (n, num_classes)."""
    found = net(paths)
    assert isinstance(found, list)
    return np.stack([one.probabilities for one in found])


def session(file: str) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run as an ONNX file that tests only read, and what was printed while it was written."""
    file = tmp_path_factory.mktemp("exported") / "net.onnx"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(digits_run, "--output", file)
    return file, printed.getvalue()


def test_an_onnx_file_answers_as_the_run_and_says_what_it_is(
    exported: tuple[Path, str], digits_run: Path, pictures: Path
) -> None:
    file, printed = exported
    assert re.search(r"checked: of 180 test pictures, 100\.00 % have the same class", printed)
    net = pet_cifar.load(digits_run)
    asked = session(str(file))
    for count in (1, 5):
        pixels = np.stack([net.pixels(path) for path in sorted(pictures.iterdir())[:count]])
        (found,) = asked.run(None, {"pixels": pixels})
        expected = probabilities(net, sorted(pictures.iterdir())[:count])
        np.testing.assert_allclose(found, expected, atol=1e-5)
    card = json.loads(asked.get_modelmeta().custom_metadata_map["pet_cifar"])
    assert card["class_names"] == list(map(str, range(10)))
    assert card["run"] == "digits_residual/version_0"
    assert card["input_shape"] == ["batch", 3, 32, 32]
    assert re.fullmatch("[0-9a-f]{64}", card["data_fingerprint"])
    assert "100.00 %" in card["check"]
    assert onnx.load(file).opset_import[0].version == export.OPSET


def test_an_exported_file_is_asked_as_its_run(exported: tuple[Path, str], digits_run: Path, pictures: Path) -> None:
    file, _ = exported
    ours, theirs = pet_cifar.load(digits_run)(pictures), pet_cifar.load(file)(pictures)
    assert isinstance(ours, list)
    assert isinstance(theirs, list)
    assert [one.label for one in ours] == [one.label for one in theirs]
    main(["predict", "--run", str(file), str(pictures), "--output", "out.csv"])
    assert len(Path("out.csv").read_text().splitlines()) == 13
    with pytest.raises(InputError, match="exported file"):
        pet_cifar.load(file).explain(min(pictures.iterdir()))
    run(digits_run, "--input", "picture", "--output", "any.onnx")
    with pytest.raises(InputError, match="--input pixels"):
        pet_cifar.load("any.onnx")
    Path("bad.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.onnx cannot be read"):
        pet_cifar.load("bad.onnx")


def test_a_picture_of_any_size_goes_in(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(digits_run, "--input", "picture", "--output", "net.onnx", "--most", "20")
    assert "of 20 test pictures in its size, 100.00 %" in capsys.readouterr().out
    asked, net = session("net.onnx"), pet_cifar.load(digits_run)
    rng = np.random.default_rng(0)
    for shape in ((32, 32, 3), (90, 61, 3), (300, 20, 3)):
        picture = np.asarray(Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize(shape[1::-1]))
        (found,) = asked.run(None, {"picture": picture})
        prediction = net(picture)
        assert not isinstance(prediction, list)
        np.testing.assert_allclose(found, prediction.probabilities, atol=0.02 if shape[0] > 32 else 1e-5)


@pytest.mark.parametrize("size", [32, 64, 200])
@pytest.mark.parametrize("shape", [(64, 64), (200, 90), (31, 33), (1000, 37), (700, 641)])
def test_resizing_in_the_file_is_pillows_to_a_level_or_two(shape: tuple[int, int], size: int) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    picture = np.asarray(Image.fromarray(blocks).resize(shape[::-1], Image.Resampling.BICUBIC))
    given = torch.from_numpy(picture.copy())
    in_color = resize(given.float(), size).permute(2, 0, 1).numpy()
    assert np.abs(in_color - fit_array(picture, size, 3)).max() <= 2
    assert np.abs(in_color - fit_array(picture, size, 3)).mean() < 0.5
    in_gray = resize(gray(given), size).permute(2, 0, 1).numpy()
    assert np.abs(in_gray - fit_array(picture, size, 1)).max() <= 2


def test_a_picture_in_the_nets_size_stays_as_it_is() -> None:
    picture = torch.randint(0, 256, (48, 48, 3), dtype=torch.uint8)
    assert torch.equal(resize(picture.float(), 48).byte(), picture)


def test_a_torch_program_needs_no_pet_cifar(digits_run: Path, pictures: Path) -> None:
    run(digits_run, "--format", "torch", "--output", "net.pt2")
    net = pet_cifar.load(digits_run)
    paths = sorted(pictures.iterdir())[:3]
    np.save("pixels.npy", np.stack([net.pixels(path) for path in paths]))
    code = (
        "import sys, json, numpy, torch; extra = {'card.json': ''}; "
        "module = torch.export.load('net.pt2', extra_files=extra).module(); "
        "(found,) = module(torch.from_numpy(numpy.load('pixels.npy'))); "
        "numpy.save('found.npy', found.detach().numpy()); "
        "assert json.loads(extra['card.json'])['class_names'][3] == '3'; assert 'pet_cifar' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    np.testing.assert_allclose(np.load("found.npy"), probabilities(net, paths), atol=1e-5)


def test_safetensors_hold_the_weights_and_a_card(digits_run: Path) -> None:
    run(digits_run, "--format", "safetensors", "--output", "net.safetensors")
    state = torch.load(digits_run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    with safe_open("net.safetensors", "pt") as file:
        assert set(file.keys()) == set(state)
        for name in state:
            assert torch.equal(file.get_tensor(name), state[name])
        assert json.loads(file.metadata()["pet_cifar"])["net"] == "ResidualCNN"
    assert json.loads(Path("net.json").read_text())["class_names"][0] == "0"


def test_whole_numbers_are_measured_beside_floats(
    digits_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_cifar.runs.quantize.pictures_a_second", lambda *_: 123.0)
    run(digits_run, "--int8", "--output", "net.onnx")
    out = capsys.readouterr().out
    assert re.search(r"float32: 0\.\d MB, 123 pictures/s, \d+\.\d\d % right; of 180 test pictures, 100\.00 %", out)
    assert re.search(r"int8: 0\.\d MB, 123 pictures/s, \d+\.\d\d % right", out)
    kinds = {node.op_type for node in onnx.load("net_int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert session("net_int8.onnx").get_modelmeta().custom_metadata_map["pet_cifar"]


def test_without_data_it_is_checked_with_drawn_pictures(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(digits_run / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["config"] = ""
    torch.save(checkpoint, "alone.ckpt")
    run(tmp_path / "alone.ckpt", "--format", "onnx")
    out = capsys.readouterr()
    assert "of 64 drawn pictures, 100.00 %" in out.out
    assert "drawn pictures" in out.err
    assert (tmp_path / "exported/alone.onnx").is_file()
    assert "--data.root" in refused(capsys, "export", "--run", "alone.ckpt", "--int8", "--output", "other.onnx")


def card_of(file: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(session(str(file)).get_modelmeta().custom_metadata_map["pet_cifar"])
    return found


def test_each_file_says_how_it_was_compared_itself(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pet_cifar.runs.quantize.pictures_a_second", lambda *_: 1.0)
    run(digits_run, "--int8", "--output", "net.onnx", "--most", "20")
    assert card_of("net.onnx")["check"].startswith("of 20 test pictures, 100.00 %")
    assert card_of("net_int8.onnx")["check"].startswith("8-bit numbers, not equal: of 20 test pictures")
    run(digits_run, "--format", "torch", "--output", "net.pt2", "--most", "20")
    extra = {"card.json": ""}
    torch.export.load("net.pt2", extra_files=extra)
    assert json.loads(extra["card.json"])["check"].startswith("of 20 test pictures, 100.00 %")
    # Digits lie in no files, so that the resizing is measured with drawn pictures.
    run(digits_run, "--input", "picture", "--output", "any.onnx", "--most", "20")
    assert "of 20 drawn pictures of other sizes" in card_of("any.onnx")["check"]
    assert "measured: of 20 drawn pictures of other sizes" in capsys.readouterr().out


def test_nothing_is_replaced(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(classifier: Classifier, card: export.Card, file: Path, *others: object) -> list[str]:
        file.write_text("a net")
        return []

    monkeypatch.setattr("pet_cifar.cli.export._write", write)  # Only the names are looked at.
    own = tmp_path / "version_0"
    shutil.copytree(digits_run, own)
    for words in ([], ["--input", "picture"], []):
        run(own, "--most", "5", *words)
    names = {path.name for path in (own / "exported").iterdir()}
    stem = f"{tmp_path.name}_version_0"
    assert names == {f"{stem}.onnx", f"{stem}_picture.onnx", f"{stem}_2.onnx"}
    for name, words in (
        ("mine.json", ["--format", "safetensors", "--output", "mine.safetensors"]),
        ("mine_int8.onnx", ["--int8", "--output", "mine.onnx"]),
    ):
        Path(name).write_text("mine")
        assert name in refused(capsys, "export", "--run", str(own), *words)
        assert Path(name).read_text() == "mine"
    for name, words in (("w.json", ["--format", "safetensors"]), ("w.bin", [])):
        assert name in refused(capsys, "export", "--run", str(own), *words, "--output", name)


def test_a_file_that_is_not_proved_is_not_there(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pet_cifar.runs.export_check.TOLERANCE", -1.0)
    assert "nothing was written" in refused(capsys, "export", "--run", str(digits_run), "--output", "new/net.onnx")
    assert list(Path("new").iterdir()) == []


def write_stranger(file: Path, shape: list[Any], names: object, classes: int = 3) -> Path:
    """A small ONNX file with a card that anybody may have written."""
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
    made = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])
    value = helper.make_tensor("value", TensorProto.FLOAT, [1, classes], [1 / classes] * classes)
    graph = helper.make_graph([helper.make_node("Constant", [], ["probabilities"], value=value)], "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    model.metadata_props.add(key="pet_cifar", value=json.dumps({"class_names": names}))
    onnx.save(model, str(file))
    return file


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (["batch", 3, 8, 8], None),
        (["batch", 3, 8, 8], ["a"]),
        (["batch", 3, 8, 8], ["a", "a", "b"]),
        (["batch", 3, 8, 9], ["a", "b", "c"]),
        (["batch", 8, 8], ["a", "b", "c"]),
        (["batch", 3, "x", "x"], ["a", "b", "c"]),
    ],
)
def test_a_strangers_file_is_believed_in_nothing(shape: list[Any], names: object, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        pet_cifar.load(write_stranger(tmp_path / "net.onnx", shape, names))


def test_a_strangers_names_steer_no_terminal(tmp_path: Path) -> None:
    names = ["\x1b[31mred", "b", "c"]
    net = pet_cifar.load(write_stranger(tmp_path / "net.onnx", ["batch", 3, 8, 8], names))
    assert not any("\x1b" in name for name in net.class_names)


@pytest.mark.parametrize("name", ["net.pt2", "net.safetensors"])
def test_other_exported_files_are_told_apart(name: str) -> None:
    Path(name).touch()
    with pytest.raises(InputError, match="give an ONNX file or the run"):
        pet_cifar.load(name)


class Wobbly(nn.Module):
    """Adds something where it is exported, as a converter with a fault would."""

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.5 if torch.compiler.is_exporting() else image


def test_a_file_that_answers_otherwise_is_removed_and_its_layer_named(digits_run: Path, tmp_path: Path) -> None:
    net = pet_cifar.load(digits_run)
    net.module.backbone = nn.Sequential(*net.module.backbone.children(), Wobbly())
    file = tmp_path / "net.onnx"
    card = export.card_of(net, {}, "pixels")
    export.write_onnx(net, card, file)
    pixels = export_check.drawn_pictures(net.module, 8)
    expected = export_check.run_answers(net.module, pixels)
    found = export_check.compare(
        expected, export_check.answers_of(export_check.file_asker(file, "onnx"), pixels), "drawn pictures"
    )
    assert not found.is_exact
    number = len(net.module.backbone) - 1
    line = rf"nothing was written.*the first layer that differs is .*backbone\.{number}"
    with pytest.raises(InputError, match=line):
        export_check.refuse_difference(net.module, found, pixels)


class Unknown(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        flat = image.flatten(1)
        return image * torch.cdist(flat, flat).mean()


def test_an_operator_that_cannot_be_exported_is_named(digits_run: Path, tmp_path: Path) -> None:
    net = pet_cifar.load(digits_run)
    net.module.backbone = nn.Sequential(net.module.backbone, Unknown())
    with pytest.raises(InputError, match=r"ResidualCNN cannot be exported to ONNX: .*aten\._cdist_forward"):
        export.write_onnx(net, export.card_of(net, {}, "pixels"), tmp_path / "net.onnx")


def test_several_views_go_into_the_file(digits_run: Path, tmp_path: Path) -> None:
    net = pet_cifar.load(digits_run)
    net.module.test_views = "shift"
    export.write_onnx(net, export.card_of(net, {}, "pixels"), tmp_path / "net.onnx")
    pixels = export_check.drawn_pictures(net.module, 8)
    answers = export_check.answers_of(export_check.file_asker(tmp_path / "net.onnx", "onnx"), pixels)
    assert export_check.compare(export_check.run_answers(net.module, pixels), answers, "pictures").is_exact


def test_two_classes_and_color_go_into_a_picture_file() -> None:
    torch.manual_seed(0)
    net = ResidualCNN(num_classes=2, num_channels=3, image_size=24, widths=[4]).eval()
    # An untrained convolution hardly tells one picture from another; this one sees every pixel.
    net.backbone, net.head = nn.Flatten(), nn.Linear(3 * 24 * 24, 1)
    net.head.weight.data *= 4
    smooth = Image.fromarray(torch.randint(0, 256, (5, 5, 3), dtype=torch.uint8).numpy()).resize((24, 50))
    picture = torch.from_numpy(np.asarray(smooth).copy())
    with torch.no_grad():
        (found,) = FromPicture(net)(picture)
        pixels = torch.from_numpy(fit_array(picture.numpy(), 24, 3).copy())
        expected, _ = net.predict_pictures(pixels[None].float() / 255)
    torch.testing.assert_close(found, expected[0], atol=0.01, rtol=0)
    with torch.no_grad():
        for wrong in (picture.flip(2), picture.flip(0), 255 - picture):
            assert (FromPicture(net)(wrong)[0] - expected[0]).abs().max() > 0.05


@pytest.mark.filterwarnings("ignore")  # They are those of torch's exporter.
def test_lightnings_own_export_is_that_of_evaluation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ResidualCNN(widths=[4])
    net.backbone = nn.Sequential(net.backbone, nn.Dropout(0.5))
    image = torch.rand(2, 3, 32, 32)
    net.train()
    net.to_onnx(tmp_path / "net.onnx", image, dynamo=True, verbose=False)
    assert all(layer.training for layer in net.modules())
    asked = session(str(tmp_path / "net.onnx"))
    (found,) = asked.run(None, {asked.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, net.eval()(image).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--format", "onxx"], ["--format", "onnx"]),
        (["--output", "there.onnx"], ["--output there.onnx"]),
        (["--most", "0"], ["--most 0"]),
        (["--int8", "--input", "picture"], ["--int8", "--input pixels"]),
        (["--int8", "--format", "torch"], ["--int8", "--format onnx"]),
        (["--format", "web", "--input", "pixels"], ["--input pixels", "web"]),
        (["--onnxruntime_web", "x"], ["--onnxruntime_web", "--format web"]),
        (["--format", "web", "--onnxruntime_web", "gone.tgz"], ["--onnxruntime_web gone.tgz", "npm pack"]),
        (["--formt", "onnx"], ["--formt", "--format"]),
    ],
)
def test_wrong_words(words: list[str], named: list[str], digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.onnx").touch()
    line = refused(capsys, "export", "--run", str(digits_run), *words)
    assert all(name in line for name in named)


def test_missing_packages_are_named(
    digits_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_cifar.runs.export.find_spec", lambda name: None if name == "onnxscript" else name)
    line = refused(capsys, "export", "--run", str(digits_run))
    assert "onnxscript" in line
    assert "pip install 'pet_cifar[export]'" in line


def write_package(folder: Path) -> Path:
    """A package of the same layout as npm's, whose files are no runtime."""
    for name, content in ((web_page.SCRIPT, b"export default 1;"), (web_page.BINARY, b"\0asm")):
        (folder / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "package" / name).write_bytes(content)
    with tarfile.open(folder / "runtime.tgz", "w:gz") as archive:
        archive.add(folder / "package", "package")
    return folder / "runtime.tgz"


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_a_page_holds_all_that_it_needs(kind: str, digits_run: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "npm")
    source = package if kind == "archive" else package.parent
    run(digits_run, "--format", "web", "--onnxruntime_web", source, "--output", "page", "--most", "10")
    assert {path.name for path in Path("page").iterdir()} == {"index.html", "net.js", "net.onnx", "runtime.js"}
    page = Path("page/index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", page)
    assert "of 10 test pictures in its size, 100.00 % have the same class" in page
    script = Path("page/net.js").read_text(encoding="ascii")
    assert base64.b64decode(script.split('"')[1]) == Path("page/net.onnx").read_bytes()
    assert base64.b64encode(b"\0asm").decode() in Path("page/runtime.js").read_text(encoding="ascii")


def test_the_page_refuses_another_package(digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "export", "--run", str(digits_run), "--format", "web", "--onnxruntime_web", "empty")
    assert "--onnxruntime_web empty" in line


def test_names_of_classes_cannot_break_the_page(digits_run: Path, tmp_path: Path) -> None:
    net = pet_cifar.load(digits_run)
    net.module.class_names = ("</script><b>", *map(str, range(9)))
    card = export.card_of(net, {}, "picture")
    (tmp_path / "net.onnx").write_bytes(b"")
    page = web_page.write(tmp_path, tmp_path / "net.onnx", card, web_page.Runtime(b"", b""), 32).read_text(
        encoding="utf-8"
    )
    assert "</script><b>" not in page


@pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("npm"), reason="needs Chromium and npm")
def test_the_page_answers_as_the_run_does(digits_run: Path, pictures: Path) -> None:
    from playwright.sync_api import sync_playwright

    if subprocess.run(["npm", "pack", "onnxruntime-web"], capture_output=True, check=False).returncode:
        pytest.skip("npm has no network")
    (package,) = Path().glob("*.tgz")
    run(digits_run, "--format", "web", "--onnxruntime_web", package, "--output", "page", "--most", "10")
    said = {f"{int(row['path'].partition('#')[2]):04d}.png": row["prediction"] for row in predictions_of(digits_run)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(Path("page/index.html").absolute().as_uri())
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        for path in sorted(pictures.iterdir()):
            found = page.evaluate(
                "async (text) => { const data = await pixelsOf(new Blob([bytes(text)])); "
                "return await ask(data.data, data.width, data.height); }",
                base64.b64encode(path.read_bytes()).decode(),
            )
            assert str(int(np.argmax(found["probabilities"]))) == said[path.name]
        page.set_input_files("#file", str(min(pictures.iterdir())))
        page.wait_for_selector("body[data-done]", timeout=120_000)
        assert page.inner_text("#label").startswith(said[min(pictures.iterdir()).name])
        browser.close()
