"""Figures of sticks: weights by class, what the decoder makes of them, and latent spaces side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.data import Rows
from pyrovae.decoding import only_site
from pyrovae.metrics.classification import class_site, latents_of
from pyrovae.metrics.sticks import has_sticks, stick_weights_of, sticks_used
from pyrovae.plotting.drawing import BLUE, clean, counted, draw_mosaic, heat_map, is_pictures, mosaic
from pyrovae.plotting.latents import TSNE_ROWS, draw_classes, in_plane, legend_of_unknown
from pyrovae.vae import VAE

_MASS = 0.99  # of a stick, whose weights count as used
_LEFT_OVER = 1e-3  # of a stick, not worth drawing
_STRIPS, _IN_STRIP = 4, 25  # of bars


def sticks_by_class(weights: Tensor, labels: Tensor) -> Figure:
    """Draw the mean weights of each class as a heat map, beside the number of weights that hold 99 % of the stick.

    Weights at the end of the stick are left out where all of them together hold less than a thousandth in every class.

    Parameters
    ----------
    weights : Tensor, shape ``[N, truncation]``
        Weights, such as `metrics.stick_weights` gives.
    labels : Tensor of int, shape ``[N]``
        Labels. Rows labelled -1 are left out.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        No row has a label.
    """
    weights, labels = weights.detach().cpu(), labels.cpu()
    classes = labels[labels >= 0].unique().tolist()
    if not classes:
        raise ValueError("no row has a label, so there are no classes to average over")
    means = torch.stack([weights[labels == label].mean(0) for label in classes])
    used = sticks_used(weights, _MASS).double()
    counts = [float(used[labels == label].mean()) for label in classes]
    shown = int(sticks_used(means, 1 - _LEFT_OVER).max())
    size = float(np.clip(0.2 * shown + 3.5, 6.4, 10.0)), float(np.clip(0.3 * len(classes) + 1.4, 2.6, 7.0))
    figure = Figure(figsize=size, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    # Sticks fall off by orders of magnitude, so the root of the weight is what the colour shows.
    options = {"cmap": "viridis", "norm": PowerNorm(0.5, vmin=0.0), "aspect": "auto", "interpolation": "nearest"}
    sides = (0.5, shown + 0.5, len(classes) - 0.5, -0.5)
    image = left.imshow(means[:, :shown].numpy(), extent=sides, **options)
    number = (
        f"the first {shown} of {weights.shape[1]}" if shown < weights.shape[1] else f"all {shown}; the last is the rest"
    )
    left.set(title="Mean weights of each class", xlabel=f"weight of the stick ({number})", ylabel="class")
    left.set_xticks(counted(shown))
    left.set_yticks(range(len(classes)), list(map(str, classes)))
    bars = right.barh(range(len(classes)), counts, color=BLUE, height=0.7)
    right.bar_label(bars, fmt="{:.1f}", padding=3, fontsize="small")
    right.set(title="Weights used", xlabel=f"for {_MASS:.0%} of the stick", xlim=(0, 1.3 * max(counts)))
    right.tick_params(axis="y", length=0)
    figure.colorbar(image, ax=left, label="mean weight", pad=0.02)
    clean(right)
    return figure


@torch.no_grad()
def decoder_weights(vae: VAE, *, show_range: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """Draw the norms of the columns of the decoder's first layer, one for each latent feature, sorted.

    Use it to see which features the decoder uses. They stand in strips of 25, the 100 largest of them. For sticks and
    pictures, each weight has a picture right below its bar: the mean of p(x|z) for a stick that is all in this one
    weight. With classes it is that of class 0.

    Parameters
    ----------
    vae : VAE
        A VAE whose model has a `prior` and a `decoder` that begins with a linear or gated layer, as the library's have.
    show_range : tuple of float, default (0.0, 1.0)
        Values of pictures shown as black and white.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        The decoder is another one.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders": a Gaussian VAE sets columns to zero,
    sticks do not.
    """
    layer = first_layer(vae)
    if layer is None:
        raise ValueError(
            f"the decoder weights of {programs.describe(vae.model)} cannot be drawn: it needs one that begins with "
            "a linear layer on the features of its prior"
        )
    norms = layer.norm(dim=0).cpu()
    order = norms.argsort(descending=True, stable=True)
    shown = order[: _STRIPS * _IN_STRIP]
    tiles: Tensor | None = None
    if has_sticks(vae):
        pictures = _pictures_of_weights(vae, shown)
        tiles = pictures if is_pictures(pictures) else None
    name = "weight of the stick" if has_sticks(vae) else "latent dimension"
    title = "Decoder weights by norm" if len(shown) == len(order) else f"The {len(shown)} largest decoder weights"
    if tiles is not None:
        title += "\nbelow: mean of p(x|z) with all of the stick in this weight"
    return _strips(norms, shown, tiles, title, name, show_range)


def _strips(
    norms: Tensor, order: Tensor, tiles: Tensor | None, title: str, name: str, show_range: tuple[float, float]
) -> Figure:
    """Bars in strips, each with its number, and its picture right below."""
    strips = math.ceil(len(order) / _IN_STRIP)
    in_strip = math.ceil(len(order) / strips)
    columns = max(in_strip, 14)  # the title needs room
    # All in inches, so that bars and pictures share their places.
    column, bars, numbers, left, above, right = 0.36, 1.1, 0.28, 0.75, 0.65, 0.1
    picture = 0.0 if tiles is None else column * tiles.shape[-2] / tiles.shape[-1]
    below = numbers + picture + 0.15
    width, height = left + columns * column + right, above + strips * (bars + below) + 0.3
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.08 / height, va="top")
    top = 1.08 * float(norms.max())
    for strip in range(strips):
        places = order[strip * in_strip : (strip + 1) * in_strip]
        base = height - above - strip * (bars + below) - bars
        across = {"left": left / width, "width": columns * column / width}
        axes = figure.add_axes((across["left"], base / height, across["width"], bars / height))
        axes.bar(range(len(places)), norms[places].numpy(), color=BLUE, width=0.8)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(0, top), ylabel="norm")
        axes.set_xticks(range(len(places)), [str(int(place) + 1) for place in places], size="small")
        axes.tick_params(axis="x", length=0)
        clean(axes)
        if tiles is None:
            continue
        under = figure.add_axes(
            (across["left"], (base - numbers - picture) / height, across["width"], picture / height), sharex=axes
        )
        for number, tile in enumerate(tiles[strip * in_strip : (strip + 1) * in_strip]):
            pixels = mosaic(tile.unsqueeze(0), 1, show_range).pixels
            sides = (number - 0.46, number + 0.46, 0.04, 0.96)
            under.imshow(pixels, extent=sides, aspect="auto", interpolation="nearest")
        under.set(xlim=(-0.5, columns - 0.5), ylim=(0, 1), yticks=[])
        under.tick_params(axis="x", length=0, labelbottom=False)
        under.spines[:].set_visible(False)
    figure.supxlabel(f"{name}, sorted by the norm of its column", size="medium", y=0.06 / height, va="bottom")
    return figure


def first_layer(vae: VAE) -> Tensor | None:
    """Return the columns of the decoder's first layer for latent features, ``[out, num_features]``, or None."""
    decoder, prior = (getattr(vae.model, name, None) for name in ("decoder", "prior"))
    size = getattr(prior, "num_features", None)
    if not isinstance(decoder, nn.Module) or size is None:
        return None
    layer = next((part for part in decoder.modules() if isinstance(part, nn.Linear)), None)
    # A label may stand behind the features.
    if layer is None or layer.in_features not in (size, size + _num_classes(vae)):
        return None
    return layer.weight[:, :size]


