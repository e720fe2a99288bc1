"""A Pyro pair as an inference network and a generative model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors
from pyrovae.blackbox.replaying import Programs, parameters_of
from pyrovae.vae import VAE


def from_vae(
    vae: VAE, num_samples: int = 1, *, arguments: Sequence[str] = ()
) -> tuple[PyroInferenceNetwork, PyroGenerativeModel]:
    """The two halves of a pair as networks, for every loss of this package.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        num_samples: samples a datum where a loss does not say.
        arguments: what the data tensors after the first are called: "mask", "y", "index".

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Bernoulli(0.5))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Bernoulli(logits=x))
    >>> q, p = from_vae(VAE(model, guide, example=torch.zeros(3)), num_samples=5)
    >>> q([torch.zeros(3)]).sample()[0].shape
    torch.Size([3, 5])
    """
    return (
        PyroInferenceNetwork(vae, num_samples, arguments=arguments),
        PyroGenerativeModel(vae, arguments=arguments),
    )


class PyroInferenceNetwork(InferenceNetwork):
    """The guide of a pair: its latents are those of its sites, in the order of the sites' names.

    `params_` holds the parameters of the distribution of every site, as "site.parameter", for one draw of the sites
    it depends on. Sites with and without reparameterised draws may be mixed. The guide runs anew for drawing and for
    scoring, so one with dropout scores its draws under other units than it drew them with.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        num_samples: samples a datum where `sample` is not told.
        arguments: what the data tensors after the first are called.
    """

    def __init__(self, vae: VAE, num_samples: int = 1, *, arguments: Sequence[str] = ()) -> None:
        super().__init__(num_samples)
        self._programs = Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.guide)
        self._data: list[Tensor] | None = None
        self._rsample: dict[str, bool] = {}

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The sites that the latents belong to."""
        return self._programs.names

    def parameterise(self, data: list[Tensor]) -> dict[str, Tensor]:
        """The distributions' parameters by site."""
        self._data = data
        sites = self._programs.look_at(data)
        self._rsample = {name: site["fn"].has_rsample for name, site in sites.items()}
        self.reparameterised = all(self._rsample.values())
        return {
            f"{name}.{parameter}": value
            for name, site in sites.items()
            for parameter, value in parameters_of(site["fn"]).items()
        }

    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        """Draws of every site, `[batch, samples, ...]`, with gradients where they are reparameterised."""
        return self._programs.draw(self._called(), self.num_samples if num_samples is None else num_samples)

    def log_prob(self, latents: Tensors) -> Tensor:
        """The log-density q(z | x), `[batch, samples]`, in nats."""
        return self._programs.log_prob("guide", self._called(), latents)

    def log_score(self, latents: Tensors, log_q: Tensor) -> Tensor:
        """The part of the sites without reparameterised draws."""
        scored = {name for name, has_rsample in self._rsample.items() if not has_rsample}
        if len(scored) == len(self._rsample):
            return log_q
        if not scored:
            return torch.zeros_like(log_q)
        return self._programs.log_prob("guide", self._called(), latents, scored)

    def _called(self) -> list[Tensor]:
        if self._data is None:
            raise RuntimeError("call the inference network with data first: inference_network([x]).sample()")
        return self._data


class PyroGenerativeModel(GenerativeModel):
    """The model of a pair; its latents are those of the guide's sites, in the order of the sites' names.

    `params_` holds the parameters of the distribution of the data site, as "site.parameter", at the first sample of
    the latents.

    Args:
        vae: the pair, which has seen data or was given `example=`.
        arguments: what the data tensors after the first are called.
    """

    def __init__(self, vae: VAE, *, arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self._programs = Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.model)

    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> dict[str, Tensor]:
        """The parameters of the data site's distribution."""
        name = self._programs.vae.sites.observed
        site = self._programs.data_site(data, [value[:, :1] for value in latents])
        return {f"{name}.{key}": value for key, value in parameters_of(site["fn"]).items()}

    @torch.no_grad()
    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Data `[num_samples, ...]` and their latents `[num_samples, 1, ...]`.

        Raises:
            ValueError: if the data have more tensors than the one that the model generates.
        """
        return self._programs.dream(num_samples)

    def log_prob(self, data: Tensors, latents: Tensors) -> Tensor:
        """The joint log-density, `[batch, samples]`, in nats; masks apply."""
        return self._programs.log_prob("model", list(data), latents)
