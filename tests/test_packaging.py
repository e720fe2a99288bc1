"""What is installed, and that importing it changes nothing."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def packages_on_disk():
    """Every folder with an `__init__.py` under the three that are installed."""
    folders = {"pyrovae": ROOT / "pyrovae", "pyrovae.models": ROOT / "models", "pyrovae.guides": ROOT / "guides"}
    for name, folder in folders.items():
        for file in folder.rglob("__init__.py"):
            yield ".".join([name, *file.parent.relative_to(folder).parts])


def run_python(code, cwd=ROOT):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed(setup_cfg):
    """One that nobody lists works in an editable install and is missing from the wheel."""
    listed = setup_cfg["options"]["packages"].split()
    assert sorted(listed) == sorted(packages_on_disk())


def test_folders_of_packages(setup_cfg):
    pairs = (line.split(" = ") for line in setup_cfg["options"]["package_dir"].strip().splitlines())
    assert dict(pairs) == {"pyrovae": "pyrovae", "pyrovae.models": "models", "pyrovae.guides": "guides"}


def test_types_are_shipped(setup_cfg):
    assert "py.typed" in setup_cfg["options.package_data"]["pyrovae"]
    assert (ROOT / "pyrovae" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["models", "guides"])
def test_short_names_are_refused(name):
    """At the root of the repository Python would find the folders; a second copy of every class would come of it."""
    result = run_python(f"import {name}")
    assert result.returncode == 1
    assert f"ImportError: import this package as pyrovae.{name}" in result.stderr


def test_importing_changes_nothing():
    code = """
import logging, random, sys, warnings
import numpy, pyro, torch
from torch.distributions import Distribution

def state():
    return (
        Distribution._Distribution__validate_args if hasattr(Distribution, "_Distribution__validate_args") else None,
        Distribution._validate_args,
        pyro.distributions.is_validation_enabled(),
        pyro.infer.util.is_validation_enabled(),
        pyro.poutine.util.is_validation_enabled(),
        logging.root.level,
        list(logging.root.handlers),
        logging.getLogger("pyrovae").level,
        list(logging.getLogger("pyrovae").handlers),
        logging.getLogger("pyro").level,
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
        list(pyro.get_param_store()),
        pyro.settings.get(),
        warnings.filters[:],
    )

torch.manual_seed(3)
before = state()
import pyrovae
import pyrovae.guides, pyrovae.infer, pyrovae.models, pyrovae.nn, pyrovae.training
after = state()
changed = [i for i, (a, b) in enumerate(zip(before, after)) if a != b]
print(changed)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_version():
    code = "import pyrovae, importlib.metadata as m; print(pyrovae.__version__ == m.version('pyrovae'))"
    assert run_python(code).stdout.strip() == "True"
