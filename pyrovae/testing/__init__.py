"""Checks of your own distributions: total mass, fit of the draws, moments, KL, cdf and gradients.

Every function compares two things that a distribution says about itself through different code: its density with a
quadrature, its draws with its density, its `mean` with its draws, a registered KL with an integral, a gradient with
finite differences. If they disagree, it raises `AssertionError` and names the worst entry of the batch. If they agree,
it returns the numbers. Work in float64 where possible, because the quadrature resolves no more than the dtype of the
distribution.

Notes
-----
`torch.distributions.biject_to` maps the support to the real line. After a sinh stretch around the median of a few
draws, the trapezoidal rule is applied. It converges exponentially for smooth densities with light or heavy tails
(Takahasi and Mori, 1974). A rule that evaluates a density at values cannot see mass that is nearer to an end of the
support than the dtype can represent, such as that of a Beta with concentrations far below 0.1.
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
