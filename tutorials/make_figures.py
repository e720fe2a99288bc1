"""Make the picture of the README: samples, reconstructions and latent space of a Gaussian VAE on the digits.

    python tutorials/make_figures.py

It takes about a minute on one core. The functions of `pyrovae.plotting` draw everything. This script trains, and puts
their figures side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pyrovae import VAE, data
from pyrovae.data import Dataset
from pyrovae.metrics import latent_means
from pyrovae.pairs import find_pair
from pyrovae.plotting import SAMPLES, latent_scatter, reconstructions, sample_grid
from pyrovae.training import Trainer

DPI = 100


def train(dataset: Dataset, epochs: int, latent_dim: int) -> VAE:
    """A Gaussian VAE with two gated layers of 300 in encoder and decoder, and normal pixels of one learned scale."""
    vae = find_pair("gaussian").build(dataset, latent_dim=latent_dim, likelihood="normal-learned")
    Trainer(epochs=epochs, batch_size=32, objective="mean-field", lr_schedule="cosine").fit(vae, dataset)
    return vae


def pixels(figure: Figure, width: float, height: float) -> np.ndarray:
    """A figure drawn at a size in inches, `[height, width, 3]`."""
    figure.set_size_inches(width, height)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def picture(vae: VAE, dataset: Dataset) -> np.ndarray:
    """Samples and latent space above, reconstructions below; ten inches wide."""
    x, labels = dataset.test.x, dataset.test.y
    samples = sample_grid(vae.sample(100, output="mean"), title=SAMPLES["mean"])
    latents = latent_scatter(latent_means(vae, x), labels)
    pairs = reconstructions(x[:10], vae.reconstruct(x[:10]), title="Held-out digits and their reconstructions")
    above = np.concatenate([pixels(samples, 4.6, 4.7), pixels(latents, 5.4, 4.7)], 1)
    return np.concatenate([above, pixels(pairs, 10.0, 2.2)])


def main(args: argparse.Namespace) -> None:
    """Train and write the picture."""
    torch.manual_seed(args.seed)
    dataset = data.load("digits")
    vae = train(dataset, args.epochs, args.latent_dim)
    image = Image.fromarray(picture(vae, dataset))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    image.save(args.out, optimize=True)
    print(f"{args.out}: {image.width} x {image.height} pixels, {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures" / "digits.png")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
