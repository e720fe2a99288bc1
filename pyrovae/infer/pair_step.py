"""The loss of a pair under an objective as a function of all that is learned or kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.infer.compiled_code import Slots
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objective import Objective
from pyrovae.infer.pyro_elbos import PyroLoss

if TYPE_CHECKING:
    from pyrovae.vae import VAE


class PairStep(nn.Module):
    """The loss as a function of all that is learned or kept: the pair's parameters and buffers and the objective's."""

    def __init__(self, vae: VAE, objective: Objective | PyroLoss, num_data: int | None) -> None:
        super().__init__()
        self.num_data = num_data
        self.vae = vae
        self.learned = objective.module
        self.objective = objective

    def forward(self, beta: Tensor | None, inputs: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch, summed over its rows, in nats; a KL weight of None leaves it alone."""
        data = dict(inputs)
        x = data.pop("x")
        with self.context(len(x), 1.0 if beta is None else beta):
            return self.objective.training_loss(self.vae.model, self.vae.guide, x, **data)

    @contextmanager
    def context(self, rows: int, beta: float | Tensor) -> Iterator[None]:
        """The context in which the programs run."""
        plain = not isinstance(beta, Tensor) and beta == 1
        weight = nullcontext() if plain else KLWeightMessenger(beta)
        share = nullcontext() if self.num_data is None else self.vae.minibatch_scale(rows, self.num_data)
        with self.vae.scope(), weight, share:
            yield

    def run_once(self, inputs: Mapping[str, Tensor], beta: float | Tensor) -> None:
        """Run the objective as it is, because its first call looks into the pair and may make what it learns."""
        data = dict(inputs)
        look = self.objective.look if isinstance(self.objective, PyroLoss) else self.objective.loss
        with torch.no_grad(), programs.evaluating(self.vae), self.context(len(inputs["x"]), beta):
            look(self.vae.model, self.vae.guide, data.pop("x"), **data)


def loss_and_gradients(
    step: PairStep, slots: Slots, inputs: Mapping[str, Tensor], *, weighted: bool, per_row: bool, found: list[int]
) -> Callable[..., tuple[Tensor, ...]]:
    """The step as a function of tensors alone. Running it tells in `found` which of them have a gradient."""
    trained, kept, names, rows = slots.trained_names, slots.kept_names, [*inputs], len(inputs["x"])

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        leaves = {name: value.detach().requires_grad_() for name, value in zip(trained, given, strict=False)}
        buffers = dict(zip(kept, given[len(trained) :], strict=False))
        weight, *data = given[len(trained) + len(kept) :]
        arguments = weight if weighted else None, dict(zip(names, data, strict=True))
        loss = torch.func.functional_call(step, {**buffers, **leaves}, arguments)
        descended = loss / rows if per_row else loss
        gradients = torch.autograd.grad(descended, list(leaves.values()), allow_unused=True)
        found[:] = [place for place, gradient in enumerate(gradients) if gradient is not None]
        return loss.detach(), *(gradient for gradient in gradients if gradient is not None)

    return run
