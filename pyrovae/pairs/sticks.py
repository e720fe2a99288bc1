"""The stick-breaking VAE, put together for data of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pyro.distributions import Gamma

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.families import EvaluationFigure, Family, Measure, register_family
from pyrovae.guides import BetaSticks, ConcentrationPosterior, GammaSticks, KumaraswamySticks, LogitNormalSticks
from pyrovae.metrics.evaluation import Evaluated
from pyrovae.metrics.sticks import has_sticks, prior_of_sticks, stick_weights_of, sticks_used
from pyrovae.models import StickBreakingVAE
from pyrovae.pairs import parts
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyrovae.plotting.run import Pictured

_GUIDES = {
    "kumaraswamy": KumaraswamySticks,
    "logit-normal": LogitNormalSticks,
    "gamma": GammaSticks,
    "beta": BetaSticks,
}


_INFERRED = "concentration_is='inferred'"


@register_pair(
    "stick-breaking",
    summary="stick-breaking VAE: a stick broken into weights, the first of which matter most",
    objective="mean-field",
    needs=(
        Needs(
            ("hyperprior_shape",), when("concentration_is", "inferred"), "a concentration that is inferred", _INFERRED
        ),
        parts.CHANNELS,
        parts.ACTIVATED,
        parts.SCALED,
    ),
)
def stick_breaking(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    truncation: Annotated[int, "number of weights of the stick"] = 50,
    concentration: Annotated[float, "concentration of the prior; initial if learned, prior mean if inferred"] = 5.0,
    concentration_is: Annotated[
        Literal["fixed", "learned", "inferred"], "what becomes of the concentration; inferred uses a Gamma hyperprior"
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
    """Build a stick-breaking VAE.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. This pair does not use them.
    truncation, concentration, concentration_is, hyperprior_shape, posterior
        Options of the pair, see below.
    net, hidden, layer, activation, channels, tied, likelihood, likelihood_scale
        Options of the pair. ``pyrovae train stick-breaking --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
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
    prior: float | Gamma = concentration
    initial: float | ConcentrationPosterior = concentration
    num_data = None
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


def _sticks_used(evaluated: Evaluated) -> dict[str, Any]:
    rows = evaluated.rows
    used = sticks_used(stick_weights_of(evaluated.vae, rows)).double()
    figures: dict[str, Any] = {"sticks_used": float(used.mean())}
    if rows.y is not None and bool(rows.labelled.any()):
        y = rows.y.cpu()
        by_class = [used[y == label] for label in range(int(y.max()) + 1)]
        figures["sticks_used_by_class"] = tuple(float(part.mean()) if len(part) else None for part in by_class)
    return figures


# Plots import matplotlib, so they are imported when they are drawn.
def _plot_samples(run: Pictured) -> Figure:
    from pyrovae.plotting import samples_by_sticks

    return samples_by_sticks(run.vae, show_range=run.show_range)


def _plot_classes(run: Pictured) -> Figure | None:
    from pyrovae.plotting import sticks_by_class

    rows = run.held_out
    if rows.y is None or not bool(rows.labelled.any()):
        return None
    return sticks_by_class(stick_weights_of(run.vae, rows), rows.y)


def _plot_decoder_weights(run: Pictured) -> Figure | None:
    from pyrovae.plotting.sticks import decoder_weights, first_layer

    return None if first_layer(run.vae) is None else decoder_weights(run.vae, show_range=run.show_range)


register_family(
    Family(
        "sticks",
        applies=has_sticks,
        measures=(
            Measure(
                (
                    EvaluationFigure(
                        "sticks_used",
                        "weights",
                        "weights that hold 99 % of the stick, mean over the rows; for pairs with sticks",
                    ),
                    EvaluationFigure(
                        "sticks_used_by_class", "weights", "`sticks_used` of each class, where there are labels"
                    ),
                ),
                _sticks_used,
            ),
        ),
        plots={
            "samples_by_sticks": _plot_samples,
            "sticks_by_class": _plot_classes,
            "decoder_weights": _plot_decoder_weights,
        },
        prior_variances=lambda vae: {"z": prior_of_sticks(vae).variance},
        # Weights are a probability distribution; between roots of it the distance is Hellinger's.
        row_vectors=lambda vae, rows: stick_weights_of(vae, rows).sqrt(),
        encodings={"weights": stick_weights_of},
    )
)
