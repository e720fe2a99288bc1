"""Structure from motion, put together for landmarks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.guides import AmortizedGaussian, PerDatum
from pyrovae.likelihoods import NormalLikelihood
from pyrovae.masks import fill_missing
from pyrovae.models import ProjectedShapes
from pyrovae.nn import DenseEncoder
from pyrovae.nn.projections import ShapeProjector, shape_of_views
from pyrovae.pairs import parts
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.registry import register_pair
from pyrovae.priors import StandardNormal
from pyrovae.vae import VAE


@register_pair(
    "landmarks",
    summary="structure from motion: a 3-D shape and a camera of each datum, for landmarks in the plane",
    objective="mean-field",
    lr=5e-3,
    lr_schedule="cosine",
    kl_weight="warm-up:15",
    needs=(Needs(("encoder_hidden", "sees_mask"), when("guide", "amortized"), "an encoder", "guide='amortized'"),),
)
def landmarks(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    shape_latents: Annotated[int, "size of the part of the latent that makes the shape"] = 3,
    camera_latents: Annotated[int, "size of the part that makes the projection"] = 6,
    guide: Annotated[
        Literal["amortized", "per-datum"], "an encoder, or parameters of its own for each row (auto-decoder)"
    ] = "amortized",
    camera: Annotated[
        Literal["orthographic", "perspective"], "kind of projection; perspective leaves the 3-D shape ambiguous"
    ] = "orthographic",
    hidden: Annotated[tuple[int, ...], "hidden layers of the two nets of shape and projection"] = (64,),
    encoder_hidden: Annotated[tuple[int, ...], "hidden layers of the encoder"] = (128, 128),
    sees_mask: parts.SeesMask = True,
    likelihood_scale: Annotated[float, "standard deviation of a coordinate, in the units of the data"] = 0.03,
) -> VAE:
    """Build a pair of landmarks.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data, which must be of the shape ``[L, 2]``.
    rows : Rows, optional
        Training rows, from which the mean shape starts.
    shape_latents, camera_latents, guide, camera, hidden, encoder_hidden, sees_mask, likelihood_scale
        Options of the pair. ``pyrovae train landmarks --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        The data are no landmarks, or a size does not suit.
    """
    if len(spec.shape) != 2 or spec.shape[1] != 2:
        raise ValueError(f"the pair landmarks is for data of shape (L, 2), and a datum of {spec.name} is {spec.shape}")
    start = None
    if rows is not None and spec.shape[0] > 3:
        start = shape_of_views(fill_missing(rows.x, rows.mask, parts.mean_of_entries(rows)))
    options: dict[str, Any] = {"camera": camera, "mean_shape": start}
    projector = ShapeProjector(spec.shape[0], shape_latents, camera_latents, hidden, **options)
    size = projector.latent_dim
    model = ProjectedShapes(StandardNormal(size), projector, NormalLikelihood(spec.shape, scale=likelihood_scale))
    answers: Any
    if guide == "per-datum":
        answers = PerDatum(spec.num_rows, size, scale="learned", log_var=-3.0)
    else:
        answers = AmortizedGaussian(DenseEncoder(spec.shape, encoder_hidden, sees_mask=sees_mask), size)
    return VAE(model, answers)
