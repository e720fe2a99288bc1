"""Figures: what they show, what they leave alone and what they refuse."""

import json
import math
import subprocess
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from pyrovae import VAE, data, metrics, plotting
from pyrovae.data import Dataset, Rows
from pyrovae.pairs import find_pair

NAMES = ["training_curves", "samples", "reconstructions", "interpolation", "latent_scatter", "latent_profile"]
ROWS = [
    {"epoch": e, "loss": 100 / e, "validation_loss": 50 + (e - 15) ** 2, "kl_weight": e / 20, "lr": 1e-3}
    for e in range(1, 21)
]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits", binarize="dynamic")


@pytest.fixture(scope="module")
def digits_vae(digits) -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return find_pair("gaussian").build(digits, latent_dim=3, hidden=(16,))


def picture(figure: Figure) -> np.ndarray:
    """The pixels of a figure that shows one mosaic."""
    return np.asarray(figure.axes[0].images[0].get_array())


def matrix(figure: Figure) -> np.ndarray:
    """The values of a figure that shows a heat map and its scale."""
    assert len(figure.axes) == 2
    return np.asarray(figure.axes[0].images[0].get_array())


def test_sample_grid_holds_every_picture_in_its_place():
    images = torch.rand(5, 1, 14, 14)
    pixels = picture(plotting.sample_grid(images, title="Mine"))
    assert pixels.shape == (2 * 14 + 1, 3 * 14 + 2, 3)  # two rows of three, a pixel between
    for number, (top, left) in enumerate([(0, 0), (0, 15), (0, 30), (15, 0), (15, 15)]):
        shown = pixels[top : top + 14, left : left + 14]
        np.testing.assert_allclose(shown, images[number, 0, :, :, None].expand(14, 14, 3), atol=1e-6)
    assert (pixels[15:, 30:] == 1).all()  # no sixth picture
    assert plotting.sample_grid(images, title="Mine").axes[0].get_title() == "Mine"


def test_sample_grid_of_colours_and_of_other_ranges():
    colours = torch.rand(1, 3, 8, 8)
    np.testing.assert_allclose(picture(plotting.sample_grid(colours)), colours[0].permute(1, 2, 0), atol=1e-6)
    symmetric = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
    pixels = picture(plotting.sample_grid(symmetric, show_range=(-1.0, 1.0)))
    assert pixels[..., 0].tolist() == [[0.0, 0.5], [1.0, 1.0]]
    assert picture(plotting.sample_grid(torch.zeros(4, 8, 8))).shape == (17, 17, 3)


def test_sample_grid_of_other_data_is_a_heat_map():
    values = torch.randn(7, 10)
    figure = plotting.sample_grid(values)
    np.testing.assert_allclose(matrix(figure), values)
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("sample", "entry of the datum")
    with pytest.raises(ValueError, match="nothing to draw"):
        plotting.sample_grid(values[:0])


def test_reconstructions_stand_below_their_originals():
    x, x_hat = torch.rand(12, 1, 14, 14), torch.rand(12, 1, 14, 14)
    figure = plotting.reconstructions(x, x_hat)
    pixels, axes = picture(figure), figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "reconstruction"] * 2
    for number in range(12):
        left = number % 10 * 15
        for values, line in ((x, 2 * (number // 10)), (x_hat, 2 * (number // 10) + 1)):
            centre = axes.get_yticks()[line]
            top = round(centre - 6.5)
            shown = pixels[top : top + 14, left : left + 14, 0]
            np.testing.assert_allclose(shown, values[number, 0], atol=1e-6)
    assert (pixels[-14:, 2 * 15 :] == 1).all()


def test_reconstructions_of_other_data_are_profiles():
    x, x_hat = torch.randn(4, 6), torch.randn(4, 6)
    figure = plotting.reconstructions(x, x_hat)
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 4
    for axes, original, copy in zip(panels, x, x_hat, strict=True):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), original)
        np.testing.assert_allclose(axes.lines[1].get_ydata(), copy)
    assert [text.get_text() for text in figure.legends[0].texts] == ["original", "reconstruction"]
    with pytest.raises(ValueError, match=r"rows of one shape, got \(4, 6\) and \(4, 5\)"):
        plotting.reconstructions(x, x_hat[:, :5])


def test_interpolation_runs_between_the_reconstructions(digits, digits_vae):
    x = digits.test.x[:4]
    pixels = picture(plotting.interpolation(digits_vae, x[:2], x[2:], steps=5))
    tiles = pixels[..., 0].reshape(-1, pixels.shape[1])
    assert tiles.shape == (2 * 8 + 1, 7 * 8 + 6)
    x_hat = digits_vae.reconstruct(x)[:, 0]
    middle = digits_vae.decode(digits_vae.encode(x).mean.unflatten(0, (2, 2)).mean(0)).mean[:, 0]
    for row in range(2):
        tile = [tiles[9 * row : 9 * row + 8, 9 * c : 9 * c + 8] for c in range(7)]
        expected = {0: x[row, 0], 1: x_hat[row], 3: middle[row], 5: x_hat[row + 2], 6: x[row + 2, 0]}
        for column, values in expected.items():
            np.testing.assert_allclose(tile[column], values.detach(), atol=1e-5)


def test_interpolation_refuses_what_has_nothing_between(digits, digits_vae):
    x = digits.test.x[:4]
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        plotting.interpolation(digits_vae, x[:1], x[1:2], steps=1)
    with pytest.raises(ValueError, match="two batches of one shape"):
        plotting.interpolation(digits_vae, x[:1], x[:2])
    with pytest.raises(ValueError, match="latent site 'z' is discrete"):
        plotting.interpolation(_discrete_vae(), torch.zeros(1, 5), torch.ones(1, 5))


def _discrete_vae() -> VAE:
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(3)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 5), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(x[:, :3].sigmoid()).to_event(1))

    return VAE(model, guide)


