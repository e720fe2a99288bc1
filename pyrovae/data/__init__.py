"""Data sets: `load` one by name, list what is `available`, or put a `Dataset` together from tensors of your own."""

from pyrovae.data import images, landmarks, synthetic, table_sets  # noqa: F401  their loaders enter themselves in the registry
from pyrovae.data.columns import Column
from pyrovae.data.dataset import Dataset, DataSpec, Rows, transform_x
from pyrovae.data.download import DataError
from pyrovae.data.hiding import HideAtRandom, HideLikeOtherRows
from pyrovae.data.loading import load, load_to_evaluate
from pyrovae.data.preprocessing import binarize, dequantize, hide_labels, principal_components, rescale_symmetric
from pyrovae.data.registry import DatasetInfo, available
from pyrovae.data.schema import Schema
from pyrovae.data.synthetic import LinearGaussian
from pyrovae.data.table_files import read_table

__all__ = [
    "Column",
    "DataError",
    "DataSpec",
    "Dataset",
    "DatasetInfo",
    "HideAtRandom",
    "HideLikeOtherRows",
    "LinearGaussian",
    "Rows",
    "Schema",
    "available",
    "binarize",
    "dequantize",
    "hide_labels",
    "load",
    "load_to_evaluate",
    "principal_components",
    "read_table",
    "rescale_symmetric",
    "transform_x",
]
