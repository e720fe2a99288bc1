"""Binary pictures, and digits of which a tenth keep their labels, for semi-supervised pairs."""

import pytest
import torch
from semi_supervised_pairs import ROWS, SHAPE

from pyrovae import data


@pytest.fixture
def x():
    return torch.rand(ROWS, *SHAPE).bernoulli()


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", labels=0.1, validation=100)
