"""Cells of a text file, which stay as they are written where its table is completed."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyrovae.data.table_files import is_text, read_cells

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.data.schema import Schema


_WHOLE = re.compile(r"(?!-0)[+-]?\d+\.0")


class WrittenCells(NamedTuple):
    """A table of a text file, and its cells as they are written: 007, 1.50, TRUE, and numbers of twenty digits."""

    frame: pd.DataFrame
    """The table."""
    cells: pd.DataFrame
    """The text of each cell."""

    @classmethod
    def of(cls, path: Path, frame: pd.DataFrame) -> WrittenCells | None:
        """The cells of a file and its table; None if it is no text file."""
        return cls(frame, read_cells(path)) if is_text(path) else None

    def put_into(self, completed: str, schema: Schema, *, index: bool) -> str:
        """Completed tables, one below the other, as CSV text with the observed cells of the file.

        Levels that were filled in are written as the file writes them.

        Parameters
        ----------
        completed : str
            The completed tables as CSV text.
        schema : Schema
            What the columns hold.
        index : bool
            Whether the first column holds names of rows.
        """
        import pandas as pd

        written = pd.read_csv(io.StringIO(completed), dtype=str, keep_default_na=False, index_col=0 if index else False)
        times = len(written) // len(self.frame)
        for column in schema.columns:
            observed = np.tile(self.frame[column.name].notna().to_numpy(), times)
            cells = np.tile(self.cells[column.name].to_numpy(dtype=object), times)
            shown = written[column.name].to_numpy(dtype=object)[observed]
            if not any("." in text for text in shown) and all(map(_WHOLE.fullmatch, cells[observed])):
                # 3.0 is how pandas writes the whole numbers of a column with holes.
                cells[observed] = [cell.partition(".")[0] for cell in cells[observed]]
            spelled = {} if column.levels is None else dict(zip(shown[::-1], cells[observed][::-1], strict=True))
            for name in (column.name, f"{column.name}_low", f"{column.name}_high"):
                if name not in written or (name != column.name and name in schema.names):
                    continue
                texts = np.array([spelled.get(text, text) for text in written[name]], dtype=object)
                # Levels without an order have no ends, not even where they are observed.
                keep = observed & (texts != "")
                texts[keep] = cells[keep]
                written[name] = texts
        return written.to_csv(index=index)
