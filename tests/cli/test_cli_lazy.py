"""Help, the version and mistyped words need neither torch nor Pyro; what they know of both is what both say."""

import json
import subprocess
import sys

from pyrovae.cli import facts
from pyrovae.pairs import pairs

LIGHT = [
    ["--help"],
    ["--version"],
    ["trian"],
    ["train", "--help"],
    ["train", "gaussian", "--help"],
    ["train", "gaussian", "--no-such-option", "3"],
    ["train", "no-such-pair", "--data", "digits"],
    ["train", "gaussian", "--data", "digits", "--lr", "-1"],
    ["evaluate", "run", "--missing", "x"],
    ["encode", "--help"],
    ["sample", "run"],
    ["sweep", "--help"],
]


def test_facts_are_those_of_the_library():
    """After a change of an option: python -m pyrovae.cli.facts."""
    assert facts.PATH.read_text(encoding="utf-8") == facts.written()


def test_pairs_are_the_same_from_the_file():
    assert [facts.facts_of(pair) for pair in pairs()] == list(facts.known_pairs().values())


def test_torch_is_not_imported():
    code = f"""
import contextlib, io, sys
from pyrovae.cli import main
for words in {LIGHT!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            status = main(words)
        except SystemExit as stop:
            status = stop.code
    assert status == (0 if "--help" in words or "--version" in words else 2), (words, status)
    assert status == 0 or said.getvalue().count(chr(10)) == 1, said.getvalue()
    heavy = {{"torch", "pyro", "numpy", "pandas", "sklearn", "matplotlib"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_scikit_learn_is_imported_by_those_who_need_it():
    """It takes as long as torch does, and most commands draw no latents in the plane and complete no table."""
    code = "import sys, pyrovae.cli.using, pyrovae.runs; sys.exit(str({'sklearn', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() == "set()"


def test_the_module_is_a_program():
    done = subprocess.run([sys.executable, "-m", "pyrovae", "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()[0]) == (0, "pyrovae")


def test_values_of_the_file_are_plain():
    said = json.loads(facts.PATH.read_text(encoding="utf-8"))
    assert said["pairs"]["gaussian"]["options"][0]["name"] == "latent_dim"
