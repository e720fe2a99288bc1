"""What must hold on a GPU as on the CPU; skipped where there is none."""

import pyro
import pytest
import torch
from pairs import library_pair, pictures
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from pyrovae import VAE, data
from pyrovae import distributions as dist
from pyrovae.estimators import VAEImputer
from pyrovae.infer import objective_names
from pyrovae.pairs import find_pair
from pyrovae.training import Callback, NonFiniteLossError, Trainer, captured, graphs, losses
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.graphs import CudaGraph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DEVICE = "cuda"
DISTRIBUTIONS = {
    "kumaraswamy": lambda p: dist.Kumaraswamy(p, p.flip(0)),
    "beta": lambda p: dist.Beta(p, p.flip(0)),
    "logit-normal": lambda p: dist.LogitNormal(p.log(), p),
    "gamma-composition": lambda p: dist.GammaComposition(p, p.flip(0)),
    "multivariate-kumaraswamy": dist.MultivariateKumaraswamy,
    "gem": lambda p: dist.GEM(p, 5),
    "sticks": lambda p: dist.StickBreaking(dist.Kumaraswamy(p, p.flip(0))),
    "natural-normal": lambda p: dist.NaturalNormal(torch.stack([p.log(), -p], -1)),
    "natural-gamma": lambda p: dist.NaturalGamma(torch.stack([p, -p.flip(0)], -1)),
    "natural-dirichlet": lambda p: dist.NaturalDirichlet(p),
    "natural-poisson": lambda p: dist.NaturalPoisson(p.log().unsqueeze(-1)),
    "relaxed-bernoulli": lambda p: dist.RelaxedBernoulliLogits(torch.tensor(0.5).to(p), p.log()),
    "discretized-logistic": lambda p: dist.DiscretizedLogistic(p, p),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name):
    parameter = torch.tensor([0.1, 0.7, 1.0, 3.0, 20.0])
    here, there = DISTRIBUTIONS[name](parameter), DISTRIBUTIONS[name](parameter.cuda())
    value = there.sample((1000,))
    assert value.is_cuda
    torch.testing.assert_close(there.log_prob(value).cpu(), here.log_prob(value.cpu()), rtol=1e-4, atol=1e-4)
    if there.has_rsample:
        leaf = parameter.cuda().requires_grad_()
        draws = DISTRIBUTIONS[name](leaf).rsample((1000,))
        (gradient,) = torch.autograd.grad(draws.sum(), leaf, allow_unused=True)
        assert gradient.isfinite().all()


def test_kl_of_sticks():
    parameter = torch.rand(512, 50).mul(5).add(0.05)
    leaf = parameter.cuda().requires_grad_()
    kl = [
        torch.distributions.kl_divergence(dist.Kumaraswamy(p, p.flip(0)), dist.Beta(torch.ones_like(p), 5.0))
        for p in (parameter, leaf)
    ]
    torch.testing.assert_close(kl[1].detach().cpu(), kl[0], rtol=1e-4, atol=1e-4)
    kl[1].sum().backward()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize(
    "objective",
    [
        Trace_ELBO,
        TraceMeanField_ELBO,
        TraceGraph_ELBO,
        lambda: RenyiELBO(num_particles=5, vectorize_particles=True),
    ],
)
@pytest.mark.parametrize("net", ["dense", "conv"])
def test_stock_svi(net, objective):
    vae = library_pair(net).cuda()
    x = pictures(16).cuda()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), objective())
    losses = [svi.step(x) for _ in range(25)]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    ("pair", "options", "unfit"),
    [
        ("gaussian", {"hidden": (16,)}, {"vimco", "nvil", "rws", "wake-wake", "wake-sleep", "enum"}),
        ("sbn", {"sizes": (8, 4)}, {"mean-field", "iwae-stl", "iwae-dreg", "iwae", "enum"}),
    ],
)
def test_trainer(pair, options, unfit):
    """Every objective that applies, and the log-likelihood is the same on both devices."""
    digits = data.load("digits", binarize="static")
    for objective in set(objective_names()) - unfit:
        vae = find_pair(pair).build(digits, **options).cuda()
        history = Trainer(epochs=1, objective=objective, num_particles=3, progress=False).fit(vae, digits)
        assert torch.isfinite(torch.tensor(history.rows[-1]["loss"])), objective
        assert {parameter.device.type for parameter in vae.parameters()} == {"cuda"}
    x = digits.test.x[:20]
    there = vae.log_likelihood(x.cuda(), num_samples=3000).cpu()
    torch.testing.assert_close(there, vae.cpu().log_likelihood(x, num_samples=3000), rtol=0.02, atol=0.5)


def test_resumed_training(tmp_path):
    """Stopped and resumed on the GPU: the weights of an uninterrupted training, bit for bit."""
    digits = data.load("digits", binarize="dynamic")

    def train(folder, epochs, resume=False):
        torch.manual_seed(0)
        vae = library_pair().cuda()
        Trainer(epochs=epochs, seed=1, progress=False).fit(vae, digits, run=RunFolder(folder), resume=resume)
        return vae

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    parts = train(tmp_path / "parts", 4, resume=True)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, parts.get_parameter(name)), name


