"""New rows of a table: how many, of which columns, and from which conditional distribution."""

import numpy as np
import pandas as pd
import pytest
from mixed_frames import NUMBERS, mixed

from pyrovae.estimators.table_estimator import sample_rows
from pyrovae.estimators.transformer import VAETransformer

GIVEN = {"text": "b", "Int": 3, "flag": True, "grade": "high", "day": pd.Timestamp("2020-03-01"), "same": 7.5}
REFUSED = {
    "unknown column": ({"age": 1}, ValueError, "given has 'age', which is no column; columns are real, tail"),
    "unknown level": ({"text": "q"}, ValueError, r"given\['text'\] is q, which the column cannot have; it holds a, b"),
    "level of another type": ({"flag": 3}, ValueError, r"given\['flag'\] is 3, .*it holds False, True"),
    "out of the range": (
        {"Int": 1000},
        ValueError,
        r"given\['Int'\] is 1000, out of the range -?\d+ to \d+; VAEImputer",
    ),
    "out of a declared range": ({"real": 9.5}, ValueError, r"given\['real'\] is 9.5, out of the range -9 to 9"),
    "fraction": ({"Int": 3.5}, ValueError, r"given\['Int'\] is 3.5, but the column holds whole numbers"),
    "another constant": ({"same": 8.0}, ValueError, r"given\['same'\] is 8.0, out of the range 7.5"),
    "column without values": ({"none": 1.0}, ValueError, r"given\['none'\] cannot be given: the column had no value"),
    "missing": ({"real": None}, ValueError, r"given\['real'\] is missing; leave the column out, and it is drawn"),
    "missing level": ({"text": pd.NA}, ValueError, r"given\['text'\] is missing"),
    "infinite": ({"real": np.inf}, ValueError, "column 'real' has the value inf"),
    "text": ({"real": "a"}, TypeError, "column 'real' must hold numbers, not 'a'"),
    "number for a date": ({"day": 3.0}, TypeError, "column 'day' must hold dates"),
    "two values": ({"real": [1.0, 2.0]}, TypeError, r"given\['real'\] must be one value, got \[1.0, 2.0\]"),
    "a list": (["real"], TypeError, r"given must be a dictionary by the name of columns, got \['real'\]"),
}


@pytest.fixture(scope="module")
def frame():
    return mixed()


@pytest.fixture(scope="module")
def fitted(frame):
    options = {"ranges": {"real": (-9, 9)}, "kinds": {"Int": "real"}, "num_particles": 2}
    return VAETransformer(2, hidden=(16,), epochs=3, batch_size=32, random_state=0, **options).fit(frame)


@pytest.mark.parametrize("given", [None, {}, GIVEN, {"text": "b"}], ids=["none", "empty", "many", "one"])
@pytest.mark.parametrize("rows", [1, 30])
def test_rows(frame, fitted, given, rows):
    drawn = fitted.sample(rows, given)
    assert drawn.shape == (rows, frame.shape[1])
    assert drawn.columns.equals(frame.columns)
    pd.testing.assert_series_equal(drawn.dtypes, frame.dtypes)
    assert drawn.drop(columns="none").notna().all(axis=None)
    assert drawn["none"].isna().all()
    for name, value in (given or {}).items():
        assert (drawn[name] == value).all(), name
    for name in NUMBERS[1:]:
        assert drawn[name].between(frame[name].min(), frame[name].max()).all(), name
    if rows > 1:
        assert drawn["real"].nunique() == rows


def test_seeds(fitted, caller_rng):
    for given in (None, GIVEN):
        first = fitted.sample(5, given, random_state=3)
        pd.testing.assert_frame_equal(fitted.sample(5, given, random_state=3), first)
        pd.testing.assert_frame_equal(fitted.sample(5, given), fitted.sample(5, given))
        assert not np.array_equal(fitted.sample(5, given, random_state=4)["real"], first["real"])
    state = np.random.RandomState(1)
    assert not fitted.sample(5, random_state=state).equals(fitted.sample(5, random_state=state))


