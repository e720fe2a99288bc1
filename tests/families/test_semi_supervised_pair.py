"""The registered semi-supervised pair: hidden labels, options, the command line, a pair on latents of another."""

import json
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import make_blobs

from pyrovae import data, metrics
from pyrovae.cli import main
from pyrovae.data import Dataset, Rows, hide_labels, transform_x
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.training import Trainer


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


TINY = {"hidden": (32,)}


class TestPair:
    @pytest.mark.parametrize(
        "options",
        [
            {"latent_dim": 4},
            {"latent": "stick-breaking", "truncation": 4},
            {"net": "conv", "channels": (2, 4), "dropout": 0.3},
            {"learn_class_prior": True},
        ],
        ids=str,
    )
    def test_works(self, digits, options):
        vae = find_pair("semi-supervised").build(digits, **TINY, **options)
        assert metrics.class_probabilities(vae, digits.test.x[:4]).shape == (4, 10)
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
        whole = Rows(x[:600], classes[:600])
        test = Rows(x[600:], classes[600:])
        partly = hide_labels(Dataset("clouds", whole, test, test, "real"), 6)
        known = partly.train.y >= 0
        errors = {}
        for name, rows, epochs in (("all", torch.ones_like(known), 15), ("labelled", known, 90)):
            train, validation = Rows(x[:600][rows], partly.train.y[rows]), Rows(x[-50:], classes[-50:])
            dataset = Dataset("clouds", train, validation, test, "real")
            torch.manual_seed(0)
            options = {"latent_dim": 1, "hidden": (16,), "classification_weight": 1.0}
            vae = find_pair("semi-supervised").build(dataset, **options)
            Trainer(objective="enum", epochs=epochs, batch_size=100, lr=0.02, progress=False).fit(vae, dataset)
            errors[name] = metrics.classification_error(vae, test)
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
        assert (config["data"]["labels"], config["spec"]["num_classes"]) == (0.1, 10)
        run = Run.open(folder)
        vae = run.load_vae()
        assert vae.model.num_classes == 10
        assert metrics.class_probabilities(vae, run.dataset().test.x[:5]).shape == (5, 10)

    def test_evaluate(self, folder, capsys):
        assert main(["evaluate", str(folder), "--num-samples", "2", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        run = Run.open(folder)
        vae, test = run.load_vae(), run.dataset().test
        assert record["classification_error"] == pytest.approx(metrics.classification_error(vae, test))
        assert {"knn_error_3", "knn_error_5", "knn_error_10"} <= set(record)
        assert 1 <= record["sticks_used"] <= 4
        assert len(record["sticks_used_by_class"]) == 10

    def test_evaluate_is_of_the_data_alone(self, folder):
        """The likelihood is log p(x), the labels of the rows being no part of it."""
        run = Run.open(folder)
        vae, test = run.load_vae(), run.dataset().test
        rows = Rows(test.x[:40], test.y[:40])
        torch.manual_seed(0)
        with_labels = metrics.evaluate(vae, rows, num_samples=20).log_likelihood
        torch.manual_seed(0)
        assert metrics.evaluate(vae, Rows(rows.x), num_samples=20).log_likelihood == pytest.approx(with_labels)

    def test_sample_with_every_label_hidden(self, folder, tmp_path):
        assert main(["sample", str(folder), "--out", str(tmp_path / "x.csv"), "--num", "3"]) == 0


def test_stacked(digits):
    """M1+M2: a pair on the latents of a trained one, which leave out what the first does not use."""
    torch.manual_seed(0)
    first = find_pair("gaussian").build(digits, latent_dim=12, hidden=(64,), layer="plain")
    Trainer(objective="mean-field", epochs=30, lr=5e-3, progress=False).fit(first, digits)
    features = metrics.LatentFeatures(first, digits.train.x)
    stacked = features.dataset(digits)
    some = features.dataset(replace(digits, train=digits.train.take(slice(3, 9))))
    assert some.train.index.tolist() == [3, 4, 5, 6, 7, 8]
    used = int(features.used.sum())
    assert stacked.shape == (used,)
    assert 4 <= used <= 12
    assert torch.allclose(stacked.train.x.std(0, correction=0), torch.ones(used), atol=1e-4)
    assert torch.equal(features(digits.test.x[:5]), stacked.test.x[:5])
    binary = replace(digits, transform=transform_x(torch.round))
    assert torch.equal(features.dataset(binary).train.x, features(digits.train.x.round()))
    seen = torch.rand(3, 1, 8, 8) < 0.5
    masked = features(digits.test.x[:3], seen)
    assert torch.equal(masked, features(torch.where(seen, digits.test.x[:3], 0.0)))
    torch.manual_seed(0)
    second = find_pair("semi-supervised").build(stacked, hidden=(64,), latent_dim=4, classification_weight=1.0)
    Trainer(objective="enum", epochs=20, lr=5e-3, progress=False).fit(second, stacked)
    assert metrics.classification_error(second, stacked.test) < 0.25


def test_stacked_on_an_untrained_pair(digits):
    first = find_pair("gaussian").build(digits, latent_dim=3, hidden=(8,))
    with pytest.raises(ValueError, match="no latent dimension has means that vary by more than 100"):
        metrics.LatentFeatures(first, digits.train.x, threshold=100)
