"""Whether data lie in the support of what a pair observes, before a figure is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from pyrovae import programs
from pyrovae.data.kinds import ROUNDING
from pyrovae.data.rows import cut, refuse_lists, slices
from pyrovae.distributions.columns import Columns
from pyrovae.infer.reach import ends_of
from pyrovae.rng import forked
from pyrovae.sites import Site, data_sites, name_of, rows_first

if TYPE_CHECKING:
    from pyrovae.vae import VAE

Where = Callable[[int], str]
"""From the place of a row among those that are checked to what a message calls it."""


class Fault(NamedTuple):
    """The first entry of some data that a pair cannot have observed."""

    site: str
    """The data site."""
    row: int
    """Its row."""
    entry: tuple[int, ...]
    """Its place in the row; of a distribution of whole vectors, the place of the vector."""
    value: Any
    """What stands there."""
    expected: str
    """What the distribution of the site allows, in words."""
    distribution: str
    """The name of the distribution."""


class SupportCheck:
    """Compares data with the support of the data sites of a pair.

    Where the support does not depend on anything, and the sites observe the data as they are, rows are compared with
    it directly. Otherwise both programs run once on them, as they do for a figure. Entries that a mask hides are left
    alone. A distribution that was made with ``validate_args=False`` is only asked for finite values, and a Bernoulli
    one for values in [0, 1], whose cross-entropy it gives.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    x : Tensor, shape ``[B, ...]``
        A first batch.
    data : mapping
        Its further arguments.
    """

    def __init__(self, vae: VAE, x: Tensor, data: Mapping[str, Any]) -> None:
        self.vae = vae
        self._direct: Callable[[Tensor], Tensor] | None = None
        self._find_direct(x, data)

    def check(self, x: Tensor, data: Mapping[str, Any], where: Where) -> None:
        """Refuse data outside of the support.

        Parameters
        ----------
        x : Tensor, shape ``[B, ...]``
            The data, on the device of the pair.
        data : mapping
            Further arguments by name.
        where : callable from int to str
            What a message calls a row, by its place in `x`.

        Raises
        ------
        ValueError
            Naming the row, the entry, the value and what is expected.
        """
        fault = self.find(x, data)
        if fault is None:
            return
        row = where(fault.row)
        # A bracket with one number is no tuple to a reader.
        entry = f", entry {fault.entry if len(fault.entry) != 1 else fault.entry[0]}" if fault.entry else ""
        of_site = "" if fault.site == "x" else f" at the site {fault.site!r}"
        raise ValueError(
            f"{row}{entry} is {fault.value}{of_site}, and {fault.distribution} is a distribution of {fault.expected}; "
            "bring the data there (scale or binarise them, say), mask what is missing, or take another likelihood"
        )

    @torch.no_grad()
    def find(self, x: Tensor, data: Mapping[str, Any]) -> Fault | None:
        """The first entry outside of the support; None if there is none."""
        if self._direct is not None:
            fine = self._direct(x)
            mask = data.get("mask")
            if isinstance(mask, Tensor) and mask.shape == fine.shape:
                fine = fine | ~mask
            if bool(fine.all()):
                return None
        faults = [fault for _, fault in self._sites(x, data) if fault is not None]
        return min(faults, key=lambda fault: fault.row, default=None)

    @torch.no_grad()
    def _find_direct(self, x: Tensor, data: Mapping[str, Any]) -> None:
        """Find out whether rows can be compared without the programs."""
        found = list(self._sites(x, data))
        if len(found) != 1:
            return
        site, _ = found[0]
        value, fn = site["value"], site["fn"]
        mask = data.get("mask")
        whole = isinstance(mask, Tensor) and mask.shape == x.shape
        shown = rows_first(value, site, self.vae.sites.plates)
        if shown.numel() != x.numel() or not is_fixed(fn):
            return
        same = shown.reshape(x.shape) == x
        if not bool((same | ~mask if whole and mask is not None else same).all()):
            return
        if event_dim_of(fn) or isinstance(elements_of(fn), Columns):
            if shown.shape == x.shape and not event_dim_of(fn):
                self._direct = partial(inside, fn)
            return
        self._direct = partial(inside, fn)

    def _sites(self, x: Tensor, data: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Fault | None]]:
        """The data sites of one run of the pair, each with its first fault."""
        vae = self.vae
        given = programs.keywords(vae.model, vae.guide, **data)
        with forked(), programs.evaluating(vae), vae.scope():
            drawn = programs.trace(vae.guide, (x,), programs.keywords(vae.guide, **data))
            trace = programs.trace_pair(vae.model, vae.guide, (x,), given, drawn=drawn).model
        for name, site in data_sites(trace).items():
            yield site, _fault(name, site, vae)


def refuse_impossible(site: Site) -> None:
    """Refuse a value of a latent that its distribution cannot have, not even as a limit.

    Raises
    ------
    ValueError
        Naming the site and the value.
    """
    value, ends = site["value"], ends_of(site["fn"])
    try:
        fine = site["fn"].support.check(value)
        if ends is not None and not site["fn"].support.is_discrete:
            low, high = (end.to(value.device) for end in ends[:2])
            fine = (value >= low) & (value <= high)  # the ends, too
    except (NotImplementedError, AttributeError):
        return
    if not bool(fine.all()):
        wrong = value[~fine] if fine.shape == value.shape else value
        raise ValueError(
            f"the latent {site['name']!r} cannot be {float(wrong.flatten()[0]):g}, of which its {name_of(site['fn'])} "
            "distribution gives nothing; give values of its support, draws for instance"
        )


def refuse_outside(vae: VAE, x: Tensor, data: Mapping[str, Any], rows_at_once: int = 1024) -> None:
    """Refuse rows outside of the support of a pair, before a figure is made of them.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    x : Tensor, shape ``[B, ...]``
        The data, on the device of the pair.
    data : mapping
        Further arguments by name.
    rows_at_once : int, default 1024
        Rows that the programs see in one run.

    Raises
    ------
    ValueError
        Naming the row, the entry, the value and what is expected.
    """
    check = None
    refuse_lists(data, len(x), rows_at_once)
    for part in slices(len(x), rows_at_once):
        some, given = x[part], cut(data, part, len(x))
        check = SupportCheck(vae, some, given) if check is None else check
        check.check(some, given, partial(_row_of_the_data, part.start))


def _row_of_the_data(start: int, row: int) -> str:
    return f"row {start + row} of the data"


def _fault(name: str, site: Mapping[str, Any], vae: VAE) -> Fault | None:
    fn, value = site["fn"], site["value"]
    if not isinstance(value, Tensor):
        return None
    wrong = ~inside(fn, value)
    scored = _scored(site)
    while scored.dim() > wrong.dim():
        scored = scored.any(-1)
    wrong = wrong & scored
    if not bool(wrong.any()):
        return None
    lost = value.dim() - wrong.dim()
    by_row = {"fn": _Dims(max(0, fn.event_dim - lost)), "cond_indep_stack": site["cond_indep_stack"]}
    in_rows = rows_first(wrong, by_row, vae.sites.plates)
    values = rows_first(value, site, vae.sites.plates)
    place = tuple(in_rows.nonzero()[0].tolist())
    row, entry = (place[0], place[1:]) if place else (0, ())
    seen = values[place] if place else values
    shown = f"{seen.item():.6g}" if seen.numel() == 1 else str([round(v, 6) for v in seen.flatten().tolist()[:5]])
    # Of Columns, the distribution is that of the column.
    inner = elements_of(fn)
    if isinstance(inner, Columns):
        inner = next((g.fn for g in inner.groups if entry and entry[-1] in g.columns.tolist()), inner)
    return Fault(name, row, entry, shown, _in_words(inner), type(inner).__name__)


class _Dims(NamedTuple):
    event_dim: int


def elements_of(fn: Any) -> Any:
    """The distribution of the entries, whatever it is expanded, masked or declared independent by."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def event_dim_of(fn: Any) -> int:
    """Dimensions of what the distribution of the entries is of, such as 1 for vectors on a simplex."""
    inner = elements_of(fn)
    return len(inner.event_shape) if isinstance(inner, Distribution) else 0


