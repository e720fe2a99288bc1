"""Consistency of q(y|x): the worst step, distances of neighbours, the term in the objective, what it is good for."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from semi_supervised_pairs import LABELS, ROWS
from torch import nn

from pyrovae import VAE, data
from pyrovae.data import Dataset, Rows
from pyrovae.estimators import VAEClassifier
from pyrovae.infer.compile import CompiledLoss
from pyrovae.infer.objectives import make_objective
from pyrovae.nn.consistency import adversarial_divergence, neighbour_distance
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.storage import module_tensors
from pyrovae.training import Callback, NonFiniteLossError, Trainer, TrainingInterrupted

TINY = {"hidden": (8,), "latent_dim": 2}


@pytest.fixture
def rows():
    return Rows(torch.randn(ROWS, 5), LABELS)


def make(rows, **options):
    torch.manual_seed(0)
    dataset = Dataset("rows", rows, rows, rows, "real")
    return find_pair("semi-supervised").build(dataset, **TINY, **options)


@pytest.mark.parametrize("radius", [0.0, 0.3, 2.0])
def test_worst_step_of_a_linear_classifier(radius):
    """With two classes q changes along one direction only, so the step is known but for its sign."""
    net = nn.Linear(6, 2).double()
    x = torch.randn(40, 2, 3).double()
    direction = (net.weight[1] - net.weight[0]).detach()
    odds = (x.flatten(1) @ direction + net.bias[1] - net.bias[0]).detach()
    found = adversarial_divergence(lambda x: net(x.flatten(1)), x, net(x.flatten(1)), radius)
    p, known = odds.sigmoid(), []
    for sign in (-1, 1):
        other = (odds + sign * radius * direction.norm()).sigmoid()
        known.append(p * (p / other).log() + (1 - p) * ((1 - p) / (1 - other)).log())
    nearest = torch.stack([(found - value).abs() for value in known]).amin(0)
    assert float(nearest.detach().max()) < 1e-9


def test_step_is_worse_than_random_ones_and_teaches_the_net():
    net = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4)).double()
    x = 2 * torch.randn(200, 20).double()
    logits = net(x)
    found = adversarial_divergence(net, x, logits, 0.5)
    log_p = logits.log_softmax(-1)
    steps = nn.functional.normalize(torch.randn(200, 20).double(), dim=1)
    by_chance = (log_p.exp() * (log_p - net(x + 0.5 * steps).log_softmax(-1))).sum(-1)
    assert float(found.detach().mean()) > 3 * float(by_chance.detach().mean())
    (at_data,) = torch.autograd.grad(found.sum(), logits, retain_graph=True, allow_unused=True) or (None,)
    assert at_data is None, "the answer at the data is fixed"
    found.sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in net.parameters())


def test_distance_of_neighbours():
    x = torch.randn(300, 2, 2)
    expected = torch.cdist(x.flatten(1), x.flatten(1)).sort(1).values[:, 5].median()
    assert neighbour_distance(x) == pytest.approx(float(expected), rel=0.02)
    assert neighbour_distance(torch.cat([x, torch.zeros(900, 2, 2)])) > 0.1, "copies have no distance"
    assert neighbour_distance(torch.ones(10, 3)) == 0.0
    assert neighbour_distance(torch.ones(1, 3)) == 0.0
    assert neighbour_distance(torch.tensor([[0.0], [3.0]])) == 3.0


def test_term_of_every_row_in_training_alone(rows):
    vae = make(rows, consistency_weight=2.0)
    assert float(vae.guide.radius) == pytest.approx(0.5 * neighbour_distance(rows.x))
    for y in (rows.y, None):
        torch.manual_seed(1)
        site = poutine.trace(vae.guide.train()).get_trace(rows.x, y=y).nodes["consistency"]
        torch.manual_seed(1)
        logits = vae.guide.classifier(rows.x)
        expected = 2.0 * adversarial_divergence(vae.guide.classifier, rows.x, logits, vae.guide.radius)
        assert torch.allclose(site["fn"].log_prob(site["value"]), expected)
    assert "consistency" not in poutine.trace(vae.guide.eval()).get_trace(rows.x, y=rows.y).nodes
    assert "consistency" not in poutine.trace(make(rows).guide.train()).get_trace(rows.x, y=rows.y).nodes


def test_loss_has_the_term(rows):
    """A guide without consistency and the same weights: the losses differ by the divergence."""
    vae, plain = make(rows, consistency_weight=3.0), make(rows)
    losses = []
    for pair in (vae, plain):
        pair.train()
        objective = make_objective("enum")
        values = []
        for seed in range(60):
            pyro.set_rng_seed(seed)
            with torch.no_grad():
                values.append(objective.loss(pair.model, pair.guide, rows.x, y=rows.y))
        losses.append(np.array(values))
    classifier = vae.guide.classifier
    divergences = [adversarial_divergence(classifier, rows.x, classifier(rows.x), vae.guide.radius) for _ in range(50)]
    expected = 3.0 * float(torch.stack(divergences).detach().sum(1).mean())
    error = math.hypot(*(values.std() / len(values) ** 0.5 for values in losses))
    assert losses[0].mean() - losses[1].mean() == pytest.approx(expected, abs=4 * error)


def test_missing_entries(rows):
    mask = torch.rand(rows.x.shape) > 0.3
    dataset = Rows(rows.x.masked_fill(~mask, math.nan), rows.y, mask)
    vae = make(dataset, consistency_weight=1.0).train()
    make_objective("enum").loss_and_grads(vae.model, vae.guide, dataset.x, y=dataset.y, mask=mask)
    assert all(bool(p.grad.isfinite().all()) for p in vae.parameters() if p.grad is not None)
    assert math.isfinite(float(vae.guide.radius))


def test_compiled_step_is_the_same(rows):
    vae = make(rows, consistency_weight=1.0).prepare(rows.x, y=rows.y).train()
    objective = make_objective("enum")
    objective.loss_and_grads(vae.model, vae.guide, rows.x, y=rows.y)  # the first call looks at the programs, too
    vae.zero_grad()
    torch.manual_seed(3)
    loss = objective.loss_and_grads(vae.model, vae.guide, rows.x, y=rows.y)
    gradients = [p.grad.clone() for p in vae.parameters()]
    torch.manual_seed(3)
    compiled = CompiledLoss(vae, make_objective("enum"), backend="eager")(rows.x, y=rows.y)
    assert float(compiled) == pytest.approx(loss, rel=1e-5)
    for parameter, gradient in zip(vae.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_radius_is_saved(rows, tmp_path):
    vae = make(rows, consistency_weight=1.0, consistency_radius=0.7)
    vae.save(tmp_path / "saved")
    again = VAE.load(tmp_path / "saved")
    assert float(again.guide.radius) == float(vae.guide.radius) > 0
    fresh = find_pair("semi-supervised").build(vae.made_by.spec, **TINY, consistency_weight=1.0)
    with pytest.warns(UserWarning, match="NaN"), pytest.raises(NonFiniteLossError, match="consistency"):
        Trainer(objective="enum", epochs=1, progress=False).fit(fresh, rows)


def test_resumed_training_is_the_same(tmp_path):
    class Stop(Callback):
        def on_batch(self, progress):
            if progress.epoch == 1:
                raise KeyboardInterrupt

    options = {**TINY, "consistency_weight": 1.0}
    told = {"name": "digits", "labels": 0.2}, {"epochs": 3, "batch_size": 400, "checkpoint_seconds": 0.0}
    whole, part = (Run.create(tmp_path / name, "semi-supervised", options, *told) for name in ("whole", "part"))
    whole.train(progress=False)
    with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
        part.train(progress=False, callbacks=[Stop()])
    Run.open(tmp_path / "part").train(resume=True, progress=False)
    first, second = (module_tensors(Run.open(tmp_path / name).load_vae()) for name in ("whole", "part"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(name.endswith("guide.radius") for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency_weight": -1.0}, "consistency_weight must be finite and not negative, got -1"),
        ({"consistency_weight": math.nan}, "consistency_weight must be finite and not negative, got nan"),
        ({"consistency_weight": 1.0, "consistency_radius": -0.1}, "consistency_radius must be finite and not negative"),
        ({"consistency_radius": 0.7}, "consistency_radius is for the consistency of q"),
    ],
)
def test_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        make(rows, **options)


def test_new_rows_keep_their_class_within_the_radius():
    """Digits with few labels: a classifier trained with consistency changes far less around rows it has not seen."""
    whole = data.load("digits").train
    x, y = whole.x.flatten(1).numpy()[:400], whole.y.numpy()[:400]
    few, changes = np.where(np.arange(300) < 50, y[:300], -1), {}
    for weight in (0.0, 5.0):
        classifier = VAEClassifier(epochs=20, num_nets=1, consistency_weight=weight, random_state=0).fit(x[:300], few)
        net, new = classifier.vae_.guide.classifier, torch.as_tensor(classifier._scaler.transform(x[300:])).double()
        radius = 0.5 * neighbour_distance(torch.as_tensor(classifier._scaler.transform(x[:300])))
        changes[weight] = float(adversarial_divergence(net, new, net(new), radius).detach().mean())
        assert classifier.score(x[300:], y[300:]) > 0.7
    assert changes[5.0] < 0.5 * changes[0.0]


def test_columns_that_are_nearly_always_the_same():
    """They are divided by a quarter of their range, so that a rare value is not far from all others."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 2))
    x[:, 1] = 0.0
    x[0, 1] = 8.0
    classifier = VAEClassifier(epochs=1, hidden=(4,), n_components=2, num_nets=1).fit(x, np.arange(500) % 2)
    scaled = classifier._scaler.transform(x)
    assert np.ptp(scaled[:, 1]) == pytest.approx(4)
    assert scaled[:, 0].std() == pytest.approx(min(1.0, 4 * x[:, 0].std() / np.ptp(x[:, 0])))
    assert np.allclose(scaled.mean(0), 0)


def test_on_pictures():
    """Pictures keep their shape in the steps."""
    digits = data.load("digits", labels=0.2)
    vae = find_pair("semi-supervised").build(
        digits, **{**TINY, "hidden": (8,)}, net="conv", channels=(2, 3), consistency_weight=1.0
    )
    history = Trainer(objective="enum", epochs=1, batch_size=400, progress=False).fit(vae, digits)
    assert math.isfinite(history.rows[0]["loss"])
