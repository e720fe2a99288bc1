"""The KL weight beta as an effect handler."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

KL_WEIGHT = "kl_weight"
"""Key of `site["infer"]`: the KL weight of a latent site, and its scale without and with it."""


class KLWeightMessenger(Messenger):
    r"""Multiply the log-probability of every latent site, in model and guide alike, by `beta`.

    An ELBO evaluated in this context is `E_q[log p(x|z) + beta (log p(z) - log q(z|x))]`, the beta-VAE objective, for
    any pair and any `pyro.infer.ELBO`, analytic KL terms included. `beta` may be 0, which `poutine.scale` refuses, and
    may be a tensor. Observed sites, labels among them, keep their weight.

    References
    ----------
    Higgins et al. (2017), beta-VAE, equation 4.

    Examples
    --------
    >>> import pyro, torch, pyro.distributions as dist
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> with KLWeightMessenger(0.0):
    ...     trace = pyro.poutine.trace(guide).get_trace(torch.zeros(3))
    >>> float(trace.log_prob_sum())
    0.0
    """

    def __init__(self, beta: float | Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            before, msg["scale"] = msg["scale"], msg["scale"] * self.beta
            # A KL weight is no part of what all sites have in common, such as the weights of rows.
            msg["infer"] = {**(msg["infer"] or {}), KL_WEIGHT: (self.beta, before, msg["scale"])}
