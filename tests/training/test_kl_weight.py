"""The best weights of a training whose KL weight moves."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE
from pyrovae.training import Trainer

X = torch.randn(512, 1, generator=torch.Generator().manual_seed(0)) * 1.2 + 1


def make_pair() -> VAE:
    def model(x):
        offset = pyro.param("b", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + offset, 0.3).to_event(1), obs=x)

    def guide(x):
        slope, shift = pyro.param("a", torch.tensor(0.5)), pyro.param("c", torch.tensor(0.0))
        scale = pyro.param("s", torch.tensor(0.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x + shift, scale).to_event(1))

    return VAE(model, guide)


def bound(vae: VAE) -> float:
    with torch.no_grad():
        return -float(torch.stack([sum(vae(X)[1:]).mean() for _ in range(50)]).mean())


@pytest.mark.parametrize("kl_weight", [1.0, "warm-up:40"])
def test_the_best_epoch_has_the_full_weight(kl_weight):
    """Losses of a smaller weight are lower and say nothing: the guide would be left far too narrow."""
    vae = make_pair()
    trainer = Trainer(objective="mean-field", epochs=60, lr=0.03, progress=False, kl_weight=kl_weight)
    history = trainer.fit(vae, X)
    assert history.rows[history.best_epoch - 1]["kl_weight"] == 1
    plain = make_pair()
    Trainer(objective="mean-field", epochs=60, lr=0.03, progress=False).fit(plain, X)
    assert bound(vae) == pytest.approx(bound(plain), abs=0.05)


def test_patience_waits_until_the_weight_stands():
    history = Trainer(
        objective="mean-field", epochs=60, lr=0.03, progress=False, kl_weight="warm-up:30", patience=2, monitor="loss"
    ).fit(make_pair(), X)
    assert len(history.rows) > 30


def test_with_validation_rows_the_figure_at_weight_one_decides():
    history = Trainer(objective="mean-field", epochs=30, lr=0.03, progress=False, kl_weight="warm-up:60").fit(
        make_pair(), (X, X[:100])
    )
    losses = [row["validation_loss"] for row in history.rows]
    assert history.best_epoch == 1 + losses.index(min(losses))


def test_a_batch_of_all_rows_is_not_shuffled():
    """Latents of a guide that has one row for each datum stay with their data."""
    seen = []

    def model(x):
        seen.append(x.clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(len(X), 1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))

    Trainer(epochs=3, batch_size=len(X), progress=False).fit(VAE(model, guide), X)
    assert all(torch.equal(batch, X) for batch in seen)
