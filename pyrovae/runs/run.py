"""Runs: train a registered or own pair into a folder, and open such a folder again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyrovae import data, metrics
from pyrovae._version import __version__
from pyrovae.batches import arguments
from pyrovae.data import Dataset
from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.pairs.registry import Pair, find_pair
from pyrovae.runs.growing import add_sticks
from pyrovae.storage import CheckpointError, load_weights
from pyrovae.training import History, Trainer
from pyrovae.training.callbacks import Callback, Progress
from pyrovae.training.checkpoint import RunFolder
from pyrovae.vae import VAE

# What a configuration holds.
_CONFIG = {"pair": str, "pair_options": dict, "data": dict, "training": dict, "spec": dict}


@dataclass(frozen=True)
class Run:
    """A run folder with what its configuration says.

    Parameters
    ----------
    folder : RunFolder
        Where it is.
    config : mapping
        Pair, its options, data set and its options, options of the Trainer; once trained, what the data are.
    pair : Pair
        The pair, found by name.
    given : Dataset, optional
        The data, where they are not to be loaded by name.
    """

    folder: RunFolder
    config: Mapping[str, Any]
    pair: Pair
    given: Dataset | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        pair: str,
        pair_options: Mapping[str, Any],
        data: Mapping[str, Any] | Dataset,
        training: Mapping[str, Any],
    ) -> Run:
        """Describe a new run. Nothing is written before `train`.

        Parameters
        ----------
        path : str or Path
            The new run folder.
        pair : str
            A registered name, or ``module:function``.
        pair_options : mapping
            Options of the pair.
        data : mapping or Dataset
            Arguments of `pyrovae.data.load`, or the data themselves. Later calls need a `Dataset` of your own again.
        training : mapping
            Arguments of the `Trainer`.

        Raises
        ------
        CheckpointError
            If the folder already holds a run.
        ValueError
            For an unknown pair.
        """
        folder = RunFolder(path)
        if folder.config_path.exists():
            raise CheckpointError(
                f"{folder.path} already holds a run; go on with it (pyrovae resume {folder.path}) or choose another "
                "folder (--out)"
            )
        found = find_pair(pair)
        suited = dict(found.training)
        if training.get("objective", suited.get("objective")) != suited.get("objective"):
            suited.pop("num_particles", None)  # which is for the objective that the pair suggests
        dataset = data if isinstance(data, Dataset) else None
        config = {
            "pyrovae_version": __version__,
            "pair": found.name,
            "pair_options": dict(pair_options),
            "data": dict(data if dataset is None else dataset.options),
            "training": {**suited, **training},
        }
        return cls(folder, config, found, dataset)

    @classmethod
    def open(cls, path: str | Path, pair: str | None = None, data: Dataset | None = None) -> Run:
        """Open a run folder.

        Parameters
        ----------
        path : str or Path
            The folder.
        pair : str, optional
            For a run of a pair of your own its ``module:function`` again, because pyrovae never imports code named in a
            file.
        data : Dataset, optional
            The data, where others are meant than those that the run was trained on, or where those were no data set
            known by name.

        Raises
        ------
        CheckpointError
            If the folder is no run, or the pair is missing or another one.
        ValueError
            If `data` are of another shape or kind than those that the run was trained on.
        """
        folder = RunFolder(path)
        config = folder.read_config()
        for key, kind in _CONFIG.items():
            if not isinstance(config.get(key), kind):
                raise CheckpointError(
                    f"{folder.config_path} is damaged: it lacks a {kind.__name__} {key!r}; restore it or train again"
                )
        name = config["pair"]
        if ":" in name and pair is None:
            raise CheckpointError(f"{folder.path} is a run of a pair of your own; open it with --pair {name}")
        if pair is not None and pair != name:
            raise CheckpointError(f"{folder.path} is a run of the pair {name}, not {pair}")
        run = cls(folder, config, find_pair(name), data)
        if data is not None:
            _check_like(data.spec, run.spec)
        return run

    @property
    def spec(self) -> DataSpec:
        """What the pair was built for.

        Raises
        ------
        CheckpointError
            If the configuration does not say it.
        """
        config = self.config if "spec" in self.config else self.folder.read_config()
        try:
            return DataSpec.from_dict(config["spec"])
        except ValueError as error:
            raise CheckpointError(
                f"{self.folder.config_path} is damaged: 'spec': {error}; restore it or train again"
            ) from None

    def with_more_sticks(self, count: int, path: str | Path | None = None) -> tuple[Run, VAE]:
        """A new run of this stick-breaking run with `count` more weights, and the VAE to train in it.

        The VAE computes what the best one of this run does (see `pyrovae.sticks.add_sticks`). Nothing is written before
        `train`.

        Args:
            count: weights to add.
            path: the new run folder; by default that of this run with the number of weights behind its name.

        Raises:
            CheckpointError: if the folder already holds a run, or the weights of this one cannot be used.
            ValueError: for a run of another pair, or one that sticks cannot be added to.
        """
        if self.pair.name != "stick-breaking":
            raise ValueError(
                f"sticks are for runs of the pair stick-breaking; {self.folder.path} is of {self.pair.name}"
            )
        vae = add_sticks(self.load_vae(), count)
        weights = vae.model.prior.num_features
        folder = self.folder.path.with_name(f"{self.folder.path.name}-{weights}") if path is None else path
        options = {**self.config["pair_options"], "truncation": weights}
        new = Run.create(folder, self.pair.name, options, self.config["data"], self.config["training"])
        return replace(new, config={**new.config, "grown_from": str(self.folder.path)}), vae

    def dataset(self) -> Dataset:
        """The data of the run: those that were given, or loaded by name.

        Raises
        ------
        CheckpointError
            If the run was trained on data that have no name to load them by.
        """
        if self.given is not None:
            return self.given
        if "name" not in self.config["data"]:
            raise CheckpointError(
                f"{self.folder.path} was trained on data given in Python, which cannot be loaded by name; give them "
                "again: Run.open(folder, data=dataset), or --data FILE"
            )
        return data.load(**self.config["data"])

    def train(
        self,
        *,
        resume: bool = False,
        device: str = "cpu",
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        vae: VAE | None = None,
    ) -> History:
        """Train into the folder, or go on with it.

        Args:
            resume: go on from the last state.
            device: where to train.
            progress: show a progress bar.
            callbacks: further callbacks.
            vae: what to train, of the architecture of the run; None makes it anew.
        """
        training = dict(self.config["training"])
        dataset = self.dataset()
        config = {**self.config, "data": dict(dataset.options), "spec": dataset.spec.to_dict()}
        loop = Trainer(**training, progress=progress, callbacks=[_WriteConfig(self.folder, config), *callbacks])
        if vae is None:
            torch.manual_seed(training.get("seed", 0))
            vae = self.pair.build(dataset, **self._pair_options())
        return loop.fit(vae.to(device), dataset, run=self.folder, resume=resume)

    def load_vae(self, device: str = "cpu") -> VAE:
        """The VAE with its best weights, in evaluation mode; the data set is not needed.

        Raises:
            CheckpointError: if the weights cannot be used.
        """
        vae = self.pair.build(self.spec, **self._pair_options())
        blank = Rows(
            torch.zeros(2, *self.spec.shape),
            y=None if self.spec.num_classes is None else torch.zeros(2, dtype=torch.long),
            index=torch.zeros(2, dtype=torch.long),
        )
        x, given = arguments(vae, blank)
        vae.prepare(x, **given)
        load_weights(vae, self.folder.weights_path)
        return vae.to(device).eval()

    def evaluate(
        self,
        split: str = "test",
        *,
        num_rows: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        **options: Any,
    ) -> dict[str, Any]:
        """Held-out figures by name, ready for JSON: those of `metrics.evaluate`, with run, data set and split.

        Args:
            split: "train", "validation" or "test"; training rows are those of one epoch, so binarised, say.
            num_rows: evaluate only so many rows, drawn by the seed.
            seed: seed of the draws.
            device: where to compute.
            **options: further arguments of `metrics.evaluate`.

        Raises:
            ValueError: for impossible numbers.
            CheckpointError: if the weights cannot be used.
        """
        if num_rows is not None and num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, got {num_rows}")
        vae, dataset = self.load_vae(device), self.dataset()
        torch.manual_seed(seed)
        rows = dataset.seen(split)
        if num_rows is not None:
            chosen = torch.randperm(len(rows.x))[:num_rows]
            rows = rows.take(chosen)
        near = None if split == "train" else dataset.seen("train")  # a training row would be its own neighbour
        result = metrics.evaluate(vae, rows.to(device), dataset=dataset, neighbours=near, **options)
        return {"run": str(self.folder.path), "data": dataset.name, "split": split, **result.to_dict()}

    def _pair_options(self) -> dict[str, Any]:
        return {name: tuple(v) if isinstance(v, list) else v for name, v in self.config["pair_options"].items()}


def _check_like(spec: DataSpec, trained: DataSpec) -> None:
    """Refuse data of another kind than those that a pair was built for."""
    for field in ("shape", "kind", "num_classes"):
        new, old = getattr(spec, field), getattr(trained, field)
        if new != old and not (field == "num_classes" and (new is None or old is None)):
            raise ValueError(f"{spec.name} has {field} {new}, and the run was trained on data with {field} {old}")


class _WriteConfig(Callback):
    """Write the configuration once the training has begun, its checks passed and its first state saved.

    So whatever has a configuration can be resumed, and a training that cannot begin leaves no run behind.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config

    def on_start(self, progress: Progress) -> None:
        """Write it, unless this is a resumed training."""
        if not self.folder.config_path.exists():
            self.folder.write_config(self.config)


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
