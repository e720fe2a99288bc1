"""The registered pair on the command line, imputation, and the inference gap."""

import json

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from row_pairs import SHAPE, LinearModel, PoorGuide, amortised_pair, pictures, row_pair

from pyrovae import VAE, data, plotting
from pyrovae.cli import main
from pyrovae.data.clinic import clinic
from pyrovae.data.dataset import DataSpec
from pyrovae.metrics import inference_gap
from pyrovae.pairs import find_pair
from pyrovae.runs import load
from pyrovae.training import Trainer

SPEC = DataSpec("mine", (1, 4, 4), "binary", 20, 0, None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"posterior_scale": "learned", "init": "normal"},
        {"posterior_scale": "none"},
        {"family": "kumaraswamy"},
        {"family": "logit-normal", "posterior_scale": "fixed"},
        {"init": "pca", "log_var": -14.0},
    ],
    ids=str,
)
def test_the_pair_is_built_again_from_its_description(options):
    rows = data.Rows(pictures(20)) if options.get("init") == "pca" else None
    pair = find_pair("auto-decoder")
    vae = pair.builder(SPEC, rows, latent_dim=4, hidden=(8,), **options)
    Trainer(epochs=1, progress=False, **pair.training).fit(vae, pictures(20))
    again = pair.build(SPEC, latent_dim=4, hidden=(8,), **options)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in vae.named_parameters()}


def test_sticks_of_tables_are_refused():
    schema = data.load("breast-cancer").spec.schema
    spec = DataSpec("mine", (31,), "table", 20, 0, None, schema)
    with pytest.raises(ValueError, match="an auto-decoder of a table has the family normal"):
        find_pair("auto-decoder").build(spec, family="kumaraswamy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    words = ["train", "auto-decoder", "--data", "digits", "--latent-dim", "4", "--hidden", "16", "--epochs", "2"]
    assert main([*words, "--quiet", "--out", str(folder)]) == 0
    return folder


def test_evaluate_fits_the_test_rows_first(run, capsys):
    words = ["evaluate", str(run), "--num-rows", "12", "--num-samples", "20", "--fit-steps", "30", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_rows"] == 12
    assert -found["cross_entropy"] > found["bound"] - 0.5  # of grey values
    assert main([*words, "--split", "train"]) == 0


def test_plot_and_load(run, capsys):
    assert main(["plot", str(run), "--fit-steps", "2"]) == 0
    assert "reconstructions.png" in capsys.readouterr().out
    vae = load(run)
    rows = data.load("digits").train.take(slice(5))
    assert vae.reconstruct(rows.x, index=rows.index).shape == rows.x.shape
    assert main(["evaluate", str(run), "--inference-gap"]) == 2
    assert "has no encoder, so there is no inference gap" in capsys.readouterr().err


def conditional_means(model, x, mask):
    """E[x_missing | x_observed] of the linear model, by the formula of normals."""
    w = model.loadings.detach().double()
    covariance = w @ w.T + model.noise**2 * torch.eye(6, dtype=w.dtype)
    found = x.double().clone()
    for row, seen in zip(found, mask, strict=True):
        cross = covariance[~seen][:, seen]
        row[~seen] = cross @ torch.linalg.solve(covariance[seen][:, seen], row[seen]) if bool(seen.any()) else 0.0
    return found


def test_imputed_entries_are_the_conditional_means_and_draws_have_their_spread():
    model = LinearModel()
    x = model.data(40)
    mask = torch.rand(40, 6) < 0.6
    mask[0] = False
    holes = torch.where(mask, x, torch.nan)
    vae, expected = VAE(model, PoorGuide()), conditional_means(model, x, mask)
    fitted = vae.fit_posterior(holes, mask, start="prior", steps=200, lr=0.2, progress=False)
    for pair, error in ((fitted, 0.15), (vae, 0.4)):
        single = pair.impute(holes, mask, num_samples=3000)
        assert torch.equal(single[mask], x[mask]), "observed entries stay as they are"
        assert torch.allclose(single.double(), expected, atol=error)
    drawn = fitted.impute(holes, mask, num_samples=1000, num_draws=300)
    assert drawn.shape == (300, 40, 6)
    assert torch.allclose(drawn.mean(0).double(), expected, atol=0.35)
    w = model.loadings.detach()
    variances = (w @ w.T + 0.25 * torch.eye(6)).diagonal()
    assert torch.allclose(drawn[:, 0].var(0), variances, rtol=0.35), "a row without entries is drawn from the model"


def test_imputation_of_pictures_of_any_pair():
    vae, x = amortised_pair(), pictures(9)
    mask = torch.rand(x.shape) < 0.5
    assert vae.impute(x, mask, num_samples=7, chunk_size=10).shape == x.shape
    drawn = vae.impute(x, mask, num_samples=7, num_draws=3)
    assert drawn.shape == (3, *x.shape)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}, "draws of binary pixels are binary"
    trained = row_pair(9)
    assert trained.impute(x, mask, index=torch.arange(9)).shape == x.shape
    with pytest.raises(ValueError, match="call fit_posterior"):
        trained.impute(x, mask)
    with pytest.raises(ValueError, match="mask must be of type bool and of the shape of x"):
        vae.impute(x, mask[:, 0])
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        vae.impute(x, mask, num_samples=0)
    with pytest.raises(ValueError, match=r"num_draws must be a whole number of at least 1, got 2\.5"):
        vae.impute(x, mask, num_draws=2.5)
    x[4, 0, 1, 1], mask[4, 0, 1, 1] = torch.nan, True
    with pytest.raises(ValueError, match="x has NaN in 1 entries that count as observed"):
        vae.impute(x, mask)
    x[4, 0, 1, 1] = 2.0
    with pytest.raises(ValueError, match=r"row 4 of the data, entry \(0, 1, 1\) is 2, and Bernoulli"):
        vae.impute(x, mask)


def test_imputation_of_a_pair_that_takes_no_mask():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(TypeError, match="takes no argument 'mask'"):
        VAE(model, guide).impute(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))


