"""A folder with a page that answers to pictures in a browser, without a network and without a server.

A page that is opened from a disk may load scripts beside it and nothing else. So the net and the runtime are written as
scripts too, in base64.
"""

import base64
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable
from pet_cifar.runs.export import Card

PACKAGE = "onnxruntime-web"
SCRIPT, BINARY = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
"""The files of the npm package that a page needs."""
FROM_NPM = f"run npm pack {PACKAGE} where there is a network, and give the .tgz as --onnxruntime_web FILE"


@dataclass(frozen=True)
class Runtime:
    """What runs a net in a browser: two files of the npm package onnxruntime-web (MIT license)."""

    script: bytes
    binary: bytes


def read_runtime(source: Path | None) -> Runtime:
    """Reads the runtime out of the npm package.

    Args:
        source: The package, as a folder or as the ``.tgz`` that ``npm pack`` makes; None lets npm fetch it.

    Raises:
        InputError: It is not there, or holds no such files.
    """
    if source is not None:
        return _of_folder(source) if source.is_dir() else _of_archive(source)
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"--format web needs the npm package {PACKAGE}, and npm is not installed; {FROM_NPM}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise InputError(f"npm cannot fetch {PACKAGE} ({reason}); {FROM_NPM}")
        return _of_archive(found[0])


def _of_folder(folder: Path) -> Runtime:
    root = next(
        (one for one in (folder, folder / "package", folder / "node_modules" / PACKAGE) if _is_package(one)), None
    )
    if root is None:
        raise InputError(f"--onnxruntime_web {folder}: this folder has no {SCRIPT} and {BINARY}; {FROM_NPM}")
    return Runtime((root / SCRIPT).read_bytes(), (root / BINARY).read_bytes())


def _is_package(folder: Path) -> bool:
    return (folder / SCRIPT).is_file() and (folder / BINARY).is_file()


def _of_archive(file: Path) -> Runtime:
    try:
        with tarfile.open(file) as archive:
            found = [archive.extractfile(f"package/{name}") for name in (SCRIPT, BINARY)]
            script, binary = (stream.read() if stream else b"" for stream in found)
    except (OSError, KeyError, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(
            f"--onnxruntime_web {file}: it cannot be read as that package ({error}); {FROM_NPM}"
        ) from error
    return Runtime(script, binary)


def write(folder: Path, net: Path, card: Card, runtime: Runtime, size: int) -> Path:
    """Writes the page and its scripts.

    Args:
        folder: The folder, which is there.
        net: The ONNX file, which takes one picture of any size.
        card: What it says of itself.
        runtime: What runs it.
        size: The side in pixels that the net makes of a picture.

    Returns:
        The page.

    Raises:
        InputError: The folder cannot be written.
    """
    source = files("pet_cifar.runs").joinpath("web_page.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    html = page.render(
        card=card, run=printable(card.run), names=list(card.class_names), knows=len(card.outputs) > 1, size=size
    )
    scripts = {
        "net.js": f'window.NET = "{_text(net.read_bytes())}";\n',
        "runtime.js": f'window.RUNTIME = {{script: "{_text(runtime.script)}", binary: "{_text(runtime.binary)}"}};\n',
    }
    with disk_errors(folder, "; give another --output"):
        for name, text in scripts.items():
            (folder / name).write_text(text, encoding="ascii")
        (folder / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
