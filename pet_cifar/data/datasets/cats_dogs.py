"""Cats against dogs: the Kaggle/Asirra pictures as Microsoft hands them out, or any two folders laid out alike."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.download import fetch
from pet_cifar.data.files.unpacked import is_archive, unpacked
from pet_cifar.data.files.walk import is_hidden, walk
from pet_cifar.data.layout import Layout, read_layout
from pet_cifar.data.manifest import PICTURE_SUFFIXES, ImageRecord, Split
from pet_cifar.data.split import check_fraction, check_images_per_class, first_of_each_class
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import DataMissingError, InputError
from pet_cifar.names import printable

log = logging.getLogger(__name__)

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
SIZE = 824_887_076
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"


OTHER_DATASETS = ("cifar10", "cifar-10-batches-py")
"""Folders of other datasets that may lie under the same root."""


def class_of(folder: str) -> str:
    """The class of a folder such as ``Cat`` or ``dogs``; empty for a folder of something else."""
    return {"cat": "cat", "cats": "cat", "dog": "dog", "dogs": "dog"}.get(folder.lower(), "")


def _class_of_path(path: str) -> str:
    """The class of a file that is no picture by its name, such as ``Cat/Thumbs.db``; it is listed with the others."""
    return next((name for part in path.split("/")[:-1] if (name := class_of(part))), "")


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


class CatsDogsDataModule(ImageDataModule):
    """Cats (0) and dogs (1).

    It finds ``PetImages/{Cat,Dog}/`` under ``root``, or the two classes in any layout that `read_layout` knows, or
    unpacks any ``kagglecatsanddogs_*.zip`` or other archive there, or downloads Microsoft's (825 MB,
    CDLA-Permissive-2.0).

    Args:
        root: The folder where the data is or goes, or an archive.
        image_size: The side of the square pictures in pixels.
        batch_size: The number of pictures for each process and step.
        images_per_class: How many usable pictures of each class are taken, the first in the order of their names;
            null takes all. The original Keras exercise took 2000.
        grayscale: Makes gray pictures of one channel instead of three channels of color.
        test_fraction: The share of the pictures that tests, in (0, 1).
        shared: The other arguments of `ImageDataModule`.
    """

    class_names = ("cat", "dog")

    def __init__(
        self,
        root: str | Path | None = None,
        image_size: int = 200,
        batch_size: int = 32,
        images_per_class: int | None = None,
        grayscale: bool = True,
        test_fraction: float = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(root=root, image_size=image_size, batch_size=batch_size, **shared)
        check_images_per_class(images_per_class)
        check_fraction("test_fraction", test_fraction)
        self.images_per_class = images_per_class
        self.num_channels = 1 if grayscale else 3
        self.test_fraction = test_fraction
        self.folder = self.root / "PetImages"
        self._layout = Layout([], [], "")

    def locate(self) -> None:
        """Finds, unpacks or downloads the pictures; the layout that this dataset is handed out in comes first."""
        archives = sorted(self.root.glob("kagglecatsanddogs_*.zip"))
        if self._find_pet_images(self.root) or (not archives and self._find_any(self.root)):
            return
        if not archives and (other := self._other_archive()) is not None:
            into = unpacked(other, lambda name: not is_hidden(name))
            if not (self._find_pet_images(into) or self._find_any(into)):
                raise InputError(
                    f"root is {self.root}, where {other.name} holds no folders of cats and dogs; give another"
                )
            return
        if not archives:
            self._refuse_other_pictures()
            archives = [self.root / "kagglecatsanddogs_5340.zip"]
            looked = f"neither {self.root}/PetImages/{{Cat,Dog}}/ nor {self.root}/kagglecatsanddogs_*.zip is there, and"
            fetch([URL], archives[0], size=SIZE, sha256=SHA256, missing=looked)
        if len(archives) > 1:
            log.info("%s is used, the last of %d archives", printable(str(archives[-1])), len(archives))
        into = unpacked(archives[-1], lambda name: "petimages" in name.lower().split("/")[:-1])
        if not self._find_pet_images(into):
            raise InputError(f"{archives[-1]} holds no folders of cats and dogs; get the archive from its source")

    def _other_archive(self) -> Path | None:
        """An archive under another name than Microsoft's: the root itself, or the only one in it."""
        if self.root.is_file() and is_archive(self.root):
            return self.root
        own = [path for path in self.root.glob("*") if is_archive(path) and not path.name.startswith("cifar")]
        return own[0] if len(own) == 1 else None

    def _find_pet_images(self, root: Path) -> bool:
        """Looks for a folder ``PetImages`` with at least one of the classes, here or one level deeper."""
        inner = _folders(root)
        for folder in (*inner, *(deeper for outer in inner for deeper in _folders(outer))):
            if folder.name.lower() == "petimages":
                layout = read_layout(walk(folder))
                # A class that is missing there is told later.
                if any(class_of(file.label) for file in layout.files):
                    self.folder, self._layout = folder, layout
                    return True
        return False

    def _find_any(self, root: Path) -> bool:
        """Looks for both classes in any layout, in the folder itself and one level deeper."""
        for folder in (root, *(folder for folder in _folders(root) if folder.name not in OTHER_DATASETS)):
            if not folder.is_dir():
                continue
            # The cats and dogs of CIFAR-10 may lie under the same root, and are another dataset.
            paths = [path for path in walk(folder) if path.split("/")[0] not in OTHER_DATASETS]
            layout = read_layout(paths)
            if set(self.class_names) <= {class_of(file.label) for file in layout.files}:
                self.folder, self._layout = folder, layout
                rank_zero_info(f"cats and dogs are those of {printable(str(folder))}, in the layout '{layout.kind}'")
                return True
        return False

    def _refuse_other_pictures(self) -> None:
        """Refuses to download beside pictures that the user may have meant."""
        if not self.root.is_dir():
            return
        others = [path for path in walk(self.root) if path.split("/")[0] not in OTHER_DATASETS]
        pictures = sorted(path for path in others if Path(path).suffix.lower() in PICTURE_SUFFIXES)
        if pictures:
            raise DataMissingError(
                f"root is {self.root}, where {len(pictures)} pictures lie, such as {printable(pictures[0])}, but no "
                "folders cat and dog: put them into PetImages/Cat and PetImages/Dog, give --data "
                "ImageFolderDataModule for other classes, or another --data.root to download into"
            )

    def check(self) -> list[ImageRecord]:
        """Checks every file of the two classes, and lists all others."""
        files = [(file.path, class_of(file.label), file.split) for file in self._layout.files]
        others = [(path, _class_of_path(path), "") for path in self._layout.others]
        return self.check_files([*files, *others], "cats_dogs.csv")

    def divide(self, records: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Takes ``images_per_class`` pictures of each class, and splits them as every dataset does."""
        return super().divide(first_of_each_class(records, self.images_per_class, self.folder))

    @classmethod
    def write_sample(cls, root: Path) -> None:
        """Writes 20 pictures of each class."""
        for label, name in enumerate(("Cat", "Dog")):
            write_pictures(root / "PetImages" / name, 3 * label, count=20, size=48, suffix=".jpg")
