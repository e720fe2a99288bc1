"""Log weights of many samples from a recorded run: handlers run once, and what no draw reaches is computed once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.overrides import TorchFunctionMode

from pyrovae.infer.compile_errors import CompileError, reason_of
from pyrovae.infer.compiled_code import compiled, leaving_no_source
from pyrovae.infer.nodes import changed_in_place, is_random
from pyrovae.infer.products import LARGE
from pyrovae.infer.recording import record, unchanged_attributes
from pyrovae.rng import forked

logger = logging.getLogger(__name__)
Weights = Callable[[Mapping[str, Tensor]], Tensor]
"""From the tensors of some rows to log weights `[K, B]`."""
Draw = Callable[[], tuple[Tensor, Tensor]]
"""Draws samples and scores them: log weights `[K, B]`, and whether all checks of distributions passed."""
Faster = Callable[[Graph, Node, Mapping[Node, Node]], Node | None]
_aten: Any = torch.ops.aten
_KEPT = 8  # recordings of a pair that are kept
_CANCELLING = 1e4  # nats from which on the difference of two sums loses a thousandth of a nat


class RecordedWeights:
    """The log weights of some rows, as the operations that one run of the programs makes.

    They are recorded once for all data of these shapes. What no random number reaches, the encoder's work for instance,
    is done in `started`, once for some rows; the rest in each call of what it returns. The random numbers are those of
    the programs, from the same state of torch's generators, and so are the log weights, up to rounding: large products
    of matrices on the CPU are those of oneDNN, which are up to twice as fast as those that torch takes.

    What the programs decide in Python is decided once. So a recording is used for some rows only if it gives, from the
    same random numbers, what a run of the programs on them gives (`Recordings.find`).

    Parameters
    ----------
    weights : callable
        Runs the programs: from tensors by name to log weights `[K, B]`.
    inputs : mapping of str to Tensor
        Tensors of these shapes.
    inductor : bool, default False
        Compile what is done for all samples.

    Raises
    ------
    CompileError
        If there is no compiler, or the programs need a value of a tensor in Python, or change a tensor in place that
        outlives the run.
    """

    @leaving_no_source()
    def __init__(self, weights: Weights, inputs: Mapping[str, Tensor], *, inductor: bool = False) -> None:
        names = [*inputs]

        def run(*given: Tensor) -> tuple[Tensor, Tensor]:
            with _Checks() as checks:
                found = weights(dict(zip(names, given, strict=True)))
            return found, checks.passed(found.device)

        with torch.no_grad():
            try:
                graph = record(run, [value.clone() for value in inputs.values()])
            except Exception as error:  # whatever the programs do with a tensor that has no value yet
                raise CompileError(reason_of(error)) from error
        # Inductor joins operations itself, so that it gets them as they are.
        self._before, body = _split(graph, (_product,) if inductor else (_product, _bernoulli, _no_nan))
        self._body: Callable[..., Any] = body
        if inductor:
            with torch.no_grad(), forked():
                self._body = compiled(body, [*self._before(*inputs.values())], "inductor")

    def started(self, inputs: Mapping[str, Tensor]) -> Draw:
        """What draws and scores samples of these rows."""
        with torch.no_grad():
            kept = self._before(*inputs.values())

        def call() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                return self._body(*kept)

        return call


class _Checks(TorchFunctionMode):
    """Collects what distributions check of their parameters and values, which recorded code must not look at."""

    def __init__(self) -> None:
        super().__init__()
        self._results: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is Tensor.data_ptr:  # behind which values may be read
            raise CompileError("a value of a tensor is needed in Python")
        if func is torch._is_all_true and isinstance(args[0], Tensor):
            self._results.append(args[0].all())
            return True
        return func(*args, **(kwargs or {}))

    def passed(self, device: torch.device) -> Tensor:
        """Whether all of them were fine."""
        results = [result.to(device) for result in self._results]
        return torch.stack(results).all() if results else torch.ones((), dtype=torch.bool, device=device)


def _split(whole: GraphModule, faster: Sequence[Faster]) -> tuple[GraphModule, GraphModule]:
    """What no random number reaches, with its results as outputs; and the rest, which takes these results.

    `faster` are ways to put another operation in place of one of the rest.
    """
    whole.graph.eliminate_dead_code()  # which leaves draws where they are
    varying, drawn = _varying(whole.graph), _reaching(whole.graph, is_random)
    before, body = Graph(), Graph()
    copies: dict[Node, Node] = {}
    for node in whole.graph.nodes:
        if node.op != "output" and node not in varying:
            copies[node] = before.node_copy(node, copies.__getitem__)
    kept = [node for node in copies if any(user in varying or user.op == "output" for user in node.users)]
    before.output(tuple(copies[node] for node in kept))
    inside = {node: body.placeholder(f"kept{place}") for place, node in enumerate(kept)}
    for node in whole.graph.nodes:
        if node in varying:
            made = (make(body, node, inside) for make in faster if node not in drawn)
            copied = next((new for new in made if new is not None), None)
            inside[node] = body.node_copy(node, inside.__getitem__) if copied is None else copied
        elif node.op == "output":
            found, passed = (inside[part] for part in node.args[0])
            for check in [one for one in body.nodes if "check" in one.meta]:
                passed = body.call_function(_aten.logical_and.default, (passed, check))
            body.output((found, passed))
    body.eliminate_dead_code()
    return GraphModule(whole, before), GraphModule(whole, body)


# Faster operations in place of a node of the recording, or None. They round otherwise, so that those that decide what
# is drawn stay as they are.


def _product(body: Graph, node: Node, inside: Mapping[Node, Node]) -> Node | None:
    """A large product of matrices by oneDNN."""
    if node.target not in (_aten.addmm.default, _aten.mm.default) or node.kwargs or not _has_onednn():
        return None
    arguments: Any = node.args
    *bias, left, right = arguments
    values = [_example(value) for value in (*bias, left, right)]
    plain = all(value is not None and value.device.type == "cpu" and value.dtype == torch.float32 for value in values)
    if not plain or (bias and values[0].shape != values[-1].shape[1:]):
        return None
    (rows, inner), columns = values[-2].shape, values[-1].shape[1]
    if rows * inner * columns < LARGE:
        return None
    turned = body.call_function(_aten.t.default, (inside[right],))
    operands = (inside[left], turned, *(inside[value] for value in bias))
    return body.call_function(torch.ops.pyrovae.product.default, operands)


def _bernoulli(body: Graph, node: Node, inside: Mapping[Node, Node]) -> Node | None:
    """Bernoulli log-probabilities of samples of rows, summed over entries: `x . l - sum softplus(l)`.

    The first term is a product of matrices, and there are no buffers as in torch's cross-entropy.
    """
    if node.target is not _aten.sum.dim_IntList or node.args[1:] != ([-1],) or node.kwargs:
        return None
    flat: Any = node.args[0]
    negative = flat.args[0] if flat.target is _aten.view.default else flat
    entropy = negative.args[0] if negative.target is _aten.neg.default else None
    entropies = _aten.binary_cross_entropy_with_logits.default
    if entropy is None or entropy.target is not entropies or entropy.args[2:] != (None, None, 0):
        return None
    logits: Any
    values: Any
    logits, values = entropy.args[:2]
    of_logits, of_values = _example(logits), _example(values)
    if of_logits.dim() < 3 or of_logits.shape != of_values.shape or of_values.stride(0):
        return None
    samples, rows = of_logits.shape[:2]
    if _example(node).shape != (samples, rows):
        return None
    add = body.call_function
    sums: Any = node.target
    by_row = add(_aten.reshape.default, (inside[logits], [samples, rows, -1]))
    each = add(_aten.reshape.default, (add(_aten.select.int, (inside[values], 0, 0)), [rows, 1, -1]))
    product = add(_aten.bmm.default, (each, add(_aten.permute.default, (by_row, [1, 2, 0]))))
    first = add(_aten.t.default, (add(_aten.select.int, (product, 1, 0)),))
    second = add(sums, (add(_aten.softplus.default, (by_row,)), [-1]))
    exact = add(_aten.le.Scalar, (add(_aten.amax.default, (second,)), _CANCELLING))
    exact.meta["check"] = True
    return add(_aten.sub.Tensor, (first, second))


def _no_nan(body: Graph, node: Node, inside: Mapping[Node, Node]) -> Node | None:
    """A check for NaN by way of the sum, which is NaN too, instead of a comparison of each number with itself.

    Infinite numbers of both signs fail it too. A failed check leads to a run of the programs, which decide.
    """
    (same,) = node.args if node.target is _aten.all.default else (None,)
    if not isinstance(same, Node) or same.target is not _aten.eq.Tensor or same.args[0] is not same.args[1]:
        return None
    checked: Any = same.args[0]
    if not _example(checked).is_floating_point():
        return None
    total = body.call_function(_aten.sum.default, (inside[checked],))
    equal: Any = same.target
    return body.call_function(equal, (total, total))


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


def _example(node: Any) -> Any:
    """What is known of the tensor of a node."""
    if not isinstance(node, Node):
        return None
    return node.meta.get("val", None)


def _varying(graph: Graph) -> set[Node]:
    """The nodes that a random number reaches, and those whose tensors are changed in place.

    Raises
    ------
    CompileError
        If an input or a constant is changed in place.
    """
    roots = changed_in_place(graph)
    if any(node.op in ("placeholder", "get_attr") for node in roots):
        raise CompileError("the programs change a tensor in place that outlives their run")
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op != "output" and (node in roots or is_random(node) or not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


def _reaching(graph: Graph, wanted: Callable[[Node], bool]) -> set[Node]:
    """The nodes whose results reach one that is wanted."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if wanted(node) or not found.isdisjoint(node.users):
            found.add(node)
    return found


