"""Likelihoods: modules whose forward turns raw decoder outputs into p(x|z)."""

from pyrovae.likelihoods.base import Likelihood, likelihood_of, point_estimate, squared_error
from pyrovae.likelihoods.images import BernoulliLikelihood, DiscretizedLogisticLikelihood, NormalLikelihood

__all__ = [
    "BernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "Likelihood",
    "NormalLikelihood",
    "likelihood_of",
    "point_estimate",
    "squared_error",
]
