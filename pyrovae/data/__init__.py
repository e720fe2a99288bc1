"""Data sets: `load` one by name, list what is `available`, or put a `Dataset` together from tensors of your own."""

from pyrovae.data import images, synthetic, table_sets  # noqa: F401  their loaders enter themselves in the registry
from pyrovae.data.dataset import Dataset, DataSpec, Rows, transform_x
from pyrovae.data.download import DataError
from pyrovae.data.loading import load, load_to_evaluate
from pyrovae.data.preprocessing import binarize, dequantize, hide_labels, principal_components, rescale_symmetric
from pyrovae.data.registry import DatasetInfo, available
from pyrovae.data.synthetic import LinearGaussian

__all__ = [
    "DataError",
    "DataSpec",
    "Dataset",
    "DatasetInfo",
    "LinearGaussian",
    "Rows",
    "available",
    "binarize",
    "dequantize",
    "hide_labels",
    "load",
    "load_to_evaluate",
    "principal_components",
    "rescale_symmetric",
    "transform_x",
]
