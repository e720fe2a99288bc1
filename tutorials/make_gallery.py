"""Make the pictures of docs/gallery.md, from data that scikit-learn and pyrovae bring.

    python tutorials/make_gallery.py

It takes about two minutes on one core. The functions of `pyrovae.plotting` draw everything.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from pyrovae import VAE, data, metrics, plotting
from pyrovae.data import Dataset
from pyrovae.data.patterns import random_mask
from pyrovae.infer import make_objective
from pyrovae.metrics.missing import recover
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer

DPI, COLOURS = 80, 256
Named = Iterator[tuple[str, Figure]]


def train(pair: str, dataset: Dataset, epochs: int, *, training: dict[str, Any] | None = None, **options: Any) -> Any:
    """A trained pair, and the metrics of its epochs."""
    torch.manual_seed(0)
    found = find_pair(pair)
    vae = found.build(dataset, **options)
    settings = {**found.training, "lr": 3e-3, "batch_size": 64, "epochs": epochs, "seed": 0, **(training or {})}
    history = Trainer(progress=False, **settings).fit(vae, dataset)
    return vae.eval(), history.rows


def of_digits(epochs: int) -> Named:
    """Figures of the Gaussian VAE, the stick-breaking one, and both."""
    digits = data.load("digits")
    nets: dict[str, Any] = {"hidden": (100, 100)}
    warm = {"kl_weight": f"warm-up:{max(1, epochs // 4)}", "lr_schedule": "cosine"}
    gaussian, rows = train("gaussian", digits, epochs, training=warm, latent_dim=8, **nets)
    sticks, rows_of_sticks = train("stick-breaking", digits, epochs, training=warm, truncation=30, **nets)
    test, x = digits.test, digits.test.x
    yield "training_curves", plotting.training_curves(rows)
    yield "compared_curves", plotting.compared_curves({"gaussian": rows, "stick-breaking": rows_of_sticks})
    samples = gaussian.sample(36, output="mean")
    yield "sample_grid", plotting.sample_grid(samples, title=plotting.SAMPLES["mean"])
    yield "reconstructions", plotting.reconstructions(x[:10], gaussian.reconstruct(x[:10]))
    yield "interpolation", plotting.interpolation(gaussian, x[:3], x[3:6])
    means = metrics.latent_means(gaussian, x)
    yield "latent_scatter", plotting.latent_scatter(means, test.y)
    yield "latent_profile", plotting.latent_profile(means, test.y)
    yield "sticks_by_class", plotting.sticks_by_class(metrics.stick_weights(sticks, x), test.y)
    yield "samples_by_sticks", plotting.samples_by_sticks(sticks, columns=10)
    yield "decoder_weights", plotting.decoder_weights(sticks)
    yield "latent_comparison", plotting.latent_comparison({"gaussian": gaussian, "stick-breaking": sticks}, test)
    yield "inference_gaps", plotting.inference_gaps(metrics.inference_gap(gaussian, x[:100], progress=False))
    yield from of_missing_pixels(gaussian, digits)


def of_missing_pixels(vae: VAE, digits: Dataset) -> Named:
    """Figures of entries that are hidden."""
    rows, generator = digits.test.take(slice(60)), torch.Generator().manual_seed(0)
    masks = {share: random_mask(digits.shape, len(rows), share, "entries", generator) for share in (0.2, 0.4, 0.6, 0.8)}
    plain = metrics.missing_errors(vae, rows, masks, train=digits.train, num_samples=50)
    refined = metrics.missing_errors(vae, rows, masks, train=digits.train, num_samples=50, refine=50)
    yield "missing_errors", plotting.missing_errors({"encoder": plain, "refined by gradient": refined})
    x, mask = rows.x[:10], masks[0.4][:10]
    answers = {"encoder": recover(vae, x, mask), "refined": recover(vae, x, mask, refine=100, progress=False)}
    yield "inpainting", plotting.inpainting(x, mask, answers)


def of_classes(epochs: int) -> Named:
    """Which class digits are taken for, of which few have a label."""
    digits = data.load("digits", labels=0.2)
    vae, _ = train("semi-supervised", digits, epochs, hidden=(100, 100), latent_dim=8)
    found = metrics.class_probabilities(vae, digits.test.x).argmax(-1)
    yield "class_confusion", plotting.class_confusion(found, digits.test.y)


def of_estimators(epochs: int) -> Named:
    """Gradients of a sigmoid belief network."""
    digits = data.load("digits", binarize="static")
    vae, _ = train("sbn", digits, max(1, epochs // 10), sizes=(20,))
    objectives = {name: make_objective(name, num_particles=5) for name in ("vimco", "nvil", "wake-sleep")}
    frame = metrics.gradient_variance(vae, objectives, digits.train.x[:32], num_draws=30)
    yield "gradient_variance", plotting.gradient_variance(frame)


def of_tables(epochs: int) -> Named:
    """Figures of a table with missing entries."""
    clinic = data.load("clinic")
    vae, _ = train("tabular", clinic, 3 * epochs, training={"batch_size": 90}, latent_dim=4, hidden=(50,))
    torch.manual_seed(0)
    figures = plotting.run_figures(vae, clinic, [])
    names = {
        "marginals": "table_marginals",
        "associations": "table_associations",
        "imputed_against_true": "imputed_against_true",
        "errors_by_column": "imputed_errors",
        "interval_calibration": "imputed_calibration",
    }
    yield from ((name, figures[known]) for name, known in names.items())


def as_png(figure: Figure) -> bytes:
    """A figure as a small PNG of few colours."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight")
    drawn.seek(0)
    pixels = Image.open(drawn).convert("RGB")
    pixels.quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def main(args: argparse.Namespace) -> None:
    """Train, and write the pictures."""
    args.out.mkdir(parents=True, exist_ok=True)
    for part in (of_digits, of_classes, of_estimators, of_tables):
        for name, figure in part(args.epochs):
            path = args.out / f"{name}.png"
            path.write_bytes(as_png(figure))
            print(f"{path}, {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "gallery")
    main(parser.parse_args())
