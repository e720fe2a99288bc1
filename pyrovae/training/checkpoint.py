"""The folder of a training run."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pyrovae.storage import (
    AGAIN,
    FORMAT_VERSION,
    CheckpointError,
    check_version,
    digest_of,
    load_information,
    remove_partial,
    write_atomically,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
LOCK = ".lock"
METRICS_JSON = "metrics.json"
"""Held-out figures, which an evaluation writes."""
_OF_THE_WEIGHTS = (METRICS_JSON, "inference-gap.csv", "missing-*.csv", "report.html")
"""What evaluations and reports write of a training, which say nothing of the next one."""
_DIGEST, _FILES = "digest", "files"
_TRIES = 8
_OWN = {LOCK, "tensorboard", "point.json", "result.json"}
"""What may lie in the folder of a new run: those beside are of a sweep."""


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
    * `metrics.json`: held-out figures, once the run was evaluated,
    * `model.safetensors`: the best weights,
    * `last/state.safetensors`: everything that is needed to resume,
    * `figures/`, and files of the family of the pair, such as `trees.npz`.

    Every file is replaced in one step, the state last. So a training that is killed at any moment leaves a folder that
    can be resumed. The configuration and the files of tensors carry digests of themselves, the configuration those of
    the files of the family, and the state that of the metrics. While a training writes, the folder is locked against
    other writers, and the lock ends with its process.

    Examples
    --------
    >>> RunFolder("runs/digits").weights_path.as_posix()
    'runs/digits/model.safetensors'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: FileLock | None = None

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
        """Whether there is any file of a training."""
        paths = (self.state_path, self.weights_path, self.config_path, self.path / "metrics.csv")
        return any(path.exists() for path in paths)

    def is_untrained(self) -> bool:
        """Whether there is a state of a training of which no epoch has ended. One that is damaged says nothing."""
        try:
            return self.state_path.exists() and load_information(self.state_path).get("epoch") == 0
        except CheckpointError:
            return False

    def was_begun_by(self, launch: str | None) -> bool:
        """Whether the training in the folder was begun by this start of torchrun, see `pyrovae.distributed.launch`."""
        try:
            return launch is not None and load_information(self.state_path).get("launch") == launch
        except (CheckpointError, OSError):
            return False

    def foreign(self) -> str | None:
        """The name of a file in the folder that is of no run, if there is one."""
        if not self.path.is_dir():
            return None
        found = (entry.name for entry in sorted(self.path.iterdir()))
        return next((name for name in found if name not in _OWN and not name.endswith(".partial")), None)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context in which nobody else writes to the folder. It is made if there is none, and removed if it is empty.

        Raises
        ------
        CheckpointError
            If another process, or another part of this one, is writing to it.
        """
        if self._lock is not None:  # an outer context has it
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._taken() from None
        self._lock = lock
        try:
            for folder in (self.path, self.state_path.parent, self.figures_path):
                remove_partial(folder)
            yield
        finally:
            self._lock = None
            with suppress(OSError):
                (self.path / LOCK).unlink()
            lock.release()
            with suppress(OSError):  # something is in it
                self.path.rmdir()

    def check_not_written(self) -> None:
        """Refuse a folder that another process is writing to. A killed one leaves a lock behind, which nobody holds.

        Raises
        ------
        CheckpointError
            If there is one.
        """
        if self._lock is not None or not (self.path / LOCK).exists():
            return
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._taken() from None
        except OSError:  # of a folder that cannot be written, which others tell
            return
        lock.release()

    def _taken(self) -> CheckpointError:
        return CheckpointError(
            f"another training is writing to {self.path}; wait until it ends, or choose another folder"
        )

    def forget_training(self) -> None:
        """Delete what an earlier run has written, before a new one writes its own.

        The configuration goes first, so that a kill in between leaves no run that is half of each.
        """
        with suppress(CheckpointError):
            files = [self.path / name for name in self.read_config().get(_FILES, {}) if Path(name).name == name]
            self.config_path.unlink()
            for path in files:
                path.unlink(missing_ok=True)
        told = [path for pattern in _OF_THE_WEIGHTS for path in self.path.glob(pattern)]
        for path in (self.config_path, self.state_path, self.path / "metrics.csv", *told, self.weights_path):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.state_path.parent.rmdir()

    def discard(self) -> None:
        """Delete what a training has written that failed before its first epoch had ended."""
        with suppress(OSError):
            self.forget_training()
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)

    def write_config(self, config: Mapping[str, Any], files: Iterable[str] = ()) -> None:
        """Write the configuration, with digests of itself and of files of the family.

        Parameters
        ----------
        config : mapping
            What to write, of JSON values.
        files : iterable of str, default ()
            Names of files of the family of the pair in the folder, such as "trees.npz", beside those that the
            configuration has already. They are written before this is called, and compared whenever the run is opened.
        """
        written = {name: value for name, value in config.items() if name not in (_DIGEST, _FILES)}
        names = sorted({*config.get(_FILES, {}), *files})
        digests = {name: digest_of((self.path / name).read_bytes()) for name in names if (self.path / name).is_file()}
        written = {"format_version": FORMAT_VERSION, **written, **({_FILES: digests} if digests else {})}
        content = {**written, _DIGEST: _digest_of_config(written)}
        write_atomically(self.config_path, json.dumps(content, indent=2) + "\n")

    def seal(self, files: Iterable[str]) -> None:
        """Write the digests of files of the family, as they are now, into the configuration; see `write_config`."""
        self.write_config(self.read_config(), files)

    def check_files(self, config: Mapping[str, Any]) -> None:
        """Compare the files of the family with their digests in the configuration.

        Raises
        ------
        CheckpointError
            If one is missing, or has other contents.
        """
        files = config.get(_FILES, {})
        if not isinstance(files, dict):
            raise CheckpointError(f"{self.config_path} is damaged: {_FILES!r} is no mapping; {AGAIN}")
        for name, digest in files.items():
            path = self.path / name
            try:
                content = path.read_bytes()
            except OSError as error:
                raise CheckpointError(
                    f"{path} cannot be read ({error.strerror}), and its run needs it; {AGAIN}"
                ) from None
            if digest_of(content) != digest:
                raise CheckpointError(f"{path} is damaged: its content is not what was written (SHA-256); {AGAIN}")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration.

        Raises
        ------
        CheckpointError
            The folder has no configuration, the file is damaged or was edited, or a newer version of the library wrote
            it.
        """
        try:
            config = dict(json.loads(self.config_path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            more = ""
            if self.weights_path.exists():
                more = ", though weights; of a training in Python on a stream, VAE.save(folder, data=...) writes one"
            if not self.path.exists():
                raise CheckpointError(f"{self.path} is no run folder: it does not exist") from None
            raise CheckpointError(f"{self.path} is no run folder: it has no config.json{more}") from None
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.config_path} is damaged ({error}); {AGAIN}") from None
        check_version(self.config_path, config)
        digest = config.pop(_DIGEST, None)
        if digest is not None and digest != _digest_of_config(config):
            raise CheckpointError(
                f"{self.config_path} is not what was written (SHA-256): it is damaged or was edited; restore it, or "
                f'take out its line "{_DIGEST}" if the change is meant'
            )
        return config

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> str:
        """Write the table of metrics and return its digest.

        It has the columns of all rows, in the order in which they first occur.
        """
        rows = list(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())
        return digest_of(text.getvalue().encode())

    def read_metrics(self) -> list[dict[str, float]]:
        """Read the table of metrics, a dictionary per epoch. It is empty before the first epoch has ended.

        Where the file is not what the last state was written with, the metrics are those of the state, and a line of
        the log says so.

        Raises
        ------
        CheckpointError
            If the file is damaged, and there is no state.
        """
        path = self.path / "metrics.csv"
        state = load_information(self.state_path) if self.state_path.exists() else {}
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if "metrics" in state and (digest_of(content) if content else None) != state["metrics"]:
            logger.warning(
                "%s is not what the last state was saved with: it is damaged, was edited, or a save was cut short; the "
                "metrics are those of the state",
                path,
            )
            return [{name: float(value) for name, value in row.items()} for row in state["history"]]
        try:
            rows = list(csv.DictReader(content.decode().splitlines()))
            return [{name: float(value) for name, value in row.items() if value} for row in rows]
        except (TypeError, ValueError, AttributeError, csv.Error) as error:
            raise CheckpointError(f"{path} is damaged ({error}); restore it, or delete it to do without") from None

    def consistently(self, read: Callable[[], T]) -> T:
        """What `read` finds in the folder, all of it of one save, also while a training writes to it.

        Parameters
        ----------
        read : callable
            Reads files of the folder. It is called again if one was replaced meanwhile.

        Raises
        ------
        CheckpointError
            As `read` does, and if files are replaced faster than they can be read.
        """
        for attempt in range(_TRIES):
            before = self._stamp()
            try:
                found, problem = read(), None
            except CheckpointError as error:
                problem = error
            if self._stamp() == before:
                if problem is not None:
                    raise problem
                if self._is_settled() or attempt == _TRIES - 1:  # a kill may have cut a save short for good
                    return found
            time.sleep(0.02 * 2**attempt)
        raise CheckpointError(f"the files of {self.path} are replaced faster than they can be read; try again")

    def _stamp(self) -> tuple[Any, ...]:
        """What changes whenever a file is replaced."""
        found = []
        for path in (self.config_path, self.weights_path, self.state_path, self.path / "metrics.csv"):
            try:
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _is_settled(self) -> bool:
        """Whether weights and metrics are those of the state, so that no save is under way."""
        if not self.state_path.exists():
            return True
        try:
            state, weights = load_information(self.state_path), load_information(self.weights_path)
            metrics = self.path / "metrics.csv"
            digest = digest_of(metrics.read_bytes()) if metrics.exists() else None
        except (CheckpointError, OSError):
            return False
        same = weights.get("epoch") == state.get("best_epoch") and weights.get("value") == state.get("best_value")
        return same and digest == state.get("metrics", digest)


def kept_in(folder: RunFolder | None, *, by_command: bool, replaces: bool) -> str:
    """What is left of a training that another process has ended, and how to go on.

    Parameters
    ----------
    folder : RunFolder or None
        Its folder.
    by_command : bool
        Whether the command line can resume it.
    replaces : bool
        Whether the folder still holds an earlier training, which it was to replace.
    """
    if folder is None:
        return "nothing was saved, since there is no run folder"
    if replaces:
        return f"{folder.path} still holds the training that was to be replaced"
    if not folder.state_path.exists():
        return "nothing was saved yet"
    how = f"pyrovae resume {folder.path}" if by_command else "resume=True"
    return f"the last save in {folder.path} is whole, go on from it: {how}"


def _digest_of_config(config: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
