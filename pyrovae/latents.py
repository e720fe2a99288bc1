"""What a VAE makes of data in its latent space: posterior means, active units, nearest neighbours, sticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import Categorical

from pyrovae import programs
from pyrovae._quadrature import seeded
from pyrovae.priors import StickBreakingPrior
from pyrovae.training_data import Rows
from pyrovae.vae import VAE, MeanMessenger

if TYPE_CHECKING:
    from pyrovae.data import Split

ACTIVE = 1e-2
"""Variance above which a latent dimension counts as active, see `active_units`."""
_DRAWS = 100  # for the mean of a posterior that has none in closed form


class ActiveUnits(NamedTuple):
    """How many latent dimensions a VAE uses."""

    count: int
    """Dimensions whose variance exceeds the threshold."""
    variances: Tensor
    """Variance over the data of each dimension's posterior mean, `[latent_dim]`; see `active_units` for its unit."""


def latent_means(vae: VAE, x: Tensor, batch_size: int = 1000, **data: Tensor | None) -> Tensor:
    """The mean of q(z|x) of every datum, `[N, latent_dim]`, on the CPU; the sites side by side where there are several.

    A site that depends on another one is taken at that one's mean. The mean of a class variable is the vector of its
    class probabilities, and a mean that the distribution does not give that of 100 draws, always the same ones.

    Args:
        vae: the VAE.
        x: data `[N, ...]`.
        batch_size: rows at a time.
        **data: `mask`, `y`.
    """
    return torch.cat(list(means_by_site(vae, Rows(x, **data), batch_size).values()), 1)


def active_units(
    vae: VAE, x: Tensor, threshold: float = ACTIVE, *, batch_size: int = 1000, **data: Tensor | None
) -> ActiveUnits:
    """Count the latent dimensions u that carry information: those with Var_x(E_q[u]) above a threshold.

    Variances of the fractions of a stick are taken in units of their variance under the prior, which is far below the
    one of a standard normal latent. A class `y` that the VAE infers is no such dimension.

    Reference: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, section 5.2.

    Args:
        vae: the VAE.
        x: data `[N, ...]`.
        threshold: variance, in squared units of the latent, or of the prior of sticks.
        batch_size: rows at a time.
        **data: `mask`, `y`.
    """
    means = means_by_site(vae, Rows(x, **data), batch_size)
    variances = torch.cat([torch.zeros(0), *unit_variances(vae, means).values()])
    return ActiveUnits(int((variances > threshold).sum()), variances)


