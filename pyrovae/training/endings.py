"""How a training ends before its last epoch: what is saved or put back, and the error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from pyrovae import programs
from pyrovae.storage import load_module_tensors
from pyrovae.training.history import NonFiniteLossError, TrainingInterrupted
from pyrovae.training.state import save_best

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit


def interrupted(fit: Fit) -> TrainingInterrupted:
    """Save after Ctrl-C; what is then to be raised."""
    fit.read_losses()
    epoch, batch, folder = fit.state.epoch, fit.state.batch, fit.saving.folder
    if fit.row_steps is not None:
        fit.parallel.complete(fit.row_steps.tables)
    where = f"in epoch {epoch + 1} after batch {batch}" if batch else f"after epoch {epoch}"
    if folder is None:
        return TrainingInterrupted(f"interrupted {where}; the weights are as they were then")
    saved = "everything is saved"
    if batch and not fit.train.resumes_within_epochs:
        saved = f"a stream begins its epochs anew, so what is saved is the end of epoch {epoch}"
    else:
        fit.saving.save()
    how = f" in {folder.path}, go on with resume=True"
    if fit.saving.by_command:
        how = f", go on with: pyrovae resume {folder.path}"
    return TrainingInterrupted(f"interrupted {where}; {saved}{how}")


def non_finite(
    fit: Fit,
    what: str,
    x: Tensor | None = None,
    data: Mapping[str, Tensor] | None = None,
    batch: int | None = None,
) -> NonFiniteLossError:
    """Put the best weights back; what is then to be raised, with the place where a number stopped being finite."""
    state, folder = fit.state, fit.saving.folder
    batch = batch or min(state.batch + 1, fit.progress.num_batches or state.batch + 1)
    found = ""
    if x is not None:
        found = f"from {programs.find_non_finite(fit.vae.model, fit.vae.guide, x, **(data or {}))}"
    found = fit.parallel.first_word(found)
    load_module_tensors(fit.vae, state.best, "the best weights")
    fit.optimizer.zero_grad()  # so that a later training can go on
    kept = "the VAE has"
    if folder is not None and not fit.is_new:
        if fit.parallel.processes.first:
            save_best(folder, state)
        kept = f"the VAE and {folder.weights_path} have"
    weights = f"the best weights before it (epoch {state.best_epoch})" if state.best_epoch else "the first weights"
    return NonFiniteLossError(
        f"{what} in epoch {state.epoch + 1}, batch {batch}{found and ', '}{found}; {kept} {weights}; try a "
        "smaller learning rate or gradient_clip"
    )
