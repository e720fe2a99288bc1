"""Encoders of rows of tables, which see which entries are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.distributions.mapped_normal import mapped_scores
from pyrovae.likelihoods.tables import COUNTS, OF_LEVELS, POSITIVE, ColumnFamilies, batch_moments
from pyrovae.nn.mlp import MLP, activation_module

LARGEST = 8.0
"""Numbers are clipped to so many standard deviations before they enter a net."""
FEW_LEVELS = 8
"""Levels per column up to which a product with indicators of levels takes less time than a sum of rows of a table."""


class RowFeatures(nn.Module):
    """Numbers and levels of a row as they enter a net: standardised, filled with zeros, and offsets of levels.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    loc, scale : Tensor, shape ``[D]``, optional
        Mean and standard deviation of the numbers, of the logs of positive ones and counts. None takes 0 and 1.
    by_batch : bool, default False
        Whether these are those of the visible entries of each batch in training.
    """

    loc: Tensor
    scale: Tensor
    numbers: Tensor
    levels: Tensor
    offsets: Tensor
    in_logs: Tensor
    counts: Tensor

    def __init__(
        self,
        columns: ColumnFamilies,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
        *,
        by_batch: bool = False,
    ) -> None:
        super().__init__()
        self.by_batch = by_batch
        families, size = columns.families, len(columns.families)
        self.register_buffer("loc", torch.zeros(size) if loc is None else loc.float())
        self.register_buffer("scale", torch.ones(size) if scale is None else scale.float())
        of_levels = columns.columns(*OF_LEVELS)
        numbers = [column for column in range(size) if families[column] not in OF_LEVELS]
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long), persistent=False)
        self.register_buffer("levels", torch.tensor(of_levels, dtype=torch.long), persistent=False)
        sizes = [columns.num_levels[column] for column in of_levels]
        offsets = torch.tensor([0, *sizes], dtype=torch.long).cumsum(0)
        self.register_buffer("offsets", offsets[:-1], persistent=False)
        self.register_buffer("in_logs", torch.tensor([f in POSITIVE for f in families]), persistent=False)
        self.register_buffer("counts", torch.tensor([f in COUNTS for f in families]), persistent=False)
        self.total_levels = int(offsets[-1])
        mapped = columns.by_size("quantile")
        self.num_maps = len(mapped)
        for number, members in enumerate(mapped):
            values, scores, _ = columns.maps(members)
            parts = {"mapped": torch.tensor(members), "values": values, "scores": scores}
            for name, part in parts.items():
                self.register_buffer(f"{name}_{number}", part, persistent=False)

    def scaled(self, x: Tensor, mask: Tensor) -> Tensor:
        """All entries as standardised numbers, 0 where they are missing, ``[..., D]``."""
        filled = torch.where(mask, x, 1.0)
        filled = torch.where(self.in_logs, filled.clamp(min=1e-30).log(), filled)
        filled = torch.where(self.counts, filled.clamp(min=0.0).log1p(), filled)
        for number in range(self.num_maps):
            members = getattr(self, f"mapped_{number}")
            knots = (getattr(self, f"{name}_{number}").to(x) for name in ("values", "scores"))
            filled = filled.index_copy(-1, members, mapped_scores(filled.index_select(-1, members), *knots)[0])
        loc, scale = self.loc, self.scale
        if self.by_batch and self.training:
            is_number = torch.zeros_like(mask[..., 0, :], dtype=torch.bool).index_fill(-1, self.numbers, True)
            loc, scale = batch_moments(filled, mask, loc, scale, is_number)
        filled = ((filled - loc) / scale).clamp(-LARGEST, LARGEST)
        return torch.where(mask, filled, 0.0)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers ``[..., n]``, level places ``[..., L]`` in one list of all levels, and the mask ``[..., D]``."""
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        numbers = self.scaled(x, mask).index_select(-1, self.numbers)
        codes = torch.where(mask, x, 0.0).index_select(-1, self.levels).long() + self.offsets
        return numbers, codes, mask


