"""Guides of the library's pairs, one family per file."""

if __name__ != "pyrovae.guides":
    raise ImportError("import this package as pyrovae.guides: under its short name every class would exist twice")

from pyrovae.guides.discrete import AmortizedCategorical, BernoulliLayers
from pyrovae.guides.gaussian import AmortizedGaussian

__all__ = ["AmortizedCategorical", "AmortizedGaussian", "BernoulliLayers"]
