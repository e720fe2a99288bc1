"""Stick-breaking in log space, from fractions to weights and back, and the transform of log-probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from pyrovae.distributions._numerics import open_unit
from pyrovae.distributions.constraints import LogSimplex, log_simplex, open_unit_interval


def log_stick_weights(log_v: Tensor, log_1mv: Tensor) -> Tensor:
    r"""Compute the logarithms of the weights of a stick that is broken at K - 1 fractions.

    Parameters
    ----------
    log_v : Tensor, shape ``[..., K-1]``
        ``log v``.
    log_1mv : Tensor, shape ``[..., K-1]``
        ``log(1 - v)``.

    Returns
    -------
    Tensor
        Log weights, shape ``[..., K]``.

    Notes
    -----
    .. math::
        \log w_k = \log v_k + \sum_{j<k} \log(1 - v_j), \qquad \log w_K = \sum_{j<K} \log(1 - v_j)

    Every log weight is finite, however long the stick. The running sum is in float64, so that the weights sum to 1
    within 1e-6 in float32 at truncation 1000.

    Examples
    --------
    >>> half = torch.full((3,), 0.5).log()
    >>> log_stick_weights(half, half).exp()
    tensor([0.5000, 0.2500, 0.1250, 0.1250])
    """
    # What is left of the stick before each break, and after the last one.
    log_left = torch.cumsum(log_1mv, -1, dtype=torch.float64)
    log_left = torch.cat([torch.zeros_like(log_left[..., :1]), log_left], -1)
    log_share = torch.cat([log_v, torch.zeros_like(log_v[..., :1])], -1)
    return (log_share + log_left).to(log_v.dtype)


def log_stick_fractions(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the logarithms of the fractions that break a stick into given weights.

    It is the inverse of `log_stick_weights`.

    Parameters
    ----------
    log_weights : Tensor, shape ``[..., K]``
        Log weights. They need not be normalised.

    Returns
    -------
    log_v, log_1mv : Tensor, shape ``[..., K-1]``
        ``log v`` and ``log(1 - v)``.

    Examples
    --------
    >>> log_v, log_1mv = log_stick_fractions(torch.tensor([0.5, 0.25, 0.25]).log())
    >>> log_v.exp()
    tensor([0.5000, 0.5000])
    """
    # Summed from the far end, so that the small weights there keep their digits.
    log_left = torch.logcumsumexp(log_weights.flip(-1).double(), -1).flip(-1)
    log_v = log_weights[..., :-1] - log_left[..., :-1]
    log_1mv = log_left[..., 1:] - log_left[..., :-1]
    return log_v.to(log_weights.dtype), log_1mv.to(log_weights.dtype)


class StickBreakingTransform(Transform):
    """Bijection from K - 1 fractions in (0, 1) to the K-simplex.

    Use it to turn a distribution of fractions into one of weights. `StickBreaking` does the same without leaving log
    space.

    Notes
    -----
    It maps shape ``[..., K-1]`` to ``[..., K]``. The fractions are shares of what is left of the stick, as in
    `log_stick_weights`. torch's class of the same name starts from real numbers and squeezes them itself. The Jacobian
    is that of the first K - 1 weights.

    Weights that are too small for the dtype become zero. The inverse treats a zero as the smallest normal number.

    References
    ----------
    J. Sethuraman (1994), "A constructive definition of Dirichlet priors".

    Examples
    --------
    >>> transform = StickBreakingTransform()
    >>> weights = transform(torch.tensor([0.5, 0.5]))
    >>> weights, transform.inv(weights)
    (tensor([0.5000, 0.2500, 0.2500]), tensor([0.5000, 0.5000]))
    """

    domain = constraints.independent(open_unit_interval, 1)
    codomain = constraints.simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StickBreakingTransform)

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return torch.exp(log_stick_weights(torch.log(x), torch.log1p(-x)))

    def _inverse(self, y: Tensor) -> Tensor:
        log_weights = torch.log(y.clamp(min=torch.finfo(y.dtype).tiny))
        return open_unit(*log_stick_fractions(log_weights))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log absolute determinant of the first K - 1 weights with respect to the fractions `x`, shape ``[...]``."""
        return log_stick_jacobian(torch.log1p(-x))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape ``[..., K]`` from shape ``[..., K-1]``."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape ``[..., K-1]`` from shape ``[..., K]``."""
        return (*shape[:-1], shape[-1] - 1)


def log_stick_jacobian(log_1mv: Tensor) -> Tensor:
    """Compute the log determinant of the first K - 1 weights with respect to the fractions.

    Parameters
    ----------
    log_1mv : Tensor, shape ``[..., K-1]``
        ``log(1 - v)``.

    Returns
    -------
    Tensor
        Log determinant, shape ``[...]``: the sum, over all breaks, of the logarithm of the stick left before the break.

    Examples
    --------
    >>> log_stick_jacobian(torch.tensor([-1.0, -2.0, -3.0]))
    tensor(-4.)
    """
    # The first fraction shortens the stick for K - 2 later ones, the last for none.
    size = log_1mv.shape[-1]
    later = torch.arange(size - 1, -1, -1, dtype=log_1mv.dtype, device=log_1mv.device)
    return (log_1mv * later).sum(-1)


class LogSoftmaxTransform(Transform):
    """Bijection from K - 1 log-ratios against the last entry to K log-probabilities.

    Notes
    -----
    Densities on `LogSimplex` are taken with respect to these log-ratios, so the log determinant is 0.

    Examples
    --------
    >>> LogSoftmaxTransform()(torch.zeros(1)).exp()
    tensor([0.5000, 0.5000])
    """

    domain = constraints.real_vector
    codomain = log_simplex
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogSoftmaxTransform)

    __hash__ = Transform.__hash__

    def _call(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1)).log_softmax(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y[..., :-1] - y[..., -1:]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, by the choice of the reference measure, shape ``[...]``."""
        return torch.zeros_like(x[..., 0])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape with one more entry in the last dimension."""
        return torch.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape with one entry fewer in the last dimension."""
        return torch.Size((*shape[:-1], shape[-1] - 1))


@biject_to.register(LogSimplex)
@transform_to.register(LogSimplex)
def _real_to_log_simplex(constraint: LogSimplex) -> Transform:
    return LogSoftmaxTransform()
