"""Matrix products of recorded steps: by oneDNN where it is faster on this processor than what torch multiplies with."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

LARGE = 2**21
"""Multiplications from which on a product is given to oneDNN. MKL begins faster, so it keeps the small ones."""
_CLEARLY = 1.2
_LIBRARY = torch.library.Library("pyrovae", "FRAGMENT")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One call of oneDNN for x W' + b."""
    bias = None if bias is None else bias.contiguous()  # whose strides oneDNN does not look at
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _shape_of_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


if not hasattr(torch.ops.pyrovae, "product"):  # as when the module is loaded a second time
    _LIBRARY.define("product(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")
    _LIBRARY.impl("product", _product, "CPU")
    torch.library.register_fake("pyrovae::product", _shape_of_product, lib=_LIBRARY)


@cache
def is_faster() -> bool:
    """Whether oneDNN multiplies clearly faster than torch's own products on this processor, as a trial tells.

    MKL takes narrower vector instructions on processors of other makers than its own, where oneDNN then takes half the
    time; elsewhere both are alike.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.no_grad():
        x, weight = torch.ones(128, 784), torch.ones(200, 784)
        ways = [lambda: torch.mm(x, weight.t()), lambda: _product(x, weight)]
        fastest = [float("inf")] * len(ways)
        for number in range(15):  # by turns, the first ones to warm up
            for place, run in enumerate(ways):
                begun = time.perf_counter()
                run()
                if number > 2:
                    fastest[place] = min(fastest[place], time.perf_counter() - begun)
    return fastest[0] > _CLEARLY * fastest[1]


def give_to_onednn(graph: GraphModule) -> int:
    """Let oneDNN compute the large products of a recorded step, in single precision on the CPU; returns how many.

    What the operands are must have been told to the nodes by `FakeTensorProp`.
    """
    aten, count = torch.ops.aten, 0
    for node in list(graph.graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
            continue
        *bias, x, right = node.args
        if not _is_large(x, right) or (bias and bias[0].meta["val"].shape != right.meta["val"].shape[1:]):
            continue
        with graph.graph.inserting_before(node):
            weight = graph.graph.call_function(aten.t.default, (right,))
            made = graph.graph.call_function(torch.ops.pyrovae.product.default, (x, weight, *bias))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
        count += 1
    graph.recompile()
    return count


def _is_large(x: Node, right: Node) -> bool:
    left, other = x.meta["val"], right.meta["val"]
    plain = left.dtype == other.dtype == torch.float32 and left.device.type == "cpu"
    return plain and left.numel() * other.shape[1] >= LARGE
