"""Minibatches: what stands for all data counts in each batch by the batch's share of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from pyrovae.infer.scoring import DATA_SHARE
from pyrovae.sites import frames_of

COUNTED = "counts_its_share"
"""Key of `site["infer"]`: the program scales this site by the share of a batch itself."""


class MinibatchScale(Messenger):
    r"""Scale the log-probability of every site outside the plate over the data by rows / total.

    For any ELBO, Pyro's included, and both programs. An epoch of minibatches then counts such a site once, as one step
    on all data does, and the loss is one of so many rows. A plate over the data that scales its sites up to all data,
    `plate("data", total, subsample=...)`, is scaled down again to the rows of the batch, so that both ways of writing a
    program give the same loss. `VAE.minibatch_scale` makes it for a pair.

    Parameters
    ----------
    rows : int
        Rows of the batch, B.
    total : int
        Rows of all data, N; of the training data for a batch of others.
    plates : collection of str
        The names of the plates over the data (`vae.sites.plates`); empty for programs without plates, whose sites
        with a batch dimension are rows.

    Examples
    --------
    >>> import pyro, torch, pyro.distributions as dist
    >>> def guide(x):
    ...     pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(0.0, 1.0))
    >>> with MinibatchScale(3, 12, {"data"}):
    ...     trace = pyro.poutine.trace(guide).get_trace(torch.zeros(3))
    >>> trace.nodes["mu"]["scale"], trace.nodes["z"]["scale"]
    (0.25, 1.0)
    """

    def __init__(self, rows: int, total: int, plates: Collection[str]) -> None:
        super().__init__()
        if min(rows, total) < 1:
            raise ValueError(f"a batch and the data have at least one row, got {rows} of {total}")
        self.rows, self.total, self.plates = rows, total, frozenset(plates)

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        frame = next((frame for frame in frames_of(msg) if frame.name in self.plates), None)
        if frame is not None:
            share = self.rows / frame.full_size
            if share != 1 and frame.full_size != frame.size:
                msg["infer"] = {**(msg["infer"] or {}), DATA_SHARE: share}
                msg["scale"] = msg["scale"] * share
        elif not self._is_row(msg) and not (msg["infer"] or {}).get(COUNTED):
            msg["scale"] = msg["scale"] * (self.rows / self.total)

    def _is_row(self, msg: dict[str, Any]) -> bool:
        """Whether a site of programs without plates is one of rows."""
        return not self.plates and bool(msg["fn"].batch_shape) and not frames_of(msg)
