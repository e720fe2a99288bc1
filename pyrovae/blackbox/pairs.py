"""An inference network and a generative model as a Pyro pair."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyrovae.blackbox.adapters import PyroGenerativeModel, PyroInferenceNetwork
from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork
from pyrovae.blackbox.parts import Joint, Posterior
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.programs import evaluating
from pyrovae.rng import forked


def as_pair(
    inference_network: InferenceNetwork, generative_model: GenerativeModel
) -> tuple[NetworkModel, NetworkGuide]:
    """Make a model and a guide from the two networks.

    Use the pair with `VAE`, the Trainer, the objectives of `pyrovae.infer` and Pyro's own SVI.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x), for data of one tensor.
    generative_model : GenerativeModel
        p(x, z).

    Returns
    -------
    model : NetworkModel
        The model.
    guide : NetworkGuide
        The guide.

    Raises
    ------
    TypeError
        A network is half of a Pyro pair, so it is a program already.

    Notes
    -----
    Every latent tensor is a site: "z" for one, or "z1", "z2" and so on in the order of the list. The data tensor is the
    site "x". The networks know only joint densities. So the last latent site of the guide has all of log q(z | x), and
    the data site of the model has all of log p(x, z). The other sites have log-probability zero. The log weights, every
    bound, the held-out likelihood and `VAE.sample` are exact with this.

    Tools that split the joint distribution need more methods. `GenerativeModel.log_prior` moves log p(z) to the last
    latent site, for a KL weight and `VAE.forward`. `GenerativeModel.mean` is for `VAE.reconstruct` and `VAE.forward`.
    `InferenceNetwork.mean` is for latent means. Without them, these tools raise an error that names the method.

    If only a part of the latents is reparameterised, all of them get their score. It is not possible to draw some
    latents given others, or data given latents.

    Examples
    --------
    >>> class Guide(InferenceNetwork):
    ...     def parameterise(self, data):
    ...         return {"probs": data[0].sigmoid().unsqueeze(1)}
    ...     def sample(self, num_samples=None):
    ...         return [self.params_["probs"].expand(-1, num_samples or self.num_samples).bernoulli()]
    ...     def log_prob(self, latents):
    ...         return torch.distributions.Bernoulli(self.params_["probs"]).log_prob(latents[0])
    >>> class Model(GenerativeModel):
    ...     def parameterise(self, data, latents):
    ...         return {}
    ...     def sample(self, num_samples=1):
    ...         z = torch.full((num_samples, 1), 0.5).bernoulli()
    ...         return [z[:, 0] + torch.randn(num_samples)], [z]
    ...     def log_prob(self, data, latents):
    ...         return torch.distributions.Normal(latents[0], 1.0).log_prob(data[0].unsqueeze(1)) - 0.6931
    >>> from pyrovae import VAE
    >>> vae = VAE(*as_pair(Guide(), Model()), example=torch.zeros(3))
    >>> vae.log_likelihood(torch.zeros(3), num_samples=10).shape, vae.sample(4).shape
    (torch.Size([3]), torch.Size([4]))
    """
    for network in (inference_network, generative_model):
        if isinstance(network, PyroInferenceNetwork | PyroGenerativeModel):
            raise TypeError(f"{type(network).__name__} is half of a Pyro pair already, and programs do not nest")
    latents = _LatentShapes(inference_network)
    return NetworkModel(generative_model, latents), NetworkGuide(inference_network, latents)


class NetworkGuide(PyroModule):
    """An inference network as a guide. `as_pair` makes it."""

    def __init__(self, inference_network: InferenceNetwork, latents: _LatentShapes) -> None:
        super().__init__()
        self.inference_network = inference_network
        self.latents = latents

    def forward(self, x: Tensor) -> None:
        """Draw the latents of data ``[batch, ...]``."""
        sites = self.latents(x)
        source = Posterior(self.inference_network, [x], [*sites.values()])
        with pyro.plate("data", len(x)):
            for name in sites:
                source.sample(name, len(x), has_rsample=source.network.reparameterised)


class NetworkModel(PyroModule):
    """A generative model as a model. `as_pair` makes it."""

    def __init__(self, generative_model: GenerativeModel, latents: _LatentShapes) -> None:
        super().__init__()
        self.generative_model = generative_model
        self.latents = latents

    def forward(self, x: Tensor) -> None:
        """Draw the latents and observe data ``[batch, ...]``.

        Parameters
        ----------
        x : Tensor, shape ``[batch, ...]``
            The data.

        Raises
        ------
        ValueError
            There is a KL weight, and the generative model has no `log_prior`.
        """
        sites = self.latents(x)
        source = Joint(self.generative_model, [*sites.values(), x.shape[1:]])
        if not source.has_prior and any(isinstance(handler, KLWeightMessenger) for handler in _PYRO_STACK):
            raise ValueError(
                "a KL weight scales the prior of the latents, and this GenerativeModel knows the joint density alone; "
                "override its log_prior, or use kl_weight=1"
            )
        with pyro.plate("data", len(x)):
            for name in sites:
                source.sample(name, len(x))
            source.sample("x", len(x), obs=x)


class _LatentShapes:
    """Names and shapes of the latents per datum. One draw finds them for each new shape of data."""

    def __init__(self, inference_network: InferenceNetwork) -> None:
        self.network = inference_network
        self.known: dict[torch.Size, list[torch.Size]] = {}

    def __call__(self, x: Tensor) -> dict[str, torch.Size]:
        if x.shape[1:] not in self.known:
            with torch.no_grad(), forked(), evaluating(self.network):
                draws = self.network([x[:1]]).sample(1)
            self.known[x.shape[1:]] = [draw.shape[2:] for draw in draws]
        shapes = self.known[x.shape[1:]]
        if len(shapes) == 1:
            return {"z": shapes[0]}
        width = len(str(len(shapes)))  # z01 to z12: sites are sorted by name elsewhere
        return {f"z{i:0{width}d}": shape for i, shape in enumerate(shapes, 1)}