def _num_classes(vae: VAE) -> int:
    return getattr(vae.model, "num_classes", 0)


def _pictures_of_weights(vae: VAE, order: Tensor) -> Tensor:
    """Means of p(x|z) for sticks that are all in one weight each, those numbered `order` from 0; at the first class."""
    prior = vae.model.prior
    fractions = _broken_off(prior.log_concentration.new_zeros(len(order), prior.latent_dim), order + 1)
    return only_site(vae.decode(_with_label(vae, fractions, torch.zeros(len(order), dtype=torch.long)))).mean


def _broken_off(fractions: Tensor, count: Tensor) -> Tensor:
    """Fractions `[N, K - 1]` of sticks of which the first `count` weights, `[N]`, are all."""
    place = torch.arange(fractions.shape[-1], device=fractions.device)
    everything = 1 - torch.finfo(fractions.dtype).eps / 2
    return torch.where(place == count.to(place.device).unsqueeze(-1) - 1, everything, fractions)


def _with_label(vae: VAE, fractions: Tensor, label: Tensor) -> dict[str, Tensor]:
    label_site = class_site(vae)
    return {name: label.to(fractions.device) if name == label_site else fractions for name in vae.sites.latent}


@torch.no_grad()
def samples_by_sticks(
    vae: VAE,
    counts: Sequence[int] | None = None,
    columns: int = 12,
    *,
    show_range: tuple[float, float] = (0.0, 1.0),
) -> Figure:
    """Draw means of p(x|z) for sticks from the prior that end after 1, 2, 3 or more weights, a row per number.

    Use it to see what each further weight adds. The fractions are independent, so these are draws from the prior, given
    that the stick is used up after so many weights. A column has the same fractions in all rows: its stick is broken
    further and further. In a pair with classes, the columns go through the classes. Data that are not pictures are
    drawn as a heat map, with one draw per number of weights.

    Parameters
    ----------
    vae : VAE
        A VAE with a stick.
    counts : sequence of int, optional
        Numbers of weights, each from 1 to the truncation. None takes 1, 2, 3, 5, 8, ... until they typically hold 99 %
        of a stick of the prior, and the truncation.
    columns : int, default 12
        Draws per row.
    show_range : tuple of float, default (0.0, 1.0)
        Values of pictures shown as black and white.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        The VAE has no stick, or a number is out of range.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders". The authors draw from Dirichlet
    distributions of so many dimensions instead.
    """
    if not has_sticks(vae):
        raise ValueError(f"this VAE has no stick: its prior is no StickBreakingPrior, latents {vae.sites.latent}")
    truncation = vae.model.prior.num_features
    # A concentration with a hyperprior stands at its posterior mean.
    concentration = vae.global_means().get("concentration", vae.model.prior.concentration)
    counts = _growing(truncation, float(concentration) * -math.log(1 - _MASS)) if counts is None else list(counts)
    if columns < 1 or not counts or not all(1 <= count <= truncation for count in counts):
        raise ValueError(f"give counts from 1 to {truncation} and at least one column, got {counts} and {columns}")
    fractions = vae.model.prior(concentration).sample((columns,)).repeat(len(counts), 1)
    sticks = _broken_off(fractions, torch.tensor(counts).repeat_interleave(columns))
    label = torch.arange(len(sticks)) % columns % max(1, _num_classes(vae))
    fn: TorchDistribution = only_site(vae.decode(_with_label(vae, sticks, label)))
    decoded = fn.mean
    if not is_pictures(decoded):
        first = decoded[::columns].flatten(1)
        figure, axes = heat_map(
            first,
            "Means of p(x|z) at one draw of z, by the number of weights",
            rows="weights of the stick",
            columns="entry of the datum",
            value="mean of p(x|z)",
        )
        axes.set_yticks(range(1, len(counts) + 1), list(map(str, counts)))
        return figure
    pictures = mosaic(decoded, columns, show_range)
    figure, axes = draw_mosaic(pictures, "Means of p(x|z) at draws of z, by the number of weights")
    axes.set_yticks(pictures.rows, list(map(str, counts)))
    axes.set_ylabel("weights of the stick")
    return figure


