"""A Pyro pair as an inference network and a generative model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors
from pyrovae.infer.log_weights import data_plate, log_weights, per_datum
from pyrovae.vae import VAE


def from_vae(
    vae: VAE, num_samples: int = 1, *, arguments: Sequence[str] = ()
) -> tuple[PyroInferenceNetwork, PyroGenerativeModel]:
    """The two halves of a pair as networks, for every loss of this package.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        num_samples: samples a datum where a loss does not say.
        arguments: what the data tensors after the first are called: "mask", "y", "index".

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Bernoulli(0.5))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Bernoulli(logits=x))
    >>> q, p = from_vae(VAE(model, guide, example=torch.zeros(3)), num_samples=5)
    >>> q([torch.zeros(3)]).sample()[0].shape
    torch.Size([3, 5])
    """
    return (
        PyroInferenceNetwork(vae, num_samples, arguments=arguments),
        PyroGenerativeModel(vae, arguments=arguments),
    )


class PyroInferenceNetwork(InferenceNetwork):
    """The guide of a pair: its latents are those of its sites, in the order of the sites' names.

    `params_` holds the parameters of the distribution of every site, as "site.parameter", for one draw of the sites
    it depends on. Sites with and without reparameterised draws may be mixed.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        num_samples: samples a datum where `sample` is not told.
        arguments: what the data tensors after the first are called.
    """

    def __init__(self, vae: VAE, num_samples: int = 1, *, arguments: Sequence[str] = ()) -> None:
        super().__init__(num_samples)
        self._programs = _Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.guide)
        self._data: list[Tensor] | None = None

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The sites that the latents belong to."""
        return self._programs.names

    def parameterise(self, data: list[Tensor]) -> dict[str, Tensor]:
        """The distributions' parameters by site."""
        self._data = data
        trace = self._programs.look_at(data)
        return {
            f"{name}.{parameter}": value
            for name in self.latent_names
            for parameter, value in _parameters(trace.nodes[name]["fn"]).items()
        }

    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        """Draws of every site, `[batch, samples, ...]`, with gradients where they are reparameterised."""
        count = self.num_samples if num_samples is None else num_samples
        return self._programs.draw(self._called(), count)

    def log_prob(self, latents: Tensors) -> Tensor:
        """The log-density q(z | x), `[batch, samples]`, in nats."""
        return self._programs.log_prob("guide", self._called(), latents, lambda site: True)

    def log_score(self, latents: Tensors, log_q: Tensor) -> Tensor:
        """The part of the sites without reparameterised draws."""
        if self._programs.reparameterised:
            return torch.zeros_like(log_q)
        return self._programs.log_prob("guide", self._called(), latents, lambda site: not site["fn"].has_rsample)

    def _called(self) -> list[Tensor]:
        if self._data is None:
            raise RuntimeError("call the inference network with data first: inference_network([x]).sample()")
        return self._data


