"""Running the model of a pair without data, and what its data sites are given back as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine import Trace
from torch import Tensor

from pyrovae import programs
from pyrovae.infer.points import global_means
from pyrovae.layout import OutsidePlateError, outside_plate
from pyrovae.sites import (
    check_rows,
    data_sites,
    is_factor,
    name_of,
    nodes_of,
    refuse_subsamples,
    rows_first,
    sample_sites,
)

if TYPE_CHECKING:
    from pyrovae.prepared import PreparedPair


Value = TypeVar("Value")


def only_site(value: Value | dict[str, Value]) -> Value:
    """What `decode`, `sample` or `reconstruct` returned of a pair with one data site.

    Raises
    ------
    ValueError
        If it is a dictionary, because the pair has several data sites.
    """
    if isinstance(value, dict):
        raise ValueError(f"this takes one data site, and the pair has {sorted(value)}; VAE(..., observed=NAME)")
    return value


class Decoding:
    """Runs the model of a pair, which has seen data, on rows that are asked for.

    Parameters
    ----------
    vae : PreparedPair
        The pair.
    """

    def __init__(self, vae: PreparedPair) -> None:
        self.vae = vae
        self._amortised: bool | None = None  # whether latents of all data depend on data in the guide
        self._reads: dict[bool, bool] = {}  # whether the model reads values of the data; with its data drawn or given

    def trace(
        self,
        change: Callable[[programs.Program], programs.Program],
        size: int,
        data: Tensor | None,
        given: Mapping[str, Tensor | None],
        *,
        draws_data: bool,
    ) -> Trace:
        """Run the model, changed by handlers, on `size` rows.

        Raises
        ------
        ValueError
            If the model needs rows of data and gets none, or another number of them.
        """
        vae = self.vae
        _ = vae.sites
        keywords = programs.keywords(vae.model, **given)
        program = change(vae.model)
        if data is not None and len(data) != size:
            raise ValueError(f"data= must hold a row for each of the {size} that are asked for, got {len(data)}")
        arguments: tuple[Tensor, ...]
        extra: dict[str, Any]
        if data is not None:
            arguments, extra = (data,), {}
        elif programs.runs_without_data(vae.model):
            arguments, extra = (), {"size": size}
        elif self.reads_data(draws_data, keywords):
            raise ValueError(
                f"{programs.describe(vae.model)} looks at its data beyond obs=, so it needs rows to look at: give "
                "data=x with a row for each that is asked for"
            )
        else:
            arguments, extra = (vae.blank(size),), {}
        with vae.scope():
            trace = programs.trace(program, arguments, {**extra, **keywords})
        check_rows(self._data_sites(trace).values(), vae.sites.plates, size, exactly=True)
        return trace

    def reads_data(self, draws_data: bool, keywords: Mapping[str, Tensor]) -> bool:
        """Whether values of the data reach a site of the model otherwise than by `obs=`.

        Found out once, by running the model on different data, NaN among them, with the same random numbers.
        """
        if draws_data not in self._reads:
            model = programs.unconditioned(self.vae.model) if draws_data else self.vae.model
            self._reads[draws_data] = self._depends(model, keywords)
        return self._reads[draws_data]

    def _depends(self, program: programs.Program, keywords: Mapping[str, Tensor], hidden: bool = False) -> bool:
        """Whether a site that is shown, the values of observed ones aside, differs between different data.

        Data on which the program fails count as a difference, unless it has `hidden` sites that may be the reason.
        """
        rows = next((len(t) for t in keywords.values() if isinstance(t, Tensor) and t.dim()), 2)
        found: list[list[Tensor]] = []
        with programs.trial(program, self.vae.model), pyro.validation_enabled(False):
            for x in self._trial_data(rows):
                torch.manual_seed(0)
                try:
                    sites = sample_sites(programs.trace(program, (x,), keywords)).values()
                except Exception:  # whatever a program makes of data that are none
                    if hidden:
                        continue
                    return True
                drawn = [site["value"] for site in sites if not site["is_observed"]]
                found.append([*drawn, *(value for site in sites for value in _parameters(site["fn"]))])
        if len(found) < 2:
            return True
        first = found[0]
        for other in found[1:]:
            if len(other) != len(first) or not all(_same(a, b) for a, b in zip(first, other, strict=True)):
                return True
        return any(value.is_floating_point() and bool(value.isnan().any()) for value in first)

    def _globals_depend(self, names: tuple[str, ...]) -> bool:
        """Whether the guide's distribution of latents of all data depends on the data."""
        if self._amortised is None:
            self._amortised = self._depends(_only(self.vae.guide, names), self.vae.blank_arguments()[1], hidden=True)
        return self._amortised

    def _trial_data(self, rows: int) -> list[Tensor]:
        """Data of several kinds; the first are NaN where that is a number."""
        zeros, seen = self.vae.blank(rows), self.vae.first_rows
        kinds = [zeros, torch.ones_like(zeros)]
        if seen is not None and seen.shape[1:] == zeros.shape[1:]:
            kinds.append(seen[torch.arange(rows) % len(seen)].to(zeros))
        if zeros.is_floating_point():
            kinds = [torch.full_like(zeros, torch.nan), *kinds, torch.randn_like(zeros)]
        return kinds

    def shared_values(self, *, means: bool, data: Tensor | None = None) -> dict[str, Tensor]:
        """Values of the latents outside the plate over the data: the guide's means, or a draw of it.

        Parameters
        ----------
        means : bool
            The means, where there are any.
        data : Tensor, optional
            Rows for the guide, if these latents depend on data.

        Raises
        ------
        ValueError
            If they depend on data and there are none, or have no means.
        """
        vae = self.vae
        names = vae.sites.shared
        if not names:
            return {}
        with vae.scope():
            if data is None and self._globals_depend(names):
                raise ValueError(
                    f"the latents {names} outside the plate over the data depend on data in the guide; give data=x"
                )
            args, kwargs = vae.blank_arguments() if data is None else ((data,), {})
            if means:
                return global_means(vae.guide, names, args, kwargs)
            with torch.no_grad(), programs.evaluating(vae):
                drawn = programs.trace(vae.guide, args, kwargs)
        return {name: nodes_of(drawn)[name]["value"] for name in names}

    def distributions(self, trace: Trace) -> TorchDistribution | dict[str, TorchDistribution]:
        """The distribution of the data in a trace of the model; a dictionary by site where there are several."""
        return self.one_or_all({name: site["fn"] for name, site in self._data_sites(trace).items()})

    def values(self, trace: Trace, output: str) -> Tensor | dict[str, Tensor]:
        """Draws, means or modes of the data in a trace of the model, rows first."""
        found = {}
        refuse_subsamples(self._data_sites(trace).values(), self.vae.sites.plates, "whole datum to give")
        for name, site in self._data_sites(trace).items():
            value = _drawn(trace, name) if output == "draw" else _point(name, site["fn"], output)
            if not value.dim():
                raise OutsidePlateError(outside_plate(name, observed=True))
            found[name] = self.as_data(name, rows_first(value, site, self.vae.sites.plates))
        return self.one_or_all(found)

    def masks(self, trace: Trace) -> Tensor | dict[str, Tensor | None] | None:
        """Which entries of the data sites in a trace of the model are scored, in the shapes of `values`."""
        found: dict[str, Tensor | None] = {}
        for name, site in self._data_sites(trace).items():
            masks = [m for m in (site["mask"], getattr(site["fn"], "_mask", None)) if m is not None and m is not True]
            found[name] = None
            if masks:
                value, event_dim = site["value"], site["fn"].event_dim
                whole = torch.ones_like(value, dtype=torch.bool)
                for mask in masks:
                    mask = torch.as_tensor(mask, device=value.device)
                    whole = whole & mask.reshape(mask.shape + (1,) * event_dim)
                found[name] = self.as_data(name, rows_first(whole, site, self.vae.sites.plates))
        return self.one_or_all(found)

    def as_data(self, name: str, value: Tensor) -> Tensor:
        """Give values of a data site the shape of the data, where the program only flattens them."""
        shape = self.vae.flat_sites.get(name)
        return value if shape is None or value[0].numel() != shape.numel() else value.reshape(len(value), *shape)

    def one_or_all(self, found: dict[str, Any]) -> Any:
        """What there is of the only or the chosen data site; of several, a dictionary."""
        chosen = self.vae.chosen_site
        if chosen is not None:
            return found[chosen]
        return next(iter(found.values())) if len(found) == 1 else found

    def _data_sites(self, trace: Trace) -> dict[str, Mapping[str, Any]]:
        """The data sites of a trace, observed or drawn; those of a batch may differ from those of another one."""
        sites, chosen = sample_sites(trace), self.vae.chosen_site
        if chosen is not None and chosen in sites:
            return {chosen: sites[chosen]}
        latents = (*self.vae.sites.latent, *self.vae.sites.shared)  # which handlers may have given values
        observed = {name: site for name, site in data_sites(trace).items() if name not in latents}
        drawn = {
            n: s for n, s in sites.items() if s["infer"].get("was_observed") and n not in observed and not is_factor(s)
        }
        known = {name: sites[name] for name in self.vae.sites.all_observed if name in sites}
        return {**known, **observed, **drawn}


