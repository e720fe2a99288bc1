"""What families of pairs add to the generic tools: figures of evaluations and trainings, plots, units of latents.

A family registers itself in the file of `pyrovae.pairs` that puts it together. Evaluation, plots, the command line and
the documentation read the registry and know no family by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    import matplotlib.figure

    from pyrovae.data.dataset import Rows
    from pyrovae.metrics.evaluation import Evaluated
    from pyrovae.plotting.run import Pictured
    from pyrovae.vae import VAE


class EvaluationFigure(NamedTuple):
    """One figure of an evaluation, in words."""

    name: str
    """Its key in `Evaluation` and in the JSON of the command line."""
    unit: str
    """Its unit, such as "nats per datum"."""
    meaning: str
    """One sentence on what it is, and when it is there."""


@dataclass(frozen=True)
class Measure:
    """Figures of an evaluation that are computed together.

    Parameters
    ----------
    figures : tuple of EvaluationFigure
        What they are.
    compute : callable from Evaluated to mapping of str to Any
        Gives the figures by name. A figure that the data do not allow, for instance for want of labels, is left out.
    """

    figures: tuple[EvaluationFigure, ...]
    compute: Callable[[Evaluated], Mapping[str, Any]]


@dataclass(frozen=True)
class Family:
    """What a family adds. Everything but the first two is optional.

    Parameters
    ----------
    name : str
        The name of the family.
    applies : callable from VAE to bool
        Whether a pair is of the family. It is asked of pairs of the user's own too.
    measures : tuple of Measure
        Figures of `pyrovae.metrics.evaluate`.
    validation_figures : callable from (VAE, Rows) to mapping of str to callable, optional
        Columns that a training adds to its metrics: for the validation rows, a function of no arguments for each column
        that they allow. Lower is better, so that a column can be the monitor.
    plots : mapping of str to callable from Pictured to Figure or None
        Figures of a run. None leaves one out.
    prior_variances : callable from VAE to mapping of str to Tensor, optional
        Variances of the latent units under the prior, by site, where they are far from 1. Active units are counted in
        these units.
    row_vectors : callable from (VAE, Rows) to Tensor, optional
        Vectors of rows, ``[N, D]``, whose Euclidean distance tells how alike the rows are, where latent means do not.
    encodings : mapping of str to callable from (VAE, Rows) to Tensor
        What `pyrovae encode` writes of rows beside the means and scales of their latents, ``[N, D]``.
    """

    name: str
    applies: Callable[[VAE], bool]
    measures: tuple[Measure, ...] = ()
    validation_figures: Callable[[VAE, Rows], Mapping[str, Callable[[], float]]] | None = None
    plots: Mapping[str, Callable[[Pictured], matplotlib.figure.Figure | None]] = field(default_factory=dict)
    prior_variances: Callable[[VAE], Mapping[str, Tensor]] | None = None
    row_vectors: Callable[[VAE, Rows], Tensor] | None = None
    encodings: Mapping[str, Callable[[VAE, Rows], Tensor]] = field(default_factory=dict)


_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Enter a family. One of the same name is replaced."""
    _FAMILIES[family.name] = family


def families() -> list[Family]:
    """All families, in the order of their names."""
    # Not imported above: the families stand on everything that asks for them.
    importlib.import_module("pyrovae.pairs")
    return [_FAMILIES[name] for name in sorted(_FAMILIES)]


def families_of(vae: VAE) -> list[Family]:
    """The families that a pair is of; a pair may be of several, or of none."""
    return [family for family in families() if family.applies(vae)]
