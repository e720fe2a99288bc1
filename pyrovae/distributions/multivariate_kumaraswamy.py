"""Stick-breaking with Kumaraswamy fractions in random order: an approximate Dirichlet without a bias from the order."""

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape
from pyrovae.distributions.kumaraswamy import Kumaraswamy
from pyrovae.distributions.stick_breaking import StickBreaking
from pyrovae.distributions.transforms import log_stick_weights

MAX_EXACT_SIZE = 14


class MultivariateKumaraswamy(CheckedDistribution):
    r"""Stick-breaking on the K-simplex whose sticks are broken in uniformly random order (MV-Kumaraswamy).

    Use it as a reparameterised stand-in for a Dirichlet, for example over unordered classes.

    Parameters
    ----------
    concentration : Tensor, shape ``[..., K]``
        The concentrations alpha, positive, with K at least 2. `batch_shape` is ``[...]`` and `event_shape` is ``[K]``.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        A concentration is not positive, `concentration` has no last dimension of size 2 or more, or a value is off the
        simplex.

    Notes
    -----
    Given an order o, the fractions are

    .. math::
        v_i \sim \mathrm{Kumaraswamy}\Big(\alpha_{o_i}, \sum_{j>i} \alpha_{o_j}\Big), \qquad
        x_{o_i} = v_i \prod_{j<i} (1 - v_j), \qquad p(x) = \frac{1}{K!} \sum_o p(x \mid o)

    With Beta fractions, every order would give the same Dirichlet(alpha). With Kumaraswamy fractions, each order gives
    another distribution, with a bias towards the components that it takes first. The average over all orders depends on
    alpha and not on the numbers of the components. It is exchangeable when all alpha are equal.

    `log_prob` is exactly the density of that average. The sum over K! orders is computed as a sum over the 2^K sets of
    components that can be left. It costs about K 2^(K-1) fractions. It is offered up to K = 14, and so are `mean` and
    `variance`, which are exact too. Draws have no such limit. They follow exactly this distribution, and their path
    gradient is unbiased.

    Two uses are biased. `log_prob_given_order` with the order of a draw is not the density of that draw. The average
    divergence of single orders is an upper bound (`kl_multivariate_kumaraswamy_dirichlet_bound`).

    References
    ----------
    A. Stirn, T. Jebara and D. A. Knowles (2019), "A new distribution on the simplex with auto-encoding applications",
    arXiv:1905.12052.

    Examples
    --------
    >>> classes = MultivariateKumaraswamy(torch.tensor([0.5, 0.5, 0.5]))
    >>> x = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2]])
    >>> classes.log_prob(x)  # exchangeable
    tensor([0.3100, 0.3100])
    >>> classes.mean
    tensor([0.3333, 0.3333, 0.3333])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "concentration": constraints.independent(constraints.positive, 1)
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, *, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1 or concentration.shape[-1] < 2:
            raise ValueError(
                "MultivariateKumaraswamy: `concentration` must have shape [..., K] with K at least 2, "
                f"got {tuple(concentration.shape)}."
            )
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "MultivariateKumaraswamy":
        """The same distribution with `batch_shape`."""
        return self._expand_as(MultivariateKumaraswamy, batch_shape, _instance)

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws, shape ``[*sample_shape, *batch_shape, K]``. Every draw has an order of its own."""
        return torch.exp(self.rsample_log_weights(sample_shape))

    def rsample_log_weights(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Logarithms of reparameterised draws, all finite, shape ``[*sample_shape, *batch_shape, K]``."""
        shape = self._extended_shape(sample_shape)
        order = torch.rand(shape, device=self.concentration.device).argsort(-1)
        log_weights = log_stick_weights(*_fractions(self.concentration.expand(shape).gather(-1, order)).rsample_log())
        return log_weights.gather(-1, order.argsort(-1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density of the first K - 1 components, averaged over all orders.

        Parameters
        ----------
        value : Tensor, shape ``[..., K]``
            Points of the simplex. A zero counts as the smallest normal number.

        Returns
        -------
        Tensor
            Log density in nats, shape ``[...]`` broadcast with `batch_shape`.

        Raises
        ------
        ValueError
            There are more than 14 components.
        """
        if self._validate_args:
            self._validate_sample(value)
        log_x = torch.log(value.clamp(min=torch.finfo(value.dtype).tiny))
        alpha, log_x = torch.broadcast_tensors(self.concentration, log_x)
        # For every set of components still to be broken: its total concentration, the logarithm of what is left of
        # the stick, and the log density of breaking it, averaged over the orders of the set.
        total, log_left, score = alpha, log_x, torch.zeros_like(log_x)
        for members, rest in break_sets(self.event_shape[0], value.device):
            first, log_first = alpha[..., members], log_x[..., members]
            log_stick = torch.logsumexp(log_first, -1)
            fraction = Kumaraswamy(first, total[..., rest], validate_args=False)
            log_whole = log_stick.unsqueeze(-1)
            scores = fraction.log_prob_from_logs(log_first - log_whole, log_left[..., rest] - log_whole)
            scores = scores - log_whole + score[..., rest]
            total, log_left = first.sum(-1), log_stick
            score = torch.logsumexp(scores, -1) - math.log(members.shape[-1])
        return score.squeeze(-1)

    def log_prob_given_order(self, value: Tensor, order: Tensor) -> Tensor:
        """Compute the log density of plain stick-breaking in a given order, for any K.

        Parameters
        ----------
        value : Tensor, shape ``[..., K]``
            Points of the simplex.
        order : Tensor of int64, shape ``[..., K]``
            A permutation of 0 to K - 1 along the last dimension.

        Returns
        -------
        Tensor
            Log density of the first K - 1 weights in the given order, in nats, shape ``[...]``.
        """
        alpha, value, order = torch.broadcast_tensors(self.concentration, value, order)
        sticks = StickBreaking(_fractions(alpha.gather(-1, order)), validate_args=False)
        return sticks.log_prob(value.gather(-1, order))

    @property
    def mean(self) -> Tensor:
        """Exact mean, shape ``[*batch_shape, K]``, for 14 components at most.

        It is near alpha over its sum, but not equal to it.
        """
        return self._moment(lambda fraction: (fraction.mean, 1 - fraction.mean))

    @property
    def variance(self) -> Tensor:
        """Exact variance of each component, shape ``[*batch_shape, K]``, for 14 components at most."""
        second = self._moment(
            lambda fraction: (
                fraction.variance + fraction.mean.square(),
                fraction.variance + (1 - fraction.mean).square(),
            )
        )
        return second - self.mean.square()

    def _moment(self, share_and_left: Callable[[Kumaraswamy], tuple[Tensor, Tensor]]) -> Tensor:
        """A moment of every component, from that moment of v and of 1 - v for the fraction broken first."""
        alpha, size = self.concentration, self.event_shape[0]
        total, moment = alpha, torch.eye(size, dtype=alpha.dtype, device=alpha.device)
        for members, rest in break_sets(size, alpha.device):
            share, left = share_and_left(Kumaraswamy(alpha[..., members], total[..., rest], validate_args=False))
            hit = (members.unsqueeze(-1) == torch.arange(size, device=alpha.device)).to(alpha.dtype)
            moment = (hit * share[..., None] + left[..., None] * moment[..., rest, :]).mean(-2)
            total = alpha[..., members].sum(-1)
        return moment.squeeze(-2)


def _fractions(concentration: Tensor) -> Kumaraswamy:
    """The fractions of stick-breaking in the order in which `concentration` ``[..., K]`` stands."""
    later = concentration.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    return Kumaraswamy(concentration[..., :-1], later, validate_args=False)


def break_sets(size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """List, for sets of 2, 3, ..., `size` components, which component can be broken off and which set is then left.

    Parameters
    ----------
    size : int
        Number of components, 14 at most.
    device : torch.device
        Device of the indices.

    Yields
    ------
    members : Tensor of int64, shape ``[sets, n]``
        The components of each set of n. The sets are in the order of `itertools.combinations`.
    rest : Tensor of int64, shape ``[sets, n]``
        The position of the set without that component among the sets of n - 1.

    Raises
    ------
    ValueError
        `size` is above 14. The sets then no longer fit a reasonable memory.
    """
    if size > MAX_EXACT_SIZE:
        raise ValueError(
            f"Averaging over all orders is offered up to {MAX_EXACT_SIZE} components, got {size}; "
            "use `log_prob_given_order` with a fixed order, or `StickBreaking`."
        )
    # Sets are looked up by their bit mask. Nothing is cached: a tensor made while tracing would outlive the trace.
    place = torch.zeros(2**size, dtype=torch.long, device=device)
    masks = 2 ** torch.arange(size, device=device)
    for count in range(2, size + 1):
        place = place.scatter(0, masks, torch.arange(masks.shape[0], device=device))
        members = torch.tensor(list(combinations(range(size), count)), device=device)
        masks = (2**members).sum(-1)
        yield members, place[masks.unsqueeze(-1) - 2**members]
