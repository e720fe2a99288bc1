"""Methods of semi-supervised pairs: classes, sticks, validation, and latents that are no class."""

import itertools
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from semi_supervised_pairs import CLASSES, LABELS, ROWS, SHAPE, make_pair
from torch import nn

from pyrovae import VAE, metrics
from pyrovae.data import Dataset, Rows
from pyrovae.distributions.labels import KnownLabels, labelled_logits
from pyrovae.guides import Classifier, SemiSupervisedGuide
from pyrovae.guides.semi_supervised import moved
from pyrovae.infer.objectives import make_objective
from pyrovae.models import SemiSupervisedVAE
from pyrovae.nn import DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.priors import StandardNormal
from pyrovae.training import Trainer


class TestMethods:
    @pytest.mark.parametrize("latent", ["gaussian", "stick-breaking"])
    def test_shapes(self, x, latent):
        vae = make_pair(latent)
        assert vae.sample(5).shape == (5, *SHAPE)
        assert vae.sample(3, "mean", y=torch.tensor([2, 2, -1])).shape == (3, *SHAPE)
        posterior = vae.encode(x, y=LABELS)
        assert posterior["y"].batch_shape == (ROWS,)
        draws = {name: q.sample() for name, q in posterior.items()}
        assert vae.decode(draws).mean.shape == (ROWS, *SHAPE)
        assert vae.reconstruct(x, y=LABELS).shape == (ROWS, *SHAPE)
        out = vae(x, y=LABELS)
        assert out.nll.shape == out.kl.shape == (ROWS,)
        assert bool((out.kl > 0).all())

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (torch.tensor([9, 0]), "y holds the label 9, and the classes are 0 to"),
            (torch.tensor([-5, 0]), "y holds the label -5"),
            (torch.tensor([1.6, 0.0]), "y must hold whole numbers"),
            (torch.tensor([1, 0, 1]), "y must hold a label for each of the 2 rows"),
        ],
    )
    def test_labels_that_are_no_classes_are_not_sampled(self, y, message):
        with pytest.raises(ValueError, match=message):
            make_pair().sample(2, y=y)

    def test_sites_are_known_without_data(self):
        assert make_pair().sites.latent == ("y", "z")

    def test_drawn_labels_are_kept(self):
        vae, y = make_pair(), torch.tensor([2, 0, -1, 1])
        trace = poutine.trace(vae.model).get_trace(size=4, y=y)
        drawn = trace.nodes["y"]["value"]
        assert torch.equal(drawn[y >= 0], y[y >= 0])

    def test_known_labels_are_in_the_posterior(self, x):
        probs = make_pair().posterior(x, y=LABELS)["y"].probs
        known = LABELS >= 0
        assert torch.equal(probs[known], torch.eye(CLASSES)[LABELS[known]])
        assert bool((probs[~known] > 0).all())

    def test_log_likelihood(self, x):
        """Of unlabelled rows it is the log of the sum over the classes of what it is for a label."""
        vae = make_pair(learn_class_prior=True).eval()
        joint = torch.stack([vae.log_likelihood(x, 4000, y=torch.full((ROWS,), c)) for c in range(CLASSES)])
        assert torch.allclose(vae.log_likelihood(x, 20_000), joint.logsumexp(0), atol=0.1)

    def test_missing_entries(self, x):
        vae, mask = make_pair(), torch.rand(ROWS, *SHAPE) > 0.3
        hidden = torch.where(mask, x, torch.nan)
        assert vae.log_likelihood(hidden, 3, mask=mask, y=LABELS).isfinite().all()
        loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
            vae.model, vae.guide, hidden, mask=mask, y=LABELS
        )
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())

    def test_label_that_is_no_class(self, x):
        with pytest.raises(ValueError, match="y holds the label 3, and the classes are 0 to 2"):
            make_pair().posterior(x, y=torch.full((ROWS,), 3))
        with pytest.raises(ValueError, match="y holds the label -2, and the classes are 0 to 2; -1 means unknown"):
            make_pair().posterior(x, y=torch.full((ROWS,), -2))
        with pytest.raises(ValueError, match=r"y must hold whole numbers, got torch.float32"):
            make_pair().posterior(x, y=torch.ones(ROWS))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_labelled_logits(self, dtype):
        logits = torch.randn(4, 3, dtype=dtype)
        found = labelled_logits(logits, torch.tensor([0, -1, 2, 1]))
        assert found.dtype == dtype
        assert torch.equal(found.softmax(-1)[0], torch.tensor([1.0, 0.0, 0.0], dtype=dtype))
        assert torch.equal(found[1], logits[1])
        assert found.log_softmax(-1).isfinite().all()

    def test_known_labels_in_plates(self):
        labels = KnownLabels(torch.tensor([2, 0]), 3)
        wide = labels.expand((5, 2))
        assert torch.equal(wide.sample(), torch.tensor([2, 0]).expand(5, 2))
        assert wide.enumerate_support().shape == (1, 5, 2)
        assert torch.equal(wide.log_prob(wide.sample()), torch.zeros(5, 2))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: SemiSupervisedVAE(1, StandardNormal(2), None, None), "at least 2 classes, got 1"),
            (lambda: SemiSupervisedGuide(None, None, None, classification_weight=-1.0), "must not be negative, got -1"),
            (lambda: Classifier(DenseEncoder(SHAPE, (3,)), 3, noise=-1), "noise and shift must not be negative"),
            (lambda: moved(torch.zeros(3, 4), 1), r"only pictures \[B, C, H, W\] can be moved"),
        ],
    )
    def test_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


