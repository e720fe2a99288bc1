"""Bounds of semi-supervised pairs: exact sums over unknown classes, mixed batches, the classification term."""

import pyro
import pytest
import torch
from pairs import pictures
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from semi_supervised_pairs import CLASSES, LABELS, ROWS, make_pair
from torch import nn

from pyrovae import metrics
from pyrovae.infer import log_weights
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objectives import make_objective


def bounds_by_class(vae, x):
    """log p(y) + log p(z) + log p(x|y,z) - log q(z|x,y) of every class and row, `[C, B]`, without Pyro."""
    model, guide = vae.model, vae.guide
    rows = []
    for label in range(CLASSES):
        y = torch.full((len(x),), label)
        q = guide.head(guide.encoder(x, y)).base_dist
        z = q.loc + q.scale * guide.head.noise
        one_hot = torch.eye(CLASSES)[y]
        logits = model.decoder(torch.cat([z, one_hot], 1)).flatten(1)
        pixels = -nn.functional.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        log_q = torch.distributions.Normal(q.loc, q.scale).log_prob(z).sum(1)
        rows.append(pixels + log_normal - log_q + model.class_logits.log_softmax(0)[label])
    return torch.stack(rows)


def expected_bound(vae, x, y, weight=0.0, beta_terms=None):
    """The objective of every row: the labelled one where the label is known, else the sum over the classes."""
    by_class = bounds_by_class(vae, x)
    log_q = vae.guide.classifier(x).log_softmax(-1).T
    unlabelled = (log_q.exp() * (by_class - log_q)).sum(0)
    rows = torch.arange(len(x))
    labelled = by_class[y.clamp(min=0), rows] + weight * log_q[y.clamp(min=0), rows]
    return torch.where(y >= 0, labelled, unlabelled)


def gradients(vae, loss):
    parameters = dict(vae.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(parameters.items(), found, strict=True)
    }


@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.clamp(min=0), torch.full((ROWS,), -1)], ids=["mixed", "labelled", "unlabelled"]
)
def test_enumeration_is_the_explicit_sum(x, labels, weight):
    """Value and every gradient, of labelled and unlabelled rows in one batch, in stock Pyro."""
    vae = make_pair(fixed=True, weight=weight, learn_class_prior=True)
    expected = -expected_bound(vae, x, labels, weight).sum()
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x, y=labels)
    assert torch.allclose(loss, expected, rtol=1e-5)
    found, truth = gradients(vae, loss), gradients(vae, expected)
    for name, gradient in truth.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-4), name


def test_no_labels_at_all_are_unknown_labels(x):
    vae = make_pair(fixed=True)
    unknown = torch.full((ROWS,), -1)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    assert elbo.loss(vae.model, vae.guide, x) == pytest.approx(elbo.loss(vae.model, vae.guide, x, y=unknown), rel=1e-6)


def test_mixed_batch_is_the_sum_of_its_parts(x):
    """Parts of other sizes have other noise, so the noise is none here."""
    vae = make_pair(fixed=True)
    vae.guide.head.noise = torch.zeros(1, 2)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    known = LABELS >= 0
    whole = elbo.loss(vae.model, vae.guide, x, y=LABELS)
    labelled = elbo.loss(vae.model, vae.guide, x[known], y=LABELS[known])
    unlabelled = elbo.loss(vae.model, vae.guide, x[~known])
    assert whole == pytest.approx(labelled + unlabelled, rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_kl_weight(x, beta):
    """It weighs the latents, y among them, and leaves the weight of the classes and the classification term alone."""
    vae = make_pair(fixed=True, weight=2.0)
    with KLWeightMessenger(beta):
        weighted = TraceEnum_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x, y=LABELS)
    q = vae.guide.classifier(x).softmax(-1).T
    bounds = bounds_by_class(vae, x)
    pixels = torch.stack(
        [vae.decode({"y": torch.full((ROWS,), c), "z": _latents(vae, x, c)}).log_prob(x) for c in range(CLASSES)]
    )
    kl = bounds - pixels  # log p(y) + log p(z) - log q(z|x,y)
    rows, chosen = torch.arange(ROWS), LABELS.clamp(min=0)
    unlabelled = (q * (pixels + beta * (kl - q.log()))).sum(0)
    labelled = pixels[chosen, rows] + beta * kl[chosen, rows] + 2.0 * q.log()[chosen, rows]
    assert weighted == pytest.approx(-torch.where(LABELS >= 0, labelled, unlabelled).sum().item(), rel=1e-5)


