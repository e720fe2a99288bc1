"""What a recording of programs must not miss: it holds what they decide in Python as it was in one run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.infer.compiled_code import CompileError

_LOOKED_AT = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__)
"""How programs look at values behind torch's back, which no recording sees."""
_aten: Any = torch.ops.aten
Attributes = dict[tuple[int, str], Any]


def record(run: Callable[..., Any], example: Sequence[Tensor]) -> GraphModule:
    """Record the operations of a run, which leaves torch's random numbers where they are.

    Parameters
    ----------
    run : callable
        From tensors to tensors.
    example : sequence of Tensor
        What it is run with.

    Raises
    ------
    CompileError
        If the run looks at values in Python, if shapes depend on them, or if it draws random numbers that are not
        torch's.
    """

    def watched(*given: Tensor) -> Any:
        with RecordedFunctions(), _FixedShapes():
            return run(*given)

    with torch.random.fork_rng(), _no_other_generators():
        return make_fx(watched)(*example)


def difference(first: GraphModule, second: GraphModule) -> str:
    """Where two recordings of the same programs differ, in words; empty if they do not."""
    places: dict[Node, int] = {}
    for number, (one, other) in enumerate(zip_longest(first.graph.nodes, second.graph.nodes)):
        if one is None or other is None or one.op != other.op:
            return "other operations"
        if one.op == "get_attr":
            if not _same(getattr(first, str(one.target)), getattr(second, str(other.target))):
                return "another number"
        elif one.op == "call_function" and one.target is not other.target:
            return f"{other.target} in place of {one.target}"
        places[one] = places[other] = number
        if repr(_flat(one, places)) != repr(_flat(other, places)):
            return f"another number in {one.target}"
    return ""


def _flat(node: Node, places: dict[Node, int]) -> Any:
    if node.op == "get_attr":
        return None
    return torch.fx.node.map_arg((node.args, node.kwargs), lambda argument: f"node {places[argument]}")


def is_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one kind have the same bits, or NaN at the same places."""
    if torch.equal(first, second):
        return True
    return first.is_floating_point() and torch.allclose(first, second, rtol=0.0, atol=0.0, equal_nan=True)


def _same(first: Any, second: Any) -> bool:
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or first is second:
        return first is second
    return first.shape == second.shape and first.dtype == second.dtype and is_same(first, second)


def reason_of(error: Exception) -> str:
    """Why programs could not be recorded, in one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "a value of a tensor is needed in Python" if "_local_scalar_dense" in text else text


class RecordedFunctions(TorchFunctionMode):
    """Refuses looks at values, and makes one-hot vectors by comparison.

    `one_hot`, which one-hot categoricals draw with, looks at values in Python.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func in _LOOKED_AT:
            raise CompileError("a value of a tensor is needed in Python")
        return (_one_hot if func is F.one_hot else func)(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise ValueError("one_hot looks for the largest value in the tensor; give it num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


class _FixedShapes(TorchDispatchMode):
    """Refuses operations whose results have as many entries as values say: a program may ask how many these are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags:
            chosen = args[1] if func is _aten.index.Tensor else None
            if chosen is None or any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in chosen):
                raise CompileError(f"the shape of a tensor depends on values, by {func.overloadpacket}")
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_other_generators() -> Iterator[None]:
    """A context that refuses draws of the global generators of Python and NumPy, and takes them back."""
    generator: Any = np.random.mtrand._rand  # NumPy's functions draw from it
    of_python, of_numpy = random.getstate(), generator.get_state(legacy=False)
    yield
    ended = generator.get_state(legacy=False)
    if random.getstate() != of_python or repr(ended) != repr(of_numpy):
        random.setstate(of_python)
        generator.set_state(of_numpy)
        raise CompileError("the programs draw random numbers of Python's or NumPy's")


@contextmanager
def unchanged_attributes(vae: nn.Module) -> Iterator[None]:
    """A context that refuses a change of a plain attribute of a module, such as a count of runs, and takes it back."""
    before = plain_attributes(vae)
    yield
    name = changed_attribute(vae, before)
    if name:
        for module in vae.modules():
            vars(module).update({known: value for (at, known), value in before.items() if at == id(module)})
        raise CompileError(f"the programs change the attribute {name!r} in their run")


def changed_attribute(vae: nn.Module, before: Attributes) -> str:
    """The name of a plain attribute that has another value than before; empty if there is none."""
    now = plain_attributes(vae)
    return next((place[1] for place, value in now.items() if before.get(place, value) != value), "")


def plain_attributes(vae: nn.Module) -> Attributes:
    """Numbers and words that modules hold, by module and name; without the mode, which recordings are told by."""
    plain = (bool, int, float, str)
    return {
        (id(module), name): value
        for module in vae.modules()
        for name, value in vars(module).items()
        if isinstance(value, plain) and name != "training"
    }
