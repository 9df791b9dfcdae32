"""What the end of a zip file says of its list of members.

The records are those of PKWARE's APPNOTE, sections 4.3.14 to 4.3.16.
"""

import struct
from typing import BinaryIO, NamedTuple

_END, _LOCATOR = b"PK\5\6", b"PK\6\7"
"""How two records of the end begin: the last one, and the one that tells where the record of a large list is."""
_LONGEST_END = 22 + 0xFFFF
"""The bytes of the last record with the longest comment."""
_RECORD_64 = 76
"""The bytes of the records of a large list, which lie before the last one."""


class ZipEnd(NamedTuple):
    """What the end says.

    Attributes:
        members: The number of members, of which the last record keeps 16 bits; 0xFFFF where they are more.
        length: The bytes of the list, by which Python's zipfile finds it from the end.
        start: Where the list begins, counted from the file's beginning, which is how torch finds it; None where two
            records of the end contradict each other.
    """

    members: int
    length: int
    start: int | None


def read_zip_end(file: BinaryIO) -> ZipEnd | None:
    """Reads the end as zipfile does: a large list has a record of its own, and that one counts.

    Returns:
        What the end says; None where there is none, or only a part of it.
    """
    size = file.seek(0, 2)
    begin = file.seek(max(0, size - _LONGEST_END - _RECORD_64))
    tail = file.read()
    end = tail.rfind(_END)
    if not 0 <= end <= len(tail) - 22:
        return None
    members, length, start = struct.unpack_from("<HII", tail, end + 10)
    if end >= _RECORD_64 and tail.startswith(_LOCATOR, end - 20):
        length, start = struct.unpack_from("<QQ", tail, end - _RECORD_64 + 40)
        (place,) = struct.unpack_from("<Q", tail, end - 12)
        return ZipEnd(members, length, start if place == begin + end - _RECORD_64 else None)
    return ZipEnd(members, length, start)
