"""A step of Pyro's ELBO with less work around the programs, for the training without compilation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO, Trace_ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.trace_messenger import TraceMessenger
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from pyro.util import warn_if_nan
from torch import Tensor

from pyrovae.infer.mean_field import MeanField
from pyrovae.infer.pyro_elbos import PyroLoss
from pyrovae.parameters import PairParameters
from pyrovae.programs import Program, with_param_site, without_param_sites
from pyrovae.sites import nodes_of


class Estimator:
    """What adds the gradients of a batch to the parameters of a pair, and gives the loss.

    For `Trace_ELBO` with one particle it is `direct_elbo`; modules of this library show no param sites to it and to
    `MeanField`, because these cost as much as all other handlers together.

    Parameters
    ----------
    objective : ELBO
        The objective.
    pair : PairParameters
        The pair.
    model : callable
        Its model with at least one param site.
    reads : bool, default True
        Give the loss as a number. Otherwise it is a tensor that stays on its device, where the objective allows it, so
        that nobody waits for a GPU.

    Attributes
    ----------
    divides : bool
        Whether the gradients are divided by the number of rows.
    """

    def __init__(self, objective: ELBO, pair: PairParameters, model: Program, *, reads: bool = True) -> None:
        stays = not reads and type(objective) is MeanField and objective.num_particles == 1
        of_pyro: Any = _Staying(objective) if stays else objective
        self.divides = False
        bare, guide = without_param_sites(pair.model), without_param_sites(pair.guide)
        if isinstance(poutine.unwrap(pair.guide), Messenger):
            self.run = partial(of_pyro.loss_and_grads, model, pair.guide)
        elif type(objective) is Trace_ELBO and objective.num_particles == 1 and not objective.vectorize_particles:
            self.run, self.divides = partial(direct_elbo, objective, bare, guide, reads=reads), True
        elif type(objective) is MeanField:
            shown = model if bare is pair.model else with_param_site(bare, pair.parameters())
            self.run = partial(of_pyro.loss_and_grads, shown, guide)
        else:
            self.run = partial(of_pyro.loss_and_grads, model, pair.guide)

    def __call__(self, count: int, *args: Any, **kwargs: Any) -> Any:
        """The loss of `count` rows, summed, with the gradients of its sum or, if it `divides`, of its mean."""
        return self.run(count, *args, **kwargs) if self.divides else self.run(*args, **kwargs)


class _Staying:
    """An objective of Pyro whose losses stay on their device."""

    def __init__(self, objective: ELBO) -> None:
        self.loss = PyroLoss(objective)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, with its gradients added to the parameters."""
        loss = self.loss.training_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.loss.objective.retain_graph)
        return loss.detach()


def direct_elbo(
    objective: Trace_ELBO,
    model: Program,
    guide: Program,
    count: int,
    *args: Any,
    reads: bool = True,
    **kwargs: Any,
) -> Any:
    """The loss of `Trace_ELBO` with one particle, whose gradients are divided by `count` and added to the parameters'.

    Draws, loss and gradients are Pyro's, up to rounding. Where all draws are reparameterised the loss is minus the sum
    of the log-probabilities, and this sum is what is differentiated. Otherwise Pyro's estimate is made of the traces.

    Parameters
    ----------
    objective : Trace_ELBO
        The objective.
    model, guide : callable
        The two programs. Param sites are not needed.
    count : int
        What gradients are divided by, the number of rows for those of the mean.
    *args, **kwargs : Any
        Their arguments.
    reads : bool, default True
        Give a number, and warn if it is NaN; otherwise a tensor if the loss is one.

    Returns
    -------
    float or Tensor
        The loss.

    Examples
    --------
    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)
    >>> loc = torch.zeros((), requires_grad=True)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(loc, 1.0))
    >>> loss = direct_elbo(Trace_ELBO(), model, guide, 2, torch.zeros(2))
    >>> loss > 0, loc.grad is not None
    (True, True)
    """
    with TraceMessenger() as drawn:
        guide(*args, **kwargs)
    with TraceMessenger() as scored, ReplayMessenger(trace=drawn.trace):
        model(*args, **kwargs)
    loss: Any
    if not all(_is_plain(site) for site in _samples(drawn.trace)):
        of_model, of_guide = prune_subsample_sites(scored.trace), prune_subsample_sites(drawn.trace)
        of_model.compute_log_prob()
        of_guide.compute_score_parts()
        loss, surrogate = objective._differentiable_loss_particle(of_model, of_guide)
    else:
        loss = surrogate = sum(map(_log_prob, _samples(drawn.trace))) - sum(map(_log_prob, _samples(scored.trace)))
    if isinstance(surrogate, Tensor) and surrogate.requires_grad:
        surrogate.backward(surrogate.new_full((), 1 / count), retain_graph=objective.retain_graph)
    if not reads and isinstance(loss, Tensor):
        return loss.detach()
    loss = loss.item() if isinstance(loss, Tensor) else loss
    warn_if_nan(loss, "loss")
    return loss


def _samples(trace: Trace) -> list[Mapping[str, Any]]:
    return [site for site in nodes_of(trace).values() if site["type"] == "sample" and not site_is_subsample(site)]


def _log_prob(site: Mapping[str, Any]) -> Any:
    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(value, site["scale"], site["mask"]).sum()


def _is_plain(site: Mapping[str, Any]) -> bool:
    """Whether the log-probability of a site of the guide is differentiated along its draws, and nothing else is."""
    return site["fn"].has_rsample and type(site["fn"]).score_parts is Distribution.score_parts
