"""Errors of missing entries, against the conditional means of a linear-Gaussian model."""

import math

import pytest
import torch
from torch import nn

from pyrovae import VAE
from pyrovae.data import Rows, load
from pyrovae.data.patterns import random_mask
from pyrovae.guides import AmortizedGaussian, PerDatum
from pyrovae.likelihoods import NormalLikelihood
from pyrovae.metrics import MissingError, missing_errors, recover
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.priors import StandardNormal
from pyrovae.rng import begin

SCALE, LATENTS, ENTRIES, ROWS = 0.3, 2, 6, 40


def linear_pair(guide=None):
    torch.manual_seed(3)
    decoder = nn.Linear(LATENTS, ENTRIES)
    model = GaussianVAE(StandardNormal(LATENTS), decoder, NormalLikelihood((ENTRIES,), scale=SCALE))
    return VAE(model, guide or AmortizedGaussian(DenseEncoder((ENTRIES,), (8,)), LATENTS))


def exact(vae, x, mask):
    """E[x | x_observed] of every entry, by the posterior of z of each row."""
    weight, bias = vae.model.decoder.weight.double(), vae.model.decoder.bias.double()
    rows = []
    for value, seen in zip(x.double(), mask, strict=True):
        w = weight[seen]
        precision = torch.eye(LATENTS).double() + w.T @ w / SCALE**2
        z = torch.linalg.solve(precision, w.T @ (value[seen] - bias[seen]) / SCALE**2)
        rows.append(weight @ z + bias)
    return torch.stack(rows).float()


@pytest.fixture
def rows():
    torch.manual_seed(5)
    vae = linear_pair()
    x = vae.sample(ROWS)
    return x, random_mask((ENTRIES,), ROWS, 0.5, generator=torch.Generator().manual_seed(1))


class TestRecover:
    def test_refined_answers_are_the_conditional_means(self, rows):
        x, mask = rows
        vae = linear_pair()
        truth = exact(vae, x, mask)
        poor = recover(vae, x, mask, num_samples=1)
        good = recover(vae, x, mask, refine=300, num_samples=4000, progress=False)
        assert (poor - truth).detach().abs().mean() > 0.2
        assert (good - truth).detach().abs().max() < 0.25
        assert (good - truth).detach().abs().mean() < 0.02

    def test_an_auto_decoder_is_fitted_to_the_rows(self, rows):
        x, mask = rows
        vae = linear_pair(PerDatum(7, LATENTS, scale="learned"))
        answer = recover(vae, x, mask, steps=300, num_samples=4000, progress=False)
        assert (answer - exact(vae, x, mask)).detach().abs().mean() < 0.02
        assert vae.guide.num_data == 7

    def test_what_is_missing_is_not_looked_at(self, rows):
        x, mask = rows
        vae = linear_pair()
        torch.manual_seed(0)
        first = recover(vae, x, mask, refine=5, num_samples=3, progress=False)
        torch.manual_seed(0)
        second = recover(vae, torch.where(mask, x, torch.nan), mask, refine=5, num_samples=3, progress=False)
        assert torch.equal(first, second)

    def test_refused(self, rows):
        x, mask = rows
        with pytest.raises(ValueError, match="must not be negative, got -1"):
            recover(linear_pair(), x, mask, refine=-1)
        with pytest.raises(ValueError, match="guides with an encoder"):
            recover(linear_pair(PerDatum(7, LATENTS)), x, mask, refine=3)


class TestErrors:
    def test_figures_are_those_of_the_answers(self, rows):
        x, mask = rows
        vae, train = linear_pair(), Rows(x[:10], mask=mask[:10])
        known = random_mask((ENTRIES,), ROWS, 0.2, generator=torch.Generator().manual_seed(2))
        lacking = Rows(torch.where(known, x, torch.nan), mask=known)
        state = torch.get_rng_state()
        (found,) = missing_errors(vae, lacking, {0.5: mask}, train=train, num_samples=7, seed=4)
        assert torch.equal(torch.get_rng_state(), state)
        with torch.random.fork_rng():
            begin(4)
            answer = recover(vae, x, mask & known, num_samples=7).detach()
        squares = (answer - x).square()
        seen, asked = mask & known, ~mask & known
        assert found.error_missing == pytest.approx(float(squares[asked].mean()), rel=1e-5)
        assert found.error_observed == pytest.approx(float(squares[seen].mean()), rel=1e-5)
        assert found.error_all == pytest.approx(float(squares[known].mean()), rel=1e-5)
        assert found.share_missing == pytest.approx(float(asked.sum() / known.sum()))
        means = torch.stack([x[:10, j][mask[:10, j]].mean() for j in range(ENTRIES)])
        assert found.error_of_mean == pytest.approx(float((means - x).square()[asked].mean()), rel=1e-5)
        assert (found.ratio, found.num_rows) == (0.5, ROWS)

    def test_standard_error_is_the_spread_over_samples_of_rows(self):
        """Against the spread of the error over many draws of the rows, with numbers of missing entries that vary."""
        generator = torch.Generator().manual_seed(0)
        vae = linear_pair()
        errors, expected = [], []
        for _ in range(60):
            x = torch.randn(ROWS, ENTRIES, generator=generator)
            mask = random_mask((ENTRIES,), ROWS, 0.5, generator=generator)
            (found,) = missing_errors(vae, Rows(x), {0.5: mask}, num_samples=1)
            errors.append(found.error_missing)
            expected.append(found.standard_error)
        assert torch.tensor(expected).mean() == pytest.approx(float(torch.tensor(errors).std()), rel=0.3)

    def test_shares_are_gone_through_in_order(self, rows):
        x, _ = rows
        masks = {r: random_mask((ENTRIES,), ROWS, r) for r in (0.7, 0.2)}
        went = []
        found = missing_errors(
            linear_pair(), Rows(x), masks, num_samples=2, progress=lambda shares: went.extend(shares) or shares
        )
        assert [error.ratio for error in found] == went == [0.7, 0.2]
        assert math.isnan(found[0].error_of_mean)

    def test_a_single_row_and_training_mode(self, rows):
        x, mask = rows
        vae = linear_pair().train()
        (found,) = missing_errors(vae, Rows(x[:1]), {0.5: mask[:1]}, num_samples=2)
        assert math.isnan(found.standard_error)
        assert vae.training

    def test_pictures_all_missing_get_the_prior(self):
        digits = load("digits")
        vae = find_pair("gaussian").build(digits, latent_dim=2, likelihood="bernoulli", sees_mask=True)
        some = digits.test.take(slice(3))
        (found,) = missing_errors(vae, some, {0.99: torch.zeros_like(some.x, dtype=torch.bool)}, num_samples=5)
        assert found.error_all == found.error_missing
        assert math.isnan(found.error_observed)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (torch.ones(ROWS, ENTRIES, dtype=torch.bool), "share 0.5 hides no entry"),
            (torch.ones(ROWS, 2, dtype=torch.bool), r"of the shape of the rows \(40, 6\), got torch.bool of \(40, 2\)"),
            (torch.ones(ROWS, ENTRIES), "got torch.float32"),
        ],
    )
    def test_refused(self, mask, message, rows):
        with pytest.raises(ValueError, match=message):
            missing_errors(linear_pair(), Rows(rows[0]), {0.5: mask})


def test_fields_are_documented():
    assert MissingError._fields[:4] == ("ratio", "share_missing", "error_all", "error_missing")