class TableEncoder(nn.Module):
    """Dense layers on numbers, levels and the mask of a row, ``[B, D]`` -> ``[B, out_features]``.

    Missing numbers enter as zeros, missing levels as no level at all, and the net sees what is missing. A table of all
    levels looks them up, so that a column of many levels costs what a column of few does.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    hidden : sequence of int, default (256, 256)
        Sizes of the hidden layers, at least one.
    loc, scale, by_batch
        Scaling of the numbers, see `RowFeatures`.
    activation, layer, dropout
        As for `MLP`.

    Raises
    ------
    ValueError
        There is no hidden layer.

    Examples
    --------
    >>> encoder = TableEncoder(ColumnFamilies(("normal", "categorical"), (0, 3)), (8,))
    >>> encoder(torch.zeros(5, 2), torch.ones(5, 2, dtype=torch.bool)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        columns: ColumnFamilies,
        hidden: Sequence[int] = (256, 256),
        *,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
        by_batch: bool = False,
        activation: str = "relu",
        layer: str = "plain",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("an encoder needs at least one hidden layer")
        self.features = RowFeatures(columns, loc, scale, by_batch=by_batch)
        first = hidden[0]
        self.entries = nn.Linear(len(self.features.numbers) + len(columns.families), first)
        self.levels = nn.Parameter(0.3 * torch.randn(max(self.features.total_levels, 1), first) / first**0.5)
        self.activation = activation_module(activation)
        self.dropout = nn.Dropout(dropout)
        self.net = MLP(first, hidden[1:], activation=activation, layer=layer, dropout=dropout)
        self.out_features = hidden[-1]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute features of rows; a row with nothing observed has some too."""
        numbers, codes, mask = self.features(x, mask)
        first = self.entries(torch.cat([numbers, mask.to(x.dtype)], -1))
        if codes.shape[-1]:
            seen = mask.index_select(-1, self.features.levels).to(x.dtype)
            first = first + _sums_of_levels(codes, seen, self.levels)
        return self.net(self.dropout(self.activation(first)))


def _sums_of_levels(codes: Tensor, seen: Tensor, levels: Tensor) -> Tensor:
    """The sum of the rows of `levels` that the codes of each row name, as far as they are seen."""
    flat, weights = codes.reshape(-1, codes.shape[-1]), seen.reshape(-1, codes.shape[-1])
    if len(levels) <= FEW_LEVELS * codes.shape[-1]:
        found = flat.new_zeros(len(flat), len(levels), dtype=levels.dtype).scatter(1, flat, weights) @ levels
    else:
        found = F.embedding_bag(flat, levels, mode="sum", per_sample_weights=weights)
    return found.reshape(*codes.shape[:-1], levels.shape[1])


class SetEncoder(nn.Module):
    """A net that sums what it makes of each observed entry, ``[B, D]`` -> ``[B, out_features]``.

    Missing entries have no part in it. The order of the columns does not matter, since each brings its own embedding.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    hidden : sequence of int, default (256, 256)
        Sizes of the hidden layers; the first is that of the sum.
    embedding_dim : int, default 32
        Size of the embedding of a column.
    loc, scale, by_batch
        Scaling of the numbers, see `RowFeatures`.
    **options
        Options of `MLP`.

    References
    ----------
    C. Ma et al. (2019), "EDDI: efficient dynamic discovery of high-value information with partial VAE", section 3.2
    (the pointnet plus encoder).

    Examples
    --------
    >>> encoder = SetEncoder(ColumnFamilies(("normal", "categorical"), (0, 3)), (8,))
    >>> encoder(torch.zeros(5, 2), torch.ones(5, 2, dtype=torch.bool)).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        columns: ColumnFamilies,
        hidden: Sequence[int] = (256, 256),
        *,
        embedding_dim: int = 32,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
        by_batch: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("an encoder needs at least one hidden layer")
        self.features = RowFeatures(columns, loc, scale, by_batch=by_batch)
        self.columns = nn.Parameter(torch.randn(len(columns.families), embedding_dim) / embedding_dim**0.5)
        self.slopes = nn.Parameter(torch.randn(len(columns.families), embedding_dim) / embedding_dim**0.5)
        self.levels = nn.Parameter(torch.randn(max(self.features.total_levels, 1), embedding_dim) / embedding_dim**0.5)
        self.entry = MLP(embedding_dim, (hidden[0],), **options)
        self.net = MLP(hidden[0], hidden[1:], **options)
        self.out_features = hidden[-1]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute features of rows; a row with nothing observed has those of an empty sum."""
        numbers, codes, mask = self.features(x, mask)
        values = x.new_zeros(x.shape).index_copy(-1, self.features.numbers, numbers)
        entries = self.columns + self.slopes * values.unsqueeze(-1)
        if codes.shape[-1]:
            entries = entries.index_add(-2, self.features.levels, self.levels[codes])
        summed = torch.where(mask.unsqueeze(-1), self.entry(entries), 0.0).sum(-2)
        return self.net(summed / mask.shape[-1] ** 0.5)
