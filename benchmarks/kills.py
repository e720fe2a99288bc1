"""Trainings that are killed at random moments and resumed, against trainings that nothing stopped: bit for bit.

    python benchmarks/kills.py plain --count 1000 --out kills.jsonl      # with other --seed and --out: further kills
    python benchmarks/kills.py eager --count 200 --out kills.jsonl       # compiled by torch.compile, backend "eager"
    python benchmarks/kills.py inductor --count 40 --out kills.jsonl     # compiled to machine code
    python benchmarks/kills.py summary --out kills.jsonl                 # the tables of RESULTS.md

The cases are in `kill_cases.py`. One process imports everything once and forks a child for each training, so that a
kill costs a second or less. A child gets SIGKILL, SIGTERM or SIGINT after a random time, or while it saves: as soon as
a file that is not yet whole lies in the run folder. Another child goes on, one to six times. Then all weights, the
state, the metrics and the configuration are compared with those of an unbroken training; only seconds are left out.
The file has a line of JSON per kill and per training, and a campaign that is started again goes on behind its last
training.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kill_cases
import numpy as np
import pyro.infer  # noqa: F401  each of the modules is loaded once, and not by every child
import torch
import torch._dynamo
import torch._inductor.compile_fx
from safetensors.numpy import load_file
from tqdm import tqdm

from pyrovae.cli.command import main as command_line
from pyrovae.storage import load_information

SIGNALS = {"SIGKILL": 0.7, "SIGTERM": 0.15, "SIGINT": 0.15}
MOMENTS = {"any": 0.5, "saving": 0.5}
LIMIT = 600.0
"""Seconds after which a training hangs."""
TELLS = 100.0
"""Seconds after which it says in which lines it is."""


class Child:
    """A training in a process of its own, forked from this one, and what it says."""

    def __init__(self, action: Callable[[], int], said: Path) -> None:
        self.said, self.status = said, 0
        self.number = os.fork()
        if not self.number:
            status = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                os.dup2(output, 1)
                os.dup2(output, 2)
                faulthandler.dump_traceback_later(TELLS, file=output)
                status = action()
            except KeyboardInterrupt:  # before the command line began, or after it ended
                status = 130
            except BaseException as error:
                os.write(2, f"TRACEBACK {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(status)

    def ended(self) -> bool:
        """Whether it is over."""
        number, status = os.waitpid(self.number, os.WNOHANG)
        self.status = os.waitstatus_to_exitcode(status) if number else self.status
        return bool(number)

    def wait(self, seconds: float) -> bool:
        """Wait for the end. False if it did not come."""
        end = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def text(self) -> str:
        """What it said."""
        return self.said.read_text(errors="replace")[-600:] if self.said.exists() else ""


def train(case: kill_cases.Case, folder: Path) -> int:
    """Begin the training of a case, or go on with it; in the folder that has the data."""
    if case.backend is not None:
        from pyrovae.infer.compile import CompiledLoss
        from pyrovae.training import compiling

        compiling.CompiledLoss = partial(CompiledLoss, backend=case.backend)
    if (folder / "config.json").exists():
        return command_line(["resume", str(folder), "--quiet"])
    return command_line(["train", *case.words, "--out", str(folder), "--overwrite"])


def saving(folder: Path) -> bool:
    """Whether a file of the folder is being written."""
    for path in (folder, folder / "last"):
        try:
            if any(name.endswith(".partial") for name in os.listdir(path)):
                return True
        except OSError:
            continue
    return False


def strike(child: Child, folder: Path, length: float, dice: random.Random) -> dict[str, Any] | None:
    """Send a signal at a random moment. What was done, or None if the child was done before."""
    name = dice.choices(list(SIGNALS), list(SIGNALS.values()))[0]
    moment = dice.choices(list(MOMENTS), list(MOMENTS.values()))[0]
    begun, after = time.monotonic(), dice.uniform(0, 1.0) * length
    while time.monotonic() - begun < after:
        if child.ended():
            return None
        time.sleep(min(0.005, after))
    if moment == "saving":
        while not saving(folder):
            if child.ended():
                return None
            time.sleep(0.0001)
        time.sleep(dice.choice((0.0, dice.uniform(0, 0.003))))
    held = saving(folder)
    if child.ended():
        return None
    os.kill(child.number, getattr(signal, name))
    if name == "SIGINT" and dice.random() < 0.2:
        time.sleep(dice.uniform(0, 0.01))
        if not child.ended():
            os.kill(child.number, signal.SIGINT)
            name = "SIGINT twice"
    if not child.status and not child.wait(LIMIT):
        os.kill(child.number, signal.SIGKILL)
        child.wait(LIMIT)
        return {"signal": name, "moment": moment, "hangs": True}
    when = round(time.monotonic() - begun, 4)
    return {"signal": name, "moment": "saving" if held else moment, "seconds": when, "status": child.status}


def kill_and_resume(
    case: kill_cases.Case, folder: Path, said: Path, length: float, dice: random.Random
) -> tuple[list[dict[str, Any]], str | None]:
    """Train under fire to the end. Returns the kills, and what went wrong with a resume."""
    kills: list[dict[str, Any]] = []
    for _ in range(dice.choice((1, 2, 3, 4, 5, 6))):
        said.unlink(missing_ok=True)
        child = Child(partial(train, case, folder), said)
        struck = strike(child, folder, length, dice)
        if struck is None and child.status:
            return kills, f"ended with {child.status}: {child.text()}"
        if struck is None:
            return kills, None
        if struck.get("hangs"):
            return [*kills, struck], "hangs after a signal"
        if child.status in (1, 2) or "TRACEBACK" in child.text() or "Traceback" in child.text():
            return [*kills, struck], f"ended with {child.status} after {struck['signal']}: {child.text()}"
        if child.status:
            kills.append(struck)
        elif struck["signal"].startswith("SIGINT"):
            return kills, None  # the training was just over
    said.unlink(missing_ok=True)
    child = Child(partial(train, case, folder), said)
    if not child.wait(LIMIT):
        os.kill(child.number, signal.SIGKILL)
        child.wait(LIMIT)
        return kills, "hangs after a resume"
    return kills, None if not child.status else f"ended with {child.status}: {child.text()}"


def differences(whole: Path, part: Path) -> list[str]:
    """What differs between two run folders, but for seconds, and for what a kill has left there."""
    names = {path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()} - {".lock"}
    expected = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()} - {".lock"}
    found = [f"file {name}" for name in names ^ expected]
    for name in sorted(names & expected):
        first, second = read(whole / name), read(part / name)
        found += [f"{name}: {key}" for key in first.keys() ^ second.keys()]
        found += [f"{name}: {key}" for key in first.keys() & second.keys() if first[key] != second[key]]
    return found


def read(path: Path) -> dict[str, Any]:
    """A file as values that can be compared."""
    if path.suffix == ".safetensors":
        tensors, told = load_file(path), load_information(path)
        found: dict[str, Any] = {name: (str(value.dtype), value.tobytes()) for name, value in tensors.items()}
        found |= {f"information.{key}": value for key, value in flat(told)}
        return {name: value for name, value in found.items() if not ignored(name)}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: (str(file[name].dtype), file[name].shape, file[name].tobytes()) for name in file.files}
    if path.suffix == ".csv":
        head, *lines = path.read_text().splitlines()
        rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
        return {f"{n}.{k}": v for n, row in enumerate(rows) for k, v in row.items() if k != "seconds"}
    if path.suffix == ".json":
        return {key: value for key, value in flat(json.loads(path.read_text())) if not ignored(key)}
    return {"content": path.read_bytes()}


def ignored(name: str) -> bool:
    """Whether a value tells the time, or is the digest of something that does."""
    last = name.rsplit(".", 1)[-1]
    return last in ("seconds", "digest", "metrics") or ".files." in f".{name}"


def flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested mappings and lists."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in flat(inner, f"{name}.{key}" if name else key)]
    if isinstance(value, list):
        return [leaf for key, inner in enumerate(value) for leaf in flat(inner, f"{name}.{key}")]
    return [(name, repr(value))]


def warm(case: kill_cases.Case, folder: Path) -> None:
    """Import whatever a training imports."""

    def look() -> int:
        status = train(case, folder / "warm")
        (folder / "modules").write_text("\n".join(sys.modules))
        return status

    child = Child(look, folder / "said")
    child.wait(LIMIT)
    for name in (folder / "modules").read_text().split():
        if name.split(".")[0] in ("pyrovae", "sklearn", "scipy", "pandas", "pyarrow", "joblib", "pyro"):
            try:
                __import__(name)
            except Exception:
                continue
    shutil.rmtree(folder / "warm", ignore_errors=True)


def campaign(cases: list[kill_cases.Case], options: argparse.Namespace) -> None:
    """Kill trainings until there were enough kills in the file."""
    lines = read_lines(options.out)
    kills = sum("signal" in line and line["campaign"] == options.campaign for line in lines)
    number = sum("differences" in line and line["campaign"] == options.campaign for line in lines)
    end = time.monotonic() + 60 * options.minutes
    order = random.Random(options.seed).sample(cases, len(cases))
    references: dict[str, tuple[Path, float] | None] = {}
    shortest: dict[str, float] = {}
    bar = tqdm(total=options.count, initial=kills, unit="kill", disable=None, mininterval=30)
    with tempfile.TemporaryDirectory() as place, options.out.open("a") as out:
        folder = Path(place)
        os.chdir(folder)
        kill_cases.write_files(folder)
        for name in ("two-nets-and-trees", "streamed", "gaussian/elbo", "learned-classes"):
            warm(next(case for case in kill_cases.plain_cases() if case.name == name), folder)
        said = folder / "said"
        while kills < options.count and time.monotonic() < end:
            case, dice = order[number % len(order)], random.Random(f"{options.seed}-{number}")
            told = {"campaign": options.campaign, "training": number, "case": case.name, "family": case.family}
            number += 1
            if case.name not in references:
                whole, begun = folder / f"whole-{number}", time.monotonic()
                said.unlink(missing_ok=True)
                child = Child(partial(train, case, whole), said)
                child.wait(LIMIT)
                references[case.name] = None if child.status else (whole, time.monotonic() - begun)
                if child.status:
                    out.write(json.dumps({**told, "differences": [], "refused": child.text()}) + "\n")
            reference = references[case.name]
            if reference is None:
                continue
            part = folder / "part"
            length = min(reference[1], shortest.get(case.name, math.inf))
            begun = time.monotonic()
            struck, problem = kill_and_resume(case, part, said, length, dice)
            if not struck and not problem:  # what was compiled before is read from a store now, and takes less time
                shortest[case.name] = min(length, time.monotonic() - begun)
            for kill in struck:
                out.write(json.dumps({**told, **kill}) + "\n")
            found = [problem] if problem else differences(reference[0], part)
            out.write(json.dumps({**told, "kills": len(struck), "differences": found}) + "\n")
            out.flush()
            if found:
                print(case.name, found[:3], file=sys.stderr)
                shutil.copy(said, options.out.with_suffix(f".{options.campaign}-{number - 1}.txt"))
                shutil.copytree(part, options.out.with_suffix("") / f"{options.campaign}-{number - 1}")
            shutil.rmtree(part, ignore_errors=True)
            kills += len(struck)
            bar.update(len(struck))
        os.chdir("/")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a campaign so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(lines: list[dict[str, Any]]) -> None:
    """Print tables of kills and of trainings that differ."""
    kills = [line for line in lines if "signal" in line]
    signals = sorted({line["signal"] for line in kills})
    print(f"| family | compiled | trainings | {' | '.join(signals)} | while saving | differences |")
    print(f"|{' --- |' * (len(signals) + 5)}")
    total: Counter[str] = Counter()
    for family, kind in sorted({(line["family"], line["campaign"]) for line in lines}):
        those = [line for line in lines if (line["family"], line["campaign"]) == (family, kind)]
        found = Counter(line["signal"] for line in those if "signal" in line)
        found["saving"] = sum(line.get("moment") == "saving" for line in those)
        found["trainings"] = sum("kills" in line for line in those)
        found["differences"] = sum(bool(line.get("differences")) for line in those)
        total += found
        print(_row(family, "" if kind == "plain" else kind, found, signals))
    print(_row("all", "", total, signals))
    refused = sorted({line["case"] for line in lines if line.get("refused")})
    print(f"\n{len(kills)} kills; {len({line['case'] for line in lines})} cases, of which {len(refused)} are refused")


def _row(family: str, kind: str, found: Counter[str], signals: list[str]) -> str:
    counts = " | ".join(str(found[name]) for name in ("trainings", *signals, "saving", "differences"))
    return f"| {family} | {kind} | {counts} |"


def main() -> None:
    """Run a campaign, or print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=("plain", "eager", "inductor", "summary"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training after so many minutes")
    parser.add_argument("--case", nargs="+", default=[""], help="cases whose names contain one of these texts alone")
    parser.add_argument("--epochs", type=int, default=5, help="of each training")
    parser.add_argument("--out", type=Path, nargs="+", default=[Path("kills.jsonl")], help="several for summary")
    options = parser.parse_args()
    if options.campaign == "summary":
        return summary([line for path in options.out for line in read_lines(path)])
    options.out = options.out[0].resolve()
    torch.set_num_threads(1)
    plain = options.campaign == "plain"
    cases = kill_cases.plain_cases() if plain else kill_cases.compiled_cases(options.campaign)
    chosen = [case for case in cases if any(text in case.name for text in options.case)]
    campaign([kill_cases.longer(case, options.epochs) for case in chosen], options)


if __name__ == "__main__":
    main()
