"""Tables by name: each loader reads a frame, and enters itself in the registry."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pyrovae.data.clinic import ROWS, clinic
from pyrovae.data.dataset import TABLE
from pyrovae.data.files import DataFile, Files
from pyrovae.data.registry import Splits, register
from pyrovae.data.table_loading import RawTable, table_splits

if TYPE_CHECKING:
    import pandas as pd

# pandas and scikit-learn's data are imported in the functions: importing pyrovae.data must not import them.

Reader = Callable[[Files], RawTable]


def register_table(name: str, *, rows: int, columns: int, **described: Any) -> Callable[[Reader], Reader]:
    """Enter the decorated reader of a table under `name`.

    Parameters
    ----------
    name : str
        Lower case, words joined by ``-``.
    rows, columns : int
        Size of the table. A tenth of the rows is for testing.
    **described
        See `pyrovae.data.registry.register`.

    Returns
    -------
    callable
        A decorator of the reader, a function from the files to a `RawTable`.
    """

    def enter(reader: Reader) -> Reader:
        def load(files: Files, validation: float | None, seed: int, **options: Any) -> Splits:
            return table_splits(reader(files), name, validation=validation, seed=seed, **options)

        test = round(0.1 * rows)
        register(name, shape=(columns,), sizes=(rows - test, 0, test), kind=TABLE, **described)(load)
        return reader

    return enter


_UCI = "UCI machine learning repository"
_TABULAR: dict[str, Any] = {"subfolder": "tabular"}


def _csv(content: bytes, **options: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(io.BytesIO(content), **options)


@register_table(
    "avocado",
    rows=18249,
    columns=13,
    summary="prices and sales of avocados in the USA, by week and region",
    source="Hass Avocado Board",
    files=(DataFile("avocado.csv"),),
    **_TABULAR,
)
def _avocado(files: Files) -> RawTable:
    """Without the first column, which numbers the rows."""
    import pandas as pd

    frame = files.read("avocado.csv", partial(_csv, index_col=0)).reset_index(drop=True)
    frame["Date"] = pd.to_datetime(frame["Date"], format="ISO8601")
    return RawTable(frame)


def _register_bank(name: str, file: str, rows: int, words: tuple[str, ...], summary: str) -> None:
    @register_table(name, rows=rows, columns=17, summary=summary, source=_UCI, files=(DataFile(file),), **_TABULAR)
    def _bank(files: Files) -> RawTable:
        return RawTable(files.read(file, partial(_csv, sep=";")), missing_words=words)


_register_bank("bank", "bank.csv", 4521, (), "phone calls of a bank; `unknown` is a level, as in the literature")
_register_bank("bank-full", "bank-full.csv.gz", 45211, ("unknown",), "phone calls of a bank; `unknown` is missing")


def _register_plain(name: str, rows: int, columns: int, summary: str, source: str) -> None:
    file = f"{name}.csv"

    @register_table(
        name, rows=rows, columns=columns, summary=summary, source=source, files=(DataFile(file),), **_TABULAR
    )
    def _plain(files: Files) -> RawTable:
        return RawTable(files.read(file, _csv))


_register_plain("boston", 394, 14, "house prices in Boston, rows without holes", "StatLib, Carnegie Mellon University")
_register_plain("energy", 768, 10, "energy that simulated buildings need", _UCI)


def _register_hivae(name: str, rows: int, columns: int, summary: str) -> None:
    folder = name.replace("-", "_")
    files = tuple(DataFile(file) for file in ("data.csv", "data_types.csv", "Missing10_1.csv.gz"))
    described: dict[str, Any] = {"subfolder": f"hivae/{folder}", "source": f"{_UCI}, as HI-VAE was published with"}

    @register_table(name, rows=rows, columns=columns, summary=summary, files=files, **described)
    def _hivae(files: Files) -> RawTable:
        import pandas as pd

        from pyrovae.data.hivae import load_hivae

        table = load_hivae(folder, 10, files.folder.parents[1])
        frame = pd.DataFrame(table.values, columns=[f"x{i}" for i in range(table.values.shape[1])])
        kinds = dict(zip(frame, table.kinds, strict=True))
        # "Positive" columns of these tables hold zeros.
        return RawTable(frame, {n: "real" if k == "positive" and frame[n].min() <= 0 else k for n, k in kinds.items()})


_register_hivae("adult", 32561, 12, "income and census data")
_register_hivae("breast", 699, 10, "breast cancer in Wisconsin, ordinal ratings")
_register_hivae("default-credit", 30000, 24, "credit card clients in Taiwan")
_register_hivae("letter", 20000, 17, "measures of pictures of letters")


def _register_sklearn(name: str, loader: str, rows: int, columns: int, summary: str) -> None:
    @register_table(name, rows=rows, columns=columns, summary=summary, source="scikit-learn")
    def _embedded(files: Files) -> RawTable:
        from sklearn import datasets

        options = {"scaled": False} if name == "diabetes" else {}
        bunch = getattr(datasets, loader)(as_frame=True, **options)
        frame = bunch.frame.copy()
        if "target_names" in bunch:
            frame["target"] = bunch.target_names[frame["target"]].astype(object)
        return RawTable(frame)


_register_sklearn("iris", "load_iris", 150, 5, "measures of flowers, with their species")
_register_sklearn("wine", "load_wine", 178, 14, "chemistry of wines, with their grower")
_register_sklearn("breast-cancer", "load_breast_cancer", 569, 31, "measures of cell nuclei, with the diagnosis")
_register_sklearn("diabetes", "load_diabetes", 442, 11, "patients with diabetes, with its progression")


@register_table(
    "clinic",
    rows=ROWS,
    columns=12,
    summary="synthetic: patients of a clinic, 15 % of the entries missing for reasons",
    source="made by pyrovae.data.clinic",
)
def _clinic(files: Files) -> RawTable:
    return RawTable(clinic(), {"visits": "count"})
