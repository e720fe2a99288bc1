"""Variational autoencoders as Pyro model and guide pairs."""

from pyrovae._version import __version__

__all__ = ["__version__"]
