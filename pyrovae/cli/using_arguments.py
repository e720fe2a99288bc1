"""The arguments of the verbs that use a run: `evaluate`, `sample`, `encode`, `impute`, `plot` and `report`."""

from __future__ import annotations

from pyrovae.cli.common_arguments import (
    add_condition,
    add_device,
    add_fit_steps,
    add_other_data,
    add_overwrite,
    add_run,
)
from pyrovae.cli.facts import facts
from pyrovae.cli.options import CHUNK_SIZE
from pyrovae.cli.parsing import Parser
from pyrovae.cli.values import MODES, file_of_samples, named_value, path, ratios, seed, words


def evaluate(verb: Parser) -> None:
    """Add the arguments of `evaluate`."""
    add_run(verb)
    add_condition(verb)
    add_other_data(verb)
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test", help="which rows")
    text = "importance samples per datum (default: 5000; 100 with --missing)"
    verb.add_argument("--num-samples", type=int, metavar="N", help=text)
    verb.add_argument("--num-rows", type=int, metavar="N", help="only so many rows, drawn by the seed (default: all)")
    text = "samples of all rows that are in memory at once"
    verb.add_argument("--chunk-size", type=int, metavar="N", default=CHUNK_SIZE, help=text)
    text = "compile what draws and scores the samples: the same figures in less time, after some ten seconds"
    verb.add_argument("--compile", action="store_true", default=None, help=text)
    text = (
        "imputers that a run of a table is compared with, or none (default: mean-mode, hist-gradient-boosting, and for "
        "a small table knn, bayesian-ridge and extra-trees)"
    )
    verb.add_argument("--baselines", type=words, metavar="NAME,NAME,...", help=text)
    add_fit_steps(verb)
    text = "measure what the family and the encoder of the guide cost, on 1000 rows, and draw it, instead of the above"
    verb.add_argument("--inference-gap", action="store_true", help=text)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of rows and samples")
    _add_missing(verb)
    text = "print one JSON object, with the keys that docs/command_line.md explains"
    verb.add_argument("--json", action="store_true", help=text)


def sample(verb: Parser) -> None:
    """Add the arguments of `sample`."""
    add_run(verb)
    add_condition(verb)
    text = (
        "a .png file (grid of pictures), a .csv file (a line for each) or an .npz file (array x, or one by site); for "
        "a run of a table a .csv, .csv.gz or .parquet file"
    )
    verb.add_argument("--out", type=file_of_samples, metavar="FILE", required=True, help=text)
    add_overwrite(verb)
    verb.add_argument("--num", type=int, metavar="N", default=64, help="how many")
    text = (
        "for a model with further arguments, such as covariates, or one that looks at its data: give it those of the "
        "first rows of this split"
    )
    verb.add_argument("--like", choices=("train", "validation", "test"), help=text)
    add_other_data(verb)
    verb.add_argument(
        "--output", choices=facts()["outputs"], default="draw", help="draws of p(x|z), its means or its modes"
    )
    text = "for a pair that infers a class: draw all of this class, by its number or its name (default: of any class)"
    verb.add_argument("--class", dest="of_class", metavar="CLASS", help=text)
    text = "for a run of a table: value of a column, the others are drawn given it; may be given several times"
    verb.add_argument("--given", type=named_value, action="append", metavar="COLUMN=VALUE", help=text)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the draws")


def encode(verb: Parser) -> None:
    """Add the arguments of `encode`."""
    add_run(verb)
    text = "a .csv, .csv.gz or .parquet file with a line for each row, or an .npz file with an array for each latent"
    verb.add_argument("--out", type=path, metavar="FILE", required=True, help=text)
    add_overwrite(verb)
    add_other_data(verb, "--input")
    text = "which rows; `all` for those of all splits, one after the other"
    verb.add_argument("--split", choices=("train", "validation", "test", "all"), default="test", help=text)
    add_fit_steps(verb)


def impute(verb: Parser) -> None:
    """Add the arguments of `impute`."""
    verb.add_argument("run", type=path, metavar="RUN", help="a run folder of a table")
    add_device(verb)
    text = "the table, a .csv, .csv.gz or .parquet file with the columns of the run"
    verb.add_argument("--input", type=path, metavar="FILE", required=True, help=text)
    text = "the completed table, a .csv, .csv.gz or .parquet file"
    verb.add_argument("--out", type=path, metavar="FILE", required=True, help=text)
    add_overwrite(verb)
    text = (
        "write so many completed tables, one below the other, numbered in a column `draw`; or a file each, if the name "
        "of --out has {draw} in it (default: the best one)"
    )
    verb.add_argument("--draws", type=int, metavar="N", help=text)
    text = "add columns NAME_low and NAME_high, between which the true value lies with this probability"
    verb.add_argument("--intervals", type=float, metavar="P", help=text)
    add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", help="seed of --draws (default: that of the run)")


def plot(verb: Parser) -> None:
    """Add the arguments of `plot`."""
    add_run(verb)
    add_condition(verb)
    add_other_data(verb)
    text = "folder of the figures (default: RUN/figures, where they replace earlier ones)"
    verb.add_argument("--out", type=path, metavar="DIR", help=text)
    add_overwrite(verb, "replace figures that are in the folder of --out already")
    verb.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="file format")
    add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the samples")


def report(verb: Parser) -> None:
    """Add the arguments of `report`."""
    add_run(verb, nargs="+")
    add_condition(verb)
    add_other_data(verb)
    text = "the page (default: RUN/report.html, which replaces an earlier one; report.html for several runs)"
    verb.add_argument("--out", type=path, metavar="FILE", help=text)
    add_overwrite(verb, "replace the page of --out, or of several runs, if it exists")
    add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the samples")


def _add_missing(verb: Parser) -> None:
    group = verb.add_argument_group("errors of missing entries")
    text = (
        "hide these shares of the entries of the rows, find them again, and write the errors to RUN/missing-...csv and "
        "into a figure, instead of the likelihood"
    )
    group.add_argument("--missing", type=ratios, metavar="FIRST:LAST:STEP", help=text)
    text = "hide entries at random, by --seed, or those of the files PREFIX_r.h5 beside the data PREFIX.h5"
    group.add_argument("--missing-mode", choices=MODES, default="random", help=text)
    text = "what is hidden as one (default: entries)"
    group.add_argument("--missing-pattern", choices=facts()["patterns"], help=text)
    text = "gradient steps that refine the answer of the encoder (default: none)"
    group.add_argument("--refine", type=int, metavar="STEPS", default=0, help=text)
