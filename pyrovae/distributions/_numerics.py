"""Numerical helpers that the distributions share: logarithms of complements, and noise that suits logarithms.

All functions are elementwise and differentiable. They have no branches that depend on the data and write nothing in
place.
"""

import math

import torch
from torch import Tensor

_LOG_2 = math.log(2.0)
_LOG_LOG_2 = math.log(_LOG_2)


def one_minus_exp(t: Tensor) -> Tensor:
    """Compute ``1 - exp(-t)`` for ``t >= 0`` without cancellation, also in compiled code.

    Parameters
    ----------
    t : Tensor
        Not negative, any shape.

    Returns
    -------
    Tensor
        The same shape.

    Notes
    -----
    ``torch.expm1`` is accurate in eager mode. But torch 2.13 and earlier compile it for the CPU to ``exp(x) - 1``
    (pytorch pull request 190533). That is 0 for every float32 `t` below 6e-8.

    Examples
    --------
    >>> one_minus_exp(torch.tensor([1e-20, 1.0]))
    tensor([1.0000e-20, 6.3212e-01])
    """
    half = torch.tanh(t / 2)
    return 2 * half / (1 + half)


def log1mexp(log_p: Tensor) -> Tensor:
    """Compute ``log(1 - exp(log_p))`` for ``log_p <= 0``, accurate for probabilities near 0 and near 1.

    Parameters
    ----------
    log_p : Tensor
        Logarithms of probabilities, any shape.

    Returns
    -------
    Tensor
        Logarithms of the complementary probabilities, same shape.

    References
    ----------
    M. Mächler (2012), "Accurately computing log(1 - exp(-|a|))".

    Examples
    --------
    >>> log1mexp(torch.tensor([-1e-20, -50.0], dtype=torch.float64))
    tensor([-4.6052e+01, -1.9287e-22], dtype=torch.float64)
    """
    # Each branch sees only arguments it can handle, so that neither sends a NaN back through `where`.
    near_one = torch.log(one_minus_exp(-log_p.clamp(min=-1.0)))
    near_zero = torch.log1p(-torch.exp(log_p.clamp(max=-0.5)))
    return torch.where(log_p > -_LOG_2, near_one, near_zero)


def complement_loglog(loglog_p: Tensor) -> Tensor:
    """Compute ``log(-log(1 - p))`` from ``log(-log p)``. The function is its own inverse.

    Parameters
    ----------
    loglog_p : Tensor
        ``log(-log p)`` of probabilities p in (0, 1), any shape.

    Returns
    -------
    Tensor
        ``log(-log(1 - p))``, same shape.

    Notes
    -----
    The form ``log(-log p)`` holds probabilities very near 0 and very near 1. For example, -20000 stands for one minus
    ``exp(-20000)``, and 10 stands for ``exp(-22026)``. A power of p is a sum in this form, and this function is the
    complement.

    Examples
    --------
    >>> complement_loglog(torch.tensor([-1000.0, 3.0], dtype=torch.float64))
    tensor([  6.9078, -20.0855], dtype=torch.float64)
    """
    # The corrections below are 0 to working precision at eps already, and backward through them divides by t or p.
    least = torch.finfo(loglog_p.dtype).eps
    # p near 1: with t = -log p small, 1 - p = 1 - exp(-t) and log(1 - p) = log t + log((1 - exp(-t)) / t).
    log_t = loglog_p.clamp(max=_LOG_LOG_2)
    t = torch.exp(log_t).clamp(min=least)
    near_one = torch.log(-log_t - torch.log(one_minus_exp(t) / t))
    # p near 0: -log(1 - p) = p (1 + p/2 + ...), so its logarithm is log p plus a bounded correction.
    minus_log_p = torch.exp(loglog_p.clamp(min=_LOG_LOG_2))
    p = torch.exp(-minus_log_p).clamp(min=least)
    near_zero = torch.log(-torch.log1p(-p) / p) - minus_log_p
    return torch.where(loglog_p < _LOG_LOG_2, near_one, near_zero)


