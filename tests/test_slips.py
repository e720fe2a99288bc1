"""What a newcomer gets wrong in Python: one line that says what to give instead."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE, data, metrics
from pyrovae.data import Dataset, Rows
from pyrovae.pairs import find_pair, registry
from pyrovae.training import Trainer

SMALL = {"latent_dim": 2, "hidden": (4,)}


@pytest.fixture
def x():
    return torch.rand(40, 6)


@pytest.fixture
def vae(x):
    made = find_pair("gaussian").build(x, **SMALL)
    return made.prepare(x)


def with_hole(x):
    x = x.clone()
    x[3, 2] = torch.nan
    return x


SLIPS = {
    "another type": (lambda vae, x: vae.encode(x.double()), ValueError, "x is of torch.float64, and the parameters of"),
    "a shape of two": (
        lambda vae, x: vae.encode(x[:, :4]),
        ValueError,
        "x has rows of shape .4,., and the pair has seen",
    ),
    "a weight that falls": (lambda vae, x: Trainer(kl_weight="warm-up:4:-1"), ValueError, "must be finite and not neg"),
    "a weight of one's own": (
        lambda vae, x: Trainer(kl_weight=lambda epoch: -1.0, epochs=1, progress=False).fit(vae, x),
        ValueError,
        "kl_weight gives -1.0 after 0 epochs; a weight must be finite and not negative",
    ),
    "no rows to evaluate": (
        lambda vae, x: metrics.evaluate(vae, x),
        TypeError,
        "what is evaluated must be Rows, as in",
    ),
    "a text": (lambda vae, x: Trainer(epochs="3"), TypeError, "epochs must be a number, got '3'"),
    "a fraction": (lambda vae, x: find_pair("gaussian").build(x, latent_dim=2.0), TypeError, "must be a whole number"),
    "a number": (
        lambda vae, x: find_pair("gaussian").build(x, hidden=9),
        TypeError,
        "hidden must be whole numbers, such",
    ),
    "a switch": (lambda vae, x: find_pair("gaussian").build(x, tied=1), TypeError, "tied must be True or False, got 1"),
    "an array": (
        lambda vae, x: vae.encode(x.numpy()),
        TypeError,
        "must be a tensor .* not ndarray; give torch.as_tensor",
    ),
    "rows": (lambda vae, x: vae.log_likelihood(Rows(x)), TypeError, "not Rows; give x=rows.x, and mask=rows.mask"),
    "one datum": (lambda vae, x: vae.encode(torch.tensor(1.0)), ValueError, "must hold at least one row, got shape"),
    "a model": (lambda vae, x: Trainer(epochs=1).fit(vae.model, x), TypeError, "fit trains a VAE, got GaussianVAE"),
    "data": (lambda vae, x: data.load(x), TypeError, "load takes a name or a path, got Tensor; Trainer.fit takes"),
    "no tensor": (lambda vae, x: Rows(x.numpy()), TypeError, "x must be a tensor, not ndarray"),
    "no rows": (
        lambda vae, x: Dataset("a", Rows(x), None, None, "real"),
        TypeError,
        "validation must be Rows, not None",
    ),
    "latents": (lambda vae, x: vae.decode(np.zeros((2, 2))), TypeError, "latents are a tensor, or a dictionary"),
    "another shape": (
        lambda vae, x: vae.encode(x[:, :5]),
        ValueError,
        r"shape \(5,\), and the pair has seen .* \(6,\)",
    ),
    "NaN": (lambda vae, x: vae.encode(with_hole(x)), ValueError, "x has NaN in 1 entries; give mask=~x.isnan"),
    "NaN, scored": (
        lambda vae, x: vae.log_likelihood(with_hole(x), 5),
        ValueError,
        "x has NaN in 1 entries; give mask",
    ),
    "whole numbers": (lambda vae, x: Trainer(epochs=1).fit(vae, x.long()), ValueError, "shape .* and the type int64"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips(slip, vae, x):
    call, kind, message = SLIPS[slip]
    with pytest.raises(kind, match=message) as caught:
        call(vae, x)
    assert "\n" not in str(caught.value)


def test_nan_of_an_array_are_missing_entries_and_a_tensor_takes_a_mask(x):
    holes, losses = with_hole(x), []
    for form in ({"x": x, "mask": ~holes.isnan()}, holes.numpy()):
        torch.manual_seed(0)
        vae = find_pair("gaussian").build(x, **SMALL)
        losses.append([row["loss"] for row in Trainer(epochs=2, progress=False).fit(vae, form).rows])
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match="x has NaN in 1 entries; give mask"):
        Trainer(epochs=2, progress=False).fit(find_pair("gaussian").build(x, **SMALL), holes)


def test_options_of_a_registered_pair_may_be_more_than_its_hints_say(x, monkeypatch):
    monkeypatch.setattr(registry, "_PAIRS", dict(registry._PAIRS))

    @registry.register_pair("of-this-test", summary="takes much")
    def make(spec, hidden: int | tuple[int, ...] = 10, rate=1):
        return find_pair("gaussian").build(spec, latent_dim=2, hidden=hidden)

    assert find_pair("of-this-test").build(x, hidden=(5, 5), rate=0.5)


def test_only_what_nan_has_done_is_blamed_on_nan(x):
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            loc = (z + c).sum(-1, keepdim=True).expand(x.shape)
            pyro.sample("x", dist.Normal(loc, 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(x, c):
        with pyro.plate("data", len(x)):
            if c.shape[-1] == 2:
                raise torch.OutOfMemoryError("too much")
            pyro.sample("z", dist.Normal(c, 1.0).to_event(1))

    vae, holes = VAE(model, guide), with_hole(x)
    assert vae.encode(holes, c=torch.zeros(40, 3)).batch_shape == (40,)
    with pytest.raises(torch.OutOfMemoryError):
        vae.encode(holes, c=torch.zeros(40, 2))
    with pytest.raises((RuntimeError, ValueError)) as caught:
        vae(holes, c=torch.zeros(40, 4))
    assert "NaN" not in str(caught.value)


def test_nan_behind_an_obs_mask_is_named():
    def model(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=mask)

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x_unobserved", dist.Normal(0.0, 1.0))

    x = torch.tensor([0.5, torch.nan])
    with pytest.raises(ValueError, match="site 'x_observed' has NaN; put a number there"):
        VAE(model, guide).log_likelihood(x, 10, mask=~x.isnan())
