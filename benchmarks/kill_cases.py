"""Small trainings to kill: every registered pair with every objective, and whatever else has a state of its own.

A case is what stands behind `pyrovae train`. Cases that the product refuses, such as "mean-field" with binary latents,
are found by trying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pyrovae import data
from pyrovae.infer import objective_names
from pyrovae.pairs import pairs

SIZES = {
    "auto-decoder": "--latent-dim 2 --hidden 6 --posterior-scale learned",
    "categorical": "--num-variables 2 --num-classes 3 --hidden 6",
    "gaussian": "--latent-dim 2 --hidden 6",
    "hierarchical": "--latent-dims 4,2 --hidden 6 --hidden-between 4",
    "landmarks": "--hidden 6",
    "sbn": "--sizes 4,3",
    "semi-supervised": "--latent-dim 2 --hidden 6 --labels 0.5",
    "stick-breaking": "--truncation 4 --hidden 6",
    "tabular": "--latent-dim 2 --hidden 6 --num-nets 1 --no-trees",
}
PICTURES, POINTS, TABLE, STREAMED = "pictures.npz", "points.npz", "table.csv", "table.parquet"
FILES = {"landmarks": POINTS, "tabular": TABLE}
SPECIAL = {
    "adamax": "gaussian --optimizer adamax --lr model=0.01,guide=0.002",
    "adamw": "gaussian --optimizer adamw --lr-schedule step",
    "sgd": "gaussian --optimizer sgd --lr-schedule plateau --gradient-clip 1",
    "cosine": "gaussian --lr-schedule cosine --kl-weight warm-up:3 --drop-last",
    "cyclic": "gaussian --kl-weight cyclic:2 --objective iwae-dreg --gradient-clip 1",
    "decay": "stick-breaking --kl-weight decay --lr-schedule cosine",
    "patience": "gaussian --lr 0.3 --patience 1 --monitor loss",
    "refined": "gaussian --refine-steps 3 --lr-schedule cosine",
    "refined-table": "tabular --refine-steps 2",
    "hidden-entries": "gaussian --hide 0.1:0.6",
    "incomplete": "gaussian --missing 0.3",
    "dynamic": "gaussian --data grey.npz --binarize dynamic",
    "mixture": "gaussian --prior mixture --num-components 3 --layer residual",
    "vamp": "gaussian --prior vamp --num-components 3 --objective iwae",
    "conv": "gaussian --data large.npz --net conv --channels 2,3 --layer residual",
    "conv-classes": "semi-supervised --data large.npz --net conv --channels 2,3 --dropout 0.3 --shift 1 --noise 0.1",
    "learned-classes": "semi-supervised --latent stick-breaking --learn-class-prior --monitor validation_error",
    "consistent-classes": "semi-supervised --consistency-weight 1",
    "relaxed": "categorical --draws relaxed --objective iwae",
    "straight-through": "sbn --draws straight-through --objective elbo",
    "rows-incomplete": "auto-decoder --missing 0.3 --missing-pattern block --lr-schedule cosine",
    "rows-warm-up": "auto-decoder --kl-weight warm-up:3 --objective iwae --lr model=0.01,guide=0.1",
    "mixture-table": "tabular --prior mixture --num-components 3 --dropout 0.2",
    "natural-table": "tabular --parameterization natural --encoder set",
    "self-masking": "tabular --missingness self-masking",
    "two-nets-and-trees": "tabular --num-nets 2 --trees",
    "trees": "tabular --trees --epochs 2",
    "streamed": "tabular --data table.parquet --stream",
    "streamed-rows": "tabular --data table.parquet --stream --batch-size 16 --lr-schedule step",
}

_ONE_DRAW = {"elbo", "mean-field", "graph", "enum"}


@dataclass(frozen=True)
class Case:
    """One training: its name, its family, its objective, and the words behind `pyrovae train`."""

    name: str
    family: str
    objective: str
    words: tuple[str, ...]
    backend: str | None = None


def write_files(folder: Path) -> None:
    """Write the data of all cases."""
    digits = data.load("digits", binarize="static").train
    grey = data.load("digits").train
    labels = (digits.y[:60] % 3).numpy()
    np.savez(folder / PICTURES, x=digits.x[:60, :, 2:6, 2:6].numpy(), y=labels)
    np.savez(folder / "large.npz", x=digits.x[:60].numpy(), y=labels)
    np.savez(folder / "grey.npz", x=grey.x[:60, :, 2:6, 2:6].numpy())
    np.savez(folder / POINTS, x=data.load("landmarks").train.x[:60, :5].numpy())
    generator = np.random.default_rng(0)
    real, level = generator.normal(size=60), generator.integers(0, 3, 60)
    frame = pd.DataFrame({"real": real, "other": real + generator.normal(size=60), "level": np.array([*"abc"])[level]})
    frame["count"] = generator.poisson(np.exp(level))
    frame["both"] = generator.normal(size=60) + level > 1
    for name in frame.columns[1:]:
        frame[name] = frame[name].astype(object).where(generator.random(60) > 0.15, None)
    frame["count"], frame["other"] = pd.to_numeric(frame["count"]), pd.to_numeric(frame["other"])
    frame.to_csv(folder / TABLE, index=False)
    pd.read_csv(folder / TABLE).to_parquet(folder / STREAMED)


def _case(name: str, text: str, backend: str | None = None) -> Case:
    pair, *words = text.split()
    sizes = SIZES[pair]
    if "stick-breaking" in words:
        sizes = sizes.replace("--latent-dim", "--truncation")
    if "conv" in words:
        sizes = sizes.replace("--hidden 6", "--hidden 8")
    given = _options(f"--data {FILES.get(pair, PICTURES)} --epochs 5 --batch-size 16 {sizes}".split()) | _options(words)
    line = [word for option in given.items() for word in option if word is not None]
    return Case(
        name, pair, given.get("--objective") or "own", (pair, *line, "--checkpoint-seconds", "0", "--quiet"), backend
    )


def _options(words: list[str]) -> dict[str, str | None]:
    """Options with their values, None for a switch."""
    found: dict[str, str | None] = {}
    for word in words:
        if word.startswith("--"):
            found[word] = None
        else:
            found[list(found)[-1]] = word
    return found


def plain_cases() -> list[Case]:
    """All pairs with all objectives, and the special ones."""
    return [*_pairs_with_objectives(), *(_case(name, text) for name, text in SPECIAL.items())]


def longer(case: Case, epochs: int) -> Case:
    """The case with another number of epochs, where it does not ask for fewer of its own."""
    number = case.words.index("--epochs") + 1
    if case.words[number] != "5":
        return case
    return replace(case, words=(*case.words[:number], str(epochs), *case.words[number + 1 :]))


def compiled_cases(backend: str) -> list[Case]:
    """All pairs with all objectives, and the special ones that a compiled step has something to do with, compiled."""
    special = [name for name, text in SPECIAL.items() if "refine" not in text and "trees" not in text]
    return [
        *_pairs_with_objectives(backend),
        *(_case(f"{name}/{backend}", f"{SPECIAL[name]} --compile", backend) for name in special),
    ]


def _pairs_with_objectives(backend: str | None = None) -> list[Case]:
    end = "" if backend is None else f"/{backend}"
    more = "" if backend is None else " --compile"
    return [
        _case(
            f"{pair.name}/{name}{end}",
            f"{pair.name} --objective {name} --num-particles {1 if name in _ONE_DRAW else 3}{more}",
            backend,
        )
        for pair in pairs()
        for name in objective_names()
    ]
