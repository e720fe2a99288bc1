"""Penalties against densities of torch and scipy, and what they do to a loss."""

import pytest
import torch
from scipy import stats
from tiny_networks import DATA, TinyModel, TinyNetwork

from pyrovae.blackbox import ELBO, BetaRegularizer, NormalRegularizer, SleepQ, WakeP, WakeQ, fit


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.1), (0.85, 0.05), (0.02, 0.05)])
def test_beta(mean, std):
    model = TinyModel()
    regularizer = BetaRegularizer(model, "prior", mean=mean, std=std, weight=2.5)
    density = stats.beta(regularizer.concentration1, regularizer.concentration0)
    assert density.mean() == pytest.approx(mean)
    assert density.std() == pytest.approx(std)
    expected = -2.5 * density.logpdf(model.prior.detach().double().sigmoid().numpy()).sum()
    assert regularizer().item() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(regularizer.value(), model.prior.sigmoid())


def test_normal():
    model = TinyModel()
    regularizer = NormalRegularizer(model, "weight", mean=1.0, std=0.3, link=torch.exp)
    expected = -torch.distributions.Normal(1.0, 0.3).log_prob(model.weight.exp()).sum()
    assert torch.allclose(regularizer(), expected)
    plain = NormalRegularizer(model, "weight", mean=1.0, std=0.3)
    assert torch.allclose(plain(), -torch.distributions.Normal(1.0, 0.3).log_prob(model.weight).sum())


def test_parameters_of_the_data_are_averaged():
    """A penalty on an entry of `params_` does not change when the batch is repeated."""
    network = TinyNetwork()
    regularizer = BetaRegularizer(network, "second", mean=0.4, std=0.2)
    with pytest.raises(ValueError, match=r"has no parameter 'first_'; it has \['first', 'link', 'second'\]"):
        NormalRegularizer(network, "first_", 0.0, 1.0)()
    network.second_raw = network.second
    del network.second
    network.second = network.second_raw.data  # no longer a parameter: the entry of params_ is meant
    once = (network([DATA]), regularizer())[1]
    twice = (network([DATA.repeat(2, 1)]), regularizer())[1]
    density = stats.beta(regularizer.concentration1, regularizer.concentration0)
    by_hand = -density.logpdf((DATA @ network.second).double().sigmoid().numpy()).sum() / 4
    assert once.item() == pytest.approx(by_hand, rel=1e-4)
    assert once.item() == pytest.approx(twice.item())


def test_extreme_values_stay_finite():
    model = TinyModel()
    with torch.no_grad():
        model.prior.copy_(torch.tensor([-200.0, 200.0, 0.0]))
    for mean, std in ((0.02, 0.05), (0.5, 0.1)):
        regularizer = BetaRegularizer(model, "prior", mean=mean, std=std)
        model.prior.grad = None
        regularizer().backward()
        assert model.prior.grad.isfinite().all()


def test_only_losses_that_update_the_network_are_penalised():
    network, model = TinyNetwork(), TinyModel()
    regularizer = BetaRegularizer(model, "prior", mean=0.5, std=0.1)

    def added(make):
        values = []
        for regularizers in ([], [regularizer]):
            torch.manual_seed(1)
            values.append(make(network, model, regularizers=regularizers)([DATA]).item())
        return values[1] - values[0]

    for make in (ELBO, WakeP):
        assert added(make) == pytest.approx(regularizer().item(), rel=1e-4)
    for make in (WakeQ, SleepQ):
        assert added(make) == 0


def test_a_strong_penalty_wins():
    model = TinyModel()
    regularizers = [
        BetaRegularizer(model, "prior", mean=0.25, std=0.01, weight=50.0),
        NormalRegularizer(model, "weight", mean=2.0, std=0.05, weight=50.0),
    ]
    fit(ELBO(TinyNetwork(), model, regularizers=regularizers), [DATA], num_steps=400, lr=0.05)
    assert torch.allclose(model.prior.sigmoid(), torch.tensor(0.25), atol=0.02)
    assert torch.allclose(model.weight, torch.tensor(2.0), atol=0.05)


def test_errors():
    network, model = TinyNetwork(), TinyModel()
    with pytest.raises(ValueError, match="std must be positive and weight not negative"):
        NormalRegularizer(model, "prior", 0.0, 0.0)
    with pytest.raises(ValueError, match=r"std below sqrt\(mean \* \(1 - mean\)\), got mean 0.5 and std 0.5"):
        BetaRegularizer(model, "prior", 0.5, 0.5)
    with pytest.raises(ValueError, match=r"a mean in \(0, 1\)"):
        BetaRegularizer(model, "prior", 1.5, 0.1)
    with pytest.raises(ValueError, match=r"the linked value must lie in \(0, 1\), got"):
        BetaRegularizer(model, "prior", 0.5, 0.1, link=torch.exp)()
    with pytest.raises(ValueError, match=r"NormalRegularizer\(TinyModel, 'prior'\) is on a network"):
        ELBO(network, TinyModel(), regularizers=[NormalRegularizer(model, "prior", 0.0, 1.0)])
