"""Who gets which rows and draws what, where several processes share a training; nothing is sent here."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae import VAE, distributed
from pyrovae.data.rows import Rows
from pyrovae.distributed import ALONE, Processes, processes
from pyrovae.guides import PerDatum
from pyrovae.training.parallel import Parallel, Sum

VARIABLES = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    mu = pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x + mu, 1.0))


def of_each(size, vae, seed=0):
    return [Parallel(Processes(rank, size), vae, seed) for rank in range(size)]


def test_nothing_is_joined_without_the_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert processes() is ALONE
    assert not torch.distributed.is_initialized()


def test_one_process_is_alone(monkeypatch):
    for name, value in {**VARIABLES, "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert processes() is ALONE


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2")])
def test_impossible_variables_are_one_line(monkeypatch, rank, size):
    for name, value in {**VARIABLES, "RANK": rank, "WORLD_SIZE": size}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"RANK={rank} and WORLD_SIZE={size} are the number of a process"):
        processes()
    assert distributed._joined is None


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_parts_of_a_batch_are_the_batch(size, count):
    index = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    parts = [parallel.part(index) for parallel in of_each(size, VAE(model, guide))]
    assert torch.equal(torch.cat(parts), index)
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_rows_with_parameters_of_their_own_have_one_owner():
    vae = VAE(nn.Identity(), PerDatum(9, 2))
    rows = Rows(torch.zeros(9, 3), index=torch.tensor([8, 1, 1, 3, 4, 5, 6, 7, 0]))
    order = torch.tensor([4, 2, 8, 1, 0])
    parts = [parallel.part(order, rows) for parallel in of_each(2, vae)]
    assert [rows.index[part].tolist() for part in parts] == [[4, 0, 8], [1, 1]]


def test_latents_of_all_data_are_drawn_alike_and_those_of_rows_are_not():
    vae = VAE(model, guide, example=torch.zeros(4))

    def drawn(parallel, batch):
        parallel.reseed(0, batch)
        with vae.scope(), parallel.drawing(0, batch):
            trace = pyro.poutine.trace(guide).get_trace(torch.zeros(4))
            pyro.poutine.replay(model, trace=trace)(torch.zeros(4))
        return trace.nodes["mu"]["value"].item(), trace.nodes["z"]["value"].detach()

    (mu, z), (other_mu, other_z) = (drawn(parallel, 0) for parallel in of_each(2, vae))
    assert mu == other_mu
    assert not torch.isclose(z, other_z).any()
    again, later = drawn(of_each(2, vae)[1], 0), drawn(of_each(2, vae)[1], 1)
    assert again[0] == mu
    assert torch.equal(again[1], other_z)
    assert later[0] != mu


class Recorded(Processes):
    """The second of two processes, which hears what the first one had said."""

    def __init__(self):
        super().__init__(1, 2)
        self.heard = None

    def gather(self, value):
        return [None, value]  # so that no memory is shared

    def sum(self, tensor):
        if self.heard is not None:
            return tensor.add_(self.heard)
        self.heard = tensor.clone()
        return tensor


def test_a_sum_weighs_running_means_by_rows_and_leaves_out_what_no_process_has():
    learned = nn.Module()
    learned.register_buffer("mean", torch.tensor(4.0))
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    total = Sum(recorded := Recorded(), parameters)
    parameters[0].grad = torch.tensor([1.0, 2.0])
    total(10.0, 3, learned, [True, False])
    for parameter in parameters:
        parameter.grad = None
    learned.mean.fill_(8.0)
    parameters[0].grad, parameters[1].grad = torch.tensor([10.0, 20.0]), torch.ones(3)
    assert recorded.heard is not None
    assert total(2.0, 1, learned, [False, False]) == (12.0, 4, [True, False])
    assert parameters[0].grad.tolist() == [11.0, 22.0]
    assert parameters[1].grad.tolist() == [1.0, 1.0, 1.0]
    assert parameters[2].grad is None
    assert learned.mean.item() == pytest.approx((3 * 4 + 8) / 4)
