"""Parquet files that are read in chunks: schema, scaling and rows as in memory, an order that can be resumed."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.data import (
    DataError,
    Schema,
    load,
    read_table,
    streamed_loading,
    table_loading,
    table_streams,
    table_summaries,
)
from pyrovae.data.parquet_files import ParquetTable
from pyrovae.data.row_numbers import draw_rows, hidden_entries
from pyrovae.data.table_loading import load_whole_table
from pyrovae.data.tables import TableCodec

pytest.importorskip("pyarrow")
LIKELIHOODS = {"tail": "log-normal", "count": "poisson", "grade": "normal", "whole": "student-t"}


def mixed(rows=900, seed=0):
    """A column of every kind and dtype, whose first rows do not have what the later ones have."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=rows)
    grades = ["low", "middle", "high"]
    frame = pd.DataFrame(
        {
            "id": np.arange(rows) + 0.5,
            "real": z.astype(np.float32),
            "tail": np.exp(2 * z),
            "count": rng.poisson(60, rows),
            "whole": np.rint(5000 * z),
            "Int": pd.array(rng.integers(-5, 400, rows), dtype="Int64"),
            "short": rng.integers(3, 9, rows).astype(np.uint8),
            "flag": z > 0,
            "boolean": pd.array(z > 0, dtype="boolean"),
            "text": rng.choice(list("abc"), rows),
            "string": pd.array(rng.choice(["one", "two"], rows), dtype="string"),
            "sort": pd.Categorical(rng.choice(list("xyz"), rows), categories=list("zyxw")),
            "grade": pd.Categorical(rng.choice(grades, rows), categories=grades, ordered=True),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 500, rows), unit="D"),
            "zone": pd.Timestamp("2020-01-01", tz="Europe/Paris")
            + pd.to_timedelta(rng.integers(0, 90, rows), unit="h"),
            "late": np.where(np.arange(rows) < 400, np.nan, z),
            "same": np.full(rows, 7),
            "none": np.full(rows, np.nan),
        },
    )
    frame.loc[frame.index[-1], "whole"] = -30000.25  # the smallest and the only one with a fraction
    frame.loc[frame.index[-2], "text"] = "rare"
    holes = rng.uniform(size=frame.shape) < 0.1
    for name in ("real", "count", "Int", "boolean", "text", "string", "sort", "grade", "day", "zone"):
        frame[name] = frame[name].mask(holes[:, frame.columns.get_loc(name)])
    return frame


@pytest.fixture
def chunks(folder, monkeypatch):
    """A folder with a file of 900 rows in groups of 200, of which at most 64 are read at once."""
    for module in (streamed_loading, table_streams):
        monkeypatch.setattr(module, "rows_at_once", lambda columns: 64)
    monkeypatch.setattr(table_summaries, "_MOST_NUMBERS", 500)
    mixed().to_parquet(folder / "t.parquet", row_group_size=200)
    return folder


def streamed(**options):
    return load("t.parquet", kind="table", stream=True, **options)


def table_ids(dataset, batches):
    """The column that tells the rows, in its own units."""
    x = torch.cat([rows.x[:, 0] for rows in batches]).double().numpy()
    scaler = dataset.stream.codec.scaler
    return np.rint(x * scaler.scale[0] + scaler.loc[0] - 0.5).astype(int)


def test_the_schema_is_that_of_the_whole_table(chunks):
    table, nothing = ParquetTable("t.parquet"), np.empty(0, np.int64)
    whole = Schema.infer(read_table("t.parquet"))
    found = streamed_loading.summarized(table, nothing)
    assert found.names == whole.names
    for column, same in zip(found.columns, whole.columns, strict=True):
        left, right = column.to_dict(), same.to_dict()
        if column.name == "tail":  # the skewness up to rounding is in the text
            assert left["why"][:60] == right["why"][:60]
        if column.name in ("id", "tail", "real"):  # more numbers than are kept
            left["why"] = right["why"] = ""
        assert left == right
    assert {*found.kinds.values()} >= {"real", "positive", "count", "binary", "categorical", "ordinal", "constant"}


def test_the_schema_is_that_of_the_training_rows_and_their_missing_words(chunks):
    dataset = streamed(validation=50, missing_words=["b"], column_kinds={"count": "real"})
    held = dataset.stream.held
    frame = read_table("t.parquet").drop(index=held)
    frame["text"] = frame["text"].mask(frame["text"] == "b")
    expected = Schema.infer(frame, kinds={"count": "real"})
    assert [c.to_dict() | {"why": ""} for c in dataset.stream.codec.schema.columns] == [
        c.to_dict() | {"why": ""} for c in expected.columns
    ]
    assert len(held) == 140
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (760, 50, 90)