def open_unit(log_v: Tensor, log_1mv: Tensor) -> Tensor:
    """Compute the number v strictly between 0 and 1 from ``log v`` and ``log(1 - v)``.

    Parameters
    ----------
    log_v : Tensor
        ``log v``, any shape.
    log_1mv : Tensor
        ``log(1 - v)``, same shape.

    Returns
    -------
    Tensor
        v, same shape.

    Notes
    -----
    A value too small for the dtype becomes 64 times the smallest normal number, so that the derivative of a score, of
    order 1 / v, does not overflow. A value too near to 1 becomes the largest number below 1. The gradient is that of
    the logarithm on the small side. So a score at the result has the right path derivative even where the value was
    moved.

    Examples
    --------
    >>> v = open_unit(torch.tensor([-1000.0, -1e-30]), torch.tensor([0.0, -69.0]))
    >>> bool(0 < v[0] < 1e-36), 1 - v[1]
    (True, tensor(5.9605e-08))
    """
    info = torch.finfo(log_v.dtype)
    small, large = 64 * info.tiny, 1.0 - info.eps / 2
    below = torch.exp(_clamp_value(log_v, math.log(small), -_LOG_2))
    above = 1 - torch.exp(_clamp_value(log_1mv, math.log(info.eps / 2), -_LOG_2))
    return _clamp_value(torch.where(log_v < -_LOG_2, below, above), small, large)


def _clamp_value(value: Tensor, low: float, high: float) -> Tensor:
    """Clamp that lets the gradient through unchanged."""
    return value.clamp(low, high).detach() + (value - value.detach())


def log_beta_function(a: Tensor, b: Tensor) -> Tensor:
    """Compute ``log B(a, b)``, the logarithm of the Beta function.

    Parameters
    ----------
    a : Tensor
        Positive, any shape.
    b : Tensor
        Positive, any shape that broadcasts.

    Returns
    -------
    Tensor
        The broadcast shape, in the common dtype of `a` and `b`.

    Notes
    -----
    The sum is in float64 and is rounded once, because its three terms are large and cancel where `a` and `b` are large.

    Examples
    --------
    >>> log_beta_function(torch.tensor(1e5), torch.tensor(1.0))  # -log(1e5)
    tensor(-11.5129)
    """
    wide = torch.lgamma(a.double()) + torch.lgamma(b.double()) - torch.lgamma(a.double() + b.double())
    return wide.to(torch.promote_types(a.dtype, b.dtype))


def standard_exponential(shape: torch.Size, like: Tensor) -> Tensor:
    """Draw standard exponential noise that is accurate in relative terms near 0 and near its upper end.

    Parameters
    ----------
    shape : torch.Size
        Shape of the noise.
    like : Tensor
        The noise takes its dtype and device.

    Returns
    -------
    Tensor
        Draws between 1.1e-16 and 37.5, shape `shape`.

    Notes
    -----
    Uniform float32 numbers are multiples of 2^-24, which shows in the logarithm of a small draw. So the noise is made
    in float64 and rounded once. It comes from ``torch.rand``, because ``torch.vmap`` cannot batch ``exponential_``.

    Examples
    --------
    >>> standard_exponential(torch.Size([3]), torch.zeros(())).shape
    torch.Size([3])
    """
    uniform = torch.rand(shape, dtype=torch.float64, device=like.device).clamp(min=2.0**-54)
    return -torch.log(uniform).to(like.dtype)


def rsample_log_gamma(concentration: Tensor) -> Tensor:
    """Draw the logarithm of a Gamma(`concentration`, 1) variable for each entry, with implicit gradients.

    Parameters
    ----------
    concentration : Tensor
        Positive. It must have the shape of the draw already.

    Returns
    -------
    Tensor
        Logarithms of the draws, same shape.

    Notes
    -----
    The identity ``log G(c) = log G(c + 1) + log(U) / c`` never underflows, however small the concentration c. The draws
    work under ``torch.func.grad`` and ``torch.vmap``; torch's own Beta and Dirichlet draws do not.

    References
    ----------
    G. Marsaglia and W. W. Tsang (2000), "A simple method for generating gamma variables". M. Figurnov, S. Mohamed and
    A. Mnih (2018), "Implicit reparameterization gradients", arXiv:1805.08498.

    Examples
    --------
    >>> rsample_log_gamma(torch.full((2,), 1e-3)).isfinite().all()
    tensor(True)
    """
    noise = standard_exponential(concentration.shape, concentration)
    return torch.log(torch._standard_gamma(concentration + 1)) - noise / concentration
