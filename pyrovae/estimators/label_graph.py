"""Labels that spread over a graph of neighbours, where the graph is chosen by the labelled rows themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from pyrovae.data import Rows
from pyrovae.nn.neighbours import NeighbourVotes, Projected, Scaled

Array = NDArray[np.float64]
COUNTS = (5, 10)
"""Numbers of neighbours."""
SHARES = (0.5, 0.8, 0.95, 0.99)
"""Shares of its neighbours in the answer of a row: alpha of the reference."""
_DIRECTIONS = 15  # principal components that distances are measured in
_AVERAGED = 0.25  # the best share of all graphs, which are averaged
_DOUBT = 0.02  # probability that is spread over all classes
_MOST = 10_000  # rows of a graph
_LEFT_OUT = 200  # labelled rows that are left out, one at a time, to compare graphs


@dataclass(frozen=True)
class Graph:
    """One graph: features, number of neighbours, share of the neighbours, and whether classes are weighted."""

    features: int
    count: int
    share: float
    balanced: bool


def spread_labels(
    x: Tensor, labels: NDArray[np.int64], num_classes: int, spaces: list[nn.Module], seed: int
) -> tuple[Array, list[NeighbourVotes]]:
    """Spread labels over graphs of neighbours, and average over those that tell labels best that they do not see.

    Parameters
    ----------
    x : Tensor, shape ``[N, D]``
        The rows.
    labels : array of int, shape ``[N]``
        Their classes, -1 where there is no label.
    num_classes : int
        Number of classes.
    spaces : list of Module
        From rows to what distances are measured in.
    seed : int
        Chooses rows where there are more than the graphs take.

    Returns
    -------
    shares : array, shape ``[N, num_classes]``
        Class probabilities of the rows; 1 at known labels.
    voters : list of NeighbourVotes
        They give class probabilities of any row. Their sum is a distribution.

    Notes
    -----
    On a graph with the normalised weights S of neighbours the labels Y become ``(1 - a) (I - a S)^-1 Y`` (Zhou et al.,
    2003, equation 4). A labelled row that is left out changes this by its own entry of the inverse alone, so that every
    graph is scored by the log-probability of left-out labels. "Balanced" answers are weighted so that the classes have
    their shares among the labelled rows (Zhu, Ghahramani and Lafferty, 2003, section 4). The best quarter of the graphs
    is averaged.

    References
    ----------
    D. Zhou, O. Bousquet, T. Lal, J. Weston and B. Schölkopf (2003), "Learning with local and global consistency".
    X. Zhu, Z. Ghahramani and J. Lafferty (2003), "Semi-supervised learning using Gaussian fields and harmonic
    functions".
    """
    taken = _taken(labels, seed)
    rows, known = x[taken], labels[taken]
    labelled = np.flatnonzero(known >= 0)
    left_out = labelled[np.random.default_rng(seed).permutation(len(labelled))[:_LEFT_OUT]]
    one_hot = np.zeros((len(known), num_classes))
    one_hot[labelled, known[labelled]] = 1
    shares_of_classes = (one_hot.sum(0) + 1) / (len(labelled) + num_classes)
    found: list[tuple[float, Graph, Array]] = []
    for number, space in enumerate(spaces):
        with torch.no_grad():
            points = space(rows).double().cpu().numpy()
        for count, weights in _graphs(points):
            units = np.zeros((len(known), len(left_out)))
            units[left_out, np.arange(len(left_out))] = 1
            for share in SHARES:
                solved = _solved(weights, share, np.concatenate([one_hot, units], 1))
                answers, own = solved[:, :num_classes], solved[left_out, num_classes + np.arange(len(left_out))]
                without = answers[left_out] - own[:, None] * one_hot[left_out]
                for balanced in (False, True):
                    scale = shares_of_classes / answers.mean(0).clip(1e-12) if balanced else 1.0
                    told = _normalised(without * scale)[np.arange(len(left_out)), known[left_out]]
                    graph = Graph(number, count, share, balanced)
                    found.append((float(-np.log(told).mean()), graph, _normalised(answers * scale)))
    found.sort(key=lambda entry: entry[0])
    best = found[: max(1, round(_AVERAGED * len(found)))]
    votes: dict[int, dict[int, Array]] = {}
    for _, graph, answers in best:
        by_count = votes.setdefault(graph.features, {})
        by_count[graph.count] = by_count.get(graph.count, 0.0) + answers / len(best)
    voters = [
        NeighbourVotes(spaces[number], rows, {k: torch.as_tensor(v).to(rows) for k, v in by_count.items()})
        for number, by_count in sorted(votes.items())
    ]
    shares = np.zeros((len(labels), num_classes))
    shares[taken] = np.sum([answers for _, _, answers in best], 0) / len(best)
    others = np.setdiff1d(np.arange(len(labels)), taken)
    if len(others):
        with torch.no_grad():
            shares[others] = sum(voter(x[others]) for voter in voters).double().cpu().numpy()
    all_labelled = np.flatnonzero(labels >= 0)
    shares[all_labelled] = np.eye(num_classes)[labels[all_labelled]]
    return shares, voters


def spaces_of(x: Tensor, scale: Array) -> list[nn.Module]:
    """What distances may be measured in: columns, as they were before they were standardised, and main directions.

    Parameters
    ----------
    x : Tensor, shape ``[N, D]``
        Standardised rows.
    scale : array, shape ``[D]``
        Standard deviations of the columns before.
    """
    weights = torch.as_tensor(scale / np.sqrt(np.mean(np.square(scale))), dtype=x.dtype)
    spaces: list[nn.Module] = [nn.Identity(), Scaled(weights)]
    if x.shape[1] > _DIRECTIONS:
        for weight in (torch.ones_like(weights), weights):
            values, vectors = torch.linalg.eigh(torch.cov((x * weight).T.double()))
            main = vectors[:, values.argsort(descending=True)[:_DIRECTIONS]].to(x.dtype)
            spaces.append(Projected(weight[:, None] * main))
    return spaces


def _taken(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The rows that a graph takes: labelled ones first."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order] < 0, kind="stable")]
    return np.sort(order[:_MOST])


def _graphs(points: Array) -> Iterator[tuple[int, sparse.csr_array]]:
    """Normalised weights of neighbours by their number."""
    number = len(points)
    most = min(max(COUNTS), number - 1)
    distance, index = NearestNeighbors(n_neighbors=most).fit(points).kneighbors()  # without the rows themselves
    for count in sorted({min(count, most) for count in COUNTS}):
        far, who = distance[:, :count], index[:, :count]
        radius = far[:, -1].clip(1e-12)
        weights = np.exp(-np.square(far) / (radius[:, None] * radius[who]))
        starts = np.arange(0, weights.size + 1, count)
        graph = sparse.csr_array((weights.ravel(), who.ravel(), starts), shape=(number, number))
        graph = graph.maximum(graph.T)
        root = sparse.diags_array(np.asarray(graph.sum(1)).ravel().clip(1e-12) ** -0.5)
        yield count, sparse.csr_array(root @ graph @ root)


def _solved(weights: sparse.csr_array, share: float, right: Array) -> Array:
    """``(1 - share) (I - share weights)^-1 right`` by conjugate gradients, all columns at once."""
    solution = (1 - share) * right
    residual = solution - (solution - share * (weights @ solution))
    direction, norm = residual.copy(), np.square(residual).sum(0)
    for _ in range(100):
        if norm.max() < 1e-12:
            break
        image = direction - share * (weights @ direction)
        step = norm / (direction * image).sum(0).clip(1e-300)
        solution += step * direction
        residual -= step * image
        new = np.square(residual).sum(0)
        direction = residual + new / norm.clip(1e-300) * direction
        norm = new
    return solution


def _normalised(answers: Array) -> Array:
    """Answers as probabilities; with some doubt, because no graph is certain."""
    answers = answers.clip(0)
    total = answers.sum(1, keepdims=True)
    classes = answers.shape[1]
    return (1 - _DOUBT) * np.where(total > 1e-9, answers / total.clip(1e-12), 1 / classes) + _DOUBT / classes


class DrawnLabels:
    """Gives rows labels that are drawn anew each time, by their index, from class probabilities.

    Parameters
    ----------
    shares : Tensor, shape ``[N, num_classes]``
        The class probabilities of all rows.
    """

    def __init__(self, shares: Tensor) -> None:
        self.shares = shares

    def __call__(self, rows: Rows) -> Rows:
        """The rows of a batch with drawn labels. Rows without an index stay as they are."""
        if rows.index is None:
            return rows
        drawn = torch.multinomial(self.shares[rows.index.cpu()], 1).squeeze(1)
        return rows.replace(y=drawn.to(rows.x.device))
