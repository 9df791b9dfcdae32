"""Names of files on a terminal."""

import os

import pytest

from pet_cifar.names import printable


@pytest.mark.parametrize("name", ["cat.jpg", "Érable à sucre/猫 1.jpg", "a b.jpg"])
def test_what_can_be_printed_stays(name: str) -> None:
    assert printable(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred.jpg", "\\x1b[31mred.jpg"),
        ("two\nlines.jpg", "two\\nlines.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
    ],
)
def test_what_cannot_be_printed_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert shown.encode("ascii")
