"""What a recording of programs must not miss: it holds what they decide in Python as it was in one run."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.infer.compile_errors import CompileError
from pyrovae.rng import forked

_LOOKED_AT = (Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.tolist, Tensor.__repr__)
"""How programs look at values behind torch's back, which no recording sees."""
_aten: Any = torch.ops.aten


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

    with forked(), _no_other_generators():
        return make_fx(watched)(*example)


def difference(first: GraphModule, second: GraphModule) -> str:
    """Where two recordings of the same programs differ, in words; empty if they do not."""
    places: dict[Node, int] = {}
    for number, (one, other) in enumerate(itertools.zip_longest(first.graph.nodes, second.graph.nodes)):
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


class RecordedFunctions(TorchFunctionMode):
    """Refuses looks at values, and makes one-hot vectors by comparison.

    `one_hot`, which one-hot categoricals draw with, looks at values in Python.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        places = [*args[1:], *(kwargs or {}).values()]
        splits = func in (torch.tensor_split, Tensor.tensor_split) and any(isinstance(one, Tensor) for one in places)
        if func in _LOOKED_AT or splits:
            raise CompileError("a value of a tensor is needed in Python")
        return (_one_hot if func is F.one_hot else func)(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:
        raise ValueError("one_hot looks for the largest value in the tensor; give it num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


class _FixedShapes(TorchDispatchMode):
    """Refuses operations whose results have as many entries as values say: a program may ask how many these are.

    Draws of a generator of the programs are refused, too: it would not move with a recording.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags or func.overloadpacket in _OF_OTHER_SHAPES:
            chosen = args[1] if func is _aten.index.Tensor else None
            if chosen is None or any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in chosen):
                raise CompileError(f"the shape of a tensor depends on values, by {func.overloadpacket}")
        if any(isinstance(value, torch.Generator) for value in (kwargs or {}).values()):
            raise CompileError("the programs draw from a generator of their own")
        return func(*args, **(kwargs or {}))


_OF_OTHER_SHAPES = (_aten._pack_padded_sequence, _aten._to_sparse, _aten._coalesce, _aten._nnz)


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
def unchanged_attributes(vae: nn.Module, *, deep: bool = False) -> Iterator[None]:
    """A context that refuses a change of a number or word that a module has, such as a count of runs, and puts it back.

    If it is to look deep, also one inside of containers, arrays and generators of random numbers, and of the variables
    that the user's functions name.
    """

    def seen() -> dict[tuple[int, str], Any]:
        return seen_of(vae) if deep else _attributes(vae, _plain)

    plain, before = _attributes(vae, _plain), seen()
    yield
    name = next((place[1] for place, look in seen().items() if repr(before.get(place, look)) != repr(look)), "")
    if name:
        for module in vae.modules():
            vars(module).update({known: value for (at, known), value in plain.items() if at == id(module)})
        raise CompileError(f"the programs change {name!r} in their run")


def seen_of(vae: nn.Module) -> dict[tuple[int, str], Any]:
    """What is seen of attributes of modules, and of variables that the user's functions name, by place and name."""
    return _attributes(vae, _look_of) | _outside(vae)


def _attributes(vae: nn.Module, look: Callable[[Any], Any]) -> dict[tuple[int, str], Any]:
    """What is seen of the attributes that users give to modules, by module and name."""
    found = {}
    for module in vae.modules():
        for name, value in vars(module).items():
            if name not in _OF_TORCH and not name.startswith("_pyro") and (seen := look(value)) is not None:
                found[id(module), name] = seen
    return found


def _outside(vae: nn.Module) -> dict[tuple[int, str], Any]:
    """What is seen of the global and enclosing variables that the user's functions name."""
    found: dict[tuple[int, str], Any] = {}
    functions = [one for module in vae.modules() for one in vars(module).values()]
    kinds = {base for kind in {*map(type, vae.modules())} for base in kind.__mro__ if _is_named_by_user(base)}
    functions += [one for kind in kinds for one in vars(kind).values()]
    for function in functions:
        if not isinstance(function, FunctionType) or not _is_named_by_user(function):
            continue
        for name in _names_in(function.__code__):
            found[id(function), name] = _look_of(function.__globals__.get(name))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            with suppress(ValueError):  # of a cell that is still empty
                found[id(function), name] = _look_of(cell.cell_contents)
    return {place: look for place, look in found.items() if look is not None}


def _is_named_by_user(of_module: Any) -> bool:
    """Whether a class or a function is of a module of the user's."""
    return str(of_module.__module__).partition(".")[0] not in ("torch", "pyro", "pyrovae", "builtins")


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else None


def _look_of(value: Any, depth: int = 0) -> Any:
    """What tells one state of a value from another; None where that is not known."""
    if isinstance(value, bool | int | float | complex | str | np.generic):
        return repr(value)
    if isinstance(value, itertools.count):
        return repr(value)
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes() if value.nbytes < _LARGE else len(value)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().tolist())
    if isinstance(value, list | tuple | set | frozenset | dict) and depth < _DEEP and len(value) < _LARGE:
        parts = value.items() if isinstance(value, dict) else value
        return type(value), [_look_of(part, depth + 1) for part in parts]
    return None


_OF_TORCH = frozenset(vars(nn.Module()))
_DEEP, _LARGE = 4, 100_000
