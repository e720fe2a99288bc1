"""Products that oneDNN computes in recorded steps: which ones, with what numbers, and that a run keeps to them."""

import pytest
import torch
from pairs import linear_pair
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from pyrovae import VAE
from pyrovae.guides import AmortizedGaussian
from pyrovae.infer import IWAE, CompiledLoss, compiled_code, products
from pyrovae.infer.products import give_to_onednn
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal
from pyrovae.training import Trainer
from pyrovae.training.checkpoint import RunFolder

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def products_of(kind):
    """A function with a large product in every layout, and with one that is small."""
    x, bias = torch.randn(128, 200, dtype=kind), torch.randn(300, dtype=kind)
    weight, other = torch.randn(300, 200, dtype=kind), torch.randn(128, 300, dtype=kind)

    def run(x, weight, bias, other):
        return (
            torch.nn.functional.linear(x, weight, bias),
            x @ weight.t(),
            other @ weight,
            other.t() @ x,
            (x.t() @ other).t(),
            x[:2] @ weight.t(),
        )

    return run, (x, weight, bias, other)


def recorded(run, given):
    graph = make_fx(run)(*given)
    FakeTensorProp(graph).propagate(*given)
    return graph


def test_large_ones_in_every_layout():
    run, given = products_of(torch.float32)
    graph = recorded(run, given)
    assert give_to_onednn(graph) == 5
    for found, expected in zip(graph(*given), run(*given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.stride() == expected.stride()


@pytest.mark.parametrize(
    "bias",
    [lambda b: b[::2], lambda b: b.reshape(300, 2)[:, 0], lambda b: b[:1].expand(300), lambda b: b[7:307]],
    ids=["strided", "column", "expanded", "shifted"],
)
def test_biases_that_do_not_lie_as_one(bias):
    def run(x, weight, values):
        return (torch.nn.functional.linear(x, weight, bias(values)),)

    given = torch.randn(128, 200), torch.randn(300, 200), torch.randn(600)
    graph = recorded(run, given)
    assert give_to_onednn(graph) == 1
    torch.testing.assert_close(graph(*given), run(*given), rtol=1e-4, atol=1e-4)


def test_a_bias_of_one_number_stays():
    given = torch.randn(1), torch.randn(128, 200), torch.randn(200, 300)
    assert give_to_onednn(recorded(lambda *parts: (torch.addmm(*parts),), given)) == 0


def test_double_precision_stays():
    run, given = products_of(torch.float64)
    assert give_to_onednn(recorded(run, given)) == 0


def pair():
    torch.manual_seed(0)
    likelihood = BernoulliLikelihood((300,))
    model = GaussianVAE(StandardNormal(3), DenseDecoder(3, likelihood.raw_shape, (200,)), likelihood)
    return VAE(model, AmortizedGaussian(DenseEncoder((300,), (200,)), 3))


def test_steps_are_the_same(monkeypatch):
    """In inductor's code, whose products are those of the operator, opaque to it; some processors round both alike."""
    x, found, replaced = torch.bernoulli(torch.full((64, 300), 0.3)), [], []
    give = compiled_code.give_to_onednn
    monkeypatch.setattr(compiled_code, "give_to_onednn", lambda graph: replaced.append(give(graph)))
    for onednn in (False, True):
        vae = pair().prepare(x)
        step = CompiledLoss(vae, IWAE(2), onednn=onednn)
        torch.manual_seed(1)
        found.append((step(x).item(), {name: p.grad for name, p in vae.named_parameters()}))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    assert len(replaced) == 1
    assert replaced[0] > 0


def test_a_training_keeps_what_it_began_with(monkeypatch, tmp_path):
    """Also where a trial would now find something else."""
    x = torch.randn(32, 5)
    chosen = []
    monkeypatch.setattr(products, "is_faster", lambda: True)

    class Seen(CompiledLoss):
        def __init__(self, *args, **options):
            super().__init__(*args, **options, backend="eager")
            chosen.append(self.onednn)

    monkeypatch.setattr("pyrovae.training.compiling.CompiledLoss", Seen)

    def train(epochs, resume=False):
        torch.manual_seed(0)
        vae = linear_pair().prepare(x)
        options = {"epochs": epochs, "batch_size": 16, "compile": True, "progress": False}
        Trainer("elbo", **options).fit(vae, x, run=RunFolder(tmp_path / "run"), resume=resume)

    train(1)
    monkeypatch.setattr(products, "is_faster", lambda: False)
    train(2, resume=True)
    assert chosen == [True, True]


@pytest.mark.parametrize("shape", [(), (6,), (64, 300)])
def test_constants_are_not_taken_from_the_cache(shape):
    """Inductor's cache knows graphs; numbers that a program holds are those of the pair that is compiled."""
    x = torch.bernoulli(torch.full((64, 300), 0.3))
    for constant in (torch.ones(shape), torch.full(shape, 3.0)):
        vae = pair().prepare(x)
        rate = vae.model.likelihood.forward

        def shifted(raw, mask=None, rate=rate, constant=constant):
            return rate(raw + constant.sum() / constant.numel(), mask)

        vae.model.likelihood.forward = shifted
        found = []
        for backend in ("eager", "inductor"):
            torch.manual_seed(1)
            found.append(CompiledLoss(vae, IWAE(2), backend=backend)(x).item())
        assert found[0] == pytest.approx(found[1], rel=1e-4)
