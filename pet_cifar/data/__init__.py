"""From files to batches."""

from pet_cifar.data.datamodule import ImageDataModule as ImageDataModule
from pet_cifar.data.datasets.cats_dogs import CatsDogsDataModule as CatsDogsDataModule
from pet_cifar.data.datasets.cifar10 import CIFAR10DataModule as CIFAR10DataModule
from pet_cifar.data.datasets.digits import DigitsDataModule as DigitsDataModule
from pet_cifar.data.datasets.image_folder import ImageFolderDataModule as ImageFolderDataModule
