"""Hand-edited configurations, states and metrics, and states of other shapes: one line, never a traceback."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from pairs import linear_pair

from pyrovae.cli import main
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError, load_tensors, save_tensors
from pyrovae.training import RunFolder, Trainer

ODD = (None, -1, 1.5, "x", [], {"a": 1}, True)
WORDS = ["train", "gaussian", "--data", "mine.npy", "--hidden", "4", "--latent-dim", "2", "--epochs", "1", "--quiet"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.save("mine.npy", np.random.RandomState(0).normal(size=(60, 5)).astype(np.float32))
        assert main([*WORDS, "--out", "run"]) == 0
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths_of(value, path=()):
    for name, part in value.items() if isinstance(value, dict) else ():
        yield (*path, name)
        yield from paths_of(part, (*path, name))


def test_edited_configurations(here, capsys):
    """A changed line is seen by the digest; without the digest whatever stands there is one line, or is followed."""
    config = json.loads((here / "run/config.json").read_text())
    (here / "run/config.json").write_text(
        json.dumps({**config, "pair_options": {**config["pair_options"], "latent_dim": 3}})
    )
    with pytest.raises(CheckpointError, match=r'config.json is not what was written .* take out its line "digest"'):
        Run.open("run")
    del config["digest"]
    for path in paths_of(config):
        if path[0] in ("fingerprints", "pyrovae_version"):
            continue
        for odd in ODD:
            changed = copy.deepcopy(config)
            part = changed
            for name in path[:-1]:
                part = part[name]
            part[path[-1]] = odd
            (here / "run/config.json").write_text(json.dumps(changed))
            capsys.readouterr()
            status = main(["sample", "run", "--num", "2", "--out", "x.csv"])
            lines = capsys.readouterr().err.strip().splitlines()
            assert status == 0 or (status == 2 and len(lines) == 1), (path, odd, lines)


class TestState:
    @pytest.fixture
    def stopped(self, tmp_path):
        Trainer(epochs=2, batch_size=16, progress=False).fit(linear_pair(), self.rows(), run=tmp_path / "run")
        return RunFolder(tmp_path / "run")

    @staticmethod
    def rows():
        return torch.randn(40, 5, generator=torch.Generator().manual_seed(0))

    def refused(self, run, match):
        vae = linear_pair()
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        with pytest.raises(CheckpointError, match=match) as error:
            Trainer(epochs=3, batch_size=16, progress=False).fit(vae, self.rows(), run=run, resume=True)
        assert "\n" not in str(error.value)
        assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())

    @pytest.mark.parametrize(
        "key",
        ["epoch", "batch", "rows", "loss_sum", "seconds", "history", "best_value", "best_epoch", "groups", "values"],
    )
    def test_information(self, key, stopped):
        tensors, information = load_tensors(stopped.state_path)
        for odd in ("x",) if key == "values" else ("x", [1], {"a": 1}):
            save_tensors(stopped.state_path, tensors, {**information, key: odd})
            self.refused(stopped, "is damaged")
        save_tensors(stopped.state_path, tensors, {name: v for name, v in information.items() if name != "optimizer"})
        self.refused(stopped, "is damaged")

    def test_moments_of_another_shape(self, stopped):
        """A fused Adam writes beyond the end of a moment that is too small."""
        tensors, information = load_tensors(stopped.state_path)
        for name in (name for name in tensors if name.startswith("optimizer.")):
            cut = tensors[name].reshape(-1)[:0] if tensors[name].dim() else tensors[name].reshape(1)
            save_tensors(stopped.state_path, {**tensors, name: cut}, information)
            self.refused(stopped, f"{name.split('.')[2]}' of parameter {name.split('.')[1]} has shape")
            save_tensors(stopped.state_path, {n: v for n, v in tensors.items() if n != name}, information)
            self.refused(stopped, "is damaged: the state of parameter .* lacks|is damaged")
        save_tensors(stopped.state_path, {**tensors, "optimizer.99.exp_avg": torch.zeros(1)}, information)
        self.refused(stopped, "it has a state of parameter 99")

    def test_other_tensors(self, stopped):
        tensors, information = load_tensors(stopped.state_path)
        weight = next(name for name in tensors if name.startswith("best."))
        for changed, match in (
            ({weight: torch.zeros(1)}, "best weights in .* is of another architecture"),
            ({"rng.cpu": torch.zeros(3, dtype=torch.uint8)}, "is damaged"),
            ({"permutation": torch.tensor([0, 0, 1])}, "the order of its rows leaves some out"),
        ):
            save_tensors(stopped.state_path, {**tensors, **changed}, information)
            with pytest.raises(CheckpointError, match=match) as error:
                Trainer(epochs=3, batch_size=16, progress=False).fit(
                    linear_pair(), self.rows(), run=stopped, resume=True
                )
            assert "\n" not in str(error.value)


class TestMetrics:
    def test_edited_beside_a_state(self, here, caplog):
        folder = RunFolder("run")
        before = folder.read_metrics()
        for content in (b"", b"epoch,loss\n1,0.5\n", b"\xff\xfe", b"epoch\nx\n"):
            (here / "run/metrics.csv").write_bytes(content)
            caplog.clear()
            assert folder.read_metrics() == before
            assert "metrics.csv is not what the last state was saved with" in caplog.text

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"epoch,loss\n1,half\n", b"epoch,loss\n1,2,3\n"])
    def test_edited_without_a_state(self, content, here):
        shutil.rmtree("run/last")
        (here / "run/metrics.csv").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"metrics.csv is damaged \(.*\); restore it, or delete it") as error:
            RunFolder("run").read_metrics()
        assert "\n" not in str(error.value)


def test_files_of_a_family(tmp_path):
    """Files beside the weights have digests in the configuration once they are sealed."""
    folder = RunFolder(tmp_path)
    folder.write_config({"pair": "x"})
    (tmp_path / "trees.npz").write_bytes(b"content")
    folder.check_files(folder.read_config())
    folder.seal(["trees.npz"])
    folder.check_files(folder.read_config())
    (tmp_path / "trees.npz").write_bytes(b"contens")
    with pytest.raises(CheckpointError, match=r"trees.npz is damaged: its content is not what was written"):
        folder.check_files(folder.read_config())
    (tmp_path / "trees.npz").unlink()
    with pytest.raises(CheckpointError, match=r"trees.npz cannot be read \(No such file"):
        folder.check_files(folder.read_config())