def _drawn(trace: Trace, name: str) -> Tensor:
    """The draw of a data site; of one with `obs_mask=`, the draw that the rest of the model went on with."""
    whole = name.removesuffix("_observed")
    nodes = nodes_of(trace)
    masked = whole != name and not nodes[name]["is_observed"] and f"{whole}_unobserved" in trace
    value: Tensor = nodes[whole if masked else name]["value"]
    return value


def _parameters(fn: Any) -> list[Tensor]:
    """The tensors that a distribution is made of, masks aside."""
    found = []
    while fn is not None:
        found += [value for name, value in vars(fn).items() if isinstance(value, Tensor) and name != "_mask"]
        fn = getattr(fn, "base_dist", None)
    return found


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)


def _only(program: programs.Program, names: tuple[str, ...]) -> programs.Program:
    """A program that shows some of its sites alone."""
    return poutine.block(program, hide_fn=lambda msg: msg["type"] == "sample" and msg["name"] not in names)


def _point(name: str, fn: TorchDistribution, output: str) -> Tensor:
    """Mean or mode of a distribution.

    Raises
    ------
    NotImplementedError
        If it has none, as a Cauchy or a categorical distribution has no mean.
    """
    message = (
        f"the {name_of(fn)} distribution of site {name!r} has no {output}; take draws, or decode() for the distribution"
    )
    try:
        value = getattr(fn, output)
    except (NotImplementedError, AttributeError) as error:
        if isinstance(error, NotImplementedError) and error.args and "does not implement" not in error.args[0]:
            raise  # it says why, unless they are torch's own words
        raise NotImplementedError(message) from None
    if value.numel() and bool(value.isnan().all()):
        raise NotImplementedError(message)
    return value