def inside(fn: Any, value: Tensor) -> Tensor:
    """True where an entry is finite and in the support; of vectors, one for each.

    Parameters
    ----------
    fn : Distribution
        The distribution.
    value : Tensor
        Values, such as those of a site.

    Returns
    -------
    Tensor of bool
        In the shape of `value`, without the event dimensions of the distribution of the entries.

    Examples
    --------
    >>> inside(torch.distributions.Bernoulli(torch.tensor(0.5)), torch.tensor([0.0, 0.5, torch.nan]))
    tensor([ True, False, False])
    """
    inner = elements_of(fn)
    if isinstance(inner, Columns):
        return inner.joined(lambda part, columns: inside(part, value.index_select(-1, columns))).bool()
    finite = value.isfinite() if value.is_floating_point() else torch.ones_like(value, dtype=torch.bool)
    for _ in range(event_dim_of(inner)):
        finite = finite.all(-1)
    support = _support(inner)
    if support is None:
        return finite
    if opted_out(fn):
        if support is constraints.boolean:
            finite = finite & (value >= -ROUNDING) & (value <= 1 + ROUNDING)
        return finite
    return finite & support.check(value)


def _support(inner: Any) -> Any:
    try:
        support = inner.support
    except (NotImplementedError, AttributeError):
        return None
    while isinstance(support, constraints.independent) and support.reinterpreted_batch_ndims == 0:
        support = support.base_constraint
    return None if constraints.is_dependent(support) else support


