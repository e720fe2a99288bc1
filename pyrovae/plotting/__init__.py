"""Figures of a VAE. Every function returns a new matplotlib Figure and leaves the state of pyplot as it is."""

from pyrovae.plotting.drawing import gradient_variance
from pyrovae.plotting.latents import METHODS, interpolation, latent_profile, latent_scatter
from pyrovae.plotting.run import reconstructions, run_figures, sample_grid, save_figure, training_curves
from pyrovae.plotting.sticks import decoder_weights, latent_comparison, samples_by_sticks, sticks_by_class

__all__ = [
    "METHODS",
    "decoder_weights",
    "gradient_variance",
    "interpolation",
    "latent_comparison",
    "latent_profile",
    "latent_scatter",
    "reconstructions",
    "run_figures",
    "sample_grid",
    "samples_by_sticks",
    "save_figure",
    "sticks_by_class",
    "training_curves",
]
