"""What every architecture shares: the one LightningModule base, and what it is made of."""

from pet_cifar.training.budget import TimeBudget as TimeBudget
from pet_cifar.training.classifier import ImageClassifier as ImageClassifier
from pet_cifar.training.closed_form_head import ClosedFormHead as ClosedFormHead
from pet_cifar.training.lookahead import Lookahead as Lookahead
from pet_cifar.training.lr_finder import LRFinder as LRFinder
from pet_cifar.training.transfer import TransferClassifier as TransferClassifier
