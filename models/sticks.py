"""The model of the stick-breaking variational autoencoder."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import Gamma
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import global_site, num_rows, observe, share_of_global
from pyrovae.priors import StickBreakingPrior


class StickBreakingVAE(PyroModule):
    r"""A VAE whose decoder sees the weights w of a stick, which fractions v break off: p(v) p(x|w).

    Use it with `KumaraswamySticks` or another guide of sticks, where the data choose how many weights are used.

    Sites: `z` (the fractions, event shape ``[truncation - 1]``), `weights` (deterministic, event shape
    ``[truncation]``) and `x` (data), all in the plate "data", dimension -1. With a hyperprior there is also
    `concentration`, a scalar outside of the plate, which "iwae-stl", "iwae-dreg" and the wake-sleep objectives refuse,
    because it has no weight per datum.

    Parameters
    ----------
    truncation : int
        Number of weights K, at least 2.
    concentration : float or Gamma
        Concentration of the prior, positive. A Gamma distribution is a hyperprior over it.
    decoder : Module
        From the weights times the gain, ``[..., truncation]``, to ``[..., *likelihood.raw_shape]``.
    likelihood : Likelihood
        The likelihood of a datum.
    learn_concentration : bool, default False
        Whether the concentration is learned, from the given value on. Not with a hyperprior.
    num_data : int, optional
        With a hyperprior, the number of training rows. A minibatch of B rows then counts the site `concentration`
        B / `num_data` times, so that an epoch counts it once. None counts it once in every batch.
    gain : float, optional
        Factor on the weights that the decoder sees. None gives the default of `StickBreakingPrior`.

    Raises
    ------
    ValueError
        A number is out of range, or a concentration with a hyperprior is to be learned.

    Notes
    -----
    .. math::
        v_k \sim \mathrm{Beta}(1, \alpha), \qquad w_k = v_k \prod_{j<k} (1 - v_j), \qquad w_K = \prod_{j<K} (1 - v_j)

    The decoder has finitely many columns, so infinitely many weights must share some. A model in which all weights from
    K on share one column *is* the truncated model, because that column sees only their sum, the remainder of the stick.
    In this sense the truncation is exact. `pyrovae.runs.add_sticks` lengthens the stick of a trained pair without
    changing what it computes.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", section 4.

    Examples
    --------
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
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        rows, concentration = num_rows(x, size), None
        if self.hyperprior is not None:
            with share_of_global(rows, self.num_data):
                concentration = pyro.sample("concentration", self.hyperprior(), infer=global_site())
        with pyro.plate("data", rows, dim=-1):
            z = pyro.sample("z", self.prior(concentration))
            pyro.deterministic("weights", self.prior.features(z), event_dim=1)
            raw = self.decoder(self.prior.decoder_input(z))
            return observe(self.likelihood, raw, x, mask)


class _GammaHyperprior(nn.Module):
    """A Gamma distribution that follows device and type of its module."""

    concentration: Tensor
    rate: Tensor

    def __init__(self, gamma: Gamma) -> None:
        super().__init__()
        for name in ("concentration", "rate"):
            self.register_buffer(name, getattr(gamma, name).detach().clone(), persistent=False)

    def forward(self) -> Gamma:
        """The distribution."""
        return Gamma(self.concentration, self.rate)
