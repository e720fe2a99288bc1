"""The guide of gradient steps: its answer in closed form, and that the model learns through the steps."""

import pytest
import torch
from row_pairs import LinearModel, decoder_model, pictures

from pyrovae import VAE
from pyrovae.guides import GradientGuide, RowGuide
from pyrovae.storage import module_tensors
from pyrovae.training import Trainer


def test_one_step_from_the_origin_of_a_linear_model():
    model = LinearModel()
    x = model.data(7)
    posterior = GradientGuide(model, 2, lr=0.3).posterior(x)
    expected = 0.3 * x @ model.loadings / model.noise**2  # d/dz log p(x, z) at 0
    assert torch.allclose(posterior.mean, expected, atol=1e-5)
    mask = torch.rand(7, 6) < 0.5
    seen = 0.3 * torch.where(mask, x, 0.0) @ model.loadings / model.noise**2
    assert torch.allclose(GradientGuide(model, 2, lr=0.3).posterior(x, mask).mean, seen, atol=1e-5)


def test_many_small_steps_reach_the_mean_of_the_exact_posterior():
    model = LinearModel()
    x = model.data(7)
    found = GradientGuide(model, 2, steps=300, lr=0.08).posterior(x)
    assert torch.allclose(found.mean.double(), model.posterior(x)[0], atol=1e-4)


def test_the_model_learns_through_the_step():
    """The gradient by the model's parameters is that of the whole loss, by finite differences."""
    model = decoder_model().double()
    guide = GradientGuide(model, 2, scale="none").double()
    x = pictures(5).double()
    weight = model.decoder.net.layers[0].weight

    def loss():
        z = guide.posterior(x).mean
        return -model.likelihood(model.decoder(z)).log_prob(x).sum()

    (gradient,) = torch.autograd.grad(loss(), [weight])
    for place in ((0, 0), (3, 1), (7, 0)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * 1e-5
            values.append(loss().item())
            with torch.no_grad():
                weight[place] -= sign * 1e-5
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("objective", ["elbo", "mean-field", "iwae"])
def test_it_trains_and_every_method_works(objective):
    model, x = decoder_model(), pictures(60)
    vae = VAE(model, GradientGuide(model, 2))
    assert sum(p.numel() for p in vae.parameter_groups()["guide"]) == 2
    settings = {"epochs": 15, "batch_size": 20, "lr": 0.03, "progress": False, "seed": 1}
    history = Trainer(objective=objective, **settings).fit(vae, (x, pictures(20, 3)))
    assert history.rows[-1]["validation_loss"] < history.rows[0]["validation_loss"] - 0.5
    assert vae.log_likelihood(x, 20).shape == (60,)
    assert vae.reconstruct(x).shape == x.shape
    mask = torch.rand(x.shape) < 0.5
    assert vae.impute(x, mask, num_samples=5).shape == x.shape
    assert isinstance(vae.fit_posterior(x[:5], steps=3, progress=False).guide, RowGuide)
    names = set(module_tensors(vae))
    assert len(names) == len({id(p) for p in vae.parameters()})


def test_refused_options():
    model = decoder_model()
    with pytest.raises(ValueError, match="steps, lr and latent_dim must be positive, got 0"):
        GradientGuide(model, 2, steps=0)
    with pytest.raises(ValueError, match="scale must be learned or none"):
        GradientGuide(model, 2, scale="fixed")
