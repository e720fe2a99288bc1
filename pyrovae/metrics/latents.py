"""Latents of data under a VAE: posterior means, active units, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from pyro.distributions import Independent, TorchDistribution
from pyro.poutine.condition_messenger import ConditionMessenger
from torch import Tensor
from torch.distributions import Categorical

from pyrovae import programs
from pyrovae.batches import batches
from pyrovae.data.dataset import Rows
from pyrovae.families import families_of
from pyrovae.rng import seeded
from pyrovae.vae import VAE, MeanMessenger

ACTIVE = 1e-2
"""Variance above which a latent dimension counts as active, see `active_units`."""
_DRAWS = 100  # for the mean of a posterior that has none in closed form
_CHAIN = 50  # of discrete latents before another one


class ActiveUnits(NamedTuple):
    """How many latent dimensions a VAE uses."""

    count: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs of these
    """Dimensions whose variance exceeds the threshold."""
    variances: Tensor
    """Variance over the data of each dimension's posterior mean, ``[latent_dim]``; see `active_units` for its unit."""


def latent_means(vae: VAE, x: Tensor, batch_size: int = 1000, **data: Tensor | None) -> Tensor:
    """Compute the mean of q(z|x) of every datum. Where there are several sites, their means stand side by side.

    Use it for figures and classifiers of latents. A site that depends on another one is taken at the mean of that one;
    behind a class its mean is that over all classes, behind other discrete latents over 50 draws of these. The mean of
    a class variable is the vector of its class probabilities. Where a distribution does not give its mean, that of 100
    draws is taken. Draws are the same for the same batch, so `batch_size` moves means over draws within their noise.

    Parameters
    ----------
    vae : VAE
        The VAE.
    x : Tensor, shape ``[N, ...]``
        The data.
    batch_size : int, default 1000
        Rows at a time, which bounds the memory.
    **data : Tensor
        `mask`, `y`, `index` and further arguments of the programs.

    Returns
    -------
    Tensor, shape ``[N, latent_dim]``
        The means, on the CPU.
    """
    return torch.cat(list(means_by_site(vae, Rows.of(x, **data), batch_size).values.values()), 1)


def active_units(
    vae: VAE, x: Tensor, threshold: float = ACTIVE, *, batch_size: int = 1000, **data: Tensor | None
) -> ActiveUnits:
    """Count the latent dimensions u that carry information: those with Var_x(E_q[u]) above a threshold.

    Some latents have a variance under the prior that is far from 1, such as the fractions of a stick. Their variances
    are divided by it. A class that the VAE infers is not counted. Of a mean over draws, see `latent_means`, what the
    draws add to the variance is taken off.

    Parameters
    ----------
    vae : VAE
        The VAE.
    x : Tensor, shape ``[N, ...]``
        The data.
    threshold : float, default 0.01
        Smallest variance, in squared units of the latent, or in units of its variance under the prior.
    batch_size : int, default 1000
        Rows at a time.
    **data : Tensor
        `mask`, `y`, `index` and further arguments of the programs.

    Returns
    -------
    ActiveUnits
        Their number, and the variance of every dimension.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, section 5.2.
    """
    means = means_by_site(vae, Rows.of(x, **data), batch_size)
    variances = torch.cat([torch.zeros(0, device="cpu"), *unit_variances(vae, means).values()])
    return ActiveUnits(int((variances > threshold).sum()), variances)


