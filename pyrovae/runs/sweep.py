"""Many runs over a grid of options: one folder for each point, which can be broken off and gone on with."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrovae.runs.evaluations import weights_digest
from pyrovae.runs.measured import point_figures
from pyrovae.storage import CheckpointError, write_atomically
from pyrovae.training.checkpoint import RunFolder

POINT, RESULT = "point.json", "result.json"
"""Files in the folder of a point: what the point is, and what came of it."""
_LONGEST = 120  # letters of the name of a folder
_ONE_AT_A_TIME = threading.Lock()
"""Pyro has one stack of handlers and one parameter store in a process, so threads of a backend take turns."""

Start = Callable[[Mapping[str, Any], Path], Mapping[str, Any]]
"""Trains a point into a folder, or goes on there, and returns figures by name."""


@dataclass(frozen=True)
class Point:
    """One combination of the options of a grid.

    Parameters
    ----------
    options : mapping of str to Any
        All options of the point, ready for JSON.
    name : str
        Readable name of its folder: the options that differ between points.
    """

    options: Mapping[str, Any]
    name: str


@dataclass(frozen=True)
class Result:
    """What came of a point.

    Parameters
    ----------
    point : Point
        The point.
    folder : Path
        Its run folder.
    figures : mapping of str to Any
        Figures by name; empty if it failed.
    error : str, optional
        Why it failed, in one line. None if it did not.
    """

    point: Point
    folder: Path
    figures: Mapping[str, Any]
    error: str | None = None


def points_of(grid: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Point]:
    """All combinations of the options of a grid, with names.

    Parameters
    ----------
    grid : mapping of str to Any, or sequence of them
        Options by name. A list means each of its values in turn, anything else one value. Several grids one after the
        other, as scikit-learn's `ParameterGrid` takes them.

    Returns
    -------
    list of Point
        Each combination once.

    Raises
    ------
    ValueError
        For a grid that is none, or has an option without values.

    Examples
    --------
    >>> [point.name for point in points_of({"pair": "gaussian", "lr": [0.01, 0.001]})]
    ['lr=0.01', 'lr=0.001']
    """
    from sklearn.model_selection import ParameterGrid  # imported where it is needed, since it takes a while

    grids = [grid] if isinstance(grid, Mapping) else grid
    if not isinstance(grids, Sequence) or isinstance(grids, str) or not all(isinstance(g, Mapping) for g in grids):
        raise ValueError("a grid is an object of options by name, or a list of such objects")
    if not grids:
        raise ValueError("the grid is empty")
    for options in grids:
        for name, values in options.items():
            if isinstance(values, list) and not values:
                raise ValueError(f"the option {name!r} of the grid has no values")
    listed = [{n: v if isinstance(v, list) else [v] for n, v in options.items()} for options in grids]
    found: list[dict[str, Any]] = []
    for options in ParameterGrid(listed):
        if options not in found:
            found.append(options)
    varying = [
        name for name in dict.fromkeys(n for o in found for n in o) if len({_text(o.get(name)) for o in found}) > 1
    ]
    points: list[Point] = []
    for options in found:
        name = _name({option: options[option] for option in varying if option in options})
        taken = {point.name for point in points}
        number = 2
        while (unique := name if number == 2 else f"{name}-{number - 1}") in taken:
            number += 1
        points.append(Point(options, unique))
    return points


def sweep(
    points: Sequence[Point],
    folder: str | Path,
    start: Start,
    *,
    again: bool = False,
    jobs: int = 1,
    backend: str | None = None,
    backend_options: Mapping[str, Any] | None = None,
) -> Iterator[Result]:
    """Train the points of a grid, several at once, and yield each result when it is there.

    Points that are finished are yielded without being trained again. Those that were broken off are gone on with, and
    those that failed are tried again.

    Parameters
    ----------
    points : sequence of Point
        What to train.
    folder : str or Path
        Where to: one folder below it for each point. A point keeps the folder that it once had, whatever its name.
    start : callable
        Trains one point, see `Start`. It is called in another process, so it must be a function of a module. What it
        raises is noted with the point, and the other points go on.
    again : bool, default False
        Whether to train points anew that are finished.
    jobs : int, default 1
        How many at once.
    backend : str, optional
        A backend of joblib: "loky" (processes), "multiprocessing", "dask", "ray", or one that was registered. None
        takes joblib's own choice. Threads of one process take turns, since Pyro allows no more.
    backend_options : mapping, optional
        Further arguments of the backend, such as ``scheduler_host`` of "dask".

    Yields
    ------
    Result
        In the order in which they end.

    Raises
    ------
    ValueError
        For a number of jobs below 1, and an unknown backend.
    ImportError
        If a backend is not installed.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    context, root = _context(jobs, backend, backend_options), Path(folder)
    folders = folders_of(points, root)
    waiting = []
    for point, path in zip(points, folders, strict=True):
        done = read_result(path)
        if not again and done is not None and done.get("error") is None:
            yield Result(point, path, done.get("figures") or {})
        else:
            waiting.append((point, path))
    if not waiting:
        return
    for point, path in waiting:
        (path / RESULT).unlink(missing_ok=True)
        write_atomically(path / POINT, json.dumps(dict(point.options), indent=2) + "\n")
    with context:
        yield from _in_parallel(waiting, start, jobs)


