"""Distributions for `pyro.sample`, registered with torch.distributions and right in the tails."""

from pyrovae.distributions.discretized_logistic import DiscretizedLogistic

__all__ = [
    "DiscretizedLogistic",
]
