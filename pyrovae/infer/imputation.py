"""Missing entries of tables, from a mixture over draws of the latent of each row.

Every row gets the same noise, so that the answer for a row depends on no other row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from pyrovae.distributions.columns import Columns
from pyrovae.distributions.levels import Levels
from pyrovae.distributions.ordinal import OrderedLogits
from pyrovae.distributions.quantiles import quantile
from pyrovae.distributions.selected_normal import SelectedNormal
from pyrovae.likelihoods.missingness import SelfMasking
from pyrovae.likelihoods.tables import TableLikelihood, level_probs
from pyrovae.vae import VAE

WEIGHTS = ("none", "importance")
FEW = 5
"""An effective sample size below this is small."""
_log = logging.getLogger(__name__)
_NUMBERS_AT_ONCE = 2_000_000  # raw parameters of a chunk; hidden layers take more


class Mixture(NamedTuple):
    """p(x|z_k) at draws of the latent of some rows, and what each draw counts."""

    likelihood: TableLikelihood
    """The likelihood of a row."""
    raw: Tensor
    """Its raw parameters at each draw of the latent, ``[K, B, P]``."""
    weights: Tensor
    """The weights of the draws, ``[K, B]``; their sum over K is 1."""
    missingness: SelfMasking | None = None
    """What says how values go missing; None where they do at random."""
    sign: Tensor | None = None
    """What is known of the mask, ``[B, D]``, see `SelfMasking.given`."""

    @property
    def entries(self) -> Columns:
        """The distribution of the entries given each draw of the latent and the mask, ``[K, B, D]``."""
        return self._entries(self.raw, self.sign)

    def _entries(self, raw: Tensor, sign: Tensor | None) -> Columns:
        fn = self.likelihood.elementwise(raw)
        return fn if self.missingness is None or sign is None else self.missingness.given(fn, sign)

    @torch.no_grad()
    def points(self, ordered: Tensor) -> Tensor:
        """The mean of numbers, the median of ordered levels and the most probable of other levels, ``[B, D]``."""

        def point(fn: Distribution, columns: Tensor) -> Tensor:
            probs = level_probs(fn)
            if probs is None:
                return (self.weights.unsqueeze(-1) * fn.mean).sum(0)
            probs = (self.weights[..., None, None] * probs).sum(0)
            median = (probs.cumsum(-1) < 0.5).sum(-1)
            return torch.where(ordered[columns], median, probs.argmax(-1)).to(self.weights.dtype)

        return self.entries.joined(point)

    @torch.no_grad()
    def draws(self, uniform: Tensor, *, levels: bool = True) -> Tensor:
        """Draws of all entries by their quantiles, ``[M, B, D]``, from uniform numbers.

        They are ``[M, B, 1 + D]``, or ``[M, 1 + D]`` for the same numbers in every row. Then rows are not drawn
        independently, so that no sum over rows has the right spread. The first number of a draw chooses the latent, the
        others the entries. With a model of what is missing an entry needs two, and there are ``1 + 2 D`` of them.
        Without `levels` entries of categorical and ordinal columns are 0, which saves the time of columns with
        thousands of them.
        """
        uniform = uniform if uniform.dim() == 3 else uniform.unsqueeze(1)
        cumulative = self.weights.cumsum(0).unsqueeze(0)  # [1, K, B]
        choice = (cumulative < uniform[..., :1].transpose(1, 2)).sum(1).clamp(max=len(self.weights) - 1)
        raw = self.raw[choice, torch.arange(self.raw.shape[1], device=choice.device)]
        size = len(self.likelihood.is_level)
        first, second = uniform[..., 1 : 1 + size], uniform[..., 1 + size :]

        def draw(fn: Distribution, columns: Tensor) -> Tensor:
            level = first.index_select(-1, columns)
            if isinstance(fn, SelectedNormal):
                return fn.draws(level, second.index_select(-1, columns)).to(first.dtype)
            if not levels and isinstance(fn, Levels | OrderedLogits):
                return first.new_zeros(fn.batch_shape)
            return quantile(fn, level).to(first.dtype)

        return self._entries(raw, self.sign).joined(draw)


def mixtures(
    vae: VAE, x: Tensor, mask: Tensor, noise: Tensor, *, weights: str = "none", missing: Tensor | None = None
) -> Iterator[tuple[slice, Mixture]]:
    """The mixtures of rows of a table, in parts that fit into memory.

    Parameters
    ----------
    vae : VAE
        A pair of `TabularVAE` and `TabularGuide`.
    x : Tensor, shape ``[N, D]``
        Scaled rows. Missing entries may hold anything.
    mask : Tensor of bool, shape ``[N, D]``
        True where an entry is observed.
    noise : Tensor, shape ``[K, latent_dim]``
        Standard normal numbers, the same for all rows.
    weights : {"none", "importance"}, default "none"
        Whether draws of the guide count alike, or by their importance weights. Importance weights are right for every
        guide, and few draws count if the guide was trained with a small KL weight; a line of the log says so.
    missing : Tensor of bool, shape ``[N, D]``, optional
        For a pair with a model of what is missing: True where an entry was never recorded. An entry that is neither
        observed nor missing was recorded, and is hidden here. None takes all entries that are not observed for missing.

    Yields
    ------
    slice, Mixture
        Which rows, and their mixture.

    Raises
    ------
    ValueError
        For other weights.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    model: Any = vae.model
    size = model.likelihood.raw_shape[0] + sum(raw for _, _, raw in model.likelihood.groups)
    rows = max(1, _NUMBERS_AT_ONCE // (len(noise) * size))
    missing = ~mask if missing is None else missing
    counted = []
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        mixture = _mixture(vae, x[part], mask[part], missing[part], noise, weights)
        counted.append(1 / mixture.weights.square().sum(0))
        yield part, mixture
    if weights == "importance" and counted:
        _warn_of_few(torch.cat(counted), len(noise))


@torch.no_grad()
def _mixture(vae: VAE, x: Tensor, mask: Tensor, missing: Tensor, noise: Tensor, weights: str) -> Mixture:
    model: Any = vae.model
    known = (model.missingness, missing.to(x.dtype) - (~(missing | mask)).to(x.dtype))
    if weights == "none":
        raw = model.decoder(_latents(vae, x, mask, noise))
        return Mixture(model.likelihood, raw, x.new_full(raw.shape[:2], 1 / len(noise)), *known)
    raw, log_weight = weighted(vae, x, mask, noise, missing)
    found = log_weight.softmax(0)
    # An entry so far off that no draw explains it says nothing of the others.
    return Mixture(model.likelihood, raw, torch.where(found.isnan(), 1 / len(noise), found), *known)


def _warn_of_few(counted: Tensor, num_samples: int) -> None:
    """Say so where the weights of half of the rows rest on few draws."""
    median = float(counted.median())
    if num_samples > FEW and median < FEW:
        _log.warning(
            "importance weights rest on few draws: in half of the rows the effective sample size is below %.1f of %d; "
            "train with kl_weight=1 and num_particles=20, take more samples, or weights='none'",
            median,
            num_samples,
        )


@torch.no_grad()
def weighted(
    vae: VAE,
    x: Tensor,
    mask: Tensor,
    noise: Tensor,
    missing: Tensor | None = None,
    *,
    kl_weight: float = 1.0,
    widths: Sequence[float] = (1.0,),
) -> tuple[Tensor, Tensor]:
    """Raw parameters of rows at draws of the guide, ``[K, B, P]``, and log weights of the draws, ``[K, B]`` in nats.

    With a model of what is missing they hold the probability of the mask too, see `mixtures`. With another `kl_weight`
    than 1 they are those of a training with it.

    With several `widths` the draws take turns in them: they are from the guide with its standard deviation times each,
    but no wider than the prior's 1, and are weighted by the even mixture of all. A guide that was trained with a small
    KL weight is too narrow, and misses most of the density of a row.
    """
    model: Any = vae.model
    guide: Any = vae.guide
    normal = guide.posterior(x, mask).base_dist
    scales = [torch.minimum(normal.scale * width, normal.scale.clamp(min=1.0)) for width in widths]
    own = noise if noise.dim() == 3 else noise.unsqueeze(1)  # of each row, or the same for all
    z = normal.loc + torch.stack([scales[k % len(scales)] for k in range(len(noise))]) * own
    log_q = torch.stack([Normal(normal.loc, scale).log_prob(z).sum(-1) for scale in scales]).logsumexp(0)
    raw = model.decoder(z)
    row = model.likelihood.fill(x, mask)
    scored = model.likelihood(raw, mask.expand(len(noise), -1, -1)).log_prob(row)
    if model.missingness is not None:
        recorded = mask if missing is None else ~missing
        fn = model.missingness(model.likelihood.elementwise(raw), row, mask)
        scored = scored + fn.log_prob(recorded.to(row.dtype))
    return raw, scored + kl_weight * (model.prior().log_prob(z) - log_q + math.log(len(scales)))


def _latents(vae: VAE, x: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
    """Draws of the guide at given noise, ``[K, B, latent_dim]``."""
    guide: Any = vae.guide
    normal = guide.posterior(x, mask).base_dist
    return normal.loc + normal.scale * noise.unsqueeze(1)
