"""Names of files as text that can be printed, and as names of other files."""

import re
import unicodedata
from collections.abc import Sequence

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'=", "'+", "'-", "'@", "'\t", "'\r", "''")
"""What the cells begin with that become formulas, and what would be read back as one of these."""


def printable(name: str) -> str:
    r"""A name without control codes and without bytes that are no UTF-8; both become escapes such as ``\x1b``.

    Python reads a byte of a name that is no UTF-8 as a surrogate, which no file and no terminal takes.
    """
    if name.isprintable():  # Of 100,000 names hardly any is not.
        return name
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def without_codes(name: str) -> str:
    """A name whose control codes and bytes that are no UTF-8 are escapes; other letters, even odd spaces, stay."""
    return "".join(_escaped(letter) if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in name)


def lines_without_codes(text: str) -> str:
    """A text of several lines, each without control codes."""
    return "\n".join(map(without_codes, text.split("\n")))


def as_cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula, after OWASP's page on CSV injection.

    A number stays as it is, since a class may be called -1. `from_cell` gives the text back.
    """
    if not text.startswith(_FORMULAS) or re.fullmatch(r"[+-]?[\d.]+", text):
        return text
    return f"'{text}"


def from_cell(cell: str) -> str:
    """The text that `as_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULAS) else cell


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
