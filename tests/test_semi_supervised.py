"""Semi-supervised pairs: exact sums over unknown classes, mixed batches, the classification term, their tools."""

import itertools
import json
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LIKELIHOODS, pictures
from pyro import poutine
from pyro.distributions import Normal
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from sklearn.datasets import make_blobs
from torch import nn

from pyrovae import VAE, classification, data, metrics
from pyrovae.cli import main
from pyrovae.data import Dataset, Split, hide_labels
from pyrovae.distributions.labels import KnownLabels, labelled_logits
from pyrovae.guides import Classifier, LabelledEncoder, SemiSupervisedGuide
from pyrovae.guides.semi_supervised import moved
from pyrovae.guides.sticks import KumaraswamyHead
from pyrovae.infer import log_weights
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objectives import make_objective
from pyrovae.models import SemiSupervisedVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder, GaussianHead
from pyrovae.priors import StandardNormal, StickBreakingPrior
from pyrovae.registry import find_pair
from pyrovae.runs import Run
from pyrovae.training import Trainer

SHAPE, CLASSES, ROWS = (1, 4, 4), 3, 7
LABELS = torch.tensor([0, -1, 2, -1, -1, 1, 0])


class FixedNormal(Normal):
    """A normal distribution whose draw is the same function of its parameters every time."""

    noise: torch.Tensor

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(FixedNormal, _instance)
        new.noise = self.noise
        return super().expand(batch_shape, _instance=new)


