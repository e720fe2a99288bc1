"""One interface for black-box models: an inference network, a generative model, and losses that train them.

You write the networks (`InferenceNetwork`, `GenerativeModel`), or `from_vae` takes them from a Pyro pair. A loss is
called with data and has a gradient. `fit` runs one loss, or a sequence of them, in one line.

Examples
--------
>>> import torch, pyro, pyro.distributions as dist
>>> from pyrovae import VAE
>>> def model(x):
...     rate = pyro.param("rate", torch.tensor(-1.0)).sigmoid()
...     with pyro.plate("data", len(x)):
...         z = pyro.sample("z", dist.Bernoulli(rate))
...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
>>> def guide(x):
...     slope = pyro.param("slope", torch.tensor(1.0))
...     with pyro.plate("data", len(x)):
...         pyro.sample("z", dist.Bernoulli(logits=slope * x))
>>> x = torch.tensor([0.1, -0.4, 1.2, 0.3])
>>> q, p = from_vae(VAE(model, guide, example=x), num_samples=10)
>>> loss = VIMCO(q, p, regularizers=[BetaRegularizer(p, "param_sites.rate", mean=0.2, std=0.1)])
>>> loss([x]).backward()
>>> history = fit(loss, [x], num_steps=2)
>>> sorted(fit(wake_wake(q, p), [x], num_steps=2))
['WakeP', 'WakeQ']
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
