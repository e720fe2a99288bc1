"""The page on a run of every registered pair: its figures, and the command that makes its configuration again."""

import json
import shlex

import pytest
from pages import read

from pyrovae.cli.arguments import make_parser, named_pair
from pyrovae.cli.training import new_run
from pyrovae.metrics import known_figures
from pyrovae.pairs import pairs
from pyrovae.reporting import report
from pyrovae.runs import Run

GENERAL = {"training_curves", "samples", "reconstructions", "latent_scatter"}
TABLE = {"table_marginals", "table_associations", "imputed_against_true", "imputed_errors", "imputed_calibration"}
STICKS = {"samples_by_sticks", "sticks_by_class", "decoder_weights"}
DIGITS = {"name": "digits", "binarize": "static"}
CASES = {
    "auto-decoder": ({"latent_dim": 2, "hidden": (8,)}, DIGITS, {}, {"latent_profile"}),
    "categorical": ({"num_variables": 3, "num_classes": 4, "hidden": (8,)}, DIGITS, {}, {"latent_profile"}),
    "gaussian": (
        {"latent_dim": 3, "hidden": (8,), "tied": False},
        DIGITS,
        {"lr": {"model": 1e-3, "guide": 2e-3}},
        set(),
    ),
    "hierarchical": ({"latent_dims": (3, 2), "hidden": (8,), "hidden_between": (8,)}, DIGITS, {}, {"latent_profile"}),
    "landmarks": ({"hidden": (8,), "encoder_hidden": (8,)}, {"name": "landmarks"}, {"epochs": 1}, {"interpolation"}),
    "sbn": ({"sizes": (4,)}, DIGITS, {}, {"latent_profile"}),
    "semi-supervised": ({"hidden": (8,)}, {**DIGITS, "labels": 0.2}, {}, {"class_confusion"}),
    "stick-breaking": ({"truncation": 6, "hidden": (8,)}, DIGITS, {"kl_weight": "warm-up:1"}, STICKS),
    "tabular": ({"latent_dim": 2, "hidden": (8,)}, {"name": "clinic"}, {}, TABLE),
}


def test_every_pair_has_a_case():
    assert set(CASES) == {pair.name for pair in pairs()}


@pytest.mark.parametrize("name", sorted(CASES))
def test_page_of_a_pair(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, data, training, expected = CASES[name]
    finishing = {"num_nets": 1, "trees": False} if name == "tabular" else None
    run = Run.create("run", name, options, data, {"epochs": 2, "batch_size": 400, **training}, finishing)
    run.train(progress=False)
    settings = {"baselines": ("mean-mode",)} if name == "tabular" else {}
    run = Run.open("run")
    fitted = {"fit_steps": 3} if name == "auto-decoder" else {}
    run.evaluate(num_samples=2, num_rows=40, keep=True, **fitted, **settings)
    page = read(report(run, **fitted))
    assert page.notes == []
    assert (GENERAL | expected) <= page.pictures.keys()
    found = json.loads((tmp_path / "run/metrics.json").read_text())["test"]["figures"]
    for figure, value in found.items():
        if figure in known_figures() and not isinstance(value, dict | list) and "_error" not in figure:
            assert page.figures[figure] == [value], figure
    if name == "tabular":
        by_method = found["imputation"]
        assert page.figures["imputation.vae"] == list(by_method["vae"].values())
        assert page.figures["interval_coverage.numbers"] == [found["interval_coverage"]["numbers"]]
    words = shlex.split(page.commands[0])[1:]
    options, unknown = make_parser(named_pair(words)).parse_known_args([*words[:-1], "again"])
    assert not unknown
    again, before = new_run(options), Run.open("run")
    assert json.loads(json.dumps(again.dataset().options)) == before.config["data"]  # they are loaded
    for part in ("pair", "pair_options", "finishing"):
        assert json.loads(json.dumps(again.config.get(part))) == before.config.get(part), part
    texts = [{n: str(v) for n, v in r.config["training"].items()} for r in (again, before)]  # a weight may be a text
    assert texts[0] == texts[1]
