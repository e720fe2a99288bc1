"""Guides that hold more than latents: factors, observed sites, auxiliary draws, Deltas, flows, dropout, subsamples."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.distributions import transforms
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal
from torch import nn

from pyrovae import VAE
from pyrovae.infer import IWAE, VIMCO, Renyi, log_weights, make_objective
from pyrovae.programs import trace
from pyrovae.sites import objective_term
from pyrovae.training import Trainer


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def exact(x):
    return dist.Normal(0.0, 2**0.5).log_prob(x)


def guide_with(kind, slope=None):
    """The exact guide beside something that is no latent."""

    def guide(x):
        weight = pyro.param("weight", torch.tensor(0.4, dtype=x.dtype))
        loc = x / 2 if slope is None else x * pyro.param("slope", slope.clone())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 0.5**0.5))
            if kind == "factor":
                pyro.factor("aux", 10.0 + weight * z, has_rsample=True)
            elif kind == "score factor":
                pyro.factor("aux", 10.0 + weight * x, has_rsample=False)
            elif kind == "observed":
                pyro.sample("t", dist.Normal(weight * z, 1.0), obs=x, infer={"is_auxiliary": True})
            elif kind == "observed class":
                label = (x > 0).to(x.dtype)
                pyro.sample("t", dist.Bernoulli(logits=weight * x), obs=label, infer={"is_auxiliary": True})
            elif kind == "term":
                objective_term("aux", weight * x)

    return guide


KINDS = ("factor", "score factor", "observed", "observed class", "term")


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_figures_know_nothing_of_it(kind):
    x = torch.randn(4)
    for vae in (VAE(model, guide_with(kind)),):
        torch.testing.assert_close(vae.log_likelihood(x, 20), exact(x))
        torch.testing.assert_close(log_weights(model, guide_with(kind), 3, x).log_weight, exact(x).expand(3, 4))
        assert vae.sites.latent == ("z",)
        bound = torch.stack([-sum(vae(x)[1:]) for _ in range(3000)]).mean(0)
        torch.testing.assert_close(bound.detach(), exact(x), rtol=0, atol=0.1)
        assert vae.reconstruct(x).shape == (4,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_training_counts_it_as_trace_elbo_does(kind, scaled):
    """Value and gradient, with the sign that a guide has."""
    x = torch.randn(4, dtype=torch.float64)
    guide, program = guide_with(kind, torch.tensor(0.3, dtype=torch.float64)), model
    if scaled:
        guide, program = (pyro.poutine.scale(p, scale=3.0) for p in (guide, program))
    found = []
    for objective in (Trace_ELBO(), IWAE(1), Renyi(0.3, 1)):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        loss = objective.loss_and_grads(program, guide, x)
        store = pyro.get_param_store()
        found.append(torch.stack([torch.tensor(loss).double(), *(p.grad for _, p in sorted(store.named_parameters()))]))
    for ours in found[1:]:
        torch.testing.assert_close(ours, found[0], rtol=0, atol=1e-6)


def test_factor_of_the_model_counts_everywhere():
    def tilted(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("bonus", torch.full((len(x),), 2.0))

    x = torch.randn(3)
    vae = VAE(tilted, guide_with("none"))
    torch.testing.assert_close(vae.log_likelihood(x, 5), exact(x) + 2)
    torch.testing.assert_close(vae(x).nll.detach() + 2, VAE(model, guide_with("none"))(x).nll.detach(), rtol=0, atol=9)
    assert vae.sites.all_observed == ("x",)
    assert vae.sample(3).shape == (3,)


# -- Deltas and auxiliary sites ---------------------------------------------------------------------------------------


def test_delta_guide_has_no_importance_weights():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x / 2))

    x = torch.randn(4)
    for call in (VAE(model, guide).log_likelihood, lambda x, k: log_weights(model, guide, k, x)):
        with pytest.raises(ValueError, match=r"site 'z' of the guide is a Delta.*no importance weights"):
            call(x, 10)
    assert IWAE(1).loss(model, guide, x) == pytest.approx(Trace_ELBO().loss(model, guide, x))
    torch.testing.assert_close(VAE(model, guide).reconstruct(x), x / 2)


def test_delta_beside_a_draw_that_it_does_not_depend_on():
    def two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Normal(x / 2, 1.0))
            pyro.sample("z", dist.Delta(x / 2))

    with pytest.raises(ValueError, match="site 'z' of the guide is a Delta"):
        VAE(two, guide).log_likelihood(torch.randn(3), 5)


def auxiliary(x):
    """z = 2 u with its Jacobian."""
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(x / 4, 0.5**1.5), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(2 * u, log_density=torch.full_like(u, -math.log(2.0))))


@pytest.mark.parametrize("density", ["none", "wrong", "right"])
def test_delta_of_a_draw_needs_the_density_of_its_value(density):
    """Two entries that are mixed, so that the determinant counts and not the diagonal."""
    mix = torch.tensor([[1.0, 0.5], [1.5, 2.0]])
    inverse, log_det = mix.inverse(), torch.linalg.slogdet(mix)[1]

    def two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            exact = dist.MultivariateNormal(x / 2 @ inverse.T, inverse @ inverse.T / 2)
            u = pyro.sample("u", exact, infer={"is_auxiliary": True})
            value = {"none": 0.0, "wrong": -u.sum(-1), "right": -log_det.expand(len(x))}[density]
            pyro.sample("z", dist.Delta(u @ mix.T, log_density=value, event_dim=1))

    x = torch.randn(4, 2)
    vae = VAE(two, guide)
    if density == "right":
        exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)
        torch.testing.assert_close(vae.log_likelihood(x, 10), exact, rtol=0, atol=1e-4)
        return
    for call in (vae.log_likelihood, lambda x, k: log_weights(two, guide, k, x)):
        with pytest.raises(ValueError, match=r"site 'z' of the guide is a Delta at a function of 'u' with the log"):
            call(x, 10)


@pytest.mark.parametrize("kind", ["sum of two", "twice the same", "wrong in some rows"])
def test_deltas_without_a_density(kind):
    """More or fewer draws than entries; and a scale of 1 in the first row, which needs no density there alone."""
    wide = kind == "twice the same"

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2 if wide else 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 2, 0.5), infer={"is_auxiliary": True})
            if kind == "sum of two":
                a = a + pyro.sample("b", dist.Normal(torch.zeros(()), 0.5), infer={"is_auxiliary": True})
            if kind == "wrong in some rows":
                a = a * (-x.abs()).exp()
            pyro.sample("z", dist.Delta(torch.stack([a, a] if wide else [a], -1), event_dim=1))

    x = torch.arange(4.0)
    message = "for row 1, and the change of variables" if kind == "wrong in some rows" else "so it has no density"
    for call in (lambda: VAE(model, guide).log_likelihood(x, 10), lambda: IWAE(3).loss(model, guide, x)):
        with pytest.raises(ValueError, match=message):
            call()


def test_delta_of_a_latent_of_the_model_has_no_density():
    def two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            w = pyro.sample("w", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("w", dist.Delta(pyro.sample("z", dist.Normal(x / 2, 1.0))))

    with pytest.raises(ValueError, match="site 'w' of the guide is a Delta that is no function of a draw of the datum"):
        VAE(two, guide).log_likelihood(torch.randn(3), 5)


class Easy(EasyGuide):
    def guide(self, x):
        group = self.group(match="z")
        with self.plate("data", len(x), subsample=torch.arange(len(x))):
            group.sample(
                "latent", dist.Normal((x / 2).unsqueeze(-1), 0.5**0.5).to_event(1), infer={"is_auxiliary": True}
            )


@pytest.mark.parametrize("kind", ["delta", "easy"])
def test_auxiliary_draws(kind):
    x = torch.randn(4)
    guide = auxiliary if kind == "delta" else Easy(model)
    vae = VAE(model, guide)
    torch.testing.assert_close(vae.log_likelihood(x, 10), exact(x))
    assert vae.sites.latent == ("z",)
    torch.testing.assert_close(vae.reconstruct(x), x / 2)
    bound = torch.stack([-sum(vae(x)[1:]) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(bound, exact(x), rtol=0, atol=0.1)
    for objective in (IWAE(3), VIMCO(3)):
        assert objective.loss(model, guide, x) == pytest.approx(float(-exact(x).sum()), abs=1e-4)


@pytest.mark.parametrize("call", ["fit", "loss", "log_likelihood", "encode", "reconstruct", "bound_terms"])
def test_a_latent_of_another_name_is_refused(call):
    """The model would draw its own from the prior."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("zz", dist.Normal(x / 2, 0.5**0.5))

    vae, x = VAE(model, guide), torch.randn(4)
    calls = {
        "fit": lambda: Trainer(epochs=1, progress=False).fit(vae, x),
        "loss": lambda: vae(x),
    }
    with pytest.raises(ValueError, match=r"'zz' of the guide is no site of the model, and latent site 'z' .* missing"):
        calls.get(call, lambda: getattr(vae, call)(x))()


