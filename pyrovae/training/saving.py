"""What a training saves in its run folder, when, and how it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from pyrovae.training.averages import restore_averages, running_averages
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.checks import check_resumed
from pyrovae.training.resuming import apply_settings, check_data, check_settings
from pyrovae.training.state import load_state, save_state

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit

_SPARING = 20.0  # times the duration of a save that the training goes on before the next one


class Saving:
    """The run folder of a training, and what it holds.

    Parameters
    ----------
    fit : Fit
        The training.
    folder : RunFolder or None
        Where to save. None does not save.

    Attributes
    ----------
    by_command : bool
        Whether the command line can resume the training as it is.
    replaces : bool
        Whether the folder holds an earlier training, which goes with the first save.
    at : float
        When the last save was, in seconds of the monotonic clock.
    """

    def __init__(self, fit: Fit, folder: RunFolder | None) -> None:
        self._fit, self.folder = fit, folder
        self.by_command = self.replaces = False
        self.at = time.monotonic()
        self._every = fit.options.checkpoint_seconds

    def restore(self, prints: Mapping[str, Any], *, allow_changed_data: bool) -> None:
        """Take up the last state. `prints` are the fingerprints of "train" and "validation" rows, where known."""
        fit, folder = self._fit, self.folder
        if folder is None:
            return
        rates = [group.get("lr") for group in fit.optimizer.param_groups]
        state = load_state(folder, fit.vae, fit.optimizer, fit.scheduler, fit.learned, fit.train.generator)
        check_resumed(folder, state, fit.train, fit.options.batch_size)
        check_settings(folder, state, fit.options, fit.monitor)
        if not allow_changed_data:
            check_data(folder, state, prints)
        apply_settings(state, fit.options, fit.optimizer, fit.scheduler, rates)
        restore_averages(state.averages)
        fit.state = state
        state.stopped = fit.reason_to_stop()
        if fit.parallel.orders is not None:
            fit.parallel.orders.set_state(torch.get_rng_state())

    @property
    def is_often(self) -> bool:
        """Whether the training saves after each batch."""
        return self.folder is not None and not self._every

    @property
    def is_due(self) -> bool:
        """Whether `checkpoint_seconds` have passed since the last save, and 20 times what that took."""
        writes = self.folder is not None and self._fit.parallel.processes.first
        return writes and time.monotonic() - self.at >= self._every

    def save_if_due(self) -> None:
        """Save if it is due, where there are several processes for the first of them."""
        parallel = self._fit.parallel
        if self.replaces and not self._fit.state.epoch:
            return  # so that the folder keeps what it holds if the new training fails in its first epoch
        if self.replaces or (parallel.saves if parallel.several else self.is_due):
            self.save()

    def save(self) -> None:
        """Write the run folder, if there is one."""
        fit, state, begun = self._fit, self._fit.state, time.monotonic()
        fit.read_losses()
        if fit.captured is not None and fit.captured.chosen is not None:
            state.settings["captured"] = fit.captured.chosen
        state.seconds = round(begun - fit.started_at, 3)
        state.averages = running_averages()
        if self.folder is not None and fit.row_steps is not None:
            fit.parallel.complete(fit.row_steps.tables, fit.optimizer)
        if fit.parallel.orders is not None:  # what one process would go on with
            torch.set_rng_state(fit.parallel.orders.get_state())
        if self.folder is not None and fit.parallel.processes.first:
            try:
                if self.replaces:
                    self.folder.forget_training()
                save_state(self.folder, state, fit.vae, fit.optimizer, fit.scheduler, fit.learned, fit.train.generator)
            except OSError as error:
                raise self._not_saved(error) from error
            for callback in fit.callbacks:
                callback.on_save(fit.progress)
        self.replaces = False
        self.at = time.monotonic()
        if self._every:  # a training that asks to save after every batch has it
            self._every = max(fit.options.checkpoint_seconds, _SPARING * (self.at - begun))

    def _not_saved(self, error: OSError) -> OSError:
        """What could not be written, and how to go on."""
        if self.folder is None or error.errno is None or self._fit.is_new:
            return error
        how = f"pyrovae resume {self.folder.path}" if self.by_command else "resume=True"
        text = f"{error.strerror}; the last save is whole, make room and go on from it: {how}"
        return OSError(error.errno, text, error.filename)