def knn_error(
    train_latents: Tensor,
    train_labels: Tensor,
    test_latents: Tensor,
    test_labels: Tensor,
    k: Sequence[int] = (3, 5, 10),
) -> dict[int, float]:
    """Share of test rows that a k-nearest-neighbour classifier on the latents gets wrong, by k.

    Rows labelled -1 (unknown) are left out.

    Parameters
    ----------
    train_latents : Tensor, shape ``[N, latent_dim]``
        Latents of the rows to learn from.
    train_labels : Tensor of int, shape ``[N]``
        Their labels.
    test_latents : Tensor, shape ``[M, latent_dim]``
        Latents of the rows to classify.
    test_labels : Tensor of int, shape ``[M]``
        Their labels.
    k : sequence of int, default (3, 5, 10)
        Numbers of neighbours.

    Returns
    -------
    dict of int to float
        Errors between 0 and 1, by number of neighbours.

    Raises
    ------
    ValueError
        If no labelled rows are left, or fewer than k to learn from.

    Examples
    --------
    >>> z, y = torch.tensor([[0.0], [0.1], [1.0], [1.1]]), torch.tensor([0, 0, 1, 1])
    >>> knn_error(z, y, torch.tensor([[0.2], [0.9]]), torch.tensor([0, 0]), k=(1,))
    {1: 0.5}
    """
    from sklearn.neighbors import KNeighborsClassifier  # not above: scikit-learn changes filters of warnings

    known = [labels.cpu() >= 0 for labels in (train_labels, test_labels)]
    train_size, test_size = (int(part.sum()) for part in known)
    if not test_size or train_size < max(k):
        raise ValueError(
            f"{max(k)} neighbours need as many labelled training rows and a labelled test row, "
            f"got {train_size} and {test_size}"
        )
    z, z_test = train_latents.cpu()[known[0]].numpy(), test_latents.cpu()[known[1]].numpy()
    y, y_test = train_labels.cpu()[known[0]].numpy(), test_labels.cpu()[known[1]].numpy()
    return {count: 1 - float(KNeighborsClassifier(count).fit(z, y).score(z_test, y_test)) for count in k}


class SiteMeans(NamedTuple):
    """Latent means by site, rows first."""

    values: dict[str, Tensor]
    noise: dict[str, Tensor]
    """The variance of means that are those of draws, for these sites alone."""


class OverValues(NamedTuple):
    """What is read of the posterior of a latent, over the values of the latents before it."""

    mean: Tensor
    spread: Tensor | None
    """Its variance over these values; None where none stand before it that have no mean."""
    draws: int
    """How many draws of them; 0 where there are none, or a sum over all values."""


Read = Callable[[TorchDistribution], dict[str, Tensor]]


def posterior_means(vae: VAE, x: Tensor, **data: Tensor | None) -> dict[str, Tensor]:
    """Compute the mean of q(z|x) by site, each ``[B, ...]``; see `latent_means` for sites without a closed form."""
    return _means(vae, x, data).values


def _means(vae: VAE, x: Tensor, data: Mapping[str, Tensor | None]) -> SiteMeans:
    found = {name: part for (name, _), part in over_values(vae, x, data, lambda q: {"mean": mean_of(q)}).items()}
    noise = {n: part.spread / (part.draws - 1) for n, part in found.items() if part.draws and part.spread is not None}
    return SiteMeans({name: part.mean for name, part in found.items()}, noise)


@torch.no_grad()
def over_values(
    vae: VAE, x: Tensor, data: Mapping[str, Tensor | None], read: Read
) -> dict[tuple[str, str], OverValues]:
    """What is read of q(z|x), with other latents at their means; over their values where these have none.

    Behind a class these are all classes, with their probabilities; behind other discrete latents some draws, which are
    the same ones for the same batch.

    Parameters
    ----------
    vae, x, data
        The VAE, rows and further arguments.
    read : callable
        What is read of a distribution, by name, each of its batch and event shape.

    Returns
    -------
    dict of (str, str) to OverValues
        By site and name, rows first.
    """
    with seeded(0):
        first, handler, posterior = _at_means(vae, x, data, read)
        behind = [key for key in first if key[0] in handler.behind]
        result = {key: OverValues(value, None, 0) for key, value in first.items()}
        if not behind:
            return result
        chances = _class_probabilities(posterior, handler.drawn, len(x))
        count = _CHAIN if chances is None else chances.shape[-1]
        sums = {key: torch.zeros((2, *first[key].shape), dtype=torch.float64, device=x.device) for key in behind}
        for number in range(count):
            given = {} if chances is None else {handler.drawn[0]: torch.full((len(x),), number, device=x.device)}
            with ConditionMessenger(given):
                found = _at_means(vae, x, data, read)[0]
            for key, total in sums.items():
                if key not in found:
                    raise ValueError(f"latent site {key[0]!r} stands in some draws of the guide alone; it has no mean")
                value = found[key].double()
                weights = torch.full((len(x),), 1 / count, device=x.device) if chances is None else chances[:, number]
                by_row = weights.double().reshape(-1, *(1,) * (value.dim() - 1))
                total += torch.stack([by_row * value, by_row * value.square()])
    for key, (mean, square) in sums.items():
        spread, dtype = (square - mean.square()).clamp(min=0), first[key].dtype
        result[key] = OverValues(mean.to(dtype), spread.to(dtype), count if chances is None else 0)
    return result


