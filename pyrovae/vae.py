"""A Pyro model and a Pyro guide as one module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae import programs
from pyrovae.data.dataset import Dataset, DataSpec
from pyrovae.infer.functional import LogLikelihood, LogWeightSum
from pyrovae.infer.log_weights import can_vectorize, data_plate, log_condition, log_weights, per_datum

OUTPUTS = ("draw", "mean", "mode")


class Forward(NamedTuple):
    """What `VAE.forward` returns."""

    reconstruction: Tensor
    """Mean of p(x|z) at one draw of z, shaped like the data."""
    nll: Tensor
    """-log p(x|z) at that draw, `[B]`, in nats."""
    kl: Tensor
    """KL(q(z|x) || p(z)), `[B]`, in nats: exact where torch has the pair registered, else from that draw, as for layers
    that model and guide draw in opposite orders."""


class MadeBy(NamedTuple):
    """How a pair was put together: enough to put it together again."""

    pair: str
    """Its name in the registry, or `module:function`."""
    options: Mapping[str, Any]
    """Options of the pair."""
    spec: DataSpec
    """What the builder knew of the data."""


class VAE(nn.Module):
    """A complete variational autoencoder made of a Pyro model and a Pyro guide of one signature.

    Both are `PyroModule`s or plain callables: functions, bound methods of an `nn.Module`, functions that call
    `pyro.module` and `pyro.param`. Everything is done through effect handlers, so nothing is inherited from. The
    parameters of both belong to the VAE, those of param sites included (these are found with the first data, or with
    `example`), and Pyro's global parameter store is left as it was by every method.

    Methods that take `x` `[B, ...]` also take `mask` `[B, ...]` (True = observed), `y` `[B]` (-1 = unknown) and
    `index` `[B]`, which are handed to programs that have such an argument.

    Args:
        model: the model; its single observed site is the data.
        guide: the guide; its sample sites are the latents.
        observed: the data site of a model that observes several.
        latent: the latent sites, where not all sites of the guide are meant.
        example: one datum or a batch of data, for programs that need data to run: `sample` and `decode` of such a
            pair work only once data have been seen.

    Raises:
        ValueError: if the data site is ambiguous, or two different parameters share a name.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)
    >>> def guide(x):
    ...     scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 3, scale).to_event(1))
    >>> vae = VAE(model, guide, example=torch.zeros(5, 1))
    >>> [name for name, _ in vae.named_parameters()], vae.log_likelihood(torch.zeros(5, 1), num_samples=10).shape
    (['param_sites.scale'], torch.Size([5]))
    """

    def __init__(
        self,
        model: programs.Program,
        guide: programs.Program,
        *,
        observed: str | None = None,
        latent: tuple[str, ...] | None = None,
        example: Tensor | None = None,
    ) -> None:
        super().__init__()
        for label, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(f"{label} must be callable, got {type(program).__name__}")
        programs.check_names(programs.module_parameters(model), programs.module_parameters(guide))
        # Plain attributes: a bound method is no module, and a shared owner must be registered once.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "guide", guide)
        self.owners = nn.ModuleDict()
        seen: set[int] = set()
        for label, program in (("model", model), ("guide", guide)):
            for name, module in programs.owned_modules(program).items():
                if id(module) not in seen:
                    self.owners[f"{label}_{name}" if name else label] = module
                    seen.add(id(module))
        self.param_sites = nn.ParameterDict()
        self._site_names: dict[str, str] = {}  # key in param_sites -> name of the param site
        self._constraints: dict[str, Any] = {}
        self._requested = (observed, latent)
        self._sites: programs.Sites | None = None
        self._collected = False  # whether the parameters of param sites are known
        self._foreign = False  # whether there are parameters of modules that only the programs know
        # A datum of zeros, to run programs that need data; a buffer, so that it follows device and type.
        self.register_buffer("_datum", None, persistent=False)
        self._vectorize: bool | None = None
        self._told_of_means = False
        self.made_by: MadeBy | None = None
        if example is not None:
            self.prepare(example)

    # -- what the pair looks like -------------------------------------------------------------------------------------

    @property
    def has_hidden_modules(self) -> bool:
        """Whether the programs work with modules that cannot be found from outside, but by the parameters they show."""
        return self._foreign

    @property
    def sites(self) -> programs.Sites:
        """The names of the data site and the latent sites, and the depth of the plates."""
        if self._sites is None:
            if not programs.runs_without_data(self.model):
                raise RuntimeError(
                    f"{programs.describe(self.model)} needs data to run, and this VAE has seen none: "
                    "give VAE(..., example=x), or call a method with data first"
                )
            # The library's own pairs run without data, and call the data site "x".
            with self.scope(), programs.evaluating(self), torch.no_grad(), torch.random.fork_rng():
                trace = poutine.trace(self.model).get_trace(size=1)
                self._adopt_all(pyro.get_param_store().get_state())
            observed, latent = self._requested
            names = programs.sample_sites(trace)
            observed = observed or "x"
            if observed not in names:
                raise ValueError(f"the model has no site {observed!r}; its sites are {sorted(names)}")
            shared = tuple(name for name, site in names.items() if programs.is_global(site))
            latent = latent or tuple(name for name in names if name != observed and name not in shared)
            classes = programs.categorical_sites(names, latent)
            self._sites = programs.Sites(observed, latent, programs.plate_nesting(trace), shared, classes)
            self._datum = torch.zeros_like(trace.nodes[observed]["value"][0])
        return self._sites

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of "model" and "guide"; one that both have stands in "model"."""
        shared = {
            id(p) for name, module in self.owners.items() if name.startswith("model") for p in module.parameters()
        }
        groups: dict[str, list[nn.Parameter]] = {"model": [], "guide": []}
        for parameter in self.parameters():
            groups["model" if id(parameter) in shared else "guide"].append(parameter)
        return groups

    def prepare(self, x: Tensor, **data: Tensor | None) -> VAE:
        """Find the sites and collect the parameters of param sites from one run on `x`; later calls do nothing.

        Raises:
            ValueError: if the data site is ambiguous, or two different parameters share a name.
        """
        given = programs.keywords(self.model, self.guide, **data)
        if not len(x):
            raise ValueError(f"x must hold at least one row, got shape {tuple(x.shape)}")
        if self._datum is None or self._datum.shape != x.shape[1:]:
            self._datum = torch.zeros_like(x[0])
        if self._collected:
            return self
        store = pyro.get_param_store()
        with torch.random.fork_rng(), torch.no_grad(), programs.evaluating(self):
            # A store of its own for each program, since a shared one hides the second parameter of a name.
            with store.scope() as guide_state:
                guide_trace = poutine.trace(self.guide).get_trace(x, **given)
            with store.scope() as model_state:
                replayed = poutine.replay(self.model, trace=guide_trace)
                model_trace = poutine.trace(replayed).get_trace(x, **given)
        programs.check_names(model_state["params"], guide_state["params"])
        self._sites = programs.find_sites(model_trace, guide_trace, *self._requested)
        self._adopt_all(guide_state)
        self._adopt_all(model_state)
        self._collected = True
        return self

    def _adopt_all(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the parameters of a store, those of modules aside, parameters of this VAE."""
        owned = {id(parameter) for parameter in self.owners.parameters()}
        for name, value in state["params"].items():
            key = name.replace(".", "/")
            if id(value) in owned or key in self.param_sites:
                continue
            self._foreign |= isinstance(value, nn.Parameter)
            self.param_sites[key] = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            self._site_names[key] = name
            self._constraints[name] = state["constraints"][name]

    def __deepcopy__(self, memo: dict[int, Any]) -> VAE:
        """Copy the pair with its parameters.

        Raises:
            TypeError: if a program is a function that works with modules, because a copy would go on using those of
                the original.
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

    @contextmanager
    def scope(self) -> Iterator[None]:
        """A context in which Pyro's parameter store holds this pair's parameters and nothing else.

        On leaving, the store is what it was. Every method of VAE and the Trainer work in it, so that pairs in one
        process never meet; nested scopes of one VAE are cheap.
        """
        params = {self._site_names[key]: value for key, value in self.param_sites.items()}
        with pyro.get_param_store().scope({"params": params, "constraints": dict(self._constraints)}):
            yield

    # -- inference ----------------------------------------------------------------------------------------------------

    def posterior(self, x: Tensor, **data: Tensor | None) -> dict[str, TorchDistribution]:
        """The guide's distribution of every latent site, each of batch shape `[B]`.

        Where a site depends on another one (several layers), it is given at a draw of that one.
        """
        trace = self._guide_trace(x, data)
        return {name: trace.nodes[name]["fn"] for name in self.sites.latent}

    def encode(self, x: Tensor, **data: Tensor | None) -> TorchDistribution | dict[str, TorchDistribution]:
        """The guide's distribution q(z|x) of the latent; a dictionary by site where there are several."""
        posterior = self.posterior(x, **data)
        return next(iter(posterior.values())) if len(posterior) == 1 else posterior

    def decode(self, z: Tensor | Mapping[str, Tensor], **data: Tensor | None) -> TorchDistribution:
        """The model's distribution p(x|z) of the data, for latents `[B, ...]` (by site where there are several).

        Latent sites that are not given are drawn from the model.
        """
        if isinstance(z, Tensor):
            if len(self.sites.latent) != 1:
                raise ValueError(f"this pair has the latent sites {self.sites.latent}; give a dictionary by site")
            z = {self.sites.latent[0]: z}
        unknown = sorted(set(z) - set(self.sites.latent))
        if unknown or not z:
            raise ValueError(f"decode got the latents {sorted(z)}; this pair has {self.sites.latent}")
        program = poutine.condition(self.model, data=dict(z))
        trace = self._model_trace(program, len(next(iter(z.values()))), data)
        return trace.nodes[self.sites.observed]["fn"]

    def forward(self, x: Tensor, **data: Tensor | None) -> Forward:
        """Reconstruction, negative log-likelihood and KL of every datum at one draw of the latents.

        Raises:
            NotImplementedError: if the distribution of the data has no mean; `bound_terms` does without.
        """
        fn, nll, kl = self.bound_terms(x, **data)
        return Forward(self._as_data(fn.mean), nll, kl)

    def bound_terms(self, x: Tensor, **data: Tensor | None) -> tuple[TorchDistribution, Tensor, Tensor]:
        """p(x|z), negative log-likelihood `[B]` and KL `[B]` of every datum at one draw of the latents, in nats."""
        guide_trace = self._guide_trace(x, data)
        with self.scope():
            replayed = poutine.replay(self.model, trace=guide_trace)
            model_trace = poutine.trace(replayed).get_trace(x, **programs.keywords(self.model, **data))
        site = model_trace.nodes[self.sites.observed]
        latent = [guide_trace.nodes[name] for name in self.sites.latent]
        dim, rows, _ = data_plate([site], latent, len(x))
        log_p = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
        known = _known_divergences(list(guide_trace.nodes), list(model_trace.nodes), self.sites.latent)
        kl = [per_datum(_kl(q, model_trace.nodes[q["name"]], q["name"] in known), dim, None, rows)[0] for q in latent]
        return site["fn"], -per_datum(log_p, dim, None, rows)[0], sum(kl)

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Tensor,
        num_samples: int = 5000,
        *,
        chunk_size: int = 8192,
        condition: Mapping[str, Tensor] | None = None,
        return_details: bool = False,
        **data: Tensor | None,
    ) -> Tensor | LogLikelihood:
        """Importance-sampled log p(x) of every datum with the guide as proposal, `[B]`, in nats.

        Exactly `num_samples` samples are drawn for each datum. Memory is bounded by `chunk_size`, the largest number
        of pairs of datum and sample that are evaluated at once.

        Args:
            x: data `[B, ...]`.
            num_samples: importance samples a datum.
            chunk_size: pairs of datum and sample evaluated at once.
            condition: values of latent sites outside the data plate; those that are marked as global
                (`programs.is_global`) and not given stand at the mean of the guide's distribution, with a log line.
            return_details: return a `LogLikelihood` with standard error and effective sample size.
            **data: `mask`, `y`, `index`.

        Reference: Burda, Grosse and Salakhutdinov (2016), equation 8 with k = `num_samples`.
        """
        for name, value in (("num_samples", num_samples), ("chunk_size", chunk_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.prepare(x, **data)
        given = programs.keywords(self.model, self.guide, **data)
        condition = self._with_global_means(condition)
        vectorize = num_samples > 1 and self.vectorizes(x, condition=condition, **data)
        # Few rows at a time and many samples of each: a chunk should hold more samples than the guide has work.
        rows = max(1, min(len(x), chunk_size // (min(num_samples, 64) if vectorize else 1)))
        parts = []
        with self.scope():
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                batch = {name: value[part] for name, value in given.items()}
                per_call = max(1, chunk_size // len(x[part])) if vectorize else 1
                parts.append(self._log_likelihood(x[part], num_samples, per_call, condition, batch))
        result = LogLikelihood(*(torch.cat(field) for field in zip(*parts, strict=True)))
        return result if return_details else result.value

    def _log_likelihood(
        self, x: Tensor, num_samples: int, per_call: int, condition: Mapping | None, data: dict[str, Tensor]
    ) -> LogLikelihood:
        total = LogWeightSum()
        while total.count < num_samples:
            count = min(per_call, num_samples - total.count)
            weights = log_weights(
                self.model,
                self.guide,
                count,
                x,
                condition=condition,
                max_plate_nesting=self.sites.max_plate_nesting,
                vectorize=count > 1,
                **data,
            )
            if weights.log_p.shape[1] != len(x):
                raise ValueError(
                    f"the plate over the data holds {weights.log_p.shape[1]} rows for {len(x)} rows of x; a pair that "
                    "draws a subsample of its own has no log-likelihood of each row"
                )
            total.add(weights.log_weight)
        return LogLikelihood(*(field.to(weights.log_p.dtype) for field in total.result()))

    def vectorizes(self, x: Tensor, *, condition: Mapping[str, Tensor] | None = None, **data: Tensor | None) -> bool:
        """Whether the pair can run many particles in one call; tried once, with the first data."""
        if self._vectorize is None:
            given = {name: value[:2] for name, value in programs.keywords(self.model, self.guide, **data).items()}
            nesting = self.prepare(x, **data).sites.max_plate_nesting
            condition = self._with_global_means(condition, tell=False)
            with self.scope(), programs.evaluating(self):
                self._vectorize = can_vectorize(self.model, self.guide, nesting, x[:2], condition=condition, **given)
        return self._vectorize

    # -- pictures of the model ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, num_samples: int, output: str = "draw", **data: Tensor | None) -> Tensor:
        """Draw data from the model, `[num_samples, ...]`.

        Args:
            num_samples: how many; all at one value of a global latent, its posterior mean.
            output: "draw" for draws of p(x|z), "mean" or "mode" for the mean or mode of p(x|z) at draws of z.
            **data: `y`, for models with a label.
        """
        _check_output(output)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        program = poutine.condition(poutine.uncondition(self.model), data=self._with_global_means(None))
        trace = self._model_trace(program, num_samples, data)
        site = trace.nodes[self.sites.observed]
        return self._as_data(site["value"] if output == "draw" else getattr(site["fn"], output))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, **data: Tensor | None) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), shaped like `x`; discrete latents are drawn."""
        with MeanMessenger():
            trace = self._guide_trace(x, data)
        latents = {name: trace.nodes[name]["value"] for name in self.sites.latent}
        return self._as_data(self.decode(latents, **data).mean)

    # -- folders ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, data: Dataset | DataSpec | None = None, *, overwrite: bool = False) -> None:
        """Write the VAE to a folder that the command line reads, see `pyrovae.runs.save`."""
        from pyrovae.runs import saving  # not above: runs are made of VAEs

        saving.save(self, folder, data, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, pair: str | Callable[..., VAE] | VAE | None = None, device: str = "cpu") -> VAE:
        """Read a VAE from a folder that `save` or a training wrote, see `pyrovae.runs.load`."""
        from pyrovae.runs import saving

        return saving.load(folder, pair, device)

    # -- inner workings -----------------------------------------------------------------------------------------------

    def _guide_trace(self, x: Tensor, data: Mapping[str, Tensor | None]) -> poutine.Trace:
        self.prepare(x, **data)
        with self.scope():
            return poutine.trace(self.guide).get_trace(x, **programs.keywords(self.guide, **data))

    def _model_trace(self, program: programs.Program, size: int, data: Mapping[str, Tensor | None]) -> poutine.Trace:
        if self._sites is None:
            _ = self.sites
        given = programs.keywords(self.model, **data)
        with self.scope():
            if programs.runs_without_data(self.model):
                return poutine.trace(program).get_trace(size=size, **given)
            blank = self._datum.expand(size, *self._datum.shape)
            return poutine.trace(program).get_trace(blank, **given)

    @torch.no_grad()
    def global_means(self) -> dict[str, Tensor]:
        """The guide's means of latents that belong to no datum (`programs.is_global`), by site."""
        if not self.sites.shared:
            return {}
        with self.scope(), programs.evaluating(self), torch.random.fork_rng():
            return programs.global_means(self.guide, self._datum.unsqueeze(0))

    def _with_global_means(self, condition: Mapping[str, Tensor] | None, *, tell: bool = True) -> dict[str, Tensor]:
        """The given values of latent sites outside the data plate, and the guide's means of the other global ones."""
        given = dict(condition or {})
        if given.keys() >= set(self.sites.shared):
            return given
        means = {name: value for name, value in self.global_means().items() if name not in given}
        if tell and not self._told_of_means:
            log_condition(means)
            self._told_of_means = True
        return given | means

    def _as_data(self, value: Tensor) -> Tensor:
        """Give values of the data site the shape of the data, where a program flattens them."""
        shape = value.shape[1:] if self._datum is None else self._datum.shape
        return value.reshape(len(value), *shape) if value[0].numel() == shape.numel() else value


class MeanMessenger(Messenger):
    """Give every latent site the mean of its distribution where that is a possible value, instead of a draw."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"] and not msg["done"] and getattr(msg["fn"], "has_rsample", False):
            with suppress(NotImplementedError):  # a transformed distribution, say, has no mean and is drawn
                msg["value"] = msg["fn"].mean
                msg["done"] = True


def _check_output(output: str) -> None:
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")


def _known_divergences(guide: Sequence[str], model: Sequence[str], latent: Sequence[str]) -> set[str]:
    """The latents whose divergence may be taken in closed form, from the order of the sites in both programs.

    In the closed form the model's distribution is given. It is not where it may depend on a latent that the model draws
    first and the guide later, and so perhaps from this one, as in layers that the guide infers from the data upwards.
    """
    return {
        name
        for name in latent
        if not set(guide[guide.index(name) + 1 :]) & set(model[: model.index(name)]) & set(latent)
    }


def _kl(guide_site: Mapping[str, Any], model_site: Mapping[str, Any], known: bool) -> Tensor:
    try:
        if not known:
            raise NotImplementedError
        value = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        z = guide_site["value"]
        value = guide_site["fn"].log_prob(z) - model_site["fn"].log_prob(z)
    return scale_and_mask(value, mask=guide_site["mask"])
