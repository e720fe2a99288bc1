"""The folder of a training run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyrovae.storage import FORMAT_VERSION, CheckpointError, check_version, write_atomically


class RunFolder:
    """The folder of a training run.

    Pass it to `Trainer.fit` as `run`, to save the training and to resume it.

    Parameters
    ----------
    path : str or Path
        The folder. It is made when the first file is written.

    Notes
    -----
    The folder holds

    * `config.json`: how the run was made,
    * `metrics.csv`: a row per epoch,
    * `model.safetensors`: the best weights,
    * `last/state.safetensors`: everything that is needed to resume,
    * `figures/`.

    Every file is replaced in one step, the state last. So a training that is killed at any moment leaves a folder that
    can be resumed.

    Examples
    --------
    >>> RunFolder("runs/digits").weights_path.as_posix()
    'runs/digits/model.safetensors'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        """Path of the configuration."""
        return self.path / "config.json"

    @property
    def weights_path(self) -> Path:
        """Path of the best weights."""
        return self.path / "model.safetensors"

    @property
    def state_path(self) -> Path:
        """Path of the state of the training."""
        return self.path / "last" / "state.safetensors"

    @property
    def figures_path(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"

    def holds_training(self) -> bool:
        """Whether there are weights or the state of a training."""
        return self.state_path.exists() or self.weights_path.exists()

    def forget_training(self) -> None:
        """Delete the state and the metrics of an earlier training, before a new one writes its own."""
        for path in (self.state_path, self.path / "metrics.csv"):
            path.unlink(missing_ok=True)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, which must consist of JSON values."""
        write_atomically(self.config_path, json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration.

        Raises
        ------
        CheckpointError
            The folder has no configuration, the file is damaged, or a newer version of the library wrote it.
        """
        try:
            config = dict(json.loads(self.config_path.read_text()))
        except FileNotFoundError:
            raise CheckpointError(f"{self.path} is no run folder: it has no config.json") from None
        except (OSError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.config_path} is damaged ({error}); restore it or train again") from None
        check_version(self.config_path, config)
        return config

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the table of metrics. It has the columns of all rows, in the order in which they first occur."""
        rows = list(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())

    def read_metrics(self) -> list[dict[str, float]]:
        """Read the table of metrics, a dictionary per epoch. It is empty before the first epoch has ended."""
        try:
            text = (self.path / "metrics.csv").read_text()
        except FileNotFoundError:
            return []
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())
        ]
