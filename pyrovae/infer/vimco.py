"""VIMCO."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyrovae.infer import functional
from pyrovae.infer.objective import Objective, Pair


class VIMCO(Objective):
    r"""The importance-weighted bound with a control variate from the other particles, for draws that are not
    reparameterised.

    Particle k's score is weighted by the bound minus the bound in which its weight is replaced by the mean of the
    others'. Unbiased for the bound of `IWAE`, nothing to learn or tune, and of far smaller variance than
    `IWAE(gradient="standard")`. Reparameterised sites of a mixed pair get their pathwise gradient; where all are, it is
    `IWAE`.

    Parameters
    ----------
    num_particles : int, default 10
        Draws of the latents per datum, K, at least 2.
    control_variate : str, default "geometric"
        "geometric" or "arithmetic" mean of the other weights.
    **options : Any
        Those of `Objective`.

    Raises
    ------
    ValueError
        For fewer than two particles, or another control variate.

    References
    ----------
    Mnih and Rezende (2016), Variational Inference for Monte Carlo Objectives, equations 9 to 11.

    Examples
    --------
    >>> VIMCO(num_particles=5).num_particles
    5
    """

    def __init__(self, num_particles: int = 10, control_variate: str = "geometric", **options: Any) -> None:
        if num_particles < 2:
            raise ValueError(
                f"VIMCO compares particles with each other; num_particles is {num_particles}, take 2 or more"
            )
        if control_variate not in ("geometric", "arithmetic"):
            raise ValueError(f"control_variate must be geometric or arithmetic, got {control_variate!r}")
        super().__init__(num_particles, **options)
        self.control_variate = control_variate

    def bound(self, pair: Pair) -> Tensor:
        """The importance-weighted bound, `[B]`."""
        weights = pair.log_weights()
        return functional.vimco(weights.log_weight, weights.log_score, self.control_variate)