def test_scatter_of_two_dimensions_is_the_latents_themselves():
    z, y = torch.randn(50, 2), torch.arange(50) % 4 - 1
    figure = plotting.latent_scatter(z, y)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().texts] == ["unknown"]  # the others are among the points
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2"]
    for label, points in zip(range(-1, 3), axes.collections, strict=True):
        np.testing.assert_allclose(points.get_offsets(), z[y == label], rtol=1e-6)
    plain = plotting.latent_scatter(z).axes[0]
    assert plain.get_legend() is None
    assert plain.get_title() == "Latent means: 2 of 2 units in use"
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("$z_1$", "$z_2$")


def test_labels_of_a_scatter_stand_at_the_medians_and_apart():
    centres = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.001, 0.0], [5.0, 5.0]])
    y = torch.arange(40) % 4
    z = centres[y] + 0.01 * torch.randn(40, 2)
    axes = plotting.latent_scatter(z, y).axes[0]
    places = np.array([text.xy for text in axes.texts])
    spread = np.ptp(z.numpy(), 0)
    medians = np.stack([np.median(z[y == label], 0) for label in range(4)])
    np.testing.assert_allclose(places[3], medians[3], rtol=1e-6)  # nothing is near it
    for first in range(4):
        assert np.linalg.norm((places[first] - medians[first]) / spread) < 0.08
        for second in range(first):
            assert np.linalg.norm((places[first] - places[second]) / spread) > 0.055


def test_scatter_of_few_dimensions_takes_principal_components():
    basis = torch.linalg.qr(torch.randn(6, 6)).Q
    z = (torch.randn(200, 6) * torch.tensor([5.0, 3.0, 0.01, 0.01, 0.01, 0.01])) @ basis.T
    axes = plotting.latent_scatter(z, method="pca").axes[0]
    shown = torch.as_tensor(np.asarray(axes.collections[0].get_offsets()))
    centred = (z - z.mean(0)).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    torch.testing.assert_close(shown.abs(), (centred @ vectors[:, [-1, -2]]).abs(), rtol=1e-4, atol=1e-4)
    share = float(values[-1] / values.sum())
    assert axes.get_xlabel() == f"component 1 ({share:.0%} of the variance)"
    used = int((z.double().var(0, correction=0) > 0.01).sum())
    assert axes.get_title() == (
        f"Latent means: {used} of 6 units in use\nprincipal components with 100% of the variance"
    )
    few = torch.cat([torch.randn(30, 3), 0.01 * torch.randn(30, 9)], 1)
    title = "Latent means: 3 of 12 units in use\nprincipal components"
    assert plotting.latent_scatter(few).axes[0].get_title().startswith(title)
    many = plotting.latent_scatter(torch.randn(30, 6)).axes[0]
    assert many.get_title() == "Latent means: 6 of 6 units in use\nt-SNE"
    told = plotting.latent_scatter(torch.randn(30, 6), used=torch.arange(6) < 2).axes[0]
    assert told.get_title().startswith("Latent means: 2 of 6 units in use\nprincipal components")


