"""The command line explains itself: help, lists of data sets and models, how errors are shown."""

import json
import re

import pytest
from command_line import VERBS, error_of

from pyrovae import __version__, data
from pyrovae.cli import main
from pyrovae.cli.options import given
from pyrovae.pairs import pairs


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help(self, verb, folder, out):
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        text = out()
        assert stop.value.code == 0
        assert text.startswith(f"usage: pyrovae {verb}")
        assert max(map(len, text.splitlines())) <= 100
        # Placeholders are words of the field, not names of variables, and no switch shows "False" as its default.
        assert not re.search(r"PAIR_|[A-Z]_[A-Z]|default: (None|False)|==SUPPRESS==", text.replace("FILE_OR_NAME", ""))

    def test_verbs_are_listed(self, out):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = out()
        assert all(re.search(rf"^ +{verb} +\w", text, re.MULTILINE) for verb in VERBS)

    def test_version(self, out):
        with pytest.raises(SystemExit) as stop:
            main(["--version"])
        assert (stop.value.code, out()) == (0, f"pyrovae {__version__}\n")

    @pytest.mark.parametrize(
        "words",
        [
            "train gaussian --help",
            "train --help gaussian",
            "train --data digits --epochs 3 gaussian --help",
            "train --latent-dim 3 gaussian --help",
            "train --kl-weight warm-up:2 --device cuda:1 gaussian --help",
        ],
    )
    def test_help_shows_the_options_of_the_pair(self, words, out):
        with pytest.raises(SystemExit):
            main(words.split())
        text = out()
        assert re.search(r"--latent-dim N +size of the latent \(default: 16\)", text)
        assert "--hidden N,N,..." in text
        assert "--prior {standard-normal,mixture,vamp}" in text
        assert re.search(r"--likelihood NAME +likelihood of the data", text), "its choices are too many for braces"

    def test_help_of_a_pair_of_ones_own(self, folder, out):
        with pytest.raises(SystemExit):
            main(["train", "mymodule:make_vae", "--help"])
        text = out()
        assert re.search(r"--z-dim N +size of the latent, 100% of it \(default: 3\)", text)
        assert "--size {small,large}" in text
        assert "--pair-seed N" in text, "ours is called --seed"
        assert "callback" not in text, "no value for it fits on a command line"

    def test_required_option(self, folder, out, capsys):
        with pytest.raises(SystemExit):
            main(["train", "mymodule:needs", "--help"])
        assert re.search(r"--z-dim N +\(required\)", out())
        assert "--z-dim" in error_of(["train", "mymodule:needs", "--data", "digits"], capsys)


class TestLists:
    def test_datasets(self, out):
        assert main(["datasets"]) == 0
        text = out()
        assert main(["datasets", "--json"]) == 0
        listed = json.loads(out())
        assert [info["name"] for info in listed] == [info.name for info in data.available()]
        assert all(re.search(rf"^{info['name']} ", text, re.MULTILINE) for info in listed)
        keys = ["name", "summary", "shape", "sizes", "kind", "source", "location"]
        assert all(list(info) == keys for info in listed)

    def test_models(self, out):
        assert main(["models"]) == 0
        text = out()
        assert main(["models", "--json"]) == 0
        listed = json.loads(out())
        assert [pair["name"] for pair in listed] == [pair.name for pair in pairs()]
        options = {pair["name"]: pair["options"] for pair in listed}
        assert options["gaussian"]["prior"]["choices"] == ["standard-normal", "mixture", "vamp"]
        assert all(f"--{name.replace('_', '-')} " in text for pair in listed for name in pair["options"])
        assert max(map(len, text.splitlines())) <= 100
        assert main(["models", "gaussian"]) == 0
        assert [line for line in out().splitlines() if line.startswith("gaussian: ")]
        assert main(["models", "gausian"]) == 2


def test_debugging_shows_where(monkeypatch):
    monkeypatch.setenv("PYROVAE_DEBUG", "1")
    with pytest.raises(ValueError, match="required: VERB"):
        main([])


@pytest.mark.parametrize("pair", [pair.name for pair in pairs()])
def test_options_of_our_pairs_need_no_prefix(pair, out):
    with pytest.raises(SystemExit):
        main(["train", pair, "--help"])
    assert "--pair-" not in out()


def test_given():
    assert given({"a": 0, "b": None, "c": 1}, ["a", "b", "d"]) == {"a": 0}
