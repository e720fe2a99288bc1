"""Run the programs of a pair on lists of tensors, with batch and samples first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.blackbox.networks import Tensors
from pyrovae.infer.log_weights import log_weights
from pyrovae.infer.scoring import Scorer
from pyrovae.rng import forked
from pyrovae.sites import PARTICLES, latent_sites, nodes_of, row_dim, sample_sites
from pyrovae.vae import VAE


class _Layout(NamedTuple):
    """Where the rows of the data are in the values of the latent sites."""

    rows: int
    data_dim: int
    event_dims: dict[str, int]
    shapes: dict[str, torch.Size]  # of the draws of one particle


class Programs:
    """Runs the programs of a pair, and converts values of sites to latents ``[batch, samples, ...]`` and back.

    Parameters
    ----------
    vae : VAE
        The pair. It has seen data or was given `example=`.
    arguments : sequence of str, default ()
        Names of the data tensors after the first: "mask", "y" or "index".
    """

    def __init__(self, vae: VAE, arguments: Sequence[str]) -> None:
        self.vae, self.arguments = vae, tuple(arguments)
        self.names = tuple(sorted(vae.sites.latent))
        self.depth = max(1, vae.sites.max_plate_nesting)
        self.layout = _Layout(-1, -1, {}, {})  # of no data
        self.checked = False

    def owned(self, program: programs.Program) -> tuple[nn.ModuleDict, nn.ParameterDict]:
        """Return the modules and the parameters of param sites that a program uses.

        Parameters
        ----------
        program : callable
            The model or the guide.

        Returns
        -------
        modules : torch.nn.ModuleDict
            The modules.
        parameters : torch.nn.ParameterDict
            The parameters of param sites that are not in the modules.
        """
        modules = nn.ModuleDict({name or "program": part for name, part in programs.owned_modules(program).items()})
        known = {id(parameter) for parameter in modules.parameters()}
        parameters = nn.ParameterDict()
        if self.vae.param_sites:
            with self.vae.scope(), torch.no_grad(), forked(), programs.evaluating(self.vae):
                trace = programs.trace(program, (self.blank(2),))
            for name, site in trace.nodes.items():
                parameter = self.vae.param_sites.get(self.vae.key_of(name)) if site["type"] == "param" else None
                if parameter is not None and id(parameter) not in known:
                    parameters[self.vae.key_of(name)] = parameter
        return modules, parameters

    def look_at(self, data: list[Tensor]) -> dict[str, dict[str, Any]]:
        """Run the guide on new data, store the layout of its draws, and return its latent sites.

        It leaves the state of the caller's random numbers unchanged. So later draws equal those of the same pair
        elsewhere.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data tensors, as many as there are names.

        Returns
        -------
        dict of str to dict
            Pyro's site by name.

        Raises
        ------
        ValueError
            The guide draws a site that is not among the latents of the VAE, or the number of data tensors is wrong.
        """
        x, given = self.split(data)
        with self.vae.scope(), forked():
            if not self.checked:
                with torch.no_grad(), programs.evaluating(self.vae):
                    log_weights(self.vae.model, self.vae.guide, 1, x, **given)  # refuses what has no weight per datum
                self.checked = True
            self.vae.prepare(x, **given)
            trace = programs.trace(self.vae.guide, (x,), given)
        sites = {name: nodes_of(trace)[name] for name in self.names}
        dim = row_dim(next(iter(sites.values())), self.vae.sites.plates)
        for name in latent_sites(trace):
            if name not in sites:
                raise ValueError(f"site {name!r} of the guide is not among the latents of the VAE, {self.names}")
        self.layout = _Layout(
            len(x),
            -1 if dim is None else dim,
            {name: site["fn"].event_dim for name, site in sites.items()},
            {name: site["value"].shape for name, site in sites.items()},
        )
        return sites

    def split(self, data: Sequence[Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Return the first data tensor, and the others by name.

        Parameters
        ----------
        data : sequence of Tensor
            The data tensors.

        Returns
        -------
        x : Tensor
            The first one.
        given : dict of str to Tensor
            The others.

        Raises
        ------
        ValueError
            There are more or fewer tensors than names.
        """
        if len(data) != 1 + len(self.arguments):
            raise ValueError(
                f"data are the tensors {', '.join(('x', *self.arguments))}, got {len(data)} of them; "
                "arguments= names those after the first"
            )
        x, *more = data
        return x, programs.keywords(self.vae.model, self.vae.guide, **dict(zip(self.arguments, more, strict=True)))

    def draw(self, data: list[Tensor], count: int) -> list[Tensor]:
        """Draw from the guide.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.
        count : int
            Samples per datum.

        Returns
        -------
        list of Tensor, each ``[batch, count, ...]``
            The latents, in the order of the names of the sites.
        """
        x, given = self.split(data)
        vectorized = self._vectorizes(data, count)
        program = self._in_plate(self.vae.guide, count) if vectorized else self.vae.guide
        parts = []
        with self.vae.scope():
            for _ in range(1 if vectorized else count):
                trace = programs.trace(program, (x,), given)
                parts.append([self._to_latent(name, nodes_of(trace)[name]["value"]) for name in self.names])
        return [torch.cat(values, 1) for values in zip(*parts, strict=True)]

    def log_prob(
        self, which: str, data: list[Tensor], latents: Tensors, wanted: Collection[str] | None = None
    ) -> Tensor:
        """Compute the log-probability of the sites of a program, per row and sample.

        Parameters
        ----------
        which : {"model", "guide"}
            The program.
        data : list of Tensor, each ``[batch, ...]``
            The data.
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.
        wanted : collection of str, optional
            Sites to count. None counts all.

        Returns
        -------
        Tensor
            Log-probability in nats, shape ``[batch, samples]``.
        """
        self._ensure_layout(data)
        count = latents[0].shape[1]
        vectorized = self._vectorizes(data, count)
        columns = [latents] if vectorized else [[value[:, k : k + 1] for value in latents] for k in range(count)]
        rows, scorer = len(data[0]), Scorer(self.vae.layout)
        particles = (-self.depth - 1, count) if vectorized else None
        parts = []
        for column in columns:
            sites = sample_sites(self._replayed(which, data, column, vectorized=vectorized))
            terms = [
                scorer.per_datum(scale_and_mask(s["fn"].log_prob(s["value"]), mask=s["mask"]), s, particles, rows)
                for name, s in sites.items()
                if wanted is None or name in wanted
            ]
            parts.append(reduce(add, terms))
        return torch.cat(parts).T

    def data_site(self, data: list[Tensor], latents: Tensors) -> Mapping[str, Any]:
        """Return Pyro's data site of the model, for one sample of the latents."""
        self._ensure_layout(data)
        return nodes_of(self._replayed("model", data, latents, vectorized=False))[self.vae.sites.observed]

    def dream(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Draw data and latents from the model.

        Parameters
        ----------
        count : int
            Number of rows.

        Returns
        -------
        data : list of Tensor, each ``[count, ...]``
            The data: one tensor.
        latents : list of Tensor, each ``[count, 1, ...]``
            The latents of each row.

        Raises
        ------
        ValueError
            The data have more tensors than the one that the model generates.
        """
        if self.arguments:
            raise ValueError(f"the model dreams x alone, and the data have {', '.join(self.arguments)} too")
        trace = self.vae._decoding.trace(programs.unconditioned, count, None, {}, draws_data=True)
        self._ensure_layout([self.blank(count)])
        latents = [self._to_latent(name, nodes_of(trace)[name]["value"]) for name in self.names]
        data = self.vae._decoding.values(trace, "draw")
        if not isinstance(data, Tensor):
            raise ValueError(
                f"the model dreams one data site, and this one has {sorted(data)}; VAE(..., observed=NAME)"
            )
        return [data], latents

    def blank(self, rows: int) -> Tensor:
        """Return data of zeros, shape ``[rows, ...]``, for programs that need data to run."""
        return self.vae.blank(rows)

    def _ensure_layout(self, data: list[Tensor]) -> None:
        """Run the guide once if the layout is unknown for data with this number of rows."""
        if self.layout.rows != len(data[0]):
            with torch.no_grad(), programs.evaluating(self.vae):
                self.look_at(data)

    def _vectorizes(self, data: list[Tensor], count: int) -> bool:
        x, given = self.split(data)
        return count > 1 and self.vae.vectorizes(x, **given)

    def _in_plate(self, program: programs.Program, count: int) -> programs.Program:
        return pyro.plate(PARTICLES, count, dim=-self.depth - 1)(program)

    def _to_latent(self, name: str, value: Tensor) -> Tensor:
        """The value of a site, with batch and samples first."""
        event_dim = self.layout.event_dims[name]
        missing = self.depth + 1 + event_dim - value.dim()
        value = value.reshape((1,) * missing + value.shape)
        return value.movedim((self.layout.data_dim - event_dim, -self.depth - 1 - event_dim), (0, 1))

    def _to_site(self, name: str, value: Tensor, vectorized: bool) -> Tensor:
        """The inverse of `_to_latent`.

        Without a plate over the particles, the value has the shape that the program gives it.
        """
        event_dim = self.layout.event_dims[name]
        value = value.movedim((0, 1), (self.layout.data_dim - event_dim, -self.depth - 1 - event_dim))
        return value if vectorized else value.reshape(self.layout.shapes[name])

    def _replayed(self, which: str, data: list[Tensor], latents: Tensors, *, vectorized: bool) -> Trace:
        """A trace of the model or the guide with given latents."""
        if len(latents) != len(self.names):
            raise ValueError(f"the latents are those of the sites {self.names}, got {len(latents)} tensors")
        x, given = self.split(data)
        values = Trace()
        for name, value in zip(self.names, latents, strict=True):
            site = self._to_site(name, value, vectorized)
            values.add_node(name, name=name, type="sample", value=site, is_observed=False, infer={})
        program = poutine.replay(getattr(self.vae, which), trace=values)
        if vectorized:
            program = self._in_plate(program, latents[0].shape[1])
        with self.vae.scope():
            return programs.trace(program, (x,), given)


def parameters_of(distribution: Any) -> Mapping[str, Tensor]:
    """Return the parameters of a distribution in all their forms.

    Parameters
    ----------
    distribution : Distribution
        The distribution. For an independent or masked one, the parameters are those of its base.

    Returns
    -------
    mapping of str to Tensor
        The parameters by name, for example both `probs` and `logits`.
    """
    while not distribution.arg_constraints and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    values = {name: getattr(distribution, name) for name in distribution.arg_constraints}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
