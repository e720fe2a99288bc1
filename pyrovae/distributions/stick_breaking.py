"""Distributions on the simplex that come from breaking a stick."""

from typing import Any, ClassVar

import torch
from pyro.distributions import Independent
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape, broadcast_floats, raise_if_violated
from pyrovae.distributions.fractions import log_prob_from_logs, rsample_log
from pyrovae.distributions.kumaraswamy import Kumaraswamy
from pyrovae.distributions.sticks import Beta
from pyrovae.distributions.transforms import log_stick_fractions, log_stick_jacobian, log_stick_weights


class StickBreaking(CheckedDistribution):
    r"""Distribution of the K weights of a stick that is broken at K - 1 independent random fractions.

    Use it for a latent on the simplex, as a prior (`GEM`) and with learned fractions as a guide.

    Parameters
    ----------
    fractions : Distribution
        Distribution on (0, 1): `Kumaraswamy`, `Beta`, `LogitNormal`, `GammaComposition`, or one of torch. Its batch
        shape is ``[..., K-1]``, or ``[K-1]`` is its event shape. The weights have `batch_shape` ``[...]`` and
        `event_shape` ``[K]``.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        The fractions have no last dimension to break along, or a value is off the simplex.

    Notes
    -----
    .. math::
        w_k = v_k \prod_{j<k} (1 - v_j), \qquad w_K = \prod_{j<K} (1 - v_j)

    The density is that of the first K - 1 weights. It is not exchangeable. Even with equal fractions, the early weights
    are larger and are learned first. This helps a latent code and harms unordered classes; for those, see
    `MultivariateKumaraswamy`. The KL between two of the same truncation is that of their fractions.

    Everything goes through ``log v`` and ``log(1 - v)``. A weight that is too small for the dtype is drawn as 0 and
    scored as the smallest normal number. `rsample_log_weights` and `log_prob_log_weights` have no such limit.

    References
    ----------
    H. Ishwaran and L. F. James (2001), "Gibbs sampling methods for stick-breaking priors". E. Nalisnick and P. Smyth
    (2017), "Stick-breaking variational autoencoders", arXiv:1605.06197.

    Examples
    --------
    >>> from pyrovae.distributions import Kumaraswamy
    >>> weights = StickBreaking(Kumaraswamy(torch.ones(8, 49), 5.0))
    >>> weights.batch_shape, weights.event_shape
    (torch.Size([8]), torch.Size([50]))
    >>> bool(weights.rsample_log_weights().isfinite().all())
    True
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    support = constraints.simplex

    def __init__(self, fractions: Distribution, *, validate_args: bool | None = None) -> None:
        if len(fractions.event_shape) == 0 and len(fractions.batch_shape) > 0:
            fractions = Independent(fractions, 1)
        if len(fractions.event_shape) != 1:
            raise ValueError(
                "StickBreaking breaks along the last dimension of the fractions: expected batch shape [..., K-1] with "
                f"scalar events, or event shape [K-1]; got batch shape {tuple(fractions.batch_shape)} and event shape "
                f"{tuple(fractions.event_shape)}."
            )
        self.fractions = fractions
        event_shape = torch.Size([fractions.event_shape[0] + 1])
        super().__init__(fractions.batch_shape, event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "StickBreaking":
        """The same distribution with its fractions expanded to ``[*batch_shape, K-1]``."""
        new = self._get_checked_instance(StickBreaking, _instance)
        new.fractions = self.fractions.expand(torch.Size(batch_shape))
        super(StickBreaking, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # torch's own distributions make it a property, too
        """Whether the fractions are drawn with a path derivative."""
        return self.fractions.has_rsample

    @property
    def truncation(self) -> int:
        """Number of weights K."""
        return self.event_shape[0]

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised weights, shape ``[*sample_shape, *batch_shape, K]``."""
        return torch.exp(self.rsample_log_weights(sample_shape))

    def rsample_log_weights(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Logarithms of reparameterised weights, all finite, shape ``[*sample_shape, *batch_shape, K]``."""
        return log_stick_weights(*rsample_log(self.fractions, sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density of the first K - 1 weights.

        Parameters
        ----------
        value : Tensor, shape ``[..., K]``
            Points of the simplex. A zero counts as the smallest normal number.

        Returns
        -------
        Tensor
            Log density in nats, shape ``[...]`` broadcast with `batch_shape`.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_log_weights(torch.log(value.clamp(min=torch.finfo(value.dtype).tiny)))

    def log_prob_log_weights(self, log_weights: Tensor) -> Tensor:
        """Compute the log density at weights that are given by their logarithms.

        Parameters
        ----------
        log_weights : Tensor, shape ``[..., K]``
            Logarithms of the weights.

        Returns
        -------
        Tensor
            Log density of the first K - 1 weights (not of their logarithms) in nats, shape ``[...]`` broadcast with
            `batch_shape`.
        """
        log_v, log_1mv = log_stick_fractions(log_weights)
        return log_prob_from_logs(self.fractions, log_v, log_1mv) - log_stick_jacobian(log_1mv)

    @property
    def mean(self) -> Tensor:
        """Mean weights from the means of the independent fractions, shape ``[*batch_shape, K]``."""
        mean = self.fractions.mean
        return torch.exp(log_stick_weights(torch.log(mean), torch.log1p(-mean)))

    @property
    def variance(self) -> Tensor:
        """Variance of each weight from two moments of the independent fractions, shape ``[*batch_shape, K]``."""
        mean, variance = self.fractions.mean, self.fractions.variance
        square, square_left = variance + mean.square(), variance + (1 - mean).square()
        return torch.exp(log_stick_weights(torch.log(square), torch.log(square_left))) - self.mean.square()

    def entropy(self) -> Tensor:
        """Compute the differential entropy of the first K - 1 weights.

        It is the entropy of the fractions plus the expected log determinant.

        Returns
        -------
        Tensor
            Entropy in nats, shape `batch_shape`.

        Raises
        ------
        NotImplementedError
            The fractions are neither `Beta` nor `Kumaraswamy`.
        """
        base = self.fractions.base_dist if isinstance(self.fractions, Independent) else self.fractions
        if not isinstance(base, Beta | Kumaraswamy):
            raise NotImplementedError(f"no expectation of log(1 - v) is known for {type(base).__name__} fractions")
        return self.fractions.entropy() + log_stick_jacobian(base.expected_log1m)


def GEM(concentration: Tensor | float, truncation: int, *, validate_args: bool | None = None) -> StickBreaking:
    """Make the stick-breaking weights of a Dirichlet process, cut at `truncation` (Griffiths, Engen and McCloskey).

    Use it as a prior of mixture weights whose effective number is learned.

    Parameters
    ----------
    concentration : Tensor or float, shape ``[...]``
        Concentration of the Dirichlet process, positive. The larger it is, the more weights matter: typically the first
        `concentration` * log(100) of them hold 99 % of the stick.
    truncation : int
        Number of weights K, at least 2. Choose it above `concentration` * log(100).
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Returns
    -------
    StickBreaking
        Weights with `batch_shape` ``[...]`` and `event_shape` ``[K]``. The `truncation` - 1 fractions are Beta(1,
        `concentration`), and the last weight is the remainder.

    Raises
    ------
    ValueError
        A concentration is not positive, or the truncation is below 2.

    References
    ----------
    J. Pitman (2002), "Combinatorial stochastic processes".

    Examples
    --------
    >>> GEM(5.0, truncation=50).mean[:3]
    tensor([0.1667, 0.1389, 0.1157])
    """
    if truncation < 2:
        raise ValueError(f"GEM: `truncation` is the number of weights and must be at least 2, got {truncation}.")
    (concentration,) = broadcast_floats(concentration)
    try:
        fractions = Beta(1.0, concentration.unsqueeze(-1), validate_args=validate_args)
    except ValueError:
        raise_if_violated("GEM", "parameter `concentration`", constraints.positive, concentration)
        raise
    fractions = fractions.expand((*concentration.shape, truncation - 1))
    return StickBreaking(fractions, validate_args=validate_args)
