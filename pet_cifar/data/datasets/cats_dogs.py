"""Cats against dogs: the Kaggle/Asirra pictures as Microsoft hands them out, or any two folders laid out alike."""

from pathlib import Path
from typing import Any

from pet_cifar.data import manifest
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.archive import unpack_zip
from pet_cifar.data.files.download import fetch
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.root import state_directory
from pet_cifar.data.split import check_fraction, first_of_each_class
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import InputError

URL = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
SIZE = 824_887_076
SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"


class CatsDogsDataModule(ImageDataModule):
    """Cats (0) and dogs (1).

    It finds ``PetImages/{Cat,Dog}/`` under ``root``, or unpacks any ``kagglecatsanddogs_*.zip`` there, or downloads
    Microsoft's (825 MB, CDLA-Permissive-2.0).

    Args:
        root: The folder where the data is or goes.
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
        if images_per_class is not None and images_per_class < 1:
            raise InputError(f"images_per_class is {images_per_class}; it is at least 1, or null for all")
        check_fraction("test_fraction", test_fraction)
        self.images_per_class = images_per_class
        self.num_channels = 1 if grayscale else 3
        self.test_fraction = test_fraction
        self.folder = self.root / "PetImages"

    def locate(self) -> None:
        """Finds, unpacks or downloads the pictures."""
        self.folder = self.root / "PetImages"
        if self.folder.is_dir():
            return
        archives = sorted(self.root.glob("kagglecatsanddogs_*.zip"))
        if archives:
            archive = archives[-1]
        else:
            archive = self.root / "kagglecatsanddogs_5340.zip"
            looked = f"neither {self.folder}/{{Cat,Dog}}/ nor {self.root}/kagglecatsanddogs_*.zip is there, and"
            fetch([URL], archive, size=SIZE, sha256=SHA256, missing=looked)
        unpacked = state_directory(self.root) / archive.stem
        unpack_zip(archive, unpacked, members=lambda name: name.startswith("PetImages/"))
        self.folder = unpacked / "PetImages"

    def check(self) -> list[ImageRecord]:
        """Checks every file of the two folders."""
        return self.check_files(
            (
                (path, directory.lower(), "")
                for directory in ("Cat", "Dog")
                for path in manifest.scan(self.folder, directory)
            ),
            "cats_dogs.csv",
        )

    def divide(self, records: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Takes ``images_per_class`` pictures of each class, and splits them as every dataset does."""
        return super().divide(first_of_each_class(records, self.images_per_class, self.folder))

    @classmethod
    def write_sample(cls, root: Path) -> None:
        """Writes 20 pictures of each class."""
        for label, name in enumerate(("Cat", "Dog")):
            write_pictures(root / "PetImages" / name, 3 * label, count=20, size=48, suffix=".jpg")
