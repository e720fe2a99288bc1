"""The noise of the gradient of each estimator on a pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.infer.objective import Objective
from pyrovae.rng import begin, forked
from pyrovae.vae import VAE

COLUMNS = ("objective", "program", "mean_norm", "total_variance", "signal_to_noise")


def gradient_variance(
    vae: VAE,
    objectives: Mapping[str, ELBO],
    x: Tensor,
    num_draws: int = 100,
    *,
    num_warmup: int = 10,
    seed: int = 0,
    **data: Tensor | None,
) -> pd.DataFrame:
    """Measure mean and variance of the gradients that objectives give to a pair as it stands, on one batch.

    Use it to choose an objective: the larger the signal-to-noise ratio, the less noisy a step.

    Parameters
    ----------
    vae : VAE
        The pair, trained as far as is of interest.
    objectives : mapping of str to ELBO
        The objectives to compare, by the name to show.
    x : Tensor, shape ``[B, ...]``
        One batch of data.
    num_draws : int, default 100
        Gradients drawn for each objective, at least 2.
    num_warmup : int, default 10
        Gradients drawn before them and thrown away, so that baselines settle.
    seed : int, default 0
        Seed of the draws, the same for every objective.
    **data : Tensor
        `mask`, `y`, `index` and further arguments of the programs.

    Returns
    -------
    DataFrame
        A row for each objective and program ("model", "guide"), over all parameters of the program together:

        * `mean_norm`: length of the mean gradient of the loss, in nats per unit of the parameters. The loss is summed
        over
          the batch.
        * `total_variance`: sum of the variances of the entries of the gradient.
        * `signal_to_noise`: ``mean_norm / sqrt(total_variance)``, infinite where there is no variance.

    Raises
    ------
    ValueError
        There are no objectives, fewer than two draws, or no parameters to train.

    Notes
    -----
    Noise alone gives a `signal_to_noise` of about ``1 / sqrt(num_draws)``. Smaller figures cannot be told from it.

    A parameter that both programs use counts for the guide. A parameter that no density depends on is left out.
    Gradients, parameters, Pyro's parameter store and the caller's random numbers stay as they are. A baseline that an
    objective owns does learn its running mean.

    References
    ----------
    T. Rainforth, A. Kosiorek, T. A. Le, C. Maddison, M. Igl, F. Wood and Y. W. Teh (2018), "Tighter variational bounds
    are not necessarily better", equation 6, for a single entry.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     loc = pyro.param("loc", torch.tensor(0.0))
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(loc, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     slope = pyro.param("slope", torch.tensor(0.1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(slope * x, 1.0))
    >>> from pyrovae.infer import IWAE
    >>> frame = gradient_variance(VAE(model, guide), {"iwae": IWAE(5)}, torch.ones(3), num_draws=10)
    >>> frame["program"].tolist()
    ['model', 'guide']
    """
    if not objectives:
        raise ValueError("there are no objectives to compare")
    if num_draws < 2:
        raise ValueError(f"a variance needs num_draws of at least 2, got {num_draws}")
    vae.prepare(x, **data)
    given = programs.keywords(vae.model, vae.guide, **data)
    if not any(parameter.requires_grad for parameter in vae.parameters()):
        raise ValueError(f"the pair of {programs.describe(vae.model)} has no parameters that are trained")
    rows: list[tuple] = []
    model = programs.with_param_site(vae.model, vae.parameters())
    with vae.scope(), forked(), _gradients_kept(vae):
        parameters = _by_program(vae, x, given)
        objective: Any  # Pyro's ELBO does not declare what all of its subclasses have
        for name, objective in objectives.items():
            begin(seed)
            moments = {program: _Moments() for program in parameters}
            for draw in range(num_warmup + num_draws):
                vae.zero_grad()
                objective.loss_and_grads(model, vae.guide, x, **given)
                if draw >= num_warmup:
                    for program, moment in moments.items():
                        moment.add(_flat_gradient(parameters[program]))
            if isinstance(objective, Objective) and objective.module is not None:
                objective.module.zero_grad()  # nobody takes a step with what was added up here
            rows.extend((name, program, *moment.figures()) for program, moment in moments.items())
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Moments:
    """Running mean and squared deviations of vectors, by Welford's recursion."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, vector: Tensor) -> None:
        self.count += 1
        deviation = vector - self.mean
        self.mean = self.mean + deviation / self.count
        self.squares = self.squares + deviation * (vector - self.mean)

    def figures(self) -> tuple[float, float, float]:
        """Length of the mean, total variance, and their signal-to-noise ratio."""
        length, variance = self.mean.norm(), self.squares.sum() / (self.count - 1)
        return float(length), float(variance), float(length / variance.sqrt())


def _by_program(vae: VAE, x: Tensor, given: Mapping[str, Tensor]) -> dict[str, list[nn.Parameter]]:
    """The parameters that the densities of each program depend on; a program without any is left out."""
    candidates = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    with torch.no_grad():
        drawn = programs.trace(vae.guide, (x,), given)
    found: dict[str, list[nn.Parameter]] = {}
    taken: set[int] = set()
    for label, program in (("guide", vae.guide), ("model", vae.model)):
        density = programs.trace(poutine.replay(program, trace=drawn), (x,), given).log_prob_sum()
        if not isinstance(density, Tensor) or not density.requires_grad:
            continue
        gradients = torch.autograd.grad(density, candidates, allow_unused=True)
        reached = [p for p, g in zip(candidates, gradients, strict=True) if g is not None and id(p) not in taken]
        taken.update(map(id, reached))
        found[label] = reached
    return {label: found[label] for label in ("model", "guide") if found.get(label)}


def _flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """The gradients of some parameters as one vector in double precision; zeros where an objective gives none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return torch.cat([part.flatten() for part in parts]).double()


@contextmanager
def _gradients_kept(vae: VAE) -> Iterator[None]:
    """A context in which parameters start without gradients, and after which they have those they had."""
    before = [(parameter, parameter.grad) for parameter in vae.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
