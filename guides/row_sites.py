"""How a row of parameters becomes the distribution of a latent, for any family of distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import Bernoulli, Delta, MaskedDistribution, Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import Independent, constraints, transform_to

from pyrovae.distributions import Beta, GammaComposition, Kumaraswamy, LogitNormal
from pyrovae.nn.row_table import RowError
from pyrovae.nn.variables import _OneHotCategorical
from pyrovae.sites import name_of

FAMILIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "normal": (Normal, {"loc": constraints.real, "scale": constraints.positive}),
    "logit-normal": (LogitNormal, {"loc": constraints.real, "scale": constraints.positive}),
    "kumaraswamy": (Kumaraswamy, {"concentration1": constraints.positive, "concentration0": constraints.positive}),
    "beta": (Beta, {"concentration1": constraints.positive, "concentration0": constraints.positive}),
    "gamma": (GammaComposition, {"concentration1": constraints.positive, "concentration0": constraints.positive}),
    "bernoulli": (Bernoulli, {"logits": constraints.real}),
    "categorical": (_OneHotCategorical, {"logits": constraints.real_vector}),
}
"""Families by name, with the constraints of their parameters."""
SCALES = ("fixed", "learned", "none")
_SIDE_BY_SIDE = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
_SETTINGS = ("temperature", "total_count", "log_density", "validate_args")
"""Arguments of distributions that are no parameters of a posterior."""


class FamilyError(ValueError):
    """A distribution has no parameters of its own that a gradient could move; the message names site and kind."""


@dataclass(frozen=True)
class RowParameter:
    """One parameter of a distribution, in unconstrained numbers.

    Parameters
    ----------
    name : str
        The argument of the distribution.
    shape : tuple of int
        Shape of a row of it, unconstrained.
    constraint : Constraint
        Where it lives.
    axis : int, optional
        The dimension of the rows in the constrained parameter, counted from the right; None for the first one.
    """

    name: str
    shape: tuple[int, ...]
    constraint: Any
    axis: int | None = None

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    def constrained(self, raw: Tensor) -> Tensor:
        """From ``[B, size]`` to the parameter."""
        value = transform_to(self.constraint)(raw.reshape(len(raw), *self.shape))
        return value if self.axis is None else value.movedim(0, self.axis)

    def raw(self, value: Tensor) -> Tensor:
        """From the parameter to ``[B, size]``."""
        rows = value if self.axis is None else value.movedim(self.axis, 0)
        return transform_to(self.constraint).inv(rows).reshape(len(rows), -1)


class PlateOver(NamedTuple):
    """A plate that a site stands in."""

    name: str
    dim: int
    size: int | None
    """None for the plate over the data, which is as large as the batch."""


DATA_PLATE = PlateOver("data", -1, None)


class RowSite(nn.Module):
    """The distribution of one latent site, made from rows of parameters.

    Parameters
    ----------
    name : str
        The site.
    family : callable
        Makes the distribution of named parameters.
    parameters : sequence of RowParameter
        Those of which there is a row for each datum.
    fixed : mapping of str to Tensor or float, default {}
        Further arguments.
    event_dims : int, default 0
        Batch dimensions of the distribution, from the right, that belong to the latent.
    plates : sequence of PlateOver
        The plates around the site.
    """

    def __init__(
        self,
        name: str,
        family: Callable[..., Any],
        parameters: Sequence[RowParameter],
        *,
        fixed: Mapping[str, Any] | None = None,
        event_dims: int = 0,
        plates: Sequence[PlateOver] = (DATA_PLATE,),
    ) -> None:
        super().__init__()
        self.name, self.parameters_of_rows = name, tuple(parameters)
        object.__setattr__(self, "family", family)  # a plain attribute, also where it is a module
        self.event_dims, self.plates = event_dims, tuple(plates)
        self.numbers = {k: v for k, v in (fixed or {}).items() if not isinstance(v, Tensor)}
        self.tensors = [k for k, v in (fixed or {}).items() if isinstance(v, Tensor)]
        for key in self.tensors:
            self.register_buffer(f"fixed_{key}", (fixed or {})[key].detach().clone(), persistent=False)

    family: Any

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return sum(parameter.size for parameter in self.parameters_of_rows)

    @property
    def is_point(self) -> bool:
        """Whether the distribution is a single value."""
        return self.family is Delta

    @property
    def has_fixed_scale(self) -> bool:
        """Whether the scale is a number that is not fitted."""
        return "scale" in self.numbers

    def distribution(self, raw: Tensor) -> TorchDistribution:
        """The distribution at rows ``[B, size]``."""
        given: dict[str, Any] = {key: getattr(self, f"fixed_{key}") for key in self.tensors} | self.numbers
        start = 0
        for parameter in self.parameters_of_rows:
            given[parameter.name] = parameter.constrained(raw[:, start : start + parameter.size])
            start += parameter.size
        fn = self.family(**given)
        return fn.to_event(self.event_dims) if self.event_dims else fn

    def raw_of(self, fn: TorchDistribution, rows: int) -> Tensor | None:
        """Rows ``[B, size]`` at which the distribution is another one; None where it cannot be that one."""
        base = _base(fn)
        if self.is_point:
            values: dict[str, Tensor] = {"v": fn.mean}
        elif name_of(base) == "Beta" and self.family is Kumaraswamy and bool((base.concentration1 == 1).all()):
            values = {"concentration1": base.concentration1, "concentration0": base.concentration0}
        else:
            names = [parameter.name for parameter in self.parameters_of_rows]
            own = _base(self.distribution(self.initial().unsqueeze(0)))
            if name_of(base).lstrip("_") != name_of(own).lstrip("_") or not all(hasattr(base, name) for name in names):
                return None
            values = {name: getattr(base, name) for name in names}
        found = []
        for parameter in self.parameters_of_rows:
            value = values[parameter.name]
            dims = 1 + len(parameter.shape)
            if value.dim() < dims:
                value = value.expand((rows, *parameter.shape))
            raw = parameter.raw(value)
            found.append(raw if len(raw) == rows else raw.expand(rows, -1))
        return torch.cat(found, 1)

    def initial(self, log_var: float = 0.0) -> Tensor:
        """The row of a new site, ``[size]``: zeros, but for a scale that is to start at a log-variance."""
        parts = [torch.full((p.size,), log_var / 2 if p.name == "scale" else 0.0) for p in self.parameters_of_rows]
        return torch.cat(parts)


class RowSites(nn.Module):
    """All latent sites of a row, and its parameters side by side.

    Parameters
    ----------
    sites : sequence of RowSite
        The sites.
    """

    def __init__(self, sites: Sequence[RowSite]) -> None:
        super().__init__()
        self.each = nn.ModuleList(sites)

    def __iter__(self) -> Iterator[RowSite]:
        return iter(self.each)  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return sum(site.size for site in self)

    @property
    def is_point(self) -> bool:
        """Whether the posterior of every latent is a single value."""
        return all(site.is_point for site in self)

    def distributions(self, rows: Tensor) -> dict[str, TorchDistribution]:
        """The distribution of every latent, by site, at rows of parameters ``[B, P]``."""
        parts = rows.split([site.size for site in self], 1)
        return {site.name: site.distribution(part) for site, part in zip(self, parts, strict=True)}

    def program(self, rows: Tensor) -> Callable[..., dict[str, Tensor]]:
        """A guide whose posteriors are those of given rows ``[B, P]``, whatever the data are."""

        def guide(x: Tensor, *args: Any, **data: Any) -> dict[str, Tensor]:
            return self.sample(rows, len(x))

        return guide

    def sample(self, rows: Tensor, count: int) -> dict[str, Tensor]:
        """Draw the latents in their plates, at rows of parameters of so many data; by site."""
        if len(rows) != count:
            raise RowError(f"there are parameters of {len(rows)} rows, and the data have {count}")
        drawn, plates = {}, dict[str, Any]()
        for site, fn in zip(self, self.distributions(rows).values(), strict=True):
            with ExitStack() as stack:
                for name, dim, size in sorted(site.plates, key=lambda plate: plate.dim):
                    if name not in plates:
                        plates[name] = pyro.plate(name, count if size is None else size, dim=dim)
                    stack.enter_context(plates[name])
                drawn[site.name] = pyro.sample(site.name, fn)
        return drawn


def named_site(
    name: str, shape: Sequence[int], family: str, scale: str | None, log_var: float, plates: Sequence[PlateOver]
) -> RowSite:
    """The site of a family by name.

    Raises
    ------
    ValueError
        For an unknown family or scale, and where they do not go together.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
    make, known = FAMILIES[family]
    scale = ("fixed" if "scale" in known else "learned") if scale is None else scale
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    if not math.isfinite(log_var):
        raise ValueError(f"log_var must be a finite number, got {log_var}")
    shape = tuple(shape)
    if scale == "none":
        if family in ("categorical", "bernoulli"):
            raise ValueError(f"the family {family} has no point estimate that a gradient could move; use scale=None")
        inside = constraints.real if family == "normal" else constraints.unit_interval
        point = RowParameter("v", shape, inside)
        return RowSite(name, Delta, [point], event_dims=len(shape), plates=plates)
    if scale == "fixed" and "scale" not in known:
        raise ValueError(f"the family {family} has no scale to fix; use scale='learned', or 'none' for a point")
    fixed = {"scale": math.exp(log_var / 2)} if scale == "fixed" else {}
    own = [RowParameter(key, shape, constraint) for key, constraint in known.items() if key not in fixed]
    event_dims = len(shape) - (family == "categorical")
    return RowSite(name, make, own, fixed=fixed, event_dims=event_dims, plates=plates)


