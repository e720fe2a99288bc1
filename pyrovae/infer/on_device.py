"""Recorded steps on a GPU: numbers of the programs lie there, and draws are those that torch makes there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyrovae.infer.nodes import changed_in_place

_aten: Any = torch.ops.aten
_AS_IT_IS = (_aten.lift_fresh_copy.default, _aten.lift_fresh.default, _aten.detach.default)
_LIBRARY = torch.library.Library("pyrovae", "FRAGMENT")


def _shape_of_bits(p: Tensor) -> Tensor:
    return torch.empty_like(p, memory_format=torch.contiguous_format)


if not hasattr(torch.ops.pyrovae, "bernoulli"):  # as when the module is loaded a second time
    _LIBRARY.define("bernoulli(Tensor p) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
    _LIBRARY.impl("bernoulli", torch.bernoulli, "CompositeExplicitAutograd")
    torch.library.register_fake("pyrovae::bernoulli", _shape_of_bits, lib=_LIBRARY)


def keep_draws(graph: GraphModule) -> None:
    """Let `torch.bernoulli` draw its bits itself: inductor compares uniform numbers, which are others on a GPU."""
    for node in list(graph.graph.nodes):
        if node.target is _aten.bernoulli.default and not node.kwargs:
            node.target = torch.ops.pyrovae.bernoulli.default
    graph.recompile()


def put_constants_on_device(graph: GraphModule) -> None:
    """Let numbers that the programs bring to a GPU lie there, instead of a copy in each step, for which it stops.

    Those that are changed in place before they are brought there stay as they are.
    """
    copies = [node for node in graph.graph.nodes if node.target is _aten._to_copy.default]
    moves = [node for node in copies if getattr(node.kwargs.get("device"), "type", "cpu") != "cpu"]
    if not moves:
        return
    changed = changed_in_place(graph.graph)
    for node in moves:
        device = node.kwargs["device"]
        source = node.args[0]
        while source not in changed and source.op == "call_function" and source.target in _AS_IT_IS:
            source = source.args[0]
        value = getattr(graph, str(source.target), None) if source.op == "get_attr" else None
        if source in changed or not isinstance(value, Tensor) or value.device == device:
            continue
        name = f"_on_device{len(graph._buffers)}"
        dtype = node.kwargs.get("dtype") or value.dtype
        graph.register_buffer(name, value.detach().to(device, dtype), persistent=False)
        with graph.graph.inserting_before(node):
            moved = graph.graph.get_attr(name)
            moved.meta.update(node.meta)
            copied = graph.graph.call_function(_aten.clone.default, (moved,))  # it may be changed in place
            copied.meta.update(node.meta)
        node.replace_all_uses_with(copied)
        graph.graph.erase_node(node)
    graph.recompile()
