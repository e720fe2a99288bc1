"""Classes: what a VAE that infers the label of a row says of it, and features of one VAE as data of another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import LABEL, arguments, batches
from pyrovae.data.dataset import Dataset, Rows
from pyrovae.metrics.latents import latent_means, means_by_site
from pyrovae.rng import forked, seeded
from pyrovae.vae import VAE

MASKED_LABEL = f"{LABEL}_unobserved"
"""The latent that `pyro.sample("y", ..., obs_mask=)` makes of unknown labels."""
_CERTAIN = -1e-3  # log-probability of a label that is told
_DRAWS = 100  # of latents that a class depends on


def class_site(vae: VAE) -> str | None:
    """The latent site that labels tell; None for pairs without.

    It is the categorical latent that is called as the argument for labels, or the only categorical latent of a pair
    whose programs take labels.
    """
    classes = vae.sites.classes
    if LABEL in classes:
        return LABEL
    if MASKED_LABEL in classes:
        return MASKED_LABEL
    takes_labels = all(programs.accepts(program, LABEL) for program in (vae.model, vae.guide))
    return classes[0] if takes_labels and len(classes) == 1 else None


def infers_label(vae: VAE, rows: Rows) -> bool:
    """Whether labels given to a pair would be the answer: its guide puts all probability of a class on the label.

    The pair is prepared on the rows. A pair may also take labels and have a categorical latent that is something else.
    """
    some = rows.take(slice(2))
    # With labels, because there are pairs that do not run without; class 0 is one that every pair has.
    x, data = arguments(vae, some if some.y is None else some.replace(y=torch.zeros_like(some.y)))
    site = class_site(vae.prepare(x, **data))
    if site is None or LABEL not in data:
        return False
    if site == MASKED_LABEL:
        return True  # drawn where there is no label
    with torch.no_grad(), forked(), programs.evaluating(vae):
        q, label = vae.posterior(x, **data)[site], data[LABEL]
        label = F.one_hot(label, q.event_shape[0]).to(q.mean) if q.event_shape else label
        return bool((q.log_prob(label) > _CERTAIN).all())


@torch.no_grad()
def class_probabilities(
    vae: VAE, x: Tensor, *, mask: Tensor | None = None, batch_size: int = 1000, **data: Any
) -> Tensor:
    """q(y|x) of every datum: the guide's, in evaluation mode; the mean over draws of the latents that it depends on.

    Parameters
    ----------
    vae : VAE
        A VAE that infers a class, such as the pair `semi-supervised`.
    x : Tensor, shape ``[N, ...]``
        The data.
    mask : Tensor of bool, shape ``[N, ...]``, optional
        True where an entry is observed.
    batch_size : int, default 1000
        Rows at a time, which bounds the memory.
    **data
        Further arguments of the programs; labels are not looked at.

    Returns
    -------
    Tensor, shape ``[N, num_classes]``
        Probabilities, on the CPU.

    Raises
    ------
    ValueError
        If the VAE infers no class.
    """
    # There are pairs that do not run without labels; -1 is an unknown one.
    given = {**data, "mask": mask, LABEL: torch.full((len(x),), -1)}
    unlabelled, parts = Rows.of(x, **given), []
    x_some, data_some = arguments(vae, unlabelled.take(slice(2)))
    site = class_site(vae.prepare(x_some, **data_some))
    if site is None:
        raise ValueError(
            f"this pair infers no class: labels tell none of its latents {vae.sites.latent}, of which "
            f"{vae.sites.classes or 'none'} have classes"
        )
    with programs.evaluating(vae), forked():
        first, second = (vae.posterior(x_some, **data_some)[site].probs for _ in range(2))
        draws = 1 if torch.equal(first, second) else _DRAWS
        for rows, part in batches(vae, unlabelled, batch_size):
            parts.append(sum(vae.posterior(rows, **part)[site].probs for _ in range(draws)) / draws)
    return torch.cat(parts).cpu()


def classification_error(vae: VAE, rows: Rows, *, batch_size: int = 1000) -> float:
    """Share of the labelled rows whose most probable class under q(y|x) is another one.

    Parameters
    ----------
    vae : VAE
        A VAE that infers a class.
    rows : Rows
        Rows, some of them with labels. Those without are left out.
    batch_size : int, default 1000
        Rows at a time.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If there are no labelled rows, or the VAE infers no class.
    """
    known = rows.take(rows.labelled)
    if known.y is None or not len(known):
        raise ValueError("there are no labelled rows to classify")
    found = class_probabilities(vae, known.x, batch_size=batch_size, **known.fields()).argmax(-1)
    return float((found != known.y.cpu()).double().mean())


def latents_of(vae: VAE, rows: Rows, *, batch_size: int = 1000) -> Tensor:
    """The latent means of rows, ``[N, latent_dim]``, on the CPU; labels that are to be inferred are not looked at.

    Where a class is inferred, they are those of the other latents, if any, at the most probable class.
    """
    return torch.cat(list(latents_by_site(vae, rows, batch_size=batch_size).values()), 1)


def latents_by_site(vae: VAE, rows: Rows, *, batch_size: int = 1000) -> dict[str, Tensor]:
    """What `latents_of` puts side by side, by the name of the latent."""
    means = means_by_site(vae, with_inferred_labels(vae, rows), batch_size).values
    return without_class(vae, means)


def without_class(vae: VAE, means: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means by site without those of the class that a VAE infers, unless there are no others."""
    return {name: mean for name, mean in means.items() if name != class_site(vae)} or means


