"""What a VAE says of the latents of rows: means, scales, and what a family adds, such as the weights of a stick."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor
from torch.distributions import Categorical

from pyrovae import programs
from pyrovae.batches import batches
from pyrovae.data.dataset import Rows
from pyrovae.families import families_of
from pyrovae.metrics.classification import class_probabilities, class_site, with_inferred_labels
from pyrovae.metrics.latents import mean_of, over_values
from pyrovae.rng import seeded
from pyrovae.vae import VAE

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
        depends on others is taken at their means, at the most probable class, and over 50 draws of other discrete
        latents. Where a distribution does not give its mean or its variance, that of 100 draws is taken. Draws are
        always the same ones.

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
            for name, moments in _moments(vae, x, data).items():
                if name == inferred:
                    continue
                for part, value in moments.items():
                    if len(value) != len(x):
                        raise ValueError(f"site {name!r} has latents for {len(value)} rows where there are {len(x)}")
                    found.setdefault(f"{name}_{part}", []).append(value.reshape(len(x), -1).cpu())
    result = {name: torch.cat(parts) for name, parts in found.items()}
    if inferred is not None:
        result[f"{inferred}_probability"] = class_probabilities(vae, rows.x, batch_size=batch_size, **rows.fields())
    for family in families_of(vae):
        result |= {name: compute(vae, rows) for name, compute in family.encodings.items()}
    return result


def _moments(vae: VAE, x: Tensor, data: Mapping[str, Tensor | None]) -> dict[str, dict[str, Tensor]]:
    """Probabilities of classes, mean and standard deviation of other latents of rows, by site and name."""
    found, read = dict[str, dict[str, Tensor]](), over_values(vae, x, data, _parts)
    for (name, part), over in read.items():
        if part == "variance":
            between = read[name, "mean"].spread  # by the values of latents before
            found[name]["scale"] = (over.mean if between is None else over.mean + between).sqrt()
        else:
            found.setdefault(name, {})[part] = over.mean
    return found


def _parts(q: TorchDistribution) -> dict[str, Tensor]:
    base = q.base_dist if isinstance(q, Independent) else q
    if isinstance(base, Categorical):
        return {"probability": base.probs}
    try:
        variance = q.variance
    except NotImplementedError:
        with seeded(0):
            variance = q.sample((_DRAWS,)).var(0)
    return {"mean": mean_of(q), "variance": variance}
