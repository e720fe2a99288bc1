"""Semi-supervised pairs with a Gaussian or a stick-breaking latent, put together for data of a kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from torch import nn

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.families import EvaluationFigure, Family, Measure, register_family
from pyrovae.guides.semi_supervised import Classifier, LabelledEncoder, SemiSupervisedGuide
from pyrovae.guides.sticks import KumaraswamyHead
from pyrovae.masks import fill_missing
from pyrovae.metrics.classification import class_probabilities, class_site, classification_error, infers_label
from pyrovae.metrics.evaluation import Evaluated
from pyrovae.models.semi_supervised import SemiSupervisedVAE
from pyrovae.nn import FlatEncoder, GaussianHead
from pyrovae.nn.consistency import neighbour_distance
from pyrovae.pairs import parts
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.registry import register_pair
from pyrovae.priors import StandardNormal, StickBreakingPrior
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyrovae.plotting.run import Pictured


@register_pair(
    "semi-supervised",
    summary="VAE with a partly observed class (M2), Gaussian or stick-breaking latent",
    objective="enum",
    needs=(
        Needs(("latent_dim",), when("latent", "gaussian"), "a Gaussian latent", "latent='gaussian'"),
        Needs(
            ("truncation", "concentration"),
            when("latent", "stick-breaking"),
            "a stick-breaking latent",
            "latent='stick-breaking'",
        ),
        Needs(
            ("consistency_radius",),
            lambda options, spec: bool(options["consistency_weight"]),
            "the consistency of q(y|x)",
            "consistency_weight=1",
        ),
        parts.CHANNELS,
        parts.ACTIVATED,
    ),
)
def semi_supervised(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    latent: Annotated[Literal["gaussian", "stick-breaking"], "kind of the latent beside the class"] = "gaussian",
    latent_dim: Annotated[int, "size of a Gaussian latent"] = 50,
    truncation: Annotated[int, "weights of a stick-breaking latent"] = 50,
    concentration: Annotated[float, "concentration of the stick-breaking prior"] = 5.0,
    net: Annotated[Literal["dense", "conv"], "kind of the nets"] = "dense",
    hidden: Annotated[tuple[int, ...], parts.HIDDEN] = (500,),
    layer: parts.Layer = "plain",
    activation: parts.Activation = "relu",
    channels: parts.Channels = (32, 64),
    dropout: Annotated[float, "probability of dropping a hidden unit of the classifier in training"] = 0.0,
    noise: Annotated[float, "standard deviation of noise on the classifier's input in training"] = 0.0,
    shift: Annotated[int, "pixels by which pictures are moved at random before the classifier in training"] = 0,
    classification_weight: Annotated[
        float, "weight of log q(y|x) of a labelled row, in units of number of rows / number of labelled rows"
    ] = 1.0,
    consistency_weight: Annotated[
        float, "weight of keeping q(y|x) the same around every row, so that classes change where there are few rows"
    ] = 0.0,
    consistency_radius: Annotated[
        float, "distance within which, in units of the median distance of a row to its fifth nearest other row"
    ] = 0.5,
    learn_class_prior: Annotated[bool, "learn the class probabilities"] = False,
    likelihood: parts.GreyLikelihood = "auto",
) -> VAE:
    """Build a semi-supervised pair, with a Gaussian or a stick-breaking latent.

    The layer that takes the label in has size `hidden[-1]`. `classification_weight` is the alpha of the reference,
    which chooses 0.1 for trainings of 3000 epochs. With fewer epochs, 1 to 5 gives fewer errors.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. `consistency_radius` is in units of their distances.
    latent, latent_dim, truncation, concentration, net, hidden, layer, activation, channels
        Options of the pair, see below.
    dropout, noise, shift, classification_weight, consistency_weight, consistency_radius
        Options of the pair.
    learn_class_prior, likelihood
        Options of the pair. ``pyrovae train semi-supervised --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit, or the training rows have fewer than two classes.

    References
    ----------
    D. Kingma, D. Rezende, S. Mohamed and M. Welling (2014), "Semi-supervised learning with deep generative models". T.
    Miyato, S. Maeda, M. Koyama and S. Ishii (2018), "Virtual adversarial training", for the consistency of q(y|x).
    """
    num_classes = spec.num_classes
    if num_classes is None or num_classes < 2:
        raise ValueError(f"a semi-supervised pair needs training rows of at least two classes, {spec.name} has none")
    if not hidden or latent_dim < 1:
        raise ValueError(
            f"latent_dim and the number of hidden layers must be at least 1, got {latent_dim} and {hidden}"
        )
    head = parts.make_likelihood(likelihood, spec, grey=True)
    prior: nn.Module
    draw: nn.Module
    if latent == "gaussian":
        prior, draw, features = StandardNormal(latent_dim), GaussianHead(hidden[-1], latent_dim), latent_dim
    else:
        prior = StickBreakingPrior(truncation, concentration)
        draw, features = KumaraswamyHead(hidden[-1], truncation, concentration), truncation
    options: dict[str, Any] = {"net": net, "layer": layer, "activation": activation, "channels": channels}
    inside, on_features = (0.0, dropout) if net == "conv" else (dropout, 0.0)
    for_class = parts.make_encoder(spec.shape, hidden=hidden, dropout=inside, **options)
    # The last hidden layer takes the label in, so dense layers before it are the encoder.
    before = hidden if net == "conv" else hidden[:-1]
    for_latent = parts.make_encoder(spec.shape, hidden=before, **options) if before else FlatEncoder(spec.shape)
    decoder = parts.make_decoder(features + num_classes, head.raw_shape, hidden=hidden, **options)
    classifier = Classifier(for_class, num_classes, dropout=on_features, noise=noise, shift=shift)
    encoder = LabelledEncoder(
        for_latent,
        num_classes,
        hidden[-1],
        activation=activation,
        layer=layer,
    )
    weight = classification_weight * spec.num_rows / max(1, spec.num_labelled)
    guide = SemiSupervisedGuide(
        classifier,
        encoder,
        draw,
        classification_weight=weight,
        consistency_weight=consistency_weight,
        consistency_radius=_radius(rows, consistency_radius) if consistency_weight else None,
    )
    model = SemiSupervisedVAE(num_classes, prior, decoder, head, learn_class_prior=learn_class_prior)
    return VAE(model, guide)


def _radius(rows: Rows | None, share: float) -> float | None:
    """The radius in the units of the data. Without rows it does not matter, because it is read from a file next."""
    if not share >= 0:
        raise ValueError(f"consistency_radius must be finite and not negative, got {share}")
    if rows is None:
        return None
    complete = rows.x if rows.mask is None else fill_missing(rows.x, rows.mask, parts.mean_of_entries(rows))
    return share * neighbour_distance(complete)


def _classification_error(evaluated: Evaluated) -> dict[str, float]:
    rows = evaluated.rows
    return {"classification_error": classification_error(evaluated.vae, rows)} if bool(rows.labelled.any()) else {}


def _validation_error(vae: VAE, rows: Rows) -> dict[str, Callable[[], float]]:
    told = bool(rows.labelled.any()) and infers_label(vae, rows)
    return {"validation_error": partial(classification_error, vae, rows)} if told else {}


# Plots import matplotlib, so they are imported when they are drawn.
def _plot_confusion(run: Pictured) -> Figure | None:
    from pyrovae.plotting import class_confusion

    rows = run.held_out
    if rows.y is None or not bool(rows.labelled.any()) or not infers_label(run.vae, rows):
        return None
    return class_confusion(class_probabilities(run.vae, rows.x, **rows.fields()).argmax(-1), rows.y.cpu())


register_family(
    Family(
        "classes",
        applies=lambda vae: class_site(vae) is not None,
        measures=(
            Measure(
                (
                    EvaluationFigure(
                        "classification_error",
                        "share of rows",
                        "labelled rows whose most probable class is wrong; for pairs that infer a class",
                    ),
                ),
                _classification_error,
            ),
        ),
        validation_figures=_validation_error,
        plots={"class_confusion": _plot_confusion},
    )
)
