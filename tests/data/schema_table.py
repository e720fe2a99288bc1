"""A table for the tests of schemas."""

import numpy as np
import pandas as pd

NOW = pd.Timestamp("2020-02-29 12:30")


def mixed():
    return pd.DataFrame(
        {
            "age": [20, 35, 64, 81],
            "grade": ["mid", "low", None, "high"],
            "weight": [60.5, np.nan, 71.25, 90.0],
            "self": pd.Categorical(["a", "b", "c", None]),
        },
        index=[3, 3, 5, 9],
    )
