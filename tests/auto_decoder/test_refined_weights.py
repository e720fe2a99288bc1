"""Refined training at a KL weight, and resumed with other steps; numbers of rows of other types."""

import pytest
import torch
from row_pairs import LinearModel, PoorGuide

from pyrovae import VAE
from pyrovae.nn.row_table import RowTable
from pyrovae.storage import CheckpointError
from pyrovae.training import Trainer
from pyrovae.training.refined import RefinedTraining
from pyrovae.training.row_steps import RowSteps


def test_posteriors_are_refined_by_the_bound_at_the_weight_of_the_training(monkeypatch):
    """At weight beta the best posterior of a linear model has the precision beta I + W'W/s^2, over beta."""
    model, found = LinearModel(), []
    x = model.data(12)
    refine = RefinedTraining.refine

    def remember(self, *args):
        refine(self, *args)
        found.append(self.sites.distributions(self.rows)["z"])

    monkeypatch.setattr(RefinedTraining, "refine", remember)
    options = {"refine_steps": 300, "refine_lr": 0.1, "kl_weight": 0.25, "lr": 1e-9, "progress": False}
    Trainer(epochs=1, batch_size=12, seed=3, **options).fit(VAE(model, PoorGuide()), x)
    loadings = model.loadings.detach()
    precision = 0.25 * torch.eye(2) + loadings.T @ loadings / 0.25
    order = torch.cdist(found[-1].mean, (x @ loadings / 0.25) @ torch.linalg.inv(precision))
    assert order.min(1).values.max() < 1e-2  # the rows are shuffled
    assert torch.allclose(found[-1].stddev, (0.25 / precision.diagonal()).sqrt().expand(12, 2), atol=1e-2)


@pytest.mark.parametrize("other", [{"refine_steps": 0}, {"refine_steps": 4}, {"refine_steps": 2, "refine_lr": 0.5}])
def test_a_resumed_training_keeps_its_refinement(other, tmp_path):
    model = LinearModel()
    x = model.data(20)
    options = {"batch_size": 10, "progress": False}
    Trainer(epochs=1, refine_steps=2, **options).fit(VAE(model, PoorGuide()), x, run=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"refine_(steps|lr)=.*cannot be compared"):
        Trainer(epochs=2, **other, **options).fit(VAE(model, PoorGuide()), x, run=tmp_path / "run", resume=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_numbers_of_rows_of_other_types(dtype):
    """A uint8 tensor as long as the table would be taken as a mask."""
    table, index = RowTable(torch.arange(4.0).unsqueeze(1)), torch.tensor([3, 1, 1, 0], dtype=dtype)
    assert table(index)[:, 0].tolist() == [3.0, 1.0, 1.0, 0.0]
    steps = RowSteps(torch.optim.SGD([table.values], lr=1.0), [table])
    with steps.picking(index) as leaves:
        table(index).sum().backward()
    steps.step(index, leaves)
    assert table.values[:, 0].tolist() == [-1.0, -1.0, 2.0, 2.0]
