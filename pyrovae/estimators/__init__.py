"""Estimators for scikit-learn."""

from pyrovae.estimators.baselines import BASELINES, impute_with
from pyrovae.estimators.classifier import VAEClassifier
from pyrovae.estimators.imputer import VAEImputer
from pyrovae.estimators.pooling import Pooled, pool
from pyrovae.estimators.transformer import VAETransformer

__all__ = ["BASELINES", "Pooled", "VAEClassifier", "VAEImputer", "VAETransformer", "impute_with", "pool"]
