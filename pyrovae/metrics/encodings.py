"""What a VAE says of the latents of rows: means, scales, and what a family adds, such as the weights of a stick."""

from __future__ import annotations

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import Categorical

from pyrovae import programs
from pyrovae.batches import batches
from pyrovae.data.dataset import Rows
from pyrovae.families import families_of
from pyrovae.metrics.classification import class_probabilities, class_site, with_inferred_labels
from pyrovae.metrics.latents import mean_of
from pyrovae.rng import seeded
from pyrovae.vae import VAE, MeanMessenger

_DRAWS = 100  # for the scale of a posterior that has none in closed form


@torch.no_grad()
def encodings(vae: VAE, rows: Rows, batch_size: int = 1000) -> dict[str, Tensor]:
    """The latents of rows under the guide, in numbers: what ``pyrovae encode`` writes.

    Parameters
    ----------
    vae : VAE
        The VAE.
    rows : Rows
        The rows. Labels that the VAE infers are not looked at.
    batch_size : int, default 1000
        Rows at a time, which bounds the memory.

    Returns
    -------
    dict of str to Tensor, each ``[N, D]``
        On the CPU. For every latent site ``SITE_mean`` and ``SITE_scale``, the standard deviation; for a class
        ``SITE_probability`` of each of them; and what the family adds, such as ``weights`` of a stick. A site that
        depends on others is taken at their means, and at the most probable class. Where a distribution does not give
        its mean or its variance, that of 100 draws is taken, always the same ones.

    Raises
    ------
    ValueError
        If a latent belongs to no single row.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> from pyrovae.pairs import find_pair
    >>> digits = load("digits", binarize="static")
    >>> vae = find_pair("gaussian").build(digits, latent_dim=3, hidden=(8,))
    >>> {name: tuple(value.shape) for name, value in encodings(vae, digits.test).items()}
    {'z_mean': (297, 3), 'z_scale': (297, 3)}
    """
    labelled, found = with_inferred_labels(vae, rows), dict[str, list[Tensor]]()
    inferred = class_site(vae) if labelled is not rows else None
    with programs.evaluating(vae):
        for x, data in batches(vae, labelled, batch_size):
            with MeanMessenger():
                posterior = vae.posterior(x, **data)
            for name, q in posterior.items():
                if name == inferred:
                    continue
                for part, value in _moments(name, q).items():
                    dim = vae.row_dims[name]
                    if dim is None:
                        raise ValueError(f"latent site {name!r} belongs to no single row, so no row has one")
                    value = value.movedim(dim + len(q.batch_shape), 0)
                    if len(value) != len(x):
                        raise ValueError(f"site {name!r} has latents for {len(value)} rows where there are {len(x)}")
                    found.setdefault(part, []).append(value.reshape(len(x), -1).cpu())
    result = {name: torch.cat(parts) for name, parts in found.items()}
    if inferred is not None:
        result[f"{inferred}_probability"] = class_probabilities(vae, rows.x, batch_size=batch_size, **rows.fields())
    for family in families_of(vae):
        result |= {name: compute(vae, rows) for name, compute in family.encodings.items()}
    return result


def _moments(name: str, q: TorchDistribution) -> dict[str, Tensor]:
    base = q.base_dist if isinstance(q, Independent) else q
    if isinstance(base, Categorical):
        return {f"{name}_probability": base.probs}
    try:
        scale = q.variance.sqrt()
    except NotImplementedError:
        with seeded(0):
            scale = q.sample((_DRAWS,)).std(0)
    return {f"{name}_mean": mean_of(q), f"{name}_scale": scale}
