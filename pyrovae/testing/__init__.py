"""Oracles for distributions, to run on one's own: mass, fit of the draws, moments, KL, cdf and gradients.

Every function compares two things that a distribution says about itself through different code: its density with
a quadrature, its draws with its density, its `mean` with its draws, a registered KL with an integral, a gradient
with finite differences. A disagreement raises `AssertionError` naming the worst entry of the batch; agreement returns
the figures. Work in float64 where possible: the quadrature resolves no more than the distribution's own dtype does.

Quadrature: the support is mapped to the real line with `torch.distributions.biject_to`, and the trapezoidal rule is
applied after a further sinh stretch around the median of a few draws, which converges exponentially for smooth
densities with light or heavy tails (Takahasi and Mori, 1974). Mass closer to an end of the support than the dtype can
represent (a Beta with concentrations far below 0.1) cannot be seen by any rule that evaluates a density at a value.
"""

from pyrovae.testing.checks import (
    Comparison,
    check_cdf,
    check_entropy,
    check_goodness_of_fit,
    check_gradient,
    check_kl,
    check_moments,
    check_normalisation,
)
from pyrovae.testing.goodness_of_fit import GoodnessOfFit
from pyrovae.testing.quadrature import Integral, integrate

__all__ = [
    "Comparison",
    "GoodnessOfFit",
    "Integral",
    "check_cdf",
    "check_entropy",
    "check_goodness_of_fit",
    "check_gradient",
    "check_kl",
    "check_moments",
    "check_normalisation",
    "integrate",
]
