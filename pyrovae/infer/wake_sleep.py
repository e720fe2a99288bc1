"""Wake-sleep and reweighted wake-sleep."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.infer import functional
from pyrovae.infer.objective import Objective, Pair
from pyrovae.infer.scoring import LogWeights, Score, Scorer
from pyrovae.nn.row_table import RowTable
from pyrovae.programs import Program, owned_modules, trace_pair, trial, unconditioned
from pyrovae.shapes import data_in_order
from pyrovae.sites import (
    Site,
    frames_of,
    is_deterministic,
    is_factor,
    is_point,
    latent_sites,
    nodes_of,
    rows_first,
    sample_sites,
)


class WakeSleepLosses(NamedTuple):
    """The two losses of wake-sleep, summed over the data, in nats."""

    model: float
    """Minus the importance-weighted bound."""
    guide: float
    """The weighted cross-entropy from particles or dreams to the guide."""


class ReweightedWakeSleep(Objective):
    r"""Model and guide learn from losses of their own, with weights for each datum.

    * wake-theta, for the model: the importance-weighted bound, its gradient through log p alone.
    * wake-phi, for the guide: `-sum_k w_k log q(z_k | x)`, with normalised weights `w_k` of this datum's particles.
    * sleep-phi, for the guide: `-log q(z | x)` at data and latents dreamt by the model.

    No draw is differentiated, so all latents are treated alike, discrete or not. The gradient of wake-phi is that of
    `KL(p(z|x) || q(z|x))` up to a bias of order 1/K; there is no single loss that both gradients belong to. Data,
    minibatches and masks enter as with every other objective; there are as many dreams as rows in the batch, and the
    guide sees of each what the mask shows of its row.

    The guide runs once, so that its draws are scored under what it drew beside its sites, such as the units that
    dropout leaves.

    `wake_phi=1, sleep_phi=0` is wake-wake, `wake_phi=0, sleep_phi=1` wake-sleep with K particles for the model,
    one half each the reweighted wake-sleep of the paper.

    Parameters
    ----------
    num_particles : int, default 10
        Draws of the latents per datum, K.
    wake_phi : float, default 0.5
        Weight of wake-phi.
    sleep_phi : float, default 0.5
        Weight of sleep-phi.
    defensive : float, default 0.0
        Probability with which a particle is drawn from the uniform distribution over the values of all latent sites
        instead of the guide; the mixture is the proposal whose weights count. Discrete sites only.
    **options : Any
        Those of `Objective`.

    Raises
    ------
    ValueError
        For negative weights, a probability outside [0, 1), or wake-phi with a single particle, whose weight is 1 and
        whose gradient is noise; when run with `defensive`, for a latent site without finitely many values.

    References
    ----------
    Bornschein and Bengio (2015), Reweighted Wake-Sleep, equations 6 to 9; Le et al. (2020), Revisiting
    Reweighted Wake-Sleep, sections 3 and 5 (delta-wake-wake).

    Examples
    --------
    >>> ReweightedWakeSleep(num_particles=10, wake_phi=1.0, sleep_phi=0.0).num_particles
    10
    """

    def __init__(
        self,
        num_particles: int = 10,
        *,
        wake_phi: float = 0.5,
        sleep_phi: float = 0.5,
        defensive: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(num_particles, **options)
        if min(wake_phi, sleep_phi) < 0 or wake_phi + sleep_phi == 0:
            raise ValueError(f"wake_phi and sleep_phi are weights, not both 0; got {wake_phi} and {sleep_phi}")
        if wake_phi and num_particles < 2:
            raise ValueError(
                f"wake-phi weighs particles against each other; num_particles is {num_particles}, take 2 or more, or "
                "wake_phi=0"
            )
        if not 0 <= defensive < 1:
            raise ValueError(f"defensive is a probability below 1, got {defensive}")
        self.wake_phi, self.sleep_phi, self.defensive = wake_phi, sleep_phi, defensive
        self._dreamt_before: Any = None  # the pair whose dreams are known to be like its data

    @property
    def takes_shared(self) -> bool:
        """No: a guide learns from weights of each datum, and latents of all data have none."""
        return False

    def bound(self, pair: Pair) -> Tensor:
        """The importance-weighted bound of each datum, with the gradients of both losses."""
        model, guide = self._terms(pair)
        return model + guide - guide.detach()

    def losses(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> WakeSleepLosses:
        """Both losses, without gradients."""
        with torch.no_grad():
            pair = self._pair(model, guide, args, kwargs)
            terms = self._terms(pair)
            return WakeSleepLosses(*(-(pair.scale * term).sum().item() for term in terms))

    def _terms(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """What model and guide maximise, `[B]` each."""
        weights = pair.over_particles(self._wake(pair))
        scale = pair.scale
        guide = torch.zeros_like(weights.log_p[0])
        if self.wake_phi:
            importance = functional.normalized(weights.log_weight)
            guide = guide + self.wake_phi * (importance * weights.log_score).sum(0)
        if self.sleep_phi:
            guide = guide + self.sleep_phi * functional.sleep_phi(self._dream(pair).log_score)
        pair.scorer.scale = scale
        return functional.wake_theta(weights.log_p, weights.log_q), guide

    def _wake(self, pair: Pair) -> Any:
        """A run that draws particles and scores them: the proposal's density in `log_q`, the guide's in `log_score`.

        A KL weight belongs to the weights of particles, of which `log_q` is a part, and not to what the guide learns.
        """

        def run(model: Program, guide: Program, score: Score) -> LogWeights:
            # One run: what else it draws, such as the units that dropout leaves, belongs to its draws.
            with DetachedDraws(self.defensive, pair.scorer.layout.plates):
                drawn = pair.trace(guide)
            weights = score(*trace_pair(model, guide, pair.args, pair.kwargs, drawn=drawn))
            whole = pair.scorer.log_q
            if not self.defensive:
                return weights._replace(log_score=whole)
            uniform = whole.new_full((), _uniform_log_prob(drawn))
            mixture = torch.logaddexp(math.log1p(-self.defensive) + whole, math.log(self.defensive) + uniform)
            return weights._replace(log_q=pair.scorer.latent_weight * mixture, log_score=whole)

        return run

    def _dream(self, pair: Pair) -> LogWeights:
        """Log weights of latents and data dreamt by the model, with the guide's density of them in `log_score`."""
        summed = pair.scorer.layout.enumerated
        if summed:
            raise ValueError(f"the sleep phase cannot dream latents that are summed out, {summed}; use sleep_phi=0")
        with torch.no_grad():
            dream = pair.trace(unconditioned(pair.model))
        data = pair.data
        names = [name for name, site in latent_sites(dream).items() if site["infer"].get("was_observed")]
        factors = [name for name, site in sample_sites(dream).items() if is_factor(site)]
        if factors:
            raise ValueError(
                f"the sleep phase dreams from the model, whose factor {factors[0]!r} is no draw; use sleep_phi=0"
            )
        if len(names) != 1:
            raise ValueError(f"the sleep phase dreams one data site, and the model observes {names}; use sleep_phi=0")
        plates = pair.scorer.layout.plates
        if self._dreamt_before is not self._found:
            modules = owned_modules(pair.guide).values()
            if any(isinstance(part, RowTable) for module in modules for part in module.modules()):
                raise ValueError(
                    "the sleep phase teaches the guide at dreamt data, and a guide with parameters of its own for each "
                    "row would give them to the wrong rows; use objective='wake-wake', or sleep_phi=0"
                )
            with trial(pair.model, pair.guide):
                traced = trace_pair(pair.model, pair.guide, pair.args, pair.kwargs).model
                in_order = data_in_order(pair.model, traced, pair.args, pair.kwargs, plates)
            if names[0] not in in_order:
                raise ValueError(
                    f"the sleep phase hands dreams of site {names[0]!r} to the guide as data, and the value of this "
                    "site is the data in another layout or unit; observe the data as they are, or use sleep_phi=0"
                )
            self._dreamt_before = self._found
        site = nodes_of(dream)[names[0]]
        x = rows_first(site["value"], site, plates).reshape(data.shape).to(data.dtype)
        scorer = Scorer(pair.scorer.layout, weighted=True)
        dreamt = Pair(pair.model, pair.guide, (x, *pair.args[1:]), pair.kwargs, 1, None, scorer)
        latent = dream.copy()
        latent.remove_node(names[0])

        def run(model: Program, guide: Program, score: Score) -> LogWeights:
            guide_trace = dreamt.trace(poutine.replay(guide, trace=latent))
            for name, site in latent_sites(guide_trace).items():
                if is_point(site):
                    raise ValueError(
                        f"the sleep phase scores dreams under the guide, and site {name!r} of the guide is a Delta; "
                        "draw it from a distribution with a density, or use sleep_phi=0"
                    )
            with torch.no_grad():
                model_trace = dreamt.trace(poutine.replay(model, trace=latent))
            return score(model_trace, guide_trace)._replace(log_score=dreamt.scorer.log_q)

        return dreamt.over_particles(run)