def folders_of(points: Iterable[Point], root: Path) -> list[Path]:
    """The folder of each point: the one that it has already, or a new one."""
    held: dict[str, Path] = {}
    for known in sorted(root.glob(f"*/{POINT}")):
        try:
            held[_text(json.loads(known.read_text()))] = known.parent
        except ValueError:
            continue  # half a file is nobody's
    found: list[Path] = []
    for point in points:
        path = held.get(_text(dict(point.options)))
        if path is None:
            path, number = root / point.name, 2
            while path in held.values() or path in found or (path.exists() and any(path.iterdir())):
                path, number = root / f"{point.name}-{number}", number + 1
        found.append(path)
    return found


def read_result(folder: Path) -> dict[str, Any] | None:
    """What came of a point: a mapping with `figures` and `error`, or None if it is not finished."""
    try:
        found = json.loads((folder / RESULT).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def collect(folder: str | Path) -> list[dict[str, Any]]:
    """A row for each point of a sweep: its folder, its state, its options and its figures.

    Where a point was trained further since the sweep, the figures are those that its folder has now.

    Parameters
    ----------
    folder : str or Path
        The folder of the sweep.

    Returns
    -------
    list of dict
        `run`, `state` ("finished", "failed", "unfinished" or "damaged"), the options by name, the figures by name, and
        `error` of those that failed or are damaged. A name that is an option and a figure is ``figure.NAME`` as a
        figure.

    Raises
    ------
    ValueError
        If there is no sweep in the folder.
    """
    root, rows = Path(folder), []
    for path in sorted(root.glob(f"*/{POINT}")):
        try:
            options = dict(json.loads(path.read_text()))
        except (TypeError, ValueError):
            raise ValueError(f"{path} is damaged; remove that folder, and run the sweep again") from None
        result = read_result(path.parent)
        state = "unfinished" if result is None else "finished" if result.get("error") is None else "failed"
        row = {"run": path.parent.name, "state": state, **{name: _plain(value) for name, value in options.items()}}
        error = (result or {}).get("error")
        try:
            figures = _figures(path.parent, result)
        except (OSError, KeyError, IndexError, CheckpointError) as problem:
            figures, row["state"], error = {}, "damaged", " ".join(str(problem).split())
        for name, value in figures.items():
            row[f"figure.{name}" if name in row else name] = _plain(value)
        if error is not None:
            row["error"] = error
        rows.append(row)
    if not rows:
        raise ValueError(f"{folder} holds no points of a sweep")
    return rows


def _figures(folder: Path, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of a point. Where it was trained further, those of its folder, and none for others of the sweep."""
    if result is None or result.get("error") is not None:
        return {}
    figures, run = dict(result.get("figures") or {}), RunFolder(folder)
    if "weights" not in result or not run.state_path.exists():
        return figures
    now = point_figures(run)
    if _weights(folder) != result["weights"]:
        return dict.fromkeys(figures) | now
    return figures | {name: value for name, value in now.items() if name in figures}


def _weights(folder: Path) -> str | None:
    """The digest of the weights of a point; None where it has none, as one that failed."""
    run = RunFolder(folder)
    return weights_digest(run) if run.weights_path.exists() else None


def run_point(point: Point, path: Path, start: Start) -> Result:
    """Train one point and write down what came of it. Errors are noted, and not raised."""
    try:
        with _ONE_AT_A_TIME:
            figures, error, weights = dict(start(point.options, path)), None, _weights(path)
    except Exception as problem:  # whatever a pair raises must not end the other points
        figures, error, weights = {}, " ".join(f"{type(problem).__name__}: {problem}".split()), None
    result = {"figures": figures, "error": error, "weights": weights}
    write_atomically(path / RESULT, json.dumps(result, indent=2) + "\n")
    return Result(point, path, figures, error)


def _context(jobs: int, backend: str | None, options: Mapping[str, Any] | None) -> AbstractContextManager[Any]:
    """A context in which joblib has this backend.

    Raises
    ------
    ValueError
        For an unknown backend, and options that it does not take.
    ImportError
        If a backend is not installed.
    """
    import joblib

    if backend is None:
        if options:
            raise ValueError("options of a backend need the name of the backend")
        return nullcontext()
    if backend == "ray":
        _register_ray()
    try:
        return joblib.parallel_config(backend, n_jobs=jobs, **(options or {}))
    except TypeError as error:
        raise ValueError(f"the backend {backend!r} does not take these options: {error}") from None


def _in_parallel(waiting: Sequence[tuple[Point, Path]], start: Start, jobs: int) -> Iterator[Result]:
    """The results of points, in the order in which they end where the backend can tell it."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError
    from joblib.parallel import get_active_backend

    tasks = [delayed(run_point)(point, path, start) for point, path in waiting]
    streams = get_active_backend()[0].supports_return_generator
    kind = "generator_unordered" if streams else "list"
    left = {path: point for point, path in waiting}
    try:
        for result in Parallel(n_jobs=jobs, return_as=kind, batch_size=1, pre_dispatch=jobs)(tasks):
            del left[result.folder]
            yield result
    except TerminatedWorkerError:
        for path, point in left.items():
            yield Result(point, path, {}, "not finished, because a process of the sweep was killed, perhaps for memory")


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise ImportError("the backend 'ray' needs Ray: pip install 'pyrovae[ray]'") from None
    register_ray()


def _name(options: Mapping[str, Any]) -> str:
    """A readable name of a folder."""
    parts = (f"{name}={_plain(value)}" for name, value in options.items())
    text = re.sub(r"[^\w.=+-]+", "-", "_".join(parts)).strip(".-")
    return text[:_LONGEST] or "run"


def _plain(value: Any) -> Any:
    """A value for a cell of a table."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
