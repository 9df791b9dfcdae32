"""Downloads files with urllib alone: downloads resume, fall back to mirrors, and are checked."""

import hashlib
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from pet_cifar.data.files.connection import HTTPHandler, HTTPSHandler
from pet_cifar.data.files.locking import locked
from pet_cifar.data.links import refuse_links
from pet_cifar.errors import DataMissingError, InputError, disk_errors

_ATTEMPTS = 3
"""The number of attempts at each mirror."""
_PAUSE = 1.0
"""Seconds before the second attempt; each further one waits twice as long."""
_CHUNK = 1 << 18
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
"""HTTP errors that may pass; after any other one the next mirror is tried at once."""


class _WrongFileError(HTTPException):
    """The mirror answers, but not with the file that is wanted."""


class _NoFTP(urllib.request.FTPHandler):
    """Refuses a redirect to ftp, which is the only way by which urllib would leave http."""

    def ftp_open(self, req: urllib.request.Request) -> NoReturn:
        raise _WrongFileError("redirects to ftp, which is refused")


@dataclass(frozen=True)
class _Wanted:
    """What is known of the file before it is here."""

    size: int | None
    digests: dict[str, str]

    def fault(self, path: Path) -> str | None:
        """Returns what is wrong with the finished file; None if nothing is."""
        with disk_errors(path):
            size = path.stat().st_size
            if self.size is not None and size != self.size:
                return f"wrong size, {size} bytes or more where {self.size} are expected"
            for name, expected in self.digests.items():
                # md5 finds damage here and protects nothing; FIPS builds of OpenSSL refuse it unless they are told.
                new: Callable[[], Any] = partial(hashlib.new, name, usedforsecurity=False)
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, new).hexdigest()
                if digest != expected.lower():
                    return f"wrong {name}, {digest} where {expected.lower()} is expected"
        return None