@pytest.mark.filterwarnings("ignore:TensorFloat32", "ignore::DeprecationWarning")  # of inductor
def test_latents_of_all_data_and_compiled_steps():
    """Objectives of several particles with a latent of all data; compiled and eager steps have the same loss."""

    def model(x):
        mu = pyro.sample("mu", pyro.distributions.Normal(x.new_zeros(()), 2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(mu, 1.0))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

    def guide(x):
        m = pyro.param("m", x.new_tensor(0.5))
        mu = pyro.sample("mu", pyro.distributions.Normal(m, 0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal((x + mu) / 2, 0.8))

    x = torch.randn(40).cuda()
    for objective in ("iwae", "vimco"):
        history = Trainer(objective, num_particles=5, epochs=5, batch_size=10, lr=0.01, progress=False).fit(
            VAE(model, guide), x
        )
        assert torch.isfinite(torch.tensor(history.rows[-1]["loss"])), objective
    digits, losses = data.load("digits", binarize="static"), []
    for compiled in (False, True):
        torch.manual_seed(0)
        vae = library_pair().cuda()
        history = Trainer("iwae", num_particles=3, epochs=2, compile=compiled, progress=False).fit(vae, digits)
        losses.append(history.rows[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


class Spoils(Callback):
    """Makes a parameter NaN after the third batch."""

    def on_batch(self, progress):
        if progress.batch == 3:
            with torch.no_grad():
                next(progress.vae.model.parameters()).fill_(torch.nan)


@pytest.mark.filterwarnings("ignore:TensorFloat32", "ignore::DeprecationWarning")  # of inductor
@pytest.mark.parametrize("compiled", [False, True])
def test_losses_that_wait(monkeypatch, compiled):
    """The same training whether each loss is read at once or many together, and a bad one is found all the same."""
    digits, found, messages = data.load("digits", binarize="static"), [], []
    options = {"epochs": 2, "compile": compiled, "progress": False, "num_particles": 3}
    for at_once in (1, 64):
        monkeypatch.setitem(losses.AT_ONCE, DEVICE, at_once)
        torch.manual_seed(0)
        vae = find_pair("gaussian").build(digits, latent_dim=5, hidden=(20,)).to(DEVICE)
        found.append([row["loss"] for row in Trainer("iwae", **options).fit(vae, digits).rows])
        with pytest.raises(NonFiniteLossError, match="the loss is nan in epoch 1, batch 4, from parameter") as error:
            Trainer("iwae", callbacks=[Spoils()], **options).fit(vae, digits)
        assert all(parameter.isfinite().all() for parameter in vae.parameters())
        messages.append(str(error.value))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert messages[0] == messages[1]


class Counted(CudaGraph):
    """Counts replays."""

    replays = 0

    def replay(self):
        Counted.replays += 1
        super().replay()


@pytest.mark.filterwarnings("ignore:TensorFloat32", "ignore::DeprecationWarning")  # of inductor
@pytest.mark.parametrize(
    ("pair", "options"),
    [
        ("gaussian", {}),
        ("gaussian", {"kl_weight": "warm-up:2", "gradient_clip": 1.0, "optimizer": "adamw"}),
        ("gaussian", {"objective": "iwae", "num_particles": 3, "lr_schedule": "cosine"}),
        ("stick-breaking", {"objective": "mean-field"}),
        ("sbn", {"objective": "nvil"}),
    ],
)
def test_captured_steps(monkeypatch, tmp_path, caplog, pair, options):
    """A step replayed as one graph gives the numbers of its kernels bit for bit, also when it is resumed."""
    digits = data.load("digits", binarize="dynamic")
    monkeypatch.setattr(captured, "WORTH", 1)
    caplog.set_level("INFO")

    def train(graph, folder, epochs=3, resume=False):
        monkeypatch.setitem(graphs.GRAPHS, DEVICE, graph) if graph else monkeypatch.delitem(graphs.GRAPHS, DEVICE)
        torch.manual_seed(0)
        vae = find_pair(pair).build(digits).to(DEVICE)
        settings = {"batch_size": 64, "compile": True, "progress": False, **options}
        history = Trainer(epochs=epochs, **settings).fit(vae, digits, run=RunFolder(tmp_path / folder), resume=resume)
        return [row["loss"] for row in history.rows], list(vae.state_dict().values())

    whole = train(Counted, "captured")
    assert "not captured" not in caplog.text
    assert Counted.replays > 20
    if "lr_schedule" not in options:
        train(Counted, "parts", epochs=1)
        parts = train(Counted, "parts", resume=True)
        assert parts[0] == whole[0]
        assert all(map(torch.equal, parts[1], whole[1]))
    plain = train(None, "plain")
    assert plain[0] == whole[0]
    assert all(map(torch.equal, plain[1], whole[1]))


def test_a_capture_that_fails_leaves_the_device_usable():
    """Draws after it go on from where they were."""
    torch.cuda.manual_seed(0)
    expected = [torch.randn(3, device=DEVICE), torch.randn(3, device=DEVICE)]
    torch.cuda.manual_seed(0)
    graph, found = CudaGraph(torch.device(DEVICE)), [torch.randn(3, device=DEVICE)]

    def reads():
        return torch.tensor(torch.randn(3, device=DEVICE).sum().item())

    with pytest.raises(RuntimeError):
        graph.record(reads)
    found.append(torch.randn(3, device=DEVICE))
    assert all(map(torch.equal, found, expected))


def test_imputer():
    table = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).numpy()
    table[::3, 1] = float("nan")
    imputer = VAEImputer(device="cuda", epochs=5, hidden=(16,), trees=False, random_state=0).fit(table)
    assert imputer.model_.vae.device.type == "cuda"
    filled = imputer.transform(table)
    assert (filled == filled).all()
    assert len(imputer.impute_draws(table, 3)) == 3
