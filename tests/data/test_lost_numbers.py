"""Numbers that were lost on their way from a file or a table to the model, or back."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae import data
from pyrovae.data import Schema
from pyrovae.data.arrays import rows_of
from pyrovae.data.download import DataError
from pyrovae.data.scaling import ScalingMoments, TableScaler
from pyrovae.estimators import VAEClassifier, VAEImputer
from pyrovae.estimators.baselines import impute_with


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ending", ["csv", "npy"])
def test_files_of_numbers_that_single_precision_blurs(here, ending):
    times = np.stack([1.6e9 + np.arange(200.0), np.linspace(0.0, 1.0, 200)], 1)
    same = np.stack(
        [np.full(200, 1.6e9 + 0.1), np.linspace(0.0, 1.0, 200)], 1
    )  # which is blurred, and varies by nothing
    for name, rows in (("times", times), ("same", same)):
        if ending == "csv":
            pd.DataFrame(rows, columns=["t", "a"]).to_csv(f"{name}.csv", index=False)
        else:
            np.save(f"{name}.npy", rows)
    with pytest.raises(DataError, match=rf"entry 0 of times.{ending} is about 1.6e\+09 and varies by 58"):
        data.load(f"times.{ending}", validation=0, test=0)
    assert len(data.load(f"same.{ending}", validation=0, test=0).train) == 200


def test_names_that_are_numbers_are_no_row(here):
    rows = np.random.default_rng(0).normal(size=(50, 5))
    pd.DataFrame(rows, columns=[400.0, 400.5, 401.0, 401.5, 402.0]).to_csv("spectra.csv", index=False)
    with pytest.raises(
        DataError,
        match=r"its first line, 400.0, 400.5, ..., has equal steps or .*, so it may hold names or a row",
    ):
        data.load("spectra.csv", validation=0, test=0)
    np.savetxt("plain.csv", rows, delimiter=",")
    assert len(data.load("plain.csv", validation=0, test=0).train) == 50
    np.savetxt("lines.csv", np.arange(5.0) * np.arange(1, 9)[:, None], delimiter=",")  # all rows have equal steps
    assert len(data.load("lines.csv", validation=0, test=0).train) == 8


@pytest.mark.parametrize("values", [2.0**53 + 2 * np.arange(120), np.full(108, 12345678901234567890.0)])
def test_large_numbers_are_scaled_by_what_they_vary_by(values):
    moments = ScalingMoments(("normal",))
    for part in np.array_split(values[:, None], 3):
        moments.add(part)
    for scaler in (TableScaler.fit(values[:, None], ("normal",)), moments.scaler()):
        found = scaler.transform(values[:, None])
        spread = (values - values[0]).std()
        assert np.abs(found.mean()) < 0.05
        assert found.std() == pytest.approx(1.0 if spread else 0.0, abs=1e-3)


def test_atoms_come_back_as_they_were():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    z = np.where(rng.random(200) < 0.4, 0.0, np.where(rng.random(200) < 0.3, 0.1234567890123456, np.exp(a)))
    table = pd.DataFrame({"a": a, "z": z})
    table.loc[::3, "z"] = np.nan
    imputer = VAEImputer(marginals="quantile", epochs=5, num_nets=1, trees=False, random_state=0).fit(table)
    drawn = imputer.sample(2000, random_state=0).z
    assert (drawn == 0).mean() > 0.2
    assert not ((drawn != 0) & (drawn.abs() < 1e-6)).any()
    assert (drawn == 0.1234567890123456).mean() > 0.05
    for atom in (0.0, 0.1, 1e6, -3.25, 0.1234567890123456):
        scaler = TableScaler((0.3371,), (2.0199,))
        assert scaler.exactly((atom - 0.3371) / 2.0199, 0) == atom


@pytest.mark.parametrize(
    "texts",
    [
        [f"{number:.3f}".replace(".", ",") for number in np.linspace(1, 9, 60)],
        [f"{number:g}".replace(".", ",") for number in np.arange(0, 30, 0.5)],
        [f"{number:,.2f}" for number in np.linspace(500, 2000, 60)],
        [f"{number:.2e}".replace(".", ",") for number in np.linspace(-1, 1, 60)],
    ],
    ids=["decimal", "some", "thousands", "exponent"],
)
def test_numbers_with_a_comma_are_no_levels(texts):
    table = pd.DataFrame({"a": texts, "b": np.arange(60.0)})
    with pytest.raises(ValueError, match=r"column 'a' holds texts such as '.*,.*', perhaps numbers with a comma"):
        Schema.infer(table)
    assert Schema.infer(table, kinds={"a": "categorical"}).columns[0].kind == "categorical"
    table["a"] = [f"item {text}" for text in texts]
    assert Schema.infer(table).columns[0].kind == "categorical"


def test_noise_of_the_last_bit_is_nothing_that_is_lost(here):
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 300)
    np.save("shares.npy", np.concatenate([shares, shares.sum(1, keepdims=True)], 1))
    assert len(data.load("shares.npy", validation=0, test=0).train) == 300


def test_a_hidden_infinity_hides_no_blurred_entry(here):
    rows, mask = np.stack([1.6e9 + np.arange(200.0), np.zeros(200)], 1), np.ones((200, 2), dtype=bool)
    rows[3, 1], mask[3, 1] = np.inf, False
    np.savez("times.npz", x=rows, mask=mask)
    with pytest.raises(DataError, match=r"entry 0 of times\.npz is about"):
        data.load("times.npz", validation=0, test=0)


def test_a_first_row_of_equal_steps_among_others_of_its_kind(here):
    rng = np.random.default_rng(0)
    ranks = np.stack([np.arange(1, 7), *(rng.permutation(6) + 1 for _ in range(20))])
    np.savetxt("ranks.csv", ranks, delimiter=",", fmt="%d")
    assert len(data.load("ranks.csv", validation=0, test=0).train) == 21


@pytest.mark.parametrize("start", [2**24, 2**53, 2**60, -(2**62)])
@pytest.mark.parametrize("form", ["npz", "csv", "frame", "array"])
def test_whole_numbers_that_are_too_large(here, start, form):
    """Their places in floating point are farther apart than they are."""
    x = np.stack([start + np.arange(40), np.arange(40)], 1)
    if form == "npz":
        np.savez("ids.npz", x=x)
    pd.DataFrame(x, columns=["id", "a"]).to_csv("ids.csv", index=False)
    read = {
        "frame": lambda: rows_of(pd.DataFrame(x)),
        "array": lambda: rows_of(x),
    }.get(form, lambda: data.load(f"ids.{form}", validation=0, test=0))
    with pytest.raises(
        (ValueError, DataError), match=r"entry 0 of .* is about .* and varies by 12, which .* would blur"
    ):
        read()


def test_holes_among_whole_numbers_that_are_too_large(here):
    """pandas makes floats of them; extension types and masked arrays keep them."""
    numbers = [2**60 + i for i in range(40)]
    (here / "holes.csv").write_text("id,a\n" + "".join(f"{'' if i == 3 else n},{i}\n" for i, n in enumerate(numbers)))
    with pytest.raises(DataError, match=r"entry 0 of holes.csv is about .* would blur"):
        data.load("holes.csv", validation=0, test=0)
    column = pd.array([*numbers, None], dtype="Int64")
    with pytest.raises(ValueError, match=r"entry 1 of the data is about .* would blur"):
        rows_of(pd.DataFrame({"a": 1.0, "id": column}))
    masked = np.ma.masked_array([[n] for n in numbers], [[i == 3] for i in range(40)])
    with pytest.raises(ValueError, match="would blur"):
        rows_of(masked)
    assert rows_of(masked - 2**60).mask.sum() == 39


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0]])
def test_unsigned_numbers_in_any_order(order):
    x = np.array([2**63 + 2**32 + 3, 2**63 + 2**32 - 3, 2**63 + 2**32 + 1], dtype=np.uint64)[order, None]
    with pytest.raises(ValueError, match="would blur"):
        rows_of(x)


def test_large_whole_numbers_that_are_kept(here):
    """A column that is always the same, and one whose steps are as large as its numbers."""
    x = np.stack([np.full(40, 2**60 + 1), 2**62 - 2**56 * np.arange(40)], 1)
    np.savez("ids.npz", x=x)
    loaded = data.load("ids.npz", validation=0, test=0).train.x
    assert [len(column.unique()) for column in loaded.T] == [1, 40]
    assert rows_of(x).x.T[1].unique().numel() == 40


def test_masked_entries_are_missing():
    """Of arrays of NumPy, whose hidden values say nothing."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:, 1] += x[:, 0]
    mask = np.zeros_like(x, bool)
    mask[7, 0] = True
    hidden, missing = np.ma.masked_array(np.where(mask, 1e4, x), mask), np.where(mask, np.nan, x)
    assert torch.equal(rows_of(hidden).x, rows_of(missing).x)
    assert torch.equal(rows_of(hidden).mask, ~torch.from_numpy(mask))
    assert rows_of(np.ma.masked_array(x)).mask is None
    options = {"epochs": 2, "num_nets": 1, "trees": False, "hidden": (8,), "n_components": 2, "random_state": 0}
    fitted = [VAEImputer(**options, num_samples=5).fit(table) for table in (hidden, missing)]
    filled = [imputer.transform(table) for imputer in fitted for table in (hidden, missing)]
    assert all(np.array_equal(one, filled[0]) for one in filled)
    means = [impute_with("mean-mode", table, table, ["real", "real"]) for table in (hidden, missing)]
    assert np.array_equal(*means)
    with pytest.raises(ValueError, match="NaN"):
        VAEClassifier(epochs=1).fit(hidden, np.arange(60) % 2)