@pytest.mark.parametrize("scaling", ["standardize", "normalize", "none"])
def test_scaling_is_that_of_the_whole_table(chunks, scaling):
    dataset = streamed(scaling=scaling, likelihoods=LIKELIHOODS)
    codec = dataset.stream.codec
    frame = read_table("t.parquet").drop(index=dataset.stream.held)
    whole = TableCodec.fit(codec.schema, frame, likelihoods=LIKELIHOODS, scaling=scaling)
    assert codec.families == whole.families
    for name in ("loc", "scale"):
        np.testing.assert_allclose(getattr(codec.scaler, name), getattr(whole.scaler, name), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(getattr(codec, name), getattr(whole, name), rtol=1e-6, atol=1e-9)


def test_every_training_row_comes_once_in_a_pass(chunks):
    dataset = streamed(validation=0.1)
    held = dataset.stream.held
    expected = np.setdiff1d(np.arange(900), held)
    first, second = (table_ids(dataset, dataset.stream.batches(3, number, 32)) for number in (0, 1))
    assert sorted(first) == sorted(second) == expected.tolist()
    assert (first != second).any()
    assert (table_ids(dataset, dataset.stream.batches(4, 0, 32)) != first).any()
    # Rows of several row groups come together, and not in the order of the file.
    assert len({number // 200 for number in first[:64]}) > 2
    assert np.abs(np.diff(first)).mean() > 30
    frame = read_table("t.parquet")
    batch = next(dataset.stream.batches(3, 0, 32))
    same = dataset.stream.codec.rows(frame.iloc[first[:32]])
    assert torch.equal(batch.x, same.x)
    assert torch.equal(batch.mask, same.mask)
    sample = dataset.stream.codec.rows(frame.iloc[dataset.train.index.numpy()])
    assert torch.equal(dataset.train.x, sample.x)
    assert set(dataset.train.index.tolist()) == set(expected)
    assert dataset.spec.num_rows == len(expected)


@pytest.mark.parametrize("start", [0, 1, 7, 20, 25])
def test_a_pass_begins_with_any_batch(chunks, start):
    stream = streamed().stream
    whole = [rows.x for rows in stream.batches(3, 2, 32)]
    assert [len(x) for x in whole] == [32] * 25 + [10]
    rest = [rows.x for rows in stream.batches(3, 2, 32, start)]
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_hidden_entries_are_hidden_in_every_pass(chunks):
    dataset = streamed()
    hiding = dataset.stream.hiding(0.3, 11)
    for number in (0, 1):
        batches = [*hiding.batches(3, number, 32)]
        rows = table_ids(dataset, batches)
        full = torch.cat([part.mask for part in dataset.stream.batches(3, number, 32)]).numpy()
        mask = torch.cat([part.mask for part in batches]).numpy()
        assert (mask == full & ~hidden_entries(rows, mask.shape[1], 0.3, 11)).all()
        assert 0.25 < 1 - mask.sum() / full.sum() < 0.35


def test_rows_are_drawn_evenly_and_in_groups_of_their_own():
    test, validation, rest = draw_rows(10_000, (1000, 500, 10**9), seed=5)
    assert (len(test), len(validation), len(rest)) == (1000, 500, 8500)
    assert sorted([*test, *validation, *rest]) == list(range(10_000))
    assert (draw_rows(10_000, (1000, 0, 1), seed=5)[0] == test).all()
    assert (draw_rows(10_000, (1000,), seed=6)[0] != test).any()
    counts = np.histogram(test, bins=10, range=(0, 10_000))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-squared of 9 degrees of freedom, 0.1 %
    assert np.bincount(np.diff(test) == 1).tolist()[1] > 50  # neighbours come together as often as by chance


def test_large_files_are_streamed_and_the_log_says_so(chunks, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert load("t.parquet", kind="table").stream is None
    monkeypatch.setattr(streamed_loading, "STREAMED_FROM", 16_000)
    dataset = load("t.parquet", kind="table")
    assert dataset.stream is not None
    assert dataset.options["stream"] is True
    assert "t.parquet: 900 rows of 18 columns are read in chunks, as they are more than 16000 entries" in caplog.text
    kept = load("t.parquet", kind="table", stream=False)
    assert (kept.stream, kept.options["stream"]) == (None, False)
    again = load(**dataset.options)
    assert torch.equal(again.test.x, dataset.test.x)
    monkeypatch.setattr(streamed_loading, "MOST_HELD", 20)
    caplog.clear()
    assert len(load("t.parquet", kind="table", validation=60).test) == 20
    assert "20 rows for test, as more need not be held" in caplog.text


def test_a_large_file_to_evaluate_on_gives_some_of_its_rows(chunks, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    codec = streamed(test=0).stream.codec
    whole = load_whole_table("t.parquet", codec)
    monkeypatch.setattr(streamed_loading, "STREAMED_FROM", 100)
    monkeypatch.setattr(table_loading, "MOST_HELD", 30)
    some = load_whole_table("t.parquet", codec)
    assert (len(whole.test), len(some.test)) == (900, 30)
    numbers = np.rint(some.test.x[:, 0].double().numpy() * codec.scaler.scale[0] + codec.scaler.loc[0] - 0.5).astype(
        int
    )
    assert torch.equal(some.test.x, whole.test.x[numbers])
    assert torch.equal(some.test.mask, whole.test.mask[numbers])
    assert "t.parquet: 30 rows, drawn at random, are the test rows" in caplog.text


def test_some_columns_and_a_file_of_validation_rows(chunks):
    mixed(40, 3).to_parquet("more.parquet")
    dataset = streamed(columns=["tail", "id", "grade"], validation="more.parquet", test=0)
    assert dataset.stream.codec.schema.names == ("tail", "id", "grade")
    assert (len(dataset.validation), len(dataset.test), dataset.num_rows) == (40, 0, 900)


def test_files_that_are_refused(chunks):
    import pyarrow
    from pyarrow import parquet

    frame = mixed()
    (chunks / "none.parquet").write_bytes(b"a,b\n1,2\n")
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), "empty.parquet")
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [[1, 2], [3]]}), "lists.parquet")
    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), "twice.parquet")
    parquet.write_table(pyarrow.table({"a": [1, 1], "b": ["x", "x"]}), "constant.parquet")
    frame.assign(real=frame["real"].where(frame.index != 700, np.inf)).to_parquet(
        "infinite.parquet", row_group_size=200
    )
    pd.DataFrame({"a": [b"x", b"y"] * 50}).to_parquet("bytes.parquet")
    content = (chunks / "t.parquet").read_bytes()
    (chunks / "cut.parquet").write_bytes(content[: len(content) // 2])
    for name, words in {
        "gone": "there is no file gone.parquet",
        "none": r"none.parquet cannot be read as a Parquet file \(.+\)$",
        "cut": r"cut.parquet cannot be read as a Parquet file \(.+\)$",
        "empty": "empty.parquet has no rows",
        "lists": r"lists.parquet: column 'b' holds list<.*> values, which a table cannot have",
        "twice": "twice.parquet: the table has two columns 'a'",
        "constant": "constant.parquet: no column has two different values",
        "infinite": r"infinite.parquet: column 'real' has the value inf in row 700; replace infinite values",
        "bytes": r"bytes.parquet: column 'a' holds bytes objects",
    }.items():
        with pytest.raises((DataError, ValueError), match=words) as caught:
            load(f"{name}.parquet", kind="table", stream=True, test=0)
        assert "\n" not in str(caught.value)
    for options, words in {
        ("columns", ("id", "gone")): "t.parquet has no column 'gone'",
        ("validation", 890): r"t.parquet has 900 rows, and 90 for test and 890 for validation leave none",
    }.items():
        with pytest.raises(DataError, match=words):
            streamed(**dict([options]))
    for options, words in {
        ("column_kinds", "gone"): "kinds has 'gone', which is no column",
        ("column_kinds", "whole"): r"column 'whole' is of kind positive and holds values above 0, not -?\d+",
        ("likelihoods", "gone"): "likelihoods names 'gone'",
    }.items():
        value = "positive" if options[0] == "column_kinds" else "normal"
        with pytest.raises(ValueError, match=words):
            streamed(**{options[0]: {options[1]: value}})
    frame.to_csv("t.csv", index=False)
    with pytest.raises(ValueError, match=r"stream is for .parquet files, and t.csv is none"):
        load("t.csv", kind="table", stream=True)
    with pytest.raises(ValueError, match=r"stream is for .parquet files, and clinic is none"):
        load("clinic", stream=True)
    with pytest.raises(ValueError, match="stream is for tables"):
        load("digits", stream=True)


def test_too_many_levels(chunks, monkeypatch):
    monkeypatch.setattr(table_summaries, "MOST_LEVELS", 100)
    mixed().assign(text=[f"name {i}" for i in range(900)]).to_parquet("t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet: column 'text' has more than 100 different values, too many"):
        streamed()


def test_a_file_that_changes_is_noticed(chunks):
    stream = streamed().stream
    mixed().iloc[:300].to_parquet("t.parquet", row_group_size=200)
    with pytest.raises(DataError, match=r"t.parquet "):
        list(stream.batches(0, 0, 32))


@pytest.mark.parametrize("start", [0, 3, 17, 27])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_encode_their_rows_of_each_batch_alone(chunks, monkeypatch, size, start):
    """Together they have the batches of one process, in their order, the last one of few rows too."""
    stream = streamed(test=0.0, validation=0.1).stream.hiding(0.3, 5)
    whole, encoded = [*stream.batches(3, 1, 29, start)], []
    rows = TableCodec.rows
    monkeypatch.setattr(
        TableCodec, "rows", lambda codec, frame, **how: encoded.append(len(frame)) or rows(codec, frame, **how)
    )
    shares = [[*stream.batches(3, 1, 29, start, share=(rank, size))] for rank in range(size)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [len(part) for part in parts] == [
            (rank + 1) * len(batch) // size - rank * len(batch) // size for rank in range(size)
        ]
        assert torch.equal(torch.cat([part.x for part in parts]).nan_to_num(), batch.x.nan_to_num())
        assert torch.equal(torch.cat([part.mask for part in parts]), batch.mask)
        assert torch.equal(torch.cat([part.more["recorded"] for part in parts]), batch.more["recorded"])
    assert sum(encoded) <= sum(map(len, whole)) + 2 * size, "a block without own rows has one that tells the types"
