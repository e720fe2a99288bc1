"""A VAE is saved and loaded in one line each, and the command line reads the folder."""

import json
import sys
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import same_weights, weights_of

from pyrovae import VAE, data
from pyrovae.cli import main
from pyrovae.data import DataSpec
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError
from pyrovae.training import Trainer

MODULE = """
import pyro, pyro.distributions as dist, torch
from pyrovae import VAE

def make_vae(scale: float = 1.0):
    encoder, decoder = torch.nn.Linear(64, 4), torch.nn.Linear(2, 64)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("latent", dist.Normal(torch.zeros(2), scale).to_event(1))
            pyro.sample("pixels", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x.flatten(1))

    def guide(x):
        pyro.module("encoder", encoder)
        loc, log_scale = encoder(x.flatten(1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

    return VAE(model, guide)

def larger():
    return VAE(*(getattr(make_vae(), name) for name in ("model", "guide")))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module with a pair of one's own in the working directory."""
    (tmp_path / "saved_vae.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    import saved_vae

    yield saved_vae
    sys.modules.pop("saved_vae", None)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", binarize="static")


def gaussian(digits, **options):
    return find_pair("gaussian").build(digits, hidden=(8,), latent_dim=2, layer="plain", **options)


def make_conditional():
    """A pair with parameters of its own sites, and none before it has seen data."""

    def model(x):
        loc = pyro.param("loc", torch.zeros(64))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=loc + z[:, None]).to_event(1), obs=x.flatten(1))

    def guide(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), scale))

    return VAE(model, guide)


