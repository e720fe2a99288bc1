"""Checks of distributions, each against an oracle that does not use the formula under test."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from pyrovae.rng import seeded
from pyrovae.testing.goodness_of_fit import GoodnessOfFit, goodness_of_fit
from pyrovae.testing.quadrature import Integral, integrate, nodes


class Comparison(NamedTuple):
    """A quantity and its independent check.

    Attributes
    ----------
    actual : Tensor
        The quantity as the code gives it.
    expected : Tensor
        The quantity from the check.
    error : Tensor
        Their difference relative to max(1, abs(expected)).
    """

    actual: Tensor
    expected: Tensor
    error: Tensor


def _fail(what: str, distribution: object, badness: Tensor, detail: Callable[[tuple[int, ...]], str]) -> None:
    """Raise AssertionError about the entry with the largest badness. A NaN counts as the largest."""
    badness = badness.detach().nan_to_num(nan=torch.inf)
    index = tuple(int(i) for i in torch.unravel_index(badness.argmax(), badness.shape)) if badness.dim() else ()
    raise AssertionError(f"{what} of {distribution} at batch index {index}: {detail(index)}")


def _compare(what: str, distribution: object, actual: Tensor, expected: Tensor, tolerance: float) -> Comparison:
    actual, expected = torch.broadcast_tensors(actual.detach().double(), expected.detach().double())
    same = actual == expected  # covers equal infinities, whose difference is NaN
    error = ((actual - expected).abs() / expected.abs().clamp(min=1.0)).masked_fill(same, 0.0)
    if not (error <= tolerance).all():
        _fail(
            what,
            distribution,
            error,
            lambda i: f"{actual[i]:.10g}, expected {expected[i]:.10g}, error {error[i]:.3g} above {tolerance:.3g}",
        )
    return Comparison(actual, expected, error)


def check_normalisation(distribution: Distribution, tolerance: float = 1e-6) -> Integral:
    """Assert that the density integrates to one, or that the mass function sums to one.

    Parameters
    ----------
    distribution : Distribution
        The distribution, with events of one or two free dimensions if it is continuous.
    tolerance : float, default 1e-6
        Largest accepted difference from one.

    Returns
    -------
    Integral
        The total mass and its quadrature error, each of shape `batch_shape`.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.
    ValueError
        The support can neither be summed nor mapped to one or two real dimensions.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Poisson
    >>> bool(check_normalisation(Poisson(torch.tensor(3.0))).value > 0.999)
    True
    """
    total = integrate(distribution)
    _compare("total mass", distribution, total.value, torch.ones_like(total.value), tolerance)
    return total


def check_entropy(distribution: Distribution, tolerance: float = 1e-6) -> Comparison:
    """Assert that `entropy()` is the integral of -log p.

    Parameters
    ----------
    distribution : Distribution
        The distribution, with events of one or two free dimensions if it is continuous.
    tolerance : float, default 1e-6
        Largest accepted error relative to max(1, abs(entropy)).

    Returns
    -------
    Comparison
        The entropies in nats, shape `batch_shape`.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Exponential
    >>> check_entropy(Exponential(torch.tensor(1.0).double())).actual
    tensor(1., dtype=torch.float64)
    """
    expected = integrate(distribution, lambda x: -distribution.log_prob(x)).value
    return _compare("entropy", distribution, distribution.entropy(), expected, tolerance)


def check_kl(p: Distribution, q: Distribution, tolerance: float = 1e-6) -> Comparison:
    r"""Assert that the registered KL(p || q) is :math:`\int p \log(p/q)`.

    Parameters
    ----------
    p : Distribution
        The first distribution. The integral is under it.
    q : Distribution
        The second distribution.
    tolerance : float, default 1e-6
        Largest accepted error relative to max(1, abs(KL)).

    Returns
    -------
    Comparison
        The divergences in nats, broadcast batch shape.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.
    NotImplementedError
        No KL is registered for the pair.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> p, q = (Normal(torch.tensor(m).double(), 1.0) for m in (0.0, 1.0))
    >>> check_kl(p, q).actual
    tensor(0.5000, dtype=torch.float64)
    """
    expected = integrate(p, lambda x: p.log_prob(x) - q.log_prob(x)).value
    return _compare(f"KL to {q}", p, kl_divergence(p, q), expected, tolerance)


@torch.no_grad()
def check_cdf(distribution: Distribution, tolerance: float = 1e-4) -> Comparison:
    """Assert that `cdf` is the running integral of the density, or the running sum of the mass.

    Parameters
    ----------
    distribution : Distribution
        A distribution with scalar events.
    tolerance : float, default 1e-4
        Largest accepted error. For a continuous distribution ask for 1e-4 at best, because the running sum is a
        midpoint rule.

    Returns
    -------
    Comparison
        The values at all nodes, shape ``[nodes, *batch_shape]``.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> bool(check_cdf(Normal(torch.tensor(0.0).double(), 1.0)).error.max() < 1e-4)
    True
    """
    grid = nodes(distribution)
    expected = grid.mass.cumsum(0)
    if grid.stretched is not None:
        expected = expected - grid.mass / 2  # a node's cell reaches half a step to both sides of it
    actual = distribution.cdf(grid.values).double()
    actual = torch.where(grid.mass == 0, expected, actual)  # nodes outside the support are placeholders
    return _compare("cdf (first index: node)", distribution, actual, expected, tolerance)


@torch.no_grad()
def check_goodness_of_fit(
    distribution: Distribution, num_samples: int = 20_000, significance: float = 1e-4, seed: int = 0
) -> GoodnessOfFit:
    """Assert that the draws follow `log_prob`.

    Parameters
    ----------
    distribution : Distribution
        The distribution, with events of one or two free dimensions if it is continuous.
    num_samples : int, default 20000
        Draws per batch entry. More draws find smaller faults.
    significance : float, default 1e-4
        Smallest p-value that is accepted in any batch entry. With many entries, divide it by their number.
    seed : int, default 0
        Seed of the draws. The state of torch's generators is unchanged afterwards.

    Returns
    -------
    GoodnessOfFit
        Statistic and p-value, each of shape `batch_shape`.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.
    ImportError
        scipy is not installed.

    Notes
    -----
    Real values get a Kolmogorov-Smirnov test. Discrete values, and events of two free dimensions (a 3-simplex), get a
    chi-square test. The reference is the density itself, integrated by quadrature or summed; `cdf` is not used.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> bool(check_goodness_of_fit(Normal(torch.tensor(0.0), 1.0)).p_value > 0.0001)
    True
    """
    fit = goodness_of_fit(distribution, num_samples, seed)
    if not (fit.p_value >= significance).all():
        _fail("draws", distribution, -fit.p_value, lambda i: f"p-value {fit.p_value[i]:.3g} against log_prob")
    return fit


@torch.no_grad()
def check_moments(
    distribution: Distribution, num_samples: int = 100_000, num_errors: float = 5.0, seed: int = 0
) -> tuple[Comparison, Comparison]:
    """Assert that `mean` and `variance` are those of the draws.

    Parameters
    ----------
    distribution : Distribution
        The distribution. An entry is not compared if its `mean` or `variance` is infinite or NaN, because it does not
        exist.
    num_samples : int, default 100000
        Draws per batch entry.
    num_errors : float, default 5.0
        Largest accepted difference, in standard errors.
    seed : int, default 0
        Seed of the draws. The state of torch's generators is unchanged afterwards.

    Returns
    -------
    mean, variance : Comparison
        The moments, shape ``[*batch_shape, *event_shape]``. Here `error` counts standard errors.

    Raises
    ------
    AssertionError
        The two disagree. The message names the worst entry of the batch.

    Notes
    -----
    The standard error of the variance is estimated from the fourth moment of the draws.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Gamma
    >>> mean, variance = check_moments(Gamma(torch.tensor(3.0), 2.0))
    >>> mean.actual, variance.actual
    (tensor(1.5000, dtype=torch.float64), tensor(0.7500, dtype=torch.float64))
    """
    with seeded(seed):
        draws = distribution.sample((num_samples,)).double()
    mean, centred = draws.mean(0), draws - draws.mean(0)
    variance, fourth = centred.square().mean(0), centred.pow(4).mean(0)
    spreads = variance.sqrt(), (fourth - variance.square()).clamp(min=0).sqrt()
    pairs = zip(("mean", "variance"), (mean, variance), spreads, strict=True)
    results = []
    for name, sampled, spread in pairs:
        stated = getattr(distribution, name).detach().double().expand_as(sampled)
        exists = torch.isfinite(stated)
        # A constant sample has no spread, and rounding of its mean is no evidence against it.
        standard = spread / num_samples**0.5 + 1e-6 * sampled.abs() + 1e-12
        error = ((stated - sampled).abs() / standard).masked_fill(~exists, 0.0)
        if not (error <= num_errors).all():
            _fail(name, distribution, error, partial(_both, stated, sampled, error))
        results.append(Comparison(stated, sampled, error))
    return results[0], results[1]


def _both(stated: Tensor, sampled: Tensor, error: Tensor, entry: tuple[int, ...]) -> str:
    return f"{stated[entry]:.6g}, the draws have {sampled[entry]:.6g}, {error[entry]:.1f} standard errors away"


def check_gradient(
    function: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-6, step: float = 1e-3
) -> tuple[Comparison, ...]:
    """Assert that autograd's gradient of ``function(*inputs).sum()`` equals the one of finite differences.

    Parameters
    ----------
    function : callable
        Differentiable and deterministic. A function that draws must fix its noise.
    *inputs : Tensor of float64
        The arguments at which to compare.
    tolerance : float, default 1e-6
        Largest accepted error relative to max(1, abs(difference quotient)).
    step : float, default 1e-3
        Step relative to the magnitude of each entry, or absolute where the entry is 0. So small concentrations stay
        positive.

    Returns
    -------
    tuple of Comparison
        One for each input, in its shape.

    Raises
    ------
    ValueError
        An input is not float64. Differences of other types hold no digits.
    AssertionError
        The two disagree. The message names the worst entry of the batch.

    Notes
    -----
    The differences use five points. Their truncation error is of order `step` to the fourth power.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([0.01, 1.0, 50.0], dtype=torch.double)
    >>> check_gradient(torch.lgamma, x)[0].error.max() < 1e-6
    tensor(True)
    """
    if any(value.dtype != torch.double for value in inputs):
        raise ValueError(f"finite differences need float64 inputs, got {[value.dtype for value in inputs]}")
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    with torch.enable_grad():
        gradients = torch.autograd.grad(function(*leaves).sum(), leaves)
    results = []
    for position, (value, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        flat = value.detach().flatten()
        slopes = torch.empty_like(flat)
        for entry in range(len(flat)):
            size = step * (float(flat[entry].abs()) or 1.0)

            total = partial(_moved_total, function, inputs, position, entry)
            near, far = total(size) - total(-size), total(2 * size) - total(-2 * size)
            slopes[entry] = (8 * near - far) / (12 * size)
        name = getattr(function, "__name__", repr(function))
        results.append(_compare(f"gradient (input {position})", name, gradient, slopes.reshape(value.shape), tolerance))
    return tuple(results)


def _moved_total(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], position: int, entry: int, shift: float
) -> Tensor:
    """The sum of a function's values where one entry of one input is moved."""
    moved = inputs[position].detach().flatten().clone()
    moved[entry] += shift
    arguments = [*inputs[:position], moved.reshape(inputs[position].shape), *inputs[position + 1 :]]
    with torch.no_grad():
        return function(*arguments).sum()
