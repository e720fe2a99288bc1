"""The page on one run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pyrovae._version import __version__
from pyrovae.families import families_of
from pyrovae.reporting.held_out import tables_of
from pyrovae.reporting.opened import Opened
from pyrovae.reporting.page import Cell, Command, Page, Picture, Row, Section, Table, picture
from pyrovae.reporting.repeating import command_of, python_of
from pyrovae.reporting.words import duration, in_words
from pyrovae.runs.configuration import versions
from pyrovae.runs.own_data import FUNCTION

TITLES = {
    "training_curves": "Losses over the epochs",
    "samples": "New data from the model",
    "reconstructions": "Held-out data and what the pair makes of them",
    "interpolation": "From one datum to another, along a line between their latents",
    "latent_scatter": "Latent means of held-out data in the plane",
    "latent_profile": "Latent means of held-out data by class",
    "samples_by_sticks": "What each further weight of the stick adds",
    "sticks_by_class": "Weights of the stick by class",
    "decoder_weights": "Which latents the decoder uses",
    "class_confusion": "Classes of held-out rows and what they were taken for",
    "inference_gap": "What the family and the encoder of the guide cost each row",
    "missing_errors": "Errors of entries that were hidden, by the share that was hidden",
    "table_marginals": "Columns of held-out rows and of new rows",
    "table_associations": "How strongly columns go together",
    "imputed_against_true": "Entries that were hidden, and what was imputed",
    "imputed_errors": "Errors of imputed entries by column",
    "imputed_calibration": "How often intervals of imputed numbers hold the truth",
}
"""What figures show; others are called by their names."""
_GROUPS = {
    "Training": ("training_curves",),
    "Samples": ("samples",),
    "Reconstructions": ("reconstructions", "interpolation"),
    "Latents": ("latent_scatter", "latent_profile"),
}
_LAST = {"Inference gap": ("inference_gap",), "Missing entries": ("missing_errors",)}


def described(run: Opened) -> Page:
    """The page on one run."""
    sections = [_what_was_run(run), _held_out(run), *pictured(run), _repeated(run)]
    return Page(f"Run {run.name}", summary_of(run), run.notes, sections)


def summary_of(run: Opened) -> str:
    """A sentence on a run."""
    pair, spec = run.run.pair, run.config["spec"]
    about = f": {pair.summary}" if pair.summary else ""
    return f"{pair.name or 'a pair of your own'}{about}; trained on {spec['name']}, {spec['num_rows']} rows."


def pictured(run: Opened) -> list[Section]:
    """The figures of a run in sections, and the figures of its inference gap."""
    left, sections = dict(run.figures), []

    def taken(title: str, names: Iterable[str]) -> None:
        found = [name for name in left if any(name == known or _is_of_site(name, known) for known in names)]
        sections.append(Section(title, pictures=[_picture(name, left.pop(name)) for name in found]))

    families = {} if run.vae is None else {f.name: list(f.plots) for f in families_of(run.vae) if f.plots}
    of_families = {name for names in families.values() for name in names}
    for title, names in _GROUPS.items():
        taken(title, [name for name in names if name not in of_families])
    for name, plots in families.items():
        mine = [figure for figure in left if any(figure == plot or figure.startswith(f"{plot}_") for plot in plots)]
        taken(name.capitalize(), mine)
    for title, names in _LAST.items():
        taken(title, names)
    gap, split, _ = run.gap
    if gap is not None:
        rows = [Row(_spelt(name), [Cell(f"{value:.2f}", repr(value))], key=name) for name, value in gap.means().items()]
        caption = f"Means over {len(gap.refined)} {split} rows, in nats per datum"
        next(s for s in sections if s.title == "Inference gap").tables.append(Table((), rows, caption))
    taken("More figures", list(left))
    return sections


def _is_of_site(name: str, known: str) -> bool:
    """Whether a figure is one of those of several data sites, such as `samples_x`."""
    return name.startswith(f"{known}_") and name not in TITLES


def _picture(name: str, figure: Any) -> Picture:
    plain = next((known for known in TITLES if name == known or _is_of_site(name, known)), None)
    title = _spelt(name).capitalize() if plain is None else TITLES[plain]
    site = "" if plain in (None, name) else f": {name.removeprefix(f'{plain}_')}"
    return picture(name, figure, title + site)


def _what_was_run(run: Opened) -> Section:
    config, spec, state = run.config, run.config["spec"], run.state
    lines = {
        "pair": run.run.pair.name or "a pair of your own",
        "data": f"{spec['name']}: {_shape(spec)}",
    }
    if state:
        epochs = int(state.get("epoch") or 0)
        asked = config["training"].get("epochs")
        lines["training"] = (
            f"{epochs}{f' of {asked}' if asked else ''} epochs in {duration(state.get('seconds') or 0.0)}"
        )
        if epochs:
            lines["training"] += f"; weights of epoch {state.get('best_epoch')}, the best one"
        if state.get("stopped"):
            lines["end of the training"] = str(state["stopped"])
    if "grown_from" in config:
        lines["began with"] = f"the weights of {config['grown_from']}"
    if run.vae is not None:
        lines["parameters"] = f"{sum(p.numel() for p in run.vae.parameters()):,}".replace(",", " ")
    first = Table((), [Row(name, [Cell(text)]) for name, text in lines.items()], code=True)
    options = {
        "options of the pair": config["pair_options"],
        "options of the data": {k: v for k, v in config["data"].items() if v not in (None, False)},
        "options of the training": config["training"],
        "options of what follows the training": config.get("finishing") or {},
    }
    tables = [first]
    for caption, given in options.items():
        if given:
            rows = [Row(name, [Cell(in_words(value))]) for name, value in given.items()]
            tables.append(Table((), rows, f"{caption.capitalize()}; the others stand at their defaults", code=True))
    prints = config.get("fingerprints") or {}
    if prints:
        rows = [
            Row(split, [Cell(str(part["rows"])), Cell(str(part["sha256"]), str(part["sha256"]))], key=f"data.{split}")
            for split, part in prints.items()
        ]
        tables.append(Table(("split", "rows", "SHA-256 of the values"), rows, "Fingerprints of the data", code=True))
    return Section("What was run", tables=tables)


def _shape(spec: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, spec["shape"]))
    classes = f", {spec['num_classes']} classes" if spec.get("num_classes") else ""
    labelled = spec.get("num_labelled") or 0
    if classes and labelled < spec["num_rows"]:
        classes += f" ({labelled} training rows have a label)"
    what = f"a table of {shape} columns" if spec["kind"] == "table" else f"{shape}, {spec['kind']} values"
    return f"{what}, {spec['num_rows']} training rows{classes}"


def _held_out(run: Opened) -> Section:
    if not run.kept:
        return Section("Held-out figures", notes=[note for note in run.notes if "evaluate" in note][:1])
    found = {split: part.figures for split, part in run.kept.items()}
    tables = tables_of({f"{split} rows": figures for split, figures in found.items()})
    sampling = [
        f"{figures['sampling_error']:.2g} nats of the {split} rows"
        for split, figures in found.items()
        if isinstance(figures.get("sampling_error"), float) and math.isfinite(figures["sampling_error"])
    ]
    section = Section("Held-out figures", tables=tables)
    if sampling:
        tables[0] = tables[0]._replace(
            caption=f"{tables[0].caption}. Importance sampling makes {' and '.join(sampling)} of the first error"
        )
    return section


def _repeated(run: Opened) -> Section:
    section = Section("To repeat it")
    command, config = command_of(run.run), run.config
    own = ":" in run.run.pair.name or FUNCTION in config["data"]
    if command is not None:
        caption = "The training" + (", with your own module in the working directory" if own else "")
        section.commands.append(Command(command, caption))
    elif (lines := python_of(run.run)) is not None:
        section.commands.append(Command(lines, "The training, in Python; no single command of pyrovae makes it"))
    elif "grown_from" in config:
        section.notes.append(f"The run went on from another: pyrovae grow {config['grown_from']}")
    else:
        section.notes.append("No training is written down, so there is nothing to repeat.")
    if run.kept:
        typed = []
        for split, part in run.kept.items():
            given = {name: part.figures[name] for name in ("num_samples", "num_rows") if name in part.figures}
            words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
            typed.append(f"pyrovae evaluate {run.path} --split {split} {words} --seed {part.seed}")
        section.commands.append(Command("\n".join(typed), "The held-out figures"))
    then = {"pyrovae": config.get("pyrovae_version", "-"), **(config.get("versions") or {})}
    now = {"pyrovae": __version__, **versions()}
    rows = [Row(name, [Cell(str(then.get(name, "-"))), Cell(now[name])]) for name in now]
    section.tables.append(Table(("library", "of the training", "of this page"), rows, "Versions", code=True))
    return section


def _spelt(name: str) -> str:
    return name.replace("_", " ")
