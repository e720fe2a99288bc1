"""Variational autoencoders as Pyro model and guide pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrovae._version import __version__

if TYPE_CHECKING:
    from pyrovae.vae import VAE

__all__ = ["VAE", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `VAE` when it is asked for, so that the command line is there before torch is."""
    if name == "VAE":
        from pyrovae.vae import VAE

        return VAE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
