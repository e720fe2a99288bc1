"""The model of the stick-breaking variational autoencoder."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro.distributions import Gamma
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.infer.minibatch import COUNTED
from pyrovae.likelihoods import Likelihood
from pyrovae.models.gaussian import num_rows, observe
from pyrovae.priors import StickBreakingPrior


class StickBreakingVAE(PyroModule):
    r"""p(v) p(x|w): fractions v of a stick, broken into weights w that the decoder sees.

    .. math::
        v_k \sim \mathrm{Beta}(1, \alpha), \qquad w_k = v_k \prod_{j<k} (1 - v_j), \qquad w_K = \prod_{j<K} (1 - v_j)

    Sites: `z` (the fractions, event shape `[truncation - 1]`), `weights` (deterministic, event shape `[truncation]`)
    and `x` (data), all in the plate "data", dimension -1. With a hyperprior also `concentration`, a scalar outside of
    the plate: for the objectives "elbo", "mean-field" and "graph" only, because it has no weight per datum.

    A decoder with infinitely many inputs cannot be had, because a weight matrix has finitely many columns, and a model
    whose later weights share one column (their sum, the remainder of the stick) *is* the truncated one. So the
    truncation is exact for the decoder that it has, and `pyrovae.sticks.add_sticks` lengthens the stick of a trained
    pair without changing what it computes: the un-truncated model whose columns beyond the truncation are equal.

    Args:
        truncation: number of weights K, at least 2.
        concentration: of the prior, positive; a Gamma distribution over it is a hyperprior.
        decoder: a module from the weights times the gain, `[..., truncation]`, to `[..., *likelihood.raw_shape]`.
        likelihood: the likelihood of a datum.
        learn_concentration: learn the concentration, which starts out at the given one.
        num_data: with a hyperprior, the number of training rows: a minibatch of B rows counts the site `concentration`
            B / `num_data` times, so that an epoch counts it once. None counts it once in every batch.
        gain: factor on the weights that the decoder sees, see `StickBreakingPrior`.

    Raises:
        ValueError: for impossible numbers, and a hyperprior of a concentration that is learned.

    Reference: Nalisnick and Smyth (2017), Stick-Breaking Variational Autoencoders, section 4.

    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> StickBreakingVAE(10, 5.0, DenseDecoder(10, likelihood.raw_shape), likelihood)(size=3).shape
    torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self,
        truncation: int,
        concentration: float | Gamma,
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        learn_concentration: bool = False,
        num_data: int | None = None,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        hyperprior = concentration if isinstance(concentration, torch.distributions.Gamma) else None
        if hyperprior is not None and learn_concentration:
            raise ValueError("a concentration with a hyperprior is inferred; leave out learn_concentration")
        if num_data is not None and num_data < 1:
            raise ValueError(f"num_data must be at least 1, got {num_data}")
        initial = concentration if hyperprior is None else float(hyperprior.mean)
        self.prior = StickBreakingPrior(truncation, initial, learn=learn_concentration, gain=gain)
        self.decoder = decoder
        self.likelihood = likelihood
        self.hyperprior = None if hyperprior is None else _GammaHyperprior(hyperprior)
        self.num_data = num_data

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        rows, concentration = num_rows(x, size), None
        if self.hyperprior is not None:
            with share_of_global(rows, self.num_data):
                concentration = pyro.sample("concentration", self.hyperprior(), infer={"is_global": True})
        with pyro.plate("data", rows, dim=-1):
            z = pyro.sample("z", self.prior(concentration))
            pyro.deterministic("weights", self.prior.features(z), event_dim=1)
            raw = self.decoder(self.prior.decoder_input(z))
            return observe("x", self.likelihood(raw), x, mask, self.likelihood.fill_value)


class _GammaHyperprior(nn.Module):
    """A Gamma distribution that follows device and type of its module."""

    def __init__(self, gamma: Gamma) -> None:
        super().__init__()
        for name in ("concentration", "rate"):
            self.register_buffer(name, getattr(gamma, name).detach().clone(), persistent=False)

    def forward(self) -> Gamma:
        """The distribution."""
        return Gamma(self.concentration, self.rate)


def share_of_global(rows: int, num_data: int | None) -> AbstractContextManager:
    """A context in which a global site counts by the part of the data that a batch of `rows` rows is."""
    return nullcontext() if num_data is None else _Share(rows / num_data)


class _Share(Messenger):
    """Scale sites by a share, and tell `MinibatchScale` that it is done."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["scale"] = msg["scale"] * self.share
        msg["infer"] = {**(msg["infer"] or {}), COUNTED: True}