def WakeSleep(num_particles: int = 1, **options: Any) -> ReweightedWakeSleep:
    """The wake-sleep algorithm: one particle for the model, dreams for the guide.

    References
    ----------
    Hinton, Dayan, Frey and Neal (1995), The Wake-Sleep Algorithm for Unsupervised Neural Networks.
    """
    return ReweightedWakeSleep(num_particles, wake_phi=0.0, sleep_phi=1.0, **options)


class DetachedDraws(Messenger):
    """Make constants of the draws of latent sites; with some probability a particle's are uniform instead.

    Parameters
    ----------
    defensive : float, default 0.0
        That probability; all latents of a datum are replaced together.
    plates : collection of str
        The names of the plates over the data.

    Raises
    ------
    ValueError
        If draws are to be replaced and a latent has several rows per datum, or a mask of its own.
    """

    def __init__(self, defensive: float = 0.0, plates: Collection[str] = ()) -> None:
        super().__init__()
        self.defensive, self.plates = defensive, plates
        self.chosen: Tensor | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or not isinstance(msg["value"], Tensor) or site_is_subsample(msg):
            return
        value = msg["value"]
        detached: Any = value.detach()
        if hasattr(value, "_unquantize"):  # what a straight-through draw is scored by
            detached._unquantize = value._unquantize.detach()
        msg["value"] = detached
        if self.defensive and not is_deterministic(msg):
            self._check(msg)
            if self.chosen is None:
                self.chosen = torch.rand(msg["fn"].batch_shape, device=msg["value"].device) < self.defensive
            pick = self.chosen.reshape(self.chosen.shape + (1,) * msg["fn"].event_dim)
            msg["value"] = torch.where(pick, _uniform_draw(msg["name"], msg), msg["value"])

    def _check(self, site: Site) -> None:
        inner = [frame.name for frame in frames_of(site) if frame.name not in self.plates and self.plates]
        if inner or site["mask"] is not None:
            where = f"in the plate {inner[0]!r} within a datum" if inner else "under a mask"
            raise ValueError(
                f"defensive= replaces all latents of a datum together, and site {site['name']!r} lies {where}; write "
                "such a site as one distribution, with to_event, or use defensive=0"
            )


def _values(name: str, site: dict[str, Any]) -> tuple[str, int]:
    """How a site's values look, "index" or "one-hot", and how many each entry has."""
    base = site["fn"]
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if not getattr(base, "has_enumerate_support", False):
        raise ValueError(f"defensive= draws uniformly, and site {name!r} has not finitely many values")
    values = base.enumerate_support(expand=False)
    return ("one-hot" if base.event_dim else "index"), len(values)


def _uniform_draw(name: str, site: dict[str, Any]) -> Tensor:
    kind, count = _values(name, site)
    value = site["value"]
    if kind == "index":
        return torch.randint(count, value.shape, device=value.device).to(value.dtype)
    index = torch.randint(count, value.shape[:-1], device=value.device)
    return F.one_hot(index, count).to(value.dtype)


def _uniform_log_prob(trace: Trace) -> float:
    """The log-probability of any value of a datum's latents under the uniform distribution."""
    total = 0.0
    for name, site in latent_sites(trace).items():
        kind, count = _values(name, site)
        entries = site["fn"].event_shape.numel() // (count if kind == "one-hot" else 1)
        total -= entries * math.log(count)
    return total
