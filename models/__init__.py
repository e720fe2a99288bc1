"""Models of the library's pairs, one family per file."""

if __name__ != "pyrovae.models":
    raise ImportError("import this package as pyrovae.models: under its short name every class would exist twice")

from pyrovae.models.discrete import CategoricalVAE, SigmoidBeliefNetwork
from pyrovae.models.gaussian import GaussianVAE
from pyrovae.models.hierarchical import HierarchicalVAE
from pyrovae.models.landmarks import ProjectedShapes
from pyrovae.models.semi_supervised import SemiSupervisedVAE
from pyrovae.models.sticks import StickBreakingVAE
from pyrovae.models.tables import TabularVAE

__all__ = [
    "CategoricalVAE",
    "GaussianVAE",
    "HierarchicalVAE",
    "ProjectedShapes",
    "SemiSupervisedVAE",
    "SigmoidBeliefNetwork",
    "StickBreakingVAE",
    "TabularVAE",
]
