"""Ready pairs by name: each module puts one family together and registers it."""

from pyrovae.pairs.auto_decoder import auto_decoder
from pyrovae.pairs.discrete import categorical, exact, sbn
from pyrovae.pairs.gaussian import gaussian
from pyrovae.pairs.hierarchical import hierarchical
from pyrovae.pairs.landmarks import landmarks
from pyrovae.pairs.registry import Option, Pair, find_pair, pairs, register_pair
from pyrovae.pairs.semi_supervised import semi_supervised
from pyrovae.pairs.sticks import stick_breaking
from pyrovae.pairs.tables import tabular

__all__ = [
    "Option",
    "Pair",
    "auto_decoder",
    "categorical",
    "exact",
    "find_pair",
    "gaussian",
    "hierarchical",
    "landmarks",
    "pairs",
    "register_pair",
    "sbn",
    "semi_supervised",
    "stick_breaking",
    "tabular",
]
