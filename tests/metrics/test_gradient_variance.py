"""The noise of gradients, on a pair whose gradients have a known distribution."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, data_for, function_pair, pictures
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from pyrovae import VAE, metrics, plotting
from pyrovae.infer import IWAE, NVIL, ReweightedWakeSleep

SPREAD = 0.5


def toy_pair() -> VAE:
    """z ~ N(m, 1), x ~ N(z, 1), q = N(l, SPREAD^2), with m = 0.3 and l = -0.2."""

    def model(x):
        mean = pyro.param("mean", torch.tensor(0.3, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        level = pyro.param("level", torch.tensor(-0.2, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(level, SPREAD))

    return VAE(model, guide)


X = torch.tensor([0.5, 1.5, -1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("objective", [Trace_ELBO(), IWAE(1)], ids=["Trace_ELBO", "IWAE"])
def test_mean_and_variance_by_hand(objective):
    """By m the loss of a row has the derivative m - z, by l it is (z - m) + (z - x), with z = l + SPREAD e."""
    frame = metrics.gradient_variance(toy_pair(), {"objective": objective}, X, num_draws=2000).set_index("program")
    model, guide = abs(4 * (0.3 + 0.2)), abs(4 * (-0.2 - 0.3) + float((-0.2 - X).sum()))
    assert frame.index.tolist() == ["model", "guide"]
    assert frame["mean_norm"].tolist() == pytest.approx([model, guide], abs=0.15)
    variances = [4 * SPREAD**2, 4 * (2 * SPREAD) ** 2]
    assert frame["total_variance"].tolist() == pytest.approx(variances, rel=0.1)
    ratios = [model / variances[0] ** 0.5, guide / variances[1] ** 0.5]
    assert frame["signal_to_noise"].tolist() == pytest.approx(ratios, rel=0.1)


def test_gradient_without_noise():
    """The analytic KL leaves no noise in the model's only parameter, the mean of its prior."""
    frame = metrics.gradient_variance(toy_pair(), {"mean-field": TraceMeanField_ELBO()}, X).set_index("program")
    assert frame["total_variance"]["model"] == pytest.approx(0.0, abs=1e-20)
    assert frame["signal_to_noise"]["model"] > 1e6
    assert frame["total_variance"]["guide"] == pytest.approx(4 * SPREAD**2, rel=0.4)


@pytest.mark.parametrize("kind", [kind for kind in PAIRS if kind != "functions"])
def test_leaves_everything_as_it_was(kind, store, caller_rng):
    with torch.random.fork_rng():
        vae, x = PAIRS[kind](), data_for(kind, 5)
        vae.prepare(x)
        for parameter in vae.parameters():
            parameter.grad = torch.randn_like(parameter)
    before = [(p.clone(), p.grad, p.grad.clone()) for p in vae.parameters()]
    objectives = {"elbo": Trace_ELBO(), "rws": ReweightedWakeSleep(2, wake_phi=1.0, sleep_phi=0.0), "nvil": NVIL(2)}
    frame = metrics.gradient_variance(vae, objectives, x, num_draws=3, num_warmup=1)
    assert list(zip(frame["objective"], frame["program"], strict=True)) == [
        (objective, program) for objective in objectives for program in ("model", "guide")
    ]
    assert (frame[["mean_norm", "total_variance"]] > 0).all(axis=None)
    for parameter, (value, gradient, entries) in zip(vae.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is gradient
        assert torch.equal(gradient, entries)


def test_baselines_settle_and_keep_no_gradients():
    """Its running mean is learned before the draws that count, which lowers the variance of a discrete guide."""

    def model(x):
        offset = pyro.param("offset", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z + offset, 0.2), obs=x)

    def guide(x):
        level = pyro.param("level", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=level.expand(len(x))))

    learned = NVIL(1, baseline="input", normalize=False)
    objectives = {"none": NVIL(1, baseline="none"), "input": learned}
    x = torch.tensor([3.0, 4.0])
    frame = metrics.gradient_variance(VAE(model, guide), objectives, x, num_draws=200, num_warmup=50)
    variance = frame[frame["program"] == "guide"].set_index("objective")["total_variance"]
    assert variance["input"] < 0.5 * variance["none"]
    assert all(parameter.grad is None for parameter in learned.module.parameters())


def test_same_draws_for_every_objective():
    frame = metrics.gradient_variance(toy_pair(), {"first": IWAE(3), "second": IWAE(3)}, X, num_draws=5)
    assert frame["mean_norm"][:2].tolist() == frame["mean_norm"][2:].tolist()


def test_bad_arguments():
    with pytest.raises(ValueError, match="no objectives to compare"):
        metrics.gradient_variance(toy_pair(), {}, X)
    with pytest.raises(ValueError, match="num_draws of at least 2, got 1"):
        metrics.gradient_variance(toy_pair(), {"iwae": IWAE(2)}, X, num_draws=1)
    with pytest.raises(ValueError, match="has no parameters"):
        metrics.gradient_variance(function_pair(), {"iwae": IWAE(2)}, pictures(3))


def test_figure_shows_a_bar_for_each_objective_and_program():
    objectives = {"few": IWAE(1), "many": IWAE(20), "elbo": Trace_ELBO()}
    frame = metrics.gradient_variance(toy_pair(), objectives, X, num_draws=20)
    axes = plotting.gradient_variance(frame).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(objectives)
    bars = sorted((round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches)
    expected = sorted((list(objectives).index(n), v) for n, v in frame[["objective", "signal_to_noise"]].to_numpy())
    assert [width for _, width in bars] == pytest.approx([width for _, width in expected])


def test_figure_says_where_a_bar_is_missing():
    frame = metrics.gradient_variance(toy_pair(), {"elbo": Trace_ELBO()}, X, num_draws=5)
    frame.loc[0, "signal_to_noise"] = float("inf")
    axes = plotting.gradient_variance(frame).axes[0]
    assert " no bar: inf" in [text.get_text() for text in axes.texts]
    with pytest.raises(ValueError, match="no finite, positive signal-to-noise ratio"):
        plotting.gradient_variance(frame[:1])