class FixedHead(nn.Module):
    """A Gaussian head with common random numbers: one noise for each row, whatever its class."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.head = GaussianHead(in_features, latent_dim)
        self.noise = torch.randn(ROWS, latent_dim)

    def forward(self, features):
        base = self.head(features).base_dist
        fixed = FixedNormal(base.loc, base.scale)
        fixed.noise = self.noise
        return fixed.to_event(1)


def make_pair(
    latent="gaussian", *, fixed=False, weight=0.0, net="dense", shape=SHAPE, likelihood="bernoulli", **options
):
    torch.manual_seed(0)
    head = LIKELIHOODS[likelihood](shape)
    if latent == "gaussian":
        prior, size, draw = StandardNormal(2), 2, (FixedHead if fixed else GaussianHead)(8, 2)
    else:
        prior, size, draw = StickBreakingPrior(4, 2.0), 4, KumaraswamyHead(8, 4, 2.0)
    if net == "conv":
        encoders = [ConvEncoder(shape, (3, 4), 8) for _ in range(2)]
        decoder = ConvDecoder(size + CLASSES, head.raw_shape, (3, 4), 8)
    else:
        encoders = [DenseEncoder(shape, (8,), layer="residual") for _ in range(2)]
        decoder = DenseDecoder(size + CLASSES, head.raw_shape, (8,))
    model = SemiSupervisedVAE(CLASSES, prior, decoder, head, **options)
    guide = SemiSupervisedGuide(
        Classifier(encoders[0], CLASSES),
        LabelledEncoder(encoders[1], CLASSES, 8, activation="tanh"),
        draw,
        classification_weight=weight,
    )
    # Class probabilities that are far from equal, so that a wrong weight of a class shows.
    with torch.no_grad():
        guide.classifier.linear.weight.mul_(5)
        if options.get("learn_class_prior"):
            model.class_logits.copy_(torch.tensor([0.5, -1.0, 0.2]))
    return VAE(model, guide)


@pytest.fixture
def x():
    return torch.rand(ROWS, *SHAPE).bernoulli()


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
    before = classification.class_probabilities(vae, x).gather(1, y[:, None]).log().mean()
    elbo = make_objective(objective, num_particles=1 if objective in ("enum", "nvil") else 3)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    vae.train()
    for _ in range(15):
        elbo.loss_and_grads(vae.model, vae.guide, x, y=y)
        optimizer.step()
        optimizer.zero_grad()
    assert classification.class_probabilities(vae, x).gather(1, y[:, None]).log().mean() > before + 0.1


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
    found = {tuple(row.flatten().tolist()) for row in moved(picture.expand(200, 1, 4, 4), 1)}
    assert found == possible


def test_noise_and_moves_are_for_training_only():
    classifier = Classifier(DenseEncoder(SHAPE, (8,)), 3, noise=0.5, shift=1, dropout=0.5)
    x = torch.rand(5, *SHAPE)
    assert not torch.equal(classifier(x), classifier(x))
    classifier.eval()
    assert torch.equal(classifier(x), classifier(x))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", labels=0.1, validation_size=100)


class TestHideLabels:
    def test_as_many_of_every_class(self, digits):
        y = digits.train.y
        assert y[y >= 0].bincount().unique().tolist() == [14]
        assert digits.num_classes == 10
        assert digits.options["labels"] == 0.1
        assert bool((digits.validation.y >= 0).all())
        assert bool((digits.test.y >= 0).all())

    @pytest.mark.parametrize(("labels", "count"), [(57, 57), (1.0, 1200), (0.99, 1188)])
    def test_number(self, labels, count):
        whole, some = data.load("digits"), data.load("digits", labels=labels)
        known = some.train.y >= 0
        assert int(known.sum()) == count
        assert torch.equal(some.train.y[known], whole.train.y[known])
        assert int(some.train.y[known].bincount().diff().abs().max()) <= (1 if count < 1000 else 15)

    def test_seed(self):
        first, again, other = (data.load("digits", labels=50, seed=seed).train.y for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_fewer_are_a_part_of_more(self):
        few, many = ((data.load("digits", labels=n).train.y >= 0) for n in (50, 200))
        assert bool((few <= many).all())

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (0, "above 0 and up to 1, or a number of them, not 0"),
            (-0.5, "not -0.5"),
            (2.5, "not 2.5"),
            (5000, "not 5000"),
            (0.001, "1 labels are too few for 10 classes"),
        ],
    )
    def test_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            data.load("digits", labels=labels)

    def test_without_labels(self):
        with pytest.raises(ValueError, match="linear-gaussian has none"):
            data.load("linear-gaussian", labels=0.5)


TINY = {"hidden": (32,), "latent_dim": 4, "truncation": 4}


class TestPair:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"latent": "stick-breaking"},
            {"net": "conv", "channels": (2, 4), "dropout": 0.3},
            {"learn_class_prior": True},
        ],
        ids=str,
    )
    def test_works(self, digits, options):
        vae = find_pair("semi-supervised").build(digits, **TINY, **options)
        assert classification.class_probabilities(vae, digits.test.x[:4]).shape == (4, 10)
        assert vae.log_likelihood(digits.test.x[:4], 2).isfinite().all()
        assert vae.guide.classification_weight == pytest.approx(1400 / 140, rel=0.01)

    def test_residual_nets(self, digits):
        vae = find_pair("semi-supervised").build(digits, hidden=(16, 16, 16), layer="residual")
        assert vae.log_likelihood(digits.test.x[:4], 2).isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"latent_dim": 0}, "must be at least 1, got 0"),
            ({"hidden": ()}, "must be at least 1"),
            ({"net": "conv", "channels": (3,)}, "two numbers of channels"),
        ],
    )
    def test_refused(self, digits, options, message):
        with pytest.raises(ValueError, match=message):
            find_pair("semi-supervised").build(digits, **options)

    def test_data_without_labels(self):
        with pytest.raises(ValueError, match="needs training rows of at least two classes"):
            find_pair("semi-supervised").build(data.load("linear-gaussian"))

    def test_unlabelled_rows_help(self):
        """Three clouds of points with two labels each: with all the rows hardly an error, by the labelled ones some."""
        points, classes = (
            torch.as_tensor(part) for part in make_blobs(2600, 10, centers=3, cluster_std=5, random_state=1)
        )
        x = (points / points.std()).float()
        whole = Split(x[:600], classes[:600])
        test = Split(x[600:], classes[600:])
        partly = hide_labels(Dataset("clouds", whole, test, test, "real"), 6)
        known = partly.train.y >= 0
        errors = {}
        for name, rows, epochs in (("all", torch.ones_like(known), 15), ("labelled", known, 90)):
            train, validation = Split(x[:600][rows], partly.train.y[rows]), Split(x[-50:], classes[-50:])
            dataset = Dataset("clouds", train, validation, test, "real")
            torch.manual_seed(0)
            options = {"latent_dim": 1, "hidden": (16,), "classification_weight": 1.0}
            vae = find_pair("semi-supervised").build(dataset, **options)
            Trainer(objective="enum", epochs=epochs, batch_size=100, lr=0.02, progress=False).fit(vae, dataset)
            errors[name] = classification.classification_error(vae, test)
        assert errors["all"] < 0.03
        assert errors["labelled"] > errors["all"] + 0.03


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny run of the pair with sticks, made by the command line."""
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "semi-supervised", "--data", "digits", "--labels", "0.1", "--latent", "stick-breaking"]
    words += ["--truncation", "4", "--hidden", "16", "--epochs", "2", "--quiet", "--out", str(path)]
    assert main(words) == 0
    return path


