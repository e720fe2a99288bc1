"""Numerical helpers shared by the distributions: logarithms of complements, and noise fit for logarithms.

All functions are elementwise, differentiable, free of data-dependent branches and of in-place writes.
"""

import math

import torch
from torch import Tensor

_LOG_2 = math.log(2.0)
_LOG_LOG_2 = math.log(_LOG_2)


def one_minus_exp(t: Tensor) -> Tensor:
    """``1 - exp(-t)`` for `t` >= 0 without cancellation, also when compiled.

    ``torch.expm1`` is right in eager mode, but torch 2.13 and earlier compile it for the CPU to ``exp(x) - 1``
    (pytorch pull request 190533), which is 0 for every float32 `t` below 6e-8.

    Args:
        t: not negative, any shape.

    Returns:
        The same shape.

    Example:
        >>> one_minus_exp(torch.tensor([1e-20, 1.0]))
        tensor([1.0000e-20, 6.3212e-01])
    """
    half = torch.tanh(t / 2)
    return 2 * half / (1 + half)


def log1mexp(log_p: Tensor) -> Tensor:
    """``log(1 - exp(log_p))`` for `log_p` <= 0, accurate for probabilities near 0 and near 1.

    Reference: M. Mächler (2012), "Accurately computing log(1 - exp(-|a|))".

    Args:
        log_p: logarithms of probabilities, any shape.

    Returns:
        Logarithms of the complementary probabilities, same shape.

    Example:
        >>> log1mexp(torch.tensor([-1e-20, -50.0], dtype=torch.float64))
        tensor([-4.6052e+01, -1.9287e-22], dtype=torch.float64)
    """
    # Each branch sees only arguments it can handle, so that neither sends a NaN back through `where`.
    near_one = torch.log(one_minus_exp(-log_p.clamp(min=-1.0)))
    near_zero = torch.log1p(-torch.exp(log_p.clamp(max=-0.5)))
    return torch.where(log_p > -_LOG_2, near_one, near_zero)


def complement_loglog(loglog_p: Tensor) -> Tensor:
    """``log(-log(1 - p))`` from ``log(-log p)``; its own inverse.

    A probability held as ``log(-log p)`` loses neither its small side nor its large one: -20000 is one minus
    ``exp(-20000)``, and 10 is ``exp(-22026)``. Powers of p are sums here, and this function is the complement.

    Args:
        loglog_p: ``log(-log p)`` of probabilities p in (0, 1), any shape.

    Returns:
        ``log(-log(1 - p))``, same shape.

    Example:
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
    """The number v strictly between 0 and 1 from ``log v`` and ``log(1 - v)``.

    Values that the dtype cannot hold become 64 times the smallest normal number (so that the derivative of a score,
    of order 1 / v, does not overflow) or the largest number below one. The gradient is that of the
    logarithm on the small side, so a score evaluated at the result has the right path derivative even where the value
    itself had to be moved.

    Args:
        log_v: ``log v``, any shape.
        log_1mv: ``log(1 - v)``, same shape.

    Returns:
        v, same shape.

    Example:
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
    """``log B(a, b)``, in double precision and rounded once: three large numbers cancel where a and b are large.

    Args:
        a: positive, any shape.
        b: positive, any shape that broadcasts.

    Returns:
        The broadcast shape, in the common dtype of `a` and `b`.

    Example:
        >>> log_beta_function(torch.tensor(1e5), torch.tensor(1.0))  # -log(1e5)
        tensor(-11.5129)
    """
    wide = torch.lgamma(a.double()) + torch.lgamma(b.double()) - torch.lgamma(a.double() + b.double())
    return wide.to(torch.promote_types(a.dtype, b.dtype))


def standard_exponential(shape: torch.Size, like: Tensor) -> Tensor:
    """Standard exponential noise, exact in relative terms near 0 and near its upper end.

    Float32 uniforms are multiples of 2^-24, which shows in the logarithm of a small draw; the noise is therefore
    made in double precision and rounded once. ``torch.rand`` is used because ``exponential_`` cannot be batched by
    ``torch.vmap``.

    Args:
        shape: shape of the noise.
        like: tensor whose dtype and device the noise takes.

    Returns:
        Draws in [1.1e-16, 37.5], shape `shape`.

    Example:
        >>> standard_exponential(torch.Size([3]), torch.zeros(())).shape
        torch.Size([3])
    """
    uniform = torch.rand(shape, dtype=torch.float64, device=like.device).clamp(min=2.0**-54)
    return -torch.log(uniform).to(like.dtype)


def rsample_log_gamma(concentration: Tensor) -> Tensor:
    """Logarithm of one Gamma(`concentration`, 1) draw per entry, with implicit gradients.

    ``log G(c) = log G(c + 1) + log(U) / c`` never underflows, however small the concentration c. Differentiable under
    ``torch.func.grad`` and ``torch.vmap``, which torch's own Beta and Dirichlet draws are not.

    Reference: G. Marsaglia and W. W. Tsang (2000), "A simple method for generating gamma variables";
    M. Figurnov, S. Mohamed and A. Mnih (2018), "Implicit reparameterization gradients", arXiv:1805.08498.

    Args:
        concentration: positive, already expanded to the shape of the draw.

    Returns:
        Draws of the logarithm, same shape.

    Example:
        >>> rsample_log_gamma(torch.full((2,), 1e-3)).isfinite().all()
        tensor(True)
    """
    noise = standard_exponential(concentration.shape, concentration)
    return torch.log(torch._standard_gamma(concentration + 1)) - noise / concentration