def opted_out(fn: Any) -> bool:
    """Whether a distribution was made with ``validate_args=False``, so that values of no support are meant."""
    while True:
        if vars(fn).get("_validate_args") is False:
            return True
        if not isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
            return False
        fn = fn.base_dist


def is_fixed(fn: Any) -> bool:
    """Whether the support of a distribution is the same whatever its parameters are."""
    inner = elements_of(fn)
    if isinstance(inner, Columns):
        return all(is_fixed(group.fn) for group in inner.groups)
    return _is_fixed(_support(inner))


def _is_fixed(part: Any) -> bool:
    if part is None or isinstance(part, bool | int | float | str):
        return True
    if isinstance(part, list | tuple):
        return all(map(_is_fixed, part))
    return isinstance(part, constraints.Constraint) and all(map(_is_fixed, vars(part).values()))


def _scored(site: Mapping[str, Any]) -> Tensor:
    """Which entries of a data site count, in the shape of its value."""
    value, fn = site["value"], site["fn"]
    whole = torch.ones_like(value, dtype=torch.bool)
    masks = [(site["mask"], fn.event_dim)]
    while fn is not None:
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, fn.event_dim))
        fn = getattr(fn, "base_dist", None) if isinstance(fn, Distribution) else None
    for mask, event_dim in masks:
        if mask is None or mask is True:
            continue
        mask = torch.as_tensor(mask, device=value.device)
        whole = whole & mask.reshape(mask.shape + (1,) * event_dim)
    return whole


def _in_words(inner: Any) -> str:
    support = _support(inner)
    if support is None:
        return "finite values"
    if support is constraints.boolean:
        return "values in [0, 1]" if opted_out(inner) else "0 and 1"
    known = {
        constraints.real: "finite numbers",
        constraints.positive: "positive numbers",
        constraints.nonnegative: "numbers from 0",
        constraints.unit_interval: "numbers from 0 to 1",
        constraints.nonnegative_integer: "whole numbers from 0",
        constraints.simplex: "positive numbers whose sum is 1",
        constraints.one_hot: "vectors with a single 1",
    }
    for constraint, words in known.items():
        if support is constraint:
            return words
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    if all(isinstance(end, int | float) for end in (low, high)):
        whole = "whole numbers" if support.is_discrete else "numbers"
        return f"{whole} from {low:g} to {high:g}"
    text = str(support)
    return f"values of the support {text}" if len(text) < 80 else "values of its support"
