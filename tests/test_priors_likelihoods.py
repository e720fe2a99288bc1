"""Priors and likelihoods: what their distributions are, and which parameters they own."""

import copy
import math

import pyro.distributions as dist
import pytest
import torch
from pairs import LIKELIHOODS, SHAPE, library_pair, pictures
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, Likelihood, NormalLikelihood
from pyrovae.priors import MixturePrior, StandardNormal, VampPrior

# -- priors -----------------------------------------------------------------------------------------------------------


def test_standard_normal():
    z = torch.randn(5, 3)
    expected = -0.5 * z.square().sum(-1) - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(StandardNormal(3)().log_prob(z), expected)
    assert StandardNormal(3).double()().sample().dtype == torch.float64
    assert not list(StandardNormal(3).parameters()) + list(StandardNormal(3).state_dict())


def test_mixture_prior_starts_with_unit_scales_and_equal_weights():
    prior = MixturePrior(3, 10, spread=0.0)
    z = torch.randn(5, 3)
    torch.testing.assert_close(prior().log_prob(z), StandardNormal(3)().log_prob(z), rtol=1e-3, atol=1e-3)
    assert MixturePrior(2, 4000, spread=3.0).loc.std().item() == pytest.approx(3.0, rel=0.05)
    prior().log_prob(z).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters())


@pytest.mark.parametrize("learn_weights", [False, True])
def test_vamp_prior_is_the_mixture_of_posteriors(learn_weights):
    vae = library_pair().double()
    inputs = torch.rand(6, *SHAPE).double()
    prior = VampPrior(vae.guide.posterior, inputs, learn_weights=learn_weights).double()
    logits = torch.zeros(6).double()
    if learn_weights:
        with torch.no_grad():
            logits = prior.logits.normal_()
    q = vae.guide.posterior(inputs).base_dist
    exact = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(q.loc, q.scale), 1))
    z = 2 * torch.randn(9, 2).double()
    torch.testing.assert_close(prior().log_prob(z), exact.log_prob(z), rtol=1e-10, atol=1e-10)


def test_vamp_prior_does_not_own_the_encoder_but_trains_it():
    vae = library_pair(prior="vamp")
    names = {name for name, _ in vae.model.prior.named_parameters()}
    assert names == {"pseudo_inputs"}
    owned = [id(p) for p in vae.parameters()]
    assert len(owned) == len(set(owned))
    vae.model.prior().log_prob(torch.randn(5, 2)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in vae.guide.parameters())
    assert vae.model.prior.pseudo_inputs.grad.abs().sum() > 0


def test_vamp_prior_follows_the_encoder_of_a_copy():
    vae = library_pair(prior="vamp")
    twin = copy.deepcopy(vae)
    z = torch.randn(3, 2)
    torch.testing.assert_close(twin.model.prior().log_prob(z), vae.model.prior().log_prob(z))
    with torch.no_grad():
        twin.guide.head.linear.bias.add_(3.0)
    assert (twin.model.prior().log_prob(z) != vae.model.prior().log_prob(z)).all()


def test_vamp_prior_takes_a_module_without_registering_it():
    class Posterior(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 3)

        def forward(self, x):
            return dist.Normal(self.net(x), 1.0).to_event(1)

    prior = VampPrior(Posterior(), torch.zeros(4, 3))
    assert len(list(prior.parameters())) == 1


def test_vamp_prior_needs_a_diagonal_gaussian():
    prior = VampPrior(lambda x: torch.distributions.MultivariateNormal(x, torch.eye(3)), torch.zeros(4, 3))
    with pytest.raises(TypeError, match=r"VampPrior needs a diagonal Gaussian posterior Normal\(...\).to_event\(1\)"):
        prior()


# -- likelihoods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(3,), (3, 4, 4)], ids=str)
def test_shapes(kind, shape):
    likelihood = LIKELIHOODS[kind](shape)
    factor = 2 if kind in ("normal-predicted", "discretized-logistic") else 1
    assert likelihood.raw_shape == (factor * 3, *shape[1:])
    p = likelihood(torch.randn(5, 2, *likelihood.raw_shape))
    assert (p.batch_shape, p.event_shape) == ((5, 2), shape)
    x = p.sample()
    assert p.log_prob(x).shape == (5, 2)
    filled = torch.full_like(x, likelihood.fill_value)
    assert p.log_prob(filled).isfinite().all()
    assert p.mean.shape == p.mode.shape == x.shape


