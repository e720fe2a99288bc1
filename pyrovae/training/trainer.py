"""The Trainer: one loop over a torch optimizer and any `pyro.infer.ELBO`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrovae.data.fingerprints import fingerprint, is_computed
from pyrovae.data.rows import Rows
from pyrovae.distributed import LostProcessError, is_restart, launch, processes
from pyrovae.rng import begin, forked
from pyrovae.storage import CheckpointError
from pyrovae.training.checkpoint import RunFolder, kept_in
from pyrovae.training.data import Stream, training_data
from pyrovae.training.data_checks import check_rows_given
from pyrovae.training.forms import Collate
from pyrovae.training.history import History
from pyrovae.training.loaders import SharedLoader, print_of
from pyrovae.training.loop import Fit
from pyrovae.training.options import TrainingOptions
from pyrovae.training.parallel_checks import check_options
from pyrovae.training.resuming import settings_of
from pyrovae.training.row_steps import without_unknown_rows
from pyrovae.training.setup import check_groups_learn, check_idle, nothing_left_behind
from pyrovae.vae import VAE


@dataclass
class Trainer(TrainingOptions):
    """Train a VAE by stochastic gradients.

    Minibatches are cut from tensors on the VAE's device. Losses are in nats per datum. The first run checks all
    distributions' arguments where Pyro's validation is on, later batches are not checked.

    Parameters
    ----------
    objective : str or pyro.infer.ELBO, default "elbo"
        What to optimise: a name (see `pyrovae.infer.make_objective`), or an objective of Pyro or of this library.
        "mean-field" is less noisy for Gaussian latents, "vimco" is for discrete ones, "enum" for classes.
    num_particles : int, optional
        Draws of the latents per datum, of an objective given by name. None is the objective's own default: 1 for those
        of Pyro and NVIL, 10 for those that need several.
    optimizer : {"adam", "adamax", "adamw", "sgd"}, class, PyroOptim, callable or mapping, default "adam"
        A name, fused where torch has it; a torch class, such as ``torch.optim.RMSprop``; what `pyro.optim` makes, such
        as ``pyro.optim.ClippedAdam({"lr": 1e-3})``, its schedulers included; or a function from torch's parameter
        groups to a torch optimizer. A mapping has a name or a class for each of the groups of `lr`,
        ``{"model": "adam", "guide": "sgd"}``; groups that are left out get Adam. Gradients are those of the mean loss
        per datum, also where Pyro's clip them.
    lr : float or mapping of str to float, default 0.001
        Learning rate; or one for each of the groups "model", "guide" and "objective" (what the objective itself
        learns). Groups that are left out learn with 0.001.
    optimizer_options : mapping, default {}
        Further arguments of an optimizer given by name or class; by group where `optimizer` is a mapping.
    lr_schedule : {"constant", "cosine", "step", "plateau"}, class, PyroLRScheduler or callable, default "constant"
        "cosine" falls to 0 at the last epoch, "step" to a tenth after each third of the epochs, "plateau" to a third
        after 10 epochs without progress of `monitor`. Or a torch scheduler class; a function from the optimizer to a
        scheduler; or a scheduler of `pyro.optim`, which has its own optimizer. A schedule moves once per epoch.
    lr_schedule_options : mapping, default {}
        Further arguments of a scheduler class.
    gradient_clip : float, optional
        Largest norm of the gradient of model and guide, in nats per datum and unit of the parameters. None does not
        clip.
    kl_weight : float, str or Schedule, default 1.0
        Weight of the KL: a number, a schedule such as ``WarmUp(100)``, or its text ("warm-up:100", "decay",
        "cyclic:20"). Validation always uses 1. Without validation rows, an epoch with another weight than the best one
        so far is taken as better, since losses of different weights cannot be compared.
    epochs : int, default 100
        Passes over the training data.
    batch_size : int, default 128
        Rows per step. The last step of an epoch takes what is left. A batch that holds all rows is not shuffled.
        A stream has batches of its own.
    drop_last : bool, default False
        Leave out the last step of an epoch if its batch is a smaller one. Not for streams, whose loaders have it.
    compile : bool, "recorded" or "auto", default False
        Run full batches as compiled code, for objectives given by name or of this library (see `CompiledLoss`): the
        same training up to rounding in less time, after some ten seconds of compiling at the start; smaller batches
        run as they are. "recorded" needs no compiler and a second at the start: the programs run once, and what they
        do to tensors is repeated without them. "auto" compiles trainings of 10 000 steps and more, records those of
        2000 and more, and goes on otherwise where the pair or the machine does not allow it; a line of the log says
        what was decided. A training that is resumed with "auto" stays what it was. On the CPU each step takes some
        tenths of a millisecond more where something happens between two steps: with `gradient_clip`, an optimizer other
        than Adam and AdamW, a callback that has `on_batch`, a KL weight that is a function of your own, rows that are
        streamed or transformed, parameters for each row, or several processes. Buffers such as those of `BatchNorm`
        take a tenth.
    refine_steps : int, default 0
        Gradient steps that refine the guide's answer for a batch, in each step of the training. The model then learns
        at the refined posteriors, and the guide on its own bound with the model held fixed. The losses are those at
        refined posteriors. 0 does not refine.
    refine_lr : float, default 0.05
        Learning rate of these steps, which are Adam's, see `VAE.fit_posterior`.
    patience : int, optional
        Stop after so many epochs without a better `monitor`. None never stops early.
    monitor : str, default "validation_loss"
        The column of the metrics that tells the best epoch, the lower the better; the weights of that epoch are
        restored at the end. Without validation rows it is "loss". Families add columns: "validation_error" is the
        classification error of a pair that infers a class, which sees the labels of validation rows in nothing else.
    seed : int, optional, default 0
        Seed of the training, whose stream is another one than that of `torch.manual_seed`: data drawn after
        ``torch.manual_seed(0)`` are not its draws. The caller's random numbers stay as they were. None uses the
        caller's, to draw what a training by stock Pyro draws.
    progress : bool, default True
        Show a progress bar.
    callbacks : sequence of Callback, default ()
        Further callbacks.
    checkpoint_seconds : float, default 10.0
        Least time between two checkpoints of a run folder, in seconds. Where a checkpoint takes more than a twentieth
        of it, they are further apart. 0 saves after every batch.

    Raises
    ------
    ValueError
        For unknown names and impossible numbers.

    Examples
    --------
    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    >>> def guide(x):
    ...     loc = pyro.param("loc", torch.zeros(1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))
    >>> history = Trainer(epochs=2, progress=False).fit(VAE(model, guide), torch.randn(64, 1))
    >>> len(history.rows)
    2
    """

    def fit(
        self,
        vae: VAE,
        data: Any,
        validation: Any = None,
        collate: Collate | None = None,
        *,
        num_data: int | None = None,
        run: RunFolder | str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        allow_changed_data: bool = False,
    ) -> History:
        """Train a VAE and leave it with its best weights, in evaluation mode.

        Parameters
        ----------
        vae : VAE
            The VAE, on the device where the training is to be.
        data : Dataset, Tensor, ndarray, DataFrame, tuple, dict, TensorDataset, DataLoader or IterableDataset
            The data, in one of these forms:

            * a `Dataset` of this library,
            * a tensor of rows ``[N, ...]`` without NaN, or a tuple of two of them, training and validation,
            * an array of NumPy or a frame of pandas that holds numbers, in place of any tensor. NaN are missing
              entries. 64-bit data get the precision of the pair, unless that would lose something,
            * a dict by argument name, ``{"x": x, "c": covariates}``: tensors with N rows are cut into batches,
              everything else is passed whole to both programs,
            * a `TensorDataset`, whose tensors are the arguments of the programs by position, the data first,
            * a `torch.utils.data.DataLoader`, or an `IterableDataset` of batches. Nothing of it is held. A batch is a
              tensor, a tuple of arguments by position, or a dict by name.

            Arguments that neither program names are refused, but for `y` and `index`, which are left out.
        validation : optional
            Validation rows in one of these forms.
        collate : callable, optional
            From a batch, in the form of the data, to what is passed to the programs (a tensor, tuple or dict).
        num_data : int, optional
            Rows of all data, for a stream that does not know, if the pair has latents of all data.
        run : RunFolder, str or Path, optional
            A folder to write checkpoints and metrics to, which every verb of the command line opens: with `--pair` for
            a pair of your own, and with `--data` for data that no name or file gives again. One that holds a training
            is refused, unless `resume` or `overwrite` is set. Nothing is written before the first checks have passed.
        resume : bool, default False
            Go on from the state in `run`. With the same arguments the result is the same, bit for bit, as without the
            stop; with more epochs a finished training goes on, and the schedules "cosine" and "step" go on as those of
            the new length, at the rate that they would have had now. A constant learning rate, `patience`,
            `gradient_clip`, `kl_weight` and, from the next epoch on, `batch_size` may be given anew; other options are
            refused if they changed. A stream goes on at the end of the last finished epoch.
        overwrite : bool, default False
            Replace the training that `run` holds, once the first epoch of the new one has ended.
        allow_changed_data : bool, default False
            With `resume`, go on with training rows that are not those that the training began with.

        Returns
        -------
        History
            The metrics of every epoch, the best epoch, and why the training ended.

        Raises
        ------
        NonFiniteLossError
            If a loss is NaN or infinite. The last good weights are in `run` and in the VAE.
        TrainingInterrupted
            On Ctrl-C, after saving.
        CheckpointError
            If the state in `run` cannot be used, or `run` holds a training that is neither to be resumed nor replaced.
        ValueError
            If early stopping has no validation data, there is no such monitor, there is no run to resume, an option has
            no effect, or the data do not fit the programs.
        TypeError
            If the data have none of these forms, or an argument that the programs do not take.
        """
        if resume and run is None:
            raise ValueError("resume=True needs the run folder to resume, run=")
        if resume and overwrite:
            raise ValueError("resume=True goes on with a training and overwrite=True replaces it; choose one of them")
        if not isinstance(vae, VAE):
            raise TypeError(f"fit trains a VAE, got {type(vae).__name__}; write VAE(model, guide)")
        folder, ranks = RunFolder(run) if isinstance(run, str | Path) else run, processes()
        with ExitStack() as stack:
            with ranks.together():
                given, data = data, training_data(vae, data, validation, collate=collate, num_data=num_data)
                check_rows_given(given, data, vae)
                data = without_unknown_rows(vae, data)
                if self.patience is not None and self.monitor != "loss" and data.validation is None:
                    raise ValueError(
                        f"early stopping watches {self.monitor}, and there are no validation data; give some, or "
                        "monitor='loss'"
                    )
                check_options(self, data, ranks)
                check_idle(self, data)
                if folder is not None:
                    if ranks.first:
                        stack.enter_context(folder.writing())
                    resume = resume or (is_restart() and folder.was_begun_by(launch()))
                    if not resume and not overwrite and folder.holds_training():
                        raise CheckpointError(
                            f"{folder.path} already holds a training; go on with it (resume=True), replace it "
                            "(overwrite=True) or choose another folder"
                        )
                if self.seed is not None:
                    stack.enter_context(forked())
                    begin(self.seed)
                stack.enter_context(nothing_left_behind(self.objective, vae))
                fit = Fit(self, vae, data, folder, ranks)
                if not resume:
                    check_groups_learn(self, fit.groups)
                fit.compile(resume)
                stack.enter_context(vae.scope())
                fit.saving.replaces = folder is not None and not resume and folder.holds_training()
                prints: dict[str, Any] = {}
                for name, rows in (("train", data.train), ("validation", data.validation)):
                    if (ranks.several or folder is not None) and isinstance(rows, Rows):
                        prints[name] = fingerprint(rows, computed=is_computed(given))
                    elif ranks.several and isinstance(rows, Stream):
                        prints[name] = print_of(rows)
                if folder is not None:
                    from pyrovae.runs import in_python  # not above: runs stand on trainings

                    fit.saving.by_command = in_python.is_by_command(self)
                    if ranks.first:
                        writer = in_python.configuration_writer(folder, vae, given, data.train, self, resume=resume)
                        fit.callbacks += writer
            try:
                facts = {"folder to resume": resume, "number of rows": fit.rows, "run folder": folder is not None}
                fit.parallel.agree(
                    facts, {f"fingerprint of the {name} rows": seen for name, seen in prints.items()}, settings_of(self)
                )
                for batches in (fit.train, fit.validation):
                    if isinstance(batches, SharedLoader):
                        batches.agree()
                return fit.run(resume, stack, prints, allow_changed_data=allow_changed_data)
            except KeyboardInterrupt:
                raise
            except LostProcessError as error:
                left = kept_in(folder, by_command=fit.saving.by_command, replaces=fit.saving.replaces)
                raise LostProcessError(f"{error}; {left}") from error
            except BaseException:
                if folder is not None and fit.is_new and not fit.saving.replaces and ranks.first:
                    folder.discard()  # so that it is not in the way of the corrected call
                raise
