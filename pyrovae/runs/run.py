"""Runs: train a registered or own pair into a folder, and open such a folder again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyrovae import data, metrics
from pyrovae.data import Dataset
from pyrovae.data.dataset import TABLE, DataSpec
from pyrovae.data.fingerprints import changed_splits, fingerprints
from pyrovae.distributed import is_restart, launch, processes
from pyrovae.pairs.registry import Pair, find_pair
from pyrovae.rng import begin
from pyrovae.runs import configuration, evaluations, finishing, own_data, posteriors, same_data
from pyrovae.runs.configuration import OwnPair
from pyrovae.storage import CheckpointError, load_weights
from pyrovae.training import History, Trainer
from pyrovae.training.callbacks import Callback
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.options import without_idle
from pyrovae.vae import VAE


@dataclass(frozen=True)
class Run:
    """A run folder with what its configuration says.

    Parameters
    ----------
    folder : RunFolder
        Where it is.
    config : mapping
        Pair, its options, options of the data, options of the Trainer; once trained, what the data are.
    pair : Pair
        The pair, found by name.
    given : Dataset, optional
        The data, where they are not to be loaded.
    allow_changed_data : bool, default False
        Whether data that are loaded again may be other ones than those that the run was trained on, in a file that
        changed, say. They are told by their fingerprint.
    """

    folder: RunFolder
    config: Mapping[str, Any]
    pair: Pair
    given: Dataset | None = None
    allow_changed_data: bool = False

    @classmethod
    def create(
        cls,
        path: str | Path,
        pair: str,
        pair_options: Mapping[str, Any],
        data: Mapping[str, Any] | Dataset,
        training: Mapping[str, Any],
        finishing: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
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
        finishing : mapping, optional
            Options of what follows the training, see `Finishing`.
        overwrite : bool, default False
            Whether the folder may hold a run, or other files. Give it to `train` too, which replaces the run.

        Returns
        -------
        Run
            The run, to be trained.

        Raises
        ------
        CheckpointError
            If the folder already holds a run, or files of no run.
        ValueError
            For an unknown pair, and an option that its finishing does not have.
        """
        folder = RunFolder(path)
        with processes().together():
            if not overwrite and not (is_restart() and folder.was_begun_by(launch())):
                configuration.check_free(folder)
            if not isinstance(pair, str):
                raise TypeError(f"pair must be a name, or 'module:function' for one of your own, got {pair!r}")
            found = find_pair(pair)
            dataset, options = (data, data.options) if isinstance(data, Dataset) else (None, data)
            config = configuration.new_configuration(found, pair_options, options, training, finishing)
        return cls(folder, config, found, dataset)

    @classmethod
    def open(
        cls,
        path: str | Path,
        pair: OwnPair | None = None,
        data: Dataset | str | Path | None = None,
        *,
        allow_changed_data: bool = False,
    ) -> Run:
        """Open a run folder, or one that `VAE.save` wrote.

        Parameters
        ----------
        path : str or Path
            The folder.
        pair : str, callable or VAE, optional
            For a run of a pair of your own its ``module:function`` again, a function that returns a VAE, or a VAE,
            because pyrovae never imports code named in a file.
        data : Dataset, str or Path, optional
            The data, where others are meant than those that the run was trained on, or where those were no data that
            can be loaded again; see `on`.
        allow_changed_data : bool, default False
            Whether data that are loaded again may be others than the run was trained on.

        Returns
        -------
        Run
            The run.

        Raises
        ------
        CheckpointError
            If the folder is no run, or the pair is missing or another one.
        ValueError
            If `data` are of another shape or kind than those that the run was trained on.
        """
        folder = RunFolder(path)
        config = configuration.read_configuration(folder)
        found = configuration.pair_of(folder, config["pair"], pair)
        run = cls(folder, config, found, allow_changed_data=allow_changed_data)
        return run if data is None else run.on(data)

    def on(self, other: Dataset | str | Path) -> Run:
        """The same run with other data, to evaluate it on.

        Parameters
        ----------
        other : Dataset, str or Path
            The data, or ``module:function`` that makes them, or their name, or a file or folder, prepared as those
            that the run was trained on (see `pyrovae.data.load_to_evaluate`).

        Returns
        -------
        Run
            The run with these data.

        Raises
        ------
        ValueError
            If they are of another shape or kind than those that the run was trained on.
        DataError
            If they cannot be read.
        """
        if isinstance(other, str) and own_data.is_function(other):
            other = own_data.dataset_of(other)
        elif not isinstance(other, Dataset):
            other = data.load_to_evaluate(other, self.config["data"], self.spec.kind, self.spec.schema)
        same_data.check_alike(other, self.spec)
        return replace(self, given=other)

    @property
    def spec(self) -> DataSpec:
        """What the pair was built for.

        Raises
        ------
        CheckpointError
            If the configuration does not say it.
        """
        return configuration.spec_of(self.folder, self.config)

    def dataset(self) -> Dataset:
        """The data of the run: those that were given, or those that it was trained on, loaded again.

        Returns
        -------
        Dataset
            The data.

        Raises
        ------
        CheckpointError
            If the run does not say what it was trained on.
        DataError
            If the data are not to be had.
        ValueError
            If a file holds data of another shape or kind than it did, or others of the same kind.
        """
        if self.given is not None:
            again = own_data.FUNCTION in self.config["data"] and self.given.options == self.config["data"]
            if again and not self.allow_changed_data:
                same_data.check_unchanged(self.folder, self.config, self.given)
            return self.given
        return same_data.load_again(self.folder, self.config, allow_changed=self.allow_changed_data)

    def train(
        self,
        *,
        resume: bool = False,
        device: str = "cpu",
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        vae: VAE | None = None,
        overwrite: bool = False,
        epochs: int | None = None,
        patience: int | None = None,
    ) -> History:
        """Train into the folder, or go on with it, and do what follows the training, see `finish`.

        Parameters
        ----------
        resume : bool, default False
            Go on from the last state.
        device : str, default "cpu"
            Where to train.
        progress : bool, default True
            Show a progress bar.
        callbacks : sequence of Callback, default ()
            Further callbacks.
        vae : VAE, optional
            What to train, of the architecture of the run. None makes it anew.
        overwrite : bool, default False
            Replace the run that the folder holds.
        epochs, patience : int, optional
            With `resume`, another length of the training, which is written into its configuration. A finished training
            goes on with more epochs; see `Trainer.fit` for its schedule.

        Returns
        -------
        History
            What the training did.

        Raises
        ------
        CheckpointError
            If there is no training to resume, or the data have another number of rows than it began with.
        """
        ranks = processes()
        with ranks.together():
            if resume and self.config.get("in_python"):
                raise CheckpointError(
                    f"{self.folder.path} was trained in Python, with {', '.join(self.config['in_python'])} that no "
                    "file holds; go on there: Trainer(...).fit(vae, data, run=folder, resume=True)"
                )
            training, whole = dict(self.config["training"]), self.dataset()
            if resume:
                same_data.check_resumable(self.folder, whole, self.spec)
                training = without_idle(training)
                training |= {n: v for n, v in (("epochs", epochs), ("patience", patience)) if v is not None}
            dataset, follows = whole, self.pair.finishing
            if follows is not None:
                dataset = follows.hold_out(whole, training.get("seed") or 0, self.spec if resume else None)
            if not resume and "epochs" not in training and self.pair.epochs is not None:
                batch_size = training.get("batch_size", Trainer().batch_size)
                training["epochs"] = self.pair.epochs(dataset.epoch_rows, batch_size)
            described = {"data": dict(dataset.options), "training": training, "spec": dataset.spec.to_dict()}
            config = {**self.config, **described}
            config["fingerprints"] = self.config.get("fingerprints") if resume else fingerprints(whole)
            writer = configuration.WriteConfiguration(self.folder, config)
            loop = Trainer(**training, progress=progress, callbacks=[writer, *callbacks])
            if vae is None:
                torch.manual_seed(training.get("seed", 0))  # another stream than that of the training
                vae = configuration.build(self.pair, dataset, self.config, stored=resume)
            vae = vae.to(device)
        how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "allow_changed_data": self.allow_changed_data}
        history = loop.fit(vae, dataset, run=self.folder, **how)

        def finish() -> None:
            replace(self, config=self.folder.read_config()).finish(whole, device=device, progress=progress)

        if follows is not None:
            ranks.on_first(finish)
        return history

    def finish(self, dataset: Dataset | None = None, *, device: str = "cpu", progress: bool = False) -> Run:
        """Do what follows the training, where the pair has something to add, unless it is done.

        For the pair `tabular` that are trees, the density of its latents, and calibration: what a fitted `VAEImputer`
        has. `train` does it too; this is for a run whose training is over, and was interrupted after that.

        Parameters
        ----------
        dataset : Dataset, optional
            The data that the run was trained on. None loads them again.
        device : str, default "cpu"
            Where to compute.
        progress : bool, default False
            Show progress bars.

        Returns
        -------
        Run
            The run, with what was found.
        """
        return finishing.finished(self, dataset, device=device, progress=progress)

    def load_vae(self, device: str = "cpu") -> VAE:
        """The VAE with its best weights, in evaluation mode. The data are not needed.

        Parameters
        ----------
        device : str, default "cpu"
            Where the VAE is to be.

        Returns
        -------
        VAE
            The VAE.

        Raises
        ------
        CheckpointError
            If the weights cannot be used.
        """
        if self.folder.is_untrained():
            raise CheckpointError(
                f"{self.folder.path} was stopped before its first epoch had ended, so nothing was trained yet; go on "
                f"with it: pyrovae resume {self.folder.path}"
            )
        vae = configuration.build(self.pair, self.spec, self.config)
        configuration.prepare(vae, self.spec, own_data.first_rows(self.given))

        def read() -> dict[str, Any]:
            load_weights(vae, self.folder.weights_path)
            return self.folder.read_config()

        found = self.folder.consistently(read)
        if "spec" in self.config and not configuration.is_same_run(found, self.config):
            raise CheckpointError(f"{self.folder.path} was replaced by another run since it was opened; open it again")
        return vae.to(device).eval()

    def load_finished(self, device: str = "cpu") -> Any:
        """What the pair made of the run after the training, for evaluation and figures; None if it adds nothing.

        A run that is not finished is finished first.
        """
        finishing = self.pair.finishing
        if finishing is None:
            return None
        if processes().several and not finishing.is_done(self):
            raise CheckpointError(f"{self.folder.path} is not finished, which is the work of one process: start one")
        return finishing.load(self.folder.path, device)

    def evaluate(
        self,
        split: str = "test",
        *,
        num_rows: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        fit_steps: int = posteriors.FIT_STEPS,
        keep: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Held-out figures by name, ready for JSON: those of `metrics.evaluate`, with run, data set and split.

        Parameters
        ----------
        split : {"train", "validation", "test"}, default "test"
            Which rows. Training rows are those of one epoch, so binarised, say.
        num_rows : int, optional
            Evaluate only so many rows, drawn by the seed. None takes all.
        seed : int, default 0
            Seed of the draws.
        device : str, default "cpu"
            Where to compute.
        fit_steps : int, default 200
            Gradient steps that fit the posterior of a row first, where the guide has parameters for each training row.
        keep : bool, default False
            Write the figures to `metrics.json` in the folder, where a report finds them. Figures of other data than
            the run was trained on are not kept.
        **options
            Further arguments of `metrics.evaluate`.

        Returns
        -------
        dict
            The figures.

        Raises
        ------
        ValueError
            For impossible numbers, and if there are no such rows.
        CheckpointError
            If the weights cannot be used.
        """
        if num_rows is not None and num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, got {num_rows}")
        if options.get("baselines") is not None and self.spec.kind != TABLE:
            raise ValueError(
                f"baselines are imputers of tables, and {self.folder.path} is a run on data of kind {self.spec.kind}; "
                "leave them out"
            )
        dataset, vae = self.dataset(), self.load_vae(device)
        posteriors.check_steps(vae, fit_steps)
        weights = evaluations.weights_digest(self.folder)
        begin(seed)
        rows = dataset.seen(split)
        if not len(rows):
            held = " and ".join(name for name, part in dataset.splits().items() if len(part))
            raise ValueError(f"{dataset.name} has no {split} rows, only {held} rows; choose others with --split")
        if num_rows is not None:
            rows = rows.take(torch.randperm(len(rows), device="cpu")[:num_rows])
        near = None if split == "train" else dataset.seen("train")  # a training row would be its own neighbour
        options = {"finished": self.load_finished(device), **options}
        if posteriors.has_rows(vae):
            near = None  # a training row is none of those that the fitted pair knows
            vae, rows = posteriors.for_likelihood(vae, rows, fit_steps, progress=options.get("progress") is not None)
        result = metrics.evaluate(vae, rows.to(device), dataset=dataset, neighbours=near, **options)
        found = {"run": str(self.folder.path), "data": dataset.name, "split": split, **result.to_dict()}
        if keep and processes().first and not changed_splits(dataset, self.config.get("fingerprints") or {}):
            evaluations.keep(self.folder, found, seed, weights)
        return found
