"""Draws of a distribution against its own density: Kolmogorov-Smirnov and chi-square tests."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to

from pyrovae.rng import seeded
from pyrovae.testing.quadrature import nodes


class GoodnessOfFit(NamedTuple):
    """The result of a test of draws.

    Attributes
    ----------
    statistic : Tensor, shape `batch_shape`
        Kolmogorov-Smirnov or chi-square statistic.
    p_value : Tensor, shape `batch_shape`
        Its p-value.
    """

    statistic: Tensor
    p_value: Tensor


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError("goodness-of-fit tests need scipy, which scikit-learn brings: pip install scipy") from error
    return stats


def goodness_of_fit(distribution: Distribution, num_samples: int, seed: int) -> GoodnessOfFit:
    """Test seeded draws against the integrated or summed density, with one test per batch entry.

    Parameters
    ----------
    distribution : Distribution
        The distribution, with events of one or two free dimensions if it is continuous.
    num_samples : int
        Draws per batch entry.
    seed : int
        Seed of the draws.

    Returns
    -------
    GoodnessOfFit
        Statistic and p-value, each of shape `batch_shape`, float64, on the CPU.

    Raises
    ------
    ImportError
        scipy is not installed.
    """
    stats = _scipy_stats()
    grid = nodes(distribution)
    mass = grid.mass.cpu().reshape(len(grid.mass), -1)
    with seeded(seed):
        draws = distribution.sample((num_samples,))
    batch_shape = distribution.batch_shape
    rows = range(batch_shape.numel())
    if grid.stretched is None or grid.centre is None or grid.width is None:
        lattice = grid.values.cpu().reshape(len(mass), len(rows), -1)
        draws = draws.cpu().reshape(num_samples, len(rows), -1)
        results = [
            _chi_square(stats, _count(draws[:, row], lattice[:, row]), mass[:, row], num_samples) for row in rows
        ]
    else:
        free = biject_to(distribution.support).inv(draws).cpu().reshape(num_samples, len(rows), -1)
        centre, width = (part.cpu().reshape(len(rows), -1) for part in (grid.centre, grid.width))
        place, stretched = ((free - centre) / width).asinh(), grid.stretched.cpu()
        if free.shape[-1] == 1:
            edges = (stretched + (stretched[1] - stretched[0]) / 2).double().numpy()
            results = [_kolmogorov_smirnov(stats, place[:, row, 0].double(), edges, mass[:, row]) for row in rows]
        else:
            results = [_chi_square(stats, *_cells(place[:, row], stretched, mass[:, row]), num_samples) for row in rows]
    statistic, p_value = torch.tensor(results, dtype=torch.double).T.reshape(2, *batch_shape)
    return GoodnessOfFit(statistic, p_value)


def _chi_square(stats: Any, counts: Tensor, mass: Tensor, num_samples: int) -> tuple[float, float]:
    """Chi-square of `counts` ``[cells]`` against `mass`. Cells with fewer than five expected counts are pooled.

    Draws outside all cells get a Poisson test of their own. So a single draw of probability zero is noticed.
    """
    if mass.isnan().any():
        return float("nan"), float("nan")
    expected, (found, total) = mass * num_samples, (float(counts.sum()), float(mass.sum()))
    outside = float(stats.poisson.sf(num_samples - found - 1, num_samples * max(1 - total, 1e-9)))
    large = expected >= 5
    pooled_counts, pooled = counts[~large].sum(), expected[~large].sum()
    terms = (counts[large] - expected[large]).square() / expected[large]
    # A pool that is itself small still counts: five in the denominator only keeps its term calm.
    statistic = float(terms.sum() + (pooled_counts - pooled).square() / pooled.clamp(min=5))
    freedom = int(large.sum()) - (1 if pooled < 5 else 0)
    p_value = float(stats.chi2.sf(statistic, freedom)) if freedom > 0 else 1.0
    return statistic, min(p_value, outside)


def _cells(place: Tensor, stretched: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and mass on a product grid in the stretched plane. Its edges are half-way between nodes."""
    size, num_nodes = place.shape[-1], len(stretched)
    step = stretched[1] - stretched[0]
    node = ((place - stretched[0]) / step).round().clamp(0, num_nodes - 1).long()  # nearest node, per axis
    mass = mass.reshape([num_nodes] * size)
    counts = torch.zeros(num_nodes**size, dtype=torch.double)
    flat = node[:, 0] if size == 1 else node[:, 0] * num_nodes + node[:, 1]
    counts = counts.index_add(0, flat, torch.ones(len(flat), dtype=torch.double)).reshape(mass.shape)
    for axis in range(size):
        probabilities = torch.linspace(0, 1, 11 if size == 2 else 51, dtype=place.dtype)[1:-1]
        edges = torch.quantile(node[:, axis].to(place.dtype), probabilities).floor().long().unique()
        cell = torch.bucketize(torch.arange(num_nodes), edges)
        shape = list(mass.shape)
        shape[axis] = len(edges) + 1
        mass, counts = (mass.new_zeros(shape).index_add(axis, cell, part) for part in (mass, counts))
    return counts.flatten(), mass.flatten()


def _kolmogorov_smirnov(stats: Any, place: Tensor, edges: Any, mass: Tensor) -> tuple[float, float]:
    uniform = np.interp(place.numpy(), edges, mass.cumsum(0).numpy(), left=0.0)
    result = stats.kstest(uniform, "uniform")
    return float(result.statistic), float(result.pvalue)


def _count(draws: Tensor, lattice: Tensor) -> Tensor:
    """How many rows of `draws` ``[n, d]`` equal each row of `lattice` ``[cells, d]``. Other rows are not counted."""
    _, index = torch.unique(torch.cat([lattice, draws.to(lattice.dtype)]), dim=0, return_inverse=True)
    counts = torch.bincount(index[len(lattice) :], minlength=int(index.max()) + 1)
    return counts[index[: len(lattice)]].double()
