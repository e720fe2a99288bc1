"""How well 3-D shapes are found from what is seen in the plane."""

from __future__ import annotations

import torch
from torch import Tensor


def procrustes_error(shapes: Tensor, truth: Tensor) -> Tensor:
    """The error of shapes after the best turn, mirror image, scale and shift of each, which no view can tell.

    Parameters
    ----------
    shapes, truth : Tensor, shape ``[N, L, D]``
        L points in D dimensions, as they were found and as they are.

    Returns
    -------
    Tensor, shape ``[N]``
        The root of the summed squared distance of the points over that of the true points from their centre: 0 is
        right, 1 is no better than one point.

    Raises
    ------
    ValueError
        If the shapes differ in size, or all true points of a row are one.

    References
    ----------
    J. Gower (1975), "Generalized Procrustes analysis".

    Examples
    --------
    >>> truth = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
    >>> bool(procrustes_error(3 * truth.flip(-1) + 1, truth).abs() < 1e-5)
    True
    """
    if shapes.shape != truth.shape or shapes.dim() != 3:
        raise ValueError(f"shapes {tuple(shapes.shape)} and truth {tuple(truth.shape)} must both be [N, L, D]")
    found, true = (points.double() - points.double().mean(1, keepdim=True) for points in (shapes, truth))
    size = true.square().sum((1, 2))
    if not bool((size > 0).all()):
        raise ValueError("the true points of a row are all one, so there is no shape to compare with")
    values = torch.linalg.svdvals(found.transpose(1, 2) @ true).sum(1)
    explained = values.square() / found.square().sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    return (1 - explained / size).clamp(min=0).sqrt()