def with_inferred_labels(vae: VAE, rows: Rows) -> Rows:
    """The same rows, labelled with their most probable class where the VAE infers one."""
    if not infers_label(vae, rows):
        return rows
    return rows.replace(y=class_probabilities(vae, rows.x, **rows.fields()).argmax(-1))


class LatentFeatures:
    """Features of data for a second model: the latent means of a trained VAE, M1 of the stacked M1+M2.

    Latent dimensions that the VAE does not use are left out: those whose posterior mean has a standard deviation below
    the threshold over the given data. The others are scaled to a standard deviation of 1.

    Parameters
    ----------
    vae : VAE
        A trained VAE with a vector latent.
    x : Tensor, shape ``[N, ...]``
        Data that tell which dimensions are used: the training rows as the VAE sees them.
    threshold : float, default 0.1
        Standard deviation below which a dimension is left out.
    mask : Tensor of bool, shape ``[N, ...]``, optional
        True where an entry is observed.

    Raises
    ------
    ValueError
        If no dimension is used.

    References
    ----------
    Kingma, Rezende, Mohamed and Welling (2014), section 3.1.4, and the threshold of 0.1 of their code.
    """

    def __init__(self, vae: VAE, x: Tensor, *, threshold: float = 0.1, mask: Tensor | None = None) -> None:
        self.vae = vae
        means = latent_means(vae, x, mask=mask)
        deviation = means.std(0, correction=0)
        self.used = deviation > threshold
        if not bool(self.used.any()):
            raise ValueError(f"no latent dimension has means that vary by more than {threshold}: train the VAE longer")
        self.loc, self.scale = means.mean(0)[self.used], deviation[self.used]

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The features ``[N, D]`` of data ``[N, ...]``, on the CPU."""
        return (latent_means(self.vae, x, mask=mask)[:, self.used] - self.loc) / self.scale

    def dataset(self, dataset: Dataset) -> Dataset:
        """A data set of the features with the labels of this one, for a pair with a normal likelihood.

        What the data set does to its minibatches (dynamic binarisation) is done once to its training rows, always with
        the same draws.
        """
        with seeded(0):
            parts = {name: dataset.seen(name) for name in dataset.splits()}
        splits = {name: rows.replace(x=self(rows.x, rows.mask), mask=None) for name, rows in parts.items()}
        return Dataset(f"latents of {dataset.name}", splits["train"], splits["validation"], splits["test"], "real")
