"""Guides of the library's pairs, one family per file."""

if __name__ != "pyrovae.guides":
    raise ImportError("import this package as pyrovae.guides: under its short name every class would exist twice")

from pyrovae.guides.amortized import Amortized
from pyrovae.guides.discrete import AmortizedCategorical, BernoulliLayers
from pyrovae.guides.gaussian import AmortizedGaussian
from pyrovae.guides.gradient import GradientGuide
from pyrovae.guides.hierarchical import HierarchicalGaussian
from pyrovae.guides.per_datum import PerDatum, RowGuide
from pyrovae.guides.semi_supervised import Classifier, LabelledEncoder, SemiSupervisedGuide
from pyrovae.guides.sticks import BetaSticks, ConcentrationPosterior, GammaSticks, KumaraswamySticks, LogitNormalSticks
from pyrovae.guides.tables import TabularGuide

__all__ = [
    "Amortized",
    "AmortizedCategorical",
    "AmortizedGaussian",
    "BernoulliLayers",
    "BetaSticks",
    "Classifier",
    "ConcentrationPosterior",
    "GammaSticks",
    "GradientGuide",
    "HierarchicalGaussian",
    "KumaraswamySticks",
    "LabelledEncoder",
    "LogitNormalSticks",
    "PerDatum",
    "RowGuide",
    "SemiSupervisedGuide",
    "TabularGuide",
]
