"""Models of the library's pairs, one family per file."""

if __name__ != "pyrovae.models":
    raise ImportError("import this package as pyrovae.models: under its short name every class would exist twice")

from pyrovae.models.gaussian import GaussianVAE

__all__ = ["GaussianVAE"]
