"""What pairs take from the training rows to begin with, where entries are missing."""

import math

import pytest
import torch

from pyrovae.data import Dataset, Rows
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer


def rows_with_gaps(filled_with: float) -> Rows:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator).round()
    mask = torch.rand(40, 6, generator=generator) > 0.3
    mask[:, 5] = False  # never observed
    return Rows(torch.where(mask, x, filled_with), mask=mask)


def binary(rows: Rows) -> Dataset:
    return Dataset("gaps", rows, rows.take(slice(5)), rows.take(slice(0)), "binary")


def test_the_network_begins_with_the_means_of_the_observed_entries():
    rows = rows_with_gaps(math.nan)
    vae = find_pair("sbn").build(binary(rows), sizes=(3,))
    mean = torch.stack([column[seen].mean() for column, seen in zip(rows.x.T, rows.mask.T, strict=True)])
    mean[5] = 0.0
    assert torch.allclose(vae.guide.encoder.centre.flatten(), mean)
    assert torch.allclose(vae.model.decoder.net.layers[-1].bias.sigmoid(), mean.clamp(0.01, 0.99))


@pytest.mark.parametrize(
    ("pair", "options"),
    [
        ("sbn", {"sizes": (3,)}),
        ("gaussian", {"hidden": (4,), "prior": "vamp", "num_components": 8}),
        ("hierarchical", {"latent_dims": (3, 2), "hidden": (4,), "prior": "vamp", "num_components": 8}),
    ],
)
def test_the_value_under_the_mask_changes_nothing(pair, options):
    losses = []
    for value in (0.0, 1.0, math.nan):
        torch.manual_seed(0)
        dataset = binary(rows_with_gaps(value))
        vae = find_pair(pair).build(dataset, **options)
        losses.append(Trainer(epochs=1, progress=False).fit(vae, dataset).rows[0]["loss"])
    assert math.isfinite(losses[0])
    assert losses[0] == losses[1] == losses[2]
