"""A pair that has seen data: its sites, its layout, its traces."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import pyro
import torch
from pyro.distributions import TorchDistribution, TransformedDistribution
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import biject_to

from pyrovae import programs
from pyrovae.data.rows import Rows, cut, to_device
from pyrovae.decoding import Decoding
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.log_weights import log_condition
from pyrovae.infer.minibatch import MinibatchScale
from pyrovae.infer.particles import can_vectorize
from pyrovae.infer.points import global_means
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout, OutsidePlateError, Sites, find_sites, look_at, outside_plate
from pyrovae.parameters import PairParameters
from pyrovae.rng import forked
from pyrovae.shapes import data_in_order
from pyrovae.sites import (
    categorical_sites,
    check_rows,
    data_frame,
    data_sites,
    is_auxiliary,
    is_global,
    is_local,
    is_point,
    latent_sites,
    nodes_of,
    plate_nesting,
    row_dim,
    sample_sites,
)


class PreparedPair(PairParameters):
    """A model and a guide, their parameters, and what their first run on data shows.

    Parameters
    ----------
    model, guide : callable
        The two programs.
    observed : str, optional
        The data site to show where a model observes several.
    latent : tuple of str, optional
        The latent sites, where not all sites of the guide are meant.
    """

    _datum: Tensor  # None before there were data

    def __init__(
        self,
        model: programs.Program,
        guide: programs.Program,
        observed: str | None = None,
        latent: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model, guide)
        self.chosen_site, self._latent = observed, latent
        self._sites: Sites | None = None
        self._layout: Layout | None = None  # None until data were seen
        # A datum of zeros, to run programs that need data; a buffer, so that it follows device and type.
        self.register_buffer("_datum", None, persistent=False)
        self.first_rows: Tensor | None = None  # two rows of the first data, to try programs on
        self._first_given: dict[str, Any] = {}  # further arguments of these rows
        self.flat_sites: dict[str, torch.Size] = {}
        self.row_dims: dict[str, int | None] = {}  # the batch dimension of each latent over the rows
        self._event_dims: dict[str, int] = {}
        self._first_sites: frozenset[str] = frozenset()
        self._shared_shapes: dict[str, torch.Size] = {}
        self._data_outside: tuple[str, ...] = ()  # data sites that are no sum over rows
        self._follows_rows = False  # whether plates over the data had as many rows as these in the first run
        self._shares_scale = True  # whether a minibatch changes what some site counts
        self._vectorize: bool | None = None
        self._takes_few: bool | None = None
        self._means_are_logged = False
        self._decoding = Decoding(self)

    @contextmanager
    def telling_of_data(self, x: Tensor, data: Mapping[str, Any]) -> Iterator[None]:
        """A context in which programs that trip over NaN, another shape or type say so, and not what became of them."""
        try:
            yield
        except (RuntimeError, ValueError, IndexError) as error:
            text, seen = str(error), None if self.first_rows is None else self.first_rows.shape[1:]
            hidden = data.get("mask") is not None or not x.is_floating_point()
            if "satisfy the constraint" in text and not hidden and (count := int(x.isnan().sum())):
                fault = f"x has NaN in {count} entries; give mask=~x.isnan() to a pair that takes a mask, or fill them"
            elif seen not in (None, x.shape[1:]) and _is_of_shape(error):
                fault = (
                    f"x has rows of shape {tuple(x.shape[1:])}, and the pair has seen rows of shape {tuple(seen or ())}"
                )
            elif "same dtype" in text and x.dtype not in (known := self._dtypes()) and not _others(data, known):
                fault = f"x is of {x.dtype}, and the parameters of the pair of {known[0]}; give x.to({known[0]})"
            else:
                raise
            raise ValueError(fault) from error

    def _dtypes(self) -> list[torch.dtype]:
        """The types of floating-point parameters."""
        return list(dict.fromkeys(p.dtype for p in self.parameters() if p.is_floating_point())) or [torch.float32]

    @property
    def sites(self) -> Sites:
        """The names of the data sites, the latent sites and the plates over the data."""
        if self._sites is None:
            if not programs.runs_without_data(self.model):
                raise RuntimeError(
                    f"{programs.describe(self.model)} needs data to run, and this VAE has seen none: "
                    "give VAE(..., example=x), or call a method with data first"
                )
            self._sites = self._look_without_data()
        return self._sites

    @property
    def layout(self) -> Layout:
        """How the traces of the pair are laid out, once it has seen data."""
        if self._layout is None:
            raise RuntimeError("the pair has seen no data; call prepare(x) first")
        return self._layout

    def _look_without_data(self) -> Sites:
        """Find the sites of a pair that runs without data; those of this library call the data site "x"."""
        theirs = pyro.get_param_store().get_state()
        with programs.evaluating(self), torch.no_grad(), forked():
            trace, state = self._collect("model", lambda: programs.trace(self.model, (), {"size": 1}))
        self._adopt("model", state, theirs)
        observed, names = self.chosen_site or "x", sample_sites(trace)
        if observed not in names:
            raise ValueError(f"the model has no site {observed!r}; its sites are {sorted(names)}")
        shared = tuple(name for name, site in names.items() if is_global(site))
        latent = self._latent or tuple(name for name in names if name != observed and name not in shared)
        plates = frozenset(frame.name for frame in names[observed]["cond_indep_stack"])
        classes = categorical_sites(names, latent)
        self._datum = torch.zeros_like(names[observed]["value"][0])
        return Sites(observed, latent, plate_nesting(trace), shared, classes, (observed,), plates)

    def blank(self, rows: int) -> Tensor:
        """Data of zeros, for programs that need some to run."""
        _ = self.sites
        return self._datum.expand(rows, *self._datum.shape)

    def blank_arguments(self) -> tuple[tuple[Tensor], dict[str, Any]]:
        """Blank data for the guide; covariates that it cannot do without are those of the first data."""
        if self.first_rows is None or not programs.required_arguments(self.guide)[1:]:
            return (self.blank(1),), {}
        given = {name: to_device(value, self.device) for name, value in self._first_given.items()}
        return (self.blank(len(self.first_rows)),), programs.keywords(self.guide, **given)

    def prepare(self, x: Tensor, **data: Tensor | None) -> Self:
        """Find the sites and collect the parameters of param sites from one run on `x`; later calls do nothing.

        A param site whose name is in Pyro's own parameter store takes its value from there, with a log line.

        Raises
        ------
        ValueError
            If nothing is observed, two different parameters share a name, or a batch dimension stands in no plate.
        """
        if not isinstance(x, Tensor):
            what = "x=rows.x, and mask=rows.mask" if isinstance(x, Rows) else "torch.as_tensor(x, dtype=torch.float32)"
            raise TypeError(f"x must be a tensor with a row for each datum, not {type(x).__name__}; give {what}")
        given = programs.keywords(self.model, self.guide, **data)
        if not x.dim() or not len(x):
            raise ValueError(f"x must hold at least one row, got shape {tuple(x.shape)}")
        if self._datum is None or self._datum.shape != x.shape[1:]:
            self._datum = torch.zeros_like(x[0])
        if self._layout is not None:
            return self
        theirs = pyro.get_param_store().get_state()
        with forked(), torch.no_grad(), programs.evaluating(self), self.telling_of_data(x, data):
            # A store of its own for each program, since a shared one hides the second parameter of a name.
            drawn, of_guide = self._collect("guide", lambda: programs.trace(self.guide, (x,), given))
            traces, of_model = self._collect(
                "model", lambda: programs.trace_pair(self.model, self.guide, (x,), given, drawn=drawn)
            )
        programs.check_names(of_model["params"], of_guide["params"])
        self._adopt("guide", of_guide, theirs)
        self._adopt("model", of_model, theirs)
        with self.scope():
            layout = look_at(self.model, self.guide, (x,), given, traces)
        self._sites = find_sites(traces.model, traces.guide, layout, self.chosen_site, self._latent)
        with self.scope():
            in_order = data_in_order(self.model, traces.model, (x,), given, layout.plates)
        self.flat_sites = {name: x.shape[1:] for name, shape in in_order.items() if shape != x.shape[1:]}
        outside = [name for name, site in data_sites(traces.model).items() if not is_local(site, layout.plates)]
        self._data_outside = tuple(outside)
        sites = [*sample_sites(traces.model).values(), *sample_sites(traces.guide).values()]
        frames = [frame for frame in (data_frame(site, layout.plates) for site in sites) if frame is not None]
        self._follows_rows = all(frame.size == len(x) for frame in frames)
        self._shares_scale = any(not is_local(site, layout.plates) for site in sites) or any(
            frame.full_size != len(x) for frame in frames
        )
        self._first_sites = frozenset(sample_sites(traces.guide))
        self._shared_shapes = {name: nodes_of(traces.guide)[name]["value"].shape for name in self._sites.shared}
        self.first_rows = x[:2].detach().clone()
        self._first_given = cut(given, slice(2), len(x))
        self._layout = layout
        self.latents_of(traces.guide)
        return self

    def minibatch_scale(self, rows: int, total: int | None) -> AbstractContextManager:
        """A context in which what stands outside the plate over the data counts by the share of a batch.

        For any ELBO. It does nothing where there is nothing to do. See `infer.MinibatchScale`.

        Parameters
        ----------
        rows : int
            Rows of the batch.
        total : int or None
            Rows of all data; None where they are not known.

        Raises
        ------
        ValueError
            If a data site of the pair stands outside that plate, so that it is no sum over rows, or what stands outside
            needs the number of rows and it is not known.
        """
        if not self._shares_scale:
            return nullcontext()
        if total is None:
            outside = f"the latents {self.sites.shared}" if self.sites.shared else "sites"
            raise ValueError(
                f"{outside} of all data count by the share of a batch, and this stream does not say how many rows it "
                "has; give fit(..., num_data=ROWS)"
            )
        if rows != total and self._data_outside:
            raise OutsidePlateError(outside_plate(self._data_outside[0], observed=True))
        return MinibatchScale(rows, total, self.sites.plates)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the pair with its parameters.

        Raises
        ------
        TypeError
            If a program is a function that works with modules, because a copy would go on using those of the original.
        """
        functions = [p for p in (self.model, self.guide) if programs.is_function_of_modules(p)]
        if functions or self.has_hidden_modules:
            name = programs.describe(functions[0] if functions else self.model)
            raise TypeError(
                f"{name} is a function that works with modules of its own, and a copy would still use them; write the "
                "pair as modules to copy it"
            )
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return new

    def vectorizes(self, x: Tensor, *, condition: Mapping[str, Tensor] | None = None, **data: Tensor | None) -> bool:
        """Whether the pair can run many particles in one call; tried once, with the first data."""
        if self._vectorize is None:
            given = programs.keywords(self.model, self.guide, **data)
            self.prepare(x, **data)
            condition = self._with_marked_means(condition, tell=False)
            model, guide = programs.conditioned(self.model, self.guide, condition)
            model = enumerated(model, self.layout)
            with self.scope(), programs.evaluating(self):
                if self.takes_few(x, given):
                    x, given = x[:2], cut(given, slice(2), len(x))
                self._vectorize = can_vectorize(model, guide, Scorer(self.layout, fixed=condition), (x,), given)
        return self._vectorize

    def cut_latent(self, name: str, value: Any, part: slice, rows: int) -> Any:
        """Values of a latent for some of the rows; those of all data are given as they are."""
        batch_dim = self.row_dims.get(name)
        if batch_dim is None or not isinstance(value, Tensor):
            return value
        dim = batch_dim - self._event_dims[name]
        if value.dim() < -dim or value.shape[dim] != rows:
            return value
        index: list[Any] = [slice(None)] * value.dim()
        index[dim] = part
        return value[tuple(index)]

    def _distribution(self, trace: Trace, name: str, x: Tensor, data: Mapping[str, Tensor | None]) -> TorchDistribution:
        """The distribution of a latent in a trace of the guide.

        Pyro's AutoGuides draw an auxiliary site and put a `Delta` at a transform of it; that is looked through.

        Raises
        ------
        ValueError
            If a latent is a `Delta` at another function of auxiliary draws.
        """
        nodes = nodes_of(trace)
        site, auxiliary = nodes[name], nodes.get(f"{name}_unconstrained")
        beside = [other for other, node in latent_sites(trace).items() if is_auxiliary(node)]
        if not is_point(site) or not beside:
            return site["fn"]
        if auxiliary is not None:
            with torch.no_grad():
                support = nodes_of(self._traces(x, data).model)[name]["fn"].support
                transform = biject_to(support)
                same = torch.allclose(transform(auxiliary["value"]), site["value"])
            if same:
                plain = torch.equal(auxiliary["value"], site["value"])
                return auxiliary["fn"] if plain else TransformedDistribution(auxiliary["fn"], [transform])
        with torch.no_grad(), forked():
            again = nodes_of(self._guide_trace(x, data))[name]["value"]
        if torch.equal(again, site["value"]):
            return site["fn"]  # a point estimate beside latents that are drawn
        raise ValueError(
            f"site {name!r} of the guide is a Delta at a function of the auxiliary draw {beside[0]!r}, so it has no "
            "distribution of its own to show; use infer.log_weights(..., return_draws=True) for its draws"
        )

    def latents_by_site(self, z: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of latents as a dictionary by site, also where there is one site.

        Raises
        ------
        ValueError
            If the pair has several latents and none is named, or a name is no latent.
        """
        latent = self.sites.latent
        if isinstance(z, Tensor):
            if len(latent) != 1:
                raise ValueError(f"this pair has the latent sites {latent}; give a dictionary by site")
            return {latent[0]: z}
        if not isinstance(z, Mapping):
            raise TypeError(f"latents are a tensor, or a dictionary of tensors by site, not {type(z).__name__}")
        if not z or set(z) - {*latent, *self.row_dims}:
            raise ValueError(f"decode got the latents {sorted(z)}; this pair has {latent}")
        return dict(z)

    def rows_of_latents(self, z: Mapping[str, Tensor]) -> int:
        """How many rows there are values of latents for."""
        name = next((name for name in z if self.row_dims.get(name) is not None), next(iter(z)))
        value = z[name]
        dim = (self.row_dims.get(name) or 0) - self._event_dims.get(name, 0)
        return len(value) if value.dim() < -dim else value.shape[dim]

    def takes_few(self, x: Tensor, given: Mapping[str, Tensor]) -> bool:
        """Whether the programs run on some of these rows; some are written for one number, or know a value for each."""
        if self._takes_few is None and len(x) > 1:
            few = slice(min(2, len(x) - 1))
            try:
                with forked():
                    look_at(self.model, self.guide, (x[few],), cut(given, few, len(x)))
                self._takes_few = True
            except Exception:
                self._takes_few = False
        return self._takes_few is not False

    def latents_of(self, trace: Trace) -> list[str]:
        """The names of the latents of each datum in a trace of the guide.

        Those of a batch may differ from those of another one, as with sequences of several lengths.
        """
        plates, known = self.sites.plates, set(self.sites.latent)
        names = []
        for name, site in latent_sites(trace).items():
            new = self._latent is None and name not in self._first_sites and not is_auxiliary(site)
            if name in known or (new and is_local(site, plates)):
                names.append(name)
                self.row_dims[name] = row_dim(site, plates)
                self._event_dims[name] = site["fn"].event_dim
        return names

    def _guide_trace(self, x: Tensor, data: Mapping[str, Tensor | None]) -> Trace:
        self.prepare(x, **data)
        with self.scope(), self.telling_of_data(x, data):
            trace = programs.trace(self.guide, (x,), programs.keywords(self.guide, **data))
        sites = (nodes_of(trace)[name] for name in self.latents_of(trace))
        check_rows(sites, self.sites.plates, len(x), exactly=self._follows_rows)
        return trace

    def _traces(
        self, x: Tensor, data: Mapping[str, Tensor | None], condition: Mapping[str, Tensor] | None = None
    ) -> programs.Traces:
        drawn = self._guide_trace(x, data)
        with self.scope():
            given = programs.keywords(self.model, **data)
            if condition:
                model, guide = programs.conditioned(self.model, self.guide, condition)
                traces = programs.trace_pair(model, guide, (x,), given)
                for name in condition:
                    traces.model.remove_node(name)  # it is given, and so no term of the bound
                return traces
            return programs.trace_pair(self.model, self.guide, (x,), given, drawn=drawn)

    def _summed(
        self,
        traces: programs.Traces,
        x: Tensor,
        data: Mapping[str, Tensor | None],
        condition: Mapping[str, Tensor] | None = None,
    ) -> programs.Traces:
        """Traces whose model takes all values of the latents that it marks for enumeration, at the same draws."""
        if not self.layout.enumerated:
            return traces
        model, guide = programs.conditioned(self.model, self.guide, condition)
        model, given = enumerated(model, self.layout), programs.keywords(self.model, **data)
        with self.scope():
            summed = programs.trace_pair(model, guide, (x,), given, drawn=traces.guide)
        for name in condition or ():
            summed.model.remove_node(name)
        return summed

    def _check_condition(self, condition: Mapping[str, Any]) -> None:
        """Refuse values of data sites, and of latents of all data where the shape is another one."""
        for name, value in condition.items():
            if name in self.sites.all_observed:
                raise ValueError(f"condition= fixes latents, and site {name!r} is observed; give other data instead")
            expected = self._shared_shapes.get(name)
            if expected is None or not isinstance(value, Tensor) or value.shape == expected:
                continue
            if value.numel() != 1 or expected.numel() != 1:
                raise ValueError(
                    f"condition={{{name!r}: ...}} has the shape {tuple(value.shape)}, and the site {tuple(expected)}"
                )

    def observed_values(self, x: Tensor, **data: Tensor | None) -> Tensor | dict[str, Tensor]:
        """The values of the data sites for these rows, which `reconstruct` is compared with; by site if several.

        They are `x` itself unless the model observes something made of it, such as its logarithm or parts of it.
        """
        return self._decoding.values(self._traces(x, data).model, "draw")

    @torch.no_grad()
    def observed_masks(self, x: Tensor, **data: Tensor | None) -> Tensor | dict[str, Tensor | None] | None:
        """Which entries of `observed_values` the model scores, True for those; None for all, by site if several.

        A site under `poutine.mask`, such as a step past the end of a sequence, and one with `obs_mask=` have some that
        it does not.
        """
        return self._decoding.masks(self._traces(x, data).model)

    def needs_rows(self, **given: Tensor | None) -> bool:
        """Whether `sample` and `decode` of this pair need rows of data, because the model looks at them."""
        without = programs.runs_without_data(self.model)
        return not without and self._decoding.reads_data(True, programs.keywords(self.model, **given))

    @torch.no_grad()
    def global_means(self, data: Tensor | None = None) -> dict[str, Tensor]:
        """The guide's means of the latents outside the plate over the data, by site.

        Parameters
        ----------
        data : Tensor, optional
            Rows for the guide, if its distribution of them depends on data.
        """
        return self._decoding.shared_values(means=True, data=data)

    def _with_marked_means(self, condition: Mapping[str, Tensor] | None, *, tell: bool = True) -> dict[str, Tensor]:
        """The given values of latents outside the data plate, and the guide's means of the other marked ones."""
        given = dict(condition or {})
        missing = [name for name in self.sites.shared if name not in given]
        if not missing:
            return given
        with self.scope(), programs.evaluating(self), forked():
            args, kwargs = self.blank_arguments()
            drawn = sample_sites(programs.trace(self.guide, args, kwargs))
            marked = [name for name in missing if is_global(drawn[name])]
            means = global_means(self.guide, marked, args, kwargs) if marked else {}
        if means and tell and not self._means_are_logged:
            log_condition(means)
            self._means_are_logged = True
        return given | means


def _is_of_shape(error: Exception) -> bool:
    """Whether an error of a program is one of shapes."""
    text = str(error)
    if type(error) is IndexError:
        return "Dimension out of range" in text
    of_program = programs.IN_A_PROGRAM in getattr(error, "__notes__", ())
    known = any(words in text for words in ("Trace Shapes", "cannot be multiplied", "must match the size"))
    return type(error) is RuntimeError and (of_program or known) and "same dtype" not in text


def _others(data: Mapping[str, Any], known: Collection[torch.dtype]) -> bool:
    """Whether arguments hold floating-point numbers of another type."""
    tensors = (value for value in data.values() if isinstance(value, Tensor) and value.is_floating_point())
    return any(value.dtype not in known for value in tensors)
