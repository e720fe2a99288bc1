"""Code made of a recorded step: which tensors it takes, how it is compiled, and where its gradients go."""

from __future__ import annotations

import contextvars
import hashlib
import importlib
import linecache
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node, graph_module
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.nn.parameter import is_lazy

from pyrovae.infer.bernoulli_loss import share_exponentials
from pyrovae.infer.compared import precision_of_products
from pyrovae.infer.compile_errors import CompileError
from pyrovae.infer.nodes import VIEWS, is_random, root_of
from pyrovae.infer.on_device import keep_draws, put_constants_on_device
from pyrovae.infer.products import give_to_onednn

logger = logging.getLogger(__name__)
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"fallback_random": True, "cpp_wrapper": True},
    "cuda": {"fallback_random": True},
}
"""Options of inductor by device: random numbers are torch's own; on the CPU the calls of kernels are compiled too."""
IN_ORDER = {"reorder_for_peak_memory": False}
"""A further option where there are several draws, which inductor would do in another order to save memory."""

_TRUSTED = "cpp.vec_isa_ok"
AT_MOST = 16
"""Codes that are kept for a graph that is the same. Each takes some memory, which torch keeps in part anyway."""
_LITERAL = 100  # numbers
_MADE: dict[tuple | None, Callable[..., Any]] = {}


def prepare_headers() -> threading.Thread | None:
    """Begin to compile the headers of torch beside other work. They take six seconds, once for all codes on the CPU.

    A compilation waits for them by itself. Python ends after the thread, so that nothing is left half written.

    Returns
    -------
    Thread or None
        What compiles them; None where there are some.
    """
    from torch._inductor import codecache, config  # a second that only those who compile wait for

    if any(Path(codecache._HEADER_DIR).glob("*.gch")):
        return None
    importlib.import_module("torch.utils.cpp_extension")  # by one thread, lest two import what stands on each other
    options = _options("cpu")

    def prepare() -> None:
        with suppress(Exception), config.patch(options):  # the compilation will meet it again, and say
            codecache.CppWrapperCodeCache.load_async("// the headers alone", "cpu", needs_vec_isa=True)

    beside = threading.Thread(target=contextvars.copy_context().run, args=(prepare,), daemon=False)
    beside.start()
    return beside


@contextmanager
def leaving_no_source() -> Iterator[None]:
    """A context that forgets the text of the graphs made in it, which torch keeps for tracebacks as long as it runs."""
    kept: dict[str, str] = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    before = set(kept)
    try:
        yield
    finally:
        for name in kept.keys() - before:
            del kept[name]
            linecache.cache.pop(name, None)


class CompiledStep(NamedTuple):
    """Compiled code, and where its gradients belong."""

    code: Callable[..., Any]
    """From trained tensors, the other ones, KL weight and data to the loss and its gradients."""
    places: list[tuple[int, bool]]
    """For each gradient the place of its tensor among the trained ones, and whether it must be copied."""
    without: list[int]
    """Places of trained tensors that the loss does not depend on."""


