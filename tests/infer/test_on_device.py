"""What is changed in a recorded step for a GPU, shown without one: the meta device stands in for it."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
from pairs import library_pair, pictures
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.infer import CompiledLoss, compiled_code, make_objective
from pyrovae.infer import compile as compile_module
from pyrovae.infer.compiled_code import IN_ORDER, compiled, lies_like
from pyrovae.infer.on_device import keep_draws, put_constants_on_device

aten = torch.ops.aten


def targets(graph):
    graph.graph.eliminate_dead_code()
    return Counter(node.target for node in graph.graph.nodes if node.op == "call_function")


def test_numbers_lie_on_the_device():
    """A copy to it is no copy in each step; one that is changed in place begins anew each time."""

    def run(x):
        changed = torch.tensor([1.0, 2.0, 3.0]).to("meta", torch.float64)
        changed.add_(1.0)
        return x + torch.tensor(2.0).to("meta") + changed + x.to(torch.float64)

    graph = make_fx(run)(torch.ones(3, device="meta"))
    assert targets(graph)[aten._to_copy.default] == 3
    put_constants_on_device(graph)
    left = targets(graph)
    assert left[aten._to_copy.default] == 1, "that of the data"
    assert left[aten.clone.default] == 2
    assert {value.device.type for name, value in graph.named_buffers() if name.startswith("_on_device")} == {"meta"}
    assert {value.dtype for _, value in graph.named_buffers()} >= {torch.float32, torch.float64}
    assert graph(torch.ones(3, device="meta")).dtype == torch.float64


def test_numbers_that_are_changed_first_stay():
    """By a view, too; what was recorded of them is not what they are."""

    def run(x):
        whole, part = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])
        whole.add_(1.0)
        part[0] = 5.0
        return x + whole.to("meta") + part.to("meta")

    graph = make_fx(run)(torch.ones(2, device="meta"))
    put_constants_on_device(graph)
    assert targets(graph)[aten._to_copy.default] == 2


def test_nothing_is_changed_on_the_cpu():
    graph = make_fx(lambda x: x + torch.tensor(2.0) + x.to(torch.float64))(torch.ones(3))
    before = graph.code
    put_constants_on_device(graph)
    assert graph.code == before


def test_bits_are_those_of_torch():
    """Also where inductor would compare uniform numbers."""
    p = torch.rand(7, 50).t()
    graph = make_fx(lambda p: torch.bernoulli(p))(p)
    keep_draws(graph)
    assert targets(graph) == {torch.ops.pyrovae.bernoulli.default: 1}
    torch.manual_seed(0)
    expected = torch.bernoulli(p)
    torch.manual_seed(0)
    assert torch.equal(graph(p), expected)
    torch.library.opcheck(torch.ops.pyrovae.bernoulli.default, (p,), test_utils="test_faketensor")


@pytest.mark.parametrize(("draws", "ordered"), [(0, False), (1, False), (2, True)])
def test_several_draws_stay_in_their_order(monkeypatch, draws, ordered):
    seen = []
    monkeypatch.setattr("torch._inductor.compile", lambda graph, example, options: seen.append(options) or graph)
    monkeypatch.setattr(compiled_code, "_MADE", {})
    x = torch.ones(3)
    compiled(make_fx(lambda x: x + sum(torch.randn(3) for _ in range(draws)))(x), [x], "inductor")
    assert (IN_ORDER.items() <= seen[0].items()) == ordered


def test_gradients_lie_as_their_parameters_do(monkeypatch):
    """Whatever order code gives them in, as convolutions on a GPU do: fused optimizers go by memory."""

    def otherwise(graph, example, backend, **options):
        code = compiled(graph, example, backend, **options)

        def run(*given):
            loss, *gradients = code(*given)
            return loss, *(g.to(memory_format=torch.channels_last) if g.dim() == 4 else g for g in gradients)

        return run

    x, vae = pictures(6), library_pair("conv")
    found = []
    for how in (compiled, otherwise):
        monkeypatch.setattr(compile_module, "compiled", how)
        torch.manual_seed(0)
        CompiledLoss(vae, make_objective("elbo"), backend="eager")(x)
        parameters = dict(vae.named_parameters())
        assert all(lies_like(p.grad.stride(), p) for p in parameters.values())
        found.append({name: p.grad for name, p in parameters.items()})
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "how", ["", "matmul.allow_tf32 = True", "set('high')", "set('medium')", "cudnn.allow_tf32 = False"]
)
def test_precision_is_put_back(how):
    """In a process of its own, since torch does not forget what was set."""
    subprocess.run([sys.executable, "-c", LEGACY.format(how)], check=True)


LEGACY = """
import torch
from pyrovae.infer.compared import full_precision, precision_of_products
set, cudnn, matmul = torch.set_float32_matmul_precision, torch.backends.cudnn, torch.backends.cuda.matmul
{}
def now(): return torch.get_float32_matmul_precision(), cudnn.allow_tf32, matmul.allow_tf32, *single()
def single(): return [getattr(kind, "fp32_precision", "") for kind in (matmul, torch.backends.mkldnn.matmul)]
before = now()
with full_precision():
    assert now()[:3] == ("highest", False, False)
    with cudnn.flags(deterministic=True):
        pass
assert now() == before
assert precision_of_products() == before[:1]
"""
SINGLE = """
import torch
from pyrovae.infer.compared import full_precision, precision_of_products
kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
def now(): return [kind.fp32_precision for kind in kinds]
kinds[0].fp32_precision = kinds[1].fp32_precision = "tf32"
kinds[2].fp32_precision = "ieee"
before = now()
with full_precision():
    assert now() == ["ieee"] * 3
assert now() == before
assert precision_of_products()[0] == "tf32"
"""


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch has these settings from 2.9 on")
def test_precision_of_single_operations_is_put_back():
    subprocess.run([sys.executable, "-c", SINGLE], check=True)
