"""Short checksums of kept arrays, by which a row that was changed or damaged on the disk is told from a good one."""

import hashlib

SIZE = 8
"""The bytes of a checksum. It is never all zero, which stands for a row that is not there yet."""


def checksum(content: bytes | memoryview) -> bytes:
    """The checksum of contiguous bytes: 8 bytes of SHA-256, for which most processors have instructions."""
    digest = hashlib.sha256(content).digest()[:SIZE]
    return digest if any(digest) else b"\1" * SIZE