class TestCommandLine:
    def test_run(self, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["training"]["objective"] == "enum"
        assert (config["data"]["labels"], config["data_classes"]) == (0.1, 10)
        run = Run.open(folder)
        vae = run.load_vae()
        assert vae.model.num_classes == 10
        assert classification.class_probabilities(vae, run.dataset().test.x[:5]).shape == (5, 10)

    def test_evaluate(self, folder, capsys):
        assert main(["evaluate", str(folder), "--num-samples", "2", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        run = Run.open(folder)
        vae, test = run.load_vae(), run.dataset().test
        assert record["classification_error"] == pytest.approx(classification.classification_error(vae, test))
        assert {"knn_error_3", "knn_error_5", "knn_error_10"} <= set(record)
        assert 1 <= record["sticks_used"] <= 4
        assert len(record["sticks_used_by_class"]) == 10

    def test_evaluate_is_of_the_data_alone(self, folder):
        """The likelihood is log p(x), the labels of the rows being no part of it."""
        run = Run.open(folder)
        vae, test = run.load_vae(), run.dataset().test
        rows = Split(test.x[:40], test.y[:40])
        torch.manual_seed(0)
        with_labels = metrics.evaluate(vae, rows, num_samples=20).log_likelihood
        torch.manual_seed(0)
        assert metrics.evaluate(vae, Split(rows.x), num_samples=20).log_likelihood == pytest.approx(with_labels)

    def test_sample_with_every_label_hidden(self, folder, tmp_path):
        assert main(["sample", str(folder), "--out", str(tmp_path / "x.csv"), "--num", "3"]) == 0


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
        assert classification.classification_error(vae, digits.validation) == errors.min()

    def test_loss(self, digits, trained):
        """The loss does not depend on the labels, and an objective of the trained pair agrees with it."""
        vae, _ = trained
        x = digits.validation.x
        hidden = digits.validation._replace(y=None)
        trainer = Trainer(objective="enum", epochs=1, lr=1e-9, progress=False)
        losses = []
        for validation in (digits.validation, hidden):
            rows = trainer.fit(vae, replace(digits, validation=validation)).rows
            losses.append(rows[0]["validation_loss"])
            assert ("validation_error" in rows[0]) == (validation is digits.validation)
        assert losses[0] == losses[1]
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

        seen, rows = [], Split(torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]))
        dataset = Dataset("some", rows, rows, rows, "real")
        history = Trainer(objective="enum", epochs=2, progress=False).fit(VAE(model, Guide()), dataset)
        assert "validation_error" in history.rows[0]
        assert torch.equal(seen[0], rows.y)
        assert any(torch.equal(labels, -torch.ones(6, dtype=torch.long)) for labels in seen)

    def test_refused(self, digits):
        hidden = replace(digits, validation=digits.validation._replace(y=None))
        trainer, message = (
            Trainer(monitor="validation_error", progress=False),
            "a pair that infers a class, with labelled",
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

    seen, rows = [], Split(torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0]))
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

    vae, rows = VAE(model, guide), Split(torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0]))
    assert metrics.active_units(vae, rows.x).count == 0
    found = metrics.evaluate(vae, rows, num_samples=2, neighbours=rows)
    assert (found.active_units, found.latent_dim) == (0, 0)
    assert found.classification_error == ((rows.x[:, 0] > 0) != (rows.y == 1)).double().mean()


