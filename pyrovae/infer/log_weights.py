"""Log weights of a pair: one number per particle and per datum."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyrovae.infer.density_checks import check_densities
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.particles import can_vectorize, over_particles
from pyrovae.infer.points import global_means
from pyrovae.infer.scoring import LogWeights, Score, Scorer
from pyrovae.layout import OutsidePlateError, look_at
from pyrovae.programs import Program, conditioned, trace_pair, trial
from pyrovae.sites import is_global, latent_sites

__all__ = ["LogWeights", "OutsidePlateError", "conditioned", "log_condition", "log_weights", "weights_of"]

logger = logging.getLogger(__name__)


def log_weights(
    model: Program,
    guide: Program,
    num_particles: int,
    *args: Any,
    condition: Mapping[str, Tensor] | None = None,
    max_plate_nesting: int | None = None,
    vectorize: bool | None = None,
    weighted: bool = False,
    return_draws: bool = False,
    **kwargs: Any,
) -> LogWeights:
    r"""Draw particles from the guide and score them under guide and model, datum by datum.

    Masks of sites and distributions apply; the scale of a subsampling plate is divided out. The particles are one
    vectorised call where the pair allows it, and a loop otherwise.

    Parameters
    ----------
    model : callable
        The model program.
    guide : callable
        The guide program, of the same signature.
    num_particles : int
        Their number K.
    *args : Any
        Arguments of both programs, the data first.
    condition : mapping from str to Tensor, optional
        Values of latent sites that are fixed instead of drawn, by name; their density is left out. The way to have
        latents outside the plate over the data; None gives those that are marked so (`sites.is_global`) their
        posterior means, with a log line.
    max_plate_nesting : int, optional
        Depth of the plates, if it is to be larger than what one run of the pair shows.
    vectorize : bool, optional
        True and False insist on one way; None tries the vectorised call and falls back, with a log line.
    weighted : bool, default False
        For an objective: every site counts by its scale relative to what all have in common, a KL weight among them,
        and observed sites and factors of the guide enter `log_p`; otherwise every site counts once, and these do not.
    return_draws : bool, default False
        Return the draws of every latent site too, by name, each `[K, B, ...event]`.
    **kwargs : Any
        Keyword arguments of both programs.

    Returns
    -------
    LogWeights
        `log_p`, `log_q` and `log_score`, each `[K, B]` in nats, and `draws`.

    Raises
    ------
    ValueError
        If a site lies outside the plate over the data, a batch dimension is in no plate, a latent site is missing from
        the guide, or one has all its probability on one value.

    Examples
    --------
    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> weights = log_weights(model, guide, 7, torch.zeros(3), return_draws=True)
    >>> weights.log_weight.shape, weights.draws["z"].shape
    (torch.Size([7, 3]), torch.Size([7, 3]))
    """
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    layout = look_at(model, guide, args, kwargs)
    if condition is None and layout.shared:
        condition = marked_means(model, guide, args, kwargs) or None
        if condition:
            log_condition(condition)
    programs = conditioned(model, guide, condition)
    if not weighted:
        check_densities(*programs, layout, args, kwargs)
    programs = enumerated(programs[0], layout, max_plate_nesting), programs[1]
    if num_particles > 1 and vectorize is None:
        vectorize = can_vectorize(
            *programs, Scorer(layout, fixed=condition or ()), args, kwargs, max_plate_nesting=max_plate_nesting
        )
    nesting = layout.max_plate_nesting if max_plate_nesting is None else max_plate_nesting
    scorer = Scorer(layout, weighted=weighted, fixed=condition or (), draws=return_draws)
    return weights_of(*programs, num_particles, nesting if vectorize else None, scorer, args, kwargs)


def weights_of(
    model: Program,
    guide: Program,
    num_particles: int,
    max_plate_nesting: int | None,
    scorer: Scorer,
    args: tuple,
    kwargs: Mapping[str, Any],
) -> LogWeights:
    """Log weights of a pair that was looked at before; `max_plate_nesting` None loops over the particles."""

    def run(model: Program, guide: Program, score: Score) -> LogWeights:
        return score(*trace_pair(model, guide, args, kwargs))

    return over_particles(run, model, guide, num_particles, max_plate_nesting, scorer)


def marked_means(model: Program, guide: Program, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The means of the guide's sites that are marked as global."""
    with trial(model, guide):
        names = [n for n, site in latent_sites(trace_pair(model, guide, args, kwargs).guide).items() if is_global(site)]
        return global_means(guide, names, args, kwargs) if names else {}


def log_condition(means: Mapping[str, Tensor]) -> None:
    """Say that global sites stand at their posterior means."""
    values = ", ".join(f"{name} = {value.tolist()}" for name, value in means.items())
    logger.info("global latents are fixed at their posterior means: %s; condition= chooses other values", values)
