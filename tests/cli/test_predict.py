"""``pet-cifar predict --run RUN PATH...``: every way to name pictures and every way to get the answers."""

import csv
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from pet_cifar.cli.main import main
from pet_cifar.data.manifest import write_csv
from tests.cli.commands import status_of
from tests.runs.conftest import digits_run as digits_run
from tests.runs.conftest import pictures as pictures
from tests.runs.conftest import predictions_of


def predict(run: Path, *words: object) -> int:
    """Runs the command, and gives its exit status."""
    return status_of("predict", "--run", run, *words)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def labels(digits_run: Path, pictures: Path) -> dict[str, str]:
    """What the run's test said of each picture."""
    said = {f"{int(row['path'].partition('#')[2]):04d}.png": row["prediction"] for row in predictions_of(digits_run)}
    return {path.name: said[path.name] for path in sorted(pictures.iterdir())}


def test_files_folders_patterns_archives_and_lists(
    digits_run: Path, pictures: Path, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile("all.zip", "w") as archive:
        for path in pictures.iterdir():
            archive.write(path, f"inside/{path.name}")
        archive.writestr("__MACOSX/._x.png", b"")
        archive.writestr("notes.txt", b"")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, sorted(pictures.iterdir()))) + "\n\n"))
    for words in ([pictures], sorted(pictures.iterdir()), [f"{pictures}/*.png"], ["all.zip"], ["-"]):
        assert predict(digits_run, *words, "--output", "out.csv") == 0
        assert {Path(row["path"]).name: row["prediction"] for row in rows_of(Path("out.csv"))} == labels


def test_a_picture_that_is_named_twice_counts_once(digits_run: Path, pictures: Path) -> None:
    assert predict(digits_run, pictures, next(pictures.iterdir()), "--output", "out.csv") == 0
    assert len(rows_of(Path("out.csv"))) == 12


def test_every_format_says_the_same(digits_run: Path, pictures: Path) -> None:
    for suffix in ("csv", "json", "jsonl", "parquet"):
        assert predict(digits_run, pictures, "--top", 3, "--output", f"out.{suffix}") == 0
    table = rows_of(Path("out.csv"))
    whole = json.loads(Path("out.json").read_text())
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == whole
    assert pyarrow.parquet.read_table("out.parquet").to_pylist() == whole
    assert [{name: str(value) for name, value in record.items()} for record in whole] == table
    first = ["path", "prediction", "probability", "prediction2", "probability2", "prediction3", "probability3", "error"]
    assert list(table[0]) == [*first, *(f"p_{digit}" for digit in range(10))]
    assert all(record["probability"] >= record["probability2"] >= record["probability3"] for record in whole)
    assert all(record["probability"] == record[f"p_{record['prediction']}"] for record in whole)


