"""Class probabilities by the votes of neighbours, for rows whose neighbours have labels or shares of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_AT_ONCE = 1 << 22
"""Distances that are held at once."""


class Scaled(nn.Module):
    """Columns times weights, ``[B, D]`` -> ``[B, D]``.

    Parameters
    ----------
    weights : Tensor, shape ``[D]``
        The weights. They are not learned.
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the products."""
        return x * self.weights


class Projected(nn.Module):
    """Rows on fixed directions, ``[B, D]`` -> ``[B, E]``.

    Parameters
    ----------
    directions : Tensor, shape ``[D, E]``
        The directions. They are not learned.
    """

    directions: Tensor

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.register_buffer("directions", directions)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the projections."""
        return x @ self.directions


class NeighbourVotes(nn.Module):
    """Class probabilities of a row: the mean of those of its nearest known rows, the nearer the heavier.

    Parameters
    ----------
    features : Module
        From data ``[B, D]`` to what distances are measured in, ``[B, E]``.
    rows : Tensor, shape ``[N, D]``
        The known rows.
    votes : mapping of int to Tensor, shape ``[N, num_classes]``
        By the number k of neighbours, the class probabilities of the known rows, times the weight of this k. All of
        them sum to 1.

    Notes
    -----
    The weight of neighbour i at distance d is ``exp(-d^2 / (r r_i))`` with the distances r and r_i of the k-th
    neighbours of both (Zelnik-Manor and Perona, 2004, "Self-tuning spectral clustering").

    Examples
    --------
    >>> rows = torch.tensor([[0.0], [1.0], [5.0], [6.0]])
    >>> votes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> NeighbourVotes(nn.Identity(), rows, {2: votes})(torch.tensor([[0.4]]))
    tensor([[1., 0.]])
    """

    points: Tensor
    radii: Tensor
    votes: Tensor

    def __init__(self, features: nn.Module, rows: Tensor, votes: dict[int, Tensor]) -> None:
        super().__init__()
        self.features = features
        self.counts = sorted(votes)
        with torch.no_grad():
            self.register_buffer("points", features(rows))
            nearest, _ = self._nearest(self.points, 1 + self.counts[-1])  # the first is the row itself
        self.register_buffer("radii", torch.stack([nearest[:, min(k, nearest.shape[1] - 1)] for k in self.counts]))
        self.register_buffer("votes", torch.stack([votes[k] for k in self.counts]))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the probabilities ``[B, num_classes]`` of rows ``[B, D]``."""
        distance, index = self._nearest(self.features(x), self.counts[-1])
        total = torch.zeros(len(x), self.votes.shape[-1], dtype=distance.dtype, device=x.device)
        for k, radii, votes in zip(self.counts, self.radii, self.votes, strict=True):
            far, who = distance[:, :k], index[:, :k]
            weight = -far.square() / (far[:, -1:] * radii[who]).clamp(min=1e-30)
            total = total + (weight.softmax(-1).unsqueeze(-1) * votes[who]).sum(-2)
        return total

    def _nearest(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        found = []
        for part in points.split(max(1, _AT_ONCE // len(self.points))):
            # Not by products of matrices, which round otherwise for other numbers of rows.
            distance = torch.cdist(part, self.points, compute_mode="donot_use_mm_for_euclid_dist")
            found.append(distance.topk(min(count, len(self.points)), largest=False))
        distances, index = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(index)


class VotingClassifier(nn.Module):
    """Class logits by a net and by neighbours: the logarithm of the mean of their probabilities.

    Use it as the classifier of a trained `SemiSupervisedGuide`, in place of its net.

    Parameters
    ----------
    net : Module
        From data to logits ``[B, num_classes]``.
    voters : sequence of sequences of Module
        Each inner one has modules whose class probabilities ``[B, num_classes]`` sum to a distribution, such as
        `NeighbourVotes` in several spaces.
    """

    def __init__(self, net: nn.Module, voters: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.net = net
        self.voters = nn.ModuleList(nn.ModuleList(parts) for parts in voters)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits ``[B, num_classes]`` of complete rows ``[B, D]``."""
        by_neighbours = [torch.stack([part(x) for part in parts]).sum(0) for parts in self.children_of_voters()]
        return torch.stack([self.net(x).softmax(-1), *by_neighbours]).mean(0).log()

    def children_of_voters(self) -> list[list[nn.Module]]:
        """The modules of the voters."""
        return [list(parts.children()) for parts in self.voters]
