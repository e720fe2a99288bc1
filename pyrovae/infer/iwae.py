"""Bounds on importance weights of each datum: IWAE with three gradients, and Renyi."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.infer import functional
from pyrovae.infer.objective import Objective, Pair, frozen, with_values
from pyrovae.infer.scoring import LogWeights, Score
from pyrovae.programs import Program, trace_pair
from pyrovae.sites import PARTICLES, latent_sites, sample_sites

GRADIENTS = ("standard", "stl", "dreg")


class IWAE(Objective):
    r"""The importance-weighted bound, `sum_x E[log 1/K sum_k p(x, z_k) / q(z_k | x)]`.

    Between the ELBO (K = 1) and log p(x). Unlike Pyro's `RenyiELBO(alpha=0)`, it forms the bound for each datum, and
    its gradient is right for draws that are not reparameterised: their score is weighted with the bound.

    Gradients of the guide, of one expectation for K = 1 and reparameterised draws as the others for all K:

    * "standard": the reparameterised gradient of the bound, plus the score term where needed. Unbiased for the bound;
      its signal-to-noise ratio for the guide falls as `1 / sqrt(K)` (Rainforth et al., 2018).
    * "stl" (sticking the landing): the derivative of log q by its own parameters is left out. Unbiased for K = 1,
      biased beyond (Tucker et al., 2019, section 3); of variance zero where q is exact.
    * "dreg": doubly reparameterised, weights `w_k^2` on the path (`(1 - beta) w_k + beta w_k^2` under a KL weight).
      Unbiased, its signal-to-noise ratio rises with K.

    "stl" and "dreg" run the guide twice and need every site reparameterised; the model's gradient is the standard one
    in all three. A guide that draws beside its sites, such as the units that dropout leaves, is refused, because its
    two runs would differ.

    Parameters
    ----------
    num_particles : int, default 10
        Draws of the latents per datum, K.
    gradient : str, default "standard"
        "standard", "stl" or "dreg".
    **options : Any
        Those of `Objective`.

    Raises
    ------
    ValueError
        For another gradient; when run, for a site without reparameterised draws under "stl" or "dreg".

    References
    ----------
    Burda et al. (2016), equation 8; Roeder, Wu and Duvenaud (2017); Tucker, Lawson, Gu and Maddison (2019),
    equation 8.

    Examples
    --------
    >>> IWAE(num_particles=10, gradient="dreg").gradient
    'dreg'
    """

    def __init__(self, num_particles: int = 10, gradient: str = "standard", **options: Any) -> None:
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}, got {gradient!r}")
        super().__init__(num_particles, **options)
        self.gradient = gradient

    @property
    def takes_shared(self) -> bool:
        """Not with "stl" and "dreg": the path of a draw for all data runs through the weights of every datum."""
        return self.gradient == "standard"

    def bound(self, pair: Pair) -> Tensor:
        """The importance-weighted bound, `[B]`."""
        if self.gradient == "standard":
            weights = pair.log_weights()
            return functional.iwae(weights.log_weight, weights.log_score)
        path = _Path(pair, squared=self.gradient == "dreg")
        return functional.iwae(path.log_weights().log_weight)


class Renyi(Objective):
    r"""The variational Renyi bound of each datum, `1 / (1 - alpha) log 1/K sum_k w_k^(1 - alpha)`.

    alpha = 1 is the ELBO, alpha = 0 is `IWAE`. In contrast to Pyro's `RenyiELBO` every datum has weights of its own
    whatever the plates, and draws that are not reparameterised get their score.

    Parameters
    ----------
    alpha : float, default 0.5
        The order; below 1 the bound is tighter than the ELBO.
    num_particles : int, default 10
        Draws of the latents per datum, K.
    **options : Any
        Those of `Objective`.

    References
    ----------
    Li and Turner (2016), Renyi Divergence Variational Inference, equation 12.
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 10, **options: Any) -> None:
        super().__init__(num_particles, **options)
        self.alpha = alpha

    def bound(self, pair: Pair) -> Tensor:
        """The Renyi bound, `[B]`."""
        weights = pair.log_weights()
        return functional.renyi(weights.log_weight, self.alpha, weights.log_score)


