"""The verb `sweep`: many trainings over a grid of options."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pyrovae import plotting
from pyrovae.cli.arguments import make_parser, options_of_train, pair_facts
from pyrovae.cli.missing import named
from pyrovae.cli.options import TRAINING, flag, given, pair_dest
from pyrovae.cli.writing import check_new
from pyrovae.data.loading import check_known
from pyrovae.metrics.missing import MissingError
from pyrovae.pairs.registry import find_pair
from pyrovae.runs import sweep as sweeps
from pyrovae.runs.configuration import suited_training
from pyrovae.runs.measured import STALE, errors_of, point_figures
from pyrovae.storage import write_atomically
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.options import TrainingOptions

_OF_THE_SWEEP = {
    "overwrite": "give --overwrite to sweep",
    "out": "every point has a folder of its own, below --out of sweep",
    "quiet": "sweep shows its own progress",
    "device": "give --device to sweep",
    "help": "it is no option of a training",
}


def sweep(options: argparse.Namespace) -> int:
    """Train every point of a grid, or collect the figures of a sweep into a table.

    Returns
    -------
    int
        The exit status: 1 if a point failed.

    Raises
    ------
    ValueError
        For a grid with an unknown option, before anything runs.
    """
    if options.collect is not None:
        if options.grid is not None:
            raise ValueError(f"--collect reads a folder of a sweep and takes no grid, got {options.grid}")
        for name, usual in (("jobs", 1), ("backend", None), ("backend_option", None), ("evaluate", False)):
            if getattr(options, name) != usual:
                raise ValueError(f"{flag(name)} is for training; --collect trains nothing, so leave it out")
        _collect(options.collect, options.out, options.overwrite)
        return 0
    if options.grid is None or options.out is None:
        raise ValueError("sweep needs a grid and a folder: pyrovae sweep GRID.json --out DIR")
    if (options.out / "config.json").exists():
        raise ValueError(f"{options.out} is the folder of a run; give another --out for the runs of a sweep")
    points = sweeps.points_of(read_grid(options.grid))
    for point, folder in zip(points, sweeps.folders_of(points, options.out), strict=True):
        given_options = parsed(point.options, Path())
        _check_values(given_options)
        if not (folder / "config.json").exists():  # a run that is there goes on as it was begun
            _check_pair_options(given_options)
    start = partial(train_point, device=options.device, evaluate=options.evaluate, overwrite=options.overwrite)
    results = sweeps.sweep(
        points,
        options.out,
        start,
        again=options.overwrite,
        jobs=options.jobs,
        backend=options.backend,
        backend_options=dict(options.backend_option or ()),
    )
    try:
        failed = [result for result in _shown(results, len(points), options.quiet) if result.error is not None]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is done is kept in {options.out}, and the same command goes on"
        ) from None
    print(f"{len(points) - len(failed)} of {len(points)} points finished; run folders in {options.out}")
    for result in failed:
        print(f"failed: {result.folder.name}: {result.error}")
    if failed:
        print("the same command tries the failed points again")
    return 1 if failed else 0


def _check_values(options: argparse.Namespace) -> None:
    """Check what can be checked of the options of a point without its data.

    Raises
    ------
    ValueError
        For an unknown data set, a file that is not there, and an impossible number of the training.
    """
    from pyrovae.runs.own_data import is_function

    if not is_function(options.data):
        check_known(options.data)
    TrainingOptions(
        **suited_training(find_pair(options.builder.name), given(vars(options), [*TRAINING, "compile", "drop_last"]))
    )


def _check_pair_options(options: argparse.Namespace) -> None:
    """Refuse a point with an option of the pair that has no effect beside its others.

    Raises
    ------
    ValueError
        Saying how to write such a grid.
    """
    pair, values = find_pair(options.builder.name), vars(options)
    try:
        pair.check_options({o.name: values[pair_dest(o)] for o in pair.options if values[pair_dest(o)] is not None})
    except ValueError as error:
        raise ValueError(
            f"a point of the grid: {error} (a list of grids gives each choice options of its own)"
        ) from None


def read_grid(path: Path) -> Any:
    """What stands in the file of a grid.

    Raises
    ------
    ValueError
        If it is no JSON, or a grid names an option twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path} names {twice!r} twice in one grid; give its values as a list")
        return found

    try:
        return json.loads(path.read_text(), object_pairs_hook=once)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None