def _growing(truncation: int, enough: float) -> list[int]:
    """Fibonacci numbers below the truncation up to the first that is enough, and the truncation.

    >>> _growing(50, 23.0), _growing(10, 23.0), _growing(2, 0.1)
    ([1, 2, 3, 5, 8, 13, 21, 34, 50], [1, 2, 3, 5, 8, 10], [1, 2])
    """
    numbers, following = [1], 2
    while following < truncation and numbers[-1] < enough:
        numbers.append(following)
        following += numbers[-2]
    return [*numbers, truncation]


def latent_comparison(vaes: Mapping[str, VAE], split: Rows, *, seed: int = 0) -> Figure:
    """Draw the latents of several VAEs side by side in the plane, coloured by label.

    Use it to compare latent spaces, such as a Gaussian and a stick-breaking one. Latents are posterior means; those of
    sticks are the mean weights. More than two dimensions are reduced by t-SNE. The first 500 rows are drawn.

    Parameters
    ----------
    vaes : mapping of str to VAE
        The VAEs by name, each with at least two latent dimensions.
    split : Rows
        Some rows, at least four.
    seed : int, default 0
        Seed of t-SNE.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        There are no VAEs, or fewer than four rows.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders".
    """
    some = split.take(slice(TSNE_ROWS))
    if not vaes or len(some.x) < 4:
        raise ValueError(f"give at least one VAE and four rows, got {len(vaes)} and {len(some.x)}")
    figure = Figure(figsize=(0.9 + 4.4 * len(vaes), 4.6), layout="constrained")
    panels = figure.subplots(1, len(vaes), squeeze=False)[0]
    for axes, (name, vae) in zip(panels, vaes.items(), strict=True):
        latents = _latents(vae, some).double().numpy()
        points, names = in_plane(latents, "tsne", seed)
        names["title"] = f"{name}: {'t-SNE of ' if latents.shape[1] > 2 else ''}{latents.shape[1]} dimensions"
        draw_classes(axes, points, some.y, **names)
        clean(axes)
    legend_of_unknown(panels[0])
    return figure


def _latents(vae: VAE, split: Rows) -> Tensor:
    if has_sticks(vae):
        return stick_weights_of(vae, split)
    return latents_of(vae, split)
