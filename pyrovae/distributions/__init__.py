"""Distributions for `pyro.sample`, registered with torch.distributions and right in the tails."""

from pyrovae.distributions.dependent_normal import DependentNormal
from pyrovae.distributions.discretized_logistic import DiscretizedLogistic
from pyrovae.distributions.exponential_family import NaturalExponentialFamily
from pyrovae.distributions.fractions import Fractions
from pyrovae.distributions.gaussian_mixture import DiagonalGaussianMixture
from pyrovae.distributions.kl import kl_kumaraswamy_beta_taylor, kl_multivariate_kumaraswamy_dirichlet_bound
from pyrovae.distributions.kumaraswamy import Kumaraswamy
from pyrovae.distributions.multivariate_kumaraswamy import MultivariateKumaraswamy
from pyrovae.distributions.natural_categorical import NaturalBernoulli, NaturalCategorical
from pyrovae.distributions.natural_counts import NaturalGeometric, NaturalPoisson
from pyrovae.distributions.natural_gamma import NaturalExponential, NaturalGamma
from pyrovae.distributions.natural_negative_binomial import NaturalNegativeBinomial
from pyrovae.distributions.natural_normal import NaturalLogNormal, NaturalNormal
from pyrovae.distributions.natural_simplex import NaturalBeta, NaturalDirichlet
from pyrovae.distributions.ordinal import OrderedLogits
from pyrovae.distributions.relaxed import (
    RelaxedBernoulliLogits,
    RelaxedOneHotLogProbs,
    straight_through_bernoulli,
    straight_through_one_hot,
)
from pyrovae.distributions.stick_breaking import GEM, StickBreaking
from pyrovae.distributions.sticks import Beta, GammaComposition, LogitNormal
from pyrovae.distributions.transforms import StickBreakingTransform

__all__ = [
    "GEM",
    "Beta",
    "DependentNormal",
    "DiagonalGaussianMixture",
    "DiscretizedLogistic",
    "Fractions",
    "GammaComposition",
    "Kumaraswamy",
    "LogitNormal",
    "MultivariateKumaraswamy",
    "NaturalBernoulli",
    "NaturalBeta",
    "NaturalCategorical",
    "NaturalDirichlet",
    "NaturalExponential",
    "NaturalExponentialFamily",
    "NaturalGamma",
    "NaturalGeometric",
    "NaturalLogNormal",
    "NaturalNegativeBinomial",
    "NaturalNormal",
    "NaturalPoisson",
    "OrderedLogits",
    "RelaxedBernoulliLogits",
    "RelaxedOneHotLogProbs",
    "StickBreaking",
    "StickBreakingTransform",
    "kl_kumaraswamy_beta_taylor",
    "kl_multivariate_kumaraswamy_dirichlet_bound",
    "straight_through_bernoulli",
    "straight_through_one_hot",
]
