"""The one base of all data modules: from checked pictures to batches on the device."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data import exclusions, leakage, manifest, manifest_report, trained_on
from pet_cifar.data.augment import Augment
from pet_cifar.data.device_copy import SideStream
from pet_cifar.data.files.locking import locked
from pet_cifar.data.loader import Batch, BatchLoader, check_batch_size, loader_of_run
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.pixels.cache import channel_statistics
from pet_cifar.data.pixels.feature_cache import FeatureExtractor
from pet_cifar.data.pixels.feature_files import StoredFeatures
from pet_cifar.data.pixels.growing import Pixels
from pet_cifar.data.pixels.placement import Cache
from pet_cifar.data.root import data_root, expanded, state_directory
from pet_cifar.data.split import check_fraction, fingerprint, overfit_splits, parse_fold, split_records
from pet_cifar.data.split_features import SplitFeatures, augmented_view
from pet_cifar.data.split_pixels import SplitPixels
from pet_cifar.errors import InputError, check_choice
from pet_cifar.hardware import cores

MOST_WORKERS = 256
"""More threads than any machine has a use for; a checkpoint of a stranger may ask for any number."""

_Hook = TypeVar("_Hook", bound=Callable[..., object])


def _not_called_by_lightning(hook: _Hook) -> _Hook:
    """Lets Lightning take a hook for its own, which it leaves out.

    It would let the other processes wait for ``prepare_data`` without a word and without an end. ``setup`` does the
    work instead, and who waits there says on what.
    """
    vars(hook)["__wrapped__"] = LightningDataModule.prepare_data
    return hook


class ImageDataModule(LightningDataModule):
    """Checks, splits, batches and augments pictures; a dataset adds where its pictures are.

    A dataset sets ``class_names``, finds its files in `locate` and lists them in `check`. It overrides `divide` or
    `read` only where the defaults do not fit.

    Args:
        root: The folder where the data is or goes; null takes the environment variable PET_CIFAR_DATA, else ``data``.
        image_size: The side of the square pictures in pixels.
        batch_size: The number of pictures for each process and step.
        val_fraction: The share of the pictures outside the test split that validates, in (0, 1).
        split_seed: The seed of the split into training, validation and test; the run's seed does not change it.
        fold: Which fold of all pictures tests, such as ``1/5``, in the place of a test fraction; the tests of all five
            runs together score every picture once. Null makes no folds.
        num_workers: The number of threads that prepare batches ahead; it never changes a result. Decoding takes all
            cores.
        cache: Where decoded pictures are kept: ``disk`` (a memory-mapped file beside the data, made once for all
            runs), ``ram`` (decoded anew by every run), ``device`` (the file, and a copy of it on the GPU, so
            that a step copies no picture) or ``none`` (decoded at every access); it never changes a result. ``auto``
            takes what there is room for, and says which.
        augment: The random changes of the training pictures; null makes none.
        on_bad_file: ``skip`` leaves unreadable pictures out and names them, ``error`` stops.
        exclude: A list of pictures that are left out, such as the ``exclude.csv`` of ``pet-cifar data doctor``.
        drop_near_duplicates: ``train`` leaves out training and validation pictures that show the same as a test
            picture; null keeps them.
        allow_other_data: Allows to test or to go on training a checkpoint on other pictures, or another split, than
            those that it was trained with; a test then scores all pictures that it was not trained on.

    Attributes:
        class_names: The names of the classes in the order of their numbers.
        num_channels: 1 for gray pictures, 3 for color.
        folder: The folder that the paths of the listed pictures are relative to; `locate` sets it.
        test_fraction: The share of all pictures that tests, where the dataset has no test split of its own.
        groups: The name of the group that a picture belongs to, by its path; no group is divided. Most datasets have
            none.
        keeps_near_duplicates_together: Whether pictures that show the same go to one side of a split that is made
            here. Finding them takes a while once.
        listed: Every picture with its verdict, once `setup` has run.
        splits: The pictures of ``train``, ``val`` and ``test`` in this run, once `setup` has run; a batch's ``row``
            counts here. Under ``overfit_batches`` the same few pictures train and validate.
        fingerprint: A hash of the whole splits by content, which every checkpoint keeps.
        is_other_data: Whether the checkpoint that was loaded was trained with other data.
    """

    class_names: tuple[str, ...]
    num_channels: Literal[1, 3] = 3
    test_fraction: float = 0.1
    keeps_near_duplicates_together: bool = True

    def __init__(
        self,
        root: str | Path | None = None,
        image_size: int = 32,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        fold: str | None = None,
        num_workers: int = 2,
        cache: Cache = "auto",
        augment: Augment | None = None,
        on_bad_file: Literal["skip", "error"] = "skip",
        exclude: str | Path | None = None,
        drop_near_duplicates: Literal["train"] | None = None,
        allow_other_data: bool = False,
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise InputError(f"image_size is {image_size}; it is a side in pixels, at least 1")
        check_batch_size(batch_size)
        check_choice("cache", cache, get_args(Cache))
        check_choice("on_bad_file", on_bad_file, ("skip", "error"))
        check_choice("drop_near_duplicates", drop_near_duplicates, ("train", None))
        check_fraction("val_fraction", val_fraction)
        if not 0 <= num_workers <= MOST_WORKERS:
            raise InputError(f"num_workers is {num_workers}; it is a number of threads, from 0 to {MOST_WORKERS}")
        self.root = data_root(root)
        self.image_size = image_size
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.fold = parse_fold(fold)
        self.num_workers = num_workers
        self.cache = cache
        self.augment = augment
        self.on_bad_file = on_bad_file
        self.exclude = None if exclude is None else expanded(exclude, "exclude")
        self._excluded = [] if self.exclude is None else exclusions.read_exclusions(self.exclude)
        self.drop_near_duplicates = drop_near_duplicates
        self.allow_other_data = allow_other_data
        self.folder = self.root
        self.groups: dict[str, str] = {}
        self.listed: list[ImageRecord] = []
        self.splits: dict[Split, list[ImageRecord]] = {}
        self.fingerprint = ""
        self._whole_splits: dict[Split, list[ImageRecord]] = {}
        self._state: dict[str, Any] | None = None
        self._overfits = False
        self.is_other_data = False
        self._pixels: SplitPixels | None = None
        self._features: SplitFeatures | None = None
        self._copies = SideStream()

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    # What a dataset adds

    @abstractmethod
    def locate(self) -> None:
        """Finds the data, or unpacks or downloads it, and sets ``folder``.

        Raises:
            InputError: The data is nowhere and cannot be fetched.
        """

    @abstractmethod
    def check(self) -> list[ImageRecord]:
        """Lists every picture with its verdict, in an order that is the same on every machine."""

    def divide(self, records: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Splits the usable pictures; every class is in proportion in all splits.

        The default keeps the dataset's own test split where it has one, and takes ``test_fraction`` of all pictures
        otherwise. Validation pictures come out of the rest.
        """
        return self.split(records)

    def split(self, records: list[ImageRecord], num_listed: int | None = None) -> dict[Split, list[ImageRecord]]:
        """Calls `split_records` with this data module's options."""
        return split_records(
            records,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
            num_listed=num_listed,
            group=(lambda record: self.groups[record.path]) if self.groups else None,
            fold=self.fold,
        )

    def list_pictures(self) -> list[ImageRecord]:
        """Finds and checks the pictures, and marks those that the user leaves out."""
        self.locate()
        records = self.check()
        if self.exclude is None:
            return records
        return exclusions.exclude(records, self._excluded, self.exclude, self.folder)

    def check_files(self, files: Iterable[tuple[str, str, str]], listing: str) -> list[ImageRecord]:
        """Checks files for a dataset's `check`; what an earlier listing knows as unchanged is not read again.

        Args:
            files: The (path, label, split) of every file; the path is relative to ``folder``, and the split is empty
                where the dataset has none of its own.
            listing: The name of the list that is kept beside the data, such as ``cats_dogs.csv``.
        """
        # The list that ``data check`` writes beside the pictures is none of the user's files.
        files = [
            (path, label, split)
            for path, label, split in files
            if label or not (path.endswith(".csv") and manifest.is_listing(self.folder / path))
        ]
        return manifest.check_files(self.folder, files, state_directory(self.root) / listing, cores())

    def read(self, record: ImageRecord) -> NDArray[np.uint8]:
        """Reads one picture; it is called from many threads. The default decodes the file in ``folder``.

        Returns:
            uint8, shape (num_channels, image_size, image_size).
        """
        return manifest.read_listed(self.folder / record.path, self.image_size, self.num_channels, record.hash)

    @classmethod
    def write_sample(cls, root: Path) -> None:
        """Writes a few synthetic pictures under ``root`` as the dataset lays them out there.

        Its configs can be tried out with them, and the tests train on them. The default writes nothing, which suits a
        dataset that reads no files.
        """

    # Lightning's hooks

    @_not_called_by_lightning
    def prepare_data(self) -> None:
        """Locates and checks the data, for programs that want no more of it."""
        if not self._whole_splits:
            self.listed = self._list_alone()

    def _list_alone(self) -> list[ImageRecord]:
        """Lists the pictures while no other process of the run does; those that come later find it done."""
        if self.trainer is None or self.trainer.world_size == 1:
            return self.list_pictures()
        place = state_directory(self.root) / type(self).__name__
        with locked(place, what=f"the list of pictures of {self.root}"):
            return self.list_pictures()

    def setup(self, stage: str) -> None:
        """Lists and splits the pictures; the second call of a run finds everything done."""
        # A run that ended in an error has not taken its net's features back.
        self.release_features()
        if not self._whole_splits:
            self._list_and_split()
        self.is_other_data = False
        self._choose_splits(stage)
        self._open_pixels()

    def _open_pixels(self) -> None:
        processes = self.trainer.num_devices if self.trainer else 1
        if self._pixels is None or self._pixels.splits is not self.splits or not self._pixels.serves(self._device):
            self._pixels = SplitPixels(
                self.splits,
                self.read,
                (self.num_channels, self.image_size, self.image_size),
                cache=self.cache,
                root=self.root,
                device=self._device,
                num_processes=processes,
            )
        self._pixels.num_processes = processes

    def _list_and_split(self) -> None:
        if not self.listed:  # This process has not prepared the data.
            self.listed = self._list_alone()
        if self.on_bad_file == "error":
            manifest_report.refuse_bad_files(self.listed, self.root)
        manifest_report.report_listing(self.listed, self.class_names, self.root)
        self._whole_splits = self._without_leaks(self.divide(self._usable()))
        manifest_report.report_splits(self._whole_splits, self.class_names, self.root)
        self.fingerprint, self._state = fingerprint(self._whole_splits), None

    def _usable(self) -> list[ImageRecord]:
        return [record for record in self.listed if record.verdict == manifest.OK]

    def _without_leaks(self, splits: dict[Split, list[ImageRecord]]) -> dict[Split, list[ImageRecord]]:
        if leakage.is_divided_here(splits):
            splits = leakage.keep_together(splits, self.known_near_duplicates() or [], self.groups)
        if self.drop_near_duplicates is not None:
            splits = leakage.drop_from_training(splits, self.near_duplicates())
        return splits

    def near_duplicates(self) -> list[leakage.NearDuplicates]:
        """Finds the usable pictures that show the same as others; the result is kept beside the data."""
        read = leakage.at_small_size(self)
        return leakage.find_near_duplicates(self._usable(), read, state_directory(self.root))

    def group_numbers(self, split: Split) -> NDArray[np.int64]:
        """A number for each picture of a split that those share which show the same or belong together, shape (n,)."""
        return leakage.group_numbers(self.splits[split], self.known_near_duplicates() or [], self.groups)

    def known_near_duplicates(self) -> list[leakage.NearDuplicates] | None:
        """The near duplicates that this run keeps on one side of a split; None where it has not looked for any."""
        if not self.keeps_near_duplicates_together:
            return None
        if (count := len(self._usable())) > leakage.MOST:
            rank_zero_info(
                f"near duplicates are not looked for among {count:,} pictures, more than {leakage.MOST:,}, since that "
                "takes minutes; pet-cifar data doctor looks for them, and so does --data.drop_near_duplicates train"
            )
            return None
        return self.near_duplicates()

    def _choose_splits(self, stage: str) -> None:
        trainer: Any = self.trainer
        self._overfits = stage == "fit" and trainer is not None and trainer.overfit_batches > 0
        if not self._overfits:
            self.splits = self._whole_splits
            return
        size = self.batch_size * trainer.world_size
        self.splits, batches = overfit_splits(self._whole_splits, trainer.overfit_batches, size, self.split_seed)
        # A fraction would be taken once more, of the few batches that there are now.
        trainer.limit_train_batches = trainer.limit_val_batches = batches

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches; the same for the same seed and epoch, whatever ran before.

        Under ``overfit_batches`` every epoch has the same batches.
        """
        return self._loader("train")

    def val_dataloader(self) -> BatchLoader:
        """Every validation picture once."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Every test picture once."""
        return self._loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """Every test picture once."""
        return self._loader("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Copies to a GPU while it still computes the step before."""
        move = partial(super().transfer_batch_to_device, batch, device, dataloader_idx)
        return self._copies.run(move, device) if device.type == "cuda" else move()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes floats of the pictures where they now are, and augments them in training."""
        if not isinstance(batch, Batch):  # features, or a net's example input
            return batch
        image = batch.image.float().div_(255)
        augment = self._augment
        if augment is not None and self.trainer is not None and self.trainer.training:
            image = augment(image, batch.uniform)
        return replace(batch, image=image)

    def state_dict(self) -> dict[str, Any]:
        """Tells a checkpoint which splits the net was trained with."""
        if self._state is None:
            trained = [record for split in ("train", "val") for record in self._whole_splits.get(split, ())]
            self._state = trained_on.state_of(self.fingerprint, trained)
        return self._state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses a checkpoint that was trained with other splits, since their test pictures may train here."""
        self.refuse_other_data({type(self).__qualname__: state_dict})

    def refuse_other_data(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuses a checkpoint that was trained with other data, unless ``allow_other_data`` is set.

        A test is then made of all pictures that the net was not trained on; where the dataset has a test split of its
        own, of those in it.

        Args:
            checkpoint: The states of all that was saved, by name.

        Raises:
            InputError: The net was trained with another data module, with other pictures or with other splits.
        """
        trained_on.refuse_other_classes(checkpoint, self.class_names, self.root)
        known = (checkpoint, type(self).__qualname__, self.fingerprint, self.root)
        if not self.allow_other_data:
            trained_on.refuse_other_data(*known)
        elif trained_on.reason_against(*known) and not self.is_other_data:  # Lightning and the net both ask.
            self.is_other_data = True
            if self.trainer is not None and self.trainer.state.fn in ("test", "predict"):
                self._test_what_is_new(checkpoint)

    def _test_what_is_new(self, checkpoint: Mapping[str, Any]) -> None:
        new = trained_on.new_test_split(self.listed, checkpoint, self.root)
        if new is None:  # The checkpoint does not tell, so that only this data's own test split is tested.
            return
        self.splits = {**self._whole_splits, "test": new}
        self._open_pixels()
        if self._features is not None:
            self.keep_features(self._features.extractor)

    # What callbacks and nets use

    def labels(self, split: Split) -> NDArray[np.int64]:
        """The class numbers of a split's pictures, shape (n,)."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return np.array([numbers[record.label] for record in self.splits[split]], np.int64)

    def pixels(self, split: Split) -> Pixels:
        """The pictures of a split by row number; the first call decodes them, unless ``cache`` is ``none``."""
        assert self._pixels is not None, "setup has not run"
        return self._pixels.open(split)

    def channel_statistics(self, most: int = 2000) -> tuple[list[float], list[float]]:
        """Measures the mean and standard deviation of each channel, in [0, 1]; this decodes the training pictures.

        Args:
            most: The number of pictures that are measured, spread evenly over the training split.
        """
        return channel_statistics(self.pixels("train"), len(self.splits["train"]), most)

    def view(self, split: Split, rows: NDArray[np.int64], number: int) -> Tensor:
        """One view of pictures: the pictures themselves for 0, else an augmentation that is the same in every run.

        Returns:
            Floats in [0, 1] on the device, shape (n, C, H, W).
        """
        assert self._pixels is not None, "setup has not run"
        return augmented_view(self._pixels, split, rows, number, self._augment, self.split_seed)

    # What a net with frozen layers hands over, and takes back

    def keep_features(self, extractor: FeatureExtractor) -> None:
        """From now on the loaders give a net's features instead of pictures; each is computed once and kept.

        The net calls this in its own ``setup``; `release_features` takes it back.
        """
        assert self._pixels is not None, "setup has not run"
        self._features = SplitFeatures(
            extractor, self._pixels, self._augment, seed=self.split_seed, root=self.root, batch_size=self.batch_size
        )

    def release_features(self) -> None:
        """From now on the loaders give pictures."""
        self._features = None

    def features(self, split: Split) -> StoredFeatures:
        """The features of a split by row number, while a net has them kept; the first call computes them."""
        assert self._features is not None, "no net keeps features"
        return self._features.open(split)

    @property
    def feature_extractor(self) -> FeatureExtractor | None:
        """Computes the features that the net trains on; None where it trains on pictures."""
        return self._features.extractor if self._features else None

    def view_of(self, epoch: int) -> int:
        """The number of the view that an epoch, counted from 0, trains on; 0 where it trains on pictures."""
        return self._features.view_of(epoch) if self._features else 0

    @property
    def _augment(self) -> Augment | None:
        return None if self._overfits else self.augment

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _loader(self, split: Split) -> BatchLoader:
        if not self.splits:  # A program asks for batches without a trainer.
            self.prepare_data()
            self.setup("fit")
        return loader_of_run(
            self.trainer,
            self._features.open(split) if self._features else self.pixels(split),
            self.labels(split),
            self.batch_size,
            shuffle=split == "train" and not self._overfits,
            num_workers=self.num_workers,
            alternate=self.augment is not None and self.augment.flip == "alternating",
        )


def image_data_of(trainer: Trainer | None) -> ImageDataModule | None:
    """The trainer's data module, or None where the trainer has none or one that is not of this package."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ImageDataModule) else None
