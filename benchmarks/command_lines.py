"""Command lines by the hundreds, valid and mutated: each is right, or one line with status 2. See `faults.py words`.

A line begins as a valid one of a verb and a run of some family. Then up to three mutations change it: another value, an
option of the verb, an option of another verb, a word that is missing or doubled, another run, a file that is damaged.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pyrovae.cli.arguments import VERBS, make_parser
from pyrovae.cli.facts import known_pairs

TINY = ["--epochs", "1", "--quiet"]
RUNS = {
    "gaussian": ["gaussian", "--data", "digits", "--binarize", "static", "--hidden", "4", "--latent-dim", "2"],
    "grey": ["gaussian", "--data", "digits", "--hidden", "4", "--latent-dim", "2"],
    "sticks": ["stick-breaking", "--data", "digits", "--truncation", "4", "--hidden", "4"],
    "classes": ["semi-supervised", "--data", "digits", "--labels", "50", "--hidden", "4", "--latent-dim", "2"],
    "sbn": ["sbn", "--data", "digits", "--binarize", "static"],
    "categorical": ["categorical", "--data", "digits", "--binarize", "static", "--hidden", "4"],
    "hierarchical": ["hierarchical", "--data", "digits", "--hidden", "4", "--latent-dims", "3,2"],
    "auto-decoder": ["auto-decoder", "--data", "digits", "--hidden", "4", "--latent-dim", "2"],
    "table": ["tabular", "--data", "iris", "--hidden", "4", "--num-nets", "1", "--no-trees"],
    "file": ["gaussian", "--data", "mine.npz", "--hidden", "4", "--latent-dim", "2"],
}
ODD = [
    "",
    "0",
    "-1",
    "1",
    "2",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "x",
    "2,3",
    ",",
    "a=b",
    "=",
    "z=1",
    "none",
    "auto",
]
ODD += ["digits", "iris", "/nowhere", "nowhere.csv", "mine.npz", "broken.npz", "table.csv", "words.txt", "\u00e9", "--"]
ODD += ["train", "test", "cpu", "cuda:9", "0.5", "0.1:0.5:0.2", "json:loads", "True", "1" * 30, "a" * 300, "a\nb"]
COSTLY = {"compile", "tensorboard", "jobs", "backend", "backend_option"}
SMALL = {"evaluate": ["--num-samples", "2", "--num-rows", "20", "--baselines", "none", "--fit-steps", "2"]}
SMALL |= {verb: ["--fit-steps", "2"] for verb in ("encode", "plot", "impute", "report")}


def prepare(run: Callable[[list[str]], object]) -> None:
    """Make runs, data and damaged files in the working directory. `run` does a command line in a process of its own."""
    import numpy as np

    numbers = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    np.savez("mine.npz", x=numbers)
    Path("broken.npz").write_bytes(Path("mine.npz").read_bytes()[:200])
    Path("words.txt").write_text("no data\n")
    cells = (f"{row[0]:.3f},{'xy'[row[1] > 0]},{'' if row[2] > 1 else row[3]:.3}" for row in numbers.tolist())
    Path("table.csv").write_text("\n".join(["a,b,c", *cells]))
    Path("grid.json").write_text(json.dumps({"pair": "gaussian", "data": "digits", "hidden": "4", "epochs": [1]}))
    for name, words in RUNS.items():
        run(["train", *words, *TINY, "--out", name])
    shutil.copytree("gaussian", "broken")
    path = Path("broken", "model.safetensors")
    path.write_bytes(path.read_bytes()[:100])


def options_of(verb: str) -> list[argparse.Action]:
    """The options of a verb, those of a pair aside."""
    parser = make_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    known = verbs.choices[verb].filled()._actions
    return [action for action in known if action.option_strings and action.dest not in ("help", *COSTLY)]


def line(generator: random.Random, number: int) -> list[str]:
    """A command line: valid for one in five, else mutated."""
    verb = generator.choice([*VERBS, "train", "train", "evaluate"])
    words = valid(generator, verb, number)
    for _ in range(generator.choice((0, 1, 1, 2, 3))):
        words = mutated(generator, verb, words)
    return words


def valid(generator: random.Random, verb: str, number: int) -> list[str]:
    """A valid line of a verb, of most runs at least."""
    name, out = generator.choice(list(RUNS)), f"out/{number}"
    if verb == "train":
        return ["train", *RUNS[name], *TINY, "--out", out]
    if verb in ("datasets", "models"):
        return [verb, *generator.choice(([], ["--json"]))]
    if verb == "schema":
        return [verb, generator.choice(("table.csv", "mine.npz"))]
    if verb == "sweep":
        return [verb, "grid.json", "--out", out, "--quiet"]
    if verb == "grow":
        return [verb, "sticks", "--sticks", "1", "--out", out, "--quiet"]
    if verb == "resume":
        return [verb, name, "--quiet"]
    ending = {"sample": ".png .csv .npz", "encode": ".csv .npz", "impute": ".csv", "report": ".html"}.get(verb)
    words = [verb, "table" if verb == "impute" else name, *SMALL.get(verb, [])]
    words += ["--input", "iris.csv"] if verb == "impute" else []
    if verb == "sample" and name == "table":
        ending = ".csv"
    return words if ending is None else [*words, "--out", out + generator.choice(ending.split())]


def mutated(generator: random.Random, verb: str, words: list[str]) -> list[str]:
    """The line with one change."""
    words, kind = list(words), generator.choice(("value", "option", "option", "other", "drop", "double", "run", "pair"))
    places = [place for place in range(1, len(words)) if words[place - 1].startswith("--")]
    if kind == "value" and places:
        words[generator.choice(places)] = generator.choice(ODD)
    elif kind in ("option", "other"):
        other = verb if kind == "option" else generator.choice(list(VERBS))
        if options := options_of(other):
            action = generator.choice(options)
            words.append(generator.choice(action.option_strings))
            if action.nargs != 0:
                sensible = [str(choice) for choice in action.choices or ()]
                words.append(generator.choice([*ODD, *sensible * 10]))
    elif kind == "drop" and len(words) > 1:
        del words[generator.randrange(1, len(words))]
    elif kind == "double":
        words.insert(generator.randrange(1, len(words) + 1), generator.choice(words))
    elif kind == "run" and len(words) > 1:
        words[1] = generator.choice([*RUNS, "broken", "nowhere", "mine.npz", "", "out"])
    elif kind == "pair" and verb == "train":
        pair = generator.choice(list(known_pairs().values()))
        option = generator.choice(pair.options)
        words[1:2] = [pair.name]
        words += [f"--{option.name.replace('_', '-')}", generator.choice([*ODD, *map(str, option.choices or ())])]
    return words


def judged(words: list[str], status: int, said: str) -> str:
    """What came of a line: "right", "one line", or what is wrong with it."""
    exits = re.findall(r"^STATUS (\S+)$", said, re.MULTILINE)
    if status < 0:
        return "too long" if status == -9 else "crashes"
    if status or not exits:
        return "tracebacks"
    errors = [text for text in said.splitlines() if text.startswith("pyrovae: ")]
    if exits[-1] == "2":
        return "one line" if len(errors) == 1 and "Traceback" not in said else "more lines"
    if exits[-1] == "1" and words[0] == "sweep":
        return "right"
    if exits[-1] != "0" or errors:
        return "odd status"
    if re.search(r"\bnan\b|\bNaN\b", said) and words[0] == "evaluate":
        return "NaN"
    if "--json" in words and words[0] == "evaluate":
        try:
            json.loads([text for text in said.splitlines() if text.startswith("{")][-1])
        except (IndexError, ValueError):
            return "no JSON"
    return "right"
