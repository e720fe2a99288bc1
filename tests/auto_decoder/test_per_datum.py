"""The guide with parameters for each row: what it samples, where it starts, what it refuses."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from row_pairs import SHAPE, amortised_pair, pictures, row_pair
from sklearn.decomposition import PCA

from pyrovae import VAE
from pyrovae.data import Rows
from pyrovae.guides import PerDatum, RowGuide
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import DenseDecoder
from pyrovae.nn.row_table import RowTable, row_keys
from pyrovae.training import Trainer

FAMILIES = {
    "normal": {},
    "normal-learned": {"scale": "learned"},
    "normal-point": {"scale": "none"},
    "kumaraswamy": {"family": "kumaraswamy"},
    "beta": {"family": "beta"},
    "gamma": {"family": "gamma"},
    "logit-normal": {"family": "logit-normal"},
    "logit-normal-learned": {"family": "logit-normal", "scale": "learned"},
    "sticks-point": {"family": "kumaraswamy", "scale": "none"},
}


def pair_of(name, rows):
    options = FAMILIES[name]
    if options.get("family", "normal") == "normal":
        return row_pair(rows, **options)
    likelihood = BernoulliLikelihood(SHAPE)
    model = StickBreakingVAE(4, 3.0, DenseDecoder(4, likelihood.raw_shape, (8,)), likelihood)
    return VAE(model, PerDatum(rows, 3, **options))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_and_gives_each_row_its_own_posterior(name):
    x = pictures(12)
    vae = pair_of(name, 12)
    before = vae.guide.table.values.detach().clone()
    history = Trainer(epochs=8, batch_size=5, lr=0.05, progress=False).fit(vae, x)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    assert bool((vae.guide.table.values != before).any(1).all()), "every row moves"
    together = vae.encode(x, index=torch.arange(12)).mean
    alone = vae.encode(x[7:8], index=torch.tensor([7])).mean
    assert torch.allclose(together[7:8], alone)
    assert vae.reconstruct(x, index=torch.arange(12)).shape == x.shape


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_svi_trains_it(name):
    x, index = pictures(6), torch.arange(6)
    vae = pair_of(name, 6)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(x, index=index) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_the_fixed_variance_is_the_one_that_is_given():
    vae = row_pair(3, log_var=-14.0)
    assert vae.encode(pictures(3), index=torch.arange(3)).stddev == pytest.approx(0.000911882)
    learned = PerDatum(3, 2, scale="learned", log_var=-2.0)
    assert learned.posterior_of(torch.tensor([0]))["z"].variance[0, 0].item() == pytest.approx(0.1353353)


def test_principal_components_are_a_projection_of_the_rows():
    x = torch.randn(40, 3) @ torch.randn(3, 16) + 0.01 * torch.randn(40, 16)
    z = PerDatum(40, 2, init="pca", rows=x).posterior_of(torch.arange(40))["z"].mean.detach()
    scores = torch.as_tensor(PCA(2, whiten=True).fit_transform(x.numpy()))
    correlation = torch.corrcoef(torch.cat([z, scores], 1).T)[:2, 2:].abs()
    assert torch.allclose(correlation, torch.eye(2), atol=1e-3)
    assert torch.allclose(z.std(0, correction=0), torch.ones(2), atol=1e-4)
    assert len(z.unique(dim=0)) == 40


def test_missing_entries_of_principal_components_count_as_the_mean():
    x = torch.randn(40, 8)
    mask = torch.rand(40, 8) < 0.8
    filled = torch.where(mask, x, (x * mask).sum(0) / mask.sum(0))
    holes = torch.where(mask, x, torch.nan)
    first = PerDatum(40, 2, init="pca", rows=Rows(holes, mask=mask)).table.values
    assert torch.allclose(first, PerDatum(40, 2, init="pca", rows=filled).table.values, atol=1e-4)


def test_draws_from_the_moments_of_trained_rows():
    trained = PerDatum(500, 2)
    with torch.no_grad():
        trained.table.values.copy_(torch.randn(500, 2) * torch.tensor([0.2, 2.0]) + torch.tensor([3.0, -1.0]))
    new = PerDatum(4000, 2, init="train", trained=trained).table.values
    assert torch.allclose(new.mean(0), torch.tensor([3.0, -1.0]), atol=0.15)
    assert torch.allclose(new.std(0), torch.tensor([0.2, 2.0]), rtol=0.1)


def test_an_encoder_gives_the_start():
    vae, x = amortised_pair(), pictures(9)
    guide = PerDatum(9, 2, init=vae.guide, rows=x)
    assert torch.allclose(guide.posterior_of(torch.arange(9))["z"].mean, vae.encode(x).mean)
    given = torch.randn(9, 2)
    assert torch.equal(PerDatum(9, 2, init=given).table.values, given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PerDatum(0, 2), "num_data and latent_dim must be at least 1, got 0 and 2"),
        (lambda: PerDatum(3, 2, "gauss"), "unknown family 'gauss'; known are normal, "),
        (lambda: PerDatum(3, 2, scale="free"), "scale must be one of fixed, learned, none, got 'free'"),
        (lambda: PerDatum(3, 2, "kumaraswamy", "fixed"), "the family kumaraswamy has no scale to fix"),
        (lambda: PerDatum(3, 2, init="ones"), "init must be one of zeros, normal, pca, train"),
        (lambda: PerDatum(3, 2, init="pca"), "init by pca needs the training rows; give rows="),
        (lambda: PerDatum(3, 2, init="pca", rows=torch.randn(4, 5)), "rows holds 4 rows, and num_data is 3"),
        (lambda: PerDatum(3, 9, init="pca", rows=torch.randn(3, 5)), "at most 3 components of 3 rows of 5 entries"),
        (lambda: PerDatum(3, 2, init="train"), "give trained=GUIDE"),
        (lambda: PerDatum(3, 2, init=torch.zeros(2, 2)), r"init has shape \(2, 2\); give locations \(3, 2\)"),
        (lambda: PerDatum(3, 2, log_var=float("nan")), "log_var must be a finite number"),
    ],
)
def test_what_it_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_that_have_no_parameters():
    vae, x = row_pair(5), pictures(5)
    with pytest.raises(ValueError, match="have no index, so they are others; call fit_posterior") as error:
        vae.encode(x)
    one_line(error)
    with pytest.raises(ValueError, match="index 5 is out of range: there are parameters of 5 rows") as error:
        vae.encode(x[:2], index=torch.tensor([0, 5]))
    one_line(error)
    with pytest.raises(ValueError, match="index -1 is out of range"):
        vae.log_likelihood(x[:1], 3, index=torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"mask has shape .*, and the data have .*; they must be equal") as error:
        vae.encode(x, mask=torch.ones(5, 4, 4, dtype=torch.bool), index=torch.arange(5))
    one_line(error)
    with pytest.raises(ValueError, match="index must hold one whole number for each row"):
        vae.encode(x, index=torch.zeros(5))


def test_keys_tell_rows_and_masks_apart():
    x = torch.randn(2000, 30)
    mask = torch.rand(2000, 30) < 0.5
    keys = row_keys(x, mask)
    assert len(keys.unique()) == 2000
    assert torch.equal(keys, row_keys(torch.where(mask, x, torch.nan), mask)), "missing entries may hold anything"
    other = mask.clone()
    other[:, 0] = ~other[:, 0]
    assert not bool((row_keys(x, other) == keys).any())
    near = x.clone()
    near[:, 7] = torch.nextafter(near[:, 7], torch.tensor(10.0))
    changed = (row_keys(near, mask) != keys) == mask[:, 7]
    assert bool(changed.all())
    assert torch.equal(row_keys(-torch.zeros(1, 3)), row_keys(torch.zeros(1, 3)))


def test_a_table_of_no_rows():
    with pytest.raises(ValueError, match="N at least 1"):
        RowTable(torch.zeros(0, 3))
    assert isinstance(PerDatum(2, 2), RowGuide)
