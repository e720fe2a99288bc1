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
    """Take the two halves of a pair as networks.

    Use it to train a Pyro pair with the losses of this package.

    Parameters
    ----------
    vae : VAE
        The pair. It has seen data or was given `example=`.
    num_samples : int, default 1
        Samples per datum where `sample` is not told how many. Losses that compare samples need at least 2.
    arguments : sequence of str, default ()
        Names of the data tensors after the first: "mask", "y" or "index".

    Returns
    -------
    inference_network : PyroInferenceNetwork
        The guide.
    generative_model : PyroGenerativeModel
        The model.

    Examples
    --------
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
    """The guide of a pair as an inference network.

    Use `from_vae` to make it together with the generative model. The latents are those of the guide's sites, in the
    order of the names of the sites.

    Parameters
    ----------
    vae : VAE
        The pair. It has seen data or was given `example=`.
    num_samples : int, default 1
        Samples per datum where `sample` is not told how many. Losses that compare samples need at least 2.
    arguments : sequence of str, default ()
        Names of the data tensors after the first: "mask", "y" or "index".

    Notes
    -----
    `params_` holds the parameters of the distribution of every site under "site.parameter". They are for one draw of
    the sites that it depends on. Sites with and without reparameterised draws may be mixed.

    The guide runs once to draw and once more to score. So a guide with dropout scores its draws with other units than
    it drew them with.
    """

    def __init__(self, vae: VAE, num_samples: int = 1, *, arguments: Sequence[str] = ()) -> None:
        super().__init__(num_samples)
        self._programs = Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.guide)
        self._data: list[Tensor] | None = None
        self._rsample: dict[str, bool] = {}

    @property
    def latent_names(self) -> tuple[str, ...]:
        """Names of the sites that the latents belong to, in order."""
        return self._programs.names

    def parameterise(self, data: list[Tensor]) -> dict[str, Tensor]:
        """Return the parameters of the distributions, by "site.parameter"."""
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
        """Draw every site, each ``[batch, samples, ...]``. Draws carry gradients where they are reparameterised."""
        return self._programs.draw(self._called(), self.num_samples if num_samples is None else num_samples)

    def log_prob(self, latents: Tensors) -> Tensor:
        """Return log q(z | x) in nats, shape ``[batch, samples]``."""
        return self._programs.log_prob("guide", self._called(), latents)

    def log_score(self, latents: Tensors, log_q: Tensor) -> Tensor:
        """Return the part of `log_q` from sites without reparameterised draws, in nats, shape ``[batch, samples]``."""
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
    """The model of a pair as a generative model.

    Use `from_vae` to make it together with the inference network. The latents are those of the guide's sites, in the
    order of the names of the sites.

    Parameters
    ----------
    vae : VAE
        The pair. It has seen data or was given `example=`.
    arguments : sequence of str, default ()
        Names of the data tensors after the first: "mask", "y" or "index".

    Notes
    -----
    `params_` holds the parameters of the distribution of the data site under "site.parameter". They are for the first
    sample of the latents.
    """

    def __init__(self, vae: VAE, *, arguments: Sequence[str] = ()) -> None:
        super().__init__()
        self._programs = Programs(vae, arguments)
        self.owners, self.param_sites = self._programs.owned(vae.model)

    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> dict[str, Tensor]:
        """Return the parameters of the distribution of the data site, by "site.parameter"."""
        name = self._programs.vae.sites.observed
        site = self._programs.data_site(data, [value[:, :1] for value in latents])
        return {f"{name}.{key}": value for key, value in parameters_of(site["fn"]).items()}

    @torch.no_grad()
    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Draw from the joint distribution.

        Parameters
        ----------
        num_samples : int, default 1
            Number of draws.

        Returns
        -------
        data : list of Tensor, each ``[num_samples, ...]``
            The data: one tensor.
        latents : list of Tensor, each ``[num_samples, 1, ...]``
            The latents of each row.

        Raises
        ------
        ValueError
            The data have more tensors than the one that the model generates.
        """
        return self._programs.dream(num_samples)

    def log_prob(self, data: Tensors, latents: Tensors) -> Tensor:
        """Return the joint log p(x, z) in nats, shape ``[batch, samples]``. Masks apply."""
        return self._programs.log_prob("model", list(data), latents)
