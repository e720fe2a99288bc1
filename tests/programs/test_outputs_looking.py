"""Which programs look at their data beyond obs=, and so give no outputs without data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyrovae import VAE


@pytest.mark.parametrize(
    "read",
    [
        lambda x: torch.where(x > 0, 1.0, -1.0),
        lambda x: (x > 3).float(),
        lambda x: x.nan_to_num().mean(),
        lambda x: x.isfinite().float(),
        lambda x: float(x.sum()),
        lambda x: x[torch.argmax(x)],
    ],
)
def test_every_way_of_looking_at_the_data_is_noticed(read):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=z + 0.1 * read(x)), obs=(x > 0).float())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([4.0, 5.0, -1.0])
    vae = VAE(model, guide, example=x)
    for call in (lambda: vae.sample(3), lambda: vae.decode(torch.zeros(3))):
        with pytest.raises(ValueError, match="looks at its data beyond obs="):
            call()
    torch.testing.assert_close(vae.decode(torch.zeros(3), data=x).logits, (0.1 * read(x) + torch.zeros(3)))


@pytest.mark.parametrize("by_handler", [True, False])
def test_missing_values_that_a_program_masks_are_no_look_at_the_data(by_handler):
    def model(x):
        seen = ~x.isnan()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if by_handler:
                with poutine.mask(mask=seen):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x.nan_to_num())
            else:
                pyro.sample("x", dist.Normal(z, 1.0).mask(seen), obs=x.nan_to_num())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.where(x.isnan(), 0.0, x / 2).nan_to_num(), 0.7))

    vae = VAE(model, guide, example=torch.tensor([1.0, torch.nan, 2.0]))
    assert vae.sample(4).shape == (4,)
    torch.testing.assert_close(vae.decode(torch.ones(2)).mean, torch.ones(2))
