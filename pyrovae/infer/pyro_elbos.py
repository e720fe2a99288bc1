"""The estimators of Pyro's own objectives, written without reading a number out of a tensor, so that they compile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.infer.tracegraph_elbo import _construct_baseline
from pyro.infer.util import Dice, MultiFrameTensor, get_plate_stacks
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.provenance import get_provenance
from pyro.ops.rings import MarginalRing
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.infer.mean_field import MeanField
from pyrovae.programs import Program, trial
from pyrovae.sites import latent_sites, nodes_of

Influence = dict[str, dict[str, tuple[str, ...]]]
"""For the sites of "model" and of "guide": the draws, not reparameterised, that their log-probability is reached by."""


class PyroLoss:
    """The loss of an objective of Pyro as a tensor: its value, with the gradient of the estimator.

    Traces, draws and the order of both are those of Pyro, so that value and gradient are the ones of `loss_and_grads`
    from the same state of the generators. The estimators are those of `Trace_ELBO` (score function, Rao-Blackwellised
    by plates), `TraceMeanField_ELBO` and `MeanField` (divergences in closed form), `TraceGraph_ELBO` (each score weighs
    the costs downstream of it, less a baseline) and `TraceEnum_ELBO` (discrete sites summed out).

    Which costs are downstream of a draw is found out in `look`, with a run of the pair, because Pyro learns it from
    tensors of a class of its own, which cannot be recorded.

    Parameters
    ----------
    objective : ELBO
        One for which `is_known` holds.

    Attributes
    ----------
    module : None
        What the objective itself learns, which is nothing.
    """

    module = None

    def __init__(self, objective: ELBO) -> None:
        self.objective: Any = objective  # `ELBO` does not declare what all of its subclasses have
        self._influence: Influence = {}

    @staticmethod
    def is_known(objective: Any) -> bool:
        """Whether it is exactly one of these classes. What a subclass estimates, nobody knows."""
        return type(objective) in _ESTIMATORS

    def look(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> None:
        """Learn the structure of a pair, before its loss is recorded.

        Raises
        ------
        ValueError
            As the objective does; and for a decaying-average baseline, which Pyro keeps in its parameter store.
        """
        self.objective.loss(model, guide, *args, **kwargs)
        if not isinstance(self.objective, TraceGraph_ELBO):
            return
        with trial(model, guide):
            self._influence = {"model": {}, "guide": {}}
            for traces in self.objective._get_traces(model, guide, args, kwargs):
                for label, trace in zip(("model", "guide"), traces, strict=True):
                    self._influence[label] |= {name: _reached_by(site) for name, site in _samples(trace)}
                for name, site in latent_sites(traces[1]).items():
                    if site["infer"].get("baseline", {}).get("use_decaying_avg_baseline"):
                        raise ValueError(
                            f"the decaying-average baseline of site {name!r} stands in Pyro's parameter store, where "
                            "compiled code does not reach it; take nn_baseline or baseline_value, or train without "
                            "compilation"
                        )

    def training_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss of a step, in nats, whose gradient is that of the estimator."""
        objective = self.objective
        runner: ELBO = objective
        if isinstance(objective, TraceGraph_ELBO):  # whose own traces hold tensors of a class of its own
            runner = Trace_ELBO(objective.num_particles, vectorize_particles=objective.vectorize_particles)
            runner.max_plate_nesting = objective.max_plate_nesting
        estimate = _ESTIMATORS[type(objective)]
        loss: Any = 0.0
        surrogate: Any = 0.0
        for of_model, of_guide in runner._get_traces(model, guide, args, kwargs):
            value, differentiated = estimate(of_model, of_guide, self._influence)
            loss = loss - value / objective.num_particles
            surrogate = surrogate - differentiated / objective.num_particles
        return loss.detach() + (surrogate - surrogate.detach())


def _samples(trace: Trace) -> Iterator[tuple[str, Any]]:
    return ((name, site) for name, site in nodes_of(trace).items() if site["type"] == "sample")


def _reached_by(site: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(get_provenance(site["log_prob_sum"])))


def _value(of_model: Trace, of_guide: Trace) -> Any:
    value: Any = 0.0
    for _, site in _samples(of_model):
        value = value + site["log_prob_sum"]
    for _, site in _samples(of_guide):
        value = value - site["log_prob_sum"]
    return value


def _paths(of_model: Trace, of_guide: Trace) -> Any:
    """What is differentiated along the draws: all of the model, and of the guide what Pyro calls its entropy terms."""
    surrogate: Any = 0.0
    for _, site in _samples(of_model):
        surrogate = surrogate + site["log_prob_sum"]
    for _, site in _samples(of_guide):
        entropy = site["score_parts"].entropy_term
        if not is_identically_zero(entropy):
            surrogate = surrogate - entropy.sum()
    return surrogate


