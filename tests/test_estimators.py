"""The scikit-learn estimators: scikit-learn's own checks, unknown labels of every kind, rows that stand alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyrovae.estimators import VAEClassifier
from pyrovae.metrics.classification import class_probabilities

# Made with few passes, since the checks fit about seventy times.
QUICK = {"n_components": 2, "hidden": (16,), "epochs": 15, "lr": 0.03, "num_nets": 1, "random_state": 0}
EXPECTED_TO_FAIL = {"check_classifiers_classes": "it uses -1 as a class, and -1 stands for an unknown label"}


@parametrize_with_checks(
    [VAEClassifier(**QUICK)],
    expected_failed_checks=lambda estimator: EXPECTED_TO_FAIL,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", ["check_methods_subset_invariance", "check_fit2d_1feature", "check_classifiers_train"])
def test_checks_with_sticks(name):
    """Some of the checks, for the other latent and without a number that stands for the unknown."""
    getattr(estimator_checks, name)("VAEClassifier", VAEClassifier(**QUICK, latent="stick-breaking", unlabelled=None))


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(240, 4, centers=3, cluster_std=2.0, random_state=3)
    return X, y, np.where(np.arange(240) < 24, y, -1)


@pytest.fixture(scope="module")
def fitted(blobs):
    X, _, some = blobs
    return VAEClassifier(**QUICK).fit(X, some)


def test_learns_from_few_labels(blobs, fitted):
    X, y, _ = blobs
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.score(X, y) > 0.97


def test_several_nets(blobs, fitted):
    """Probabilities are the means of those of the nets, of which the first is that of a single one."""
    X, y, some = blobs
    model = VAEClassifier(**{**QUICK, "num_nets": 3}).fit(X, some)
    rows = torch.as_tensor(model._scaler.transform(X))
    each = [class_probabilities(vae, rows).numpy() for vae in model.vaes_]
    np.testing.assert_allclose(model.predict_proba(X), np.mean(each, 0))
    np.testing.assert_array_equal(each[0], fitted.predict_proba(X))
    assert not np.allclose(each[0], each[1])
    np.testing.assert_array_equal(model.predict(X), np.mean(each, 0).argmax(1))
    assert model.score(X, y) == (model.predict(X) == y).mean()
    assert model.vae_ is model.vaes_[0]
    same = model.predict(X) == fitted.predict(X)
    np.testing.assert_allclose(model.transform(X)[same], fitted.transform(X)[same])


@pytest.mark.parametrize("classes", [(0, 1), (9, 10, 100), (False, True), (0.0, 1.0), ("9", "10")], ids=str)
def test_labels_keep_their_type(blobs, classes):
    """In an array of objects, too, as one with None has; -1 means unknown all the same."""
    X, y = blobs[:2]
    labels = [classes[label % len(classes)] for label in y]
    for unlabelled in (None, -1):
        some = [unlabelled if place % 3 == 0 else label for place, label in enumerate(labels)]
        if unlabelled == -1:
            some = np.array(some, dtype=object)
        model = VAEClassifier(**QUICK, unlabelled=unlabelled).fit(X, some)
        assert model.classes_.tolist() == sorted(classes)
        assert model.score(X, np.array(labels)) > 0.3
        assert set(model.predict(X).tolist()) <= set(classes)


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [("boolean", [False, True]), ("Int64", [2**60, 2**60 + 1]), ("Int64", [-1, 3])],
    ids=["booleans", "integers", "minus one"],
)
def test_labels_of_pandas_keep_their_type(blobs, dtype, classes):
    """Whole numbers beyond 2^53 would be one class as floats."""
    X, y = blobs[:2]
    some = pd.Series([pd.NA if row % 3 == 0 else classes[label % 2] for row, label in enumerate(y)], dtype=dtype)
    model = VAEClassifier(**QUICK, unlabelled=None).fit(X, some)
    assert model.classes_.tolist() == classes
    assert model.classes_.dtype.kind == some.dtype.kind


@pytest.mark.parametrize("wrong", [None, pd.NA, np.nan])
def test_a_missing_label_is_no_class(blobs, wrong):
    labels = np.array([wrong, *(blobs[1][1:] % 2)], dtype=object)
    with pytest.raises(ValueError, match="is among the labels; say unlabelled=None if that means that a row has none"):
        VAEClassifier(**QUICK).fit(blobs[0], labels)


def test_labels_of_several_types_are_refused(blobs):
    labels = np.array(["1", *(blobs[1][1:] % 2)], dtype=object)
    with pytest.raises(ValueError, match="must be all texts, all numbers or all booleans, got int64 and str"):
        VAEClassifier(**QUICK).fit(blobs[0], labels)


@pytest.mark.parametrize("unlabelled", [None, np.nan, "?", -1], ids=str)
def test_names_of_classes_and_of_the_unknown(blobs, fitted, unlabelled):
    """The same numbers whatever the classes and the unknown label are called."""
    X, _, some = blobs
    names = np.array(["ant", "bee", "cat"], dtype=object)
    labels = np.array([unlabelled if label < 0 else names[label] for label in some], dtype=object)
    model = VAEClassifier(**QUICK, unlabelled=unlabelled).fit(X, labels)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    assert model.predict(X[:3]).tolist() == [names[label] for label in fitted.predict(X[:3])]


def test_numbers_with_nan(blobs, fitted):
    X, _, some = blobs
    model = VAEClassifier(**QUICK, unlabelled=np.nan).fit(X, np.where(some < 0, np.nan, some))
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))


@pytest.mark.parametrize("latent", ["gaussian", "stick-breaking"])
def test_rows_stand_alone(blobs, latent):
    X, _, some = blobs
    model = VAEClassifier(**QUICK, latent=latent).fit(X, some)
    order = np.random.default_rng(0).permutation(len(X))
    for method in (model.predict_proba, model.transform):
        whole = method(X)
        np.testing.assert_allclose(np.concatenate([method(row[None]) for row in X[:5]]), whole[:5], rtol=1e-10)
        np.testing.assert_allclose(method(X[order]), whole[order], rtol=1e-10)
        np.testing.assert_array_equal(method(X), whole)


def test_data_frame(blobs):
    X, _, some = blobs
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = VAEClassifier(**QUICK).fit(frame, pd.Series(some))
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    latents = model.set_output(transform="pandas").transform(frame)
    assert latents.columns.tolist() == ["vaeclassifier0", "vaeclassifier1"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_stick_weights(blobs):
    X, _, some = blobs
    model = VAEClassifier(**{**QUICK, "n_components": 5}, latent="stick-breaking").fit(X, some)
    weights = model.transform(X)
    assert weights.shape == (240, 5)
    assert bool((weights > 0).all())
    assert bool((weights.sum(1) < 1).all()), "the remainder is left out"


def test_in_a_pipeline(blobs):
    X, y, _ = blobs
    pipeline = make_pipeline(MinMaxScaler(), VAEClassifier(**QUICK))
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.9


def test_random_state(blobs, caller_rng, store):
    """The same seed gives the same model; nothing of the caller's is used or left changed."""
    X, _, some = blobs
    first = VAEClassifier(**QUICK).fit(X, some)
    again = clone(first).fit(X, some)
    other = clone(first).set_params(random_state=1).fit(X, some)
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({}, np.full(240, -1), "no row has a label: all entries of y are -1"),
        ({}, np.where(np.arange(240) < 5, 2, -1), "at least 2 classes, got one class"),
        ({}, np.arange(10), "240 rows and y 10 labels"),
        ({"latent": "sticks"}, None, "latent must be one of gaussian, stick-breaking, got 'sticks'"),
        ({"n_components": 0}, None, "must be at least 1"),
        ({"num_nets": 0}, None, "num_nets must be a whole number, at least 1, got 0"),
        ({"consistency_weight": -1.0}, None, "consistency_weight must be finite and not negative"),
        ({"device": "nowhere"}, None, "device 'nowhere' cannot be used"),
    ],
)
def test_refused(blobs, options, labels, message):
    X, _, some = blobs
    with pytest.raises(ValueError, match=message):
        VAEClassifier(**{**QUICK, **options}).fit(X, some if labels is None else labels)


