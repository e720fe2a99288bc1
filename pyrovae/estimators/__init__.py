"""Estimators for scikit-learn."""

from pyrovae.estimators.classifier import VAEClassifier

__all__ = ["VAEClassifier"]
