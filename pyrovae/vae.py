"""A Pyro model and a Pyro guide as one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import programs
from pyrovae.data.dataset import Dataset, DataSpec
from pyrovae.data.rows import cut
from pyrovae.infer.bound import bound_terms
from pyrovae.infer.density_checks import check_all_rows
from pyrovae.infer.functional import LogLikelihood
from pyrovae.infer.likelihood import check_compile, check_counts, log_likelihood
from pyrovae.infer.points import MeanMessenger
from pyrovae.layout import OutsidePlateError, outside_plate
from pyrovae.prepared import PreparedPair
from pyrovae.records import OUTPUTS, Forward, MadeBy
from pyrovae.sites import sample_sites
from pyrovae.support import refuse_impossible, refuse_outside

SOURCES = ("prior", "rows")
"""Where `VAE.sample` may take latents from."""
_FEW_STEPS, _FEW_STEPS_DRAWS = 50, 4
_TRIED = 64  # rows whose weights are looked at where the scale of the posterior is fixed

__all__ = ["OUTPUTS", "SOURCES", "VAE", "Forward", "MadeBy", "MeanMessenger"]


class VAE(PreparedPair):
    """A complete variational autoencoder made of a Pyro model and a Pyro guide of one signature.

    Both are `PyroModule`s or plain callables: functions, bound methods of an `nn.Module`, functions that call
    `pyro.module` and `pyro.param`. Everything is done through effect handlers, so nothing is inherited from. The
    parameters of both belong to the VAE, those of param sites included (these are found with the first data, or with
    `example`), and Pyro's global parameter store is left as it was by every method; `to_param_store` writes to it.

    Methods that take `x` `[B, ...]` also take `mask` `[B, ...]` (True = observed), `y` `[B]` (-1 = unknown) and
    `index` `[B]`, which are handed to programs that have such an argument.

    Parameters
    ----------
    model : callable
        The model; its observed sites are the data.
    guide : callable
        The guide; its sample sites are the latents.
    observed : str, optional
        The data site to show where a model observes several: `reconstruct`, `decode` and `sample` then return its
        values alone. All of them count in every figure.
    latent : tuple of str, optional
        The latent sites, where not all sites of the guide are meant.
    example : Tensor or dict of str to Tensor, optional
        One batch of data, or of arguments by name where there are several, for programs that need data to run: `sample`
        and `decode` of such a pair work only once data have been seen.

    Raises
    ------
    ValueError
        If nothing is observed, two different parameters share a name, or a batch dimension stands in no plate.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
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
        example: Tensor | Mapping[str, Any] | None = None,
    ) -> None:
        for label, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(f"{label} must be callable, got {type(program).__name__}")
        super().__init__(model, guide, observed, latent)
        self.made_by: MadeBy | None = None
        self._ranges_vary: dict[frozenset[str], bool] = {}  # whether ranges of latents vary, by what is given
        if isinstance(example, Mapping):
            first = programs.argument_names(model)[0]
            if first not in example:
                raise ValueError(f"example= must hold the data, {first!r}, got {sorted(example)}")
            self.prepare(example[first], **{name: value for name, value in example.items() if name != first})
        elif example is not None:
            self.prepare(example)

    def posterior(self, x: Tensor, **data: Tensor | None) -> dict[str, TorchDistribution]:
        """The guide's distribution of every latent site, each of batch shape `[B]`.

        Where a site depends on another one (several layers), it is given at a draw of that one.
        """
        trace = self._guide_trace(x, data)
        return {name: self._distribution(trace, name, x, data) for name in self.latents_of(trace)}

    def encode(self, x: Tensor, **data: Tensor | None) -> TorchDistribution | dict[str, TorchDistribution]:
        """The guide's distribution q(z|x) of the latent; a dictionary by site where there are several."""
        posterior = self.posterior(x, **data)
        if not posterior:
            raise ValueError(f"no latent of this pair belongs to a datum; those of all data are {self.sites.shared}")
        return next(iter(posterior.values())) if len(posterior) == 1 else posterior

    def decode(
        self, z: Tensor | Mapping[str, Tensor], *, data: Tensor | None = None, **given: Tensor | None
    ) -> TorchDistribution | dict[str, TorchDistribution]:
        """The model's distribution p(x|z) of the data, for latents `[B, ...]` (by site where there are several).

        Latent sites that are not given are drawn from the model; those of all data stand at the guide's mean.

        Parameters
        ----------
        z : Tensor or mapping from str to Tensor
            The latents.
        data : Tensor, optional
            Rows `[B, ...]` for a model that looks at its data beyond `obs=`.
        **given : Tensor
            Further arguments of the model, such as `y`.

        Raises
        ------
        ValueError
            If latents are unknown or missing, or cannot have their values, or the model needs `data`.
        """
        z = self.latents_by_site(z)
        values = {**self._decoding.shared_values(means=True, data=data), **z}
        rows = self.rows_of_latents(z) if data is None else len(data)
        conditioned = partial(poutine.condition, data=values)
        trace = self._decoding.trace(conditioned, rows, data, given, draws_data=False)
        for name in z:
            if name in trace:  # a draw of the guide alone is none of the model
                refuse_impossible(trace.nodes[name])
        return self._decoding.distributions(trace)

    def forward(self, x: Tensor, **data: Tensor | None) -> Forward:
        """Reconstruction, negative log-likelihood and KL of every datum at one draw of the latents.

        Raises
        ------
        NotImplementedError
            If the distribution of the data has no mean; `bound_terms` does without.
        """
        traces = self._traces(x, data)
        nll, kl = bound_terms(self._summed(traces, x, data), self.layout)
        return Forward(self._decoding.values(traces.model, "mean"), nll, kl)

    def bound_terms(
        self, x: Tensor, *, condition: Mapping[str, Tensor] | None = None, **data: Tensor | None
    ) -> tuple[Any, Tensor, Tensor]:
        """p(x|z), negative log-likelihood `[B]` and KL `[B]` of every datum at one draw of the latents, in nats.

        `condition` gives values of latents outside the plate over the data, which are drawn otherwise.
        """
        traces = self._traces(x, data, condition)
        terms = bound_terms(self._summed(traces, x, data, condition), self.layout)
        return self._decoding.distributions(traces.model), *terms

    @overload
    def log_likelihood(
        self, x: Tensor, num_samples: int = ..., *, return_details: Literal[False] = ..., **settings: Any
    ) -> Tensor: ...

    @overload
    def log_likelihood(
        self, x: Tensor, num_samples: int = ..., *, return_details: Literal[True], **settings: Any
    ) -> LogLikelihood: ...

    @overload
    def log_likelihood(
        self, x: Tensor, num_samples: int = ..., *, return_details: bool, **settings: Any
    ) -> Tensor | LogLikelihood: ...

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Tensor,
        num_samples: int = 5000,
        *,
        chunk_size: int = 8192,
        condition: Mapping[str, Tensor] | None = None,
        return_details: bool = False,
        compile: bool | str = "auto",
        **data: Tensor | None,
    ) -> Tensor | LogLikelihood:
        """Importance-sampled log p(x) of every datum with the guide as proposal, `[B]`, in nats.

        Exactly `num_samples` samples are drawn for each datum. Memory is bounded by `chunk_size`, the largest number
        of pairs of datum and sample that are evaluated at once; on the CPU there are fewer if the data are large.

        Parameters
        ----------
        x : Tensor
            Data `[B, ...]`.
        num_samples : int, default 5000
            Importance samples per datum.
        chunk_size : int, default 8192
            Pairs of datum and sample evaluated at once.
        condition : mapping from str to Tensor, optional
            Values of latent sites outside the plate over the data. Those that are marked as global
            (`sites.is_global`) and not given stand at the mean of the guide's distribution, with a log line.
        return_details : bool, default False
            Return a `LogLikelihood` with standard error and effective sample size.
        compile : bool or "auto", default "auto"
            "auto" runs the programs once for a group of rows, and for its other samples the operations that this run
            made, the encoder's aside, where there are many samples (some 500 of 100 rows) and the pair allows it. True
            also compiles these operations, which pays from minutes on: it needs a C++ compiler and some ten seconds.
            The figures are those of False, which runs the programs for all samples, up to rounding.
        **data : Tensor
            `mask`, `y`, `index` and further arguments of the programs. A tensor as long as `x` is taken for one with a
            row for each datum, and is cut with `x`; make one that is not an attribute of the programs.

        Raises
        ------
        CompileError
            If the pair is to be compiled (True) and cannot be, or there is no compiler.
        ValueError
            If a latent outside the plate over the data is given no value, the guide has no density (`Delta`), or a row
            is outside the support of the model, whose likelihood would be no figure.

        References
        ----------
        Burda, Grosse and Salakhutdinov (2016), equation 8 with k = `num_samples`.
        """
        check_counts(num_samples=num_samples, chunk_size=chunk_size)
        check_compile(compile)
        rows_guide = self._guide_of_rows()
        if rows_guide is not None and rows_guide.is_point:
            raise ValueError(
                "the posterior of each row is a point, which has no importance weights; fit one with a scale: "
                "vae.fit_posterior(x, mask, scale='learned').log_likelihood(x, mask=mask)"
            )
        self.prepare(x, **data)
        given = programs.keywords(self.model, self.guide, **data)
        condition = self._with_marked_means(condition)
        self._check_condition(condition)
        unknown = [name for name in self.sites.shared if name not in condition]
        if unknown:
            raise OutsidePlateError(outside_plate(unknown[0], observed=False))
        with self.telling_of_data(x, data):
            refuse_outside(self, x, given, min(chunk_size, 1024))
        vectorize = num_samples > 1 and self.vectorizes(x, condition=condition, **data)
        with self.scope():
            free = frozenset(condition)
            self._ranges_vary[free] = check_all_rows(self, x, given, condition, chunk_size, self._ranges_vary.get(free))
            how = chunk_size, vectorize, condition, given, compile
            result = log_likelihood(self, self.layout, x, num_samples, *how)
        if rows_guide is not None and rows_guide.has_fixed_scale and num_samples > 1:
            from pyrovae.infer.tails import warn_of_fixed_scale

            few = {name: self.cut_latent(name, value, slice(_TRIED), len(x)) for name, value in condition.items()}
            part = cut(given, slice(_TRIED), len(x))
            warn_of_fixed_scale(self, x[:_TRIED], part, few, result.effective_sample_size, num_samples)
        return result if return_details else result.value

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        output: str = "draw",
        *,
        data: Tensor | None = None,
        condition: Mapping[str, Tensor] | None = None,
        source: str = "prior",
        **given: Tensor | None,
    ) -> Tensor | dict[str, Tensor]:
        """Draw data from the model, `[num_samples, ...]`; by site where several are observed.

        Parameters
        ----------
        num_samples : int
            How many; all at one value of the latents of all data, which is a draw of the guide, or its mean for those
            that are marked as global.
        output : {"draw", "mean", "mode"}, default "draw"
            Draws of p(x|z), or the mean or mode of p(x|z) at draws of z.
        data : Tensor, optional
            Rows `[num_samples, ...]` for a model that looks at its data beyond `obs=`.
        condition : mapping from str to Tensor, optional
            Values of latents of all data, instead of a draw or a mean.
        source : {"prior", "rows"}, default "prior"
            Where latents come from: the prior, or the mixture of the posteriors of all rows, of a guide with parameters
            for each row (`guides.PerDatum`, `fit_posterior`).
        **given : Tensor
            Further arguments of the model, such as `y`.
        """
        check_counts(num_samples=num_samples)
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
        values = dict(condition or {})
        self._check_condition(values)
        values |= self._drawn_of_rows(source, num_samples)
        if not values.keys() >= set(self.sites.shared):
            drawn = self._decoding.shared_values(means=False, data=data)
            values = {**drawn, **self._with_marked_means(values), **values}
        drawing = partial(_drawing, values=values)
        trace = self._decoding.trace(drawing, num_samples, data, given, draws_data=True)
        if unknown := [name for name in condition or () if name not in trace]:
            known = [name for name in sample_sites(trace) if name not in self.sites.all_observed]
            raise ValueError(f"condition={{{unknown[0]!r}: ...}} is no latent of the model, which has {known}")
        return self._decoding.values(trace, output)

    def _drawn_of_rows(self, source: str, count: int) -> dict[str, Tensor]:
        """Latents drawn from the mixture of the posteriors of all rows, if that is the source."""
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
        if source == "prior":
            return {}
        guide = self._guide_of_rows()
        if guide is None:
            raise ValueError(
                "source='rows' draws from the posteriors of the rows of a guide PerDatum, and this pair has another "
                "guide; fit_posterior(x) makes such a pair of some rows"
            )
        index = torch.randint(guide.num_data, (count,), device=self.device)
        return {name: fn.sample() for name, fn in guide.posterior_of(index).items()}

    def _guide_of_rows(self) -> Any:
        """The guide, if it has parameters of its own for each row."""
        from pyrovae.guides import RowGuide  # not above: guides stand on what VAE stands on

        return self.guide if isinstance(self.guide, RowGuide) else None

    @torch.no_grad()
    def reconstruct(self, x: Tensor, **data: Tensor | None) -> Tensor | dict[str, Tensor]:
        """The mean of p(x|z) at the mean of q(z|x), shaped like `x`; discrete latents are drawn.

        The model gets the data too. Where it observes several sites, a dictionary by site.
        """
        with MeanMessenger():
            drawn = self._guide_trace(x, data)
        with self.scope():
            given = programs.keywords(self.model, **data)
            trace = programs.trace_pair(self.model, self.guide, (x,), given, drawn=drawn).model
        return self._decoding.values(trace, "mean")

    def impute(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        num_samples: int = 100,
        num_draws: int | None = None,
        chunk_size: int = 8192,
        **data: Tensor | None,
    ) -> Tensor:
        """Fill in the missing entries of rows, by the model given their observed ones.

        Use it for any pair whose programs take a mask: pictures, tables, data of your own.

        Parameters
        ----------
        x : Tensor, shape ``[N, ...]``
            Rows. Missing entries may hold anything.
        mask : Tensor of bool, shape of `x`
            True where an entry is observed.
        num_samples : int, default 100
            Draws of the latents of a row, each weighted by its importance weight.
        num_draws : int, optional
            Draw so many completed copies of the rows, for multiple imputation. None gives one, which is best in the
            mean.
        chunk_size : int, default 8192
            Pairs of row and draw at a time, which bounds the memory.
        **data : Tensor
            `y`, `index` and further arguments of the programs.

        Returns
        -------
        Tensor, shape ``[N, ...]``, or ``[num_draws, N, ...]``
            The rows, observed entries as they are, in floating point whatever the type of `x`. A missing entry is the
            mean of p(x|z) over the posterior, which for a binary entry is its probability; in a table the level that is
            most probable, of ordered ones the median. A draw takes one of the draws of the latents, with the
            probability of its weight, and draws from p(x|z).

        Raises
        ------
        ValueError
            If the mask does not fit, a number is below 1, or `x` holds whole numbers that floating point cannot hold.
        TypeError
            If a program takes no mask.

        Notes
        -----
        Self-normalised importance sampling: ``sum_k w_k E[x|z_k]`` with ``w_k`` proportional to
        ``p(x_observed, z_k) / q(z_k)``. A point posterior has one draw and no weights.

        References
        ----------
        P.-A. Mattei and J. Frellsen (2019), "MIWAE", equation 11.
        """
        from pyrovae.infer import completing  # not above: it knows tables

        return completing.impute(self, x, mask, num_samples, num_draws, chunk_size, data)

    def fit_posterior(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        *,
        steps: int = 200,
        optimizer: str = "adam",
        lr: float = 0.05,
        tol: float = 0.0,
        start: str | None = None,
        family: str | None = None,
        scale: str | None = None,
        log_var: float | None = None,
        num_particles: int | None = None,
        kl_weight: float = 1.0,
        batch_size: int = 2000,
        seed: int = 0,
        progress: bool = True,
        **data: Tensor | None,
    ) -> VAE:
        """Fit the posterior of each of these rows by gradient, with the model held fixed, as a new VAE over them.

        Use it for rows that a guide without an encoder was not trained on, and to refine what an encoder answers. The
        new VAE has the same model, whose parameters it shares, and a guide with a row of parameters for each row of
        `x`. It knows these rows again: ``fitted.log_likelihood(x, mask=mask)`` and all other methods take them, or some
        of them, and refuse others. This VAE stays as it is.

        Parameters
        ----------
        x : Tensor, shape ``[N, ...]``
            Rows.
        mask : Tensor of bool, shape of `x`, optional
            True where an entry is observed. A row without any gets the prior, where the family holds it.
        y : Tensor of int64, shape ``[N]``, optional
            Labels, for programs that take them.
        steps : int, default 200
            Gradient steps of a row, at most. 20 are enough to refine a good answer.
        optimizer : {"adam", "sgd"}, default "adam"
            Kind of step, with a state for each row. "sgd" follows the gradient of the bound of the row.
        lr : float, default 0.05
            Learning rate, in unconstrained units of the parameters. With "adam" it falls to a twentieth by a cosine.
        tol : float, default 0.0
            Progress in nats, over 20 steps, below which a row counts as standing still. A row that stands still for 60
            steps is done. 0 takes all steps.
        start : {"guide", "zeros", "prior", "normal", "train"}, optional
            Where the rows start: at the guide's own answer; at parameters of zero, which is also the prior where its
            location is 0; at draws from a standard normal; at draws from the moments of the rows that a guide
            `PerDatum` was trained on. None is "guide" for a guide that answers, and else "zeros".
        family, scale, log_var : optional
            What the posteriors are, see `guides.PerDatum`. None keeps those of the guide with `start="guide"` or a
            guide `PerDatum`, and else takes a family that suits the latent, with a learned scale.
        num_particles : int, optional
            Draws of the latents per step. None is 4 for up to 50 steps, which noise would hurt most, else 1, and 8 for
            discrete latents.
        kl_weight : float, default 1.0
            Weight of the KL in the bound.
        batch_size : int, default 2000
            Rows at a time, which bounds the memory.
        seed : int, default 0
            Seed of the draws; the caller's random numbers stay as they were.
        progress : bool, default True
            Show a progress bar if it takes over two seconds.
        **data : Tensor
            Further arguments of the programs.

        Returns
        -------
        VAE
            The pair over these rows, in the mode of this one.

        Raises
        ------
        ValueError
            For impossible numbers, a mask of another shape, NaN in observed entries, a guide whose family cannot be
            moved by a gradient, and latents of all data.

        Notes
        -----
        The gradient is that of ``log p(x, z) - log q(z)`` along the draw z alone. It has no variance where q is the
        exact posterior. At the end, a row keeps the refined parameters only if their bound is better than that of the
        start, at 16 draws with the same noise before and after, or at up to 64 where these do not tell.

        References
        ----------
        A. Zadeh et al. (2019), "Variational auto-decoder". Y. Kim et al. (2018), "Semi-amortized variational
        autoencoders". G. Roeder, Y. Wu and D. Duvenaud (2017), "Sticking the landing".
        """
        from pyrovae.infer import fitting  # not above: it makes a VAE
        from pyrovae.infer.refining import Refinement

        particles = (_FEW_STEPS_DRAWS if steps <= _FEW_STEPS else 1) if num_particles is None else num_particles
        how = Refinement(steps, optimizer, lr, optimizer == "adam", tol, particles, kl_weight)
        return fitting.fit_posterior(
            self,
            x,
            how=how,
            start=start,
            family=family,
            scale=scale,
            log_var=log_var,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
            data={"mask": mask, "y": y, **data},
        )

    def save(self, folder: str | Path, data: Dataset | DataSpec | None = None, *, overwrite: bool = False) -> None:
        """Write the VAE to a folder that the command line reads, see `pyrovae.runs.save`."""
        from pyrovae.runs import saving  # not above: runs are made of VAEs

        saving.save(self, folder, data, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, pair: str | Callable[..., VAE] | VAE | None = None, device: str = "cpu") -> VAE:
        """Read a VAE from a folder that `save` or a training wrote, see `pyrovae.runs.load`."""
        from pyrovae.runs import saving

        return saving.load(folder, pair, device)


def _drawing(model: programs.Program, values: dict[str, Tensor]) -> programs.Program:
    return poutine.condition(programs.unconditioned(model), data=values)