def test_scatter_of_many_dimensions_keeps_neighbours():
    # Two blobs far apart stay apart in the embedding, the same one each time.
    blobs = torch.cat([torch.randn(20, 5), torch.randn(20, 5) + 50])
    first, second = (
        np.asarray(plotting.latent_scatter(blobs, method="tsne", seed=3).axes[0].collections[0].get_offsets())
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    centres = first[:20].mean(0), first[20:].mean(0)
    assert np.linalg.norm(centres[0] - centres[1]) > first[:20].std()
    with pytest.raises(ValueError, match="unknown method 'umap'; known are auto, pca, tsne"):
        plotting.latent_scatter(blobs, method="umap")


def test_scatter_of_one_dimension_is_a_histogram():
    axes = plotting.latent_scatter(torch.randn(100, 1), torch.arange(100) % 2).axes[0]
    assert axes.get_ylabel() == "number of data"
    assert sum(patch.get_height() for patch in axes.patches) == 100


def test_profile_holds_the_mean_of_each_class():
    z = torch.randn(30, 5) + 0.7
    z[:, 2] = 0.3 + 0.01 * torch.randn(30)  # not in use
    y = torch.arange(30) % 3 + 5
    y[0] = -1
    figure = plotting.latent_profile(z, y)
    expected = np.stack([z[1:][y[1:] == label].numpy().mean(0) for label in (5, 6, 7)])[:, [0, 1, 3, 4]]
    np.testing.assert_allclose(matrix(figure), expected, atol=1e-6)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["5", "6", "7"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "5"]
    assert list(axes.get_xticks()) == [1, 2, 3, 4]
    assert axes.images[0].get_extent() == [0.5, 4.5, 3.5, 0.5]
    assert axes.get_title() == "Mean latent of each class: 4 of 5 units in use"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("unit", "class")
    told = plotting.latent_profile(z, y, used=torch.arange(5) == 2)
    assert matrix(told).shape == (3, 1)
    with pytest.raises(ValueError, match="no row has a label"):
        plotting.latent_profile(z, torch.full((30,), -1))


def test_colours_of_both_signs_part_at_the_mean():
    values = torch.tensor([[-1.0, 3.0], [4.0, 2.0]])
    image = plotting.sample_grid(values).axes[0].images[0]
    assert image.norm(2.0) == pytest.approx(0.5)  # the mean is the middle of the map
    assert (image.norm.vmin, image.norm.vmax) == (-1.0, 5.0)
    assert image.colorbar.ax.get_ylabel() == "value\n(white: their mean, 2)"
    one_sign = plotting.sample_grid(values.abs()).axes[0].images[0]
    assert (one_sign.get_cmap().name, one_sign.norm.vmin) == ("viridis", 1.0)


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_save_writes_the_format_of_the_ending(tmp_path, ending, start):
    path = tmp_path / "figures" / f"mine.{ending}"
    plotting.save_figure(plotting.training_curves(ROWS), path)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_save_refuses_unknown_endings(tmp_path):
    with pytest.raises(ValueError, match=r"mine.xyz must end in one of .*\.png"):
        plotting.save_figure(Figure(), tmp_path / "mine.xyz")


def test_run_figures_of_pictures(digits, digits_vae, tmp_path):
    figures = plotting.run_figures(digits_vae, digits, ROWS)
    assert list(figures) == NAMES
    assert all(isinstance(figure, Figure) and figure.axes[0].get_title() for figure in figures.values())
    assert picture(figures["samples"]).shape == (8 * 9 - 1, 8 * 9 - 1, 3)
    means = metrics.latent_means(digits_vae, digits.test.x)
    expected = [means[digits.test.y == label].mean(0).numpy() for label in range(10)]
    np.testing.assert_allclose(matrix(figures["latent_profile"]), np.stack(expected), atol=1e-5)
    assert figures["samples"].axes[0].get_title() == "Samples: means of p(x|z) at draws of z"
    for name, figure in figures.items():
        plotting.save_figure(figure, tmp_path / f"{name}.png")


def test_run_figures_note_what_cannot_be_drawn(digits, digits_vae, monkeypatch):
    def fails(run):
        raise ValueError("no\nway")

    monkeypatch.setitem(plotting.run._RUN_FIGURES, "samples", fails)
    problems = {}
    assert "samples" not in plotting.run_figures(digits_vae, digits, ROWS, problems=problems)
    assert problems == {"samples": "no way"}
    with pytest.raises(ValueError, match="no\nway"):
        plotting.run_figures(digits_vae, digits, ROWS)


def test_run_figures_of_tables_without_labels():
    dataset = data.load("linear-gaussian")
    vae = find_pair("gaussian").build(dataset, latent_dim=2, hidden=(8,))
    figures = plotting.run_figures(vae, dataset, [])
    assert list(figures) == ["samples", "reconstructions", "interpolation", "latent_scatter"]
    assert matrix(figures["samples"]).shape == (20, 10)
    assert figures["samples"].axes[0].get_title() == "Samples: draws from p(x)"
    assert matrix(figures["interpolation"]).shape == (10, 10)


def test_run_figures_of_symmetric_pictures_with_missing_pixels():
    digits = data.load("digits", scale="symmetric")
    x = digits.test.x[:30]
    mask = torch.rand(x.shape) > 0.5
    held_out = Rows(torch.where(mask, x, math.nan), digits.test.y[:30], mask)
    dataset = Dataset("mine", digits.train, digits.validation, held_out, "symmetric")
    figures = plotting.run_figures(find_pair("gaussian").build(dataset, latent_dim=3, hidden=(16,)), dataset, ROWS)
    assert list(figures) == NAMES
    shown = picture(figures["reconstructions"])[:8, :8, 0]
    expected = torch.where(mask[0, 0], (x[0, 0] + 1) / 2, 1.0)  # missing pixels are white
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert all(np.isfinite(picture(figures[name])).all() for name in ("samples", "reconstructions", "interpolation"))


class Flat(nn.Module):
    """A pair whose programs flatten the pictures and that needs data to run."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 4), nn.Linear(4, 64)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("pixels", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.flatten(1))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x.flatten(1)), 1.0).to_event(1))


def test_run_figures_of_a_pair_that_flattens_pictures(digits):
    net = Flat()
    figures = plotting.run_figures(VAE(net.model, net.guide), digits, ROWS)
    assert list(figures) == NAMES
    for name in ("samples", "reconstructions", "interpolation"):
        assert picture(figures[name]).shape[-1] == 3


def test_run_figures_leave_out_the_interpolation_of_discrete_latents():
    rows = Rows(torch.randn(20, 5))
    dataset = Dataset("mine", rows, rows, rows, "real")
    figures = plotting.run_figures(_discrete_vae(), dataset, ROWS)
    assert list(figures) == ["training_curves", "samples", "reconstructions", "latent_scatter"]


def test_run_figures_fall_back_to_transformed_training_rows():
    digits = data.load("digits", binarize="dynamic")
    none = Rows(digits.train.x[:0])
    dataset = Dataset("mine", digits.train.replace(y=None), none, none, "binary", transform=digits.transform)
    figures = plotting.run_figures(find_pair("gaussian").build(dataset, latent_dim=2, hidden=(8,)), dataset, [])
    originals = picture(figures["reconstructions"])[:8, :8]
    assert set(np.unique(originals)) <= {0.0, 1.0}  # the grey values were drawn


def test_pyplot_stays_out():
    code = "import sys, json, pyrovae.plotting; print(json.dumps('matplotlib.pyplot' in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) is False


def test_confusion_holds_shares_of_the_true_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 3, -1])
    found = torch.tensor([0, 0, 0, 1, 1, 1, 0, 2])
    figure = plotting.class_confusion(found, labels)
    shares = np.asarray(figure.axes[0].images[0].get_array())
    expected = np.array([[0.75, 0.25, 0, 0], [0, 1, 0, 0], [np.nan] * 4, [1, 0, 0, 0]])  # no row is of class 2
    np.testing.assert_array_equal(np.ma.filled(shares, np.nan), expected)
    axes = figure.axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "75%",
        (1, 0): "25%",
        (1, 1): "100%",
        (0, 3): "100%",
    }
    assert axes.get_title() == "Classes of 7 rows: 28.6% wrong"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("taken for", "class")
    with pytest.raises(ValueError, match="no row has a label"):
        plotting.class_confusion(found, torch.full((8,), -1))


def test_inference_gaps_hold_the_rows_and_their_means():
    likelihood = torch.tensor([-10.0, -12.0, -14.0])
    refined, amortised = likelihood - torch.tensor([1.0, 2.0, 3.0]), likelihood - torch.tensor([1.5, 2.5, 5.0])
    gap = metrics.InferenceGap(likelihood, refined, amortised, torch.zeros(3))
    (axes,) = plotting.inference_gaps(gap).axes
    assert [text.get_text() for text in axes.get_legend().texts] == [
        "approximation gap: mean 2.00",
        "amortisation gap: mean 1.00",
    ]
    assert [line.get_xdata()[0] for line in axes.lines] == [2.0, 1.0]
    assert sum(patch.get_height() for patch in axes.patches) == 6  # each row in both
    for part, values in zip(axes.containers, ([1.0, 2.0, 3.0], [0.5, 0.5, 2.0]), strict=True):
        for bar in part:
            left, right = bar.get_x(), bar.get_x() + bar.get_width()
            last = bar is part[-1]
            inside = sum(left <= min(max(v, 0.0), part[-1].get_x() + 1) and (v < right or last) for v in values)
            assert bar.get_height() == inside
    assert axes.get_title() == "Inference gap\n3 rows"