def test_a_loss_with_a_draw_that_has_no_counterpart_is_told(caplog):
    """Its density stands in the loss, as in Pyro; the figures of trained pairs leave it out, and are right."""

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x + 0.1 * u, 0.7))

    vae, x = VAE(model, guide), torch.randn(4)
    torch.testing.assert_close(vae.log_likelihood(x, 20000), exact(x), rtol=0, atol=0.05)
    Trainer(epochs=1, progress=False).fit(vae, x)
    assert sum("the guide draws 'u', which the model does not" in line for line in caplog.messages) == 1
    assert "the loss is no bound" in caplog.text


def nuisance(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)


def exponential(x):
    with pyro.plate("data", len(x)):
        u = pyro.sample("u", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 1.0))
        pyro.sample("z", dist.Delta(u.exp(), log_density=-u))


def classes(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(2)))
        pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)


def point_of_a_class(x):
    with pyro.plate("data", len(x)):
        logits = pyro.param("a", torch.tensor(0.5)) * x
        u = pyro.sample("u", dist.Categorical(logits=torch.stack([logits, -logits], -1)), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(u))


@pytest.mark.filterwarnings("ignore:Found ")  # Pyro's own
@pytest.mark.parametrize(("model", "guide"), [(nuisance, exponential), (classes, point_of_a_class)])
def test_helpers_of_points_are_neither_refused_nor_told(model, guide, caplog):
    """A latent that the model draws from its prior, beside a transformed draw; and a point of a draw of a class."""
    Trainer(epochs=1, progress=False).fit(VAE(model, guide), torch.randn(6))
    assert "no bound" not in caplog.text


