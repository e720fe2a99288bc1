"""A training with parameters of its own for each row goes on where it stopped, with the moments of each row."""

import torch

from pyrovae.data import load
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer


def trained(folder, parts):
    digits = load("digits")
    for resume, epochs in enumerate(parts):
        torch.manual_seed(0)
        vae = find_pair("auto-decoder").build(digits, latent_dim=2, hidden=(8,), likelihood="bernoulli")
        trainer = Trainer(epochs=epochs, batch_size=100, lr={"guide": 0.05}, progress=False)
        trainer.fit(vae, digits, run=folder, resume=bool(resume))
    return vae


def test_the_result_is_the_same_bit_for_bit(tmp_path):
    whole, broken = trained(tmp_path / "whole", [4]), trained(tmp_path / "broken", [2, 4])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
