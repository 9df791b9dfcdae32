"""Names of files as text that can be printed, and as names of other files."""

import re
from collections.abc import Sequence


def printable(name: str) -> str:
    r"""A name without control codes and without bytes that are no UTF-8; both become escapes such as ``\x1b``.

    Python reads a byte of a name that is no UTF-8 as a surrogate, which no file and no terminal takes.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def listed(names: Sequence[str], most: int) -> str:
    """The first ``most`` names as they can be printed, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def plain_stem(name: str) -> str:
    """The name of a file that comes from elsewhere, cut down to letters that no page and no disk minds."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]


def _escaped(letter: str) -> str:
    number = ord(letter)
    # The surrogates from U+DC80 on stand for the bytes from 0x80 on.
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else letter.encode("unicode_escape").decode()
