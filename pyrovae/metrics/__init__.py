"""Held-out figures of a VAE: likelihood, bound, reconstruction, latents, classes, gradient noise."""

from pyrovae.metrics.classification import LatentFeatures, class_probabilities, classification_error
from pyrovae.metrics.encodings import encodings
from pyrovae.metrics.evaluation import Evaluated, NonFiniteFigureError, bits_per_dimension, evaluate
from pyrovae.metrics.figures import Evaluation, known_figures
from pyrovae.metrics.gaps import InferenceGap, inference_gap
from pyrovae.metrics.gradients import gradient_variance
from pyrovae.metrics.imputation import (
    ColumnError,
    HIVAEError,
    VAEMError,
    column_errors,
    hivae_error,
    interval_coverage,
    mse,
    vaem_rmse,
)
from pyrovae.metrics.landmarks import procrustes_error
from pyrovae.metrics.latents import (
    ActiveUnits,
    active_units,
    knn_error,
    latent_means,
)
from pyrovae.metrics.missing import MissingError, missing_errors, recover
from pyrovae.metrics.sticks import stick_weights, sticks_used

__all__ = [
    "ActiveUnits",
    "ColumnError",
    "Evaluated",
    "Evaluation",
    "HIVAEError",
    "InferenceGap",
    "LatentFeatures",
    "MissingError",
    "NonFiniteFigureError",
    "VAEMError",
    "active_units",
    "bits_per_dimension",
    "class_probabilities",
    "classification_error",
    "column_errors",
    "encodings",
    "evaluate",
    "gradient_variance",
    "hivae_error",
    "inference_gap",
    "interval_coverage",
    "knn_error",
    "known_figures",
    "latent_means",
    "missing_errors",
    "mse",
    "procrustes_error",
    "recover",
    "stick_weights",
    "sticks_used",
    "vaem_rmse",
]
