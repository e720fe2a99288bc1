"""Update sequences and the loop that runs them."""

import pytest
import torch
from tiny_networks import DATA, TinyModel, TinyNetwork, tables
from torch import nn

from pyrovae import blackbox
from pyrovae.blackbox import ELBO, IWAE, NVIL, VIMCO, NormalRegularizer, WakeP, WakeQ, fit, update
from pyrovae.blackbox.updates import make_optimizers, minibatches

ROWS = torch.tensor([0, 0, 0, 3]).repeat(64)
ONE_LINE = {
    "ELBO": ELBO,
    "IWAE": IWAE,
    "VIMCO": VIMCO,
    "NVIL": lambda q, p: NVIL(q, p, baseline=nn.Linear(2, 1)),
    "wake-sleep": blackbox.wake_sleep,
    "wake-wake": blackbox.wake_wake,
    "reweighted-wake-sleep": blackbox.reweighted_wake_sleep,
}


def standing(network, model):
    """The mean evidence, and the divergences KL(p(z|x) || q) and KL(q || p(z|x)), exactly."""
    with torch.no_grad():
        log_p, log_q = (table[ROWS] for table in tables(network, model))
    posterior = log_p.log_softmax(1)
    forward = (posterior.exp() * (posterior - log_q)).sum(1).mean().item()
    reverse = (log_q.exp() * (log_q - posterior)).sum(1).mean().item()
    return log_p.logsumexp(1).mean().item(), forward, reverse


@pytest.mark.parametrize("name", ONE_LINE)
def test_both_networks_learn(name):
    network, model = TinyNetwork(5), TinyModel()
    assert standing(network, model)[0] < -1.5
    history = fit(ONE_LINE[name](network, model), [DATA[ROWS]], num_steps=250, lr=0.05)
    evidence, forward, reverse = standing(network, model)
    _, forward_before, reverse_before = standing(TinyNetwork(), model)
    assert evidence > -1.0
    assert forward < 0.75 * forward_before
    assert reverse < 0.75 * reverse_before
    for values in history.values():
        assert len(values) == 250
        assert sum(values[-50:]) < sum(values[:50]) - 10


def test_sequences_and_their_options():
    network, model = TinyNetwork(), TinyModel()
    names = {
        blackbox.wake_sleep: ["WakeP", "SleepQ"],
        blackbox.wake_wake: ["WakeP", "WakeQ"],
        blackbox.reweighted_wake_sleep: ["WakeP", "WakeQ", "SleepQ"],
    }
    regularizer = NormalRegularizer(model, "prior", 0.0, 1.0)
    for make, expected in names.items():
        losses = make(network, model, num_samples=7, regularizers=[regularizer])
        assert [loss.name for loss in losses] == expected
        assert [(loss.num_samples, loss.regularizers) for loss in losses] == [(7, (regularizer,))] * len(losses)


def test_each_loss_steps_what_it_updates():
    network, model = TinyNetwork(), TinyModel()
    losses = blackbox.wake_wake(network, model)
    optimizers = make_optimizers(losses, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert set(optimizers) == {network, model}
    before = [parameter.clone() for parameter in network.parameters()]
    values = update(losses[:1], [DATA], optimizers)
    assert list(values) == ["WakeP"]
    assert all(torch.equal(new, old) for new, old in zip(network.parameters(), before, strict=True))
    update(losses, [DATA], optimizers)
    assert not any(torch.equal(new, old) for new, old in zip(network.parameters(), before, strict=True))


def test_a_step_is_that_of_the_gradient():
    """Plain gradient descent by hand, model first and then the network at the stepped model."""
    torch.manual_seed(3)
    network, model = TinyNetwork(), TinyModel()
    for make, owner in ((WakeP, model), (WakeQ, network)):
        owner.zero_grad()
        make(network, model)([DATA]).backward()
        with torch.no_grad():
            for parameter in owner.parameters():
                parameter -= 0.1 * parameter.grad
    torch.manual_seed(3)
    ours = TinyNetwork(), TinyModel()
    losses = blackbox.wake_wake(*ours)
    update(losses, [DATA], make_optimizers(losses, lambda parameters: torch.optim.SGD(parameters, lr=0.1)))
    for by_hand, module in zip((network, model), ours, strict=True):
        for expected, parameter in zip(by_hand.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected)


def test_optimizer_and_progress_are_passed_in():
    seen = []
    network, model = TinyNetwork(), TinyModel()
    loss = ELBO(network, model)

    def frozen(parameters):
        return torch.optim.SGD(parameters, lr=0.0)

    history = fit(
        loss, [DATA], num_steps=3, optimizer=frozen, on_step=lambda step, values: seen.append((step, values["ELBO"]))
    )
    assert seen == list(enumerate(history["ELBO"], 1))
    assert loss.loss_history_ == history["ELBO"]
    assert torch.equal(model.prior, TinyModel().prior)


def test_minibatches_are_epochs_in_new_orders():
    x, y = torch.arange(10), torch.arange(10) + 100
    batches = [batch for batch, _ in zip(minibatches([x, y], 4), range(6), strict=False)]
    assert [len(a) for a, _ in batches] == [4, 4, 2] * 2
    assert all(torch.equal(a + 100, b) for a, b in batches)
    epochs = [torch.cat([a for a, _ in part]) for part in (batches[:3], batches[3:])]
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_frozen_networks_are_left_alone():
    network, model = TinyNetwork(), TinyModel().requires_grad_(False)
    fit(ELBO(network, model), [DATA], num_steps=2)
    assert torch.equal(model.prior, TinyModel().prior)
    assert not torch.equal(network.first, TinyNetwork().first)
    with pytest.raises(ValueError, match="WakeP: the networks have no parameters to train"):
        fit(WakeP(network, model), [DATA], num_steps=1)


def test_errors():
    loss = ELBO(TinyNetwork(), TinyModel())
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        fit(loss, [DATA], num_steps=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        fit(loss, [DATA], num_steps=1, batch_size=0)


def test_a_loss_that_is_not_finite_stops_before_the_step():
    class Infinite(TinyModel):
        def log_prob(self, data, latents):
            return super().log_prob(data, latents) + float("inf")

    network, model = TinyNetwork(), Infinite()
    with pytest.raises(RuntimeError, match=r"ELBO is nan \(mean log_p inf, mean log_q -"):
        fit(ELBO(network, model), [DATA], num_steps=1)
    assert torch.equal(network.first, TinyNetwork().first)
