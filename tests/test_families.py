"""What a family adds is found by evaluation, training, plots and the command line, which know no family by name."""

import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from pairs import library_pair, pictures

from pyrovae import families, metrics, plotting
from pyrovae.data import Dataset, Rows
from pyrovae.families import EvaluationFigure, Family, Measure, register_family
from pyrovae.metrics import known_figures
from pyrovae.training import Trainer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def brightness(monkeypatch):
    """A family of its own with every kind of addition."""
    families.families()
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    figure = EvaluationFigure("brightness", "grey", "mean of the pictures")
    register_family(
        Family(
            "bright",
            applies=lambda vae: type(vae.model).__name__ == "GaussianVAE",
            measures=(Measure((figure,), lambda evaluated: {"brightness": float(evaluated.rows.x.mean())}),),
            validation_figures=lambda vae, rows: {"validation_brightness": lambda: float(rows.x.mean())},
            plots={"brightness": lambda run: Figure()},
            prior_variances=lambda vae: {"z": torch.full((2,), 1e-6)},
            row_vectors=lambda vae, rows: rows.y[:, None].float(),
        )
    )
    return figure


def test_everything_that_a_family_adds_is_used(brightness):
    vae, x = library_pair(), pictures(30)
    rows = Rows(x, torch.arange(30) % 3)
    dataset = Dataset("mine", rows, rows, rows, "binary")
    found = metrics.evaluate(vae, rows, dataset=dataset, num_samples=3, neighbours=rows)
    assert found.brightness == found["brightness"] == pytest.approx(float(x.mean()))
    assert found.active_units == 2, "in units of the tiny variance of the prior every dimension is active"
    assert found.knn_error_3 == 0, "neighbours go by the vectors of the family, here the labels"
    assert known_figures()["brightness"] == brightness
    history = Trainer(epochs=2, progress=False, monitor="validation_brightness").fit(vae, dataset)
    assert history.rows[0]["validation_brightness"] == pytest.approx(float(x.mean()))
    assert "brightness" in plotting.run_figures(vae, dataset, history.rows)


def test_a_figure_that_does_not_apply_is_none_and_one_that_does_not_exist_an_error():
    found = metrics.evaluate(library_pair(), Rows(pictures(4)), num_samples=2)
    assert found.sticks_used is None
    assert "sticks_used" not in found
    with pytest.raises(AttributeError, match="there is no figure 'accuracy'; known are log_likelihood, "):
        _ = found.accuracy


def test_documentation_explains_every_figure():
    """The table of keys is that of the registry, word by word."""
    text = (ROOT / "docs/command_line.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    shown = {name: (unit.strip(), meaning.strip()) for name, unit, meaning in rows}
    assert shown == {name: (figure.unit, figure.meaning) for name, figure in known_figures().items()}


def test_a_categorical_latent_that_labels_do_not_tell():
    """A mixture component beside a label that conditions: the label is handed over, and not hidden as an answer."""
    seen = []

    def model(x, y):
        seen.append(y)
        with pyro.plate("data", len(x)):
            component = pyro.sample("component", dist.Categorical(torch.ones(2)))
            loc = (component + y)[..., None].float()
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("component", dist.Categorical(logits=torch.zeros(len(x), 2)))

    from pyrovae import VAE

    vae, rows = VAE(model, guide), Rows(torch.randn(6, 1), torch.tensor([1, 2, 1, 2, 1, 2]))
    metrics.evaluate(vae, rows, num_samples=2)
    assert all((labels >= 0).all() for labels in seen)
