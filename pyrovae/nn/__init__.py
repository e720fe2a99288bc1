"""Nets: encoders, decoders and heads that flatten leading dimensions, so that particles vectorise through them."""

from pyrovae.nn.coders import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, GaussianHead, GaussianLayer
from pyrovae.nn.mlp import MLP, Gated, Residual, TiedMLP

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "DenseDecoder",
    "DenseEncoder",
    "Gated",
    "GaussianHead",
    "GaussianLayer",
    "Residual",
    "TiedMLP",
]
