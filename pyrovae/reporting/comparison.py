"""The page that compares runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pyrovae import plotting
from pyrovae.reporting.held_out import tables_of
from pyrovae.reporting.opened import Opened
from pyrovae.reporting.page import Cell, Command, Page, Row, Section, Table, picture
from pyrovae.reporting.repeating import command_of, python_of
from pyrovae.reporting.single import pictured, summary_of
from pyrovae.reporting.words import duration, in_words

_PARTS = ("pair_options", "data", "training", "finishing", "versions")
_SPLITS = ("test", "validation", "train")


def compared(runs: Sequence[Opened]) -> Page:
    """The page on several runs."""
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    changed = [split for split in _SPLITS if len({_fingerprint(run, split) for run in runs} - {None}) > 1]
    if changed:
        notes.append(
            f"The {' and '.join(changed)} rows of the runs are not the same, so their losses and figures are of "
            "different data."
        )
    sections = [_settings(runs), _figures(runs, changed), _curves(runs), *_pictures(runs), _commands(runs)]
    summary = " ".join(f"{run.name} is {summary_of(run)}" for run in runs)
    return Page(f"{len(runs)} runs compared", summary, notes, sections)


def _fingerprint(run: Opened, split: str) -> str | None:
    found = (run.config.get("fingerprints") or {}).get(split)
    return None if found is None else str(found["sha256"])


def _settings(runs: Sequence[Opened]) -> Section:
    """What differs between the runs."""
    told = [part for part in _PARTS if part != "versions" or all(run.config.get("versions") for run in runs)]
    settings = [_flat(run, told) for run in runs]
    names = list(dict.fromkeys(name for found in settings for name in found))
    differing = [name for name in names if len({json.dumps(found.get(name)) for found in settings}) > 1]
    # A training that is not over, and its time, differ without being settings.
    rows = [Row(name, [Cell(in_words(found.get(name))) for found in settings]) for name in differing]
    for title, of_run in (("epochs done", _epochs), ("time of the training", _seconds)):
        rows.append(Row(title, [Cell(of_run(run)) for run in runs]))
    caption = "What differs; - stands for the default" if differing else "The settings are the same"
    return Section("Settings", tables=[Table(("", *(run.name for run in runs)), rows, caption, code=True)])


def _flat(run: Opened, parts: Sequence[str]) -> dict[str, Any]:
    config = run.config
    found = {"pair": config["pair"] or "a pair of your own", "pyrovae version": config.get("pyrovae_version")}
    if "grown_from" in config:
        found["grown from"] = config["grown_from"]
    for part in parts:
        for name, value in (config.get(part) or {}).items():
            title = {"pair_options": name, "training": name}.get(part, f"{part}: {name}")
            found[title.replace("_", " ")] = None if value is False else value
    for split, print_ in (config.get("fingerprints") or {}).items():
        found[f"{split} rows (SHA-256)"] = f"{print_['rows']} ({str(print_['sha256'])[:12]}…)"
    return found


def _epochs(run: Opened) -> str:
    return f"{run.state.get('epoch')}, the best is {run.state.get('best_epoch')}" if run.state else "-"


def _seconds(run: Opened) -> str:
    return duration(run.state.get("seconds") or 0.0) if run.state else "-"


def _figures(runs: Sequence[Opened], changed: Sequence[str]) -> Section:
    """Held-out figures side by side, for each split of which there are any."""
    section = Section("Held-out figures")
    for split in _SPLITS:
        columns = {run.name: run.kept[split].figures for run in runs if split in run.kept}
        if not columns:
            continue
        first, *nested = tables_of(columns)
        more = f"{split.capitalize()} rows. {first.caption}"
        if len({figures.get("num_rows") for figures in columns.values()}) > 1 or split in changed:
            more += "; the runs were evaluated on different rows"
        elif len(columns) > 1:
            more += "; a difference of less than two errors says little"
        section.tables += [first._replace(caption=more), *nested]
    if not section.tables:
        section.notes.append("None of the runs was evaluated yet: pyrovae evaluate RUN")
    return section


def _curves(runs: Sequence[Opened]) -> Section:
    rows = {run.name: run.rows for run in runs if run.rows}
    section = Section("Training")
    if rows:
        figure = plotting.compared_curves(rows)
        section.pictures.append(picture("compared_curves", figure, "Losses of the runs over their epochs"))
    if curves := {f"{run.name}, {way}": e for run in runs for way, e in run.missing.items()}:
        figure = plotting.missing_errors(curves)
        section.pictures.append(picture("missing_errors", figure, "Errors of entries that were hidden"))
    return section


def _pictures(runs: Sequence[Opened]) -> list[Section]:
    """The other figures of each run, those of the same kind next to each other."""
    found = [[s for s in pictured(run) if s.title not in ("Training", "Missing entries")] for run in runs]
    titles = list(dict.fromkeys(section.title for sections in found for section in sections))
    merged = []
    for title in titles:
        whole = Section(title)
        of_runs = [next((s for s in sections if s.title == title), Section(title)) for sections in found]
        for name in dict.fromkeys(p.name for section in of_runs for p in section.pictures):
            for run, section in zip(runs, of_runs, strict=True):
                whole.pictures += [
                    p._replace(title=f"{run.name}: {p.title}", name=f"{p.name}-{runs.index(run) + 1}")
                    for p in section.pictures
                    if p.name == name
                ]
        for run, section in zip(runs, of_runs, strict=True):
            whole.tables += [table._replace(caption=f"{run.name}: {table.caption}") for table in section.tables]
        merged.append(whole)
    return merged


def _commands(runs: Sequence[Opened]) -> Section:
    commands = [
        Command(text, run.name) for run in runs if (text := command_of(run.run) or python_of(run.run)) is not None
    ]
    return Section("To repeat them", commands=commands)
