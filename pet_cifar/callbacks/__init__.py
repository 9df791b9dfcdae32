"""Lightning callbacks that show and write what a run does; none of them changes a result."""

from pet_cifar.callbacks.best_checkpoint import BestCheckpoint as BestCheckpoint
from pet_cifar.callbacks.board import Board as Board
from pet_cifar.callbacks.custom_scalars import CustomScalars as CustomScalars
from pet_cifar.callbacks.hyper_parameters import HyperParameters as HyperParameters
from pet_cifar.callbacks.images.calibration import Calibration as Calibration
from pet_cifar.callbacks.images.confusion_matrix import ConfusionMatrix as ConfusionMatrix
from pet_cifar.callbacks.images.embeddings import Embeddings as Embeddings
from pet_cifar.callbacks.images.feature_maps import FeatureMaps as FeatureMaps
from pet_cifar.callbacks.images.first_layer_filters import FirstLayerFilters as FirstLayerFilters
from pet_cifar.callbacks.images.grad_cam import GradCAM as GradCAM
from pet_cifar.callbacks.images.sample_pictures import SamplePictures as SamplePictures
from pet_cifar.callbacks.images.worst_mistakes import WorstMistakes as WorstMistakes
from pet_cifar.callbacks.last_checkpoint import LastCheckpoint as LastCheckpoint
from pet_cifar.callbacks.log_position import LogPosition as LogPosition
from pet_cifar.callbacks.prediction_writer import PredictionWriter as PredictionWriter
from pet_cifar.callbacks.progress_bar import ProgressBar as ProgressBar
from pet_cifar.callbacks.run_card import RunCard as RunCard
from pet_cifar.callbacks.run_record import RunRecord as RunRecord
from pet_cifar.callbacks.throughput_monitor import ThroughputMonitor as ThroughputMonitor
