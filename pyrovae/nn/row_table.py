"""A table with a row of parameters for each datum, and keys that tell whose row is whose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

_MIX = 0x9E3779B97F4A7C15 - 2**64


class RowError(ValueError):
    """Rows that have no parameters of their own; the message is one line, also out of a trace."""

    def __init__(self, message: str) -> None:
        # Pyro raises what a traced program raises again, with the shapes of the trace below the message.
        super().__init__(message.partition("\n")[0])


class RowTable(nn.Module):
    """One row of parameters for each datum, ``[N, P]``, looked up by the number of the row.

    In a guide of your own, use it like `torch.nn.Embedding` and look rows up by the argument `index`. The Trainer then
    gives the table an optimizer whose step costs what the batch costs, however many rows there are.

    Parameters
    ----------
    values : Tensor, shape ``[N, P]``
        Initial parameters. They are not copied.

    Raises
    ------
    ValueError
        If there are no rows.

    Examples
    --------
    >>> RowTable(torch.zeros(10, 3))(torch.tensor([4, 4, 9])).shape
    torch.Size([3, 3])
    """

    picked: Tensor | None

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        if values.dim() != 2 or not len(values):
            raise ValueError(f"a table of rows has the shape [N, P] with N at least 1, got {tuple(values.shape)}")
        self.values = nn.Parameter(values)
        self.register_buffer("picked", None, persistent=False)
        self._picked_index: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows N."""
        return len(self.values)

    def check(self, index: Tensor) -> None:
        """Refuse numbers of rows that there are not.

        Raises
        ------
        RowError
            For an index that is out of range, or that holds no whole numbers.
        """
        if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise RowError(
                f"index must hold one whole number for each row, got shape {tuple(index.shape)} of {index.dtype}"
            )
        if not len(index) or get_proxy_mode() is not None:
            return
        low, high = (int(end) for end in torch.aminmax(index))
        if low < 0 or high >= self.num_rows:
            raise RowError(
                f"index {low if low < 0 else high} is out of range: there are parameters of {self.num_rows} rows, "
                "numbered from 0"
            )

    def forward(self, index: Tensor) -> Tensor:
        """The parameters of rows, ``[B]`` to ``[B, P]``.

        Raises
        ------
        RowError
            For an index that is out of range, and for other rows than those that were picked.
        """
        picked = self.picked
        if picked is None:
            self.check(index)
            return self.values[index.long()]  # a uint8 would be a mask
        own = self._picked_index
        if len(index) != len(picked) or (own is not None and get_proxy_mode() is None and not torch.equal(index, own)):
            raise RowError(f"the rows of this batch were picked, {len(picked)} of them, and other rows are asked for")
        # As for any parameter, an objective may hold the table fixed.
        return picked if self.values.requires_grad else picked.detach()

    @contextmanager
    def picking(self, index: Tensor, rows: Tensor | None = None) -> Iterator[Tensor]:
        """A context in which a batch is looked up once, as a leaf whose gradient is that of its rows alone.

        Parameters
        ----------
        index : Tensor of whole numbers, shape ``[B]``
            The rows of the batch. A number may stand there twice; the gradients of both then belong together.
        rows : Tensor, shape ``[B, P]``, optional
            Parameters to use in place of those of the table.

        Yields
        ------
        Tensor, shape ``[B, P]``
            The leaf.
        """
        if rows is None:
            self.check(index)
            rows = self.values.detach()[index.long()].requires_grad_(self.values.requires_grad)
        before = self.picked, self._picked_index
        self.picked, self._picked_index = rows, index
        try:
            yield rows
        finally:
            self.picked, self._picked_index = before


@torch.no_grad()
def row_keys(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Numbers that tell rows of data apart, ``[B]`` of int64: equal for equal rows, and else different.

    Entries that are missing do not count, whatever they hold; that they are missing does. Two different rows have the
    same key with a probability of about 1e-19.

    Parameters
    ----------
    x : Tensor, shape ``[B, ...]``
        Rows.
    mask : Tensor of bool, shape of `x`, optional
        True where an entry is observed. None means that all are.

    Examples
    --------
    >>> x, mask = torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), torch.tensor([[True, False], [True, False]])
    >>> bool(row_keys(x, mask)[0] == row_keys(x, mask)[1])
    True
    """
    generator = torch.Generator().manual_seed(20_190_300)
    size = x[0].numel() if len(x) else 0
    weights = torch.randint(-(2**62), 2**62, (2, size), generator=generator, device="cpu").mul_(2).add_(1).to(x.device)
    found = []
    for start in range(0, len(x), max(1, 4_000_000 // max(1, size))):
        part = slice(start, start + max(1, 4_000_000 // max(1, size)))
        values = x[part].reshape(len(x[part]), -1).double()
        seen = None if mask is None else mask[part].reshape(values.shape)
        if seen is not None:
            values = torch.where(seen, values, 0.0)
        bits = (values + 0.0).contiguous().view(torch.int64)  # minus zero is zero
        bits = (bits ^ (bits >> 29)) * _MIX
        key = ((bits ^ (bits >> 32)) * weights[0]).sum(1)
        hidden = 0 if seen is None else ((~seen).long() * weights[1]).sum(1)
        found.append(key + hidden)
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=x.device)
