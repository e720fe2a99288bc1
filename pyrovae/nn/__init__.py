"""Nets: encoders, decoders and heads that flatten leading dimensions, so that particles vectorise through them."""

from pyrovae.nn.decoders import ConvDecoder, DenseDecoder
from pyrovae.nn.encoders import ConvEncoder, DenseEncoder, FlatEncoder, encoded
from pyrovae.nn.heads import CategoricalHead, GaussianHead, GaussianLayer
from pyrovae.nn.mlp import MLP, Gated, Residual, TiedMLP
from pyrovae.nn.projections import ShapeProjector
from pyrovae.nn.row_table import RowTable
from pyrovae.nn.variables import Bits, OneHot, RelaxedBits, RelaxedOneHot

__all__ = [
    "MLP",
    "Bits",
    "CategoricalHead",
    "ConvDecoder",
    "ConvEncoder",
    "DenseDecoder",
    "DenseEncoder",
    "FlatEncoder",
    "Gated",
    "GaussianHead",
    "GaussianLayer",
    "OneHot",
    "RelaxedBits",
    "RelaxedOneHot",
    "Residual",
    "RowTable",
    "ShapeProjector",
    "TiedMLP",
    "encoded",
]
