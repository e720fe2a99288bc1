"""One interface for black-box models: an inference network, a generative model, and losses that train them.

>>> from pyrovae.blackbox import VIMCO, fit, wake_wake  # doctest: +SKIP
>>> fit(VIMCO(inference_network, generative_model), data, num_steps=1000)  # doctest: +SKIP
>>> fit(wake_wake(inference_network, generative_model), data, num_steps=1000)  # doctest: +SKIP
"""

from pyrovae.blackbox.adapters import PyroGenerativeModel, PyroInferenceNetwork, from_vae
from pyrovae.blackbox.losses import ELBO, IWAE, NVIL, VIMCO, Loss, SleepQ, WakeP, WakeQ
from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork
from pyrovae.blackbox.pairs import NetworkGuide, NetworkModel, as_pair
from pyrovae.blackbox.regularizers import BetaRegularizer, NormalRegularizer, Regularizer
from pyrovae.blackbox.updates import fit, reweighted_wake_sleep, update, wake_sleep, wake_wake

__all__ = [
    "ELBO",
    "IWAE",
    "NVIL",
    "VIMCO",
    "BetaRegularizer",
    "GenerativeModel",
    "InferenceNetwork",
    "Loss",
    "NetworkGuide",
    "NetworkModel",
    "NormalRegularizer",
    "PyroGenerativeModel",
    "PyroInferenceNetwork",
    "Regularizer",
    "SleepQ",
    "WakeP",
    "WakeQ",
    "as_pair",
    "fit",
    "from_vae",
    "reweighted_wake_sleep",
    "update",
    "wake_sleep",
    "wake_wake",
]