def site_of(
    name: str, fn: TorchDistribution, row_dim: int, plates: Sequence[PlateOver], support: Any = None
) -> RowSite:
    """The site whose family is that of a distribution, with all its parameters free for each row.

    Parameters
    ----------
    name : str
        The site.
    fn : TorchDistribution
        The distribution, as a guide draws from it.
    row_dim : int
        The batch dimension of the rows, negative.
    plates : sequence of PlateOver
        The plates around the site.
    support : Constraint, optional
        The support of the site in the model, for a point.

    Raises
    ------
    FamilyError
        If a gradient cannot move the parameters of such a distribution.
    """
    base = _base(fn)
    event_dims = len(base.batch_shape) - len(fn.batch_shape)
    if name_of(base) == "Delta":
        inside = constraints.real if support is None else support
        while isinstance(inside, constraints.independent):
            inside = inside.base_constraint
        event_dims = fn.event_dim
        points = fn.mean.movedim(row_dim - event_dims, 0)
        point = RowParameter("v", tuple(transform_to(inside).inv(points[:1]).shape[1:]), inside, row_dim - event_dims)
        return RowSite(name, Delta, [point], event_dims=event_dims, plates=plates)
    known = {
        key: constraint
        for key, constraint in (getattr(base, "arg_constraints", None) or {}).items()
        if _SIDE_BY_SIDE.get(key) not in base.arg_constraints and key not in _SETTINGS
    }
    fixed = {key: getattr(base, key) for key in _SETTINGS[:2] if key in (base.arg_constraints or {})}
    kind = type(base)
    own = []
    for key, constraint in known.items():
        value: Any = getattr(base, key, None)
        try:
            transform = transform_to(constraint)
        except NotImplementedError:
            value = None
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise FamilyError(_no_family(name, fn))
        dims = len(base.batch_shape) + constraint.event_dim
        value = value.expand(base.batch_shape + value.shape[value.dim() - constraint.event_dim :])
        axis = row_dim - event_dims - constraint.event_dim
        row = transform.inv(value.movedim(axis, 0)[:1])
        if value.dim() != dims or not bool(row.isfinite().all()):
            raise FamilyError(_no_family(name, fn))
        own.append(RowParameter(key, tuple(row.shape[1:]), constraint, axis))
    if not own:
        raise FamilyError(_no_family(name, fn))
    site = RowSite(name, kind, own, fixed=fixed, event_dims=event_dims, plates=plates)
    try:
        made = site.distribution(raw_parameters(site, fn))
    except Exception:
        raise FamilyError(_no_family(name, fn)) from None
    if made.batch_shape != fn.batch_shape or made.event_shape != fn.event_shape:
        raise FamilyError(_no_family(name, fn))
    return site


@torch.no_grad()
def raw_parameters(site: RowSite, fn: TorchDistribution) -> Tensor:
    """Rows ``[B, size]`` of the parameters of a distribution of the site's own family."""
    base = _base(fn)
    found = []
    for parameter in site.parameters_of_rows:
        if site.is_point:
            value = fn.mean
        else:
            value = getattr(base, parameter.name)
            event = parameter.constraint.event_dim
            value = value.expand(base.batch_shape + value.shape[value.dim() - event :])
        found.append(parameter.raw(value))
    return torch.cat(found, 1)


def _no_family(name: str, fn: Any) -> str:
    return (
        f"site {name!r} of the guide is drawn from a {name_of(fn)}, whose parameters a gradient cannot move row by row"
    )


def _base(fn: Any) -> Any:
    while isinstance(fn, Independent | MaskedDistribution) or type(fn).__name__ == "ExpandedDistribution":
        fn = fn.base_dist
    return fn
