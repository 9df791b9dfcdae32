import csv
import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pet_cifar.data import manifest
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.pixels.decode import DecodeError, inspect
from pet_cifar.data.split import fingerprint, stratified_split
from pet_cifar.data.synthetic import synthetic_picture
from pet_cifar.errors import InputError

Files = list[tuple[str, str, str]]


def jpeg(number: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(synthetic_picture(0, number, 24)).save(buffer, "JPEG")
    return buffer.getvalue()


def write(folder: Path, contents: dict[str, bytes]) -> Files:
    """Writes files and lists them, labeled by their directory."""
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return [(path, path.split("/")[0].lower(), "") for path in contents]


def check(folder: Path, files: Files) -> list[ImageRecord]:
    return manifest.check_files(folder, files, folder / ".pet_cifar" / "list.csv", 2)


def verdicts(pictures: Sequence[ImageRecord]) -> dict[str, str]:
    return {picture.path: picture.verdict for picture in pictures}


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    """Content and time of all that is the user's."""
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".pet_cifar" not in path.relative_to(root).parts
    }


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded since, one entry a file."""
    calls: list[bytes] = []

    def counting(encoded: bytes) -> tuple[int, int, str]:
        calls.append(encoded)
        return inspect(encoded)

    monkeypatch.setattr(manifest, "inspect", counting)
    return calls


def entry(number: int, label: str = "cat", split: str = "", verdict: str = manifest.OK) -> ImageRecord:
    digest = hashlib.sha256(f"{label}{number}".encode()).hexdigest()
    return ImageRecord(f"{label}/{number}.jpg", label, split, 100, 0, 0, 8, 8, "RGB", digest, verdict)


def entries(per_class: int) -> list[ImageRecord]:
    return [entry(number, label) for label in ("cat", "dog") for number in range(per_class)]


def every_verdict(folder: Path) -> Files:
    return write(
        folder,
        {
            "Cat/1.jpg": jpeg(1),
            "Cat/2.jpg": jpeg(1),
            "Cat/3.jpg": b"",
            "Cat/4.jpg": jpeg(4)[:-200],
            "Cat/5.jpg": b"BM" + bytes(100),
            "Cat/6.jpg": b"<html>not found</html>",
            "Cat/Thumbs.db": b"\xd0\xcf\x11\xe0",
            "Dog/1.jpg": jpeg(11),
        },
    )


# Verdicts


def test_every_verdict(tmp_path: Path) -> None:
    assert verdicts(check(tmp_path, every_verdict(tmp_path))) == {
        "Cat/1.jpg": "ok",
        "Cat/2.jpg": "duplicate of Cat/1.jpg",
        "Cat/3.jpg": "empty",
        "Cat/4.jpg": "truncated",
        "Cat/5.jpg": "undecodable",
        "Cat/6.jpg": "not an image",
        "Cat/Thumbs.db": "not an image",
        "Dog/1.jpg": "ok",
    }


def test_bad_are_files_that_should_be_pictures(tmp_path: Path) -> None:
    listed = check(tmp_path, every_verdict(tmp_path))
    assert {picture.path for picture in listed if picture.is_bad} == {f"Cat/{n}.jpg" for n in (3, 4, 5, 6)}


def test_what_is_listed_of_a_picture(tmp_path: Path) -> None:
    encoded = jpeg(7)
    files = write(tmp_path, {"Cat/7.jpg": encoded})
    status = (tmp_path / "Cat/7.jpg").stat()
    digest = hashlib.sha256(encoded).hexdigest()
    assert check(tmp_path, files) == [
        ImageRecord(
            "Cat/7.jpg", "cat", "", len(encoded), status.st_mtime_ns, status.st_ctime_ns, 24, 24, "RGB", digest, "ok"
        )
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "Cat/1.jpg").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot read .*Cat/1\.jpg.*Is a directory"):
        manifest.check_file(tmp_path, "Cat/1.jpg", "cat", "")


# The listing


def test_nothing_is_read_again_when_nothing_changed(tmp_path: Path, inspected: list[bytes]) -> None:
    files = every_verdict(tmp_path)
    first = check(tmp_path, files)
    assert len(inspected) == len(files)
    inspected.clear()
    assert check(tmp_path, files) == first
    assert not inspected


def test_only_a_changed_file_is_read_again(tmp_path: Path, inspected: list[bytes]) -> None:
    files = every_verdict(tmp_path)
    check(tmp_path, files)
    inspected.clear()
    mended = jpeg(3)
    (tmp_path / "Cat/3.jpg").write_bytes(mended)
    assert verdicts(check(tmp_path, files))["Cat/3.jpg"] == "ok"
    assert inspected == [mended]
    inspected.clear()
    check(tmp_path, files)
    assert not inspected, "the change was not written down"


def test_a_file_of_the_same_size_and_another_time_is_read_again(tmp_path: Path, inspected: list[bytes]) -> None:
    files = write(tmp_path, {"Cat/1.jpg": jpeg(1), "Cat/2.jpg": jpeg(2)})
    check(tmp_path, files)
    inspected.clear()
    os.utime(tmp_path / "Cat/2.jpg", ns=(0, 12345))
    listed = check(tmp_path, files)
    assert inspected == [jpeg(2)]
    assert listed[1].modified_ns == 12345


def test_a_removed_file_leaves_the_listing(tmp_path: Path) -> None:
    files = every_verdict(tmp_path)
    check(tmp_path, files)
    left = [file for file in files if file[0] != "Dog/1.jpg"]
    (tmp_path / "Dog/1.jpg").unlink()
    assert "Dog/1.jpg" not in verdicts(check(tmp_path, left))
    assert "Dog/1.jpg" not in verdicts(manifest.read_csv(tmp_path / ".pet_cifar/list.csv"))


def test_a_duplicate_becomes_usable_when_the_first_is_removed(tmp_path: Path, inspected: list[bytes]) -> None:
    files = write(tmp_path, {"Cat/1.jpg": jpeg(1), "Cat/2.jpg": jpeg(1)})
    assert verdicts(check(tmp_path, files))["Cat/2.jpg"] == "duplicate of Cat/1.jpg"
    inspected.clear()
    (tmp_path / "Cat/1.jpg").unlink()
    assert verdicts(check(tmp_path, files[1:])) == {"Cat/2.jpg": "ok"}
    assert not inspected


def test_labels_and_parts_are_not_taken_from_an_old_listing(tmp_path: Path) -> None:
    write(tmp_path, {"Cat/1.jpg": jpeg(1)})
    check(tmp_path, [("Cat/1.jpg", "cat", "")])
    (again,) = check(tmp_path, [("Cat/1.jpg", "kitten", "test")])
    assert (again.label, again.split) == ("kitten", "test")


def test_a_listing_is_read_as_it_was_written(tmp_path: Path) -> None:
    pictures = [
        entry(1),
        replace(entry(2), path='Cat/a, "b"\n\u00e9.jpg', verdict="truncated"),
        entry(3, split="test"),
    ]
    manifest.write_csv(pictures, tmp_path / "list.csv")
    assert manifest.read_csv(tmp_path / "list.csv") == pictures
    assert [path.name for path in tmp_path.glob("*list*")] == ["list.csv"]


def spoil(listing: Path, damage: str) -> None:
    with listing.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    whole = listing.read_text(encoding="utf-8")
    match damage:
        case "empty":
            listing.write_text("")
        case "older columns":
            listing.write_text("\n".join(",".join(row[:-1]) for row in rows))
        case "cut in a line":
            # within the last row's time
            listing.write_text(whole[: whole.rindex(rows[-1][4]) + 3], encoding="utf-8")
        case "cut in a word":
            listing.write_text(whole[: whole.rindex(rows[-1][8]) + 3], encoding="utf-8")
        case "letters for a number":
            listing.write_text("\n".join([*whole.splitlines()[:1], "Cat/1.jpg,cat,,x,1,2,3,RGB,abc,ok"]))
        case "too many cells":
            listing.write_text("\n".join([*whole.splitlines()[:1], "Cat/1.jpg,cat,,5,1,2,3,RGB,abc,ok,more"]))
        case "no text":
            listing.write_bytes(b"\x89PNG\xff\xfe" + bytes(range(256)))
        case "zeros at the end":
            # what a power cut leaves on some file systems
            listing.write_bytes(listing.read_bytes() + bytes(64))


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "older columns",
        "cut in a line",
        "cut in a word",
        "letters for a number",
        "too many cells",
        "no text",
        "zeros at the end",
    ],
)
def test_a_damaged_or_older_listing_is_made_anew(tmp_path: Path, damage: str) -> None:
    files = every_verdict(tmp_path)
    expected = check(tmp_path, files)
    listing = tmp_path / ".pet_cifar/list.csv"
    whole = listing.read_bytes()
    spoil(listing, damage)
    assert check(tmp_path, files) == expected
    assert listing.read_bytes() == whole


def test_nothing_of_the_users_is_changed(tmp_path: Path) -> None:
    files = every_verdict(tmp_path)
    before = snapshot(tmp_path)
    check(tmp_path, files)
    check(tmp_path, files)
    assert snapshot(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"Cat", "Dog", ".pet_cifar"}


# Order


def test_names_are_in_natural_order(tmp_path: Path) -> None:
    names = [f"Cat/{name}.jpg" for name in ("10", "9", "100", "1", "a10", "a9", "b")]
    files = write(tmp_path, {name: jpeg(number) for number, name in enumerate(names)})
    expected = [f"Cat/{name}.jpg" for name in ("a9", "a10", "b", "1", "9", "10", "100")]
    paths = [picture.path for picture in check(tmp_path, files)]
    assert [path for path in paths if path[4].isdigit()] == [
        "Cat/1.jpg",
        "Cat/9.jpg",
        "Cat/10.jpg",
        "Cat/100.jpg",
    ]
    assert [path for path in paths if not path[4].isdigit()] == expected[:3]


def test_the_order_of_listing_does_not_count(tmp_path: Path) -> None:
    files = write(tmp_path, {f"{name}/{n}.jpg": jpeg(n % 7) for name in ("Cat", "Dog") for n in range(12)})
    expected = check(tmp_path, files)
    for seed in range(3):
        shutil.rmtree(tmp_path / ".pet_cifar")
        assert check(tmp_path, random.Random(seed).sample(files, len(files))) == expected


def test_names_that_differ_in_leading_zeros_have_an_order_too() -> None:
    assert manifest.natural_key("Cat/1.jpg") != manifest.natural_key("Cat/01.jpg")


@pytest.mark.parametrize("name", ["Cat/1\u00b22.jpg", "Cat/\u0663.jpg", "Cat/3\u00bd4.jpg"])
def test_unusual_digits_in_names_have_an_order_too(name: str) -> None:
    assert sorted([name, "Cat/1.jpg"], key=manifest.natural_key)


def test_test_parts_are_not_thinned_and_the_training_copy_goes() -> None:
    first = replace(entry(1), split="train", path="train/a")
    copies = [replace(first, split=split, path=path) for split, path in (("test", "test/a"), ("test", "test/b"))]
    later = replace(first, path="train/b")
    other = entry(2, split="train")
    assert verdicts(manifest.mark_duplicates([first, *copies, later, other])) == {
        "train/a": "duplicate of test/a",
        "test/a": "ok",
        "test/b": "ok",
        "train/b": "duplicate of test/a",
        other.path: "ok",
    }


def test_copies_of_what_is_no_picture_are_no_duplicates() -> None:
    bad = [replace(entry(1, verdict="empty"), path=f"Cat/{number}.jpg") for number in range(2)]
    assert manifest.mark_duplicates(bad) == bad


def test_duplicates_are_never_on_both_sides() -> None:
    pictures = [
        replace(picture, path=f"{picture.label}/{copy}-{picture.path}") for picture in entries(20) for copy in "ab"
    ]
    usable = [picture for picture in manifest.mark_duplicates(pictures) if picture.verdict == manifest.OK]
    rest, taken = stratified_split(usable, 0.2, 0, "val_fraction")
    assert len(rest) + len(taken) == 40
    assert not {picture.hash for picture in rest} & {picture.hash for picture in taken}


def test_arrays_are_listed_with_their_duplicates() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    color = np.stack([gray] * 3, axis=-1)
    rows = [
        ("b#0", "cat", "train", gray),
        ("b#1", "cat", "train", color),
        ("b#2", "dog", "train", gray.copy()),
    ]
    first, second, third = manifest.check_arrays(rows)
    assert (first.width, first.height, first.mode, first.bytes) == (4, 3, "L", 12)
    assert (second.width, second.height, second.mode, second.verdict) == (4, 3, "RGB", "ok")
    assert first.hash == hashlib.sha256(gray.tobytes()).hexdigest()
    assert third.verdict == "duplicate of b#0"


# The division


@pytest.mark.parametrize(("size", "expected"), [(0.1, 10), (0.25, 25), (30, 30)])
def test_a_split_is_disjoint_complete_stratified_and_in_order(size: float | int, expected: int) -> None:
    pictures = entries(50)
    rest, taken = stratified_split(pictures, size, 3, "val_fraction")
    assert len(taken) == expected
    assert sorted([*rest, *taken], key=pictures.index) == pictures
    assert not set(rest) & set(taken)
    counts = Counter(picture.label for picture in taken)
    assert abs(counts["cat"] - counts["dog"]) <= 1
    assert [rest, taken] == [sorted(side, key=pictures.index) for side in (rest, taken)]


def test_a_split_is_the_same_for_the_same_seed_only() -> None:
    pictures = entries(50)
    state = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr, unused-ignore]
    assert stratified_split(pictures, 0.2, 1, "x") == stratified_split(pictures, 0.2, 1, "x")
    assert stratified_split(pictures, 0.2, 1, "x") != stratified_split(pictures, 0.2, 2, "x")
    assert np.random.get_state()[1].tolist() == state  # type: ignore[index, union-attr, unused-ignore]


FROZEN_TEST = ["cat/0.jpg", "cat/5.jpg", "dog/4.jpg", "dog/7.jpg"]
FROZEN_VAL = ["cat/6.jpg", "cat/7.jpg", "dog/2.jpg", "dog/6.jpg"]
FROZEN_FINGERPRINT = "e79641b1b582971b7134c5d453ddbe9254efad911fe2157a977cf538ca7a5a5c"


def test_the_division_is_the_one_of_earlier_versions() -> None:
    """Another division would put pictures on which old checkpoints were trained into the test split."""
    rest, test = stratified_split(entries(10), 0.2, 0, "test_fraction")
    train, val = stratified_split(rest, 0.25, 0, "val_fraction")
    assert [picture.path for picture in test] == FROZEN_TEST
    assert [picture.path for picture in val] == FROZEN_VAL
    assert fingerprint({"train": train, "val": val, "test": test}) == FROZEN_FINGERPRINT


@pytest.mark.parametrize("size", [0.0, 1.0, 1.5, -0.5, float("nan")])
def test_a_fraction_out_of_range_is_named(size: float) -> None:
    with pytest.raises(InputError, match=r"test_fraction is .*above 0 and below 1"):
        stratified_split(entries(10), size, 0, "test_fraction")


@pytest.mark.parametrize(("per_class", "size"), [(1, 0.5), (0, 0.5), (10, 20), (10, 25)])
def test_too_few_pictures_for_a_division_are_named(per_class: int, size: float | int) -> None:
    with pytest.raises(InputError, match=f"val_fraction is {size}, but") as caught:
        stratified_split(entries(per_class), size, 0, "val_fraction")
    assert "\n" not in str(caught.value)
    if per_class:
        assert f"class cat has {per_class} picture" in str(caught.value)


@pytest.mark.parametrize("size", [0.1, 0.01, 0, 1, 10])
@pytest.mark.parametrize("cats", [2, 3, 7])
def test_a_rare_class_is_on_both_sides(cats: int, size: float | int) -> None:
    pictures = [
        *(entry(number, "cat") for number in range(cats)),
        *(entry(number, "dog") for number in range(97)),
    ]
    sides = stratified_split(pictures, size, 0, "val_fraction")
    assert [{picture.label for picture in side} for side in sides] == [{"cat", "dog"}] * 2
    assert sorted(picture.path for side in sides for picture in side) == sorted(picture.path for picture in pictures)


def test_groups_are_never_divided() -> None:
    pictures = [entry(number, label) for label in ("cat", "dog") for number in range(40)]
    animals = {picture.path: f"{picture.label} {number // 4}" for number, picture in enumerate(pictures)}
    rest, taken = stratified_split(pictures, 0.2, 0, "val_fraction", lambda picture: animals[picture.path])
    assert not {animals[picture.path] for picture in rest} & {animals[picture.path] for picture in taken}
    # How near the shares come to a fifth differs between versions of scikit-learn.
    assert all(4 <= count <= 12 for count in Counter(picture.label for picture in taken).values())
    assert {picture.label for picture in taken} == {"cat", "dog"}
    with pytest.raises(InputError, match=r"val_fraction is 0\.2, but class cat has 40 .* group"):
        stratified_split(pictures, 0.2, 0, "val_fraction", lambda picture: picture.label)


# The fingerprint


def test_names_and_order_do_not_change_the_fingerprint() -> None:
    train, val = entries(5), [entry(9)]
    renamed = [replace(picture, path=f"x/{picture.path}", modified_ns=5) for picture in reversed(train)]
    expected = fingerprint({"train": train, "val": val})
    assert fingerprint({"val": val, "train": renamed}) == expected


def test_content_label_and_part_change_the_fingerprint() -> None:
    train, val = entries(5), [entry(9)]
    others = [
        fingerprint({"train": train, "val": val}),
        fingerprint({"train": train, "test": val}),
        fingerprint({"train": train[1:], "val": val}),
        fingerprint({"train": [*train, train[0]], "val": val}),
        fingerprint({"train": [replace(train[0], hash="0" * 64), *train[1:]], "val": val}),
        fingerprint({"train": [replace(train[0], label="dog"), *train[1:]], "val": val}),
        fingerprint({"train": [*train[1:], *val], "val": train[:1]}),
    ]
    assert len(set(others)) == len(others)


def test_what_no_plugin_could_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path, {"Cat/1.jpg": jpeg(1), "Cat/2.jpg": jpeg(2)})

    def refuse(encoded: bytes) -> tuple[int, int, str]:
        raise DecodeError("unsupported format", "no plugin")

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "inspect", refuse)
        assert set(verdicts(check(tmp_path, files)).values()) == {"unsupported format"}
    assert set(verdicts(check(tmp_path, files)).values()) == {"ok"}
