import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pet_cifar.data.files import connection, download
from pet_cifar.data.files.download import fetch
from pet_cifar.errors import InputError
from tests.conftest import WITHOUT_LIGHTNING, set_free_space

BODY = bytes(range(256)) * 400
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Mirror:
    """A local server whose misbehavior each test chooses."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)  # after how many bytes each of the first answers breaks off
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)  # the statuses of the first answers
    location: str = ""
    length: bool = True
    watched: Path | None = None
    existed: list[bool] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)  # the Range header of each
    gate: threading.Event | None = None
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.requests.append(asked)
        if self.gate:
            self.gate.wait(5)
        status = self.statuses.pop(0) if self.statuses else 200
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if status == 200 and start:
            status = 206 if start < len(self.body) else 416
        handler.send_response(status)
        body = self.body[start:] if status in (200, 206) else b""
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if status == 416 and self.length:
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
        if status == 302:
            handler.send_header("Location", self.location)
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else len(body)
        handler.wfile.write(body[:cut])
        handler.wfile.flush()
        if self.watched:
            self.existed.append(self.watched.exists())


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # that is a client that has seen enough
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Mirror]]:
    """Two good mirrors."""
    monkeypatch.setattr(download, "_PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running: list[tuple[Server, threading.Thread]] = []
    mirrors = []
    for _ in range(2):
        mirror = Mirror()

        class Handler(BaseHTTPRequestHandler):
            of = mirror

            def do_GET(self) -> None:
                self.of.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        mirror.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        mirrors.append(mirror)
    yield mirrors
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def closed_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file.bin"


def test_download_is_checked_and_leaves_no_part(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.bin"
    md5 = hashlib.md5(BODY).hexdigest()
    urls = [mirrors[0].url, mirrors[1].url]
    assert fetch(urls, target, size=len(BODY), sha256=SHA256.upper(), md5=md5) == target
    assert target.read_bytes() == BODY
    assert not part_of(target).exists()
    assert mirrors[1].requests == []


def test_break_is_resumed_within_one_call(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    mirrors[0].cuts = [50_000]
    mirrors[0].watched = target
    fetch([mirrors[0].url], target, sha256=SHA256)
    assert mirrors[0].requests == [None, "bytes=50000-"]
    assert target.read_bytes() == BODY
    assert mirrors[0].existed[0] is False  # the target is not there while bytes are missing


def test_next_call_resumes_where_the_last_one_broke(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    mirrors[0].cuts = [40_000, 1000, 1000]
    with pytest.raises(InputError, match=r"broke off after 42000 of 102400 bytes.*after the 42000 bytes"):
        fetch([mirrors[0].url], target, sha256=SHA256)
    assert not target.exists()
    assert part_of(target).read_bytes() == BODY[:42_000]
    fetch([mirrors[0].url], target, sha256=SHA256)
    assert mirrors[0].requests[-1] == "bytes=42000-"
    assert target.read_bytes() == BODY


def test_next_mirror_resumes_the_same_part(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].cuts = [1000, 1000, 1000]
    target = fetch([m.url for m in mirrors], tmp_path / "file.bin", sha256=SHA256)
    assert mirrors[1].requests == ["bytes=3000-"]
    assert target.read_bytes() == BODY


def test_server_without_ranges_starts_over(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(BODY[:70_000])
    mirrors[0].ranges = False
    fetch([mirrors[0].url], target)
    assert mirrors[0].requests == ["bytes=70000-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("length", [True, False])
def test_416_with_a_complete_part_needs_no_more_bytes(mirrors: list[Mirror], tmp_path: Path, length: bool) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(BODY)
    mirrors[0].length = length
    fetch([mirrors[0].url], target, sha256=SHA256)
    assert mirrors[0].requests == [f"bytes={len(BODY)}-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("digest", [SHA256, None])
def test_416_with_too_long_a_part_starts_over(mirrors: list[Mirror], tmp_path: Path, digest: str | None) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(BODY + b"more")
    fetch([mirrors[0].url], target, sha256=digest)
    assert mirrors[0].requests == [f"bytes={len(BODY) + 4}-", None]
    assert target.read_bytes() == BODY


def test_complete_part_of_known_size_needs_no_network(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(BODY)
    fetch([closed_url()], target, size=len(BODY), sha256=SHA256)
    assert target.read_bytes() == BODY


def test_bad_part_does_not_condemn_the_only_mirror(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(b"x" * 5000)
    fetch([mirrors[0].url], target, sha256=SHA256)
    assert mirrors[0].requests == ["bytes=5000-", None]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_wrong_digest_falls_to_the_next_mirror(mirrors: list[Mirror], tmp_path: Path, name: str) -> None:
    mirrors[0].body = b"!" + BODY[1:]
    digests = {name: hashlib.new(name, BODY).hexdigest()}
    target = fetch([m.url for m in mirrors], tmp_path / "file.bin", size=len(BODY), **digests)  # type: ignore[arg-type]
    assert [m.requests for m in mirrors] == [[None], [None]]
    assert target.read_bytes() == BODY


def test_wrong_size_does_not_cost_the_part(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    part_of(target).write_bytes(BODY[:70_000])
    mirrors[0].body, mirrors[0].ranges = b"<html>please log in</html>", False
    fetch([m.url for m in mirrors], target, size=len(BODY))
    assert mirrors[1].requests == ["bytes=70000-"]
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY + b"more", BODY[:-1]])
def test_wrong_size_is_found_without_content_length(mirrors: list[Mirror], tmp_path: Path, body: bytes) -> None:
    target = tmp_path / "file.bin"
    mirrors[0].body, mirrors[0].length, mirrors[0].ranges = body, False, False
    with pytest.raises(InputError, match=r"wrong size|broke off"):
        fetch([mirrors[0].url], target, size=len(BODY))
    assert not target.exists()


def test_all_mirrors_failing_is_told_in_one_line(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    mirrors[0].statuses = [404]
    mirrors[1].body = b"something else"
    urls = [mirrors[0].url, mirrors[1].url, closed_url()]
    with pytest.raises(InputError) as caught:
        fetch(urls, target, sha256=SHA256)
    line = str(caught.value)
    assert all(url in line for url in urls)
    assert "HTTP 404" in line
    assert "wrong sha256" in line
    assert "refused" in line
    assert f"put the file at {target}" in line
    assert "\n" not in line
    assert not target.exists()
    assert not part_of(target).exists()


def test_passing_server_error_is_retried_and_a_lasting_one_is_not(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].statuses = [403]
    mirrors[1].statuses = [503, 500]
    target = fetch([m.url for m in mirrors], tmp_path / "file.bin", sha256=SHA256)
    assert [len(m.requests) for m in mirrors] == [1, 3]
    assert target.read_bytes() == BODY


def test_silent_server_times_out(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].gate = threading.Event()
    with pytest.raises(InputError, match="timed out"):
        fetch([mirrors[0].url], tmp_path / "file.bin", timeout=0.05)
    mirrors[0].gate.set()


@pytest.mark.parametrize("silent", ["getaddrinfo", "create_connection"])
def test_no_network_is_told_within_seconds_and_each_mirror_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    over, asked = threading.Event(), []

    def wait(*address: object, **options: object) -> None:
        asked.append(address)
        over.wait(60)
        raise OSError("nobody waits for this any more")

    monkeypatch.setattr(socket, silent, wait)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    urls = ["http://one.invalid/file.bin", "https://two.invalid/file.bin"]
    with pytest.raises(InputError) as caught:
        fetch(urls, tmp_path / "file.bin", timeout=60)
    over.set()
    assert len(asked) == 2
    assert all(f"{url}: no connection within 0.2 seconds" in str(caught.value) for url in urls)


def test_a_silent_address_leaves_time_for_the_next(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def silent(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "127.0.0.2":
            time.sleep(self.gettimeout() or 60)
            raise TimeoutError("timed out")
        connect(self, address)

    port = urlsplit(mirrors[0].url).port
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *options: addresses)
    monkeypatch.setattr(socket.socket, "connect", silent)
    monkeypatch.setattr(connection, "ADDRESS_SECONDS", 0.1)
    fetch([mirrors[0].url], tmp_path / "file.bin", sha256=SHA256)
    assert len(mirrors[0].requests) == 1


def test_a_slow_answer_has_more_time_than_a_connection(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    mirrors[0].gate = threading.Event()
    threading.Timer(0.7, mirrors[0].gate.set).start()
    fetch([mirrors[0].url], tmp_path / "file.bin", sha256=SHA256)
    assert len(mirrors[0].requests) == 1


def test_redirect_is_followed_but_not_to_ftp(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].statuses, mirrors[0].location = [302, 302], mirrors[1].url
    fetch([mirrors[0].url], tmp_path / "a.bin", sha256=SHA256)
    mirrors[0].location = "ftp://127.0.0.1/file.bin"
    with pytest.raises(InputError, match="redirects to ftp"):
        fetch([mirrors[0].url], tmp_path / "b.bin", sha256=SHA256)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://[x/y", "http://a:b/", "http://a/b c", "x"],
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="only http"):
        fetch([url], tmp_path / "file.bin")


def test_no_address_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="put the file there by hand"):
        fetch([], tmp_path / "file.bin")


def test_existing_target_is_not_touched(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"mine")
    assert fetch([mirrors[0].url], target, sha256=SHA256) == target
    assert target.read_bytes() == b"mine"
    assert mirrors[0].requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_folder_or_broken_link_at_the_target_is_kept(mirrors: list[Mirror], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link"):
        with pytest.raises(InputError, match="move it away"):
            fetch([mirrors[0].url], tmp_path / name)
    assert (tmp_path / "link").is_symlink()


def test_unwritable_folder_is_one_clear_error(mirrors: list[Mirror], tmp_path: Path) -> None:
    # A file is where a folder should be, since permissions would not stop root.
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"^cannot write .*set the root to another folder$"):
        fetch([mirrors[0].url], tmp_path / "file" / "sub" / "file.bin")
    assert mirrors[0].requests == []


def test_error_of_the_disk_is_not_blamed_on_a_mirror(mirrors: list[Mirror], tmp_path: Path) -> None:
    part_of(tmp_path / "file.bin").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        fetch([mirrors[0].url], tmp_path / "file.bin")
    assert len(mirrors[0].requests) <= 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
def test_disk_that_fills_up_is_not_blamed_on_a_mirror(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The link stands in for the disk.
    monkeypatch.setattr(download, "refuse_links", list)
    part_of(tmp_path / "file.bin").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"^cannot write .*: No space left on device"):
        fetch([m.url for m in mirrors], tmp_path / "file.bin")
    assert mirrors[1].requests == []


def test_full_disk_is_told_before_the_download(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_free_space(monkeypatch, 60_000)
    target = tmp_path / "file.bin"
    with pytest.raises(InputError, match=r"60000 bytes free and 102400 more are needed for file\.bin"):
        fetch([mirrors[0].url], target, size=len(BODY))
    assert mirrors[0].requests == []
    part_of(target).write_bytes(BODY[:50_000])  # what is here already needs no room
    assert fetch([mirrors[0].url], target, size=len(BODY)).read_bytes() == BODY


def test_processes_download_once(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirrors[0].gate = threading.Event()
    code = (
        f"{WITHOUT_LIGHTNING}from pathlib import Path; from pet_cifar.data.files.download import fetch;"
        f"print(fetch([{mirrors[0].url!r}], Path(sys.argv[1]), sha256={SHA256!r}).stat().st_size)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file.bin")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    deadline = time.monotonic() + 30
    while not mirrors[0].requests and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # the other process gets there, too, before any byte comes
    mirrors[0].gate.set()
    # There is no progress bar where stderr is no terminal.
    assert [child.communicate(timeout=60) for child in children] == [(f"{len(BODY)}\n", "")] * 2
    assert len(mirrors[0].requests) == 1


def test_threads_download_once(mirrors: list[Mirror], tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    mirrors[0].gate = threading.Event()
    threads = [threading.Thread(target=fetch, args=([mirrors[0].url], target)) for _ in range(3)]
    for thread in threads:
        thread.start()
    mirrors[0].gate.wait(0.2)
    mirrors[0].gate.set()
    for thread in threads:
        thread.join(10)
    assert len(mirrors[0].requests) == 1
    assert target.read_bytes() == BODY