def test_the_gaps_of_a_linear_model():
    """The family holds the exact posterior, so all of the gap is the encoder's, and KL(q || p(z|x)) in closed form."""
    model = LinearModel()
    x = model.data(30)
    vae = VAE(model, PoorGuide())
    gap = inference_gap(vae, x, steps=500, lr=0.2, num_samples=50, num_draws=2000, progress=False)
    mean, scale = model.posterior(x)
    exact = torch.distributions.Normal(mean, scale.expand_as(mean))
    q = vae.encode(x).base_dist
    answer = torch.distributions.Normal(q.loc.detach().double(), q.scale.detach().double())
    kl = torch.distributions.kl_divergence(answer, exact).sum(-1)
    assert torch.allclose(gap.log_likelihood.double(), model.evidence(x), atol=1e-2)
    assert gap.approximation.abs().max().item() < 1e-2
    assert torch.allclose(gap.amortisation.double(), kl, rtol=0.1, atol=0.2)
    assert np.isfinite(list(gap.means().values())).all()
    assert torch.allclose(gap.total, gap.approximation + gap.amortisation, atol=1e-5)
    assert len(plotting.inference_gaps(gap).axes) == 1


def test_the_gap_on_the_command_line(tmp_path, capsys):
    words = ["train", "gaussian", "--data", "digits", "--latent-dim", "2", "--hidden", "8", "--epochs", "1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    words = ["evaluate", str(tmp_path / "run"), "--inference-gap", "--num-rows", "3", "--num-samples", "20", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bound_refined"] > found["bound_amortised"]
    assert (tmp_path / "run/figures/inference_gap.png").exists()
    assert SHAPE == (1, 4, 4)


def test_a_table_is_completed_by_fitted_rows(tmp_path, capsys):
    frame = clinic().iloc[:60]
    frame.to_csv(tmp_path / "clinic.csv", index=False)
    words = ["train", "auto-decoder", "--data", str(tmp_path / "clinic.csv"), "--kind", "table", "--latent-dim", "2"]
    assert main([*words, "--epochs", "2", "--quiet", "--out", str(tmp_path / "run")]) == 0
    words = ["impute", str(tmp_path / "run"), "--input", str(tmp_path / "clinic.csv"), "--fit-steps", "5"]
    assert main([*words, "--out", str(tmp_path / "one.csv")]) == 0
    completed = pd.read_csv(tmp_path / "one.csv")
    assert not completed.isna().any().any()
    seen = frame["height_cm"].notna().to_numpy()
    assert np.allclose(completed["height_cm"][seen], frame["height_cm"][seen])
    assert main([*words, "--out", str(tmp_path / "three.csv"), "--draws", "3"]) == 0
    assert len(pd.read_csv(tmp_path / "three.csv")) == 180
    assert main([*words, "--out", str(tmp_path / "wide.csv"), "--intervals", "0.9"]) == 2
    assert "--intervals is for runs of the pair tabular" in capsys.readouterr().err


def test_imputed_draws_of_sequences_of_several_lengths():
    """Both columns of a step tell its latent, with noise 0.1; the second one is missing, and lies by the first."""
    steps = 3

    def model(x, lengths, mask=None):
        longest = int(lengths.max())
        with pyro.plate("data", len(x)):
            zs = [pyro.sample(f"z{t}", dist.Normal(torch.zeros(len(x)), 3.0)) for t in range(longest)]
            z = torch.stack([*zs, *[torch.zeros_like(zs[0])] * (steps - longest)], -1)
            fn = dist.Normal(torch.stack([z, z], -1), 0.1)
            pyro.sample("x", (fn if mask is None else fn.mask(mask)).to_event(2), obs=x)

    def guide(x, lengths, mask=None):
        with pyro.plate("data", len(x)):
            for t in range(int(lengths.max())):
                pyro.sample(f"z{t}", dist.Normal(x[:, t, 0], 0.1))

    torch.manual_seed(0)
    lengths = torch.tensor([1, 1, 3, 3])
    first = torch.where(torch.arange(steps) < lengths[:, None], torch.randn(4, steps) * 3, torch.zeros(()))
    x = torch.stack([first, torch.zeros_like(first)], -1)
    mask = torch.tensor([True, False]).expand(x.shape)
    for order in (slice(None), [3, 2, 1, 0]):
        vae = VAE(model, guide)
        drawn = vae.impute(x[order], mask, num_samples=50, num_draws=30, chunk_size=100, lengths=lengths[order])
        error = (drawn[..., 1] - x[order][..., 0]).square().mean(0).sqrt()
        assert error.max() < 0.3


def test_impute_refuses_a_latent_that_only_the_model_draws():
    @config_enumerate
    def model(x, mask=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
            fn = dist.Normal(10.0 * kind.unsqueeze(-1) - 5 + 0.1 * z, 0.5)
            pyro.sample("x", (fn if mask is None else fn.mask(mask)).to_event(1), obs=x)

    def guide(x, mask=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    x = torch.tensor([[-5.0], [5.0]])
    for count in (None, 2):
        with pytest.raises(ValueError, match="latent site 'kind' is drawn by the model alone"):
            VAE(model, guide).impute(x, torch.tensor([[True], [False]]), num_samples=10, num_draws=count)
