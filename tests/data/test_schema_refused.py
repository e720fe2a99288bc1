"""Tables, wishes and stored schemas that do not fit: one clear line for each."""

import numpy as np
import pandas as pd
import pytest
from schema_table import NOW, mixed

from pyrovae.data.schema import Schema
from pyrovae.data.tables import families_of

# Wishes, and what the message says.
BAD_WISHES = {
    "unknown kind": ({"kinds": {"age": "number"}}, r"kinds\['age'\] must be one of real, positive, .* not 'number'"),
    "unknown column": ({"kinds": {"agee": "count"}}, "kinds has 'agee', which is no column; columns are age, grade"),
    "number of texts": ({"kinds": {"grade": "real"}}, "'grade' holds values of the dtype .* so it cannot be real"),
    "order of texts": ({"kinds": {"grade": "ordinal"}}, "'grade' holds texts, so their order is not known"),
    "binary of four": ({"kinds": {"age": "binary"}}, "'age' cannot be binary: its levels are 20, 35"),
    "count of fractions": ({"kinds": {"weight": "count"}}, "'weight' is of kind count and holds whole numbers from 0"),
    "unknown level": ({"levels": {"grade": ["low", "high"]}}, "'grade': it has the value 'mid', which is none of the"),
    "levels twice": ({"levels": {"grade": ["low", "low"]}}, "'grade': levels must differ, but 'low' stands twice"),
    "one level": ({"levels": {"grade": ["low"]}}, "'grade': levels must be two or more"),
    "levels of text": ({"levels": {"grade": "low"}}, "'grade': levels must be a sequence"),
    "levels of another type": ({"levels": {"age": ["20", "35"]}}, "'age': levels must be numbers as its values are"),
    "fraction as level": ({"levels": {"age": [20, 35, 64, 81, 2.5]}}, "'age': levels must be whole numbers"),
    "other categories": ({"levels": {"self": ["a", "b", "d"]}}, "'self': levels must be its categories 'a', 'b', 'c'"),
    "range of levels": ({"ranges": {"grade": (0, 1)}}, "'grade' has levels, so it has no range"),
    "range reversed": ({"ranges": {"age": (120, 0)}}, r"ranges\['age'\] must be \(low, high\), not \(120, 0\)"),
    "range of text": ({"ranges": {"age": ("0", 9)}}, r"ranges\['age'\] must hold numbers or None, not '0'"),
    "outside": ({"ranges": {"age": (0, 50)}}, "'age' has 64 in row 5, outside of its declared range"),
}


@pytest.mark.parametrize("case", BAD_WISHES)
def test_wishes_that_do_not_fit(case):
    wishes, message = BAD_WISHES[case]
    with pytest.raises((TypeError, ValueError), match=message):
        Schema.infer(mixed(), **wishes)