def test_a_class_is_no_active_unit():
    vae, x = make_pair(), torch.rand(20, *SHAPE).bernoulli()
    assert len(metrics.active_units(vae, x).variances) == 2
    found = metrics.evaluate(vae, Split(x, torch.arange(20) % CLASSES), num_samples=2)
    assert found.latent_dim == 2
    assert "active_units_by_site" not in found.to_dict()
    assert metrics.latent_means(vae, x).shape == (20, CLASSES + 2)


def test_stacked(digits):
    """M1+M2: a pair on the latents of a trained one, which leave out what the first does not use."""
    torch.manual_seed(0)
    first = find_pair("gaussian").build(digits, latent_dim=12, hidden=(64,), layer="plain")
    Trainer(objective="mean-field", epochs=30, lr=5e-3, progress=False).fit(first, digits)
    features = classification.LatentFeatures(first, digits.train.x)
    stacked = features.dataset(digits)
    used = int(features.used.sum())
    assert stacked.shape == (used,)
    assert 4 <= used <= 12
    assert torch.allclose(stacked.train.x.std(0, correction=0), torch.ones(used), atol=1e-4)
    assert torch.equal(features(digits.test.x[:5]), stacked.test.x[:5])
    binary = replace(digits, transform=torch.round)
    assert torch.equal(features.dataset(binary).train.x, features(digits.train.x.round()))
    seen = torch.rand(3, 1, 8, 8) < 0.5
    masked = features(digits.test.x[:3], seen)
    assert torch.equal(masked, features(torch.where(seen, digits.test.x[:3], 0.0)))
    torch.manual_seed(0)
    second = find_pair("semi-supervised").build(stacked, hidden=(64,), latent_dim=4, classification_weight=1.0)
    Trainer(objective="enum", epochs=20, lr=5e-3, progress=False).fit(second, stacked)
    assert classification.classification_error(second, stacked.test) < 0.25


def test_stacked_on_an_untrained_pair(digits):
    first = find_pair("gaussian").build(digits, latent_dim=3, hidden=(8,))
    with pytest.raises(ValueError, match="no latent dimension has means that vary by more than 100"):
        classification.LatentFeatures(first, digits.train.x, threshold=100)


