"""Runs: train a registered or own pair into a folder, and open such a folder again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyrovae import data
from pyrovae._version import __version__
from pyrovae.checkpoint import CheckpointError, RunFolder, load_weights
from pyrovae.data import Dataset, Split
from pyrovae.registry import Pair, find_pair
from pyrovae.training import History, Trainer
from pyrovae.vae import VAE


@dataclass(frozen=True)
class Run:
    """A run folder with what its configuration says.

    Args:
        folder: where it is.
        config: pair, its options, data set and its options, options of the Trainer, device.
        pair: the pair, found by name.
    """

    folder: RunFolder
    config: Mapping[str, Any]
    pair: Pair

    @classmethod
    def create(
        cls,
        path: str | Path,
        pair: str,
        pair_options: Mapping[str, Any],
        data_options: Mapping[str, Any],
        training: Mapping[str, Any],
    ) -> Run:
        """Describe a new run; nothing is written before `train`.

        Raises:
            CheckpointError: if the folder already holds a run.
            ValueError: for an unknown pair.
        """
        folder = RunFolder(path)
        if folder.config_path.exists():
            raise CheckpointError(
                f"{folder.path} already holds a run; go on with it (--resume {folder.path}) or choose another --out"
            )
        found = find_pair(pair)
        config = {
            "pyrovae_version": __version__,
            "pair": found.name,
            "pair_options": dict(pair_options),
            "data": dict(data_options),
            "training": {**found.training, **training},
        }
        return cls(folder, config, found)

    @classmethod
    def open(cls, path: str | Path, pair: str | None = None) -> Run:
        """Open a run folder.

        Args:
            path: the folder.
            pair: for a run of a user's own pair its `module:function` again, because nothing is imported on the word
                of a file.

        Raises:
            CheckpointError: if the folder is no run, or the pair is missing or another one.
        """
        folder = RunFolder(path)
        config = folder.read_config()
        name = config["pair"]
        if ":" in name and pair is None:
            raise CheckpointError(f"{folder.path} is a run of a pair of your own; open it with --pair {name}")
        if pair is not None and pair != name:
            raise CheckpointError(f"{folder.path} is a run of the pair {name}, not {pair}")
        return cls(folder, config, find_pair(name))

    def dataset(self) -> Dataset:
        """Load the data set of the run."""
        return data.load(**self.config["data"])

    def train(self, *, resume: bool = False, device: str = "cpu", progress: bool = True, **trainer: Any) -> History:
        """Train into the folder, or go on with it.

        Args:
            resume: go on from the last state.
            device: where to train.
            progress: show a progress bar.
            **trainer: further arguments of the Trainer that are no part of the configuration, such as callbacks.
        """
        training = dict(self.config["training"])
        loop = Trainer(**training, progress=progress, **trainer)
        dataset = self.dataset()
        torch.manual_seed(training.get("seed", 0))
        vae = self.pair.build(dataset, **self._pair_options()).to(device)
        if not resume:
            shown = {"data": dict(dataset.options), "data_shape": list(dataset.shape), "data_kind": dataset.kind}
            self.folder.write_config({**self.config, **shown})
        return loop.fit(vae, dataset, run=self.folder, resume=resume)

    def load_vae(self, device: str = "cpu") -> VAE:
        """The VAE with its best weights, in evaluation mode; the data set is not needed.

        Raises:
            CheckpointError: if the weights cannot be used.
        """
        config = self.folder.read_config()
        try:
            shape, kind = config["data_shape"], config["data_kind"]
        except KeyError as error:
            raise CheckpointError(f"{self.folder.config_path} lacks {error}; train again") from None
        # A stand-in of the right shape: builders look at shape and kind, and at rows only for initial values.
        rows = Split(torch.zeros(2, *shape))
        stand_in = Dataset(self.config["data"]["name"], rows, rows, rows, kind)
        vae = self.pair.build(stand_in, **self._pair_options())
        vae.prepare(rows.x)
        load_weights(vae, self.folder.weights_path)
        return vae.to(device).eval()

    def _pair_options(self) -> dict[str, Any]:
        return {name: tuple(v) if isinstance(v, list) else v for name, v in self.config["pair_options"].items()}


def pick_device(name: str) -> str:
    """A torch device by name; "auto" is CUDA where there is one.

    Raises:
        ValueError: if the device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name


def given(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given (are not None)."""
    return {name: options[name] for name in names if options.get(name) is not None}
