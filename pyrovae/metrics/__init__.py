"""Held-out figures of a VAE: likelihood, bound, reconstruction, latents, classes, gradient noise."""

from pyrovae.metrics.classification import LatentFeatures, class_probabilities, classification_error
from pyrovae.metrics.evaluation import Evaluated, bits_per_dimension, evaluate
from pyrovae.metrics.figures import Evaluation, known_figures
from pyrovae.metrics.gradients import gradient_variance
from pyrovae.metrics.latents import (
    ActiveUnits,
    active_units,
    knn_error,
    latent_means,
)
from pyrovae.metrics.sticks import stick_weights, sticks_used

__all__ = [
    "ActiveUnits",
    "Evaluated",
    "Evaluation",
    "LatentFeatures",
    "active_units",
    "bits_per_dimension",
    "class_probabilities",
    "classification_error",
    "evaluate",
    "gradient_variance",
    "knn_error",
    "known_figures",
    "latent_means",
    "stick_weights",
    "sticks_used",
]
