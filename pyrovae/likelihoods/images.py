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
    """Independent Bernoulli entries, with the logit as raw parameter.

    Use it for binary data. Grey values in [0, 1] are scored by the same formula, the cross-entropy, if `strict` is
    False. This is not a probability of the data.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    strict : bool, default True
        Whether values other than 0 and 1 are refused where validation is on.

    Examples
    --------
    >>> BernoulliLikelihood((1, 4, 4))(torch.zeros(2, 1, 4, 4)).event_shape
    torch.Size([1, 4, 4])
    """

    def __init__(self, data_shape: Sequence[int], *, strict: bool = True) -> None:
        super().__init__(data_shape)
        self.strict = strict

    def elementwise(self, logits: Tensor) -> Bernoulli:
        """Return Bernoulli entries."""
        return Bernoulli(logits=logits, validate_args=None if self.strict else False)


class NormalLikelihood(Likelihood):
    """Independent normal entries. The raw parameters are the mean and, if it is predicted, the scale.

    Use it for real values.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    scale : float or {"learned", "predicted"}, default 1.0
        Standard deviation, in the units of the data. A number is fixed; 1.0 gives the identity covariance. "learned" is
        one for each entry of a datum, shared by all data. "predicted" comes from the decoder.

    Raises
    ------
    ValueError
        The scale is another text or is not positive.

    Examples
    --------
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
        """Return normal entries. A learned or predicted scale is at least 1e-4."""
        if isinstance(self.scale, str):
            return Normal(loc, F.softplus(self.raw_scale if raw_scale is None else raw_scale) + _MIN_SCALE)
        return Normal(loc, torch.full_like(loc, self.scale))


class DiscretizedLogisticLikelihood(Likelihood):
    """Independent discretised logistic entries. The raw parameters are the mean and, if it is predicted, the scale.

    Use it for 8-bit pictures, with values k/255.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    scale : {"predicted", "learned"}, default "predicted"
        "predicted" comes from the decoder. "learned" is one for each entry of a datum, shared by all data.

    Raises
    ------
    ValueError
        The scale is another one.

    Notes
    -----
    The negative log-likelihood of a datum with D entries, divided by D log 2, is the code length of the 8-bit picture
    in bits per dimension.

    References
    ----------
    T. Salimans, A. Karpathy, X. Chen and D. Kingma (2017), "PixelCNN++", section 2.1, with one component. D. Kingma, T.
    Salimans, R. Jozefowicz, X. Chen, I. Sutskever and M. Welling (2016), "Improved variational inference with inverse
    autoregressive flow", appendix.
    """

    def __init__(self, data_shape: Sequence[int], *, scale: str = "predicted") -> None:
        super().__init__(data_shape)
        if scale not in ("learned", "predicted"):
            raise ValueError(f"scale must be 'learned' or 'predicted', got {scale!r}")
        self.num_parameters = 2 if scale == "predicted" else 1
        if scale == "learned":
            self.raw_scale = nn.Parameter(torch.zeros(self.data_shape))

    def elementwise(self, raw_loc: Tensor, raw_scale: Tensor | None = None) -> DiscretizedLogistic:
        """Return discretised logistic entries. Raw zeros give mid-grey, with a scale of an eighth of the range."""
        raw_scale = self.raw_scale if raw_scale is None else raw_scale
        return DiscretizedLogistic(raw_loc + 0.5, F.softplus(raw_scale - 2.0) + 1e-3)