class PyroGenerativeModel(GenerativeModel):
    """The model of a pair; its latents are those of the guide's sites, in the order of the sites' names.

    `params_` holds the parameters of the distribution of the data site, as "site.parameter", at the first sample of
    the latents.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        arguments: what the data tensors after the first are called.
    """

    def __init__(self, vae: VAE, *, arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self._programs = _Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.model)

    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> dict[str, Tensor]:
        """The parameters of the data site's distribution."""
        self._programs.ensure_layout(data)
        trace = self._programs.replayed("model", data, [value[:, :1] for value in latents], vectorized=False)
        name = self._programs.vae.sites.observed
        return {f"{name}.{key}": value for key, value in _parameters(trace.nodes[name]["fn"]).items()}

    @torch.no_grad()
    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Data `[num_samples, ...]` and their latents `[num_samples, 1, ...]`.

        Raises:
            ValueError: if the data have more tensors than the one that the model generates.
        """
        return self._programs.dream(num_samples)

    def log_prob(self, data: Tensors, latents: Tensors) -> Tensor:
        """The joint log-density, `[batch, samples]`, in nats; masks apply."""
        return self._programs.log_prob("model", list(data), latents, lambda site: True)


class _Layout(NamedTuple):
    """Where the rows of the data lie in the values of the latent sites."""

    rows: int
    data_dim: int
    event_dims: dict[str, int]
    shapes: dict[str, torch.Size]  # of the draws of one particle


class _Programs:
    """The programs of a pair at work on lists of tensors."""

    def __init__(self, vae: VAE, arguments: Sequence[str]) -> None:
        self.vae, self.arguments = vae, tuple(arguments)
        self.names = tuple(sorted(vae.sites.latent))
        self.depth = max(1, vae.sites.max_plate_nesting)
        self.layout: _Layout | None = None
        self.reparameterised = False
        self.checked = False

    def owned(self, program: programs.Program) -> tuple[nn.ModuleDict, nn.ParameterDict]:
        """The modules and the parameters of param sites that a program works with."""
        modules = nn.ModuleDict({name or "program": part for name, part in programs.owned_modules(program).items()})
        known = {id(parameter) for parameter in modules.parameters()}
        parameters = nn.ParameterDict()
        if self.vae.param_sites:
            rows = self.blank(2)
            with self.vae.scope(), torch.no_grad(), torch.random.fork_rng(), programs.evaluating(self.vae):
                trace = poutine.trace(program).get_trace(rows)
            for name, site in trace.nodes.items():
                key = name.replace(".", "/")
                if site["type"] == "param" and key in self.vae.param_sites:
                    parameter = self.vae.param_sites[key]
                    if id(parameter) not in known:
                        parameters[key] = parameter
        return modules, parameters

    def look_at(self, data: list[Tensor]) -> Trace:
        """Run the guide on new data once, and see how its draws are laid out."""
        x, given = self.split(data)
        with self.vae.scope():
            if not self.checked:
                with torch.no_grad(), torch.random.fork_rng(), programs.evaluating(self.vae):
                    log_weights(self.vae.model, self.vae.guide, 1, x, **given)  # refuses what has no weight per datum
                self.checked = True
            trace = poutine.trace(self.vae.guide).get_trace(x, **given)
        sites = [trace.nodes[name] for name in self.names]
        self.layout = _Layout(
            len(x),
            data_plate(sites, sites, len(x))[0],
            {site["name"]: site["fn"].event_dim for site in sites},
            {site["name"]: site["value"].shape for site in sites},
        )
        self.reparameterised = all(site["fn"].has_rsample for site in sites)
        return trace

    def ensure_layout(self, data: list[Tensor]) -> None:
        """Run the guide once if the layout is not known for data of so many rows."""
        if self.layout is None or self.layout.rows != len(data[0]):
            with torch.no_grad(), torch.random.fork_rng(), programs.evaluating(self.vae):
                self.look_at(data)

    def split(self, data: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The first data tensor, and the others by name."""
        if len(data) != 1 + len(self.arguments):
            raise ValueError(
                f"data are the tensors {', '.join(('x', *self.arguments))}, got {len(data)} of them; "
                "arguments= names those after the first"
            )
        x, *more = data
        return x, programs.keywords(self.vae.model, self.vae.guide, **dict(zip(self.arguments, more, strict=True)))

    def vectorizes(self, data: list[Tensor], count: int) -> bool:
        x, given = self.split(data)
        return count > 1 and self.vae.vectorizes(x, **given)

    def in_plate(self, program: programs.Program, count: int) -> programs.Program:
        return pyro.plate("num_particles_vectorized", count, dim=-self.depth - 1)(program)

    def draw(self, data: list[Tensor], count: int) -> list[Tensor]:
        """Draws of the guide, `[batch, count, ...]` by site."""
        x, given = self.split(data)
        vectorized = self.vectorizes(data, count)
        program = self.in_plate(self.vae.guide, count) if vectorized else self.vae.guide
        parts = []
        with self.vae.scope():
            for _ in range(1 if vectorized else count):
                trace = poutine.trace(program).get_trace(x, **given)
                parts.append([self.to_latent(name, trace.nodes[name]["value"]) for name in self.names])
        return [torch.cat(values, 1) for values in zip(*parts, strict=True)]

    def to_latent(self, name: str, value: Tensor) -> Tensor:
        """The value of a site, batch and samples first."""
        event_dim = self.layout.event_dims[name]
        missing = self.depth + 1 + event_dim - value.dim()
        value = value.reshape((1,) * missing + value.shape)
        return value.movedim((self.layout.data_dim - event_dim, -self.depth - 1 - event_dim), (0, 1))

    def to_site(self, name: str, value: Tensor, vectorized: bool) -> Tensor:
        """The inverse of `to_latent`; without a plate over the particles, in the shape that the program gives it."""
        event_dim = self.layout.event_dims[name]
        value = value.movedim((0, 1), (self.layout.data_dim - event_dim, -self.depth - 1 - event_dim))
        return value if vectorized else value.reshape(self.layout.shapes[name])

    def replayed(self, which: str, data: list[Tensor], latents: Sequence[Tensor], *, vectorized: bool) -> Trace:
        """A trace of the model or the guide with given latents."""
        if len(latents) != len(self.names):
            raise ValueError(f"the latents are those of the sites {self.names}, got {len(latents)} tensors")
        x, given = self.split(data)
        values = Trace()
        for name, value in zip(self.names, latents, strict=True):
            site = self.to_site(name, value, vectorized)
            values.add_node(name, name=name, type="sample", value=site, is_observed=False, infer={})
        program = poutine.replay(getattr(self.vae, which), trace=values)
        if vectorized:
            program = self.in_plate(program, latents[0].shape[1])
        with self.vae.scope():
            return poutine.trace(program).get_trace(x, **given)

    def log_prob(
        self, which: str, data: list[Tensor], latents: Tensors, wanted: Callable[[Mapping[str, Any]], bool]
    ) -> Tensor:
        """Log-probability of those sites of a program that are wanted, `[batch, samples]`."""
        count = latents[0].shape[1]
        vectorized = self.vectorizes(data, count)
        columns = [latents] if vectorized else [[value[:, k : k + 1] for value in latents] for k in range(count)]
        rows, data_dim = len(data[0]), self.layout.data_dim
        particles = (-self.depth - 1, count) if vectorized else None
        keep = (particles[0], data_dim) if vectorized else data_dim
        parts = []
        for column in columns:
            trace = self.replayed(which, data, column, vectorized=vectorized)
            terms = [
                per_datum(scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"]), keep, particles, rows)
                for site in programs.sample_sites(trace).values()
                if wanted(site)
            ]
            parts.append(sum(terms))
        return torch.cat(parts).T

    def dream(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Data and latents of the model, a row each."""
        if self.arguments:
            raise ValueError(f"the model dreams x alone, and the data have {', '.join(self.arguments)} too")
        trace = self.vae._model_trace(poutine.uncondition(self.vae.model), count, {})
        if self.layout is None:
            self.look_at([self.blank(count)])
        latents = [self.to_latent(name, trace.nodes[name]["value"]) for name in self.names]
        return [self.vae._as_data(trace.nodes[self.vae.sites.observed]["value"])], latents

    def blank(self, rows: int) -> Tensor:
        """Data of zeros, for programs that need some to run."""
        _ = self.vae.sites
        return self.vae._datum.expand(rows, *self.vae._datum.shape)


def _parameters(distribution: Any) -> dict[str, Tensor]:
    """The parameters of a distribution; those of the base of an independent, masked or expanded one."""
    while not distribution.arg_constraints and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    chosen = distribution.__dict__  # of probs and logits the one that was given
    return {name: chosen[name] for name in distribution.arg_constraints if isinstance(chosen.get(name), Tensor)}
