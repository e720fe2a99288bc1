"""The guide without an encoder: parameters of its own for each datum, as in the auto-decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.data.rows import Rows
from pyrovae.guides.row_sites import DATA_PLATE, RowSite, RowSites, named_site
from pyrovae.masks import fill_missing
from pyrovae.nn.row_table import RowError, RowTable, row_keys

INITS = ("zeros", "normal", "pca", "train")


class RowGuide(PyroModule):
    """The guide q(z_i) of each datum i with variational parameters of its own, which are a row of a table.

    Use `PerDatum` to make one, or `VAE.fit_posterior`. The row of a datum is picked by `index`. There is no encoder, so
    a datum that was not trained on has no posterior: `VAE.fit_posterior` fits one.

    Parameters
    ----------
    sites : sequence of RowSite
        The latents.
    values : Tensor, shape ``[N, P]``
        Initial parameters. They are not copied.

    Attributes
    ----------
    table : RowTable
        The parameters of the rows.
    """

    keys: Tensor | None
    details: Tensor | None

    def __init__(self, sites: Sequence[RowSite], values: Tensor) -> None:
        super().__init__()
        size = sum(site.size for site in sites)
        if values.dim() != 2 or values.shape[1] != size:
            raise ValueError(f"the sites have {size} parameters per row, and values has shape {tuple(values.shape)}")
        self.row_sites = RowSites(sites)
        self.table = RowTable(values)
        self.register_buffer("keys", None)
        self.register_buffer("details", None)
        self.told_by: tuple[str, ...] = ()
        self._sorted: tuple[Any, Tensor, Tensor | None] | None = None

    @property
    def num_data(self) -> int:
        """Number of rows that have parameters."""
        return self.table.num_rows

    @property
    def is_point(self) -> bool:
        """Whether the posterior of every latent is a single value."""
        return self.row_sites.is_point

    @property
    def has_fixed_scale(self) -> bool:
        """Whether a scale is fixed by hand."""
        return any(site.has_fixed_scale for site in self.row_sites)

    def posterior_of(self, index: Tensor) -> dict[str, TorchDistribution]:
        """The posterior of rows by their numbers ``[B]``, by site."""
        return self.row_sites.distributions(self.table(index))

    def posterior(self, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """The posterior of rows that were fitted, of the first latent, as of an amortised guide."""
        return next(iter(self.posterior_of(self.rows_of(x, mask)).values()))

    def remember(self, x: Tensor, mask: Tensor | None = None, **data: Any) -> None:
        """Take keys of the rows that the parameters belong to, so that they are known again without `index`.

        From then on other rows are refused, also where their index would do. `data` are what else the rows were fitted
        with, such as labels: they tell equal rows apart.
        """
        more = {name: value for name, value in data.items() if _is_of_rows(value, len(x))}
        self.keys, self.told_by = row_keys(x, mask), tuple(sorted(more))
        self.details = _keys_of(more, self.told_by) if more else None
        self._sorted = None

    def rows_of(self, x: Tensor, mask: Tensor | None = None, index: Tensor | None = None, **data: Any) -> Tensor:
        """The numbers of rows, ``[B]``: `index`, or where the keys of these rows are.

        Raises
        ------
        RowError
            For rows that have no parameters here.
        """
        if index is not None and len(index) != len(x):
            raise RowError(f"index has {len(index)} numbers for {len(x)} rows")
        if self.keys is None:
            if index is None:
                raise RowError(
                    f"this guide has parameters of the {self.num_data} rows that it was trained on, and these rows "
                    "have no index, so they are others; call fit_posterior(x) for a VAE over them"
                )
            return index
        keys, known, whole = row_keys(x, mask), self.keys, False
        if self.details is not None and all(_is_of_rows(data.get(name), len(x)) for name in self.told_by):
            keys, known, whole = _both(keys, _keys_of(data, self.told_by)), _both(known, self.details), True
        if index is not None:
            self.table.check(index)
            if bool((known[index.long()] != keys).any()):
                raise RowError(
                    f"index names other rows than these{self._or_told(whole)}; call fit_posterior(x) for a VAE over "
                    "new rows"
                )
            return index
        order, unclear = self._order(known, whole)
        place = torch.searchsorted(known, keys, sorter=order).clamp(max=len(known) - 1)
        found = order[place]
        unknown = known[found] != keys
        if bool(unknown.any()):
            raise RowError(
                f"{int(unknown.sum())} of {len(x)} rows were not fitted, or with another mask{self._or_told(whole)}; "
                "call fit_posterior(x) for a VAE over them"
            )
        if unclear is not None and bool(unclear[found].any()):
            raise RowError(
                f"{int(unclear[found].sum())} of {len(x)} rows were fitted several times, with different "
                f"{', '.join(self.told_by)}; give {', '.join(self.told_by)}, or index"
            )
        return found

    def _or_told(self, whole: bool) -> str:
        return f", or with another {', '.join(self.told_by)}" if whole else ""

    def _order(self, known: Tensor, whole: bool) -> tuple[Tensor, Tensor | None]:
        """The order of keys, and which rows only their details tell apart. It is kept as long as the keys are."""
        state = (whole, self.keys.device, self.keys.data_ptr(), self.keys._version)  # type: ignore[union-attr]
        if self._sorted is None or self._sorted[0] != state:
            order, unclear = known.argsort(), None
            if self.details is not None and not whole:
                ranked, told = known[order], self.details[order]
                twins = torch.zeros(len(known), dtype=torch.bool, device=known.device)
                different = (ranked[1:] == ranked[:-1]) & (told[1:] != told[:-1])
                # All rows of one key are unclear where two of them differ.
                group = torch.cat([ranked.new_zeros(1), (ranked[1:] != ranked[:-1]).long().cumsum(0)])
                twins[order] = torch.isin(group, group[1:][different])
                unclear = twins if bool(twins.any()) else None
            self._sorted = (state, order, unclear)
        return self._sorted[1], self._sorted[2]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        **more: Any,
    ) -> Tensor | dict[str, Tensor]:
        """Run the program. See the contract of pairs. `y` and further arguments tell equal rows apart."""
        picked = self.table.picked
        if picked is None:
            if mask is not None and mask.shape != x.shape:
                raise RowError(
                    f"mask has shape {tuple(mask.shape)}, and the data have {tuple(x.shape)}; they must be equal"
                )
            index = self.rows_of(x, mask, index, y=y, **more)
        elif index is None:
            index = self.table._picked_index
        drawn = self.row_sites.sample(self.table(index), len(x))
        return next(iter(drawn.values())) if len(drawn) == 1 else drawn


def _is_of_rows(value: Any, rows: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == rows and not value.is_complex()


def _keys_of(data: Mapping[str, Any], names: Sequence[str]) -> Tensor:
    keys = [row_keys(data[name]) for name in names]
    return reduce(_both, keys)


def _both(first: Tensor, second: Tensor) -> Tensor:
    """One key of two."""
    return first * 0x2545F4914F6CDD1D + second


def PerDatum(
    num_data: int,
    latent_dim: int | Sequence[int],
    family: str = "normal",
    scale: str | None = None,
    log_var: float = -3.0,
    init: str | Tensor | nn.Module = "zeros",
    *,
    rows: Rows | Tensor | None = None,
    trained: RowGuide | None = None,
    site: str = "z",
) -> RowGuide:
    """The guide of the auto-decoder: one row of variational parameters for each datum, picked by `index`.

    Use it with any decoder model of one latent `z`, such as `GaussianVAE`, `StickBreakingVAE`, `TabularVAE`, or one of
    your own that takes an argument `index`. It needs no encoder, so missing entries are nothing special: they are left
    out of the likelihood. Training gives every training row its posterior. `VAE.fit_posterior` does so for other rows.

    Parameters
    ----------
    num_data : int
        Number of training rows.
    latent_dim : int or sequence of int
        Size of the latent. For sticks it is the number of fractions, `truncation` - 1; for "categorical" it is
        ``(variables, classes)``.
    family : {"normal", "logit-normal", "kumaraswamy", "beta", "gamma", "bernoulli", "categorical"}, default "normal"
        Family of the posterior. "normal" is for real latents, the next four are for fractions between 0 and 1.
    scale : {"fixed", "learned", "none"}, optional
        What becomes of the scale: a fixed one, one for each datum and dimension, or none at all, which makes the
        posterior a point. None is "fixed" for "normal" and "logit-normal", and "learned" for families without a scale.
    log_var : float, default -3.0
        Logarithm of the variance, of the latent or of its logit: the fixed one, or the initial one if it is learned.
        For imputation the authors take -14, which is all but a point.
    init : {"zeros", "normal", "pca", "train"}, Tensor or Module, default "zeros"
        Initial locations. "normal" draws them from a standard normal. "pca" takes the principal components of `rows`,
        scaled to variance 1; missing entries count as the mean of their column. "train" draws each parameter from a
        normal with its mean and variance over the rows of `trained`. A tensor ``[num_data, latent_dim]`` holds them, or
        ``[num_data, P]`` all parameters, unconstrained. An encoder with the method `posterior`, such as an amortised
        guide, gives the means of its posterior of `rows`.
    rows : Rows or Tensor, optional
        The training rows, for "pca" and for an encoder.
    trained : RowGuide, optional
        A trained guide, for "train".
    site : str, default "z"
        Name of the latent.

    Returns
    -------
    RowGuide
        The guide. Its parameters are one dense table, so that stock `pyro.infer.SVI` trains it with any optimizer; the
        Trainer updates only the rows of a batch.

    Raises
    ------
    ValueError
        For unknown names, sizes below 1, and what `init` needs and does not get.

    Notes
    -----
    A point has no density. Its training loss is ``-log p(x|z) - log p(z)`` in nats per datum. The Trainer's `kl_weight`
    weighs the second part; at 0 the point is that of the largest likelihood.

    References
    ----------
    A. Zadeh, Y. Lim, P. P. Liang and L.-P. Morency (2019), "Variational auto-decoder".

    Examples
    --------
    >>> guide = PerDatum(100, 2)
    >>> guide(torch.zeros(3, 1, 4, 4), index=torch.tensor([5, 0, 99])).shape
    torch.Size([3, 2])
    """
    shape = (latent_dim,) if isinstance(latent_dim, int) else tuple(latent_dim)
    if num_data < 1 or not shape or min(shape) < 1:
        raise ValueError(f"num_data and latent_dim must be at least 1, got {num_data} and {latent_dim}")
    if family == "categorical" and len(shape) != 2:
        raise ValueError(f"the family categorical has latent_dim=(variables, classes), got {shape}")
    made = named_site(site, shape, family, scale, log_var, (DATA_PLATE,))
    values = made.initial(log_var).repeat(num_data, 1)
    place = slice(0, math.prod(shape)) if made.parameters_of_rows[0].name in ("loc", "v", "logits") else None
    if isinstance(init, str) and init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, a tensor or an encoder, got {init!r}")
    if isinstance(init, str) and init == "normal":
        columns = slice(None) if place is None else place
        values[:, columns] = torch.randn_like(values[:, columns])
    elif isinstance(init, str) and init == "train":
        if trained is None:
            raise ValueError("init='train' draws from the moments of a trained guide; give trained=GUIDE")
        values = from_moments(trained, num_data)
        if values.shape[1] != made.size:
            raise ValueError(f"the trained guide has {values.shape[1]} parameters per row, and this one {made.size}")
    elif isinstance(init, str) and init == "pca":
        if family != "normal":
            raise ValueError(f"init='pca' gives real numbers, which are locations of the family normal, not {family}")
        values[:, place] = _principal(_rows_for(init, rows, num_data), shape)
    elif isinstance(init, Tensor):
        values = _given(init, values, shape, place)
    elif not isinstance(init, str):
        values = _encoded(init, made, values, _rows_for("an encoder", rows, num_data))
    return RowGuide([made], values)


@torch.no_grad()
def from_moments(trained: RowGuide, num_rows: int) -> Tensor:
    """Parameters ``[num_rows, P]`` drawn from normals with the moments of each parameter over the trained rows."""
    values = trained.table.values
    scale, mean = torch.std_mean(values, 0, correction=0)
    return mean + scale * torch.randn(num_rows, values.shape[1], dtype=values.dtype, device=values.device)


def _rows_for(init: str, rows: Rows | Tensor | None, num_data: int) -> Rows:
    if rows is None:
        raise ValueError(f"init by {init} needs the training rows; give rows=")
    found = Rows(rows) if isinstance(rows, Tensor) else rows
    if len(found) != num_data:
        raise ValueError(f"rows holds {len(found)} rows, and num_data is {num_data}")
    return found


def _principal(rows: Rows, shape: tuple[int, ...]) -> Tensor:
    """Principal components of rows, of mean 0 and variance 1, ``[N, D]``."""
    from sklearn.decomposition import PCA  # not above: scikit-learn changes filters of warnings

    x = rows.x.reshape(len(rows), -1).float()
    if rows.mask is not None:
        seen = rows.mask.reshape(x.shape)
        total = fill_missing(x, seen, 0.0).sum(0)
        x = fill_missing(x, seen, total / seen.sum(0).clamp(min=1))
    components, most = math.prod(shape), min(x.shape)
    if components > most:
        raise ValueError(
            f"init='pca' gives at most {most} components of {x.shape[0]} rows of {x.shape[1]} entries, and latent_dim "
            f"is {components}; choose another init"
        )
    found = PCA(components, random_state=0).fit_transform(x.cpu().numpy())
    scores = torch.as_tensor(found, dtype=torch.get_default_dtype())
    return scores / scores.std(0, correction=0).clamp(min=1e-6)


def _given(init: Tensor, values: Tensor, shape: tuple[int, ...], place: slice | None) -> Tensor:
    flat = init.detach().reshape(len(init), -1).to(values) if init.dim() > 1 else init
    if place is not None and tuple(init.shape) == (len(values), *shape):
        values[:, place] = flat
        return values
    if init.dim() == 2 and flat.shape == values.shape:
        return flat.clone()
    raise ValueError(
        f"init has shape {tuple(init.shape)}; give locations {(len(values), *shape)}, or all unconstrained parameters "
        f"{tuple(values.shape)}"
    )


@torch.no_grad()
def _encoded(encoder: Any, site: RowSite, values: Tensor, rows: Rows) -> Tensor:
    posterior = getattr(getattr(encoder, "guide", encoder), "posterior", None)
    if posterior is None:
        raise ValueError(f"init={type(encoder).__name__} has no method posterior; give an amortised guide or a tensor")
    for start in range(0, len(rows), 1000):
        part = rows.take(slice(start, start + 1000))
        q: Any = posterior(part.x, part.mask)
        q = next(iter(q.values())) if isinstance(q, Mapping) else q
        free = next(parameter.name for parameter in site.parameters_of_rows)
        if free in ("loc", "v"):
            raw = site.parameters_of_rows[0].raw(q.mean)
            values[start : start + len(part), : raw.shape[1]] = raw.to(values)
            continue
        whole = site.raw_of(q, len(part))
        if whole is None:
            raise ValueError("the encoder's posterior is of another family than the one that is asked for")
        values[start : start + len(part)] = whole.to(values)
    return values
