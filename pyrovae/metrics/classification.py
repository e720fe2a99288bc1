"""Classes: what a semi-supervised VAE says of the class of a datum, and features of one VAE as data of another."""

from __future__ import annotations

import torch
from pyro.distributions import Categorical
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments, batches
from pyrovae.data.dataset import Dataset, Rows
from pyrovae.metrics.latents import infers_class, latent_means, means_by_site, stick_weights
from pyrovae.rng import seeded
from pyrovae.vae import VAE


@torch.no_grad()
def class_probabilities(vae: VAE, x: Tensor, *, mask: Tensor | None = None, batch_size: int = 1000) -> Tensor:
    """q(y|x) of every datum, `[N, num_classes]`, on the CPU.

    It is the guide's, in evaluation mode; nothing is drawn that it depends on.

    Args:
        vae: a VAE with a latent class `y`, such as the pair `semi-supervised`.
        x: data `[N, ...]`.
        mask: `[N, ...]`, True = observed.
        batch_size: rows at a time.

    Raises:
        ValueError: if the VAE has no latent class.
    """
    # There are pairs that do not run without labels; -1 is an unknown one.
    unlabelled, parts = Rows(x, y=torch.full((len(x),), -1), mask=mask), []
    with programs.evaluating(vae), torch.random.fork_rng():
        for rows, data in batches(vae, unlabelled, batch_size):
            q = vae.posterior(rows, **data).get("y")
            if not isinstance(q, Categorical):
                raise ValueError(f"this pair has no class y among its latents {vae.sites.latent}")
            parts.append(q.probs)
    return torch.cat(parts).cpu()


def classification_error(vae: VAE, split: Rows, *, batch_size: int = 1000) -> float:
    """Share of the labelled rows whose most probable class under q(y|x) is another one, between 0 and 1.

    Raises:
        ValueError: if there are no labelled rows, or the VAE has no latent class.
    """
    known = split.take(split.labelled)
    if not len(known):
        raise ValueError("there are no labelled rows to classify")
    found = class_probabilities(vae, known.x, mask=known.mask, batch_size=batch_size).argmax(-1)
    return float((found != known.y.cpu()).double().mean())


def stick_weights_of(vae: VAE, split: Rows) -> Tensor:
    """The mean weights of every row's stick, `[N, truncation]`; where a class is inferred, at the most probable one.

    Raises:
        ValueError: if the VAE has no stick.
    """
    return stick_weights(vae, split.x, mask=split.mask, y=with_inferred_labels(vae, split).y)


def latents_of(vae: VAE, split: Rows, *, batch_size: int = 1000) -> Tensor:
    """The latent means of every row, `[N, latent_dim]`, on the CPU; labels that are to be inferred are not looked at.

    Where a class is inferred, they are those of the other latents, if any, at the most probable class.
    """
    means = means_by_site(vae, with_inferred_labels(vae, split), batch_size)
    others = [mean for name, mean in means.items() if not (infers_class(vae) and name == "y")]
    return torch.cat(others or list(means.values()), 1)


def with_inferred_labels(vae: VAE, split: Rows) -> Rows:
    """The same rows, labelled with their most probable class where the VAE infers one."""
    x, data = arguments(vae, split.take(slice(2)))
    if not infers_class(vae.prepare(x, **data)):
        return split
    return split.replace(y=class_probabilities(vae, split.x, mask=split.mask).argmax(-1))


class LatentFeatures:
    """Features of data for a second model: the latent means of a trained VAE, M1 of the stacked M1+M2.

    Latent dimensions that the VAE does not use are left out: those whose posterior mean has a standard deviation below
    the threshold over the given data. The others are scaled to a standard deviation of 1.

    Args:
        vae: a trained VAE with a vector latent.
        x: data that tell which dimensions are used, the training rows as the VAE sees them.
        threshold: standard deviation.
        mask: where they are observed, `[N, ...]`.

    Raises:
        ValueError: if no dimension is used.

    Reference: Kingma, Rezende, Mohamed and Welling (2014), section 3.1.4, and the threshold of 0.1 of their code.
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
        """The features `[N, D]` of data `[N, ...]` with True in `mask` where they are observed, on the CPU."""
        return (latent_means(self.vae, x, mask=mask)[:, self.used] - self.loc) / self.scale

    def dataset(self, dataset: Dataset) -> Dataset:
        """A data set of the features with the labels of this one, for a pair with a normal likelihood.

        What the data set does to its minibatches (dynamic binarisation) is done once to its training rows, always with
        the same draws.
        """
        with seeded(0):
            parts = {name: dataset.seen(name) for name in dataset.splits()}
        splits = {name: Rows(self(rows.x, rows.mask), rows.y) for name, rows in parts.items()}
        return Dataset(f"latents of {dataset.name}", **splits, kind="real")