def test_moved():
    """Every picture is one of the 9 pictures that a move by one pixel gives, and all of them occur."""
    picture = torch.arange(1.0, 17).reshape(1, 4, 4)
    padded = nn.functional.pad(picture, (1, 1, 1, 1))
    possible = {
        tuple(padded[:, i : i + 4, j : j + 4].flatten().tolist()) for i, j in itertools.product(range(3), repeat=2)
    }
    found = {tuple(row.flatten().tolist()) for row in moved(picture.expand(200, 1, 4, 4), 1)[0]}
    assert found == possible


def test_noise_and_moves_are_for_training_only():
    classifier = Classifier(DenseEncoder(SHAPE, (8,)), 3, noise=0.5, shift=1, dropout=0.5)
    x = torch.rand(5, *SHAPE)
    assert not torch.equal(classifier(x), classifier(x))
    classifier.eval()
    assert torch.equal(classifier(x), classifier(x))


class TestSticks:
    def test_sticks_used(self):
        weights = torch.tensor([[0.5, 0.495, 0.005, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
        assert metrics.sticks_used(weights).tolist() == [2, 4, 1]

    def test_stick_weights_are_the_posterior_mean(self):
        vae = make_pair("stick-breaking").eval()
        x = torch.rand(3, *SHAPE).bernoulli()
        y = torch.tensor([0, 1, 2])
        found = metrics.stick_weights(vae, x, y=y)
        q = vae.posterior(x, y=y)["z"]
        drawn = vae.model.prior.features(q.sample((20_000,))).mean(0)
        assert torch.allclose(found, drawn, atol=0.02)
        assert torch.allclose(found.sum(-1), torch.ones(3))


class TestValidation:
    """Validation rows of a pair that infers the class have their labels hidden but for the classification error."""

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, digits):
        torch.manual_seed(0)
        vae = find_pair("semi-supervised").build(digits, hidden=(16,), latent_dim=2, classification_weight=1.0)
        trainer = Trainer(objective="enum", epochs=4, lr=1e-2, monitor="validation_error", progress=False)
        return vae, trainer.fit(vae, digits)

    def test_error(self, digits, trained):
        vae, history = trained
        errors = history.frame()["validation_error"]
        assert errors.min() < 0.9 * errors.iloc[0]
        assert history.best_epoch == errors.idxmin()
        assert metrics.classification_error(vae, digits.validation) == errors.min()

    def test_loss(self, digits, trained):
        """The loss does not depend on the labels, and an objective of the trained pair agrees with it."""
        vae, _ = trained
        x = digits.validation.x
        hidden = digits.validation.replace(y=None)
        trainer = Trainer(objective="enum", epochs=1, lr=1e-9, progress=False)
        losses = []
        for validation in (digits.validation, hidden):
            rows = trainer.fit(vae, replace(digits, validation=validation)).rows
            losses.append(rows[0]["validation_loss"])
            assert ("validation_error" in rows[0]) == (validation is digits.validation)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6), "weights move in the last bit"
        value = make_objective("enum", max_plate_nesting=1).loss(vae.model, vae.guide, x) / len(x)
        assert losses[0] == pytest.approx(value, rel=0.02)

    def test_every_pair_that_needs_labels_is_given_some(self):
        """Unknown ones, that is -1."""

        def model(x, y):
            with pyro.plate("data", len(x)):
                label = pyro.sample("y", dist.Categorical(torch.ones(2)))
                pyro.sample("x", dist.Normal(label[..., None].expand(*label.shape, 2), 1.0).to_event(1), obs=x)

        class Guide(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.linear = nn.BatchNorm1d(2), nn.Linear(2, 2)

            def forward(self, x, y):
                seen.append(y)
                with pyro.plate("data", len(x)):
                    logits = labelled_logits(self.linear(self.norm(x)), y)
                    pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

        seen, rows = [], Rows(torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]))
        dataset = Dataset("some", rows, rows, rows, "real")
        history = Trainer(objective="enum", epochs=2, progress=False).fit(VAE(model, Guide()), dataset)
        assert "validation_error" in history.rows[0]
        assert torch.equal(seen[0], rows.y)
        assert any(torch.equal(labels, -torch.ones(6, dtype=torch.long)) for labels in seen)

    def test_refused(self, digits):
        hidden = replace(digits, validation=digits.validation.replace(y=None))
        trainer, message = (
            Trainer(monitor="validation_error", progress=False),
            "monitor must be a column of the metrics, which are loss, .* got 'validation_error'",
        )
        with pytest.raises(ValueError, match=message):
            trainer.fit(find_pair("gaussian").build(digits), digits)
        with pytest.raises(ValueError, match=message):
            trainer.fit(find_pair("gaussian").build(digits), digits.train.x)
        trainer.objective, vae = "enum", find_pair("semi-supervised").build(hidden, hidden=(8,))
        with pytest.raises(ValueError, match=message):
            trainer.fit(vae, hidden)


