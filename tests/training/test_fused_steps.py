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
