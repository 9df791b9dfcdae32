"""What a run shows and writes; a callback looks and never touches."""

from pet_cifar.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
from pet_cifar.callbacks.pace import Pace as Pace
from pet_cifar.callbacks.progress import ProgressBar as ProgressBar
from pet_cifar.callbacks.score_files import ScoreFiles as ScoreFiles
