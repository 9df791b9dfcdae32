"""Tables of pictures: separators, headers, and what makes no sense."""

from pathlib import Path

import pytest

from pet_cifar.data.labels_file import read_labels_file
from pet_cifar.data.layout import LayoutFile
from pet_cifar.errors import InputError

TWO = [LayoutFile("img/1.jpg", "cat", ""), LayoutFile("img/2.jpg", "dog", "")]


def read(tmp_path: Path, text: str | bytes) -> list[LayoutFile]:
    file = tmp_path / "labels.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels_file(file).files


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["path{}label", "file{}class", "Filename{}Category", ""])
def test_separators_and_headers_are_guessed(tmp_path: Path, separator: str, header: str) -> None:
    rows = [header.format(separator)] if header else []
    rows += [f"img/1.jpg{separator}cat", f"img/2.jpg{separator}dog"]
    assert read(tmp_path, "\n".join(rows)) == TWO


def test_columns_stand_in_any_order_and_quotes_hold_separators(tmp_path: Path) -> None:
    text = 'animal,label,split,path\n7,"cat, white",train,"a, b.jpg"\n8,dog,Validation,c.jpg\n'
    assert read(tmp_path, text) == [LayoutFile("a, b.jpg", "cat, white", "train"), LayoutFile("c.jpg", "dog", "val")]
    assert read_labels_file(tmp_path / "labels.csv").values["c.jpg"]["animal"] == "8"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\nimg/1.jpg,cat\nimg/2.jpg,dog\n",
        "path,label\r\nimg/1.jpg,cat\r\n\r\nimg/2.jpg,dog\r\n",
        "path,label\n./img/1.jpg, cat\nimg\\2.jpg,dog\n",
        "path,label\nimg/1.jpg,cat\nimg/1.jpg,cat\nimg/2.jpg,dog\n",
    ],
    ids=["byte order mark", "Windows", "other ways to write a path", "a repeated row"],
)
def test_ways_to_write_the_same_table(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == TWO


def test_absolute_paths_are_those_below_the_table(tmp_path: Path) -> None:
    text = f"path,label\n{tmp_path}/img/1.jpg,cat\nimg/2.jpg,dog\n"
    assert read(tmp_path, text) == TWO


def test_a_separator_within_quotes_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, '"a;b;c 1.png",cat\n') == [LayoutFile("a;b;c 1.png", "cat", "")]


def test_cells_have_no_spaces_around_them(tmp_path: Path) -> None:
    read(tmp_path, "path,label,patient\na.jpg,cat,p0\nb.jpg,cat,p0 \n")
    values = read_labels_file(tmp_path / "labels.csv").values
    assert values["a.jpg"]["patient"] == values["b.jpg"]["patient"] == "p0"


def test_accents_are_written_in_one_way(tmp_path: Path) -> None:
    first, second = read(tmp_path, "a.jpg,caf\u00e9\nb.jpg,cafe\u0301\n")
    assert first.label == second.label


def test_a_column_that_numbers_folds_is_no_split(tmp_path: Path) -> None:
    assert [row.split for row in read(tmp_path, "path,label,fold\na.jpg,cat,0\nb.jpg,dog,1\n")] == ["", ""]
    assert [row.split for row in read(tmp_path, "path,label,fold\na.jpg,cat,train\n")] == ["train"]


def test_classes_that_are_numbers_are_names(tmp_path: Path) -> None:
    assert [row.label for row in read(tmp_path, "a.jpg,0\nb.jpg,1\n")] == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["labels.csv is empty"]),
        ("path,label\n", ["labels.csv names no picture"]),
        ("path,label\na.jpg,\n", ["line 2", "no class"]),
        ("path,label\n,cat\n", ["line 2", "no path"]),
        ("path,label,split\na.jpg,cat,trian\n", ["line 2", "split trian", "did you mean train?"]),
        ("path,label\na.jpg,cat\na.jpg,dog\n", ["line 3", "a.jpg", "cat", "dog"]),
        ("path,label,split\na.jpg,cat,train\na.jpg,cat,test\n", ["line 3", "(test)", "(train)"]),
        (b"path,label\ncaf\xe9.jpg,cat\n", ["line 2", "UTF-8"]),
        ('path,label\n"a.jpg,cat\n', ["labels.csv", "quotes"]),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels is .*nowhere\.csv"):
        read_labels_file(tmp_path / "nowhere.csv")