@pytest.mark.parametrize("kind", [None, "table"])
def test_an_empty_line_of_one_column(here, kind):
    """It may be a row; quotes say that it is one, and lines at the end are nothing."""
    cells = [f"{i + 0.25}" for i in range(60)]
    texts = {
        "empty": ["v", *cells[:5], "", *cells[5:]],
        "blank": ["v", *cells[:5], "  ", *cells[5:]],
        "quoted": ["v", *cells[:5], '""', *cells[5:]],
        "end": ["v", *cells, "", " ", ""],
        "start": ["", "", "v", *cells],
    }
    for name, lines in texts.items():
        (here / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options = {"validation": 0, "test": 0, **({} if kind is None else {"kind": kind})}
    for name in ("empty", "blank"):
        with pytest.raises(DataError, match="line 7 is empty, which may be a missing value or nothing"):
            data.load(f"{name}.csv", **options)
    quoted = data.load("quoted.csv", **options).train
    assert len(quoted) == 61
    assert (~quoted.mask).sum() == 1
    assert not quoted.mask[5].any()
    for name in ("end", "start"):
        assert len(data.load(f"{name}.csv", **options).train) == 60


def test_columns_of_one_name():
    with pytest.raises(ValueError, match="the data have two columns 'a'; give every column a name of its own"):
        rows_of(pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"]))


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_numbers_that_pandas_writes_for_want_of_names_are_no_row(tmp_path, monkeypatch, columns):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(5, columns))
    pd.DataFrame(values).to_csv("lines.csv", index=False)
    if columns == 3:
        assert data.load("lines.csv", validation=0, test=0).train.x.shape == (5, 3)
    else:
        with pytest.raises(DataError, match="so it may hold names or a row"):
            data.load("lines.csv", validation=0, test=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["a", "a"]}, "columns names 'a' twice"),
        ({"columns": ["a", "c"], "label_column": "c"}, "the column 'c' is that of the labels"),
    ],
)
def test_columns_that_are_asked_for_twice(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"a": [0.5, 1.5, 2.5], "b": [0.1, 0.2, 0.3], "c": [0, 1, 0]}).to_csv("lines.csv", index=False)
    with pytest.raises(DataError, match=message):
        data.load("lines.csv", validation=0, test=0, **options)
