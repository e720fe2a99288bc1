"""Ready pairs: each module puts one family together and registers it."""

from pyrovae.pairs.discrete import categorical, sbn
from pyrovae.pairs.gaussian import gaussian
from pyrovae.pairs.hierarchical import hierarchical
from pyrovae.pairs.semi_supervised import semi_supervised
from pyrovae.pairs.sticks import stick_breaking

__all__ = ["categorical", "gaussian", "hierarchical", "sbn", "semi_supervised", "stick_breaking"]
