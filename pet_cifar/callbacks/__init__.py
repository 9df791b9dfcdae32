"""What a run shows and writes; a callback looks and never touches."""

from pet_cifar.callbacks.board import Board as Board
from pet_cifar.callbacks.calibration import Calibration as Calibration
from pet_cifar.callbacks.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from pet_cifar.callbacks.curves import Curves as Curves
from pet_cifar.callbacks.embeddings import Embeddings as Embeddings
from pet_cifar.callbacks.feature_maps import FeatureMaps as FeatureMaps
from pet_cifar.callbacks.first_layer_filters import FirstLayerFilters as FirstLayerFilters
from pet_cifar.callbacks.grad_cam import GradCAM as GradCAM
from pet_cifar.callbacks.hyper_parameters import HyperParameters as HyperParameters
from pet_cifar.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
from pet_cifar.callbacks.pace import Pace as Pace
from pet_cifar.callbacks.progress import ProgressBar as ProgressBar
from pet_cifar.callbacks.run_card import RunCard as RunCard
from pet_cifar.callbacks.sample_pictures import SamplePictures as SamplePictures
from pet_cifar.callbacks.score_files import ScoreFiles as ScoreFiles
from pet_cifar.callbacks.worst_mistakes import WorstMistakes as WorstMistakes
