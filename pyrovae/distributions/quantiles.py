"""Quantiles of the distributions of table columns, also of those whose class has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Gamma, NegativeBinomial, Poisson, StudentT

from pyrovae.distributions.affine import InUnits
from pyrovae.distributions.levels import Levels
from pyrovae.distributions.natural_categorical import NaturalBernoulli
from pyrovae.distributions.natural_counts import NaturalPoisson
from pyrovae.distributions.natural_gamma import NaturalGamma
from pyrovae.distributions.ordinal import OrderedLogits

__all__ = ["quantile"]


def quantile(fn: Distribution, level: Tensor) -> Tensor:
    """The quantile of each entry of a distribution; uniform levels give draws.

    Parameters
    ----------
    fn : Distribution
        Of batch shape ``[..., n]`` and without event dimensions: of numbers, counts or levels.
    level : Tensor, in (0, 1)
        Broadcast with the batch shape.

    Returns
    -------
    Tensor
        The smallest value whose cumulative probability is at least `level`. Without gradients.

    Examples
    --------
    >>> quantile(Poisson(torch.tensor([2.0, 30.0])), torch.tensor(0.5))
    tensor([ 2., 30.])
    """
    with torch.no_grad():
        if isinstance(fn, InUnits):
            return fn.loc + fn.scale * quantile(fn.base, level)
        if isinstance(fn, Levels | OrderedLogits):
            cumulative = (fn.probs if isinstance(fn, Levels) else fn.log_probs.exp()).cumsum(-1)
            below = (cumulative < level.unsqueeze(-1)).sum(-1)
            last = fn.num_levels - 1
            return torch.minimum(below, last) if isinstance(last, Tensor) else below.clamp(max=last)
        if isinstance(fn, Bernoulli | NaturalBernoulli):
            return (level > 1 - fn.mean).to(fn.mean.dtype)
        for kind, of in _BY_SCIPY.items():
            if isinstance(fn, kind):
                found = of(fn, level.double().cpu().numpy())
                return torch.as_tensor(np.asarray(found), dtype=fn.mean.dtype, device=fn.mean.device)
        return fn.icdf(level)


def _stats() -> Any:
    """SciPy's distributions, whose import changes the filters of warnings."""
    from scipy import stats

    return stats


def _array(value: Tensor) -> np.ndarray:
    return value.double().cpu().numpy()


def _gamma(fn: Any, level: np.ndarray) -> Any:
    given = fn.to_canonical() if isinstance(fn, NaturalGamma) else {"concentration": fn.concentration, "rate": fn.rate}
    return _stats().gamma.ppf(level, _array(given["concentration"]), scale=1 / _array(given["rate"]))


def _negative_binomial(fn: Any, level: np.ndarray) -> Any:
    return _stats().nbinom.ppf(level, _array(fn.total_count), _array(torch.sigmoid(-fn.logits)))


_BY_SCIPY: dict[Any, Callable[[Any, np.ndarray], Any]] = {
    Poisson: lambda fn, level: _stats().poisson.ppf(level, _array(fn.mean)),
    NaturalPoisson: lambda fn, level: _stats().poisson.ppf(level, _array(fn.mean)),
    Gamma: _gamma,
    NaturalGamma: _gamma,
    NegativeBinomial: _negative_binomial,
    StudentT: lambda fn, level: _stats().t.ppf(level, _array(fn.df), _array(fn.loc), _array(fn.scale)),
}
"""Quantile functions of those whose class has none."""