_IS_FORBIDDEN: ContextVar[bool] = ContextVar("is_forbidden", default=False)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Refuses every download within the block, for commands that can do without the data."""
    token = _IS_FORBIDDEN.set(True)
    try:
        yield
    finally:
        _IS_FORBIDDEN.reset(token)


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    timeout: float = 30,
    missing: str = "",
) -> Path:
    """Downloads a file from the first mirror that works, going on where an earlier attempt broke off.

    Bytes are kept in ``target`` + ".part" until all are here and checked, so that ``target`` is whole or absent.
    Without ``size`` and digests nothing is checked but the length that the mirror itself announces.

    Args:
        urls: The http or https addresses of the same file, in the order in which they are tried.
        target: The path that the file goes to; if it exists, nothing is done.
        size: The expected size in bytes.
        sha256: The expected digest, in hexadecimal.
        md5: The expected digest, in hexadecimal.
        timeout: The seconds without a byte after which a connection counts as broken. A mirror to which there is no
            connection within a few seconds is given up before.
        missing: A clause that says what was looked for before; it begins the error's line.

    Returns:
        ``target``.

    Raises:
        DataMissingError: No mirror gave the file.
        InputError: The disk cannot take it.
    """
    if _IS_FORBIDDEN.get():
        raise DataMissingError(f"{missing.removesuffix(' and').removesuffix(',') or target}; give --data.root DIR")
    if _exists(target):
        return target
    if not urls:
        raise InputError(f"{target} is missing and has no known address; put the file there by hand")
    for url in urls:
        _check_url(url)
    wanted = _Wanted(size, {name: hex for name, hex in (("sha256", sha256), ("md5", md5)) if hex is not None})
    part = target.with_name(target.name + ".part")
    failures = []
    refuse_links([part])
    with locked(target):
        if _exists(target):
            return target
        _check_space(part, size)
        for url in urls:
            failure = _try_mirror(url, part, wanted, timeout)
            if failure is None:
                with disk_errors(target):
                    with part.open("rb+") as file:
                        # Without this a power cut could leave an empty target.
                        os.fsync(file.fileno())
                    part.replace(target)
                return target
            failures.append(f"{url}: {failure}")
        kept = _length(part)
    raise DataMissingError(
        f"{missing}{' ' if missing else ''}cannot download {target.name} ({'; '.join(failures)}); run again"
        + (f" to go on after the {kept} bytes that are here" if kept else "")
        + f", put the file at {target} by hand, or set the root to a folder that has it"
    )


def _exists(target: Path) -> bool:
    with disk_errors(target):
        if target.is_dir() or (target.is_symlink() and not target.exists()):
            raise InputError(f"{target} is a folder or a broken link where a file should be; move it away")
        return target.exists()


def _length(path: Path) -> int:
    with disk_errors(path):
        return path.stat().st_size if path.exists() else 0


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # The brackets or the port make no sense.
        valid = False
    if not valid or not re.fullmatch(r"[!-~]+", url):
        raise InputError(f"cannot download from {url!r}: only http:// and https:// addresses are accepted")


def _check_space(part: Path, size: int | None) -> None:
    missing = 0 if size is None else size - _length(part)
    with disk_errors(part):
        free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise InputError(
            f"{part.parent} has {free} bytes free and {missing} more are needed for {part.stem}; "
            "make room, or set the root to another disk"
        )


def _try_mirror(url: str, part: Path, wanted: _Wanted, timeout: float) -> str | None:
    """Completes the part from one mirror; returns None when it is whole and right, else what is wrong."""
    inherited = _length(part) > 0
    failure = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            _transfer(url, part, wanted, timeout)
        except HTTPError as error:
            failure = f"HTTP {error.code} {error.reason}"
            if error.code not in _RETRIED:
                break
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            failure = str(reason) or type(reason).__name__
            # urllib wraps only errors of the request, not of the answer: such a timeout means that nobody is there.
            out_of_reach = isinstance(error, URLError) and isinstance(reason, TimeoutError)
            if out_of_reach or isinstance(error, _WrongFileError):
                break
        else:
            fault = wanted.fault(part)
            if fault is None:
                return None
            failure = fault
            with disk_errors(part):
                part.unlink()
            if not inherited:
                break
            # The bad bytes may come from an earlier mirror, so this one may give the whole file once.
            inherited = False
    return " ".join(failure.split())


def _transfer(url: str, part: Path, wanted: _Wanted, timeout: float, resume: bool = True) -> None:
    """Appends what is missing to the part, in one connection."""
    size = wanted.size
    have = _length(part) if resume else 0
    if have and size is not None and have >= size:
        return  # The part is whole or too long; the check that follows finds out.
    headers = {"User-Agent": "pet_cifar", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_NoFTP, HTTPHandler, HTTPSHandler)
    try:
        response = opener.open(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        total = _content_range(error.headers)[1]
        if total == have or (total is None and wanted.digests):
            return  # Nothing is missing, as far as the mirror knows; the check that follows finds out.
        _transfer(url, part, wanted, timeout, resume=False)
        return
    with response:
        if response.status == 206:
            start, total = _content_range(response.headers)
            if start != have:
                raise _WrongFileError(f"answers with bytes from {start} where {have} was asked for")
        elif response.status == 200:  # The server knows no ranges and sends the file from its start.
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        else:
            raise _WrongFileError(f"HTTP {response.status} {response.reason}")
        if None not in (size, total) and size != total:
            # This is found before a byte is written, so that a log-in page does not replace the part.
            raise _WrongFileError(f"wrong size, {total} bytes where {size} are expected")
        _receive(response, part, have, total, size)


def _receive(response: Any, part: Path, have: int, total: int | None, size: int | None) -> None:
    end = size if total is None else total
    with disk_errors(part):
        file = part.open("ab" if have else "wb")
    with (
        _closing(file, part),
        tqdm(total=end, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while total is None or have < total:
            # read1 returns what has come so far, so that none of it is lost when the connection breaks.
            chunk = response.read1(_CHUNK if total is None else min(_CHUNK, total - have))
            if not chunk:
                break
            with disk_errors(part):
                file.write(chunk)
                file.flush()
            have += len(chunk)
            bar.update(len(chunk))
            if size is not None and have > size:
                return  # The part is too long; the check that follows says so.
    if end is not None and have < end:
        raise HTTPException(f"broke off after {have} of {end} bytes")


@contextmanager
def _closing(file: BinaryIO, part: Path) -> Iterator[None]:
    """Closes a file; where the disk is full that fails, too, and is no fault of the mirror."""
    try:
        yield
    finally:
        with disk_errors(part):
            file.close()


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Returns the first byte and the size of the whole file, each None where the server does not tell."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", headers.get("Content-Range", "").strip())
    start, total = match.groups() if match else (None, None)
    return (None if start is None else int(start), None if total is None else int(total))
