"""Likelihoods of pictures and of vectors of one kind of entries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pyro.distributions import Bernoulli, Normal
from torch import Tensor, nn

from pyrovae.distributions.discretized_logistic import DiscretizedLogistic
from pyrovae.likelihoods.base import Likelihood

_MIN_SCALE = 1e-4


class BernoulliLikelihood(Likelihood):
    """Independent Bernoulli pixels, raw parameter: the logit.

    Grey values in [0, 1] are scored by the same formula (the cross-entropy), which is then no probability of data;
    `strict=False` lets them pass the check of the support.

    Args:
        data_shape: shape of one datum.
        strict: insist on values 0 and 1 where validation is on.

    >>> BernoulliLikelihood((1, 4, 4))(torch.zeros(2, 1, 4, 4)).event_shape
    torch.Size([1, 4, 4])
    """

    def __init__(self, data_shape: Sequence[int], *, strict: bool = True) -> None:
        super().__init__(data_shape)
        self.strict = strict

    def elementwise(self, logits: Tensor) -> Bernoulli:
        """Bernoulli entries."""
        return Bernoulli(logits=logits, validate_args=None if self.strict else False)


class NormalLikelihood(Likelihood):
    """Independent normal entries, raw parameters: the mean and, if predicted, the scale.

    Args:
        data_shape: shape of one datum.
        scale: the standard deviation in the units of the data: a number (fixed; 1.0 gives the identity covariance),
            "learned" (one for each entry of a datum, shared by all data) or "predicted" (by the decoder).

    Raises:
        ValueError: for another scale.

    >>> NormalLikelihood((3,), scale="predicted").raw_shape
    (6,)
    """

    def __init__(self, data_shape: Sequence[int], *, scale: float | str = 1.0) -> None:
        super().__init__(data_shape)
        if isinstance(scale, str) and scale not in ("learned", "predicted"):
            raise ValueError(f"scale must be a positive number, 'learned' or 'predicted', got {scale!r}")
        if not isinstance(scale, str) and not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        if scale == "learned":
            self.raw_scale = nn.Parameter(torch.full(self.data_shape, 0.5413))  # softplus gives 1
        self.num_parameters = 2 if scale == "predicted" else 1

    def elementwise(self, loc: Tensor, raw_scale: Tensor | None = None) -> Normal:
        """Normal entries."""
        if isinstance(self.scale, str):
            return Normal(loc, F.softplus(self.raw_scale if raw_scale is None else raw_scale) + _MIN_SCALE)
        return Normal(loc, torch.full_like(loc, self.scale))


class DiscretizedLogisticLikelihood(Likelihood):
    """Independent discretised logistic entries for 8-bit pixels at k/255, raw parameters: the mean and the scale.

    Its negative log-likelihood over `D log 2` is the code length in bits per dimension of the 8-bit pictures.

    Args:
        data_shape: shape of one datum.
        scale: "predicted" by the decoder, or "learned", one for each entry of a datum.

    Reference: Salimans et al. (2017), PixelCNN++, section 2.1, with one component; Kingma et al. (2016).
    """

    def __init__(self, data_shape: Sequence[int], *, scale: str = "predicted") -> None:
        super().__init__(data_shape)
        if scale not in ("learned", "predicted"):
            raise ValueError(f"scale must be 'learned' or 'predicted', got {scale!r}")
        self.num_parameters = 2 if scale == "predicted" else 1
        if scale == "learned":
            self.raw_scale = nn.Parameter(torch.zeros(self.data_shape))

    def elementwise(self, raw_loc: Tensor, raw_scale: Tensor | None = None) -> DiscretizedLogistic:
        """Discretised logistic entries; raw zeros give mid-grey with a scale of about a tenth of the range."""
        raw_scale = self.raw_scale if raw_scale is None else raw_scale
        return DiscretizedLogistic(raw_loc + 0.5, F.softplus(raw_scale - 2.0) + 1e-3)
