"""Anybody's own pictures: a folder, an archive or a table of them, with any classes."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from pet_cifar.data import patterns
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.regular import read_regular
from pet_cifar.data.files.unpacked import ARCHIVES, is_archive, unpacked
from pet_cifar.data.files.walk import SYSTEM_FILES, is_hidden, walk
from pet_cifar.data.labels_file import LabelsFile, read_labels_file
from pet_cifar.data.layout import NAMES, SPLIT_WORDS, Layout, read_layout
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.manifest_report import warn_line
from pet_cifar.data.pixels.decode import DecodeError, decode
from pet_cifar.data.root import expanded
from pet_cifar.data.split import check_fraction, check_images_per_class, first_of_each_class
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import DataMissingError, InputError, did_you_mean
from pet_cifar.names import listed, printable

CAMERA_WORDS = {
    *("img", "dsc", "dscn", "dscf", "pxl", "dcim", "mvimg", "gopr", "cimg", "pict", "p", "image", "photo", "picture"),
    *("pic", "scan", "screenshot", "whatsapp image", "foto", "bild", "imagen", "frame"),
}
"""What the names of pictures begin with where a camera or a program has made them up, in lower case."""
SAMPLED = 20
"""The number of pictures whose colors decide whether the net sees gray or color."""


class ImageFolderDataModule(ImageDataModule):
    """Any folder of pictures; the classes are whatever the folder holds.

    It finds ``<class>/...``; ``<split>/<class>/...`` with splits such as ``train``, ``valid`` and ``test``; pictures
    with their class in their name, such as ``cat.0.jpg`` or ``0001_cat.png``; each also within further folders, or
    in a zip or tar archive. A split that is not there is taken out of the training pictures.

    Args:
        root: The folder or the archive.
        image_size: The side of the square pictures in pixels.
        batch_size: The number of pictures for each process and step.
        labels: A table (CSV) of paths, classes and, perhaps, splits, with paths relative to ``root``, or where that is
            not given to the table's own folder; null reads the folder instead.
        images_per_class: How many usable training pictures of each class are taken, the first in the order of their
            names; null takes all.
        grayscale: Makes gray pictures of one channel instead of color; null looks at some pictures.
        test_fraction: The share of the pictures that tests, in (0, 1), where no folder says which do.
        group_by: Keeps pictures that belong together, such as those of one animal, in one split: a regular expression
            whose first group is the group's name in a picture's path, or a column of ``labels``. Another version of
            scikit-learn may then divide the pictures in another way, which a checkpoint notices.
        shared: The other arguments of `ImageDataModule`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        image_size: int = 200,
        batch_size: int = 32,
        labels: str | Path | None = None,
        images_per_class: int | None = None,
        grayscale: bool | None = None,
        test_fraction: float = 0.1,
        group_by: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(root=root, image_size=image_size, batch_size=batch_size, **shared)
        check_images_per_class(images_per_class)
        check_fraction("test_fraction", test_fraction)
        self.images_per_class = images_per_class
        self.test_fraction = test_fraction
        self.group_by = group_by
        self.labels_file = None if labels is None else expanded(labels, "labels")
        if self.labels_file is not None:
            self.root = self.labels_file.parent if root is None else self.root
        self._table: LabelsFile | None = None
        # The net is built for the classes, so that they are found before anything is checked.
        self._layout = self._find()
        if not all(map(str.isprintable, self._layout.classes)):
            files = [file._replace(label=printable(file.label)) for file in self._layout.files]
            self._layout = self._layout._replace(files=files)
        self.class_names = tuple(self._layout.classes)
        self._check_classes()
        self.groups = self._read_groups()
        self.num_channels = 1 if (self._looks_gray() if grayscale is None else grayscale) else 3

    def locate(self) -> None:
        """Does nothing: the pictures were found when the data module was made."""

    def check(self) -> list[ImageRecord]:
        """Checks every picture that belongs to a class, and lists all other files."""
        self._report()
        others = [(path, "", "") for path in self._layout.others if path.rpartition("/")[2] not in SYSTEM_FILES]
        return self.check_files([*self._layout.files, *others], "image_folder.csv")

    def divide(self, records: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Takes ``images_per_class`` pictures of each class, and keeps the splits that the folder has."""
        return super().divide(first_of_each_class(records, self.images_per_class, self.folder))

    # Finding the pictures

    def _find(self) -> Layout:
        if self.labels_file is not None:
            return self._find_by_table(self.labels_file)
        if not self.root.exists():
            raise DataMissingError(f"root is {self.root}; there is no such folder or archive; give --data.root FOLDER")
        self.folder = self._unpacked(self.root) if self.root.is_file() else self.root
        layout = read_layout(walk(self.folder))
        archives = sorted(path for path in self.root.iterdir() if is_archive(path)) if self.root.is_dir() else []
        if not layout.files and archives:
            if len(archives) > 1:
                names = ", ".join(path.name for path in archives)
                raise InputError(f"root is {self.root}, which holds several archives ({names}); give one of them")
            self.folder = self._unpacked(archives[0])
            layout = read_layout(walk(self.folder))
        if layout.classes and all(name.casefold() in SPLIT_WORDS for name in layout.classes):
            raise InputError(
                f"root is {self.root}, which holds {' and '.join(layout.classes)} and no train; put the training "
                "pictures into a folder train beside them"
            )
        if not layout.files:
            lies = (
                listed(sorted(path.name for path in self.folder.iterdir() if not path.name.startswith(".")), 5)
                or "nothing"
            )
            raise InputError(
                f"root is {self.root}, where no pictures in folders of classes are found; there lies {lies}; put the "
                "pictures of each class into a folder of its own, or give a table: --data.labels FILE"
            )
        self._doubt_names(layout)
        return layout

    def _doubt_names(self, layout: Layout) -> None:
        """Refuses the names that cameras give, and points at a table that may say the classes."""
        if layout.kind != NAMES:
            return
        if all(name.casefold() in CAMERA_WORDS for name in layout.classes):
            raise InputError(
                f"root is {self.root}, where the names {' and '.join(layout.classes)} come from cameras and tell no "
                "class; put the pictures of each class into a folder of its own, or give a table: --data.labels FILE"
            )
        tables = [path for path in layout.others if path.lower().endswith((".csv", ".tsv"))]
        if tables:
            warn_line(
                f"the classes are read from the names of the files; {tables[0]} is not read without --data.labels"
            )

    def _find_by_table(self, file: Path) -> Layout:
        self._table = read_labels_file(file, self.root)
        if not self.root.is_dir():
            raise DataMissingError(f"root is {self.root}; there is no such folder; give --data.root FOLDER")
        self.folder = self.root
        found = [row for row in self._table.files if (self.folder / row.path).exists()]
        missing = [row.path for row in self._table.files if not (self.folder / row.path).exists()]
        if missing:
            warn_line(f"{file} names {len(missing)} file(s) that are not there: {listed(missing, 5)}")
        if not found:
            raise InputError(
                f"labels is {file}, and none of its {len(missing)} files is there, such as {missing[-1]} below "
                f"{self.folder} (columns {','.join(self._table.columns)}); give a header such as path,label and paths "
                "relative to this folder"
            )
        if self._table.repeated:
            warn_line(f"{file} repeats {self._table.repeated} row(s), which count once")
        named = {row.path for row in self._table.files}
        return Layout(found, [path for path in walk(self.folder) if path not in named], f"the table {file.name}")

    def _unpacked(self, archive: Path) -> Path:
        if not is_archive(archive):
            raise InputError(f"root is {archive}, which is no folder and no archive ({', '.join(ARCHIVES)})")
        return unpacked(archive, lambda name: not is_hidden(name))

    @property
    def _source(self) -> str:
        return f"root is {self.root}" if self.labels_file is None else f"labels is {self.labels_file}"

    def _check_classes(self) -> None:
        if len(self.class_names) < 2:
            raise InputError(
                f"{self._source}, where one class is found, {self.class_names[0]}; a classifier needs at least 2"
            )
        lower: dict[str, str] = {}
        for name in self.class_names:
            if (other := lower.setdefault(name.casefold(), name)) != name:
                raise InputError(
                    f"{self._source}, where the classes {other} and {name} differ by case alone; give one of them "
                    "another name"
                )

    def _read_groups(self) -> dict[str, str]:
        """The group of each picture by its path; empty where there are none."""
        if self.group_by is None:
            return {}
        if self._table is not None and self.group_by in self._table.columns:
            return _named({path: values.get(self.group_by, "") for path, values in self._table.values.items()})
        paths = [file.path for file in self._layout.files]
        groups = patterns.first_groups(self.group_by, paths, "group_by")
        if groups is None:
            columns = self._table.columns if self._table else ()
            raise InputError(
                f"group_by is {self.group_by}, which is no column of a table and has no group in parentheses, such as "
                f"'(\\w+)_\\d+'{did_you_mean(self.group_by, columns)}"
            )
        return _named(dict(zip(paths, groups, strict=True)))

    def _looks_gray(self) -> bool:
        """Whether all sampled pictures are gray, whatever mode their files have."""
        files = self._layout.files
        rows = np.linspace(0, len(files) - 1, min(len(files), SAMPLED)).astype(int)
        looked = 0
        for file in (files[row] for row in rows):
            try:
                pixels = decode(read_regular(self.folder / file.path), 32, 3)
            except (DecodeError, OSError):  # The check tells of it.
                continue
            looked += 1
            if np.ptp(pixels.astype(int), axis=0).max() > 8:
                rank_zero_info(f"grayscale: false, since {printable(file.path)} has colors")
                return False
        if looked:
            rank_zero_info(f"grayscale: true, since {looked} of {len(files)} pictures were looked at and are gray")
        return looked > 0

    def _report(self) -> None:
        splits = {file.split for file in self._layout.files} - {""}
        missing = [name for name in ("val", "test") if splits and name not in splits]
        passed = Counter(
            Path(path).suffix.lower() or "no ending" for path in self._layout.others if self._in_class(path)
        )
        if passed:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in passed.most_common(5))
            warn_line(f"{self.folder}: files in the folders of classes are no pictures by their names: {kinds}")
        verb = "is" if len(missing) == 1 else "are"
        taken = f"; {' and '.join(missing)} {verb} taken out of train" if missing else ""
        rank_zero_info(
            f"{printable(str(self.folder))}: {len(self.class_names)} classes ({listed(self.class_names, 5)}) in the "
            f"layout '{self._layout.kind}'{taken}"
        )

    def _in_class(self, path: str) -> bool:
        *folders, name = path.split("/")
        return name not in SYSTEM_FILES and any(folder in self.class_names for folder in folders)

    @classmethod
    def write_sample(cls, root: Path) -> None:
        """Writes 14 pictures of each of three classes."""
        for label, name in enumerate(("apple", "pear", "plum")):
            write_pictures(root / name, 3 * label, count=14, size=48, suffix=".jpg")


def _named(groups: dict[str, str]) -> dict[str, str]:
    """Makes a group of its own of every picture whose group is empty."""
    empty = sum(not group for group in groups.values())
    if empty:
        rank_zero_info(f"group_by: {empty} of {len(groups)} pictures have no group, and are one each")
    return {path: f"group {group}" if group else f"picture {path}" for path, group in groups.items()}
