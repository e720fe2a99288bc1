"""The first loss of a training."""

from __future__ import annotations

from pyro.infer import ELBO
from torch import Tensor

from pyrovae import programs
from pyrovae.infer.objective import Objective
from pyrovae.infer.objectives import check_pyro_objective
from pyrovae.vae import VAE


def first_loss(objective: ELBO, vae: VAE, x: Tensor, **data: Tensor | None) -> None:
    """Try an objective on the first batch, without gradients.

    Raises
    ------
    ValueError
        If it is one of Pyro's that does not take the pair: in one line, with the site where one is known.
    """
    given = programs.keywords(vae.model, vae.guide, **data)
    if isinstance(objective, Objective):
        objective.loss(vae.model, vae.guide, x, **given)
        return
    with programs.trial(vae.model, vae.guide):
        check_pyro_objective(objective, *programs.trace_pair(vae.model, vae.guide, (x,), given))
    try:
        objective.loss(vae.model, vae.guide, x, **given)
    except Warning:  # an error where the caller makes errors of warnings
        raise
    except Exception as error:
        lines = [line.strip().rstrip(":") for line in str(error).splitlines() if line.strip()]
        if len(lines) == 1 and isinstance(error, ValueError | TypeError | NotImplementedError):
            raise
        raise ValueError(
            f"{type(objective).__name__} of Pyro does not take this pair: {(lines or [type(error).__name__])[0]}"
        ) from error
