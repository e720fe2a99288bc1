"""The model of semi-supervised learning with a partly observed class."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import Categorical
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions.labels import labelled_logits
from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import num_rows, observe


class SemiSupervisedVAE(PyroModule):
    """p(y) p(z) p(x|y,z), where the class `y` of a datum is known or not.

    Sites: `y` (class number), `z` (latent) and `x` (data), all in the plate "data", dimension -1. Labels are never
    observed here: it is the guide that puts all probability on a known label. With `SemiSupervisedGuide` the evidence
    lower bound of a labelled datum is then exactly log p(y) plus the bound of log p(x|y), and that of another one the
    bound of log p(x), also where both are in one batch. In draws of data (`size=`) known labels are kept.

    Args:
        num_classes: number of classes, which are numbered from 0.
        prior: a module whose forward returns p(z), with a method `decoder_input` from `z` to what the decoder sees of
            it: `StandardNormal` (`z` itself), `StickBreakingPrior` (the weights of the sticks), or your own.
        decoder: a module from `[..., features + num_classes]`, the label as one-hot vector behind the features, to
            `[..., *likelihood.raw_shape]`.
        likelihood: the likelihood of a datum.
        learn_class_prior: learn p(y) instead of equal probabilities.

    Raises:
        ValueError: for less than two classes.

    Reference: Kingma, Rezende, Mohamed and Welling (2014), Semi-supervised Learning with Deep Generative Models,
    equation 2 (M2); Nalisnick and Smyth (2017), section 5.2, with sticks.

    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> from pyrovae.priors import StandardNormal
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> model = SemiSupervisedVAE(3, StandardNormal(2), DenseDecoder(2 + 3, likelihood.raw_shape, (8,)), likelihood)
    >>> model(size=4, y=torch.tensor([0, 1, 2, -1])).shape
    torch.Size([4, 1, 4, 4])
    """

    def __init__(
        self,
        num_classes: int,
        prior: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        learn_class_prior: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"need at least 2 classes, got {num_classes}")
        self.num_classes = num_classes
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        logits = torch.zeros(num_classes)
        if learn_class_prior:
            self.class_logits = nn.Parameter(logits)
        else:
            self.register_buffer("class_logits", logits, persistent=False)

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `index` is not used, and `y` only where data are drawn."""
        rows, logits = num_rows(x, size), self.class_logits
        if x is None and y is not None:
            logits = labelled_logits(logits, y)
        with pyro.plate("data", rows, dim=-1):
            label = pyro.sample("y", Categorical(logits=logits))
            z = pyro.sample("z", self.prior())
            raw = self.decoder(beside_label(self.prior.decoder_input(z), label, self.num_classes))
            return observe(self.likelihood, raw, x, mask)


def beside_label(features: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Features `[..., D]` with the one-hot vectors of labels `[...]` behind them, broadcast to each other.

    >>> beside_label(torch.zeros(4, 2), torch.arange(3).unsqueeze(-1), 3).shape
    torch.Size([3, 4, 5])
    """
    # Not `F.one_hot`, which reads the largest label out of its tensor and so could not be compiled.
    one_hot = (label.unsqueeze(-1) == torch.arange(num_classes, device=label.device)).to(features.dtype)
    shape = torch.broadcast_shapes(features.shape[:-1], label.shape)
    return torch.cat([features.expand(*shape, -1), one_hot.expand(*shape, -1)], -1)