def _latents(vae, x, label):
    q = vae.guide.head(vae.guide.encoder(x, torch.full((len(x),), label))).base_dist
    return q.loc + q.scale * vae.guide.head.noise


@pytest.mark.filterwarnings("ignore:y\nIf you want to enumerate sites")
@pytest.mark.parametrize("latent", ["gaussian", "stick-breaking"])
@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO],
)
def test_trains_in_stock_pyro(objective, latent):
    x, y = pictures(24, (1, 8, 8)), torch.arange(24) % 2
    y[8:] = -1
    vae = make_pair(latent, shape=(1, 8, 8), weight=1.0)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), objective())
    losses = [svi.step(x, y=y) for _ in range(25)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert [name for name, p in vae.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("net", ["dense", "conv"])
@pytest.mark.parametrize("objective", ["enum", "iwae", "vimco", "nvil", "rws", "wake-wake", "wake-sleep", "renyi"])
def test_objectives_teach_the_classifier(objective, net):
    """The sign of the classification term is right under every objective: labels become more probable."""
    x, y = pictures(16, (1, 8, 8)), torch.arange(16) % 2
    vae = make_pair(net=net, shape=(1, 8, 8), weight=50.0)
    before = metrics.class_probabilities(vae, x).gather(1, y[:, None]).log().mean()
    elbo = make_objective(objective, num_particles=1 if objective in ("enum", "nvil") else 3)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    vae.train()
    for _ in range(15):
        elbo.loss_and_grads(vae.model, vae.guide, x, y=y)
        optimizer.step()
        optimizer.zero_grad()
    assert metrics.class_probabilities(vae, x).gather(1, y[:, None]).log().mean() > before + 0.1


class TestClassificationTerm:
    def test_only_in_training(self, x):
        vae, plain = make_pair(fixed=True, weight=3.0), make_pair(fixed=True)
        elbo = TraceEnum_ELBO(max_plate_nesting=1)
        log_q = vae.guide.classifier(x).log_softmax(-1)
        known = LABELS >= 0
        term = 3.0 * log_q[known, LABELS[known]].sum().item()
        plain.guide.head.noise = vae.guide.head.noise
        without = elbo.loss(plain.model, plain.guide, x, y=LABELS)
        assert elbo.loss(vae.model, vae.guide, x, y=LABELS) == pytest.approx(without - term, rel=1e-5)
        vae.eval()
        assert elbo.loss(vae.model, vae.guide, x, y=LABELS) == pytest.approx(without, rel=1e-6)

    def test_log_weights_leave_it_out(self, x):
        """Also in training mode; the log weights of an objective have it."""
        vae, plain = make_pair(fixed=True, weight=3.0), make_pair(fixed=True)
        plain.guide.head.noise = vae.guide.head.noise
        y = LABELS.clamp(min=0)
        found = log_weights(vae.model, vae.guide, 1, x, y=y).log_weight
        assert torch.allclose(found, log_weights(plain.model, plain.guide, 1, x, y=y).log_weight)
        weighted = log_weights(vae.model, vae.guide, 1, x, y=y, weighted=True)
        term = 3.0 * vae.guide.classifier(x).log_softmax(-1)[torch.arange(ROWS), y]
        assert torch.allclose(weighted.log_weight, found + term, rtol=1e-4, atol=1e-4)
        assert torch.allclose(vae.log_likelihood(x, 1, y=y), found[0])

    def test_is_no_latent(self, x):
        vae = make_pair(weight=3.0)
        vae.train()
        assert set(vae.posterior(x, y=LABELS)) == {"y", "z"}
        assert vae.sites.latent == ("y", "z")
