"""Consistency of a classifier: how much its answer changes within a small distance of a datum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_NEIGHBOUR = 5
_ASKED, _AMONG = 1000, 20_000  # rows whose neighbours are looked for, and rows among which
_FIRST = 0.1  # length of the random step, in units of the radius


def adversarial_divergence(
    classifier: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, radius: Tensor | float
) -> Tensor:
    """Compute the divergence of a classifier's answer from that at the worst place within a radius, for each datum.

    Its minimum makes the answer the same all around a datum, so that classes change where there are no data: virtual
    adversarial training.

    Parameters
    ----------
    classifier : callable
        From data ``[B, ...]`` to class logits ``[B, C]``.
    x : Tensor, shape ``[B, ...]``
        The data.
    logits : Tensor, shape ``[B, C]``
        The classifier's answer at the data. No gradient flows into it.
    radius : Tensor or float
        The distance, the Euclidean norm of a step in `x`.

    Returns
    -------
    Tensor, shape ``[B]``
        KL(q(y|x) || q(y|x + r)) in nats, differentiable in the classifier's parameters.

    Notes
    -----
    The step r has the direction of the gradient of the divergence after a random step of a tenth of the radius: one
    iteration of the power method for the largest curvature. The random numbers are torch's.

    References
    ----------
    T. Miyato, S. Maeda, M. Koyama and S. Ishii (2018), "Virtual adversarial training: a regularization method for
    supervised and semi-supervised learning", equations 5 to 7 and algorithm 1.

    Examples
    --------
    >>> net = torch.nn.Linear(4, 3)
    >>> x = torch.randn(5, 4)
    >>> adversarial_divergence(net, x, net(x), 0.1).shape
    torch.Size([5])
    """
    log_p = logits.detach().log_softmax(-1)
    p = log_p.exp()
    with torch.enable_grad():
        step = (_FIRST * radius * _of_length_one(torch.randn_like(x))).requires_grad_()
        divergence = -(p * classifier(x + step).log_softmax(-1)).sum()
        (gradient,) = torch.autograd.grad(divergence, step)
    moved = x + radius * _of_length_one(gradient)
    return (p * (log_p - classifier(moved).log_softmax(-1))).sum(-1)


def neighbour_distance(x: Tensor) -> float:
    """Measure how far data lie from their neighbours: the median distance to the fifth nearest other datum.

    Parameters
    ----------
    x : Tensor, shape ``[N, ...]``
        The data, without missing entries. At most 20 000, evenly spread, are looked at.

    Returns
    -------
    float
        The median over at most 1000 of the data, without distances of 0. It is 0 where all data are equal.

    Examples
    --------
    >>> neighbour_distance(torch.arange(100.0).unsqueeze(1))
    3.0
    """
    data = x.flatten(1)[:: max(1, -(-len(x) // _AMONG))].double().cpu().numpy()
    if len(data) < 2:
        return 0.0
    from sklearn.neighbors import NearestNeighbors  # which changes the filters of warnings

    search = NearestNeighbors(n_neighbors=min(_NEIGHBOUR + 1, len(data))).fit(data)  # each finds itself first
    distances = search.kneighbors(data[:: -(-len(data) // _ASKED)])[0][:, -1]
    distances = distances[distances > 0]
    return float(np.median(distances)) if len(distances) else 0.0


def _of_length_one(step: Tensor) -> Tensor:
    """Steps divided by their Euclidean norm; those that are 0 remain 0."""
    flat = step.flatten(1)
    return (flat / flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)).reshape(step.shape)
