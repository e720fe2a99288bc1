"""The model of semi-supervised learning with a partly observed class."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.distributions import Categorical
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions.labels import checked_range, labelled_logits
from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import num_rows, observe
from pyrovae.priors import set_learned_or_fixed


class SemiSupervisedVAE(PyroModule):
    """A VAE with a class `y` that is known for some of the data, p(y) p(z) p(x|y,z).

    Use it with `SemiSupervisedGuide`, to learn from labelled and unlabelled rows together.

    Sites: `y` (class number), `z` (latent) and `x` (data), all in the plate "data", dimension -1.

    Parameters
    ----------
    num_classes : int
        Number of classes, at least 2. They are numbered from 0.
    prior : Module
        Its forward returns p(z), and its method `decoder_input` maps `z` to what the decoder sees of it:
        `StandardNormal` (`z` itself), `StickBreakingPrior` (the weights of the stick times a gain), or your own.
    decoder : Module
        From ``[..., features + num_classes]`` to ``[..., *likelihood.raw_shape]``. The label stands behind the
        features, as a one-hot vector.
    likelihood : Likelihood
        The likelihood of a datum.
    learn_class_prior : bool, default False
        Whether p(y) is learned. Otherwise all classes have equal probability.

    Raises
    ------
    ValueError
        There are fewer than two classes.

    Notes
    -----
    This model never observes labels. The guide puts all probability on a known label. So with `SemiSupervisedGuide` the
    evidence lower bound of a labelled datum is exactly log p(y) plus the bound of log p(x|y). That of an unlabelled
    datum is the bound of log p(x). One batch may hold both. Draws of data (``size=``) keep known labels.

    References
    ----------
    D. Kingma, D. Rezende, S. Mohamed and M. Welling (2014), "Semi-supervised learning with deep generative models",
    equation 2 (M2). E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", section 5.2, with
    sticks.

    Examples
    --------
    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> from pyrovae.priors import StandardNormal
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> model = SemiSupervisedVAE(3, StandardNormal(2), DenseDecoder(2 + 3, likelihood.raw_shape, (8,)), likelihood)
    >>> model(size=4, y=torch.tensor([0, 1, 2, -1])).shape
    torch.Size([4, 1, 4, 4])
    """

    prior: Any  # a module with `decoder_input`
    class_logits: Tensor

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
        set_learned_or_fixed(self, "class_logits", torch.zeros(num_classes), learn=learn_class_prior)

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `index` is not used. `y` is used only without `x`, for draws."""
        rows, logits = num_rows(x, size), self.class_logits
        if x is None and y is not None:
            checked_range(y, self.num_classes, rows)
            logits = labelled_logits(logits, y)
        with pyro.plate("data", rows, dim=-1):
            label = pyro.sample("y", Categorical(logits=logits))
            z = pyro.sample("z", self.prior())
            raw = self.decoder(beside_label(self.prior.decoder_input(z), label, self.num_classes))
            return observe(self.likelihood, raw, x, mask)


def beside_label(features: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Put the one-hot vectors of labels behind features, broadcast to each other.

    Parameters
    ----------
    features : Tensor, shape ``[..., D]``
        The features.
    label : Tensor of int64, shape ``[...]``
        The labels, from 0 to `num_classes` - 1.
    num_classes : int
        Number of classes.

    Returns
    -------
    Tensor, shape ``[..., D + num_classes]``
        Features and label.

    Examples
    --------
    >>> beside_label(torch.zeros(4, 2), torch.arange(3).unsqueeze(-1), 3).shape
    torch.Size([3, 4, 5])
    """
    # Not `F.one_hot`, which reads the largest label out of its tensor and so could not be compiled.
    one_hot = (label.unsqueeze(-1) == torch.arange(num_classes, device=label.device)).to(features.dtype)
    shape = torch.broadcast_shapes(features.shape[:-1], label.shape)
    return torch.cat([features.expand(*shape, -1), one_hot.expand(*shape, -1)], -1)
