"""The command that repeats a training, found from its configuration and checked against it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

from pyrovae.cli.options import flag
from pyrovae.cli.training import new_run
from pyrovae.pairs.registry import Pair
from pyrovae.runs import Run
from pyrovae.runs.own_data import FUNCTION

_OTHER_NAMES = {"column_kinds": "column_kind", "likelihoods": "likelihood", "seed": "data_seed"}
"""Arguments of `pyrovae.data.load` that the command line calls otherwise."""
_FOUND = ("columns", "classes")
"""Options of data that are found from their file."""
_SOMEWHERE = "again"  # a folder that is not made


def command_of(run: Run) -> str | None:
    """The command of `pyrovae train` that repeats a training.

    Parameters
    ----------
    run : Run
        The run.

    Returns
    -------
    str or None
        The command. None if there is none, because the training was not begun by one command: it was given something
        in Python, or went on from another run. It is read as the command line reads it, and compared with the
        configuration.
    """
    config = run.config
    if not config["training"] or "grown_from" in config or not config["pair"]:
        return None
    data = config["data"].get(FUNCTION) or config["data"].get("name")
    if data is None:
        return None
    words = [*_words(run), "--out", str(run.folder.path)]
    return shlex.join(["pyrovae", "train", config["pair"], "--data", str(data), *words]) if _repeats(run) else None


def python_of(run: Run) -> str | None:
    """Lines of Python that repeat a training, or None for a folder without one."""
    config = run.config
    if not config["training"] or not config["pair"] or "grown_from" in config:
        return None
    data = pformat(dict(config["data"]), width=100) if "name" in config["data"] else "dataset  # the same data"
    given = {"pair_options": config["pair_options"], "training": config["training"]}
    finishing = config.get("finishing")
    given |= {"finishing": finishing} if finishing else {}
    lines = [f"{name} = {pformat(dict(value), width=100, sort_dicts=False)}" for name, value in given.items()]
    return "\n".join(
        [
            "from pyrovae.runs import Run",
            "",
            f"data = {data}",
            *lines,
            f"run = Run.create({str(run.folder.path)!r}, {config['pair']!r}, pair_options, data, training"
            + (", finishing)" if finishing else ")"),
            "run.train()",
        ]
    )


def _words(run: Run) -> list[str]:
    """The options of the command."""
    config, words = run.config, []
    taken = {option.name for option in run.pair.options} & _options_of_others(run.pair)
    for name, value in config["data"].items():
        if name not in ("name", FUNCTION, *_FOUND):
            words += _option(_OTHER_NAMES.get(name, name), value, separator=":" if name == "hide" else ",")
    for name, value in config["training"].items():
        words += _option(name, value)
    for name, value in config["pair_options"].items():
        words += _option(f"pair_{name}" if name in taken else name, value, negative=True)
    for name, value in (config.get("finishing") or {}).items():
        words += _option(name, value, negative=True)
    return words


def _options_of_others(pair: Pair) -> set[str]:
    """Options of every training."""
    from pyrovae.cli.arguments import options_of_train

    return set(options_of_train(None))


def _option(name: str, value: Any, *, negative: bool = False, separator: str = ",") -> list[str]:
    """An option with its value, as words."""
    option = flag(name)
    if value is None or (value is False and not negative and name != "stream"):
        return []
    if isinstance(value, bool):
        return [option if value else f"--no-{option[2:]}"]
    if isinstance(value, Mapping):
        pairs = [f"{key}={part}" for key, part in value.items()]
        if name in _OTHER_NAMES.values():  # given once for each
            return [word for pair in pairs for word in (option, pair)]
        value = ",".join(pairs)
    if isinstance(value, list | tuple):
        value = separator.join(map(str, value)) or "none"
    return [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]


def _repeats(run: Run) -> bool:
    """Whether the command line makes the configuration of these options. Nothing is loaded, imported or written."""
    from pyrovae.cli.arguments import make_parser
    from pyrovae.cli.facts import facts_of

    # Data of a function of the user's own have no options, and the function is not called for this.
    data = "digits" if FUNCTION in run.config["data"] else str(run.config["data"]["name"])
    words = ["train", run.config["pair"], "--data", data, *_words(run), "--out", _SOMEWHERE, "--overwrite"]
    try:
        options, unknown = make_parser(facts_of(run.pair)).parse_known_args(words)
        made = new_run(options, run.pair).config if not unknown else {}
    except (ValueError, TypeError, OSError):
        return False
    return bool(made) and _told(made) == _told(run.config)


def _told(config: Mapping[str, Any]) -> Any:
    """What two configurations of one training share."""
    data = {
        name: value
        for name, value in config["data"].items()
        if name not in ("name", FUNCTION, *_FOUND) and value not in (None, False)
    }
    training = dict(config["training"])
    if "kl_weight" in training:
        training["kl_weight"] = str(training["kl_weight"])  # which may be a number or its text
    data["name"] = str(Path(config["data"].get("name", "")))
    found = {name: config.get(name) or {} for name in ("pair", "pair_options", "training", "finishing")}
    if FUNCTION in config["data"] or not config["data"].get("name"):
        data = {}
    return json.loads(json.dumps({**found, "training": training, "data": data}))
