"""A frame of every kind of column with holes, and an imputer that is made with few passes."""

import numpy as np
import pandas as pd

from pyrovae.estimators.imputer import VAEImputer

QUICK = {"n_components": 2, "hidden": (16,), "trees": False, "epochs": 3, "batch_size": 32, "random_state": 0}
COMPLETE = ("int",)
NUMBERS = ("real", "tail", "int", "Int", "day")


def mixed(rows=60, seed=0):
    """Ints, nullable ints, bools, texts, categories with and without an order, dates, objects, constants, nothing."""
    generator = np.random.default_rng(seed)
    grades = ["low", "middle", "high"]
    real = generator.normal(size=rows)
    frame = pd.DataFrame(
        {
            "real": real,
            "tail": np.exp(2 * real + generator.normal(size=rows)),
            "int": generator.integers(0, 90, rows),
            "Int": pd.array(generator.integers(-5, 90, rows), dtype="Int64"),
            "flag": pd.array(real > 0, dtype="boolean"),
            "text": pd.array(generator.choice(list("abc"), rows), dtype="string"),
            "sort": pd.Categorical(generator.choice(list("xyz"), rows), categories=list("zyxw")),
            "grade": pd.Categorical(generator.choice(grades, rows), categories=grades, ordered=True),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(generator.integers(0, 500, rows), unit="D"),
            "object": np.array(generator.choice(["u", "v", "w"], rows), dtype=object),
            "same": np.full(rows, 7.5),
            "none": np.full(rows, np.nan),
        },
        index=[f"row {i}" for i in range(rows)],
    )
    frame["object"] = frame["object"].astype(object)
    holes = generator.uniform(size=frame.shape) < 0.3
    for column, name in enumerate(frame.columns):
        if name not in COMPLETE:
            frame.loc[holes[:, column], name] = None
    return frame


def imputer(**options):
    """An imputer, not fitted."""
    return VAEImputer(**{**QUICK, **options})


def assert_same(left, right):
    """Levels equal, numbers close."""
    pd.testing.assert_frame_equal(left, right, rtol=1e-9, atol=0, check_exact=False)
