"""The amortised guide of all families with one latent: an encoder, and a head that returns the distribution."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.models.parts import global_site, share_of_global
from pyrovae.nn import encoded


class Amortized(PyroModule):
    """The guide q(z|x): an encoder makes features of the data, and a head makes a distribution of the features.

    Use it for any model with one latent `z`. Families differ in the head: `GaussianHead`, `CategoricalHead`,
    `KumaraswamyHead`, or one of your own.

    Sites: `z` in the plate "data", dimension -1, and outside of it those of `shared`.

    Parameters
    ----------
    encoder : Module
        From data ``[B, ...]`` and their mask, or None, to features ``[B, out_features]``. It fills in missing entries
        itself. For complete data, a net that takes no mask will do.
    head : Module
        From features to the distribution of `z`, of batch shape ``[B]``.
    shared : mapping of str to Module, optional
        Posteriors of latents that belong to all data together, by the name of their site. Each is a module that returns
        the distribution when called without arguments.
    num_data : int, optional
        Number of training rows, as in the model. In a minibatch of B rows, shared latents then count B / `num_data`
        times. None counts them once in every batch.

    Examples
    --------
    >>> import torch
    >>> from pyrovae.nn import DenseEncoder, GaussianHead
    >>> guide = Amortized(DenseEncoder((1, 4, 4), (8,)), GaussianHead(8, 2))
    >>> guide(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        *,
        shared: Mapping[str, nn.Module] | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.shared = nn.ModuleDict(shared)
        self.num_training_rows = num_data

    def posterior(self, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """Return the distribution q(z|x) of data ``[B, ...]``. `VampPrior` takes this method."""
        return self.head(encoded(self.encoder, x, mask))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `y` and `index` are not used.

        `seen` is True where the encoder may look, under the mask. Training data that hide entries (`HideAtRandom`) give
        it: the entries that the encoder does not see are scored all the same, so that the pair learns to predict them.
        """
        if seen is not None:
            mask = seen if mask is None else mask & seen
        for name, posterior in self.shared.items():
            with share_of_global(len(x), self.num_training_rows):
                pyro.sample(name, posterior(), infer=global_site())
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x, mask))
