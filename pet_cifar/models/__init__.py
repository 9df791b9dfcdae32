"""The nets: one architecture a file."""

from pet_cifar.models.cats_dogs_cnn import CatsDogsCNN as CatsDogsCNN
from pet_cifar.models.inception import InceptionCNN as InceptionCNN
from pet_cifar.models.plain import PlainCNN as PlainCNN
from pet_cifar.models.residual import ResidualCNN as ResidualCNN
from pet_cifar.models.speedrun import SpeedrunCNN as SpeedrunCNN
from pet_cifar.models.timm_classifier import TimmClassifier as TimmClassifier
from pet_cifar.models.vgg16 import VGG16Classifier as VGG16Classifier
