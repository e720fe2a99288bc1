"""What the nodes of a recorded step are."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

_aten: Any = torch.ops.aten
VIEWS = (_aten.view.default, _aten.reshape.default, _aten.expand.default, _aten.detach.default)
"""Operations that give their argument as it is, where its shape stays."""


def value_of(node: Node) -> Any:
    """What is known of the tensor of a node, its shape and type, from propagation or from its recording."""
    return node.meta.get("val", node.meta.get("tensor_meta"))


def root_of(node: Node) -> Node:
    """The node whose memory a view, or a chain of them, looks at; views may be one of several results."""
    while node.op == "call_function" and node.args and isinstance(source := node.args[0], Node):
        made = source if node.target is operator.getitem else node
        returns = getattr(getattr(made.target, "_schema", None), "returns", ())
        if not any(value.alias_info is not None for value in returns):
            break
        node = source
    return node


def is_random(node: Node) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def changed_in_place(graph: Graph) -> set[Node]:
    """The nodes whose tensors a recording changes in place, by a chain of views as well."""
    return {root_of(node) for changing in graph.nodes for node in _changed_by(changing)}


def _changed_by(node: Node) -> Iterator[Node]:
    """The nodes whose tensors an operation changes in place."""
    for place, argument in enumerate(getattr(getattr(node.target, "_schema", None), "arguments", ())):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            for changed in value if isinstance(value, list | tuple) else [value]:
                if isinstance(changed, Node):
                    yield changed