def _elbo(of_model: Trace, of_guide: Trace, influence: Influence) -> tuple[Any, Any]:
    surrogate = _paths(of_model, of_guide)
    weight = None
    for _, site in _samples(of_guide):
        score = site["score_parts"].score_function
        if is_identically_zero(score):
            continue
        if weight is None:
            weight, stacks = MultiFrameTensor(), get_plate_stacks(of_model)
            for name, other in _samples(of_model):
                term = other["log_prob"]
                if not other["is_observed"]:
                    term = term - nodes_of(of_guide)[name]["log_prob"]
                weight.add((stacks[name], term.detach()))
        surrogate = surrogate + (weight.sum_to(site["cond_indep_stack"]) * score).sum()
    return _value(of_model, of_guide), surrogate


def _mean_field(of_model: Trace, of_guide: Trace, influence: Influence) -> tuple[Any, Any]:
    bound: Any = 0.0
    for name, site in _samples(of_model):
        if site["is_observed"]:
            bound = bound + site["log_prob_sum"]
            continue
        other = nodes_of(of_guide)[name]
        try:
            divergence = kl_divergence(other["fn"], site["fn"])
        except NotImplementedError:
            bound = bound + site["log_prob_sum"] - other["score_parts"].entropy_term.sum()
            continue
        divergence = scale_and_mask(divergence, scale=other["scale"], mask=other["mask"])
        if isinstance(divergence, Tensor):
            bound = bound - divergence.sum()
        else:
            bound = bound - divergence * other["fn"].batch_shape.numel()
    for name, site in _samples(of_guide):
        if name not in of_model:
            bound = bound - site["score_parts"].entropy_term.sum()
    return bound, bound


def _graph(of_model: Trace, of_guide: Trace, influence: Influence) -> tuple[Any, Any]:
    surrogate = _paths(of_model, of_guide)
    downstream: dict[str, MultiFrameTensor] = {}
    for label, sign, trace in (("model", 1, of_model), ("guide", -1, of_guide)):
        for name, site in _samples(trace):
            for draw in influence[label][name]:
                costs = downstream.setdefault(draw, MultiFrameTensor())
                costs.add((site["cond_indep_stack"], sign * site["log_prob"]))
    for draw, costs in downstream.items():
        site = nodes_of(of_guide)[draw]
        cost = costs.sum_to(site["cond_indep_stack"])
        has_baseline, fit, baseline = _construct_baseline(draw, site, cost)
        if has_baseline:
            cost, surrogate = cost - baseline, surrogate - fit
        surrogate = surrogate + (site["score_parts"].score_function * cost.detach()).sum()
    return _value(of_model, of_guide), surrogate


def _enum(of_model: Trace, of_guide: Trace, influence: Influence) -> tuple[Any, Any]:
    costs, factors, ordering, summed, scale = _compute_model_factors(of_model, of_guide)
    if factors:
        with shared_intermediates() as cache:
            contracted = contract_tensor_tree(factors, summed, cache=cache)
        for ordinal, terms in contracted.items():
            costs.setdefault(ordinal, []).extend(packed.scale_and_mask(term, scale=scale) for term in terms)
    for name, site in _samples(of_guide):
        costs.setdefault(ordering[name], []).append(packed.neg(site["packed"]["log_prob"]))
    bound = _Dice(of_guide, ordering).compute_expectation(costs)
    return bound, bound


class _Dice(Dice):
    """Pyro's expectation, with impossible values weighed by zero where Pyro's leaves them out after a look at them."""

    def compute_expectation(self, costs: Mapping[frozenset, list[Any]]) -> Any:  # tensors with names of dimensions
        with shared_intermediates() as cache:
            ring, expected = MarginalRing(cache=cache), torch.zeros((), device="cpu")
            for ordinal, terms in costs.items():
                given = self._get_log_factors(ordinal)
                scale = math.exp(sum(factor for factor in given if not isinstance(factor, Tensor)))
                factors: list[Any] = [factor for factor in given if isinstance(factor, Tensor)]
                # The factors that tell the probabilities of the values on which the terms depend, by their dimensions.
                queries: dict[frozenset, Any] = dict.fromkeys(frozenset(term._pyro_dims) for term in terms)
                for factor in factors:
                    if queries.get(frozenset(factor._pyro_dims), False) is None:
                        queries[frozenset(factor._pyro_dims)] = factor
                for term in terms:
                    if queries[frozenset(term._pyro_dims)] is None:
                        query: Any = torch.zeros_like(term)
                        query._pyro_dims = term._pyro_dims
                        factors.append(query)
                        queries[frozenset(term._pyro_dims)] = query
                dims = set().union(*(factor._pyro_dims for factor in factors)) - ordinal
                for query in queries.values():
                    require_backward(query)
                ring.sumproduct(factors, dims)._pyro_backward()
                for term in terms:
                    query = queries[frozenset(term._pyro_dims)]
                    probability = query._pyro_backward_result.exp()
                    probability._pyro_dims = query._pyro_dims
                    cost, probability = packed.broadcast_all(term, probability)
                    possible = torch.where(probability > 0, cost, torch.zeros_like(cost))
                    expected = expected + scale * (probability * possible).sum()
        return expected


_ESTIMATORS = {
    Trace_ELBO: _elbo,
    TraceMeanField_ELBO: _mean_field,
    MeanField: _mean_field,
    TraceGraph_ELBO: _graph,
    TraceEnum_ELBO: _enum,
}
