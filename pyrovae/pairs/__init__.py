"""Ready pairs: each module puts one family together and registers it."""

from pyrovae.pairs.gaussian import gaussian

__all__ = ["gaussian"]
