"""How a folder of pictures is laid out: which class and which split each file belongs to, read from the paths alone."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pet_cifar.data.manifest import PICTURE_SUFFIXES, natural_key

SPLIT_WORDS: dict[str, Literal["train", "val", "test"]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders that hold a split, in lower case."""
NAMES = "the class in the name of each file"
"""The kind of layout that has no folders of classes."""
_NUMBERED = re.compile(r"^(?P<label>.*?[^\W\d_])[ ._-]*\(?\d+\)?$", re.UNICODE)
_ENDING = re.compile(r"^.+[_-](?P<label>[^\W\d_]+)$", re.UNICODE)


class LayoutFile(NamedTuple):
    """A file and what its path tells.

    Attributes:
        path: The path relative to the data's folder, with forward slashes.
        label: The name of the class; empty where the path tells none.
        split: ``train``, ``val`` or ``test``; empty where the path tells none.
    """

    path: str
    label: str
    split: str


class Layout(NamedTuple):
    """What the paths of a folder tell.

    Attributes:
        files: The files that belong to a class.
        others: Files that belong to none.
        kind: The kind of layout in words, such as ``one folder a class``.
    """

    files: list[LayoutFile]
    others: list[str]
    kind: str

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in natural order."""
        return sorted({file.label for file in self.files}, key=natural_key)


def read_layout(paths: Iterable[str]) -> Layout:
    """Finds out what the folders and names of files stand for.

    These layouts are known, each also within folders that hold nothing else: ``<class>/...``,
    ``<split>/<class>/...`` with the words of `SPLIT_WORDS`, and pictures side by side whose names begin or end with
    their class, such as ``cat.0.jpg`` and ``0001_cat.png``. Folders below a class belong to the class.

    Args:
        paths: The paths of all files, relative to the data's folder, with forward slashes and in any order.
    """
    found = sorted(paths)
    pictures = [path for path in found if _is_picture(path)]
    wrapper = _wrapper(pictures)
    inside = [path for path in pictures if path.startswith(wrapper)]
    nested = _nested(inside, wrapper)
    tops = _tops(nested, wrapper)
    splits = {name for name in tops if name.lower() in SPLIT_WORDS}
    if any(SPLIT_WORDS[name.lower()] == "train" for name in splits):
        return _split_folders(found, inside, wrapper, splits)
    if tops:
        label_of, start = {top: _composed(top) for top in tops}, len(wrapper)
        files = [LayoutFile(path, label_of[path[start : path.index("/", start)]], "") for path in nested]
        return _layout(found, files, "one folder a class")
    labels = _labels_of_names([_stem(path) for path in inside])
    files = [LayoutFile(path, label, "") for path, label in zip(inside, labels, strict=True) if label]
    return _layout(found, files, NAMES)


def _split_folders(found: Sequence[str], inside: Sequence[str], wrapper: str, splits: set[str]) -> Layout:
    files: list[LayoutFile] = []
    flat: dict[str, list[str]] = {}
    for path in inside:
        split, *rest = _parts(path, wrapper)
        if split in splits and len(rest) > 1:
            files.append(LayoutFile(path, _composed(rest[0]), SPLIT_WORDS[split.lower()]))
        elif split in splits:
            flat.setdefault(split, []).append(path)
    if files:
        return _layout(found, files, "one folder a split, and within it one a class")
    # Only all names of the training pictures together tell what in them is the class.
    for split, paths in flat.items():
        labels = _labels_of_names([_stem(path) for path in paths])
        files += [
            LayoutFile(path, label, SPLIT_WORDS[split.lower()])
            for path, label in zip(paths, labels, strict=True)
            if label
        ]
    return _layout(found, files, "one folder a split, and the class in the name of each file")


def _layout(found: Sequence[str], files: list[LayoutFile], kind: str) -> Layout:
    taken = {file.path for file in files}
    return Layout(files, [path for path in found if path not in taken], kind)


def _labels_of_names(stems: Sequence[str]) -> list[str]:
    """The class in each of these names; empty strings where the names tell no classes.

    A class occurs twice or more, and there are two or more classes.
    """
    for pattern in (_NUMBERED, _ENDING):
        matches = [pattern.match(stem) for stem in stems]
        labels = [match["label"].rstrip(" ._-") if match else "" for match in matches]
        counts = Counter(filter(None, labels))
        often = {label for label, count in counts.items() if count > 1}
        if len(often) > 1 and sum(counts[label] for label in often) > len(stems) / 2:
            return [_composed(label) if label in often else "" for label in labels]
    return [""] * len(stems)


def _wrapper(pictures: Sequence[str]) -> str:
    """The folders around all pictures, with a slash at the end, beyond which they part; none may be a split."""
    wrapper = ""
    while pictures:
        # A picture beside the only folder, such as a cover, belongs to no class.
        inside = _nested(pictures, wrapper)
        tops = sorted(_tops(inside, wrapper))
        if len(tops) != 1 or tops[0].lower() in SPLIT_WORDS or 2 * len(inside) < len(pictures):
            break
        deeper = all(len(_parts(path, wrapper)) > 2 for path in inside)
        if not (deeper or (len(inside) == len(pictures) and _holds_names(inside, wrapper))):
            break
        wrapper += f"{tops[0]}/"
        pictures = inside
    return wrapper


def _holds_names(pictures: Sequence[str], wrapper: str) -> bool:
    """Whether all pictures lie in one folder, and their names tell two classes or more."""
    parts = [_parts(path, wrapper) for path in pictures]
    return all(len(one) == 2 for one in parts) and any(_labels_of_names([_stem(path) for path in pictures]))


def _composed(name: str) -> str:
    """A name with its accents as one letter each, since some systems write them as two."""
    return unicodedata.normalize("NFC", name)


def _nested(pictures: Iterable[str], wrapper: str) -> list[str]:
    """The pictures that lie in a folder within the wrapper, which all paths begin with."""
    # Each of these steps is made for every file, and there may be 100,000.
    start = len(wrapper)
    return [path for path in pictures if path.find("/", start) >= 0]


def _tops(nested: Iterable[str], wrapper: str) -> set[str]:
    """The folders directly within the wrapper that these pictures lie in, however deep."""
    start = len(wrapper)
    return {path[start : path.index("/", start)] for path in nested}


def _parts(path: str, wrapper: str) -> list[str]:
    return path.removeprefix(wrapper).split("/")


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


_ENDINGS = frozenset(suffix.removeprefix(".") for suffix in PICTURE_SUFFIXES)


def _is_picture(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _ENDINGS
