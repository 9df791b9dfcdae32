from pathlib import Path

from pet_cifar.data import manifest_report
from tests.data.test_manifest import check, entries, entry, every_verdict, jpeg, write


def test_a_label_conflict_is_reported(tmp_path: Path) -> None:
    files = write(tmp_path, {"Cat/1.jpg": jpeg(1), "Cat/2.jpg": jpeg(1), "Dog/1.jpg": jpeg(1), "Dog/2.jpg": jpeg(2)})
    (pair,) = manifest_report.label_conflicts(check(tmp_path, files))
    assert [picture.path for picture in pair] == ["Cat/1.jpg", "Dog/1.jpg"]


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    assert manifest_report.describe_left_out(check(tmp_path, every_verdict(tmp_path))) == (
        "left out 6 of 8 files: 1 duplicate (Cat/2.jpg); 1 empty (Cat/3.jpg); "
        "2 not an image (Cat/6.jpg, Cat/Thumbs.db); 1 truncated (Cat/4.jpg); 1 undecodable (Cat/5.jpg)"
    )


def test_nothing_is_said_when_nothing_is_left_out() -> None:
    assert manifest_report.describe_left_out(entries(3)) == ""


def test_a_long_list_of_left_out_is_cut() -> None:
    bad = [entry(number, verdict="empty") for number in range(5)]
    expected = "left out 5 of 5 files: 5 empty (cat/0.jpg, cat/1.jpg, and 3 more)"
    assert manifest_report.describe_left_out(bad, most=2) == expected
    assert "more" not in manifest_report.describe_left_out(bad, most=5)


def test_the_summary_counts_every_verdict(tmp_path: Path) -> None:
    table = manifest_report.verdict_table(check(tmp_path, every_verdict(tmp_path)))
    rows = [line.split() for line in table.splitlines()]
    assert rows == [
        ["split", "class", "ok", "duplicate", "empty", "truncated", "undecodable", "not", "an", "image"],
        ["all", "cat", *"111112"],
        ["all", "dog", *"100000"],
        ["total", *"211112"],
    ]


def test_the_summary_tells_parts_apart() -> None:
    lines = manifest_report.verdict_table(
        [entry(1, split="train"), entry(2, split="train"), entry(3, split="test")]
    ).splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["test", "cat", "1"], ["train", "cat", "2"]]
    assert len({len(line) for line in lines}) == 1
