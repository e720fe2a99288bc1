"""Decaying-average baselines of Pyro's TraceGraph_ELBO train as they do with stock Pyro, and are resumed."""

import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import nn

from pyrovae import VAE
from pyrovae.rng import begin
from pyrovae.training import Callback, RunFolder, Trainer, TrainingInterrupted

BASELINE = {"baseline": {"use_decaying_avg_baseline": True, "baseline_beta": 0.8}}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.decoder, self.encoder = nn.Linear(3, 5), nn.Linear(5, 3)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.encoder(x)).to_event(1), infer=BASELINE)


def rows():
    return torch.rand(40, 5, generator=torch.Generator().manual_seed(1)).bernoulli(
        generator=torch.Generator().manual_seed(2)
    )


def train(pair, epochs, **how):
    options = {"batch_size": 40, "progress": False, "optimizer": "sgd", "lr": 0.4, "seed": 5}
    callbacks = how.pop("callbacks", ())
    return Trainer(objective="graph", epochs=epochs, callbacks=callbacks, **options).fit(
        VAE(pair.model, pair.guide), rows(), **how
    )


def test_as_in_stock_pyro():
    """Plain gradient steps: those of the Trainer are of the mean loss, so 40 times as long as those of the sum."""
    ours, stock = Pair(), Pair()
    history = train(ours, 6)
    svi = SVI(stock.model, stock.guide, pyro.optim.SGD({"lr": 0.4 / 40}), TraceGraph_ELBO())
    begin(5)
    losses = [svi.step(rows()) / 40 for _ in range(6)]
    assert [row["loss"] for row in history.rows] == pytest.approx(losses, rel=1e-5)
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_resumed_bit_for_bit(tmp_path):
    class Stop(Callback):
        def on_epoch(self, progress):
            if progress.epoch == 3:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train(Pair(), 6, run=tmp_path / "part", callbacks=[Stop()])
    part, whole = Pair(), Pair()
    train(part, 6, run=tmp_path / "part", resume=True)
    train(whole, 6, run=tmp_path / "whole")
    assert all(torch.equal(value, part.state_dict()[name]) for name, value in whole.state_dict().items())
    assert (
        RunFolder(tmp_path / "part").weights_path.read_bytes()
        == RunFolder(tmp_path / "whole").weights_path.read_bytes()
    )


def test_batches_of_several_sizes():
    pair = Pair()
    trainer = Trainer(objective="graph", epochs=1, batch_size=16, progress=False)
    with pytest.raises(ValueError, match=r"baseline of site 'z' has a number for each of the 16 rows .*drop_last=True"):
        trainer.fit(VAE(pair.model, pair.guide), rows())
    Trainer(objective="graph", epochs=1, batch_size=16, drop_last=True, progress=False).fit(
        VAE(pair.model, pair.guide), rows()
    )