def test_unreadable_pictures_are_listed_and_the_rest_predicted(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mixed").mkdir()
    whole = sorted(pictures.iterdir())[0].read_bytes()
    Path("mixed/good.png").write_bytes(whole)
    Path("mixed/half.png").write_bytes(whole[: len(whole) // 2])
    Path("mixed/empty.jpg").write_bytes(b"")
    Path("mixed/text.png").write_text("no picture")
    Path("mixed/gone.png").symlink_to("nowhere.png")
    assert predict(digits_run, "mixed", "--output", "out.csv") == 1
    told = capsys.readouterr()
    assert "4 of 5 pictures could not be read" in told.err
    errors = {Path(row["path"]).name: row["error"] for row in rows_of(Path("out.csv"))}
    assert errors["good.png"] == ""
    assert errors["half.png"].startswith("truncated")
    assert errors["empty.jpg"].startswith("empty")
    assert errors["text.png"].startswith("not an image")
    assert errors["gone.png"]


def test_the_least_certain_come_first(digits_run: Path, pictures: Path) -> None:
    assert predict(digits_run, pictures, "--top", 2, "--sort", "uncertain", "--output", "out.json") == 0
    margins = [record["probability"] - record["probability2"] for record in json.loads(Path("out.json").read_text())]
    assert margins == sorted(margins)


def test_copies_and_moves_replace_nothing(
    digits_run: Path, pictures: Path, labels: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert predict(digits_run, pictures, "--copy", "sorted") == 0
    for name, label in labels.items():
        first = Path("sorted", label, name)
        second = Path("sorted", label, f"{Path(name).stem} (2).png")
        assert first.read_bytes() == second.read_bytes() == (pictures / name).read_bytes()
    Path("loose").mkdir()
    for path in pictures.iterdir():
        Path("loose", path.name).write_bytes(path.read_bytes())
    assert predict(digits_run, "loose", "--move", "sorted") == 0
    assert list(Path("loose").iterdir()) == []
    assert len(list(Path("sorted").rglob("*.png"))) == 36
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.write(next(pictures.iterdir()), "inside.png")
    assert predict(digits_run, "all.zip", "--move", "sorted") == 2
    assert "--move" in capsys.readouterr().err
    assert predict(digits_run, "all.zip", "--copy", "sorted") == 0
    assert len(list(Path("sorted").rglob("inside*.png"))) == 1


def test_explanations_are_pictures_on_a_page(digits_run: Path, pictures: Path) -> None:
    names = [str(path) for path in sorted(pictures.iterdir())[:3]]
    assert predict(digits_run, *names, "--explain", "why") == 0
    overlays = sorted(Path("why").glob("*.png"))
    assert len(overlays) == 3
    for path in overlays:
        with Image.open(path) as overlay, Image.open(path.with_suffix(".jpg")) as picture:
            assert overlay.size == picture.size == (360, 360)
    page = Path("why/index.html").read_text()
    assert re.findall(r'src="(.*?)"', page) == [
        path.with_suffix(end).name for path in overlays for end in (".jpg", ".png")
    ]
    assert "http" not in page


def test_names_cannot_become_formulas_or_control_codes(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(pictures.iterdir()).read_bytes()
    for name in ("=1+1.png", "@x.png", "-y.png", "red\x1b[31m.png", "<b>.png"):
        Path(name).write_bytes(whole)
    names = ["=1+1.png", "@x.png", "./-y.png", "red\x1b[31m.png", "<b>.png"]
    assert predict(digits_run, *names, "--output", "out.csv", "--explain", "why") == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    text = Path("out.csv").read_text()
    assert not re.search(r"^[=+@\-]", text, re.MULTILINE)
    assert "\x1b" not in text
    assert "&lt;b&gt;.png" in Path("why/index.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.png"], "PATH nowhere.png"),
        (["*.nothing"], r"PATH \*.nothing"),
        (["empty"], "PATH empty: .*no pictures"),
        (["--output", "out.csv"], "PATH"),
        (["PICTURES", "--output", "out.xls"], "--output out.xls"),
        (["PICTURES", "--output", "none/out.csv"], "--output none/out.csv"),
        (["PICTURES", "--top", "0"], "--top 0"),
        (["PICTURES", "--top", "x"], "--top"),
        (["PICTURES", "--copy", "a", "--move", "b"], "--copy and --move"),
        (["PICTURES", "--explain", "full"], "--explain full"),
        (["PICTURES", "--outptu", "x.csv", "--top", "1"], "--output"),
        (["PICTURES", "--device", "toaster"], "--device toaster"),
        (["PICTURES", "--sort", "size"], "uncertain"),
        (["x" * 300], "PATH x"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    words: list[str], told: str, digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert predict(digits_run, *[str(pictures) if word == "PICTURES" else word for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line)
    assert Path("full/mine.txt").read_text() == "mine"


def test_a_run_that_is_not_there_is_told_with_its_option(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(Path("lightning_logs/none"), pictures) == 2
    assert "--run lightning_logs/none: there is no such directory" in capsys.readouterr().err


def test_without_pictures_the_runs_own_test_is_scored(digits_run: Path) -> None:
    assert predict(digits_run) == 0
    assert (digits_run / "predict" / "predictions.csv").is_file()


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("PATH", "--output", "--explain", "--sort", "--copy", "--move", "--top"))


def test_one_that_cannot_be_copied_stops_no_other(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(pictures.iterdir())[:2]
    with zipfile.ZipFile("all.zip", "w") as archive:
        archive.write(first, f"{'x' * 300}.png")
        archive.write(second, "good.png")
    assert predict(digits_run, "all.zip", "--copy", "sorted") == 1
    assert [path.name for path in Path("sorted").rglob("*.png")] == ["good.png"]
    assert "1 pictures copied" in capsys.readouterr().out


def test_what_lies_in_its_folder_stays_under_its_name(digits_run: Path, pictures: Path) -> None:
    shutil.copytree(pictures, "new")
    assert predict(digits_run, "new", "--move", "new/sorted") == 0
    names = sorted(path.name for path in Path("new").rglob("*.png"))
    assert predict(digits_run, "new", "--move", "new/sorted") == 0
    assert sorted(path.name for path in Path("new").rglob("*.png")) == names


def test_the_list_of_a_folders_pictures_is_passed_over_in_silence(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures, "new")
    write_csv([], Path("new/manifest.csv"))
    Path("new/notes.csv").write_text("a,b\n")
    assert predict(digits_run, "new", "--output", "out.csv") == 0
    told = capsys.readouterr().err
    assert "new/notes.csv" in told
    assert "manifest.csv" not in told


def test_a_file_that_is_named_in_two_ways_counts_once(digits_run: Path, pictures: Path) -> None:
    shutil.copy(min(pictures.iterdir()), "a.png")
    assert predict(digits_run, "a.png", Path("a.png").absolute(), "--output", "out.csv") == 0
    assert len(rows_of(Path("out.csv"))) == 1


def test_damage_and_empty_folders_stop_no_others(digits_run: Path, pictures: Path) -> None:
    Path("mixed/empty").mkdir(parents=True)
    shutil.copy(min(pictures.iterdir()), "mixed/a.png")
    Path("mixed/bad.zip").write_bytes(b"PK nothing")
    with zipfile.ZipFile("mixed/lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(min(pictures.iterdir()), "b.png")
    damaged = bytearray(Path("mixed/lzma.zip").read_bytes())
    damaged[60:90] = bytes(30)
    Path("mixed/lzma.zip").write_bytes(damaged)
    assert predict(digits_run, "mixed/*", "--output", "out.csv") == 1
    assert [row["prediction"] != "" for row in rows_of(Path("out.csv"))].count(True) == 1


def test_a_cell_stays_whole_with_other_separators(digits_run: Path, pictures: Path) -> None:
    Path("odd").mkdir()
    shutil.copy(min(pictures.iterdir()), "odd/x;=1+1.png")
    assert predict(digits_run, "odd", "--output", "out.csv") == 0
    assert '"odd/x;=1+1.png"' in Path("out.csv").read_text()
    assert predict(digits_run, "odd", "--output", "out.csv") == 0, "its own table may be written again"


def test_a_member_that_would_fill_the_memory_is_not_read(
    digits_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(20_000_000))
        archive.write(min(pictures.iterdir()), "good.png")
    assert predict(digits_run, "all.zip", "--output", "out.csv") == 1
    assert "all.zip/bomb.png" in capsys.readouterr().out
    bad, good = rows_of(Path("out.csv"))
    assert "20,000,000 bytes" in bad["error"]
    assert good["error"] == ""
