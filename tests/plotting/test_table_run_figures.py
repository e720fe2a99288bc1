"""Figures of a run of a table: what they show is that of its evaluation, and of its rows."""

import numpy as np
import pytest
import torch

from pyrovae import data, metrics, plotting
from pyrovae.metrics.tables import TABLES
from pyrovae.pairs import find_pair
from pyrovae.plotting.run import Pictured

TABLE_FIGURES = [
    *("table_marginals", "table_associations", "imputed_against_true", "imputed_errors"),
    "imputed_calibration",
]


@pytest.fixture(scope="module")
def clinic():
    return data.load("clinic")


@pytest.fixture(scope="module")
def vae(clinic):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return find_pair("tabular").build(clinic, latent_dim=3, hidden=(8,)).eval()


def test_run_figures_of_a_table(clinic, vae, tmp_path):
    torch.manual_seed(4)
    figures = plotting.run_figures(vae, clinic, [])
    assert list(figures)[-5:] == TABLE_FIGURES
    for name in TABLE_FIGURES:
        figures[name].draw_without_rendering()  # texts and layout raise no warning
    plotting.save_figure(figures[TABLE_FIGURES[0]], tmp_path / "marginals.png")
    rows = len(clinic.test)
    assert figures["table_marginals"].get_suptitle() == f"Marginals: {rows} real and {rows} generated rows"
    torch.manual_seed(4)
    again = TABLES.plots["imputed"](Pictured(vae, clinic, []))["errors"]
    first, second = (figure.axes[0].lines[0].get_xdata() for figure in (figures["imputed_errors"], again))
    np.testing.assert_array_equal(first, second)


def test_errors_of_a_run_are_those_of_its_evaluation(clinic, vae):
    torch.manual_seed(4)
    axes = TABLES.plots["imputed"](Pictured(vae, clinic, []))["errors"].axes[0]
    torch.manual_seed(4)
    settings = {"neighbours": clinic.train, "num_samples": 2, "baselines": ("mean-mode",)}
    found = metrics.evaluate(vae, clinic.test, dataset=clinic, **settings).to_dict()["imputation_by_column"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
    for line, name in zip(axes.lines, ("vae", "mean-mode"), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [errors[name] for errors in found.values()], rtol=1e-5)


def test_real_rows_of_a_run_are_not_kept_within_the_range_of_the_training(clinic, vae):
    values = clinic.test.x.clone()
    column = [c["name"] for c in clinic.schema["schema"]["columns"]].index("systolic")
    values[0, column] = 50.0  # standard deviations
    mask = clinic.test.mask.clone()
    mask[0, column] = True
    outlier = data.Dataset(
        "clinic", clinic.train, clinic.validation, data.Rows(values, mask=mask), clinic.kind, schema=clinic.schema
    )
    figure = TABLES.plots["table"](Pictured(vae, outlier, []))["marginals"]
    (axes,) = (axes for axes in figure.axes if axes.get_title() == "systolic")
    first, second = (patch.get_data() for patch in axes.patches)
    assert first.edges[-1] > 2 * clinic.schema["schema"]["columns"][column]["high"]
    assert first.values[-1] > 0
    assert second.values[-1] == 0


def test_calibration_of_a_run_is_that_of_its_evaluation(clinic, vae):
    """At 90 % it is what the evaluation says; wider intervals hold more."""
    torch.manual_seed(4)
    axes = TABLES.plots["imputed"](Pictured(vae, clinic, []))["calibration"].axes[0]
    (line,) = (line for line in axes.lines if line.get_label() == "measured")
    levels, shares = line.get_data()
    np.testing.assert_allclose(levels, np.arange(1, 10) / 10)
    assert (np.diff(shares) >= 0).all()
    assert shares[-1] > shares[0]
    torch.manual_seed(4)
    settings = {"neighbours": clinic.train, "num_samples": 2, "baselines": ()}
    found = metrics.evaluate(vae, clinic.test, dataset=clinic, **settings).to_dict()["interval_coverage"]
    assert shares[-1] == pytest.approx(found["numbers"])
    numbers = [c["kind"] in ("real", "positive", "count") for c in clinic.schema["schema"]["columns"]]
    count = int(axes.get_title().split()[-2])
    assert 0 < count < int(clinic.test.mask[:, numbers].sum())  # those that were hidden, about half