def test_auto_normal_on_all_rows():
    x = 3 * torch.randn(20)
    guide = AutoNormal(model)
    vae = VAE(model, guide, example=x)
    assert vae.sites.latent == ("z",)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.copy_(x / 2 if "locs" in name else torch.full((20,), math.log(math.expm1(0.5**0.5))))
    torch.testing.assert_close(vae.log_likelihood(x, 5), exact(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vae.reconstruct(x), x / 2)
    assert vae.encode(x).batch_shape == (20,)


def test_automatic_guide_of_points_and_densities():
    def bayesian(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    guide = AutoGuideList(bayesian)
    guide.append(AutoDelta(pyro.poutine.block(bayesian, expose=["mu"])))
    guide.append(AutoNormal(pyro.poutine.block(bayesian, expose=["z"])))
    x = torch.randn(5)
    vae = VAE(bayesian, guide, example=x)
    assert vae.sites.shared == ("mu",)
    assert vae.sites.latent == ("z",)
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if "scales" in name:
                parameter.fill_(math.log(math.expm1(0.8)))
            elif "locs" in name:
                parameter.copy_((x + 0.5) / 2)
    value = vae.log_likelihood(x, 2000, condition={"mu": torch.tensor(0.5)})
    torch.testing.assert_close(value, dist.Normal(0.5, 2**0.5).log_prob(x), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", ["NSF", "MAF"])
def test_zuko_flows(name):
    """Flows of another library, through Pyro's own wrapper: against the evidence, and trained."""
    flows = pytest.importorskip("zuko").flows
    from pyro.contrib.zuko import ZukoToPyro

    flow = getattr(flows, name)(2, 2, transforms=1, hidden_features=[8])

    def of_two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        net = pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(net(x)))

    x = torch.randn(6, 2)
    vae = VAE(of_two, guide, example=x)
    for objective in ("mean-field", "iwae-dreg", "rws"):
        particles = {} if objective == "mean-field" else {"num_particles": 5}
        Trainer(objective=objective, epochs=20, lr=0.01, progress=False, **particles).fit(vae, x)
    evidence = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)
    result = vae.log_likelihood(x, 4000, return_details=True)
    assert ((result.value - evidence).abs() < 5 * result.standard_error + 1e-3).all()


@pytest.mark.parametrize("kind", ["affine", "planar"])
def test_flows(kind):
    """A flow without an inverse scores its own draws."""
    net = transforms.Planar(2) if kind == "planar" else None

    def of_two(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        base = dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
        flow = pyro.module("net", net) if net is not None else transforms.AffineTransform(x / 2, 0.5**0.5, event_dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    x = torch.randn(3, 2)
    vae = VAE(of_two, guide)
    value = vae.log_likelihood(x, 3000)
    torch.testing.assert_close(value, exact(x).sum(1), rtol=0, atol=0.1 if kind == "affine" else 0.6)
    assert vae.reconstruct(x).shape == (3, 2)
    for name in ("iwae", "renyi", "elbo"):
        assert math.isfinite(make_objective(name, num_particles=2).loss(of_two, guide, x))


# -- what a guide draws beside its sites ------------------------------------------------------------------------------


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.4), nn.Linear(16, 2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(3 * self.net(x), 0.5).to_event(1))


def model_of_two(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("name", ["wake-wake", "rws", "wake-sleep", "iwae", "vimco", "renyi"])
@pytest.mark.parametrize("vectorize", [True, False])
def test_no_bound_passes_the_truth_under_dropout(name, vectorize):
    x = torch.randn(1000, 2) * 1.4
    objective = make_objective(name, num_particles=5, vectorize_particles=vectorize)
    loss = objective.losses(model_of_two, Dropping(), x).model if "wake" in name or name == "rws" else None
    loss = objective.loss(model_of_two, Dropping(), x) if loss is None else loss
    assert loss / 1000 > -exact(x).sum(1).mean()


def test_wake_phi_scores_draws_under_the_units_that_drew_them():
    """A guide whose mean is a coin that it tosses beside its sites: log q is that of the toss, gradient too."""
    scale = torch.tensor(1e-2, requires_grad=True)

    def guide(x):
        toss = 100.0 * torch.randint(2, (len(x),))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(toss, scale))

    objective = make_objective("wake-wake", num_particles=2, vectorize_particles=False)
    pair = objective._pair(model, guide, (torch.zeros(50),), {})
    found = pair.over_particles(objective._wake(pair))
    assert (found.log_q > -20).all()
    assert found.log_q.requires_grad


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_two_runs_of_a_guide_with_dropout_are_refused(gradient):
    guide, x = Dropping(), torch.randn(8, 2)
    objective = IWAE(3, gradient=gradient, vectorize_particles=True)
    with pytest.raises(ValueError, match="draws random numbers beside its sites, dropout perhaps"):
        objective.loss(model_of_two, guide, x)
    guide.eval()
    assert math.isfinite(objective.loss(model_of_two, guide, x))


# -- subsamples of the programs' own ----------------------------------------------------------------------------------


def subsampling(size=20):
    def model(x):
        with pyro.plate("d", len(x), subsample_size=size) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(size), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def guide(x):
        with pyro.plate("d", len(x), subsample_size=size) as i:
            pyro.sample("z", dist.Normal(x[i] / 2, 0.5**0.5))

    return model, guide


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("name", ["iwae", "iwae-stl", "renyi", "vimco", "wake-wake"])
def test_all_particles_see_one_subsample(name, vectorize):
    """The guide is exact, so every bound is log p of the subsample, scaled up."""
    x = torch.arange(200.0) / 50
    objective = make_objective(name, num_particles=5, vectorize_particles=vectorize)
    for _ in range(3):
        state = torch.get_rng_state()
        loss = objective.loss(*subsampling(), x)
        torch.set_rng_state(state)
        chosen = trace(subsampling()[1], (x,)).nodes["d"]["value"]
        assert loss == pytest.approx(float(-10 * exact(x[chosen]).sum()), rel=1e-4)


def test_what_has_nothing_for_each_row_refuses():
    x = torch.randn(50)
    vae = VAE(*subsampling(), example=x)
    for method in ("encode", "posterior", "reconstruct", "forward", "bound_terms"):
        with pytest.raises(ValueError, match=r"the plate 'd' draws 20 of 50 rows by itself"):
            getattr(vae, method)(x)
    with pytest.raises(ValueError, match="holds 20 rows for 50 rows"):
        vae.log_likelihood(x, 4)


def test_a_guide_of_points_trains():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(pyro.param("slope", torch.tensor(0.1)) * x))

    vae = VAE(model, guide)
    Trainer(epochs=150, lr=0.05, progress=False).fit(vae, torch.randn(30))
    assert vae.param_sites["slope"].item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradient_through_a_flow(gradient):
    """The derivative along the draws alone, with the flow inverted at constant parameters, by hand for one particle."""
    flow = transforms.affine_autoregressive(2, hidden_dims=[8])
    fixed = copy.deepcopy(flow)

    def guide(x):
        pyro.module("flow", flow)
        base = dist.Normal(x / 2, 0.7).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    x = torch.randn(3, 2)
    pyro.set_rng_seed(0)
    flow.zero_grad()
    IWAE(1, gradient=gradient).loss_and_grads(model_of_two, guide, x)
    found = [p.grad.clone() for p in flow.parameters() if p.grad is not None]
    pyro.set_rng_seed(0)
    flow.zero_grad()
    z = trace(guide, (x,)).nodes["z"]["value"]
    inner = z.detach().clone().requires_grad_()
    base = dist.Normal(x / 2, 0.7).to_event(1)
    log_q = dist.TransformedDistribution(base, [fixed]).log_prob(inner)
    log_p = dist.Normal(0.0, 1.0).log_prob(inner).sum(-1) + dist.Normal(inner, 1.0).log_prob(x).sum(-1)
    (slope,) = torch.autograd.grad((log_p - log_q).sum(), inner)
    z.backward(-slope)
    expected = [p.grad for p in flow.parameters() if p.grad is not None]
    for ours, exact_gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact_gradient, rtol=1e-4, atol=1e-5)
    assert sum(float(g.abs().sum()) for g in expected) > 1e-3


@pytest.mark.parametrize("name", ["iwae-stl", "iwae-dreg", "wake-wake"])
def test_flow_without_an_inverse_where_draws_are_scored_again(name):
    net = transforms.Planar(2)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(x / 2, 0.7).to_event(1), [net]))

    with pytest.raises(ValueError, match="site 'z' has a transform without an inverse"):
        make_objective(name, num_particles=2).loss_and_grads(model_of_two, guide, torch.randn(3, 2))
