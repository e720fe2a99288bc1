"""The schema of a table: what its columns hold, and how they become numbers for a model and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.data.columns import Column, check_known

if TYPE_CHECKING:
    import pandas as pd

# Modules that import pandas are imported in the methods: importing pyrovae.data must not import pandas.


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in their order.

    `infer` finds it from a table, `encode` makes numbers of a table, `decode` a table of numbers, and `fill` completes
    a table. `to_dict` makes JSON values of it.

    Parameters
    ----------
    columns : tuple of Column
        The columns.

    Raises
    ------
    ValueError
        If there is no column, or two have the same name.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"age": [31.5, None, 60.2], "smokes": ["no", "yes", None]})
    >>> schema = Schema.infer(frame, kinds={"age": "positive"}, ranges={"age": (0, 120)})
    >>> values, mask = schema.encode(frame)
    >>> values[:, 1]
    array([ 0.,  1., nan])
    >>> schema.fill(frame, np.array([[50.0, 0.0]] * 3))
        age smokes
    0  31.5     no
    1  50.0    yes
    2  60.2     no
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a schema needs columns")
        if len(set(self.names)) < len(self.columns):
            twice = Counter(self.names).most_common(1)[0][0]
            raise ValueError(f"a schema has two columns {twice!r}; give every column a name of its own")

    @classmethod
    def infer(
        cls,
        frame: Any,
        kinds: Mapping[str, str] | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        ranges: Mapping[str, tuple[Any, Any]] | None = None,
    ) -> Schema:
        """Find the schema of a table.

        Parameters
        ----------
        frame : DataFrame, array `[N, D]`, or a table with the Arrow interface, such as one of polars
            The table. The columns of an array are called x0, x1, ...
        kinds : mapping of str to str, optional
            Kinds of columns by name, where the rules below choose another one. Any but constant and missing.
        levels : mapping of str to sequence, optional
            Levels of columns by name, in their order, perhaps more than the table has. The column is then ordinal, or
            binary if they are two, unless `kinds` says categorical.
        ranges : mapping of str to tuple of two, optional
            Ranges (low, high) of columns of numbers or dates, by name. None stands for the observed end.

        Returns
        -------
        Schema
            The schema. `report` says why each kind was chosen.

        Raises
        ------
        TypeError
            For a column that mixes types, or holds what is no number, bool, text, category or datetime.
        ValueError
            For a table without rows, infinite values, unknown names, and wishes that do not fit the values.

        Notes
        -----
        The first rule that holds decides:

        1. No observed value: missing. One different value: constant. Two: binary; bools are binary.
        2. Ordered categories: ordinal. Other categories and texts: categorical. Unused categories are levels too.
        3. Dates: positive, counted in days from the day before the earliest date, so that this one is day 1.
        4. Whole numbers, in a column of floats too: ordinal if they are at most 20 different ones without a gap; count
           if they lie in 0 to 10 000.
        5. Numbers above 0 with a skewness above 1, which is smaller for their logarithms: positive.
        6. Other numbers: real.

        A column with a declared range is one of numbers: count, positive or real by the rules 4 to 6.
        """
        from pyrovae.data.column_kinds import infer_column
        from pyrovae.data.frames import as_frame

        table = as_frame(frame)
        if not len(table):
            raise ValueError("the table has no rows")
        wishes: dict[str, Mapping[str, Any]] = {"kinds": kinds or {}, "levels": levels or {}, "ranges": ranges or {}}
        for wish, named in wishes.items():
            check_known(named, table.columns, wish)
        kinds, levels, ranges = wishes.values()
        return cls(tuple(infer_column(table[n], kinds.get(n), levels.get(n), ranges.get(n)) for n in table.columns))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> dict[str, str]:
        """The kinds of the columns by name."""
        return {column.name: column.kind for column in self.columns}

    @property
    def feature_names(self) -> np.ndarray:
        """The names as scikit-learn has them: an array of objects `[D]`."""
        return np.array(self.names, dtype=object)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, name: str) -> Column:
        """The column of a name."""
        return self.subset([name]).columns[0]

    def subset(self, names: Iterable[str]) -> Schema:
        """The schema of some of the columns, in the order of these names.

        Raises
        ------
        ValueError
            For an unknown name.
        """
        by_name, names = {column.name: column for column in self.columns}, list(names)
        check_known(names, by_name, "names")
        return Schema(tuple(by_name[name] for name in names))

    def without_unobserved(self) -> Schema:
        """The schema in which columns without any value are missing, whatever was declared: nothing is learned of them.

        It is for a training. The declared kind of such a column says what it could hold, and not where its values lie.
        """
        return Schema(
            tuple(
                replace(column, kind="missing", low=None, high=None, why="No value is observed.")
                if column.missing == 1.0 and column.kind != "missing"
                else column
                for column in self.columns
            )
        )

    def report(self) -> pd.DataFrame:
        """What was found, a row for each column: its kind, dtype, levels or range, share of missing values, and why."""
        import pandas as pd

        rows = [(c.name, c.kind, c.dtype, c.values(), c.missing, c.why) for c in self.columns]
        return pd.DataFrame(rows, columns=["column", "kind", "dtype", "values", "missing", "why"])

    def encode(self, frame: Any, *, extra: str = "raise", unseen: str = "raise") -> tuple[np.ndarray, np.ndarray]:
        """Numbers of a table, and which of its entries are observed.

        Parameters
        ----------
        frame : DataFrame, array or table as in `infer`
            The table. Its columns may stand in any order and have other dtypes, as long as these hold the values.
        extra : {"raise", "ignore"}, default "raise"
            What becomes of columns that the schema does not have.
        unseen : {"raise", "missing"}, default "raise"
            What becomes of values that a column cannot have: a level that is not in the schema, a number that its kind
            does not allow. With "missing" they count as not observed. Dates before the day from which days are counted
            have negative numbers.

        Returns
        -------
        values : ndarray `[N, D]` of float64
            Numbers as they are, also outside of the range; dates as days; levels as codes 0, 1, ... NaN where an entry
            is missing.
        mask : ndarray `[N, D]` of bool
            True where an entry is observed. A column of the kind missing never is.

        Raises
        ------
        TypeError
            For a column of another type.
        ValueError
            For a column that is missing, an infinite value, and what `extra` and `unseen` refuse.
        """
        from pyrovae.data.column_codes import UNSEEN, encode_column

        if unseen not in UNSEEN:
            raise ValueError(f"unseen must be 'raise' or 'missing', not {unseen!r}")
        table = self._matched(frame, extra)
        values = np.empty((len(table), len(self)), dtype=np.float64)
        for position, column in enumerate(self.columns):
            values[:, position] = encode_column(column, table[column.name], unseen)
        return values, ~np.isnan(values)

    def decode(self, values: np.ndarray, index: Any = None) -> pd.DataFrame:
        """A table of numbers as `encode` gives them.

        Parameters
        ----------
        values : ndarray `[N, D]`
            The numbers. They are clipped to the range of their column, and rounded where it holds whole numbers; codes
            are rounded to a level. Dates come back to the microsecond. NaN is a missing value.
        index : Index, optional
            The index of the table. None numbers the rows.

        Returns
        -------
        DataFrame
            Columns and dtypes of the table that the schema was inferred from. A column of integers or bools that holds
            a missing value has the nullable dtype, such as `Int64` for `int64`, if its own has none.
        """
        import pandas as pd

        from pyrovae.data.column_codes import decode_column

        values = self._checked(values, None)
        table = pd.DataFrame({c.name: decode_column(c, values[:, i]) for i, c in enumerate(self.columns)})
        return table if index is None else table.set_axis(index, axis=0)

    def fill(self, frame: Any, values: np.ndarray) -> pd.DataFrame:
        """The table with its missing entries replaced.

        Parameters
        ----------
        frame : DataFrame, array or table as in `infer`
            The table, perhaps with further columns.
        values : ndarray `[N, D]`
            Numbers as for `decode`, read only where an entry is missing; NaN leaves it missing.

        Returns
        -------
        DataFrame
            The table with its index, columns and dtypes. Observed entries are untouched, also those that
            `encode(unseen="missing")` did not take. A category gets the levels that it lacks. A column without any
            value gets the dtype of the schema, unless both are numeric.
        """
        import pandas as pd

        from pyrovae.data.column_codes import fill_column

        table = self._matched(frame, "ignore")
        values = self._checked(values, len(table))
        filled = {name: table[name] for name in table.columns}
        filled |= {c.name: fill_column(c, filled[c.name], values[:, i]) for i, c in enumerate(self.columns)}
        result = pd.DataFrame(filled)
        return result.set_axis(frame.columns, axis=1) if isinstance(frame, pd.DataFrame) else result

    def to_dict(self) -> dict[str, Any]:
        """The schema of JSON values."""
        return {"columns": [column.to_dict() for column in self.columns]}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Schema:
        """The schema that `to_dict` gave.

        Raises
        ------
        TypeError, ValueError
            If it is none. The message names the column and the field.
        """
        if not isinstance(stored, Mapping) or not isinstance(stored.get("columns"), list | tuple):
            raise TypeError("a stored schema must be a dictionary with a list 'columns'")
        columns = []
        for position, fields in enumerate(stored["columns"]):
            try:
                columns.append(Column.from_dict(fields))
            except (TypeError, ValueError) as error:
                name = fields.get("name") if isinstance(fields, Mapping) else None
                raise type(error)(f"columns[{position}]{f' ({name!r})' if name else ''}: {error}") from None
        return cls(tuple(columns))

    def _matched(self, frame: Any, extra: str) -> pd.DataFrame:
        from pyrovae.data.frames import as_frame

        if extra not in ("raise", "ignore"):
            raise ValueError(f"extra must be 'raise' or 'ignore', not {extra!r}")
        table = as_frame(frame)
        found, known = set(table.columns), set(self.names)
        lacking = [name for name in self.names if name not in found]
        if lacking:
            raise ValueError(f"the table lacks the column {lacking[0]!r} ({len(lacking)} of {len(self)} are missing)")
        more = [name for name in table.columns if name not in known]
        if more and extra == "raise":
            raise ValueError(
                f"the table has the column {more[0]!r}, which the schema does not have; extra='ignore' leaves it out"
            )
        return table

    def _checked(self, values: Any, rows: int | None) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self) or (rows is not None and len(values) != rows):
            expected = f"({'N' if rows is None else rows}, {len(self)})"
            raise ValueError(f"values must have the shape {expected}, not {values.shape}")
        return values
