"""Pictures of a VAE: every function returns a matplotlib Figure of its own and leaves pyplot's state alone."""

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