class TestLabelledEncoder:
    """The layer that takes the label in, against direct computations with the weights that it has."""

    @staticmethod
    def make(layer, features=8, **options):
        options |= {"activation": "tanh", "layer": layer}
        encoder = LabelledEncoder(DenseEncoder(SHAPE, (features,)), CLASSES, 8, **options)
        return encoder, torch.randn(ROWS, *SHAPE)

    @staticmethod
    def by_hand(encoder, layer, x, y):
        h = encoder.encoder(x)
        raw = h @ encoder.linear.weight.T + encoder.linear.bias + torch.eye(CLASSES)[y] @ encoder.by_label
        if layer == "gated":
            return raw[:, :8] / (1 + (-raw[:, 8:]).exp())
        return raw.tanh() + (h if layer == "residual" and h.shape[1] == 8 else 0)

    @pytest.mark.parametrize("features", [8, 5])
    @pytest.mark.parametrize("layer", ["plain", "residual", "gated"])
    def test_by_hand(self, layer, features):
        """For a label of each row and for all classes at once; a skip is only where sizes are equal."""
        encoder, x = self.make(layer, features)
        assert encoder.out_features == 8
        y = LABELS.clamp(min=0)
        torch.testing.assert_close(encoder(x, y), self.by_hand(encoder, layer, x, y))
        classes = torch.arange(CLASSES).unsqueeze(-1)
        expected = [self.by_hand(encoder, layer, x, c.expand(ROWS)) for c in classes]
        torch.testing.assert_close(encoder(x, classes), torch.stack(expected))

    @pytest.mark.parametrize("layer", ["plain", "residual", "gated"])
    def test_once_for_all_classes(self, layer):
        """Features and their product with the weights, under the enumeration of a guide too."""
        encoder, x = self.make(layer)
        rows = {"features": [], "product": []}
        encoder.encoder.register_forward_hook(lambda module, args, out: rows["features"].append(tuple(out.shape)))
        encoder.linear.register_forward_hook(lambda module, args, out: rows["product"].append(tuple(out.shape)))
        assert encoder(x, torch.arange(CLASSES).unsqueeze(-1)).shape == (CLASSES, ROWS, 8)
        width = 16 if layer == "gated" else 8
        assert rows == {"features": [(ROWS, 8)], "product": [(ROWS, width)]}
        vae = make_pair()
        vae.guide.encoder = encoder
        TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(vae.model, vae.guide, x.sigmoid().round()).backward()
        assert rows == {"features": [(ROWS, 8)] * 2, "product": [(ROWS, width)] * 2}
        assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())

    def test_data_as_features(self):
        """Without an encoder the entries of a datum go past the layer too, if there are as many as it has units."""
        x, y = torch.randn(ROWS, *SHAPE), LABELS.clamp(min=0)
        for hidden in (16, 8):
            encoder = LabelledEncoder(None, CLASSES, hidden, layer="residual", in_features=16)
            with torch.no_grad():
                encoder.linear.bias.fill_(-1000.0)
            assert torch.equal(encoder(x, y), x.flatten(1) if hidden == 16 else torch.zeros(ROWS, 8))

    def test_parameters_of_a_plain_layer(self):
        """The names by which the weights of runs are stored, and their shapes."""
        found = {name: tuple(p.shape) for name, p in LabelledEncoder(None, 3, 8, in_features=16).state_dict().items()}
        assert found == {"by_label": (3, 8), "linear.weight": (8, 16), "linear.bias": (8,)}

    def test_dropout_is_for_training_only(self):
        encoder, x = self.make("residual", dropout=0.5)
        y = LABELS.clamp(min=0)
        assert (encoder(x, y) == 0).float().mean() > 0.2
        encoder.eval()
        torch.testing.assert_close(encoder(x, y), self.by_hand(encoder, "residual", x, y))

    def test_refused(self):
        with pytest.raises(ValueError, match="unknown layer 'dense'; known are plain, gated, residual"):
            self.make("dense")

    @pytest.mark.parametrize(
        ("options", "kind", "skip"),
        [
            ({"hidden": (16, 16), "layer": "residual"}, nn.ReLU, True),
            ({"hidden": (16,), "layer": "residual"}, nn.ReLU, False),
            ({"hidden": (16, 16), "layer": "gated"}, nn.GLU, False),
            ({"hidden": (16,), "layer": "residual", "net": "conv", "channels": (2, 3)}, nn.ReLU, True),
            ({"hidden": (16, 16)}, nn.ReLU, False),
        ],
        ids=str,
    )
    def test_the_pair_passes_its_layer_on(self, digits, options, kind, skip):
        vae = find_pair("semi-supervised").build(digits, latent_dim=4, **options)
        encoder = vae.guide.encoder
        assert (type(encoder.activation), encoder.skip) == (kind, skip)
        assert vae.log_likelihood(digits.test.x[:4], 2).isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hidden": (16, 16)}, r"one dense layer, so hidden must hold one number, .* got \(16, 16\)"),
            ({"layer": "gated"}, "layer 'gated' is not for convolutional nets, whose layers are plain or residual"),
        ],
        ids=str,
    )
    def test_refused_with_convolutional_nets(self, digits, options, message):
        with pytest.raises(ValueError, match=message):
            find_pair("semi-supervised").build(digits, net="conv", **options)

    def test_dropout_of_convolutional_nets_is_on_the_features_of_the_classifier(self, digits):
        options = {"hidden": (16,), "net": "conv", "channels": (2, 3), "dropout": 0.3}
        vae = find_pair("semi-supervised").build(digits, **options)
        dropouts = {name: m.p for name, m in vae.guide.named_modules() if isinstance(m, nn.Dropout) and m.p}
        assert dropouts == {"classifier.dropout": 0.3}