def test_arrays():
    table = np.random.default_rng(0).normal(size=(60, 2))
    model = VAETransformer(1, hidden=(8,), epochs=2, random_state=0).fit(table)
    drawn = model.sample(4, {"x1": 0.25})
    assert isinstance(drawn, np.ndarray)
    assert drawn.dtype == np.float64
    np.testing.assert_array_equal(drawn[:, 1], 0.25)
    assert sample_rows(model.model_, 4, {"x1": 0.25}, 0, as_frame=True).columns.tolist() == ["x0", "x1"]


@pytest.mark.parametrize(("given", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(fitted, given, error, message):
    with pytest.raises(error, match=message) as refused:
        fitted.sample(3, given)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def dependent():
    """A standard normal x, y of 2 x with the standard deviation 1/2, and whether x with 0.3 of noise is above 0."""
    generator, rows = np.random.default_rng(0), 1500
    x = generator.normal(size=rows)
    y = 2 * x + 0.5 * generator.normal(size=rows)
    sign = np.where(x + 0.3 * generator.normal(size=rows) > 0, "up", "down")
    frame = pd.DataFrame({"x": x, "y": y, "sign": sign}).mask(generator.uniform(size=(rows, 3)) < 0.05)
    kinds = {"x": "real", "y": "real"}
    options = {"epochs": 20, "lr": 0.02, "batch_size": 32, "num_particles": 20, "random_state": 0, "kinds": kinds}
    return VAETransformer(2, hidden=(16,), **options).fit(frame)


@pytest.mark.parametrize("x", [-1.5, 0.0, 1.0])
def test_given_a_number(dependent, x):
    """p(y|x) is normal about 2 x, and the sign is certain away from 0."""
    drawn = dependent.sample(2000, {"x": x})
    assert (drawn["x"] == x).all()
    assert drawn["y"].mean() == pytest.approx(2 * x, abs=0.15)
    assert drawn["y"].std() == pytest.approx(0.5, abs=0.25)
    assert (drawn["sign"] == "up").mean() == pytest.approx({-1.5: 0, 0.0: 0.5, 1.0: 1}[x], abs=0.1)


@pytest.mark.parametrize("y", [-2.0, 2.0])
def test_given_the_other_number(dependent, y):
    """p(x|y) is normal about 2 y / 4.25, with the variance 0.25 / 4.25."""
    drawn = dependent.sample(2000, {"y": y})["x"]
    assert drawn.mean() == pytest.approx(2 * y / 4.25, abs=0.08)
    assert drawn.std() == pytest.approx((0.25 / 4.25) ** 0.5, abs=0.1)


@pytest.mark.parametrize(("sign", "side"), [("up", 1), ("down", -1)])
def test_given_a_level(dependent, sign, side):
    """E[x|up] is 2 E[x Phi(x / 0.3)] = (2 / pi) ** 0.5 / 1.09 ** 0.5, and E[y|up] twice that."""
    drawn = dependent.sample(4000, {"sign": sign})
    expected = side * (2 / np.pi) ** 0.5 / 1.09**0.5
    assert drawn["x"].mean() == pytest.approx(expected, abs=0.15)
    assert drawn["y"].mean() == pytest.approx(2 * expected, abs=0.3)


def test_given_nothing(dependent):
    """Means, spreads and the correlation of the table, 2 / 4.25 ** 0.5."""
    drawn = dependent.sample(4000)
    assert drawn["x"].mean() == pytest.approx(0, abs=0.15)
    assert drawn["x"].std() == pytest.approx(1, abs=0.15)
    assert drawn["x"].corr(drawn["y"]) == pytest.approx(2 / 4.25**0.5, abs=0.05)
    assert (drawn["sign"] == "up").mean() == pytest.approx(0.5, abs=0.08)


def test_density(dependent):
    """The mean log-density of complete rows is near that of the truth, which no other model exceeds on average."""
    generator, rows = np.random.default_rng(1), 500
    x, noise = generator.normal(size=(2, rows))
    new = pd.DataFrame({"x": x, "y": 2 * x + 0.5 * noise})
    truth = -0.5 * (x**2 + noise**2) - np.log(2 * np.pi) - np.log(0.5)
    score = dependent.score_samples(new.assign(sign=None).astype({"sign": object}), 2000).mean()
    assert truth.mean() - 0.2 < score < truth.mean() + 0.03
