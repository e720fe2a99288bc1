"""Figures of tables: what they show is compared with pandas, scipy and counts by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pyrovae import plotting
from pyrovae.data.schema import Schema


def texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def drawn(figure):
    """The figure, once it has been laid out: its texts and its layout raise no warning."""
    figure.draw_without_rendering()
    return figure


def panels(figure) -> dict:
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def stairs(axes) -> list:
    return [patch.get_data() for patch in axes.patches]


def bars(axes, number: int) -> tuple[list[float], list[float]]:
    widths = [bar.get_width() for bar in axes.patches]
    return widths[:number], widths[number:]


def image(axes) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    size = generator.normal(10, 2, 200)
    frame = pd.DataFrame(
        {
            "size $ per $": size,
            "weight": 3 * size + generator.normal(0, 1, 200),
            "visits": generator.poisson(60, 200),
            "colour": np.where(size + generator.normal(0, 1, 200) > 10, "red", "blue"),
            "shape": generator.choice(["round", "flat", "long"], 200),
            "seen": pd.Timestamp("2020-02-01") + pd.to_timedelta(generator.integers(0, 900, 200), "D"),
            "same": 1.0,
            "empty": np.nan,
        }
    )
    return frame.mask(generator.random(frame.shape) < 0.1)


@pytest.fixture(scope="module")
def schema(table) -> Schema:
    return Schema.infer(table)


# -- marginals --------------------------------------------------------------------------------------------------------


def test_marginals_share_bins_and_count_every_entry(table, schema):
    real, generated = table[:120], table[120:]
    figure = drawn(plotting.marginals(real, generated, schema))
    shown = panels(figure)
    assert list(shown) == [r"size \$ per \$", "weight", "visits", "colour", "shape", "seen"]
    assert figure.get_suptitle() == "Marginals of 6 of 8 columns: 120 real and 80 generated rows"
    first, second = stairs(shown["weight"])
    np.testing.assert_array_equal(first.edges, second.edges)
    for part, frame in ((first, real), (second, generated)):
        values = frame["weight"].dropna()
        assert math.isclose(part.values.sum(), 1)
        below = (values < part.edges[3]).mean()
        assert math.isclose(part.values[:3].sum(), below)
    assert shown["seen"].get_xlabel().startswith("days from 20")
    assert shown["weight"].get_ylabel() == "share"
    assert texts(figure.legends[0].texts) == ["real", "generated"]


def test_marginals_of_levels_stand_in_order_of_the_real_ones(table, schema):
    axes = panels(plotting.marginals(table[:120], table[120:], schema))["shape"]
    counts = table["shape"][:120].value_counts(normalize=True)
    names = texts(axes.get_yticklabels())
    assert sorted(names) == ["flat", "long", "round"]
    first, second = bars(axes, 3)
    np.testing.assert_allclose(first, sorted(counts, reverse=True))
    np.testing.assert_allclose(first, [counts[name] for name in names])
    np.testing.assert_allclose(second, [(table["shape"][120:].dropna() == name).mean() for name in names])


def test_marginals_put_rare_levels_together():
    names = [f"level {number}" for number in range(15) for _ in range(20 - number)]
    frame = pd.DataFrame({"level": names})
    (axes,) = plotting.marginals(frame, frame[:20], Schema.infer(frame)).axes
    assert texts(axes.get_yticklabels()) == [*(f"level {number}" for number in range(12)), "other"]
    first, second = bars(axes, 13)
    np.testing.assert_allclose(first, np.array([*range(20, 8, -1), 8 + 7 + 6]) / len(names))
    np.testing.assert_allclose(second, [1.0] + [0.0] * 12)


def test_marginals_keep_the_order_of_ordered_levels():
    dtype = pd.CategoricalDtype(["low", "mid", "never", "high"], ordered=True)
    frame = pd.DataFrame({"grade": pd.Series(["high", "high", "mid", "low", "mid", "high"], dtype=dtype)})
    (axes,) = plotting.marginals(frame, frame, Schema.infer(frame)).axes
    assert texts(axes.get_yticklabels()) == ["low", "mid", "high"]  # a level that does not occur is left out
    np.testing.assert_allclose(bars(axes, 3)[0], [1 / 6, 2 / 6, 3 / 6])


def test_marginals_clip_a_few_large_numbers_and_say_so():
    frame = pd.DataFrame({"x": np.r_[np.linspace(0.5, 1.5, 998), 1000.0, -1000.0]})
    (axes,) = plotting.marginals(frame, frame, Schema.infer(frame, kinds={"x": "real"})).axes
    part = stairs(axes)[0]
    np.testing.assert_allclose(part.edges[[0, -1]], np.percentile(frame["x"], [1, 99]))
    assert math.isclose(part.values[-1], (frame["x"] >= part.edges[-2]).mean())  # what lies beyond is counted
    assert math.isclose(part.values[0], (frame["x"] < part.edges[1]).mean())
    assert axes.get_xlabel() == "clipped at 1 % and 99 %"
    (axes,) = plotting.marginals(frame[:998], frame[:998], Schema.infer(frame, kinds={"x": "real"})).axes
    assert axes.get_xlabel() == ""


def test_bins_of_whole_numbers_hold_equally_many():
    frame = pd.DataFrame({"n": list(range(0, 61)) * 20})
    (axes,) = plotting.marginals(frame, frame, Schema.infer(frame, kinds={"n": "count"})).axes
    part = stairs(axes)[0]
    assert set(np.diff(part.edges)) == {4.0}
    np.testing.assert_allclose(part.values, [4 / 61] * 15 + [1 / 61])


def test_marginals_of_many_columns_name_how_many():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 30)), columns=[f"c{number}" for number in range(30)])
    figure = drawn(plotting.marginals(frame, frame, Schema.infer(frame)))
    assert len(figure.axes) == 24
    assert figure.get_suptitle().startswith("Marginals of 24 of 30 columns")


# -- associations -----------------------------------------------------------------------------------------------------


def test_associations_are_those_of_scipy(table, schema):
    figure = drawn(plotting.associations(table, table[:50], schema))
    left, right, bar = figure.axes
    names = texts(left.get_yticklabels())
    assert names == [r"size \$ per \$", "weight", "visits", "colour", "shape", "seen"]
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 1)
    matrix = image(left)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.diagonal(), 1)
    both = table[["size $ per $", "visits"]].dropna()
    expected = stats.spearmanr(both["size $ per $"], both["visits"])[0]
    assert math.isclose(matrix[0, 2], abs(expected), rel_tol=1e-9)
    counts = pd.crosstab(table["colour"], table["shape"]).to_numpy()
    assert math.isclose(matrix[3, 4], stats.contingency.association(counts, method="cramer"), rel_tol=1e-9)
    both = table[["weight", "shape"]].dropna()
    model = both.groupby("shape")["weight"].transform("mean")
    assert math.isclose(matrix[1, 4], np.corrcoef(model, both["weight"])[0, 1], rel_tol=1e-6)
    assert matrix[0, 1] > 0.9
    assert right.get_title().startswith("generated (mean difference 0.")
    assert "Cramer" in bar.get_ylabel()


def test_columns_that_do_not_vary_have_no_association():
    frame = pd.DataFrame({"a": [1.5, 2.5, 4.0, 3.0], "b": [4.0, 2.5, 9.5, 7.0]})
    figure = plotting.associations(frame, frame.assign(b=4.0), Schema.infer(frame, kinds=dict.fromkeys("ab", "real")))
    np.testing.assert_array_equal(image(figure.axes[1]), [[1, np.nan], [np.nan, np.nan]])
    assert figure.axes[1].get_title() == "generated"


# -- imputed against true ---------------------------------------------------------------------------------------------


def test_imputed_against_true_shows_hidden_entries_alone(table, schema):
    imputed = table.assign(weight=table["weight"] + 1, colour="red")
    hidden = np.zeros(table.shape, dtype=bool)
    hidden[:60] = True
    figure = drawn(plotting.imputed_against_true(table, imputed, hidden, schema))
    known = table[:60].notna().sum()
    shown = panels(figure)
    axes = shown[f"weight ({known['weight']})"]
    points, true = axes.collections[0].get_offsets(), table["weight"][:60].dropna()
    np.testing.assert_allclose(points, np.stack([true, true + 1], 1))
    diagonal = axes.lines[0].get_xydata()
    np.testing.assert_array_equal(diagonal[:, 0], diagonal[:, 1])
    assert axes.get_xlim() == axes.get_ylim() == tuple(diagonal[:, 0])
    axes = shown[f"colour ({known['colour']})"]
    names = texts(axes.get_yticklabels())
    expected = np.zeros((2, 2))
    expected[:, names.index("red")] = 1  # whatever was true
    np.testing.assert_array_equal(image(axes), expected)
    assert texts(axes.texts) == [f"{share:.2f}" for share in expected.ravel()]
    entries = known[["size $ per $", "weight", "visits", "colour", "shape", "seen"]].sum()
    title = f"Imputed against true values of 6 of 8 columns: {entries} hidden entries of 60 rows"
    assert figure.get_suptitle() == title
    assert next(axes for name, axes in shown.items() if name.startswith("seen")).get_ylabel() == "imputed, days"


def test_confusion_rows_are_shares_of_the_true_level():
    truth = pd.DataFrame({"x": ["a", "a", "a", "b", "b", "c"]})
    imputed = pd.DataFrame({"x": ["a", "a", "b", "b", "b", "b"]})
    (axes,) = plotting.imputed_against_true(truth, imputed, truth.notna(), Schema.infer(truth)).axes
    order = [texts(axes.get_yticklabels()).index(name) for name in "abc"]
    np.testing.assert_allclose(image(axes)[np.ix_(order, order)], [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 1, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("imputed", "true")


def test_imputed_against_true_refuses_other_shapes(table, schema):
    with pytest.raises(ValueError, match=r"one shape, got \(200, 8\), \(200, 8\) and \(200, 1\)"):
        plotting.imputed_against_true(table, table, np.ones((200, 1), dtype=bool), schema)
    assert plotting.imputed_against_true(table, table, np.zeros(table.shape, dtype=bool), schema) is None


# -- errors and intervals ---------------------------------------------------------------------------------------------


def test_errors_by_column_are_dots_of_their_method():
    errors = {"vae": {"b": 0.1, "a": 0.3, "gone": None}, "mean-mode": {"b": 0.2, "a": math.nan, "gone": math.nan}}
    figure = drawn(plotting.errors_by_column(errors, title="Errors"))
    (axes,) = figure.axes
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_xdata(), [0.1, 0.3])
    np.testing.assert_array_equal(second.get_xdata(), [0.2, np.nan])
    assert first.get_color() != second.get_color()
    np.testing.assert_array_equal(np.rint(first.get_ydata()), [0, 1])
    assert texts(axes.get_yticklabels()) == ["b", "a"]  # from the top
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert texts(figure.legends[0].texts) == ["vae", "mean-mode"]
    assert (axes.get_title(), "RMSE / range" in axes.get_xlabel()) == ("Errors", True)


def test_errors_of_many_columns_and_of_none():
    figure = plotting.errors_by_column({"vae": {f"c{number}": number / 50 for number in range(50)}})
    assert len(figure.axes[0].lines[0].get_xdata()) == 40
    assert figure.axes[0].get_title().endswith("the first 40 of 50 columns")
    assert plotting.errors_by_column({"vae": {"a": None}}) is None
    assert plotting.errors_by_column({}) is None


def test_interval_calibration_shows_shares_and_noise():
    figure = drawn(plotting.interval_calibration({0.9: 0.85, 0.5: 0.52}, 400))
    (axes,) = figure.axes
    diagonal, measured = axes.lines
    np.testing.assert_array_equal(measured.get_xydata(), [[0.5, 0.52], [0.9, 0.85]])
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    band = axes.collections[0].get_paths()[0].vertices
    at_half = band[np.isclose(band[:, 0], 0.5), 1]
    draws = np.random.default_rng(0).binomial(400, 0.5, 200_000) / 400
    np.testing.assert_allclose([at_half.min(), at_half.max()], np.quantile(draws, [0.025, 0.975]), atol=0.004)
    assert axes.get_title() == "Calibration of intervals: 400 entries"


@pytest.mark.parametrize("coverages", [{}, {0.9: 1.2}, {90: 0.9}, {0.9: math.nan}])
def test_interval_calibration_refuses_what_is_no_share(coverages):
    with pytest.raises(ValueError, match=r"at least one level|between 0 and 1"):
        plotting.interval_calibration(coverages, 100)


# -- tables with little in them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"same": [1.0, 1.0], "empty": [np.nan, np.nan]}),
        pd.DataFrame({"x": [1.0, 2.5]}),
        pd.DataFrame({"x": [1.0, 2.5], "y": [0.3, 0.1]}),
        pd.DataFrame({"x": ["a", "b"], "y": [0.3, np.nan]}),
        pd.DataFrame({"x": ["a", "b", None], "y": [None, None, 0.5], "z": [0.5, 1.5, np.nan]}),
    ],
)
@pytest.mark.parametrize("generated", ["same", "missing", "none"])
def test_small_tables_are_drawn_or_left_out(frame, generated):
    schema = Schema.infer(frame)
    other = {"same": frame, "missing": frame.mask(frame.notna()), "none": frame[:0]}[generated]
    figures = [plotting.marginals(frame, other, schema), plotting.associations(frame, other, schema)]
    if generated != "none":
        figures.append(plotting.imputed_against_true(frame, other, np.ones(frame.shape, dtype=bool), schema))
    for figure in figures:
        if figure is not None:
            drawn(figure)
    usable = {"real", "positive", "count", "binary", "categorical", "ordinal"} & set(schema.kinds.values())
    assert (figures[0] is None) == (not usable)
