"""Fuzzes one reader of strangers' files, guided by the lines that each input reaches.

    pip install -e .[fuzz]
    python tests/torture/fuzz.py decode -runs=1000000

The targets are those of `targets`; the options behind the name are libFuzzer's. What breaks a promise is written to a
file ``crash-...`` here, and ``python tests/torture/fuzz.py decode FILE`` runs it again.
"""

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import atheris

HOME = Path(__file__).parents[2]
GUIDES = {
    "decode": ["PIL", "pet_cifar.data.pixels"],
    "manifest": ["pet_cifar.data.manifest", "pet_cifar.names"],
    "unpickle": ["pet_cifar.data.files.unpickle"],
    "archive": ["pet_cifar.data.files.archive", "zipfile", "tarfile"],
    "yaml": ["pet_cifar.data.files.plain_yaml", "yaml"],
}
"""The modules whose lines guide the search; what is written in C is run, and cannot be seen."""


def main() -> None:
    """Runs the target that is named."""
    # The package's face would import torch, of which no reader has a use.
    sys.path.insert(0, str(HOME))
    face = ModuleType("pet_cifar.data")
    face.__path__ = [str(HOME / "pet_cifar" / "data")]
    sys.modules["pet_cifar.data"] = face
    name, *options = sys.argv[1:] or [""]
    if name not in GUIDES:
        raise SystemExit(f"give one of {', '.join(GUIDES)}, and options of libFuzzer such as -runs=1000000")
    for module in ("zipfile", "tarfile"):  # They were imported before they could be instrumented.
        sys.modules.pop(module, None)
    with atheris.instrument_imports(include=GUIDES[name]):
        from tests.torture.targets import TARGETS
    target = TARGETS[name]
    given = [str(Path(word).absolute()) if not word.startswith("-") else word for word in options]
    artifacts = f"-artifact_prefix={Path.cwd()}/"
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None  # It is in memory, and archives write much.
    with tempfile.TemporaryDirectory(prefix="fuzz_", dir=shared) as folder:
        child = os.fork()  # libFuzzer ends its process without Python's own end.
        if child == 0:
            os.chdir(folder)
            if all(word.startswith("-") for word in given):
                given.append("corpus")
                Path("corpus").mkdir()
                for number, seed in enumerate(target.seeds()):
                    Path("corpus", str(number)).write_bytes(seed)
            atheris.Setup(
                [sys.argv[0], f"-max_len={target.longest}", "-seed=1", "-timeout=20", artifacts, *given], target.check
            )
            atheris.Fuzz()
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
