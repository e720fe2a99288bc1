"""What the command line needs to know of pairs and of the Trainer to parse words and to show help.

Asking them takes seconds, since torch and Pyro are imported with them. So the answers stand in `facts.json`, and a test
compares both. After a change of an option, `python -m pyrovae.cli.facts` writes the file anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.options import Option, integers

if TYPE_CHECKING:
    from pyrovae.pairs.registry import Pair

PATH = Path(__file__).with_name("facts.json")
_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "integers": integers}


@dataclass(frozen=True)
class PairFacts:
    """What the command line knows of a pair.

    Parameters
    ----------
    name, summary : str
        Its name, and one line on what it is.
    options, finishing : tuple of Option
        Options of the pair, and of what follows its training.
    training : dict
        Arguments of the Trainer that suit it.
    counts_epochs : bool
        Whether its number of epochs suits the number of rows.
    own : bool, default False
        Whether it is one of the user's own.
    """

    name: str
    summary: str
    options: tuple[Option, ...]
    finishing: tuple[Option, ...]
    training: dict[str, Any]
    counts_epochs: bool
    own: bool = False


def facts_of(pair: Pair) -> PairFacts:
    """The facts of a pair that was found by its name, or imported."""
    finishing = () if pair.finishing is None else pair.finishing.options
    counts = pair.epochs is not None
    return PairFacts(pair.name, pair.summary, tuple(pair.options), finishing, dict(pair.training), counts, pair.own)


@cache
def facts() -> dict[str, Any]:
    """What stands in the file."""
    return dict(json.loads(PATH.read_text(encoding="utf-8")))


@cache
def known_pairs() -> dict[str, PairFacts]:
    """The registered pairs by name."""
    found = {}
    for name, said in facts()["pairs"].items():
        options, finishing = ([_option(o) for o in said[part]] for part in ("options", "finishing"))
        rest = said["summary"], tuple(options), tuple(finishing), said["training"], said["counts_epochs"]
        found[name] = PairFacts(name, *rest)
    return found


def gather() -> dict[str, Any]:
    """Ask the library itself; the file holds the same."""
    import dataclasses

    from pyrovae.data.dataset import KINDS, TABLE
    from pyrovae.data.patterns import PATTERNS
    from pyrovae.infer.objectives import objective_names
    from pyrovae.pairs import pairs
    from pyrovae.records import OUTPUTS
    from pyrovae.runs.posteriors import FIT_STEPS
    from pyrovae.training import LR_SCHEDULES, OPTIMIZERS, Trainer

    of_pairs = {}
    for pair in pairs():
        known = facts_of(pair)
        of_pairs[pair.name] = {
            "summary": known.summary,
            "options": [_plain(option) for option in known.options],
            "finishing": [_plain(option) for option in known.finishing],
            "training": known.training,
            "counts_epochs": known.counts_epochs,
        }
    defaults = {f.name: f.default for f in dataclasses.fields(Trainer)}
    return {
        "kinds": [*KINDS, TABLE],
        "patterns": list(PATTERNS),
        "outputs": list(OUTPUTS),
        "fit_steps": FIT_STEPS,
        "objectives": objective_names(),
        "optimizers": list(OPTIMIZERS),
        "lr_schedules": list(LR_SCHEDULES),
        "training": {n: v for n, v in defaults.items() if isinstance(v, bool | int | float | str) and n != "progress"},
        "pairs": of_pairs,
    }


def written() -> str:
    """The text of the file, asked anew."""
    return json.dumps(gather(), indent=1, ensure_ascii=False) + "\n"


def _plain(option: Option) -> dict[str, Any]:
    kind = next(name for name, kind in _TYPES.items() if kind is option.type)
    said = {"name": option.name, "type": kind, "default": option.default, "help": option.help}
    said |= {"choices": list(option.choices)} if option.choices is not None else {}
    said |= {"required": True} if option.required else {}
    return dict(json.loads(json.dumps(said)))


def _option(said: dict[str, Any]) -> Option:
    default = tuple(said["default"]) if isinstance(said["default"], list) else said["default"]
    choices = tuple(said["choices"]) if "choices" in said else None
    return Option(said["name"], _TYPES[said["type"]], default, said["help"], choices, said.get("required", False))


if __name__ == "__main__":
    PATH.write_text(written(), encoding="utf-8")
