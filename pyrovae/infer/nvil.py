"""NVIL and its baselines."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.infer import functional
from pyrovae.infer.objective import Objective, Pair
from pyrovae.masks import fill_missing
from pyrovae.programs import Program

BASELINES = ("none", "running-mean", "input")


class Baseline(nn.Module):
    """The mean of the learning signal, as a running mean and, optionally, a net of the data; and its running variance.

    Parameters
    ----------
    net : nn.Module, optional
        From data `[B, ...]` to `[B]` or `[B, 1]`; None for the running mean alone.
    decay : float, default 0.9
        Weight of the past in the running mean and variance.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, net: nn.Module | None = None, *, decay: float = 0.9) -> None:
        super().__init__()
        self.net = net
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    @property
    def _weight(self) -> Tensor:
        """What the running sums, which start at zero, weigh in all; dividing by it makes means of them."""
        return (1 - self.decay**self.batches).clamp(min=1e-12)

    @property
    def constant(self) -> Tensor:
        """The running mean of what the net leaves of the signal."""
        return self.mean / self._weight

    @property
    def scale(self) -> Tensor:
        """The running standard deviation of the signal around the baseline, but at least 1."""
        return (self.variance / self._weight).sqrt().clamp(min=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """The baseline of each datum, `[B]`; differentiable in the net."""
        constant = self.constant.expand(len(x))
        if self.net is None:
            return constant
        # What a program masks may be NaN.
        return constant + self.net(x.to(constant.dtype).nan_to_num(nan=0.0)).reshape(len(x))

    @torch.no_grad()
    def update(self, residual: Tensor) -> None:
        """Take in a batch of signals less their baselines, `[B]`."""
        self.mean.mul_(self.decay).add_((1 - self.decay) * (residual.mean() + self.constant))
        self.variance.mul_(self.decay).add_((1 - self.decay) * residual.square().mean())
        self.batches.add_(1)


def input_net(hidden: int = 100) -> nn.Module:
    """A net of one hidden tanh layer whose input size is that of the first data it sees."""
    return nn.Sequential(_Rows(), nn.LazyLinear(hidden), nn.Tanh(), nn.Linear(hidden, 1))


class _Rows(nn.Module):
    """Data as rows, `[B, ...]` -> `[B, D]`; numbers `[B]` too, which `nn.Flatten` refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)


class NVIL(Objective):
    r"""The score-function gradient with a learned baseline and a normalised signal, for draws not reparameterised.

    One particle maximises the ELBO (neural variational inference and learning); with K particles the bound is the
    importance-weighted one, and every particle's score is weighted by the bound minus the baseline. The baseline is
    learned by least squares along with the pair: with Pyro's SVI its net appears as module "nvil_baseline", the Trainer
    takes it from `module`. Dividing the signal by its running standard deviation, where that exceeds 1, changes the
    length of the guide's step and not its direction.

    Parameters
    ----------
    num_particles : int, default 1
        Draws of the latents per datum, K.
    baseline : str or nn.Module, default "running-mean"
        "none", "running-mean", "input" (running mean plus a net of the data with 100 tanh units), or a net of your own
        from data `[B, ...]` to `[B, 1]`; entries that `mask` hides enter it as zeros.
    normalize : bool, default True
        Divide the signal by its running standard deviation where that is above 1.
    decay : float, default 0.9
        Weight of the past in the running mean and variance.
    **options : Any
        Those of `Objective`.

    Raises
    ------
    ValueError
        For an unknown baseline.

    References
    ----------
    Mnih and Gregor (2014), Neural Variational Inference and Learning in Belief Networks, section 2.3; Mnih
    and Rezende (2016), section 2.4.

    Examples
    --------
    >>> NVIL(num_particles=5, baseline="input").module is not None
    True
    """

    module: Baseline | None = None

    def __init__(
        self,
        num_particles: int = 1,
        baseline: str | nn.Module = "running-mean",
        *,
        normalize: bool = True,
        decay: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(num_particles, **options)
        if isinstance(baseline, str) and baseline not in BASELINES:
            raise ValueError(f"baseline must be one of {', '.join(BASELINES)} or a module, got {baseline!r}")
        self.normalize = normalize
        if baseline == "none":
            return
        net = input_net() if baseline == "input" else baseline if isinstance(baseline, nn.Module) else None
        self.module = Baseline(net, decay=decay)

    def bound(self, pair: Pair) -> Tensor:
        """The importance-weighted bound, `[B]`."""
        return self._bound(pair)[0]

    def _bound(self, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """Bound, baseline and bound again as the constant that the baseline is fitted to."""
        weights = pair.log_weights()
        signal = functional.iwae(weights.log_weight).detach()
        scale: Tensor | float = 1.0
        if self.module is None:
            baseline = torch.zeros_like(signal)
        else:
            x = fill_missing(pair.data, pair.kwargs.get("mask"), 0.0)
            if len(x) != len(signal):
                raise ValueError(
                    f"NVIL's baseline reads the {len(x)} rows of the data, and the plate over them draws {len(signal)} "
                    "by itself; use baseline='none', or cut the rows before"
                )
            if (self.module.mean.device, self.module.mean.dtype) != (x.device, signal.dtype):
                self.module.to(device=x.device, dtype=signal.dtype)
            baseline = self.module(x)
            if self.normalize:
                scale = self.module.scale
        weight = pair.scorer.latent_weight
        value = functional.nvil(weights.log_weight, weights.log_score, baseline.detach(), scale, weight)
        return value, baseline, signal

    def training_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss; with its gradients the baseline learns too, whose running statistics take in the batch."""
        pair = self._pair(model, guide, args, kwargs)
        bound, baseline, signal = self._bound(pair)
        loss = -pair.total(bound)
        if self.module is None:
            return loss
        if self.module.net is not None:
            pyro.module("nvil_baseline", self.module)
            fit = (signal - baseline).square().sum()
            loss = loss + fit - fit.detach()
        self.module.update((signal - baseline).detach())
        return loss
