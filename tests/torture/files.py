"""Trials with files that a stranger has made or that are damaged: inputs of readers, run directories, pictures."""

import hashlib
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pet_cifar.data import CatsDogsDataModule, ImageFolderDataModule
from pet_cifar.data.synthetic import write_pictures
from tests.cli.kills import begin
from tests.runs.killed_runs import LAST, NAME, PREVIOUS, RESUME, RUN, differences
from tests.torture.targets import TARGETS, check_decode
from tests.torture.trials import Outcome, Wholes, before, command, note, refusal, words

INPUTS, PICTURES = 500, 100
"""The inputs and the pictures of one trial."""
SUFFIXES = (".jpg", ".png", ".gif", ".webp", ".tif", ".jp2")


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of some files with a few damages of any kind."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        place = rng.randrange(len(content) + 1)
        length = rng.choice([1, 1, 2, 4, rng.randrange(1, 64)])
        kind = rng.randrange(7)
        if kind == 0:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            content[place:place] = rng.randbytes(length)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            content[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
        elif kind == 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other) + 1)
            content[place : place + length] = other[start : start + length]
        else:
            del content[place:]
    return bytes(content)


def hostile_inputs(rng: random.Random, wholes: Wholes) -> Outcome:
    """Archives, pickles, listings and YAML texts of strangers are read or refused, and leave nothing elsewhere."""
    name = rng.choice([name for name in TARGETS if name != "decode"])
    target = TARGETS[name]

    def work() -> None:
        seeds = target.seeds()
        for _ in range(INPUTS):
            content = mutated(rng, seeds)
            try:
                target.check(content)
            except Exception as error:
                raise AssertionError(f"{name}: {content!r}") from error

    return _in_a_fork(work, INPUTS)


def _in_a_fork(work: Callable[[], None], times: int) -> Outcome:
    status, said = begin(work, Path("output_files.txt")).wait()
    return Outcome(times, [f"ended with {status}: {said[-3000:]}"] if status else [])


def hostile_pictures(rng: random.Random, wholes: Wholes) -> Outcome:
    """Damaged pictures among good ones are listed, and the others train; no file of the user's is changed."""
    folder = Path("pictures")
    for number, name in enumerate(("cat", "dog")):
        write_pictures(folder / name, number, count=12, size=16)
    seeds = TARGETS["decode"].seeds()
    for number in range(PICTURES):
        path = folder / rng.choice(("cat", "dog")) / f"hostile_{number}{rng.choice(SUFFIXES)}"
        path.write_bytes(mutated(rng, seeds))
    known = _hashes(folder)

    def work() -> None:
        for path in folder.rglob("hostile_*"):
            check_decode(path.read_bytes())
        data = ImageFolderDataModule(folder, image_size=16, cache="none", batch_size=8)
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        assert len(data.listed) == len(known), f"{len(data.listed)} of {len(known)} files are listed"
        usable = {record.path for record in data.listed if record.verdict == "ok"}
        used = [record.path for records in data.splits.values() for record in records]
        assert sorted(used) == sorted(usable), "not every usable picture is used once"
        for split, records in data.splits.items():
            pixels = data.pixels(split).take(np.arange(len(records)))
            assert tuple(pixels.shape) == (len(records), 3, 16, 16)

    outcome = _in_a_fork(work, PICTURES)
    if {path: value for path, value in _hashes(folder).items() if ".pet_cifar" not in path} != known:
        outcome.lost.append("a file of the user's was changed")
    return outcome


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def damaged_run(rng: random.Random, wholes: Wholes) -> Outcome:
    """A file of a killed run is damaged: going on comes to the same, or is refused in a line and changes nothing."""
    way, outcome = rng.choice(["epochs", "steps"]), Outcome()
    child = command(words(way), before(way))
    child.signal_at(0.8 * wholes[way].seconds, signal.SIGKILL)
    child.wait()
    if not PREVIOUS.exists():
        note(outcome, "the run was killed too early for two checkpoints")
    files = sorted(path for path in RUN.rglob("*") if path.is_file())
    path = rng.choice([*files, *[file for file in (LAST, PREVIOUS) if file.exists()] * 4])
    kind = rng.choice(["mutated", "mutated", "mutated", "cut", "empty", "noise", "gone", "a folder", "a link"])
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link":
        Path("elsewhere").write_bytes(content)
        path.symlink_to(Path("elsewhere").absolute())
    elif kind != "gone":
        changes = {"mutated": mutated(rng, [content]), "cut": content[: len(content) // 2], "empty": b""}
        path.write_bytes(changes.get(kind, rng.randbytes(len(content))))
    known = _hashes(NAME)
    status, said = command(RESUME).wait()
    told = f"{path.name} {kind}: {status}: {said[-1500:]}"
    if status == 2:
        note(outcome, "refused in a line")
        if refusal(said):
            outcome.lost.append(told)
        # A folder in the place of a file is found when the file is written, after the run has gone on.
        if kind != "a folder" and _hashes(NAME) != known:
            outcome.lost.append(f"a run that was refused was changed: {told}")
    elif status != 0:
        outcome.lost.append(told)
    elif path.name == "best.ckpt":
        note(outcome, "went on beside a damaged best.ckpt, which only a better epoch makes again")
    else:
        note(outcome, "went on")
        # What was logged before the checkpoint is the damaged file's own affair.
        found = [one for one in differences(RUN, wholes[way].run) if path.suffix == ".ckpt" or ".ckpt" in one]
        outcome.lost += [f"{told}: {one}" for one in found]
    if kind == "a link" and Path("elsewhere").read_bytes() != content:
        outcome.lost.append(f"it was written through a link: {told}")
    return outcome


def damaged_while_unpacking(rng: random.Random, wholes: Wholes) -> Outcome:
    """Three processes unpack, list and decode the same archive at once, and one is killed; a fourth finds all whole."""
    source = Path("source")
    for number, name in enumerate(("Cat", "Dog")):
        write_pictures(source / "PetImages" / name, number, count=60, size=48, suffix=".jpg")
    Path("data").mkdir()
    shutil.make_archive("data/kagglecatsanddogs_5340", "zip", source)
    known = _digest(source)

    def work() -> None:
        print(_digest(Path("data")))

    children = [begin(work, Path(f"output_{number}.txt")) for number in range(3)]
    rng.choice(children).signal_at(rng.uniform(0.01, 0.25), signal.SIGKILL)
    ended = [child.wait() for child in children]
    ended.append(begin(work, Path("output_3.txt")).wait())
    wrong = [one for one in ended if one[0] not in (0, -signal.SIGKILL) or (one[0] == 0 and known not in one[1])]
    outcome = Outcome(lost=[f"unpacking at once: {one}" for one in wrong])
    outcome.notes["killed"] = [status for status, _ in ended].count(-signal.SIGKILL)
    return outcome


def _digest(root: Path) -> str:
    data = CatsDogsDataModule(root, image_size=16, cache="disk")
    data.prepare_data()
    data.setup("fit")
    pixels = [data.pixels(split).take(np.arange(len(data.splits[split]))).numpy() for split in ("train", "val")]
    return hashlib.sha256(b"".join(one.tobytes() for one in pixels)).hexdigest()