def _at_means(
    vae: VAE, x: Tensor, data: Mapping[str, Tensor | None], read: Read
) -> tuple[dict[tuple[str, str], Tensor], MeanMessenger, dict[str, TorchDistribution]]:
    """What is read in one run of the guide."""
    vae.prepare(x, **data)  # before, since it runs both programs
    with MeanMessenger() as handler:
        posterior = vae.posterior(x, **data)
    found = dict[tuple[str, str], Tensor]()
    for name, q in posterior.items():
        found |= {(name, part): _rows_first(vae, name, q, value) for part, value in read(q).items()}
    return found, handler, posterior


def _class_probabilities(posterior: Mapping[str, TorchDistribution], drawn: Sequence[str], rows: int) -> Tensor | None:
    """The probabilities of the only latent that is drawn, ``[B, C]``, if it is a class of each row."""
    q = posterior.get(drawn[0]) if len(drawn) == 1 else None
    return q.probs if isinstance(q, Categorical) and q.probs.shape[:-1] == (rows,) else None


def _rows_first(vae: VAE, name: str, q: TorchDistribution, value: Tensor) -> Tensor:
    dim = vae.row_dims[name]
    if dim is None:
        raise ValueError(f"latent site {name!r} belongs to no single row, so it has no mean for each")
    return value.movedim(dim + len(q.batch_shape), 0)


def row_means(vae: VAE, x: Tensor, data: Mapping[str, Tensor | None]) -> SiteMeans:
    """Compute `posterior_means` of a batch, with all values of a row side by side, ``[B, D]`` by site."""
    values, noise = ({n: _by_row(n, part, len(x)) for n, part in parts.items()} for parts in _means(vae, x, data))
    return SiteMeans(values, noise)


def unit_variances(vae: VAE, means: SiteMeans) -> dict[str, Tensor]:
    """Compute the variances over rows of latent means ``[N, D]``, by site without classes, as `active_units` does.

    What draws add to the variance is taken off, so that it is not counted for what the data tell.
    """
    variances = {}
    for name, mean in means.values.items():
        if name not in vae.sites.classes:
            variances[name] = mean.var(0, correction=0)
            if name in means.noise:
                variances[name] = (variances[name] - means.noise[name].mean(0)).clamp(min=0)
    for family in families_of(vae):
        if family.prior_variances is not None:
            units = family.prior_variances(vae)
            variances |= {name: variances[name] / unit.to(variances[name]) for name, unit in units.items()}
    return variances


@torch.no_grad()
def means_by_site(vae: VAE, rows: Rows, batch_size: int) -> SiteMeans:
    """Compute `row_means` of all rows batch by batch, ``[N, D]`` by site, on the CPU."""
    with programs.evaluating(vae):
        parts = [row_means(vae, x, data) for x, data in batches(vae, rows, batch_size)]
    return joined(parts)


def joined(parts: Sequence[SiteMeans]) -> SiteMeans:
    """The means of several batches as those of all their rows, on the CPU; where draws changed none, without noise."""
    values = {name: torch.cat([part.values[name].cpu() for part in parts]) for name in parts[0].values}
    noise = {}
    for name in {name: None for part in parts for name in part.noise}:
        noise[name] = torch.cat([part.noise.get(name, torch.zeros_like(part.values[name])).cpu() for part in parts])
    return SiteMeans(values, noise)


def mean_of(q: TorchDistribution) -> Tensor:
    """The mean of a distribution; of a class its probabilities, and of one without a mean that of 100 draws."""
    base = q.base_dist if isinstance(q, Independent) else q
    if isinstance(base, Categorical):
        return base.probs
    try:
        return q.mean
    except NotImplementedError:
        with seeded(0):
            return q.sample((_DRAWS,)).mean(0)


def _by_row(name: str, value: Tensor, rows: int) -> Tensor:
    if len(value) != rows:
        raise ValueError(f"site {name!r} has means of shape {tuple(value.shape)} for {rows} rows of data")
    return value.reshape(rows, -1)
