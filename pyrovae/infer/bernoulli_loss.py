"""Log-likelihoods of recorded Bernoulli variables with one exponential for value and gradient, and few logarithms."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyrovae.infer.nodes import VIEWS, changed_in_place, root_of, value_of

AT_LEAST, AT_MOST = 8, 64
"""Factors between 1 and 2 that are multiplied before a logarithm is taken: their product is far below overflow."""
_aten: Any = torch.ops.aten
_RESHAPES = (_aten.view.default, _aten.reshape.default)


def share_exponentials(graph: GraphModule) -> int:
    r"""Rewrite log-likelihoods of Bernoulli variables in a recorded step on the CPU; returns how many.

    With :math:`e = \exp(-|l|)` of a logit :math:`l`, the probability is 1 or :math:`e` over :math:`1 + e`, and the
    negative log-likelihood of :math:`x` is :math:`(1 - x) l - \min(l, 0) + \log(1 + e)`. A sum over pixels of these
    logarithms is one of the logarithms of products, of as many factors each as divide the pixels, at most `AT_MOST`.
    What a factor loses by rounding, :math:`e - ((1 + e) - 1)`, is added. Probabilities that are asked for before the
    log-likelihood of their logits, as draws do, stay what they are bit for bit. Logits that the step changes in place
    are left alone.
    """
    count, changed = 0, changed_in_place(graph.graph)
    for node in list(graph.graph.nodes):
        if node.target is not _aten.binary_cross_entropy_with_logits.default or not _is_plain(node):
            continue
        x, root, call = node.args[1], _source(node.args[0]), graph.graph.call_function
        if root_of(root) in changed:
            continue
        with graph.graph.inserting_before(node):
            small = call(_aten.exp.default, (call(_aten.neg.default, (call(_aten.abs.default, (root,)),)),))
            whole = call(_aten.add.Tensor, (small, 1.0))
            of_zeros = call(_aten.mul.Tensor, (call(_aten.rsub.Scalar, (x, 1.0)), root))
            linear = call(_aten.sub.Tensor, (of_zeros, call(_aten.clamp_max.default, (root, 0.0))))
        _rewrite_probabilities(graph, node, root, small, whole)
        total = _sum_over_last(node)
        size = 0 if total is None else _largest_divisor(_shape(total.args[0])[-1])
        if total is None or size < AT_LEAST:
            with graph.graph.inserting_before(node):
                made = call(_aten.add.Tensor, (linear, call(_aten.log1p.default, (small,))))
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
        else:
            shape = _shape(total.args[0])
            with graph.graph.inserting_before(total):
                lost = call(_aten.sub.Tensor, (small, call(_aten.sub.Tensor, (whole, 1.0))))
                entries = call(_aten.reshape.default, (call(_aten.add.Tensor, (linear, lost)), shape))
                factors = call(_aten.reshape.default, (whole, [*shape[:-1], shape[-1] // size, size]))
                logarithms = call(_aten.log.default, (call(_aten.prod.dim_int, (factors, -1)),))
                sums = [call(_aten.sum.dim_IntList, (part, [-1])) for part in (entries, logarithms)]
                made = call(_aten.neg.default, (call(_aten.add.Tensor, tuple(sums)),))
            made.meta = dict(total.meta)
            total.replace_all_uses_with(made)
        count += 1
    if count:
        graph.graph.eliminate_dead_code()  # which leaves draws and changes in place
        graph.recompile()
    return count


def _rewrite_probabilities(graph: GraphModule, after: Node, root: Node, small: Node, whole: Node) -> None:
    """Let the probabilities that are asked for after a node come from the exponential that it has."""
    call, later = graph.graph.call_function, False
    for node in list(graph.graph.nodes):
        later = later or node is after
        if later and node.target is _aten.sigmoid.default and _source(node.args[0]) is root:
            with graph.graph.inserting_before(node):
                positive = call(_aten.ge.Scalar, (root, 0))
                above = call(_aten.where.ScalarSelf, (positive, 1.0, small))
                made = call(_aten.div.Tensor, (above, whole))
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)


def _is_plain(node: Node) -> bool:
    """Whether a node gives the loss of each entry, in place of a mean or a sum, and unweighted."""
    logits, x, *others = node.args
    value, other = (value_of(one) if isinstance(one, Node) else None for one in (logits, x))
    if others != [None, None, 0] or node.kwargs or value is None or other is None:
        return False
    floating = value.dtype in (torch.float32, torch.float64) and value.dtype == other.dtype
    return floating and value.shape == other.shape


def _sum_over_last(node: Node) -> Node | None:
    """The sum over the last dimension, or over several that were made one, which is all that is done with a loss."""
    summed = _only_user(node, _aten.neg.default)
    if summed is None:
        return None
    summed = _only_user(summed, *_RESHAPES) or summed
    total = _only_user(summed, _aten.sum.dim_IntList)
    if total is None or [*total.args[1:]] != [[-1]] or total.kwargs:
        return None
    before, after = _shape(node), _shape(summed)
    return total if after and before[: len(after) - 1] == after[:-1] else None


def _only_user(node: Node, *targets: Any) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in targets else None


def _source(node: Any) -> Any:
    """The node behind views that give a tensor of the same shape."""
    while isinstance(node, Node) and node.target in VIEWS and isinstance(node.args[0], Node):
        before, after = value_of(node.args[0]), value_of(node)
        if before is None or after is None or before.shape != after.shape:
            break
        node = node.args[0]
    return node


def _shape(node: Any) -> list[int]:
    return [*value_of(node).shape]


def _largest_divisor(number: int) -> int:
    return max(size for size in range(1, AT_MOST + 1) if number % size == 0)