def _generator_state() -> list[bytes]:
    """The state of torch's generators, to see whether somebody drew."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    with torch._C.DisableTorchFunction():  # a recording refuses looks at values
        return [state.numpy().tobytes() for state in states]


class _Path:
    """Log weights whose gradient by the guide runs along the draws alone, weighted once more for DReG."""

    weight: Tensor  # normalised weights [K, B], known before any gradient flows

    def __init__(self, pair: Pair, *, squared: bool) -> None:
        self.pair, self.squared = pair, squared
        self.done = 0

    def log_weights(self) -> LogWeights:
        weights = self.pair.over_particles(self.run)
        self.weight = weights.log_weight.detach().softmax(0)
        return weights

    def run(self, model: Program, guide: Program, score: Score) -> LogWeights:
        drawn = self.pair.trace(guide)
        for name, site in latent_sites(drawn).items():
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"site {name!r} has no reparameterised draws, which gradient='stl' and 'dreg' need; "
                    "use gradient='standard', VIMCO or ReweightedWakeSleep"
                )
            if hasattr(site["value"], "_unquantize"):
                raise ValueError(
                    f"site {name!r} draws straight through, so its draws are no function of its noise, which "
                    "gradient='stl' and 'dreg' need; use gradient='standard', or the relaxed distribution"
                )
        hooked = with_values(drawn, self.hook)
        model_trace = trace_pair(model, guide, self.pair.args, self.pair.kwargs, drawn=hooked).model
        live = self.observed(guide, hooked)
        # The second run of the guide scores the draws: its parameters are constants, its inputs (other draws) are not.
        with frozen(self.pair.guide, drawn):
            before = _generator_state()
            guide_trace = self.pair.trace(poutine.replay(guide, trace=hooked))
            if before != _generator_state():
                raise ValueError(
                    "the guide draws random numbers beside its sites, dropout perhaps, and gradient='stl' and 'dreg' "
                    "would score its draws under other ones; use gradient='standard', or take them out of the guide"
                )
            nodes: Any = guide_trace.nodes
            for name, site in live.items():
                nodes[name] = site
            weights = score(model_trace, guide_trace)  # here too: a flow runs its nets when it is scored
        self.done += len(weights.log_p)
        return weights

    def observed(self, guide: Program, hooked: Trace) -> dict[str, dict[str, Any]]:
        """What the guide observes, factors too, at the hooked draws: these terms teach the guide's own parameters."""
        if not any(site["is_observed"] for site in sample_sites(hooked).values()):
            return {}
        found = {}
        for name, site in sample_sites(self.pair.trace(poutine.replay(guide, trace=hooked))).items():
            if site["is_observed"]:
                unit = Unit(site["fn"].log_prob(site["value"]), has_rsample=site["fn"].has_rsample)
                found[name] = {**site, "fn": unit, "value": unit.sample()}
        return found

    def hook(self, name: str, site: dict[str, Any]) -> Tensor:
        value = site["value"]
        if not value.requires_grad:
            return value
        # A tensor of its own: a flow would not invert the one that it drew, and its path would be lost.
        value, first = value.view_as(value), self.done
        if not self.squared:
            return value
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]

        def again(gradient: Tensor) -> Tensor:
            # A KL weight beta leaves 1 - beta of the weight w as it is: the score term to be taken out is beta w's, and
            # its reparameterised form has the coefficient beta (w - w^2). What arrives here carries w already.
            beta = self.pair.scorer.weight(site)
            if isinstance(beta, Tensor) and beta.dim():  # a weight of its own for each row
                beta = beta.reshape(beta.shape + (1,) * site["fn"].event_dim)
            weight = self.shaped(first, site["fn"].event_dim, frames, gradient)
            return gradient * (1 - beta + beta * weight)

        value.register_hook(again)
        return value

    def shaped(self, first: int, event_dim: int, frames: list[Any], like: Tensor) -> Tensor:
        """The weights of the particles of one run, shaped to multiply a site's value."""
        particle = next((f for f in frames if f.name == PARTICLES), None)
        count = 1 if particle is None else particle.size
        weight = self.weight[first : first + count]
        shape = [1] * like.dim()
        shape[self.pair.scorer.data_dim - event_dim] = weight.shape[1]
        if particle is not None:
            shape[particle.dim - event_dim] = count
            # The particles' dimension is left of the data's, as in [K, B].
        return weight.reshape(shape)
