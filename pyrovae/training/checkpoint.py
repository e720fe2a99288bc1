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

    `config.json` (how the run was made), `metrics.csv` (a row an epoch), `model.safetensors` (best weights),
    `last/state.safetensors` (everything needed to resume), `figures/`. Every file is replaced in one step, the state
    last, so that a kill at any moment leaves a folder that resumes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        """Where the configuration is."""
        return self.path / "config.json"

    @property
    def weights_path(self) -> Path:
        """Where the best weights are."""
        return self.path / "model.safetensors"

    @property
    def state_path(self) -> Path:
        """Where the state of the training is."""
        return self.path / "last" / "state.safetensors"

    @property
    def figures_path(self) -> Path:
        """Where figures go."""
        return self.path / "figures"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration."""
        write_atomically(self.config_path, json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration.

        Raises:
            CheckpointError: if the folder is no run of this library, or of a newer version.
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
        """Write the table of metrics, the columns being those of all rows in their first order."""
        rows = list(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())

    def read_metrics(self) -> list[dict[str, float]]:
        """Read the table of metrics; empty before the first epoch has ended."""
        try:
            text = (self.path / "metrics.csv").read_text()
        except FileNotFoundError:
            return []
        return [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())
        ]
