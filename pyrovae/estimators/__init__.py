"""Estimators for scikit-learn."""

from pyrovae.estimators.classifier import VAEClassifier
from pyrovae.estimators.imputer import VAEImputer

__all__ = ["VAEClassifier", "VAEImputer"]
