"""Figures of sticks: what they show is compared with the pair's own programs and with sticks broken by hand."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from pyrovae import VAE, data, plotting
from pyrovae.data import Dataset, Rows
from pyrovae.guides import KumaraswamySticks
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.metrics import class_probabilities, latent_means, stick_weights
from pyrovae.metrics.sticks import stick_weights_of
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.pairs.gaussian import gaussian

STICK_FIGURES = ["samples_by_sticks", "sticks_by_class", "decoder_weights"]


def build(pair: str, dataset: Dataset, **options) -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return find_pair(pair).build(dataset, hidden=(16,), **options).eval()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def vae(digits) -> VAE:
    return build("stick-breaking", digits, truncation=8)


@pytest.fixture(scope="module")
def classes_vae(digits) -> VAE:
    return build("semi-supervised", digits, latent="stick-breaking", truncation=8)


def picture(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def tiles(axes, columns: int, side: int = 8) -> np.ndarray:
    """Pictures in a mosaic, `[rows, columns, side, side]`."""
    pixels = picture(axes)[..., 0]
    rows = (pixels.shape[0] + 1) // (side + 1)
    assert pixels.shape == (rows * (side + 1) - 1, columns * (side + 1) - 1)
    starts = [[(r * (side + 1), c * (side + 1)) for c in range(columns)] for r in range(rows)]
    return np.array([[pixels[top : top + side, left : left + side] for top, left in row] for row in starts])


def texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def decoded(vae: VAE, weights: torch.Tensor, label: torch.Tensor | None = None) -> np.ndarray:
    """Means of p(x|z) at weights of the stick, straight from the decoder."""
    entered = vae.model.prior.gain * weights
    if label is not None:
        entered = torch.cat([entered, nn.functional.one_hot(label, 10).float()], -1)
    with torch.no_grad():
        return vae.model.decoder(entered).sigmoid().reshape(*weights.shape[:-1], 8, 8).numpy()


# -- sticks by class --------------------------------------------------------------------------------------------------


def test_sticks_by_class_hold_means_and_numbers():
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.4]])
    figure = plotting.sticks_by_class(weights, torch.tensor([3, 3, 5, -1]))
    means, used = figure.axes[:2]
    np.testing.assert_allclose(picture(means), [[0.6, 0.4], [1.0, 0.0]], atol=1e-6)  # what nobody uses is left out
    assert means.get_xlabel() == "weight of the stick (the first 2 of 4)"
    assert list(means.images[0].get_extent()) == [0.5, 2.5, 1.5, -0.5]  # the first weight stands at 1
    assert texts(means.get_yticklabels()) == ["3", "5"]
    assert [bar.get_width() for bar in used.patches] == [2.0, 1.0]
    assert texts(used.texts) == ["2.0", "1.0"]
    assert [axes.get_title() for axes in (means, used)] == ["Mean weights of each class", "Weights used"]
    assert used.get_ylim() == means.get_ylim()


def test_sticks_by_class_to_the_end():
    figure = plotting.sticks_by_class(torch.full((2, 4), 0.25), torch.tensor([0, 1]))
    assert figure.axes[0].get_xlabel() == "weight of the stick (all 4; the last is the rest)"
    assert picture(figure.axes[0]).shape == (2, 4)
    with pytest.raises(ValueError, match="no row has a label"):
        plotting.sticks_by_class(torch.full((2, 4), 0.25), torch.full((2,), -1))


def test_weights_of_a_pair_with_classes_are_those_at_the_most_probable_one(digits, classes_vae):
    x = digits.test.x[:20]
    label = class_probabilities(classes_vae, x).argmax(-1)
    expected = stick_weights(classes_vae, x, y=label)
    torch.testing.assert_close(stick_weights_of(classes_vae, Rows(x, (label + 1) % 10)), expected)


# -- weights of the decoder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "classes_vae"])
def test_decoder_weights_of_a_stick(name, request):
    vae = request.getfixturevalue(name)
    norms = vae.model.decoder.net.layers[0].weight[:, :8].detach().norm(dim=0)
    order = norms.argsort(descending=True)
    figure = plotting.decoder_weights(vae)
    bars, below = figure.axes
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], norms[order], rtol=1e-6)
    assert texts(bars.get_xticklabels()) == [str(int(place) + 1) for place in order]
    assert figure.get_supxlabel() == "weight of the stick, sorted by the norm of its column"
    label = torch.zeros(8, dtype=torch.long) if name == "classes_vae" else None
    shown = [np.asarray(image.get_array())[..., 0] for image in below.images]
    np.testing.assert_allclose(shown, decoded(vae, torch.eye(8)[order], label), atol=1e-4)
    assert_below(bars, below)


def assert_below(bars, below):
    """Each picture has its bar above it, on the page too, and its pixels are square."""
    assert bars.get_xlim() == below.get_xlim()
    first, second = bars.get_position(), below.get_position()
    assert (first.x0, first.x1) == (second.x0, second.x1)
    assert first.y0 > second.y1
    for bar, image in zip(bars.patches, below.images, strict=True):
        left, right, bottom, top = image.get_extent()
        assert bar.get_x() + bar.get_width() / 2 == pytest.approx((left + right) / 2)
        corners = below.transData.transform([(left, bottom), (right, top)])
        width, height = corners[1] - corners[0]
        assert width == pytest.approx(height, rel=1e-6)


def test_decoder_weights_of_a_long_stick(digits):
    axes = plotting.decoder_weights(build("stick-breaking", digits, truncation=60)).axes
    bars, below = axes[::2], axes[1::2]
    assert [len(part.patches) for part in bars] == [20, 20, 20]
    for upper, lower in zip(bars, below, strict=True):
        assert_below(upper, lower)
    numbers = [int(text) for part in bars for text in texts(part.get_xticklabels())]
    assert sorted(numbers) == list(range(1, 61))  # every one is told
    heights = [bar.get_height() for part in bars for bar in part.patches]
    assert heights == sorted(heights, reverse=True)
    assert len({part.get_ylim() for part in bars}) == 1
    figure = plotting.decoder_weights(build("stick-breaking", digits, truncation=120))
    assert figure.get_suptitle().startswith("The 100 largest decoder weights\n")


@pytest.mark.parametrize("layer", ["plain", "gated"])
def test_decoder_weights_without_a_stick(digits, layer):
    vae = gaussian(digits, latent_dim=5, hidden=(16,), layer=layer)
    with torch.no_grad():
        next(part for part in vae.model.decoder.modules() if isinstance(part, nn.Linear)).weight[:, 2] = 0
    figure = plotting.decoder_weights(vae)
    (axes,) = figure.axes
    assert axes.patches[-1].get_height() == 0
    assert texts(axes.get_xticklabels())[-1] == "3"
    assert figure.get_supxlabel() == "latent dimension, sorted by the norm of its column"


class Parabolas(nn.Module):
    """A decoder without a linear layer."""

    def forward(self, weights):
        return weights[..., :1, None, None].square().expand(*weights.shape[:-1], 1, 8, 8)


def parabolas_vae() -> VAE:
    model = StickBreakingVAE(4, 2.0, Parabolas(), BernoulliLikelihood((1, 8, 8)))
    return VAE(model, KumaraswamySticks(DenseEncoder((1, 8, 8), (8,)), 4, 2.0))


def test_decoder_weights_refuse_other_decoders(digits):
    with pytest.raises(ValueError, match="decoder weights of StickBreakingVAE cannot be drawn"):
        plotting.decoder_weights(parabolas_vae())
    with pytest.raises(ValueError, match="cannot be drawn"):
        plotting.decoder_weights(build("sbn", digits, sizes=(6,)))


# -- samples by the number of weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "classes_vae"])
def test_samples_by_sticks_break_one_stick_on_and_on(name, request):
    vae, counts = request.getfixturevalue(name), [1, 3, 8]
    torch.manual_seed(5)
    (axes,) = plotting.samples_by_sticks(vae, counts, columns=4).axes
    shown = tiles(axes, 4)
    torch.manual_seed(5)
    fractions = vae.model.prior().sample((4,))
    left = torch.cat([torch.ones(4, 1), (1 - fractions).cumprod(-1)], -1)
    weights = left * torch.cat([fractions, torch.ones(4, 1)], -1)
    label = torch.arange(4) if name == "classes_vae" else None
    for row, count in enumerate(counts):
        cut = torch.zeros(4, 8)
        cut[:, : count - 1] = weights[:, : count - 1]
        cut[:, count - 1] = left[:, count - 1]  # all that is left of the stick
        np.testing.assert_allclose(shown[row], decoded(vae, cut, label), atol=1e-4)
    assert texts(axes.get_yticklabels()) == ["1", "3", "8"]
    assert axes.get_ylabel() == "weights of the stick"


def test_samples_by_sticks_choose_their_numbers(digits):
    counts = {
        (8, 5.0): ["1", "2", "3", "5", "8"],
        (60, 1.0): ["1", "2", "3", "5", "60"],  # five weights hold 99 % of such a stick
        (2, 5.0): ["1", "2"],
    }
    for (truncation, concentration), expected in counts.items():
        vae = build("stick-breaking", digits, truncation=truncation, concentration=concentration)
        assert texts(plotting.samples_by_sticks(vae, columns=2).axes[0].get_yticklabels()) == expected


def test_samples_by_sticks_take_an_inferred_concentration(digits):
    vae = build("stick-breaking", digits, truncation=60, concentration_is="inferred")
    with torch.no_grad():
        vae.guide.shared["concentration"].loc.fill_(-0.05)
        vae.guide.shared["concentration"].log_scale.fill_(-3.0)
    counts = texts(plotting.samples_by_sticks(vae, columns=2).axes[0].get_yticklabels())
    assert counts == ["1", "2", "3", "5", "60"]


def test_samples_by_sticks_of_a_table():
    table = data.load("linear-gaussian")
    vae = build("stick-breaking", table, truncation=6)
    vae.prepare(table.test.x)
    figure = plotting.samples_by_sticks(vae, [1, 6])
    assert picture(figure.axes[0]).shape == (2, 10)
    assert texts(figure.axes[0].get_yticklabels()) == ["1", "6"]
    assert len(plotting.decoder_weights(vae).axes) == 1  # no pictures


def test_samples_by_sticks_refuse_impossible_numbers(digits, vae):
    for counts, columns in (([0], 2), ([9], 2), ([], 2), ([3], 0)):
        with pytest.raises(ValueError, match="counts from 1 to 8"):
            plotting.samples_by_sticks(vae, counts, columns)
    with pytest.raises(ValueError, match="has no stick"):
        plotting.samples_by_sticks(gaussian(digits, latent_dim=2, hidden=(8,)))


# -- latents side by side ---------------------------------------------------------------------------------------------


def test_latent_comparison_shows_latents_and_labels(digits, vae):
    rows = digits.test.take(slice(40))
    flat = gaussian(digits, latent_dim=2, hidden=(8,))
    figure = plotting.latent_comparison({"Gaussian": flat, "sticks": vae}, rows, seed=3)
    left, right = figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["Gaussian: 2 dimensions", "sticks: t-SNE of 8 dimensions"]
    means = latent_means(flat, rows.x)
    for label, points in zip(rows.y.unique(), left.collections, strict=True):
        np.testing.assert_allclose(points.get_offsets(), means[rows.y == label], rtol=1e-5)
    alone = plotting.latent_scatter(stick_weights(vae, rows.x), rows.y, "tsne", seed=3).axes[0]
    for points, expected in zip(right.collections, alone.collections, strict=True):
        np.testing.assert_allclose(points.get_offsets(), expected.get_offsets(), rtol=1e-4)
    assert not figure.legends  # the labels stand among the points
    assert texts(left.texts) == [str(int(label)) for label in rows.y.unique()]


def test_latent_comparison_without_labels(digits, vae):
    figure = plotting.latent_comparison({"sticks": vae}, Rows(digits.test.x[:10]))
    assert not figure.legends
    assert len(figure.axes[0].collections) == 1
    with pytest.raises(ValueError, match="at least one VAE and four rows, got 0 and 10"):
        plotting.latent_comparison({}, Rows(digits.test.x[:10]))
    with pytest.raises(ValueError, match="got 1 and 3"):
        plotting.latent_comparison({"sticks": vae}, Rows(digits.test.x[:3]))


# -- those of a run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "classes_vae"])
def test_run_figures_of_a_stick(name, digits, request, tmp_path):
    some = Rows(digits.test.x[:30], digits.test.y[:30])
    dataset = Dataset("mine", digits.train, some, some, "unit")
    figures = plotting.run_figures(request.getfixturevalue(name), dataset, [])
    assert list(figures)[-3:] == STICK_FIGURES
    for figure_name in STICK_FIGURES:
        assert isinstance(figures[figure_name], Figure)
        plotting.save_figure(figures[figure_name], tmp_path / f"{figure_name}.png")


def test_run_figures_leave_out_what_does_not_apply(digits):
    rows = Rows(digits.test.x[:8])
    dataset = Dataset("mine", rows, rows, rows, "unit")
    names = set(plotting.run_figures(parabolas_vae(), dataset, []))
    assert names & set(STICK_FIGURES) == {"samples_by_sticks"}
    assert not set(plotting.run_figures(gaussian(dataset, latent_dim=2, hidden=(8,)), dataset, [])) & set(STICK_FIGURES)
