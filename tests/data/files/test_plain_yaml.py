"""YAML of strangers: it cannot grow, names no type, and every refusal is one line."""

import tracemalloc
from pathlib import Path

import pytest

from pet_cifar.data.files.plain_yaml import MAX_BYTES, MAX_DEPTH, check_plain, read_yaml, read_yaml_file
from pet_cifar.errors import InputError

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


def test_plain_values_are_read() -> None:
    text = "a: &a [1, 2.5, true, null]\nb: *a\nc: {<<: {d: e}}\nf: 2024-01-01\n"
    assert read_yaml(text, "it") == {
        "a": [1, 2.5, True, None],
        "b": [1, 2.5, True, None],
        "c": {"d": "e"},
        "f": "2024-01-01",
    }


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a [*a]",
        "a: !!python/object/apply:os.system [ls]",
        "a: !!str b",
        "a: !own b",
        "a: !%0A%1B[31m b",
        "a: !<" + "x" * 9_000 + "> b",
        "a: !" + "x" * 9_000 + "!y b",
        "a: *" + "x" * 9_000,
        "&" + "x" * 9_000 + " [*" + "x" * 9_000 + "]",
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * 100_000,
        "- " * 10_000 + "a",
        "a: b: c",
        "a: *nothing",
        "a\n---\nb",
        "a: " + "1" * 9_000,
        "a: " + "x" * 20_000,
        "a: &a " + "x" * 9_999 + "\nb: [" + "*a ," * 45_000 + "]",
        "a: \x00",
        "{[1]: 2}",
        # The two loaders of PyYAML do not agree on where this mark may stand.
        "---\n\ufeffclass_path: os.system",
        "x" * (MAX_BYTES + 1),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_plain_config_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_yaml(text, "--config my.yaml")
    assert str(caught.value).startswith("--config my.yaml")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_billion_laughs_take_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_yaml(LAUGHS, "it")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_file_is_refused_that_is_no_text_or_too_large(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    with pytest.raises(InputError, match=r"my\.yaml"):
        read_yaml_file(file, f"--config {file}")
    for content in (b"\xff\xfe a", b"a: b\n" * MAX_BYTES):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"my\.yaml") as caught:
            read_yaml_file(file, f"--config {file}")
        assert len(str(caught.value)) < 400


def test_values_that_repeat_themselves_are_refused() -> None:
    laughs: list[object] = ["x"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    within: list[object] = []
    within.append(within)
    for value in (laughs, within, ["x" * 10**6] * 1_000, {"a": {1, 2}}, {"a": b"bytes"}, object()):
        with pytest.raises(InputError, match="the config"):
            check_plain(value, "the config")
    check_plain({"a": [1, "b", None, 2.5, {"c": True}], 3: (1, 2)}, "the config")
