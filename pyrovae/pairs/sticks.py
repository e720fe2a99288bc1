"""The stick-breaking VAE, put together for data of a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pyro.distributions import Gamma

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.guides import BetaSticks, ConcentrationPosterior, GammaSticks, KumaraswamySticks, LogitNormalSticks
from pyrovae.models import StickBreakingVAE
from pyrovae.pairs import parts
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE

_GUIDES = {
    "kumaraswamy": KumaraswamySticks,
    "logit-normal": LogitNormalSticks,
    "gamma": GammaSticks,
    "beta": BetaSticks,
}


@register_pair(
    "stick-breaking",
    summary="stick-breaking VAE: a stick broken into weights, the first of which matter most",
    objective="mean-field",
)
def stick_breaking(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    truncation: Annotated[int, "number of weights of the stick"] = 50,
    concentration: Annotated[float, "concentration of the prior; initial value or prior mean if it is not fixed"] = 5.0,
    concentration_is: Annotated[
        Literal["fixed", "learned", "inferred"], "treatment of the concentration; inferred: with a Gamma hyperprior"
    ] = "fixed",
    hyperprior_shape: Annotated[float, "shape of the Gamma hyperprior"] = 1.0,
    posterior: Annotated[
        Literal["kumaraswamy", "logit-normal", "gamma", "beta"], "distribution of the fractions in the guide"
    ] = "kumaraswamy",
    net: parts.Net = "dense",
    hidden: parts.Hidden = (500,),
    layer: parts.Layer = "plain",
    activation: parts.Activation = "relu",
    channels: parts.Channels = (32, 64),
    tied: parts.Tied = False,
    likelihood: parts.GreyLikelihood = "auto",
    likelihood_scale: parts.LikelihoodScale = 1.0,
) -> VAE:
    """Put a stick-breaking VAE together.

    Raises:
        ValueError: for sizes or combinations that do not fit.
    """
    if posterior not in _GUIDES:
        raise ValueError(f"posterior must be one of {', '.join(_GUIDES)}, got {posterior!r}")
    if concentration_is not in ("fixed", "learned", "inferred"):
        raise ValueError(f"concentration_is must be fixed, learned or inferred, got {concentration_is!r}")
    head = parts.make_likelihood(likelihood, spec, likelihood_scale, grey=True)
    encoder, decoder = parts.make_nets(
        spec.shape,
        truncation,
        head.raw_shape,
        net=net,
        hidden=hidden,
        layer=layer,
        activation=activation,
        channels=channels,
        tied=tied,
    )
    prior, initial, num_data = concentration, concentration, None
    if concentration_is == "inferred":
        if not (concentration > 0 and hyperprior_shape > 0):
            raise ValueError(
                f"concentration and hyperprior_shape must be positive, got {concentration} and {hyperprior_shape}"
            )
        prior = Gamma(hyperprior_shape, hyperprior_shape / concentration)
        initial, num_data = ConcentrationPosterior(concentration), spec.num_rows
    learn = concentration_is == "learned"
    model = StickBreakingVAE(truncation, prior, decoder, head, learn_concentration=learn, num_data=num_data)
    return VAE(model, _GUIDES[posterior](encoder, truncation, initial, num_data=num_data))