class Recordings:
    """The recordings of a pair, by what they are good for. They count for one call, between two of which it may change.

    Parameters
    ----------
    vae : Module
        The pair.
    """

    def __init__(self, vae: nn.Module) -> None:
        self.vae = vae
        self._found: dict[Any, RecordedWeights | str] = {}  # or why there is none
        self._told: set[str] = set()

    def find(
        self,
        weights: Weights,
        count: int,
        inputs: Mapping[str, Any],
        agrees: Callable[[Draw], bool],
        *,
        inductor: bool = False,
    ) -> Draw | str:
        """What draws and scores samples of some rows, or why the programs cannot be recorded, with a log line.

        Parameters
        ----------
        weights : callable
            Runs the programs: from tensors by name to log weights `[K, B]`.
        count : int
            Samples K.
        inputs : mapping of str to object
            The rows.
        agrees : callable
            Whether a recording gives for these rows what the programs give.
        inductor : bool, default False
            Compile it.
        """
        other = [name for name, value in inputs.items() if not isinstance(value, Tensor)]
        if other:
            return f"{other[0]!r} is no tensor"
        kinds = ((name, v.shape, v.stride(), v.dtype, v.device) for name, v in inputs.items())
        key = count, inductor, torch.distributions.Distribution._validate_args, *kinds
        for _ in range(2):  # a recording for other rows may hold what a program took from these in Python
            known = key in self._found
            recorded = self._found[key] if known else self._record(key, weights, inputs, inductor)
            if isinstance(recorded, str):
                return recorded
            draw = recorded.started(inputs)
            if agrees(draw):
                return draw
            del self._found[key]
            if not known:
                break
        return self._refused(key, "a recording gives other log weights than they do, from the same random numbers")

    def _record(
        self, key: Any, weights: Weights, inputs: Mapping[str, Tensor], inductor: bool
    ) -> RecordedWeights | str:
        while len(self._found) >= _KEPT:
            self._found.pop(next(iter(self._found)))
        if inductor:
            logger.info("compiling the likelihood for %d rows: some ten seconds, less the next time", len(inputs["x"]))
        try:
            with unchanged_attributes(self.vae):
                self._found[key] = made = RecordedWeights(weights, inputs, inductor=inductor)
        except CompileError as error:
            return self._refused(key, str(error))
        return made

    def _refused(self, key: Any, reason: str) -> str:
        if reason not in self._told:
            logger.info("the programs are run for all samples: %s", reason)
        self._told.add(reason)
        self._found[key] = reason
        return reason


_SHARED: ContextVar[Recordings | None] = ContextVar("recordings", default=None)


@contextmanager
def sharing_recordings(vae: nn.Module) -> Iterator[None]:
    """A context in which the calls for a pair, which nothing may change meanwhile, share their recordings."""
    token = _SHARED.set(Recordings(vae))
    try:
        yield
    finally:
        _SHARED.reset(token)


def recordings(vae: nn.Module) -> Recordings:
    """The recordings for a call: its own ones, unless several calls share theirs."""
    shared = _SHARED.get()
    return shared if shared is not None and shared.vae is vae else Recordings(vae)
