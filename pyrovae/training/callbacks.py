"""Progress and logging that you pass to the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pyrovae.nn.variables import RelaxedVariable
from pyrovae.training.schedules import Schedule
from pyrovae.vae import VAE


class _ReadWhenAsked:
    """A field with a number, or with a function that is called for it when somebody looks."""

    def __get__(self, progress: Progress | None, owner: Any = None) -> float:
        held = float("nan") if progress is None else progress.__dict__["_loss"]
        return held() if callable(held) else held

    def __set__(self, progress: Progress, value: float | Callable[[], float]) -> None:
        progress.__dict__["_loss"] = value


@dataclass
class Progress:
    """The state of a training. Every callback gets it.

    Parameters
    ----------
    vae : VAE
        The pair under training.
    epochs : int
        Number of epochs asked for.
    num_batches : int or None
        Batches per epoch; None for a stream that does not know.
    epoch : int, default 0
        Finished epochs.
    batch : int, default 0
        Finished batches of the present epoch.
    loss : float, default NaN
        Mean loss of the present epoch so far, in nats per datum. On a GPU it is read when you look at it, and the
        training waits meanwhile.
    metrics : mapping of str to float, optional
        Metrics of the last finished epoch.
    resumed : bool, default False
        Whether the training goes on with an earlier one.
    """

    vae: VAE
    epochs: int
    num_batches: int | None
    epoch: int = 0
    batch: int = 0
    loss: _ReadWhenAsked = _ReadWhenAsked()
    metrics: Mapping[str, float] | None = None
    resumed: bool = False

    @property
    def time(self) -> float:
        """Training time in epochs, with the share of the present one where the number of batches is known."""
        return self.time_at(self.batch)

    def time_at(self, batch: int) -> float:
        """Training time after so many batches of the present epoch."""
        return self.epoch + (min(batch / self.num_batches, 1.0) if self.num_batches else 0.0)


class Callback:
    """Base class of what watches a training. Override the methods that you need.

    Use it for logging, plots or other reports. Pass an instance to the Trainer.

    Examples
    --------
    >>> class PrintLoss(Callback):
    ...     def on_epoch(self, progress):
    ...         print(f"epoch {progress.epoch}: {progress.loss} nats per datum")
    >>> PrintLoss().on_epoch(Progress(vae=None, epochs=10, num_batches=5, epoch=1, loss=2.5))
    epoch 1: 2.5 nats per datum
    """

    everywhere = True
    """Whether every process of a training calls it, where there are several; set it to False for what only reports."""

    def on_start(self, progress: Progress) -> None:
        """Called before the first batch, also of a resumed training."""

    def on_batch(self, progress: Progress) -> None:
        """Called after every batch."""

    def on_epoch(self, progress: Progress) -> None:
        """Called after every epoch, with its metrics."""

    def on_save(self, progress: Progress) -> None:
        """Called after every save of the run folder, by the process that writes it, perhaps before the start."""

    def on_end(self, progress: Progress) -> None:
        """Called after the last batch, also when the training stops early, is interrupted or fails."""


class ProgressBar(Callback):
    """A tqdm bar over all batches, with the loss, the validation loss and the time left.

    Parameters
    ----------
    **options
        Options of `tqdm`, such as `file` or `disable`.
    """

    everywhere = False

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._bar: Any = None  # a tqdm bar, from `on_start` on
        self._told = 0, 0  # epoch and batch

    def on_start(self, progress: Progress) -> None:
        """Open the bar."""
        options = {"unit": "batch", "dynamic_ncols": True, "mininterval": 0.5, **self.options}
        total = progress.epochs * progress.num_batches if progress.num_batches else None
        self._bar = tqdm(total=total, initial=progress.epoch * (progress.num_batches or 0) + progress.batch, **options)
        self._told = progress.epoch, progress.batch

    def on_batch(self, progress: Progress) -> None:
        """Move the bar."""
        epoch, batch = self._told
        done = progress.batch - (batch if progress.epoch == epoch else 0)  # compiled steps may be done in groups
        self._told = progress.epoch, progress.batch
        self._bar.update(done)
        if progress.batch % 50 < done:
            self._describe(progress)

    def on_epoch(self, progress: Progress) -> None:
        """Show the metrics of the epoch."""
        self._describe(progress)

    def on_end(self, progress: Progress) -> None:
        """Close the bar."""
        self._bar.close()

    def _describe(self, progress: Progress) -> None:
        self._bar.set_description(f"epoch {min(progress.epoch + 1, progress.epochs)}/{progress.epochs}", refresh=False)
        validation = {name: value for name, value in (progress.metrics or {}).items() if name.startswith("validation_")}
        shown = {"loss": f"{progress.loss:.4g}", **{name: f"{value:.4g}" for name, value in validation.items()}}
        self._bar.set_postfix(shown, refresh=False)


class TensorBoard(Callback):
    """Writes the metrics of every epoch as TensorBoard scalars.

    Parameters
    ----------
    folder : str or Path
        Folder of the event files.

    Raises
    ------
    ImportError
        tensorboard is not installed (``pip install pyrovae[tensorboard]``).
    """

    everywhere = False

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard logging needs the extra: pip install pyrovae[tensorboard]") from None
        self._make_writer = partial(SummaryWriter, str(folder))

    def on_start(self, progress: Progress) -> None:
        """Open the event file. A training that cannot begin leaves no file."""
        self._writer = self._make_writer()

    def on_epoch(self, progress: Progress) -> None:
        """Write the metrics of the epoch."""
        for name, value in (progress.metrics or {}).items():
            if name != "epoch":
                self._writer.add_scalar(name, value, progress.epoch)

    def on_end(self, progress: Progress) -> None:
        """Write all pending events to the file."""
        self._writer.flush()


class TemperatureSchedule(Callback):
    """Moves the temperature of every relaxed variable of a VAE with the training time.

    Use it to train with smooth draws first and with nearly discrete draws later.

    Parameters
    ----------
    schedule : Schedule or callable
        The temperature as a function of the time in epochs, such as ``WarmUp(epochs=50, start=1.0, end=0.1)``.

    Raises
    ------
    ValueError
        When the training starts: the VAE has no relaxed variable.

    Notes
    -----
    Bounds at different temperatures are those of different models. So the best epoch may be an early one, with a high
    temperature. To avoid this, take a schedule that ends long before the training does.
    """

    def __init__(self, schedule: Schedule | Callable[[float], float]) -> None:
        self.schedule = schedule

    def on_start(self, progress: Progress) -> None:
        """Set the temperature before the first batch."""
        self.on_batch(progress)

    def on_batch(self, progress: Progress) -> None:
        """Set the temperature for the next batch."""
        relaxed = [module for module in progress.vae.modules() if isinstance(module, RelaxedVariable)]
        if not relaxed:
            raise ValueError("TemperatureSchedule: this VAE has no relaxed variable")
        value = self.schedule(progress.time)
        for module in relaxed:
            module.temperature.fill_(value)