def test_scale_of_columns_does_not_matter(blobs, fitted):
    X, _, some = blobs
    model = VAEClassifier(**QUICK).fit(X * 1000 + 5, some)
    np.testing.assert_allclose(model.predict_proba(X * 1000 + 5), fitted.predict_proba(X), atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda(blobs):
    X, y, some = blobs
    assert VAEClassifier(**QUICK, device="cuda").fit(X, some).score(X, y) > 0.9


def test_a_text_that_means_unknown_is_no_class(blobs):
    X, y, _ = blobs
    labels = [-1 if number % 3 else f"class {label}" for number, label in enumerate(y)]
    with pytest.raises(ValueError, match="y is an array of texts and holds '-1', which is no -1"):
        VAEClassifier(**QUICK).fit(X, np.array(labels))


@pytest.mark.parametrize("form", [lambda y: y[:, None], lambda y: pd.DataFrame(y), lambda y: np.ma.masked_array(y)])
def test_score_asks_for_labels_whatever_the_form(blobs, fitted, form):
    X, y, _ = blobs
    some = np.where(np.arange(len(y)) % 2, -1, y)
    with pytest.raises(ValueError, match="rows have no label"):
        fitted.score(X, form(some))
    assert fitted.score(X, form(y)) == fitted.score(X, y)
