"""Real handwritten digits that scikit-learn carries: no download, for a first run and for tests."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet_cifar.data import manifest
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.pixels.decode import fit_array
from pet_cifar.data.pixels.placement import Cache
from pet_cifar.data.split import check_fraction

FILE = "datasets/data/digits.csv.gz"
"""Where the digits lie in scikit-learn: 64 shades from 0 to 16 and the class in each row."""


class DigitsDataModule(ImageDataModule):
    """1,797 handwritten digits of 8 x 8 pixels, scaled to ``image_size``, gray in three channels.

    80 % train, 10 % validate and 10 % test. Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
    Digits, UCI Machine Learning Repository, 1998, as in scikit-learn.

    Args:
        root: The folder beside which the digits are kept where ``cache`` is ``disk``.
        image_size: The side of the square pictures in pixels.
        batch_size: The number of pictures for each process and step.
        val_fraction: The share of what is not test that validates.
        test_fraction: The share of all digits that tests.
        cache: Where the digits are kept; see `ImageDataModule`.
        shared: The other arguments of `ImageDataModule`.
    """

    class_names = tuple("0123456789")
    # Digits of one kind look alike by nature.
    keeps_near_duplicates_together = False

    def __init__(
        self,
        root: str | Path | None = None,
        image_size: int = 32,
        batch_size: int = 64,
        val_fraction: float = 1 / 9,
        test_fraction: float = 0.1,
        cache: Cache = "ram",
        **shared: Any,
    ) -> None:
        super().__init__(
            root=root,
            image_size=image_size,
            batch_size=batch_size,
            val_fraction=val_fraction,
            cache=cache,
            **shared,
        )
        check_fraction("test_fraction", test_fraction)
        self.test_fraction = test_fraction
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def locate(self) -> None:
        """Reads the digits out of scikit-learn; their 17 shades become 0 to 255."""
        images, self._targets = read_digits()
        pixels = np.rint(images * (255 / 16)).astype(np.uint8)
        self._arrays = {f"digits#{row}": image for row, image in enumerate(pixels)}

    def check(self) -> list[ImageRecord]:
        """Lists the digits."""
        return manifest.check_arrays(
            (path, self.class_names[target], "", image)
            for (path, image), target in zip(self._arrays.items(), self._targets, strict=True)
        )

    def read(self, record: ImageRecord) -> NDArray[np.uint8]:
        """Scales one digit."""
        return fit_array(self._arrays[record.path], self.image_size, self.num_channels)


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The shades of scikit-learn's digits, from 0 to 16, shape (1797, 8, 8), and their classes, shape (1797,).

    The file is read without importing scikit-learn, which takes up to a second; a version that keeps the digits
    elsewhere is imported.
    """
    package = find_spec("sklearn")
    assert package is not None, "this package depends on it"
    assert package.submodule_search_locations is not None, "it is a package"
    file = Path(package.submodule_search_locations[0]) / FILE
    if not file.is_file():
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images, digits.target
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
