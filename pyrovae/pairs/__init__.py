"""Ready pairs: each module puts one family together and registers it."""

from pyrovae.pairs.discrete import categorical, sbn
from pyrovae.pairs.gaussian import gaussian

__all__ = ["categorical", "gaussian", "sbn"]
