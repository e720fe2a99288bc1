"""NaN in a result is said, with the rows, and never written as a figure or a sample."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from safetensors.torch import load_file

from pyrovae import VAE, families
from pyrovae.cli import main
from pyrovae.data import Rows
from pyrovae.families import EvaluationFigure, Measure
from pyrovae.metrics import NonFiniteFigureError, evaluate
from pyrovae.metrics.tables import _check_values
from pyrovae.runs import Run
from pyrovae.storage import load_tensors, save_tensors

pytestmark = pytest.mark.filterwarnings("ignore:Encountered")


def fragile_pair():
    """A pair that makes NaN of rows with a number above 100."""

    def model(x):
        loc = torch.where(x.amax(-1, keepdim=True) > 100, torch.inf, 0.0)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + loc, 1.0, validate_args=False).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    return VAE(model, guide)


def test_rows_without_a_figure_are_named():
    x = torch.zeros(300, 3)
    x[[4, 217]] = 1000.0
    with pytest.raises(
        NonFiniteFigureError, match=r"log-likelihood of 2 of 300 evaluated rows is not finite .*rows 4, 217\)"
    ):
        evaluate(fragile_pair(), Rows(x), num_samples=3)
    assert evaluate(fragile_pair(), Rows(x[:3]), num_samples=3).num_rows == 3


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A run whose decoder makes NaN of everything; its file has the digest of what it holds."""
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.random.RandomState(0).normal(size=(60, 5)).astype(np.float32))
    words = [
        "train",
        "gaussian",
        "--data",
        "mine.npy",
        "--hidden",
        "4",
        "--latent-dim",
        "2",
        "--epochs",
        "1",
        "--quiet",
    ]
    assert main([*words, "--out", "run"]) == 0
    folder = Run.open("run").folder
    tensors, information = load_tensors(folder.weights_path)
    name = next(name for name in tensors if "decoder" in name and name.endswith("bias"))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_tensors(folder.weights_path, tensors, information)
    assert load_file(folder.weights_path)[name].isnan().all()
    return tmp_path


@pytest.mark.parametrize(
    "words", [["evaluate", "run", "--num-samples", "2", "--json"], ["sample", "run", "--out", "x.npz"]]
)
def test_the_command_line(words, broken, capsys):
    capsys.readouterr()
    assert main(words) != 0
    shown = capsys.readouterr()
    assert not shown.out
    assert len(shown.err.strip().splitlines()) == 1
    assert not (broken / "x.npz").exists()


def test_samples():
    from pyrovae.cli.sampling import _check_samples

    values = torch.zeros(10, 2)
    _check_samples(values, "x.csv")
    values[7, 1] = torch.nan
    with pytest.raises(
        ValueError, match=r"1 of 10 samples are not finite \(the first is sample 7\), so x.csv is not written"
    ):
        _check_samples(values, "x.csv")


def test_figures_of_a_family_are_numbers():
    """One that is none is an error that names it; None stays what it is."""
    figure = EvaluationFigure("brightness", "grey", "a figure that may be no number")
    for value, fine in ((1.0, True), (None, True), (float("nan"), False), ({"part": float("inf")}, False)):
        measure = Measure((figure,), lambda evaluated, value=value: {"brightness": value})
        families.families()
        before = dict(families._FAMILIES)
        try:
            families.register_family(families.Family("bright", lambda vae: True, (measure,)))
            if fine:
                assert evaluate(fragile_pair(), Rows(torch.zeros(3, 3)), num_samples=3)["brightness"] == value
            else:
                with pytest.raises(NonFiniteFigureError, match="the figure 'brightness"):
                    evaluate(fragile_pair(), Rows(torch.zeros(3, 3)), num_samples=3)
        finally:
            families._FAMILIES.clear()
            families._FAMILIES.update(before)


def test_values_of_a_table_are_numbers():
    values, asked = np.zeros((4, 2)), np.ones((4, 2), bool)
    values[2, 1], asked[3] = np.nan, False
    values[3, 0] = np.inf
    with pytest.raises(
        NonFiniteFigureError, match=r"imputed values of 1 of 4 evaluated rows are not finite \(rows 2\)"
    ):
        _check_values("imputed values", values, asked)
    _check_values("imputed values", values[:2], asked[:2])
