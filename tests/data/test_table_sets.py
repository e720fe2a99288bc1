"""Tables as data sets: by name, from files, with their typing, and again from their options."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from dataset_checks import INFO, assert_equal

from pyrovae.data import DataError, load, load_to_evaluate
from pyrovae.data.clinic import clinic
from pyrovae.data.tables import TableCodec

EMBEDDED = ("iris", "wine", "breast-cancer", "diabetes", "clinic")
ON_DISK = ("avocado", "bank", "bank-full", "boston", "energy", "adult", "breast", "default-credit", "letter")


def assert_as_described(dataset):
    info = INFO[dataset.name]
    assert (dataset.kind, tuple(dataset.shape)) == (info.kind, info.shape)
    assert tuple(len(split) for split in dataset.splits().values()) == info.sizes
    for split in dataset.splits().values():
        assert split.x.dtype == torch.float32
        assert split.x.isfinite().all()
        assert split.mask.shape == split.x.shape


@pytest.fixture
def table(folder):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "price": rng.normal(5, 2, 50).round(2),
            "number": rng.integers(0, 4, 50),
            "shop": rng.choice(["A", "B", "unknown"], 50),
        }
    )
    frame.loc[:9, "price"] = np.nan
    frame.to_csv("table.csv", index=False)
    return frame


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded(name):
    dataset = load(name)
    assert_as_described(dataset)
    assert_equal(dataset, load(**json.loads(json.dumps(dataset.options))))
    assert not torch.equal(dataset.test.x, load(name, seed=1).test.x)


@pytest.mark.parametrize("name", ON_DISK)
def test_on_disk(name):
    if not Path(os.environ.get("PYROVAE_DATA") or "/nowhere").is_dir():
        pytest.skip("$PYROVAE_DATA does not name a folder with the data sets")
    dataset = load(name)
    assert_as_described(dataset)
    if name == "avocado":
        assert TableCodec.from_dict(dataset.schema).schema["Date"].origin is not None
    if name.startswith("bank"):
        levels = TableCodec.from_dict(dataset.schema).schema["contact"].levels
        assert ("unknown" in levels) == bool(dataset.train.mask.all()) == (name == "bank")


def test_holes_of_the_clinic():
    frame = clinic()
    assert 0.14 < frame.isna().to_numpy().mean() < 0.16
    assert frame.equals(clinic())
    young = frame.age < 45
    assert frame.glucose.isna()[young].mean() > frame.glucose.isna()[~young].mean() + 0.1, "not completely at random"
    kinds = load("clinic").schema["schema"]["columns"]
    assert {column["kind"] for column in kinds} == {"real", "positive", "count", "binary", "categorical", "ordinal"}


def test_schema_and_scaling_are_those_of_the_training_rows(table):
    dataset = load("table.csv", kind="table", test=10, validation=0.2, column_kinds={"number": "count"})
    assert [len(split) for split in dataset.splits().values()] == [30, 10, 10]
    assert (dataset.name, dataset.spec.kind, dataset.num_classes) == ("table", "table", None)
    codec = TableCodec.from_dict(dataset.schema)
    assert codec.schema.kinds == {"price": "real", "number": "count", "shop": "categorical"}
    price, seen = dataset.train.x[:, 0], dataset.train.mask[:, 0]
    assert float(price[seen].mean()) == pytest.approx(0, abs=1e-5)
    assert float(price[seen].std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert (price[~seen] == 0).all()
    values = codec.scaler.inverse_transform(torch.cat([s.x for s in dataset.splits().values()]).double().numpy())
    assert sorted(values[:, 1].round()) == sorted(table.number)
    assert "seen" in dataset.seen("train").more
    assert_equal(dataset, load(**json.loads(json.dumps(dataset.options))))


def test_a_level_that_no_training_row_has_is_missing(table, caplog):
    table.loc[0, "shop"] = "new"
    table[:1].to_csv("test.csv", index=False)
    table[1:].to_csv("train.csv", index=False)
    with caplog.at_level("INFO", logger="pyrovae"):
        dataset = load("train.csv", kind="table", test=Path("test.csv"))
    assert dataset.test.mask.tolist() == [[False, True, False]]
    told = "train.csv: 1 values of the test rows stand in no training row; taken as missing (1 of "
    assert told in caplog.text
    assert load(**json.loads(json.dumps(dataset.options))).test.mask.tolist() == dataset.test.mask.tolist()


def test_columns_and_missing_words(table):
    dataset = load("table.csv", kind="table", columns=["shop", "price"], missing_words=["unknown"], scaling="none")
    codec = TableCodec.from_dict(dataset.schema)
    assert codec.schema.names == ("shop", "price")
    assert codec.schema["shop"].levels == ("A", "B")
    observed = torch.cat([split.mask for split in dataset.splits().values()])
    assert int(observed[:, 0].sum()) == int((table["shop"] != "unknown").sum())
    assert codec.scaler.scale == (1.0, 1.0)


def test_other_data_are_scaled_as_those_of_the_run(table):
    dataset = load("table.csv", kind="table")
    table.head(4).assign(price=100.0).to_csv("other.csv", index=False)
    other = load_to_evaluate("other.csv", dataset.options, "table", dataset.schema)
    assert [len(split) for split in other.splits().values()] == [0, 0, 4]
    assert other.schema == dataset.schema
    scaler = TableCodec.from_dict(dataset.schema).scaler
    assert other.test.x[:, 0].tolist() == pytest.approx([(100.0 - scaler.loc[0]) / scaler.scale[0]] * 4)


def test_compressed_files_and_names(table):
    table.to_csv("mine.csv.gz", index=False)
    assert load("mine.csv.gz", kind="table").name == "mine"
    with pytest.raises(DataError, match=r"there is no file gone.parquet"):
        load("gone.parquet", kind="table")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("table.csv", {"kind": "table", "pca": 2}, "pca is not for tables"),
        ("table.csv", {"kind": "table", "classes": ["a"]}, "classes is not for tables"),
        ("table.csv", {"scaling": "none"}, "scaling is for tables; ask for one with the kind 'table'"),
        ("iris", {"kind": "real"}, "kind is for data of your own; iris is a table"),
        ("iris", {"columns": ["target"]}, "columns is for data of your own"),
        ("iris", {"labels": 0.5}, "labels is not for tables"),
        ("iris", {"column_kinds": {"petal": "real"}}, "iris: kinds has 'petal', which is no column"),
        ("iris", {"scaling": "log"}, "iris: scaling must be one of standardize, normalize, none, got 'log'"),
        ("iris", {"validation": 200}, "iris has 150 rows, and 15 for test and 200 for validation leave none"),
        ("digits", {"likelihoods": {"real": "normal"}}, "likelihoods is for tables"),
    ],
)
def test_contradictions(name, options, message, table):
    with pytest.raises((ValueError, DataError), match=message):
        load(name, **options)
