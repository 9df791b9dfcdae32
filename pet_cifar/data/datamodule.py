"""The one base of all data modules: from checked pictures to batches on the device."""

import hashlib
import math
import os
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.data import manifest, manifest_report
from pet_cifar.data.augment import RANDOM_NUMBERS, Augment
from pet_cifar.data.loader import Batch, BatchLoader, check_batch_size
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.pixels.cache import DevicePixels, Pixels, channel_statistics, open_pixels
from pet_cifar.data.pixels.feature_cache import Extractor, StoredFeatures, store_features
from pet_cifar.data.pixels.placement import Cache, Place, choose, missing_bytes
from pet_cifar.data.split import check_fraction, fingerprint
from pet_cifar.errors import InputError, check_choice
from pet_cifar.hardware import cores


def default_root() -> Path:
    """The environment variable ``PET_CIFAR_DATA``, or ``data``."""
    return Path(os.environ.get("PET_CIFAR_DATA", "data"))


class ImageDataModule(LightningDataModule):
    """Checks, divides, decodes, batches and augments; a dataset says where its pictures are.

    Args:
        root: where the data is or goes; null for the environment variable PET_CIFAR_DATA, else ``data``.
        image_size: side of the square pictures in pixels.
        batch_size: pictures a process and step.
        val_fraction: share of what is not test that validates, in (0, 1).
        split_seed: of the division; has nothing to do with the run's seed.
        num_workers: threads that prepare batches ahead; never changes a result. Decoding takes all cores.
        cache: where decoded pictures are kept: ``disk`` (a memory-mapped file beside the data, made once for all
            runs), ``ram`` (decoded anew by every run), ``device`` (the file, and a copy of it on the GPU, so
            that a step copies no picture) or ``none`` (decoded at every access); never changes a result. ``auto`` takes
            what there is room for, and says which.
        augment: random changes of the training pictures; null for none.
        on_bad_file: ``skip`` leaves unreadable pictures out and names them, ``error`` stops.
        allow_other_data: score or go on training a checkpoint on other pictures, or another division, than those
            it was trained with.

    Attributes:
        class_names: in the order of their numbers.
        num_channels: 1 (gray) or 3.
        listed: every picture with its verdict, once `setup` has run.
        parts: the pictures of ``train``, ``val`` and ``test``, once `setup` has run; a batch's ``row`` counts here.
        fingerprint: hash of the division by content, kept in every checkpoint.
        extractor: set by a net with a frozen part that wants its features instead of pictures.
    """

    class_names: tuple[str, ...]
    num_channels: Literal[1, 3] = 3

    def __init__(
        self,
        root: str | Path | None = None,
        image_size: int = 32,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        num_workers: int = 2,
        cache: Cache = "auto",
        augment: Augment | None = None,
        on_bad_file: Literal["skip", "error"] = "skip",
        allow_other_data: bool = False,
    ) -> None:
        super().__init__()
        if image_size < 1:
            raise InputError(f"image_size is {image_size}; it is a side in pixels, at least 1")
        check_batch_size(batch_size)
        check_choice("cache", cache, get_args(Cache))
        check_choice("on_bad_file", on_bad_file, ("skip", "error"))
        check_fraction("val_fraction", val_fraction)
        if num_workers < 0:
            raise InputError(f"num_workers is {num_workers}; it is a number of threads, 0 or more")
        self.root = default_root() if root is None else Path(root).expanduser()
        self.image_size = image_size
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.num_workers = num_workers
        self.cache = cache
        self.augment = augment
        self.on_bad_file = on_bad_file
        self.allow_other_data = allow_other_data
        self.listed: list[ImageRecord] = []
        self.splits: dict[Split, list[ImageRecord]] = {}
        self.fingerprint = ""
        self.extractor: Callable[[], Extractor] | None = None
        self._pixels: dict[Split, Pixels] = {}
        self._place: Place | None = None if cache == "auto" else cache
        self._placed_for = self._device
        self._features: dict[Split, StoredFeatures] = {}
        self._copies: torch.cuda.Stream | None = None
        self._views = range(1)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    # What a dataset says

    @abstractmethod
    def locate(self) -> None:
        """Finds the data, or unpacks or downloads it; sets what `check` and `read` need.

        Raises:
            InputError: it is nowhere and cannot be fetched.
        """

    @abstractmethod
    def check(self) -> list[ImageRecord]:
        """Lists every picture with its verdict, in an order that is the same on every machine."""

    @abstractmethod
    def divide(self, pictures: list[ImageRecord]) -> dict[Split, list[ImageRecord]]:
        """Which of the usable pictures train, validate and test; every class in proportion."""

    @abstractmethod
    def read(self, picture: ImageRecord) -> NDArray[np.uint8]:
        """Pixels of one picture: uint8, shape (num_channels, image_size, image_size); called from many threads."""

    # Lightning's hooks

    def prepare_data(self) -> None:
        """Locates and checks the data, in one process a machine."""
        if not self.splits:
            self.locate()
            self.listed = self.check()

    def setup(self, stage: str) -> None:
        """Lists and divides the pictures; the second call of a run finds everything done."""
        # of another net, perhaps; this run's sets it anew
        self.extractor, self._features, self._views = None, {}, range(1)
        if self._device != self._placed_for and self.cache in ("auto", "device"):
            # asked for before there was a trainer, or under another one
            self._pixels, self._place = {}, None if self.cache == "auto" else self.cache
        self._placed_for = self._device
        if self.splits:
            return
        if not self.listed:  # by this process
            self.locate()
            self.listed = self.check()
        if self.on_bad_file == "error":
            manifest_report.refuse_bad_files(self.listed, self.root)
        manifest_report.warn(self.listed, self.root)
        manifest_report.refuse_empty_classes(self.listed, self.class_names, self.root)
        self.splits = self.divide([picture for picture in self.listed if picture.verdict == manifest.OK])
        self.fingerprint = fingerprint(self.splits)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches; the same for the same seed and epoch, whatever ran before."""
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
        if device.type != "cuda":
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        self._copies = self._copies or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._copies):
            moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        computing.wait_stream(self._copies)
        for one in moved if isinstance(moved, Batch) else (moved,):
            if isinstance(one, Tensor):  # whose memory is not to be used anew before it was computed with
                one.record_stream(computing)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes floats of the batch where it now is, and augments it in training."""
        # a net's example input also comes by here
        if not isinstance(batch, Batch) or batch.features:
            return batch
        image = batch.image.float().div_(255)
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            image = self.augment(image, batch.uniform)
        return batch._replace(image=image)

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint says of the data."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Refuses a checkpoint that was trained on another division: its test pictures may be ours to train on."""
        if state_dict["fingerprint"] != self.fingerprint and not self.allow_other_data:
            raise InputError(
                f"the checkpoint was trained with other pictures, or another division of them, than {self.root} gives "
                "now, so a score could be of pictures it was trained on; give the original pictures, split_seed, "
                "fractions and images_per_class, or --data.allow_other_data true if you know that they are apart"
            )

    # What callbacks and nets ask

    def labels(self, split: Split) -> NDArray[np.int64]:
        """Class numbers of a split's pictures, shape (n,)."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return np.array([numbers[picture.label] for picture in self.splits[split]], np.int64)

    def pixels(self, split: Split) -> Pixels:
        """The pictures of a split by row number, decoded at the first call unless ``cache`` is ``none``."""
        if split not in self._pixels:
            pictures, place = self.splits[split], self._chosen_place()
            # one process makes the file of all on this machine
            processes = self.trainer.num_devices if self.trainer and place in ("none", "ram") else 1
            self._pixels[split] = open_pixels(
                lambda row: self.read(pictures[row]),
                len(pictures),
                (self.num_channels, self.image_size, self.image_size),
                place,
                file=self._file(split),
                device=self._device,
                num_threads=max(1, cores() // processes),
            )
            if self.cache == "device" and self._device.type != "cuda":
                rank_zero_info(f"cache: device is {self._device}'s memory here, for want of a GPU")
        return self._pixels[split]

    def _chosen_place(self) -> Place:
        if self._place is None:
            size = self.num_channels * self.image_size**2
            sizes = {split: len(pictures) * size for split, pictures in self.splits.items()}
            missing = sum(missing_bytes(self._file(split), own) for split, own in sizes.items())
            directory = manifest.state_directory(self.root)
            processes = self.trainer.num_devices if self.trainer else 1
            self._place, why = choose(sum(sizes.values()), missing, directory, self._device, processes)
            rank_zero_info(f"cache: {self._place} ({why})")
        return self._place

    def _file(self, split: Split) -> Path:
        return manifest.state_directory(self.root) / f"{self._content(split)}.npy"

    def view(self, split: Split, rows: NDArray[np.int64], number: int) -> Tensor:
        """One view of pictures: the pictures themselves for 0, augmented for more, the same in every run.

        Returns:
            Floats in [0, 1] on the device, shape (n, C, H, W).
        """
        image = self.pixels(split).take(rows).to(self._device).float().div_(255)
        if not number or self.augment is None:
            return image
        generator = np.random.default_rng([self.split_seed, number])
        uniform = generator.random((len(self.splits[split]), RANDOM_NUMBERS), np.float32)[rows]
        return self.augment(image, torch.from_numpy(uniform).to(self._device))

    def view_of(self, epoch: int) -> int:
        """The number of the view that an epoch trains on, where a frozen part's features are kept."""
        return self._views[epoch % len(self._views)]

    def features(self, split: Split, extractor: Extractor) -> StoredFeatures:
        """A frozen part's features of a split's pictures in all their views, computed at the first call."""
        if split not in self._features:
            seen = self._content(split)
            if self.augment:
                self._views = range(1, extractor.views + 1)
            views = self._views if split == "train" else range(1)
            self._features[split] = store_features(
                extractor,
                lambda rows, place: self.view(split, rows, views[place]),
                len(self.splits[split]),
                [f"{seen} {self.split_seed} {number} {self.augment}" if number else seen for number in views],
                directory=manifest.state_directory(self.root) / "features",
                split=split,
                batch_size=self.batch_size,
                in_use=[file for one in self._features.values() for file in one.files],
                planned=sum(
                    len(own) * (len(self._views) if name == "train" else 1) for name, own in self.splits.items()
                ),
            )
        return self._features[split]

    def _content(self, split: Split) -> str:
        """A name for a split's pixels; others have another."""
        shape = f"{self.num_channels}x{self.image_size}x{self.image_size}"
        hashes = "\n".join(picture.hash for picture in self.splits[split])
        return f"{split}-{shape}-{hashlib.sha256(hashes.encode()).hexdigest()[:20]}"

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def channel_statistics(self, most: int = 2000) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over (at most ``most``) training pictures, in [0, 1]."""
        return channel_statistics(self.pixels("train"), len(self.splits["train"]), most)

    def _loader(self, split: Split) -> BatchLoader:
        trainer = self.trainer

        def trained() -> float:
            # Lightning calls processed what is trained on, before its callbacks have seen it
            return (
                math.inf if trainer is None else vars(trainer.fit_loop.epoch_loop.batch_progress.current)["processed"]
            )

        stored = self.features(split, self.extractor()) if self.extractor else None
        pixels = stored or self.pixels(split)
        return BatchLoader(
            pixels,
            self.labels(split),
            self.batch_size,
            shuffle=split == "train",
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),
            epoch=(lambda: trainer.current_epoch) if trainer else (lambda: 0),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            # pictures that are on the device are picked there
            num_workers=0 if isinstance(pixels, DevicePixels) else self.num_workers,
            pin=self._device.type == "cuda",
            views=len(stored.files) if stored else 1,
            features=stored is not None,
            alternate=self.augment is not None and self.augment.flip == "alternating",
            trained=trained,
        )


def image_data_of(trainer: Trainer | None) -> ImageDataModule | None:
    """The trainer's data module, or None where the trainer has none or one that is not of this package."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ImageDataModule) else None
