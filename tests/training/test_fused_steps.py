"""Steps of fused Adam called directly: the numbers and the state of torch's optimizer, bit for bit."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from pyrovae.training.fused_steps import FusedSteps

MAKERS = {
    "adam": lambda groups: Adam(groups, lr=0.01, fused=True),
    "adam with decay": lambda groups: Adam(groups, lr=0.01, fused=True, weight_decay=0.1, betas=(0.8, 0.9)),
    "adamw": lambda groups: AdamW(groups, lr=0.01, fused=True),
    "amsgrad": lambda groups: Adam(groups, lr=0.01, fused=True, amsgrad=True),
    "plain adam": lambda groups: Adam(groups, lr=0.01),
    "sgd": lambda groups: SGD(groups, lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_as_the_optimizer_does(kind):
    """Two groups, a schedule, a parameter that has gradients only later, and a state that is loaded in between."""
    nets = []
    for direct in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 5))
        late = nn.Parameter(torch.randn(3))
        optimizer = MAKERS[kind]([{"params": list(net[0].parameters())}, {"params": [*net[2].parameters(), late]}])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        steps = FusedSteps(optimizer)
        for number in range(9):
            loss = net(torch.randn(16, 7)).square().sum() + (late.sum() if number > 4 else 0.0)
            loss.backward()
            steps.step() if direct else optimizer.step()
            steps.forget_gradients() if direct else optimizer.zero_grad()
            assert late.grad is None
            schedule.step()
            if number == 6:
                optimizer.load_state_dict(optimizer.state_dict())
                steps.forget()
        nets.append(([*net.parameters(), late], optimizer.state_dict()["state"]))
    (ours, kept), (theirs, expected) = nets
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert kept.keys() == expected.keys()
    for index, values in expected.items():
        for name, value in values.items():
            same = (
                torch.equal(kept[index][name], value) if isinstance(value, torch.Tensor) else kept[index][name] == value
            )
            assert same


def test_groups_of_equal_settings_are_one_call():
    """Also when a schedule sets them apart and together again; and one group in double precision stays by itself."""
    nets = []
    for direct in (True, False):
        torch.manual_seed(0)
        layers = [nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 7).double()]
        optimizer = Adam([{"params": list(layer.parameters())} for layer in layers], lr=0.01, fused=True)
        steps, calls = FusedSteps(optimizer), []
        for number in range(9):
            optimizer.param_groups[1]["lr"] = 0.02 if 3 <= number < 6 else 0.01
            optimizer.param_groups[0]["betas"] = [0.9, 0.99 if number == 7 else 0.999]
            x = torch.randn(16, 7)
            (layers[1](layers[0](x).tanh()).square().sum() + layers[2](x.double()).square().sum()).backward()
            steps.step() if direct else optimizer.step()
            optimizer.zero_grad()
            calls.append(len(steps._calls))
        assert not direct or calls[1:] == [2, 2, 3, 3, 3, 2, 3, 2]
        nets.append([p for layer in layers for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*nets, strict=True))


def test_hooks_of_the_optimizer_are_called():
    """As Pyro's clipping of gradients is one."""
    weight, calls = nn.Parameter(torch.ones(3)), []
    optimizer = Adam([weight], lr=0.1, fused=True)
    steps = FusedSteps(optimizer)

    def without_gradient(*_):
        calls.append(1)
        weight.grad.zero_()

    for hooked in (False, False, True, True):
        if hooked and not calls:
            optimizer.register_step_pre_hook(without_gradient)
            optimizer.state.clear()
            before = weight.detach().clone()
        weight.square().sum().backward()
        steps.step()
        steps.forget_gradients()
    assert len(calls) == 2
    assert torch.equal(weight, before)


def _after_a_unit_died(direct, restarted_at=None, dtype=torch.float32, **settings):
    """Parameters and moments after 1500 steps; from step 5 on, one row of the parameter has no gradient any more."""
    generator = torch.Generator().manual_seed(0)
    values = nn.Parameter(torch.randn(4, 6, generator=generator, dtype=dtype))
    optimizer = Adam([values], fused=True, **settings)
    steps = FusedSteps(optimizer)
    for number in range(1500):
        if number == restarted_at:
            steps = FusedSteps(optimizer)
        values.grad = torch.randn(4, 6, generator=generator, dtype=dtype) * 1e-3
        if number >= 5:
            values.grad[1] = 0
        steps.step() if direct else optimizer.step()
    return values.detach(), optimizer.state[values]["exp_avg"], optimizer.state[values]["exp_avg_sq"]


def _are_subnormal(values):
    return (values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)


def test_moments_of_dead_units_become_zero_before_they_slow_down_the_steps():
    """Torch's own means end as subnormal numbers; ours are zero, and the parameters are the same bit for bit."""
    (ours, mean, square), (theirs, their_mean, their_square) = map(_after_a_unit_died, (True, False))
    assert _are_subnormal(their_mean[1]).all()
    assert not mean[1].any()
    assert not _are_subnormal(mean).any()
    assert not _are_subnormal(square).any()
    assert torch.equal(ours, theirs)
    assert torch.equal(square, their_square)
    assert torch.equal(mean[[0, 2, 3]], their_mean[[0, 2, 3]])


def test_moments_are_looked_at_by_the_count_of_the_optimizer():
    """Steps that begin anew, as after a resumption, give the same bits at any step."""
    for at in (1, 100, 1299):
        for one, other in zip(_after_a_unit_died(True), _after_a_unit_died(True, at), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [{"eps": 1e-30}, {"dtype": torch.bfloat16}], ids=["small eps", "half precision"])
def test_small_moments_stay_where_they_might_count(settings):
    for ours, theirs in zip(_after_a_unit_died(True, **settings), _after_a_unit_died(False, **settings), strict=True):
        assert torch.equal(ours, theirs)


def test_small_squares_become_zero():
    """After 100 000 steps without a gradient they are subnormal numbers, too."""
    values = nn.Parameter(torch.ones(3))
    optimizer = Adam([values], betas=(0.9, 0.9), fused=True)
    steps = FusedSteps(optimizer)
    for number in range(1300):
        values.grad = torch.full((3,), 1e-3 if number < 5 else 0.0)
        steps.step()
    assert not optimizer.state[values]["exp_avg_sq"].any()
