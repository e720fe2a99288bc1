"""Log weights, bounds and objectives."""

from pyrovae.infer.functional import LogLikelihood, effective_sample_size, log_mean_exp
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.log_weights import LogWeights, log_weights

__all__ = [
    "KLWeightMessenger",
    "LogLikelihood",
    "LogWeights",
    "effective_sample_size",
    "log_mean_exp",
    "log_weights",
]