def test_a_latent_y_that_is_no_class():
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            latent = pyro.sample("y", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(latent, 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        seen.append(y)
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(loc + x, 1.0).to_event(1))

    seen, rows = [], Rows(torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]))
    vae = VAE(model, guide)
    history = Trainer(epochs=1, progress=False).fit(vae, Dataset("some", rows, rows, rows, "real"))
    assert "validation_error" not in history.rows[0]
    assert all(labels is None or labels.min() >= 0 for labels in seen)
    found = metrics.evaluate(vae, rows, num_samples=2)
    assert (found.active_units, found.latent_dim, found.classification_error) == (2, 2, None)


def test_a_class_that_is_the_only_latent():
    def model(x):
        with pyro.plate("data", len(x)):
            label = pyro.sample("y", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(label[..., None].float(), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.cat([-x, x], 1)))

    vae, rows = VAE(model, guide), Rows(torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0]))
    assert metrics.active_units(vae, rows.x).count == 0
    found = metrics.evaluate(vae, rows, num_samples=2, neighbours=rows)
    assert (found.active_units, found.latent_dim) == (0, 0)
    assert found.classification_error == ((rows.x[:, 0] > 0) != (rows.y == 1)).double().mean()


def test_a_class_is_no_active_unit():
    vae, x = make_pair(), torch.rand(20, *SHAPE).bernoulli()
    assert len(metrics.active_units(vae, x).variances) == 2
    found = metrics.evaluate(vae, Rows(x, torch.arange(20) % CLASSES), num_samples=2)
    assert found.latent_dim == 2
    assert "active_units_by_site" not in found.to_dict()
    assert metrics.latent_means(vae, x).shape == (20, CLASSES + 2)