class TestRegisteredPair:
    @pytest.mark.parametrize("options", [{}, {"prior": "vamp", "num_components": 3}], ids=str)
    def test_round_trip(self, options, digits, tmp_path):
        vae = gaussian(digits, **options)
        Trainer(epochs=1, progress=False).fit(vae, digits)
        vae.save(tmp_path / "saved", digits)
        again = VAE.load(tmp_path / "saved")
        assert same_weights(weights_of(vae), weights_of(again))
        assert not again.training
        assert again.made_by == vae.made_by
        again.save(tmp_path / "twice")
        assert same_weights(weights_of(vae), weights_of(VAE.load(tmp_path / "twice")))
        names = {str(path.relative_to(tmp_path / "saved")) for path in (tmp_path / "saved").rglob("*")}
        assert names == {"config.json", "model.safetensors"}

    def test_training_goes_on_as_in_memory(self, digits, tmp_path):
        vae = gaussian(digits)
        vae.save(tmp_path)
        again = VAE.load(tmp_path)
        losses = [Trainer(epochs=1, progress=False).fit(each, digits).rows[0]["loss"] for each in (vae, again)]
        assert losses[0] == losses[1]

    def test_the_command_line_reads_it(self, digits, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        gaussian(digits).save("saved", data=digits)
        assert main(["evaluate", "saved", "--num-samples", "3", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["num_rows"] == 297
        assert main(["sample", "saved", "--num", "3", "--out", "x.npz"]) == 0
        assert np.load("x.npz")["x"].shape == (3, 1, 8, 8)
        assert main(["plot", "saved"]) == 0
        assert "samples.png" in capsys.readouterr().out
        assert main(["resume", "saved"]) == 2
        assert "saved holds no training to go on with: saved/last/state.safetensors" in capsys.readouterr().err

    def test_without_data_the_command_line_asks_for_them(self, digits, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        gaussian(digits).save("saved")
        assert main(["evaluate", "saved", "--num-samples", "3"]) == 2
        assert "by --data FILE_OR_NAME to evaluate and plot" in capsys.readouterr().err
        np.save("new.npy", digits.test.x.numpy())
        assert main(["evaluate", "saved", "--num-samples", "3", "--data", "new.npy"]) == 0

    def test_a_trained_run_is_loaded_too(self, digits, tmp_path):
        run = Run.create(tmp_path, "gaussian", {"hidden": (8,), "latent_dim": 2}, digits, {"epochs": 1})
        run.train(progress=False)
        vae = VAE.load(tmp_path)
        assert same_weights(weights_of(vae), weights_of(run.load_vae()))
        assert vae.made_by.spec == digits.spec

    def test_with_more_sticks(self, digits, tmp_path):
        from pyrovae.runs import add_sticks

        vae = find_pair("stick-breaking").build(digits, truncation=4, hidden=(8,))
        more = add_sticks(vae, 3)
        more.save(tmp_path)
        assert same_weights(weights_of(more), weights_of(VAE.load(tmp_path)))


class TestOwnPair:
    def test_by_a_function_a_vae_or_a_name(self, own, digits, tmp_path):
        vae = own.make_vae()
        Trainer(epochs=1, progress=False).fit(vae, digits)
        vae.save("saved", digits)
        given = own.make_vae()
        for pair in (own.make_vae, "saved_vae:make_vae", given):
            again = VAE.load("saved", pair=pair)
            torch.testing.assert_close(again.log_likelihood(digits.test.x[:3], 1).shape, torch.Size([3]))
            assert same_weights(weights_of(vae), weights_of(again))
        assert again is given
        again.save("twice")
        assert same_weights(weights_of(vae), weights_of(VAE.load("twice", own.make_vae)))

    def test_name_and_options_are_kept(self, own, digits, tmp_path):
        find_pair("saved_vae:make_vae").build(digits, scale=2.0).save("saved")
        config = json.loads((tmp_path / "saved/config.json").read_text())
        assert (config["pair"], config["pair_options"]) == ("saved_vae:make_vae", {"scale": 2.0})
        assert VAE.load("saved", own.make_vae).made_by.options == {"scale": 2.0}
        with pytest.raises(CheckpointError, match=r"open it with --pair saved_vae:make_vae"):
            VAE.load("saved")
        with pytest.raises(CheckpointError, match=r"a run of the pair saved_vae:make_vae, not saved_vae:larger"):
            VAE.load("saved", "saved_vae:larger")

    def test_command_line(self, own, digits, capsys):
        own.make_vae().save("saved", digits)
        assert main(["sample", "saved", "--out", "x.npz"]) == 2
        line = "pyrovae: saved is a run of a pair of your own; open it with --pair module:function\n"
        assert capsys.readouterr().err == line
        pair = ["--pair", "saved_vae:make_vae"]
        assert main(["sample", "saved", "--out", "x.npz", *pair]) == 0
        assert main(["evaluate", "saved", "--num-samples", "3", *pair]) == 0

    def test_parameters_of_sites(self, digits, tmp_path):
        vae = make_conditional()
        Trainer(epochs=1, progress=False).fit(vae, digits)
        vae.save(tmp_path, digits.spec)
        assert same_weights(weights_of(vae), weights_of(VAE.load(tmp_path, make_conditional)))
        fresh = make_conditional()
        fresh.save(tmp_path / "fresh", digits)
        assert weights_of(VAE.load(tmp_path / "fresh", make_conditional)).keys() == weights_of(vae).keys()

    def test_needs_to_know_the_rows(self, own, tmp_path):
        with pytest.raises(ValueError, match=r"nothing says for what rows it was made; give them: vae.save"):
            own.make_vae().save(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()

    def test_is_not_imported_on_the_word_of_a_file(self, own, digits):
        find_pair("saved_vae:make_vae").build(digits).save("saved")
        del sys.modules["saved_vae"]
        with pytest.raises(CheckpointError, match="a pair of your own"):
            VAE.load("saved")
        assert "saved_vae" not in sys.modules


class TestRefused:
    def test_a_folder_that_holds_a_run(self, digits, tmp_path):
        run = Run.create(tmp_path, "gaussian", {"hidden": (8,), "latent_dim": 2}, digits, {"epochs": 1})
        run.train(progress=False)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
        vae = gaussian(digits)
        with pytest.raises(CheckpointError, match="already holds a run; choose another folder, or give overwrite=True"):
            vae.save(tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
        vae.save(tmp_path, overwrite=True)
        assert same_weights(weights_of(vae), weights_of(VAE.load(tmp_path)))
        assert {path.name for path in tmp_path.rglob("*.*")} == {"config.json", "model.safetensors"}

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_damaged_files(self, name, digits, tmp_path):
        gaussian(digits).save(tmp_path)
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
            VAE.load(tmp_path)
        path.unlink()
        with pytest.raises(CheckpointError, match=r"no run folder|does not exist"):
            VAE.load(tmp_path)

    def test_another_architecture(self, own, digits, tmp_path):
        gaussian(digits).save("saved", digits)
        config = json.loads((tmp_path / "saved/config.json").read_text())
        config["pair_options"]["latent_dim"] = 5
        (tmp_path / "saved/config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="is not what was written"):
            VAE.load("saved")
        del config["digest"]
        (tmp_path / "saved/config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"model.safetensors is of another architecture"):
            VAE.load("saved")
        own.make_vae().save("mine", digits)
        with pytest.raises(CheckpointError, match=r"another architecture: it lacks 'param_sites.loc'"):
            VAE.load("mine", make_conditional)

    def test_other_things_than_pairs(self, own, digits):
        gaussian(digits).save("saved")
        with pytest.raises(CheckpointError, match="a run of the pair gaussian, which is found by its name"):
            VAE.load("saved", own.make_vae)
        own.make_vae().save("mine", digits)
        with pytest.raises(TypeError, match="a function that returns a VAE, or a VAE, got 3"):
            VAE.load("mine", 3)
        with pytest.raises(TypeError, match=r"must return a pyrovae.VAE, got int"):
            VAE.load("mine", lambda: 3)

    def test_other_data(self, digits, tmp_path):
        grey = data.load("digits")
        with pytest.raises(ValueError, match="digits has kind unit, and the run was trained on data with kind binary"):
            gaussian(digits).save(tmp_path, grey)
        vae = gaussian(digits)
        vae.made_by = vae.made_by._replace(options={"hidden": torch.zeros(3)})
        with pytest.raises(ValueError, match="the option 'hidden' of the pair cannot be written as JSON: tensor"):
            vae.save(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_labels_beyond_the_classes(self, digits, tmp_path):
        gaussian(digits).save(tmp_path)
        test = digits.test.replace(y=digits.test.y + 1)
        with pytest.raises(ValueError, match=r"digits has the label 10 in its test rows, .* labels from 0 to 9"):
            Run.open(tmp_path, data=replace(digits, test=test))

    def test_spec_alone(self, digits, tmp_path):
        vae = find_pair("gaussian").build(DataSpec("mine", (3,), "real", 10), hidden=(4,), latent_dim=2)
        vae.save(tmp_path)
        assert VAE.load(tmp_path).sample(2).shape == (2, 3)


def test_double_precision_is_kept(tmp_path):
    """The pair that a name builds gets the precision of the weights, so that figures are the same."""
    digits = data.load("digits", binarize="static")
    vae = find_pair("gaussian").build(digits, latent_dim=2, hidden=(8,)).double()
    vae.save(tmp_path / "kept", digits)
    again = VAE.load(tmp_path / "kept")
    for name, value in vae.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype
        assert torch.equal(again.state_dict()[name], value)
    options = {"epochs": 1, "batch_size": 400, "progress": False}
    Trainer(**options).fit(vae, digits.train.x.double(), run=tmp_path / "run")
    single = find_pair("gaussian").build(digits, latent_dim=2, hidden=(8,))
    with pytest.raises(CheckpointError, match="is float32 here; give the pair that precision, as vae"):
        Trainer(**options | {"epochs": 2}).fit(single, digits.train.x, run=tmp_path / "run", resume=True)
