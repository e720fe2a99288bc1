"""Training: the Trainer, its callbacks and schedules, and the folder that a training writes."""

from pyrovae.options import parse_rates
from pyrovae.storage import CheckpointError
from pyrovae.training.callbacks import Callback, Progress, ProgressBar, TemperatureSchedule, TensorBoard
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.data import TrainingData
from pyrovae.training.history import History, NonFiniteLossError, TrainingInterrupted
from pyrovae.training.lr_schedules import LR_SCHEDULES
from pyrovae.training.optimizers import OPTIMIZERS
from pyrovae.training.schedules import Constant, Cyclic, Decay, WarmUp, parse_schedule
from pyrovae.training.trainer import Trainer

__all__ = [
    "LR_SCHEDULES",
    "OPTIMIZERS",
    "Callback",
    "CheckpointError",
    "Constant",
    "Cyclic",
    "Decay",
    "History",
    "NonFiniteLossError",
    "Progress",
    "ProgressBar",
    "RunFolder",
    "TemperatureSchedule",
    "TensorBoard",
    "Trainer",
    "TrainingData",
    "TrainingInterrupted",
    "WarmUp",
    "parse_rates",
    "parse_schedule",
]