def words_of(point: Mapping[str, Any], folder: Path) -> list[str]:
    """A point as the command line of `train`.

    Raises
    ------
    ValueError
        If pair or data are missing, or an option is one of the sweep.

    Examples
    --------
    >>> words_of({"pair": "gaussian", "data": "digits", "latent_dim": 2, "compile": True}, Path("runs/a"))
    ['train', 'gaussian', '--data', 'digits', '--latent-dim', '2', '--compile', '--out', 'runs/a', '--quiet']
    """
    for name in ("pair", "data"):
        if not isinstance(point.get(name), str):
            raise ValueError(f"the grid must say {name!r}, a text, got {point.get(name)!r}")
    words = ["train", point["pair"], "--data", point["data"]]
    for name, value in point.items():
        option = flag(name)
        if name in ("pair", "data"):
            continue
        if name.replace("-", "_") in _OF_THE_SWEEP:
            raise ValueError(f"{name!r} is no option of a grid: {_OF_THE_SWEEP[name.replace('-', '_')]}")
        if value is True:
            words.append(option)
        elif value is False:
            words.append(f"--no-{option[2:]}")
        elif isinstance(value, list):
            for part in value:
                words += [option, str(part)]
        elif value is not None:
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    return [*words, "--out", str(folder), "--quiet"]


def parsed(point: Mapping[str, Any], folder: Path) -> argparse.Namespace:
    """The options of `train` of a point, checked.

    Raises
    ------
    ValueError
        For an unknown pair or option, listing the known ones, and a value that an option does not take.
    """
    pair = pair_facts(str(point.get("pair"))) if isinstance(point.get("pair"), str) else None
    known = options_of_train(pair)
    left_out = set()
    for name, value in point.items():
        plain = name.replace("-", "_")
        if plain in ("pair", "data") or plain in _OF_THE_SWEEP:
            continue
        if plain not in known:
            listed = ", ".join(sorted(key for key in known if key not in _OF_THE_SWEEP))
            raise ValueError(
                f"the grid has the option {name!r}, which train {point.get('pair')} does not have; it has {listed}"
            )
        is_switch, has_no = known[plain]
        if isinstance(value, bool) and not is_switch:
            raise ValueError(f"the option {name!r} of the grid takes a value, got {json.dumps(value)}")
        if value is False and not has_no:
            left_out.add(name)  # a switch that can only be turned on
    words = words_of({name: value for name, value in point.items() if name not in left_out}, folder)
    options, unknown = make_parser(pair).parse_known_args(words)
    if unknown:
        of = next((f" (option {name!r})" for name, value in point.items() if str(value) in unknown), "")
        raise ValueError(f"the grid has what train does not take: {' '.join(unknown)}{of}")
    return options


def train_point(
    point: Mapping[str, Any], folder: Path, *, device: str = "auto", evaluate: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train a point into its folder, or go on there.

    Parameters
    ----------
    point : mapping of str to Any
        Its options.
    folder : Path
        Its run folder.
    device : str, default "auto"
        Where to train.
    evaluate : bool, default False
        Whether to compute the figures of the test rows too.
    overwrite : bool, default False
        Whether to train anew, and replace the run that the folder holds.

    Returns
    -------
    dict
        The metrics of the best epoch, and the figures of the test rows.
    """
    from pyrovae.cli.command import silence_pyro
    from pyrovae.cli.training import new_run
    from pyrovae.runs import Run, pick_device
    from pyrovae.runs.own_data import is_function

    options, where = parsed(point, folder), pick_device(device)
    with warnings.catch_warnings():
        silence_pyro()
        options.overwrite = overwrite
        if started := (folder / "config.json").exists() and not overwrite:
            pair = options.builder.name if options.builder.own else None
            run = Run.open(folder, pair, options.data if is_function(options.data) else None)
        else:
            run = new_run(options)
        run.train(resume=started, device=where, progress=False, overwrite=overwrite)
    if evaluate or options.evaluate:
        run.evaluate(device=where, keep=True)
    return point_figures(run.folder)


def _collect(folder: Path, out: Path | None, overwrite: bool) -> None:
    import pandas as pd

    if out is not None:
        check_new(out, overwrite)
    rows, all_curves = sweeps.collect(folder), dict[str, dict[str, list[MissingError]]]()
    for row in rows:
        name = row["run"]
        all_curves[name], stale = errors_of(RunFolder(folder / name))
        for way in stale:
            print(f"{name}: {STALE.format(way=way)}", file=sys.stderr)
        for way, errors in all_curves[name].items():
            row |= {f"error_missing.{way}.{error.ratio:g}": error.error_missing for error in errors}
    path = out or folder / "results.csv"
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{len(rows)} points ({counts}): {path}")
    if curves := named(all_curves):
        figure = folder / "figures" / "missing_errors.png"
        plotting.save_figure(plotting.missing_errors(curves), figure)
        print(figure)


def _shown(results: Iterator[sweeps.Result], total: int, quiet: bool) -> Iterator[sweeps.Result]:
    """The results, with a line for each and a bar."""
    with tqdm(total=total, desc="points", disable=quiet) as bar:
        for result in results:
            bar.update()
            if not quiet:
                bar.write(_line(result))
            yield result


def _line(result: sweeps.Result) -> str:
    if result.error is not None:
        return f"{result.folder.name}: failed"
    shown = {name: value for name, value in result.figures.items() if name in ("loss", "validation_loss")}
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items() if value is not None)
    return f"{result.folder.name}: {figures or 'finished'}"
