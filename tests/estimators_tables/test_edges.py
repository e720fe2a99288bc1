"""Figures at the edges of tables: impossible numbers, options that changed, given values, ordered columns, spreads."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.estimators import VAEImputer
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood

SMALL = {"n_components": 2, "hidden": (8,), "epochs": 3, "random_state": 0, "trees": False}


@pytest.fixture(scope="module")
def frame():
    generator = np.random.default_rng(0)
    price = generator.lognormal(size=120)
    table = pd.DataFrame(
        {"price": price, "size": price + generator.normal(size=120), "sort": generator.choice(list("ab"), 120)}
    )
    return table.mask(generator.uniform(size=table.shape) < 0.1)


def test_an_impossible_number_has_no_density(frame):
    imputer = VAEImputer(**SMALL, kinds={"price": "positive"}).fit(frame)
    rows = pd.DataFrame({"price": [1.0, -1.0, np.nan], "size": 0.0, "sort": ["a", "a", "c"]})
    scores = imputer.score_samples(rows)
    assert np.isfinite(scores[[0, 2]]).all()
    assert scores[1] == -np.inf


def test_options_that_changed_after_fit_are_saved(frame, tmp_path):
    imputer = VAEImputer(**SMALL).fit(frame).set_params(num_samples=7, weights="importance")
    imputer.save(tmp_path / "model")
    again = VAEImputer.load(tmp_path / "model")
    assert (again.num_samples, again.weights) == (7, "importance")
    pd.testing.assert_frame_equal(again.transform(frame), imputer.transform(frame))


def test_given_values_stay_to_the_last_bit(frame):
    imputer = VAEImputer(**SMALL).fit(frame)
    for value in frame["size"].dropna()[:20]:
        assert imputer.sample(1, given={"size": value})["size"][0] == value


def test_ordered_columns_have_no_mass_beside_their_levels():
    likelihood = TableLikelihood(ColumnFamilies(("ordered", "ordered"), (3, 4)))
    fn = likelihood(torch.full((1, *likelihood.raw_shape), 60.0)).base_dist
    levels = torch.arange(3.0).reshape(3, 1, 1).expand(3, 1, 2)
    assert fn.log_prob(levels)[..., 0].exp().sum().item() == pytest.approx(1.0)
    assert fn.mode[0, 0] == 2


def test_spreads_of_positive_columns_are_those_of_their_logs(frame):
    imputer = VAEImputer(**SMALL, kinds={"price": "positive"}, likelihoods={"price": "log-normal"}).fit(frame)
    rows = frame.assign(price=np.nan)[:40]
    imputer.model_.predictor.spread[:] = [3.0, 1.0, 1.0]
    drawn = np.stack([table["price"] for table in imputer.impute_draws(rows, 50)])
    low = frame["price"].min()
    assert (drawn >= low).all()
    x, mask = imputer.model_.encoded(rows)
    scaled = imputer.model_.predictor.draws(x, mask, 50, imputer_sampling())
    assert (scaled[..., 0] > 0).all()


def imputer_sampling():
    from pyrovae.estimators.prediction import Sampling

    return Sampling(20)


def test_a_row_without_entries_has_the_probability_1(frame):
    imputer = VAEImputer(**SMALL).fit(frame)
    rows = pd.concat([frame[:2], pd.DataFrame({"price": [np.nan, -1.0], "size": np.nan, "sort": ["new", None]})])
    assert imputer.score_samples(rows)[2] == 0
    assert imputer.score_samples(rows)[3] == (-np.inf if imputer.schema_["price"].kind == "positive" else 0)
