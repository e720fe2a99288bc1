"""Figures of a VAE. Every function returns a new matplotlib Figure and leaves the state of pyplot as it is."""

from pyrovae.plotting.curves import compared_curves, training_curves
from pyrovae.plotting.drawing import class_confusion, gradient_variance
from pyrovae.plotting.gaps import inference_gaps
from pyrovae.plotting.latents import METHODS, interpolation, latent_profile, latent_scatter
from pyrovae.plotting.missing import inpainting, missing_errors
from pyrovae.plotting.run import SAMPLES, reconstructions, run_figures, sample_grid, save_figure
from pyrovae.plotting.sticks import decoder_weights, latent_comparison, samples_by_sticks, sticks_by_class
from pyrovae.plotting.tables import (
    associations,
    errors_by_column,
    imputed_against_true,
    interval_calibration,
    marginals,
)

__all__ = [
    "METHODS",
    "SAMPLES",
    "associations",
    "class_confusion",
    "compared_curves",
    "decoder_weights",
    "errors_by_column",
    "gradient_variance",
    "imputed_against_true",
    "inference_gaps",
    "inpainting",
    "interpolation",
    "interval_calibration",
    "latent_comparison",
    "latent_profile",
    "latent_scatter",
    "marginals",
    "missing_errors",
    "reconstructions",
    "run_figures",
    "sample_grid",
    "samples_by_sticks",
    "save_figure",
    "sticks_by_class",
    "training_curves",
]
