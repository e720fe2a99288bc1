"""Log weights, bounds and objectives."""

from pyrovae.infer.compile import CompiledLoss
from pyrovae.infer.compile_errors import CompileError
from pyrovae.infer.functional import LogLikelihood, effective_sample_size, log_mean_exp
from pyrovae.infer.iwae import IWAE, Renyi
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.log_weights import LogWeights, log_weights
from pyrovae.infer.minibatch import MinibatchScale
from pyrovae.infer.nvil import NVIL
from pyrovae.infer.objective import Objective
from pyrovae.infer.objectives import make_objective, objective_names
from pyrovae.infer.vimco import VIMCO
from pyrovae.infer.wake_sleep import ReweightedWakeSleep, WakeSleep

__all__ = [
    "IWAE",
    "NVIL",
    "VIMCO",
    "CompileError",
    "CompiledLoss",
    "KLWeightMessenger",
    "LogLikelihood",
    "LogWeights",
    "MinibatchScale",
    "Objective",
    "Renyi",
    "ReweightedWakeSleep",
    "WakeSleep",
    "effective_sample_size",
    "log_mean_exp",
    "log_weights",
    "make_objective",
    "objective_names",
]
