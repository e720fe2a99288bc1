"""Variational autoencoders as Pyro model and guide pairs."""

from pyrovae._version import __version__
from pyrovae.vae import VAE

__all__ = ["VAE", "__version__"]
