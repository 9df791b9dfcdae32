"""The help of the Trainer's verbs, kept from one call to the next.

Making it takes seconds, since it lists the options of Lightning's Trainer, for which Lightning and torch are imported.
"""

import contextlib
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

import pet_cifar
from pet_cifar.runs.trusted import VARIABLE

PACKAGES = ("torch", "lightning", "jsonargparse", "torchmetrics")
"""The packages whose options the help lists, or that lay it out."""


def print_help(words: Sequence[str], make: Callable[[], object]) -> None:
    """Prints the help of a verb, as it was made by the same versions for a terminal of the same width.

    Args:
        words: The verb and ``--help``.
        make: Prints the help, and ends with SystemExit.

    Raises:
        SystemExit: It always does, as a parser that has printed its help.
    """
    kept = user_cache_path("pet_cifar") / "help" / f"{words[0]}_{_key(words)}.txt"
    if kept.is_file():
        print(kept.read_text(encoding="utf-8"), end="")
        raise SystemExit(0)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            make()
    except SystemExit as end:
        if not end.code:
            _keep(kept, printed.getvalue())
        raise
    finally:
        print(printed.getvalue(), end="")


def is_kept(words: Sequence[str]) -> bool:
    """Whether the words ask for the help of a verb and nothing else, which a module of the user's cannot change."""
    return len(words) == 2 and words[1] in ("-h", "--help") and not os.environ.get(VARIABLE)


def _keep(kept: Path, text: str) -> None:
    # Where nothing can be kept, the next call takes its seconds again.
    from pet_cifar.data.files.replacing import replacing_text  # It imports torch, which has made the help.

    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{kept.name.partition('_')[0]}_*.txt"):
            old.unlink()
        with replacing_text(kept) as file:
            file.write(text)


def _key(words: Sequence[str]) -> str:
    """A hash of what the help depends on: these sources, the versions of other packages, and the terminal's width."""
    package = Path(pet_cifar.__file__).parent
    sources = sorted((str(path), path.stat().st_mtime_ns) for path in package.rglob("*.py"))
    width = shutil.get_terminal_size().columns
    found = (words[0], width, sys.version, sys.argv[0], [version(name) for name in PACKAGES], sources)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
