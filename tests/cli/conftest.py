"""Trained runs for the tests of the command line, almost always made in process."""

import shutil

import pytest
from command_line import MODULE, TINY, enter

from pyrovae.cli import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Two trained runs, "gaussian" and "own", and the module of the latter; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mymodule.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert main(["train", "gaussian", "--data", "digits", "--binarize", "dynamic", "--out", "gaussian", *TINY]) == 0
        words = ["--data", "digits", "--binarize", "static", "--out", "own", "--epochs", "2", "--quiet"]
        assert main(["train", "mymodule:make_vae", *words, "--z-dim", "2"]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A working directory with a copy of the trained runs."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def out(capsys):
    """What the last command wrote to standard output."""
    return lambda: capsys.readouterr().out
