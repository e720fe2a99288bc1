"""The worked example at small settings: it runs, finds spikes, and its references are right."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = str(Path(__file__).parents[2] / "tutorials/spike_inference.py")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(SCRIPT)


def test_spikes_are_found(script, tmp_path, capsys):
    path = tmp_path / "spikes.png"
    arguments = ["--steps", "250", "--frames", "30", "--traces", "200", "--test-traces", "60", "--lr", "0.01"]
    scores = script["main"](script["parser"]().parse_args([*arguments, "--figure", str(path)]))
    assert path.read_bytes()[:4] == b"\x89PNG"
    for method in ("VIMCO", "wake-wake"):
        assert scores[method].correlation > scores["differences"].correlation + 0.1
        assert scores[method].auc > scores["differences"].auc
        assert scores[method].correlation < scores["posterior"].correlation + 0.02
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rstrip(":") for line in lines if not line.startswith(" ")] == [
        *("VIMCO", "wake-wake"),
        *("differences", "non-negative", "VIMCO", "wake-wake", "posterior"),
    ]


def test_posterior_is_exact(script):
    """Against the sum over all spike trains of a few frames."""
    torch.manual_seed(1)
    model = script["true_model"](8)
    with torch.no_grad():
        (data,), _ = model.sample(5)
        trains = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8).expand(5, -1, -1)
        weight = model([data], [trains]).log_prob([data], [trains]).softmax(1)
    exact = (weight.unsqueeze(-1) * trains).sum(1)
    torch.testing.assert_close(script["exact_posterior"](model, data, sweeps=2000), exact, atol=0.03, rtol=0)


def test_deconvolution_undoes_the_response(script):
    torch.manual_seed(1)
    model = script["true_model"](40)
    with torch.no_grad():
        _, (spikes,) = model.sample(300)
        clean = model.trace(spikes[:, 0])
    assert script["estimate_decay"](clean).item() == pytest.approx(0.85, abs=0.03)
    for name in ("differences", "non_negative"):
        value = script[name](clean)
        assert script["score"](value, spikes[:, 0], 0.5).f1 > 0.95


def test_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["spike_inference.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(SCRIPT, run_name="__main__")
    assert stop.value.code == 0
    assert "--figure PATH" in capsys.readouterr().out
