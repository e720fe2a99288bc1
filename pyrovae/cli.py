"""The command line: `pyrovae train | evaluate | sample | plot | datasets | models`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm.auto import tqdm

from pyrovae import data, metrics, plotting
from pyrovae._version import __version__
from pyrovae.callbacks import TensorBoard
from pyrovae.checkpoint import CheckpointError, write_atomically
from pyrovae.infer.objectives import objective_names
from pyrovae.registry import Pair, find_pair, pairs
from pyrovae.runs import Run, given, pick_device
from pyrovae.training import LR_SCHEDULES, OPTIMIZERS, NonFiniteLossError, Trainer
from pyrovae.vae import OUTPUTS

BAD_INPUT, INTERRUPTED = 2, 130

_TRAINING: dict[str, tuple[Callable[[str], Any], str, Sequence[str] | None]] = {
    "objective": (str, "what to optimise", objective_names()),
    "num_particles": (int, "draws of the latents a datum", None),
    "epochs": (int, "passes over the training data", None),
    "batch_size": (int, "rows a step", None),
    "optimizer": (str, "optimizer", tuple(OPTIMIZERS)),
    "lr": (float, "learning rate", None),
    "lr_schedule": (str, "learning rate over the epochs", LR_SCHEDULES),
    "gradient_clip": (float, "largest norm of the gradient", None),
    "kl_weight": (str, "a number, warm-up:EPOCHS, decay or cyclic:EPOCHS", None),
    "patience": (int, "stop after so many epochs without progress", None),
    "monitor": (str, "metric of early stopping", ("validation_loss", "loss")),
    "seed": (int, "seed of initial weights and training", None),
    "checkpoint_seconds": (float, "least time between checkpoints", None),
}
_DATA: dict[str, tuple[Callable[[str], Any], str, Sequence[str] | None]] = {
    "binarize": (str, "draw binary pixels once or anew for each minibatch", ("static", "dynamic")),
    "scale": (str, "range of pixels", ("unit", "symmetric")),
    "validation_size": (int, "rows held out of the training set", None),
}
_RESERVED = {
    *_TRAINING,
    *_DATA,
    "data",
    "data_seed",
    "dequantize",
    "device",
    "evaluate",
    "out",
    "pair",
    "quiet",
    "resume",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, argparse.SUPPRESS) else super()._get_help_string(action)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pyrovae").setLevel(logging.INFO)
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        options = _parser(words).parse_args(words)
        options.run_verb(options)
    except KeyboardInterrupt as interrupt:
        print(f"pyrovae: {interrupt}" if str(interrupt) else "pyrovae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CheckpointError, data.DataError, NonFiniteLossError, ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("PYROVAE_DEBUG"):
            raise
        print(f"pyrovae: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="pyrovae", description="Train and use variational autoencoders written as Pyro pairs.")
    parser.add_argument("--version", action="version", version=f"pyrovae {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    _add_train(verbs, words)

    verb = _add_verb(verbs, "evaluate", _evaluate, "held-out figures of a run")
    _add_run(verb)
    _add_evaluation(verb)
    verb.add_argument("--json", action="store_true", help="print one JSON object")

    verb = _add_verb(verbs, "sample", _sample, "draw data from a run's model")
    _add_run(verb)
    verb.add_argument("--num", type=int, default=64, help="how many")
    verb.add_argument("--out", type=Path, required=True, help="a .png (grid of pictures), .csv or .npz file")
    verb.add_argument("--output", choices=OUTPUTS, default="draw", help="draws of p(x|z), its means or its modes")
    verb.add_argument("--seed", type=int, default=0, help="seed of the draws")

    verb = _add_verb(verbs, "plot", _plot, "figures of a run, into its folder")
    _add_run(verb)
    verb.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="file format")
    verb.add_argument("--seed", type=int, default=0, help="seed of samples and t-SNE")

    verb = _add_verb(verbs, "datasets", _datasets, "the data sets and where they are")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    verb = _add_verb(verbs, "models", _models, "the pairs and their options")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def _add_verb(verbs: Any, name: str, function: Callable[[argparse.Namespace], None], text: str) -> _Parser:
    verb = verbs.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=_HelpFormatter
    )
    verb.set_defaults(run_verb=function)
    return verb


def _add_run(verb: _Parser) -> None:
    verb.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    verb.add_argument("--pair", metavar="MODULE:FUNCTION", help="the pair again, for a run of a pair of your own")
    verb.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")


def _add_evaluation(verb: _Parser) -> None:
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test", help="which rows")
    verb.add_argument("--num-samples", type=int, default=5000, help="importance samples a datum")
    verb.add_argument("--chunk-size", type=int, default=8192, help="pairs of datum and sample in memory at once")
    verb.add_argument("--num-rows", type=int, help="evaluate only so many rows, drawn by the seed")
    verb.add_argument("--evaluation-seed", type=int, default=0, help="seed of the draws")


def _add_train(verbs: Any, words: Sequence[str]) -> None:
    verb = _add_verb(verbs, "train", _train, "train a pair into a run folder, or resume a run")
    verb.add_argument("pair", nargs="?", metavar="PAIR", help="a name from `pyrovae models`, or module:function")
    verb.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run; takes no other options of it")
    verb.add_argument("--pair", dest="own_pair", metavar="MODULE:FUNCTION", help="with --resume: the pair again")
    verb.add_argument("--data", metavar="NAME", help="a name from `pyrovae datasets`")
    verb.add_argument("--out", type=Path, metavar="RUN", help="the run folder (default: runs/PAIR-DATA)")
    verb.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    verb.add_argument("--evaluate", action="store_true", help="evaluate on the test data afterwards")
    verb.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")
    group = verb.add_argument_group("data")
    for name, (kind, text, choices) in _DATA.items():
        group.add_argument(_flag(name), type=kind, choices=choices, help=text)
    group.add_argument("--dequantize", action="store_true", default=None, help="add uniform noise to 8-bit pixels")
    group.add_argument("--data-seed", type=int, help="seed of splits and static draws")
    group = verb.add_argument_group("training")
    pair = _named_pair(words)
    defaults = {f.name: f.default for f in dataclasses.fields(Trainer)} | dict(pair.training if pair else {})
    for name, (kind, text, choices) in _TRAINING.items():
        shown = f" (default: {defaults[name]})" if defaults[name] is not None else ""
        group.add_argument(_flag(name), type=kind, choices=choices, help=text + shown)
    title = f"pair {pair.name}" if pair else "options of the pair are shown by `pyrovae train PAIR --help`"
    group = verb.add_argument_group(title)
    for option in pair.options if pair else ():
        shown = f"{option.help} (default: {_shown(option.default)})"
        # An option of a user's pair may have the name of one of ours.
        flag = _flag(f"pair_{option.name}" if option.name in _RESERVED else option.name)
        if option.type is bool:
            action: Any = argparse.BooleanOptionalAction
            group.add_argument(flag, dest=f"pair_{option.name}", action=action, help=shown, default=None)
        else:
            group.add_argument(flag, dest=f"pair_{option.name}", type=option.type, choices=option.choices, help=shown)


def _named_pair(words: Sequence[str]) -> Pair | None:
    """The pair that the command line names, whose options `train` then has."""
    if len(words) < 2 or words[0] != "train":
        return None
    names = [word for word in words[1:] if not word.startswith("-")]
    # The pair is the first word, or stands behind options: take the first that is known or has the form of an own one.
    known = {pair.name for pair in pairs()}
    name = next((n for n in names if n.replace("_", "-") in known or (":" in n and "/" not in n)), None)
    return find_pair(name) if name else None


def _train(options: argparse.Namespace) -> None:
    device = pick_device(options.device)
    values = vars(options)
    if options.resume is not None:
        extra = given(values, ["pair", "data", "out", *_TRAINING, *_DATA])
        if extra:
            raise ValueError(f"--resume goes on with the run as it was configured; leave out {', '.join(extra)}")
        run = Run.open(options.resume, options.own_pair)
    else:
        if options.pair is None or options.data is None:
            raise ValueError("say what to train on what: pyrovae train PAIR --data NAME, or pyrovae train --resume RUN")
        pair = find_pair(options.pair)
        pair_options = {o.name: values[f"pair_{o.name}"] for o in pair.options if values[f"pair_{o.name}"] is not None}
        data_options = {"name": options.data, **given(values, [*_DATA, "dequantize"])}
        if options.data_seed is not None:
            data_options["seed"] = options.data_seed
        out = options.out or Path("runs") / f"{pair.name.replace(':', '.')}-{options.data}"
        run = Run.create(out, pair.name, pair_options, data_options, given(values, list(_TRAINING)))
    callbacks = [TensorBoard(run.folder.path / "tensorboard")] if options.tensorboard else []
    history = run.train(
        resume=options.resume is not None, device=device, progress=not options.quiet, callbacks=callbacks
    )
    best = history.rows[history.best_epoch - 1]
    figures = ", ".join(f"{name} {best[name]:.4f}" for name in ("loss", "validation_loss") if name in best)
    print(f"{history.reason}; best epoch {history.best_epoch} ({figures}); run folder {run.folder.path}")
    if options.evaluate:
        _print_evaluation(_evaluation(run, device, "test"))


def _evaluate(options: argparse.Namespace) -> None:
    run, device = Run.open(options.run, options.pair), pick_device(options.device)
    settings = given(vars(options), ["num_samples", "chunk_size", "num_rows"])
    record = _evaluation(run, device, options.split, seed=options.evaluation_seed, **settings)
    if options.json:
        print(json.dumps(record))
    else:
        _print_evaluation(record)


def _evaluation(
    run: Run, device: str, split: str, seed: int = 0, num_rows: int | None = None, **settings: Any
) -> dict[str, Any]:
    dataset, vae = run.dataset(), run.load_vae(device)
    rows = dataset.splits()[split]
    torch.manual_seed(seed)
    if split == "train" and dataset.transform is not None:
        rows = rows._replace(x=dataset.transform(rows.x))
    if num_rows is not None:
        chosen = torch.randperm(len(rows.x))[:num_rows]
        rows = type(rows)(*(None if tensor is None else tensor[chosen] for tensor in rows))
    result = metrics.evaluate(vae, rows.to(device), dataset=dataset, progress=_bar, **settings)
    return {"run": str(run.folder.path), "data": dataset.name, "split": split, **result.to_dict()}


def _bar(batches: Sequence[Any]) -> Any:
    return tqdm(batches, desc="evaluating", unit="batch", delay=2, leave=False)


def _print_evaluation(record: dict[str, Any]) -> None:
    for name, value in record.items():
        shown = "-" if value is None else f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):>24}  {shown}")


def _sample(options: argparse.Namespace) -> None:
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    kind = options.out.suffix.lower()
    if kind not in (".png", ".csv", ".npz"):
        raise ValueError(f"--out must end in .png, .csv or .npz, got {options.out}")
    run = Run.open(options.run, options.pair)
    vae = run.load_vae(pick_device(options.device))
    torch.manual_seed(options.seed)
    values = vae.sample(options.num, options.output).cpu()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".png":
        pixels = (values + 1) / 2 if run.config["data_kind"] == "symmetric" else values
        plotting.save_figure(plotting.sample_grid(pixels), options.out)
    elif kind == ".csv":
        rows = values.flatten(1).numpy()
        lines = [",".join(f"x{i}" for i in range(rows.shape[1])), *(",".join(map(repr, r.tolist())) for r in rows)]
        write_atomically(options.out, "\n".join(lines) + "\n")
    else:
        with options.out.open("wb") as file:
            np.savez_compressed(file, x=values.numpy())
    print(f"{options.num} samples in {options.out}")


def _plot(options: argparse.Namespace) -> None:
    run = Run.open(options.run, options.pair)
    vae, dataset = run.load_vae(pick_device(options.device)), run.dataset()
    torch.manual_seed(options.seed)
    figures = plotting.run_figures(vae, dataset, run.folder.read_metrics())
    for name, figure in figures.items():
        path = run.folder.figures_path / f"{name}.{options.format}"
        plotting.save_figure(figure, path)
        print(path)


def _datasets(options: argparse.Namespace) -> None:
    found = data.available()
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in found]))
        return
    for info in found:
        shape, sizes = "x".join(map(str, info.shape)), "/".join(map(str, info.sizes))
        print(f"{info.name:18} {shape:9} {sizes:18} {info.kind:9} {info.summary}")
        print(f"{'':18} {info.location}")


def _models(options: argparse.Namespace) -> None:
    if options.json:
        listed = [
            {
                "name": pair.name,
                "summary": pair.summary,
                "options": {o.name: {"default": o.default, "help": o.help} for o in pair.options},
            }
            for pair in pairs()
        ]
        print(json.dumps(listed))
        return
    for pair in pairs():
        print(f"{pair.name:18} {pair.summary}")
        for option in pair.options:
            choices = f" [{', '.join(option.choices)}]" if option.choices else ""
            print(f"{'':18} {_flag(option.name):18} {option.help}{choices} (default: {_shown(option.default)})")
    print("\nA pair of your own: pyrovae train mymodule:make_vae --data NAME")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
