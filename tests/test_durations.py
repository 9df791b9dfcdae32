"""Lengths of time are read and told."""

import pytest

from pet_cifar.durations import described, seconds_of
from pet_cifar.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10min", 600), ("1h", 3600), ("1.5h", 5400), ("1h30min", 5400), ("2 h 5 m", 7500), ("1D", 86400)],
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert seconds_of("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "10", "abc", "-5min", "0s", "10 parsecs", "1h 30", "inf", "1h,30min"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--budget") as caught:
        seconds_of("--budget", text)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (4.26, "4.3 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (598, "9 min 58 s"),
        (3661, "1 h 01 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_a_length_of_time_is_told(seconds: float, words: str) -> None:
    assert described(seconds) == words