def knn_error(
    train_latents: Tensor,
    train_labels: Tensor,
    test_latents: Tensor,
    test_labels: Tensor,
    k: Sequence[int] = (3, 5, 10),
) -> dict[int, float]:
    """Share of test rows that a k-nearest-neighbour classifier on the latents gets wrong, between 0 and 1, by k.

    Rows labelled -1 (unknown) are left out.

    Args:
        train_latents: `[N, latent_dim]`.
        train_labels: `[N]`.
        test_latents: `[M, latent_dim]`.
        test_labels: `[M]`.
        k: numbers of neighbours.

    Raises:
        ValueError: if no labelled rows are left, or fewer than k to learn from.

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


def infers_class(vae: VAE) -> bool:
    """Whether a class `y`, a categorical variable, is a latent of this VAE."""
    return "y" in vae.sites.classes


def without_labels(split: Split | Rows) -> Split | Rows:
    """The same rows with unknown labels, -1, if they have any."""
    return split if split.y is None else split._replace(y=torch.full_like(split.y, -1))


def has_sticks(vae: VAE) -> bool:
    """Whether the latent `z` of a VAE is the fractions of a stick."""
    return isinstance(getattr(vae.model, "prior", None), StickBreakingPrior)


def prior_of_sticks(vae: VAE) -> TorchDistribution:
    """The prior of the fractions of a stick; at the posterior mean of a concentration that is inferred."""
    return vae.model.prior(vae.global_means().get("concentration"))


@torch.no_grad()
def stick_weights(vae: VAE, x: Tensor, batch_size: int = 1000, **data: Tensor | None) -> Tensor:
    """The mean of the weights of the stick under q(z|x), `[N, truncation]`, on the CPU.

    Fractions are independent under the guide, so the mean of a weight is the product of means of fractions.

    Args:
        vae: a VAE with a `StickBreakingPrior`.
        x: data `[N, ...]`.
        batch_size: rows at a time.
        **data: `mask`, `y`.

    Raises:
        ValueError: if the VAE has another prior.
    """
    if not has_sticks(vae):
        raise ValueError(f"this VAE has no stick: its prior is no StickBreakingPrior, latents {vae.sites.latent}")
    split, parts = Rows(x, **data), []
    with programs.evaluating(vae):
        for batch in batches(len(x), batch_size):
            rows, given = batch_of(vae, split, batch)
            parts.append(vae.model.prior.features(posterior_means(vae, rows, **given)["z"]))
    return torch.cat(parts).cpu()


def sticks_used(weights: Tensor, mass: float = 0.99) -> Tensor:
    """How many weights of a stick, from the first on, hold so much of it, `[N, truncation]` -> `[N]`.

    >>> sticks_used(torch.tensor([[0.6, 0.395, 0.005], [0.2, 0.2, 0.6]]))
    tensor([2, 3])
    """
    held = weights.double().cumsum(-1) >= mass - 1e-6
    last = torch.full_like(held[..., :1], True)
    return torch.cat([held[..., :-1], last], -1).int().argmax(-1) + 1


@torch.no_grad()
def posterior_means(vae: VAE, x: Tensor, **data: Tensor | None) -> dict[str, Tensor]:
    """The mean of q(z|x) by site, each `[B, ...]`; see `latent_means` for sites without a mean of the usual kind."""
    with MeanMessenger():
        posterior = vae.posterior(x, **data)
    means = {}
    for name, q in posterior.items():
        mean, dim = _mean(q), vae.row_dims[name]
        means[name] = mean.movedim(dim + len(q.batch_shape), 0)
    return means


def batch_of(vae: VAE, split: Split | Rows, part: slice) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows of a split on the VAE's device, with `y` if both programs take it, and with `mask` if there is one."""
    takes_y = all(programs.accepts(program, "y") for program in (vae.model, vae.guide))
    data = {"y": split.y if takes_y else None, "mask": split.mask}
    given = {name: value[part].to(vae.device) for name, value in data.items() if value is not None}
    return split.x[part].to(vae.device), given


def batches(rows: int, batch_size: int) -> list[slice]:
    """The rows from 0 to `rows` in parts of `batch_size`."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return [slice(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]


def row_means(vae: VAE, x: Tensor, data: dict[str, Tensor]) -> dict[str, Tensor]:
    """`posterior_means` of a batch with all that a site has of a row side by side, `[B, D]`."""
    return {name: _by_row(name, mean, len(x)) for name, mean in posterior_means(vae, x, **data).items()}


def unit_variances(vae: VAE, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Variances over the rows of the latent means `[N, D]` of every site but a class, in units of `active_units`."""
    variances = {name: mean.var(0, correction=0) for name, mean in means.items()}
    if infers_class(vae):
        del variances["y"]
    if has_sticks(vae):
        variances["z"] = variances["z"] / prior_of_sticks(vae).variance.to(variances["z"])
    return variances


@torch.no_grad()
def means_by_site(vae: VAE, split: Split | Rows, batch_size: int) -> dict[str, Tensor]:
    """`row_means` of all rows, `[N, D]`, on the CPU, batch by batch."""
    with programs.evaluating(vae):
        parts = [row_means(vae, *batch_of(vae, split, batch)) for batch in batches(len(split.x), batch_size)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _mean(q: TorchDistribution) -> Tensor:
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