# A table that nothing can be inferred from, and what the message says.
BAD_TABLES = {
    "no rows": (mixed()[:0], "the table has no rows"),
    "no columns": (mixed()[[]], "the table has no columns"),
    "one dimension": (np.zeros(3), r"must have two dimensions, rows and columns, not the shape \(3,\)"),
    "no table": ([1, 2], "must be a DataFrame or an array of rows and columns, not list"),
    "names twice": (mixed()[["age", "age"]], "the table has two columns 'age'"),
    "numbered": (mixed().set_axis([1, "b", "c", "d"], axis=1), "names of columns must be texts, not 1"),
    "infinite": (pd.DataFrame({"a": [1.0, np.inf, 2.0]}), "'a' has the value inf in row 1; replace infinite values"),
    "lists": (pd.DataFrame({"a": [None, [1, 2]]}), r"'a' holds list objects, for example \[1, 2\] in row 1"),
    "numbers, texts": (
        pd.DataFrame({"a": [1, None, 2, "b"]}, dtype=object),
        "'a' mixes numbers and texts: 1 in row 0 and 'b' in row 3",
    ),
    "bools, numbers": (pd.DataFrame({"a": [True, 2]}, dtype=object), "mixes bools and numbers: True in row 0 and 2 in"),
    "periods": (pd.DataFrame({"a": pd.period_range("2020", periods=2, freq="M")}), r"dtype period\[M\], which a table"),
    "intervals": (pd.DataFrame({"a": pd.cut([1, 2, 9], 2)}), "'a': levels must be bools, numbers or texts, not"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_tables_that_are_refused(case):
    table, message = BAD_TABLES[case]
    with pytest.raises((TypeError, ValueError), match=message):
        Schema.infer(table)


# What is done to the table, options of `encode`, and what the message says.
BAD_ROWS = {
    "unseen level": (lambda f: f.assign(grade="top"), {}, "'grade' has the value 'top' in row 3, which is none of its"),
    "unseen type": (lambda f: f.assign(grade=1), {}, "'grade' has the value 1 in row 3, which is none of its levels"),
    "missing column": (lambda f: f.drop(columns="weight"), {}, r"the table lacks the column 'weight' \(1 of 4 are"),
    "extra column": (lambda f: f.assign(more=1), {}, "has the column 'more', which the schema does not have; extra="),
    "infinite": (lambda f: f.assign(weight=-np.inf), {}, "'weight' has the value -inf in row 3; replace"),
    "infinite, lax": (lambda f: f.assign(weight=-np.inf), {"unseen": "missing"}, "'weight' has the value -inf in row"),
    "text": (lambda f: f.assign(weight="heavy"), {}, "'weight' must hold numbers, not 'heavy' in row 3"),
    "a slip": (
        lambda f: f.assign(weight=["43.5", *["2.5"] * (len(f) - 2), "abc"]),
        {},
        "'weight' must hold numbers, not 'abc' in row",
    ),
    "numbers as texts": (lambda f: f.assign(weight="43.5"), {}, "'weight' must hold numbers, not '43.5' in row 3"),
    "date": (lambda f: f.assign(weight=NOW), {}, "'weight' must hold numbers, not .* in row 3"),
    "negative count": (lambda f: f.assign(age=-1), {}, "'age' is of kind count and holds whole numbers from 0, not -1"),
    "twice": (lambda f: pd.concat([f, f], axis=1), {}, "the table has two columns 'age'"),
    "bad extra": (lambda f: f, {"extra": "drop"}, "extra must be 'raise' or 'ignore', not 'drop'"),
    "bad unseen": (lambda f: f, {"unseen": "ignore"}, "unseen must be 'raise' or 'missing', not 'ignore'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_are_refused(case):
    change, options, message = BAD_ROWS[case]
    schema = Schema.infer(mixed())
    with pytest.raises((TypeError, ValueError), match=message):
        schema.encode(change(mixed()), **options)


# What is done to a stored schema, and what the message says.
BAD_STORED = {
    "no list": (lambda s: s.pop("columns"), "must be a dictionary with a list 'columns'"),
    "no column": (lambda s: s["columns"].clear(), "a schema needs columns"),
    "twice": (lambda s: s["columns"].append(s["columns"][0]), "a schema has two columns 'age'"),
    "kind": (lambda s: s["columns"][0].update(kind="number"), r"columns\[0\] \('age'\): kind must be one of real"),
    "lost": (lambda s: s["columns"][1].pop("dtype"), r"columns\[1\] \('grade'\): dtype is missing"),
    "unknown": (lambda s: s["columns"][1].update(lo=1), r"columns\[1\] \('grade'\): 'lo' is no field"),
    "type": (lambda s: s["columns"][0].update(low="0"), "low must be a number or a whole number or None, not '0'"),
    "reversed": (lambda s: s["columns"][0].update(low=1e9), "low must be at most high, not 1000000000.0"),
    "not finite": (lambda s: s["columns"][0].update(high=float("nan")), "high must be finite, not nan"),
    "few levels": (lambda s: s["columns"][1].update(levels=["a"]), "levels must be two or more for the kind"),
    "no levels": (lambda s: s["columns"][1].update(levels=None), "levels must be two or more for the kind"),
    "text as levels": (lambda s: s["columns"][1].update(levels="ab"), "levels must be a list or null, not 'ab'"),
    "mixed levels": (lambda s: s["columns"][1].update(levels=["a", 1]), "levels must be all of one type, but they"),
    "origin": (lambda s: s["columns"][0].update(origin="once"), "origin must be a time such as .* not 'once'"),
}


@pytest.mark.parametrize("case", BAD_STORED)
def test_stored_schemas_that_are_damaged(case):
    change, message = BAD_STORED[case]
    stored = Schema.infer(mixed()).to_dict()
    change(stored)
    with pytest.raises((TypeError, ValueError), match=message):
        Schema.from_dict(stored)


# Likelihoods of the columns of the table, and what the message says.
BAD_LIKELIHOODS = {
    "another name": ({"agee": "normal"}, "'agee', which is no column and no kind"),
    "for another kind": ({"grade": "normal"}, "column 'grade' is categorical: its likelihood is one of categ"),
    "unknown": ({"age": "cauchy"}, r"column 'age' is .*: its likelihood is one of normal, .* not 'cauchy'"),
}


@pytest.mark.parametrize("case", BAD_LIKELIHOODS)
def test_likelihoods_that_do_not_fit(case):
    likelihoods, message = BAD_LIKELIHOODS[case]
    with pytest.raises(ValueError, match=message):
        families_of(Schema.infer(mixed()), likelihoods)