class Slots:
    """The tensors of a module, looked up without a walk over its parts in every step.

    Trained are parameters that require gradients, and the rows of tables that were picked for a batch.

    Parameters
    ----------
    module : nn.Module
        The module.

    Attributes
    ----------
    trained_names, kept_names : list of str
        The names of the tensors that are trained and those of the other ones.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.trained_names: list[str] = []
        self.kept_names: list[str] = []
        self._all: list[tuple[str, dict[str, Any], str]] = []
        self._trained: list[tuple[dict[str, Any], str]] = []
        self._kept: list[tuple[dict[str, Any], str]] = []
        self._signature: tuple = ()
        self.refresh()

    def refresh(self) -> None:
        """Look into the module anew, because it may have got other parts."""
        self._all, seen = [], set[int]()
        for prefix, part in self._module.named_modules():
            for values in (part._parameters, part._buffers):
                for name, value in values.items():
                    if value is None or id(value) not in seen:
                        seen.add(id(value))
                        self._all.append((f"{prefix}.{name}".lstrip("."), values, name))
        self._signature = self._look()
        self.trained_names, self.kept_names, self._trained, self._kept = [], [], [], []
        for (full, values, name), seen_as in zip(self._all, self._signature, strict=True):
            if seen_as is not None:
                (self.trained_names if seen_as[0] else self.kept_names).append(full)
                (self._trained if seen_as[0] else self._kept).append((values, name))

    def signature(self) -> tuple:
        """What tells one state of the module from another: which tensors there are, of which kind, which are trained.

        Compiled code looks at none of that itself, and would read the memory of another kind of tensor as if it fitted.
        """
        if self._look() != self._signature:
            self.refresh()
        return self._signature

    def _look(self) -> tuple:
        return tuple(_kind_of(values.get(name)) for _, values, name in self._all)

    def places(self) -> list[tuple[dict[str, Any], str]]:
        """Where the module keeps the tensors, the trained ones first."""
        return [*self._trained, *self._kept]

    def trained(self) -> list[Tensor]:
        """The tensors whose gradients are asked for."""
        return [values[name] for values, name in self._trained]

    def kept(self) -> list[Tensor]:
        """All other tensors."""
        return [values[name] for values, name in self._kept]


def check_constants(graph: GraphModule) -> None:
    """Refuse a graph that has a learned tensor in it, because there it would stay as it is now.

    Raises
    ------
    CompileError
        If there is one.
    """
    for node in graph.graph.nodes:
        value = getattr(graph, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(value, Tensor) and value.requires_grad:
            raise CompileError(
                f"the programs use a parameter of shape {tuple(value.shape)} that the VAE does not know; name its "
                "module in the programs, register it with pyro.module, or train without compilation"
            )


def must_be_copied(graph: GraphModule, targets: Sequence[Tensor]) -> list[bool]:
    """Which gradients share memory with something else, or lie in memory in another order than their parameters."""
    output: Any = next(node for node in graph.graph.nodes if node.op == "output")
    nodes = output.args[0][1:]
    bases = [root_of(node) for node in nodes]
    return [
        base.op != "call_function"
        or bases.count(base) > 1
        or not lies_like(node.meta["val"].stride() if "val" in node.meta else node.meta["tensor_meta"].stride, target)
        for node, base, target in zip(nodes, bases, targets, strict=True)
    ]


def lies_like(strides: Sequence[int], target: Tensor) -> bool:
    """Whether memory with these strides has the order of a tensor.

    Those of dimensions of size 1 mean nothing, but fused optimizers of a GPU look at them all the same.
    """
    both = zip(target.shape, strides, target.stride(), strict=True)
    return all(own == other or (size == 1 and not target.is_cuda) for size, own, other in both)


def compiled(graph: GraphModule, example: list[Any], backend: str, *, onednn: bool = False) -> Callable[..., Any]:
    """Compiled code for a graph, with torch's own random numbers, and large products by oneDNN if that is asked for.

    Raises
    ------
    CompileError
        If there is no compiler, or it fails.
    """
    put_constants_on_device(graph)
    if backend == "eager":
        simplify(graph)
        if onednn and torch.backends.mkldnn.is_available():
            give_to_onednn(graph)
        return graph.forward
    try:
        if backend != "inductor":
            return torch.compile(graph, backend=backend)
        # Both are a second that only those who compile wait for. The latter changes filters of warnings.
        from torch._inductor import compile as compile_graph
        from torch._inductor import config
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        def by_inductor(options: dict[str, Any]) -> Any:
            with warnings.catch_warnings(action="ignore"):  # advice for its developers, and on precision
                return compile_graph(graph, example, options=options)

        device = next((value.device.type for value in example if value.device.type in OPTIONS), "cpu")
        if device == "cpu":
            share_exponentials(graph)
        else:
            keep_draws(graph)
        for node in graph.graph.nodes:  # strides of recorded and of real tensors may differ
            if node.target is torch.ops.aten.view.default:
                node.target = torch.ops.aten.reshape.default
        graph.recompile()
        # Shapes are known, but without an environment for others inductor does not look into its cache.
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
        FakeTensorProp(graph, mode).propagate(*example)  # one mode for all nodes
        if onednn and torch.backends.mkldnn.is_available():
            give_to_onednn(graph)
        options = _options(device)
        if sum(map(is_random, graph.graph.nodes)) > 1:
            options |= {name: value for name, value in IN_ORDER.items() if hasattr(config, name)}  # from torch 2.6 on
        identity = _identity(graph, example, options)
        code = _MADE.pop(identity, None)
        try:
            code = code or by_inductor(options)
        except Exception as error:
            unloaded = isinstance(error, ImportError | OSError)
            if not (unloaded and forgets_broken_library(error)):
                refused = unloaded or "CppCompileError" in f"{type(error).__name__} {error}"  # others may wrap it
                if not refused or _TRUSTED not in options:
                    raise
                _forget_instructions()
                options = {name: value for name, value in options.items() if name != _TRUSTED}
            code = by_inductor(options)
        for node in graph.graph.nodes:  # the code holds on to the graph
            node.meta.clear()
        if identity is not None:
            _MADE[identity] = code  # the last one is the last to go
            if len(_MADE) > AT_MOST:
                del _MADE[next(iter(_MADE))]
        return code
    except Exception as error:  # whatever inductor trips over
        if "InvalidCxxCompiler" in f"{type(error).__name__} {error}":
            raise CompileError("compilation needs a C++ compiler (g++ or clang) on this machine") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(f"{backend} cannot compile what was recorded ({reason}); go on without it") from error


def simplify(graph: GraphModule) -> None:
    """Take out what nobody reads, and operations that give their argument as it is."""
    graph.graph.eliminate_dead_code()  # which leaves draws and changes in place
    for node in list(graph.graph.nodes):
        if node.target in VIEWS and isinstance(node.args[0], Node):
            before, after = _kind_of_node(node.args[0]), _kind_of_node(node)
            if before is not None and before == after:
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
    graph.recompile()


def _kind_of_node(node: Node) -> tuple | None:
    value = node.meta.get("val")
    return None if value is None else (value.shape, value.stride())


def _identity(graph: GraphModule, example: list[Tensor], options: Mapping[str, Any]) -> tuple | None:
    """All that the code of a graph depends on; None of a graph that holds tensors which others may write to.

    Small tensors that are copied before anything else are numbers of the programs, which are told by their values.
    """
    literals = []
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        value = getattr(graph, str(node.target))
        copied = all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users)
        if not isinstance(value, Tensor) or not copied or value.numel() > _LITERAL:
            return None
        setattr(graph, str(node.target), value.detach().clone())  # its memory may be an array's
        literals.append((node.target, _kind_of(value), repr(value.tolist())))
    from torch._inductor import config

    settings = (
        *(torch.get_num_threads(), torch.get_default_dtype(), precision_of_products()),
        *(torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        *(config.get_hash(), *sorted(options.items())),
    )
    memory = [value.untyped_storage().data_ptr() for value in example]
    kinds = [(*(_kind_of(value) or ()), memory.index(place)) for value, place in zip(example, memory, strict=True)]
    return hashlib.sha256(graph.code.encode()).hexdigest(), tuple(kinds), tuple(literals), settings


def _options(device: str) -> dict[str, Any]:
    """Options of inductor.

    The vector instructions of the processor are taken for those that the compiler knows, unless the user has said how.
    Inductor would find that out by compiling and loading a program for each kind of them.
    """
    from torch._inductor import config

    trusts = device == "cpu" and config.cpp.vec_isa_ok is None
    return {**OPTIONS[device], **({_TRUSTED: True} if trusts else {})}


def _forget_instructions() -> None:
    """Let inductor try the vector instructions of the processor after all, because the compiler may not know them."""
    from torch._inductor import cpu_vec_isa

    known = [cpu_vec_isa.valid_vec_isa_list, *(type(one).__bool__ for one in cpu_vec_isa.supported_vec_isa_list)]
    for function in known:
        getattr(function, "cache_clear", lambda: None)()


def forgets_broken_library(error: Exception) -> bool:
    """Take a compiled library that cannot be loaded out of inductor's cache, where a compiler was killed writing it."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    path, found, _ = str(error).partition(".so:")
    library = Path(path + ".so")
    if not found or not library.is_file() or not library.resolve().is_relative_to(Path(cache_dir()).resolve()):
        return False
    logger.info("%s is broken, and compiled anew", library)
    library.unlink()
    return True


def _kind_of(value: Tensor | None) -> tuple | None:
    if value is None:
        return None
    if is_lazy(value):  # which has a shape once the module has run
        return (value.requires_grad,)
    return value.requires_grad, value.shape, value.stride(), value.dtype, value.device