def total_probability(kind, raw):
    """Sum or integrate the density of a single value over its support."""
    likelihood = LIKELIHOODS[kind]((1,)).double()
    p = likelihood(raw)
    if kind == "bernoulli":
        return sum(p.log_prob(torch.tensor([value]).double()).exp() for value in (0.0, 1.0))
    if kind == "discretized-logistic":
        levels = torch.arange(256).double()[:, None, None] / 255
        return p.log_prob(levels).exp().sum(0)
    grid = torch.linspace(-60, 60, 24_001).double()
    return torch.trapezoid(p.log_prob(grid[:, None, None]).exp(), grid, dim=0)


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_normalised(kind):
    size = LIKELIHOODS[kind]((1,)).raw_shape
    raw = torch.randn(7, *size).double()
    torch.testing.assert_close(total_probability(kind, raw), torch.ones(7).double(), rtol=0, atol=1e-6)


def test_raw_parameters_are_split_by_channels():
    """The first half of the channels are means, the second half scales."""
    raw = torch.randn(2, 6, 4, 4)
    p = NormalLikelihood((3, 4, 4), scale="predicted")(raw)
    assert torch.equal(p.mean, raw[:, :3])
    torch.testing.assert_close(p.base_dist.scale, (1 + raw[:, 3:].exp()).log() + 1e-4, rtol=1e-4, atol=1e-4)


def test_fixed_and_learned_scales():
    raw = torch.randn(2, 3)
    assert torch.equal(NormalLikelihood((3,), scale=0.3)(raw).base_dist.scale, torch.full((2, 3), 0.3))
    assert not list(NormalLikelihood((3,)).parameters())
    learned = NormalLikelihood((3,), scale="learned")
    torch.testing.assert_close(learned(raw).base_dist.scale, torch.ones(2, 3), rtol=1e-3, atol=1e-3)
    assert [tuple(p.shape) for p in learned.parameters()] == [(3,)]
    assert [tuple(p.shape) for p in DiscretizedLogisticLikelihood((3,), scale="learned").parameters()] == [(3,)]


def test_bits_per_dimension_by_hand():
    """Differences of the logistic function between the edges of the bins, the ends open."""
    shape = (2, 3)
    likelihood = DiscretizedLogisticLikelihood(shape).double()
    raw = 0.5 * torch.randn(1, *likelihood.raw_shape).double()
    level = torch.tensor([[0, 255, 128], [3, 17, 254]])
    loc, scale = raw[0, :2] + 0.5, (1 + (raw[0, 2:] - 2).exp()).log() + 1e-3
    lower = torch.where(level == 0, 0.0, (((level - 0.5) / 255 - loc) / scale).sigmoid())
    upper = torch.where(level == 255, 1.0, (((level + 0.5) / 255 - loc) / scale).sigmoid())
    bits = -(upper - lower).log2().sum() / 6
    actual = -likelihood(raw).log_prob((level / 255).double()) / (6 * math.log(2))
    torch.testing.assert_close(actual[0], bits, rtol=1e-6, atol=1e-6)


def test_grey_values_need_leave():
    x = torch.full((1, 2), 0.3)
    logits = torch.tensor([[0.0, 1.0]])
    with pytest.raises(ValueError, match="Expected value"):
        BernoulliLikelihood((2,))(logits).log_prob(x)
    expected = (x * logits.sigmoid().log() + (1 - x) * (1 - logits.sigmoid()).log()).sum(-1)
    torch.testing.assert_close(BernoulliLikelihood((2,), strict=False)(logits).log_prob(x), expected)


def test_grey_values_under_a_mask():
    x, mask = torch.rand(3, *SHAPE), torch.rand(3, *SHAPE) < 0.5
    vae = library_pair()
    vae.model.likelihood = BernoulliLikelihood(SHAPE, strict=False)
    assert vae(x, mask=mask).nll.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BernoulliLikelihood(()), r"data_shape must hold positive sizes, got \(\)"),
        (lambda: BernoulliLikelihood((3, 0)), r"data_shape must hold positive sizes, got \(3, 0\)"),
        (lambda: NormalLikelihood((3,), scale="shared"), "'learned' or 'predicted', got 'shared'"),
        (lambda: NormalLikelihood((3,), scale=0.0), "scale must be positive, got 0.0"),
        (lambda: DiscretizedLogisticLikelihood((3,), scale="fixed"), "'learned' or 'predicted', got 'fixed'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_interface_says_what_is_missing():
    class Nothing(Likelihood):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must say how its entries are distributed"):
        Nothing((2,))(torch.zeros(1, 2))


def test_pictures_have_something_to_learn():
    """The guard of the tests that train: halves differ much more than chance allows."""
    x = pictures(40)
    assert (x[::2, :, :4].mean() - x[::2, :, 4:].mean()).abs() > 0.5
