"""A small table with real holes: patients of a clinic that nobody was treated in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

ROWS = 400
_SEED = 20240501


def clinic() -> pd.DataFrame:
    """Make the table. It is the same each time.

    Returns
    -------
    DataFrame
        400 rows and 12 columns: dates, whole numbers, numbers, bools, texts and ordered categories. About 15 % of the
        entries are missing, and not completely at random: smokers say less of smoking, blood is taken from those who
        are old or in pain, heavy patients are weighed less often, and a whole part of the form is left out at once.

    Examples
    --------
    >>> frame = clinic()
    >>> frame.shape, round(float(frame.isna().to_numpy().mean()), 2)
    ((400, 12), 0.15)
    """
    import pandas as pd

    rng = np.random.default_rng(_SEED)
    age = np.clip(rng.normal(52, 17, ROWS), 18, 95).round()
    female = rng.random(ROWS) < 0.54
    smokes = _choice(rng, np.stack([1.4 - 0.01 * (age - 50), 0.02 * (age - 45), 0.3 - 0.02 * (age - 50)], 1))
    bmi = 26 + 0.04 * (age - 50) + 4.2 * rng.standard_normal(ROWS) + 0.8 * rng.exponential(1.0, ROWS)
    height = np.where(female, 165.0, 178.5) + 6.8 * rng.standard_normal(ROWS)
    weight = bmi * (height / 100) ** 2
    diabetes = rng.random(ROWS) < _logistic(-3.6 + 0.035 * (age - 50) + 0.16 * (bmi - 26))
    glucose = np.exp(1.62 + 0.012 * (bmi - 26) + 0.42 * diabetes + 0.1 * rng.standard_normal(ROWS))
    systolic = 122 + 0.55 * (age - 50) + 1.1 * (bmi - 26) + 3.0 * (smokes == 2) + 10 * rng.standard_normal(ROWS)
    cholesterol = 5.1 + 0.015 * (age - 50) + 0.05 * (bmi - 26) + 0.8 * rng.standard_normal(ROWS)
    complaint = 0.03 * (age - 50) + 0.09 * (bmi - 26) + rng.logistic(size=ROWS)
    pain = np.searchsorted([-0.6, 0.8, 2.2], complaint)
    visits = rng.poisson(np.exp(0.6 + 0.012 * (age - 50) + 0.3 * pain + 0.5 * diabetes))
    ward = _choice(rng, np.stack([0.9 - 0.4 * pain, 0.3 * pain, 1.6 * diabetes - 0.2, -0.4 + 0.02 * (age - 50)], 1))
    day = np.datetime64("2023-01-02") + rng.integers(0, 363, ROWS).astype("timedelta64[D]")

    frame = pd.DataFrame(
        {
            "admitted": pd.Series(day.astype("datetime64[ns]")),
            "age": age.astype(int),
            "sex": np.where(female, "female", "male"),
            "smoking": np.array(["never", "former", "current"])[smokes],
            "height_cm": height.round(1),
            "weight_kg": weight.round(1),
            "systolic": systolic.round().astype(int),
            "glucose": glucose.round(2),
            "cholesterol": cholesterol.round(2),
            "pain": pd.Categorical.from_codes(pain, ["none", "mild", "moderate", "severe"], ordered=True),
            "visits": visits.astype(int),
            "ward": np.array(["general", "surgery", "endocrinology", "geriatrics"])[ward],
        }
    )
    no_blood = rng.random(ROWS) < _logistic(-0.55 - 0.03 * (age - 50) - 0.5 * (pain - 1))
    no_form = rng.random(ROWS) < 0.1
    hidden = {
        "smoking": no_form | (rng.random(ROWS) < np.array([0.06, 0.13, 0.38])[smokes]),
        "height_cm": no_form | (rng.random(ROWS) < 0.07),
        "weight_kg": no_form | (rng.random(ROWS) < _logistic(-2.2 + 0.14 * (bmi - 26))),
        "systolic": rng.random(ROWS) < 0.1,
        "glucose": no_blood | (rng.random(ROWS) < 0.04),
        "cholesterol": no_blood | (rng.random(ROWS) < 0.1),
        "pain": no_form | (rng.random(ROWS) < 0.1),
        "visits": rng.random(ROWS) < 0.05,
        "ward": rng.random(ROWS) < 0.05,
    }
    for name, rows in hidden.items():
        column = frame[name].astype("Int64") if frame[name].dtype.kind == "i" else frame[name]
        frame[name] = column.mask(rows)
    return frame


def _logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _choice(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """A level for each row, by logits ``[N, K]``."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(1)
