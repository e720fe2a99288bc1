"""A training step whose programs run once: the loss and its gradients as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.fx import GraphModule

from pyrovae import programs
from pyrovae.infer import products
from pyrovae.infer.bound_loss import BoundLoss, known_labels, like
from pyrovae.infer.compared import (
    Generators,
    Result,
    copies,
    difference_of,
    full_precision,
    gradients_of,
    put_back,
)
from pyrovae.infer.compile_errors import WHY, CompileError, place_of, reason_of, running
from pyrovae.infer.compiled_code import (
    CompiledStep,
    Slots,
    check_constants,
    compiled,
    leaving_no_source,
    lies_like,
    must_be_copied,
    prepare_headers,
)
from pyrovae.infer.nodes import changed_in_place
from pyrovae.infer.objective import Objective
from pyrovae.infer.pair_step import PairStep, loss_and_gradients
from pyrovae.infer.pyro_elbos import PyroLoss
from pyrovae.infer.recording import difference, record, seen_of, unchanged_attributes
from pyrovae.rng import forked

if TYPE_CHECKING:
    from pyrovae.vae import VAE

TRIALS = 3
"""Steps of which one must give what the programs give, up to rounding, before compiled code is used."""


class CompiledLoss:
    r"""Loss and gradients of a pair under an objective, as compiled code.

    For every shape of the data, model and guide run once, with their effect handlers, while every tensor operation is
    recorded together with its derivative; what is recorded is handed to `torch.compile`, and from then on no Python of
    the pair runs. Draws are recorded as operations and stay random. They are those of the uncompiled objective from the
    same state of torch's generator, so that both ways of training agree up to rounding.

    What a program decides in Python is decided once for each shape: a branch on values of data or parameters makes
    tracing fail, and so do counts of runs, as far as attributes, variables of the functions and a second recording show
    them. What is changed later from outside, a number of a module for instance, has no effect: `compared` tells. The
    Trainer compares the programs with what was recorded in some steps. Arguments of distributions are not checked.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    objective : ELBO
        An objective of this library; or one of Pyro that `PyroLoss` knows, `Trace_ELBO` for instance.
    num_data : int, optional
        Rows of all data. Latents outside the plate over the data then count by the share of a batch, see
        `MinibatchScale`.
    per_row : bool, default False
        Give the gradients of the mean loss per row. The loss remains the sum.
    weighted : bool, default False
        Take the KL weight 1 as any other one. A weight that varies then needs one graph instead of two.
    backend : str, default "inductor"
        Of `torch.compile`; "inductor" writes and compiles C++ or Triton code, "eager" runs what was recorded.
    onednn : bool, optional
        Let oneDNN multiply large matrices on the CPU. It rounds otherwise than torch's own products. None tries which
        is faster on this processor; the attribute of the same name then tells what was found.

    Attributes
    ----------
    labels : tuple of bool or None
        What `known_labels` tells of all batches, where that is known; None looks at the labels of each.

    Raises
    ------
    CompileError
        For another objective, which may read numbers out of tensors as it goes, and for a pair with parameters of
        modules that only its programs know; when called, if the programs cannot be traced, or there is no compiler on
        this machine.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from torch import nn
    >>> from pyrovae import VAE
    >>> from pyrovae.infer import IWAE
    >>> linear = nn.Linear(1, 1)
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(pyro.module("linear", linear)(x), 0.7).to_event(1))
    >>> x = torch.randn(8, 1)
    >>> step = CompiledLoss(VAE(model, guide, example=x), IWAE(5), backend="eager")
    >>> step(x).shape, linear.weight.grad.shape
    (torch.Size([]), torch.Size([1, 1]))
    """

    def __init__(
        self,
        vae: VAE,
        objective: ELBO,
        *,
        num_data: int | None = None,
        per_row: bool = False,
        weighted: bool = False,
        backend: str = "inductor",
        onednn: bool | None = None,
    ) -> None:
        followed = PyroLoss(objective) if PyroLoss.is_known(objective) else objective
        if not isinstance(followed, Objective | PyroLoss):
            raise CompileError(
                f"{type(objective).__name__} cannot be compiled; objectives of this library can, and of those of Pyro "
                "Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO and TraceEnum_ELBO themselves (not their subclasses)"
            )
        if vae.has_hidden_modules:
            raise CompileError(
                f"{programs.describe(vae.model)} and its guide work with modules that cannot be found from outside, in "
                "a list or behind another function; name them in the programs, or write the pair as modules, to compile"
            )
        self.onednn = products.is_faster() if onednn is None else onednn
        self._step = PairStep(vae, followed, num_data)
        self._per_row, self._weighted, self._backend = per_row, weighted, backend
        self._slots = Slots(self._step)
        self._compiled: dict[Any, CompiledStep] = {}
        self._weight: tuple[Any, Tensor] | None = None
        self.labels: tuple[bool, ...] | None = None

    def __call__(self, x: Tensor, beta: float | Tensor = 1.0, /, **data: Tensor) -> Tensor:
        """The loss of a batch, its gradients being put into the parameters: a scalar, summed over the rows, in nats.

        Parameters
        ----------
        x : Tensor
            A batch of data, `[B, ...]`.
        beta : float or Tensor, default 1.0
            Weight of the KL term. A scalar tensor is what the code itself reads.
        **data : Tensor
            Further tensors for the programs, such as `mask`.
        """
        inputs = {"x": x, **data}
        step = self._compiled.get(self._key(inputs, beta)) or self._compile(inputs, beta)
        with torch.no_grad():
            loss, *gradients = step.code(*self._arguments(inputs, beta))
            targets = self._slots.trained()
            for (place, copied), gradient in zip(step.places, gradients, strict=True):
                targets[place].grad = like(targets[place], gradient) if copied else gradient
            for place in step.without:
                targets[place].grad = None
        return loss

    def bound(self, x: Tensor, beta: float = 1.0, /, **data: Tensor) -> BoundLoss | None:
        """What a call does for batches like this one, without its looks at what may have changed since the last call.

        None for batches that nothing is compiled for yet. Nothing but the values of tensors may change as long as it is
        in use: no parameter, buffer or module is assigned anew, modes and shapes stay, as does what is trained, and
        what `known_labels` tells of the batches.
        """
        step = self._compiled.get(self._key({"x": x, **data}, beta))
        return None if step is None else BoundLoss(self, step)

    def prepare(self, x: Tensor, beta: float = 1.0, /, **data: Tensor) -> None:
        """Compile for batches like this one; changes no parameter, gradient, buffer or random number of torch.

        Raises
        ------
        CompileError
            If the pair cannot be compiled, or if what is recorded of it gives something else than its programs.
        """
        inputs = {"x": x, **data}
        with forked():
            self._compile(inputs, beta)
            slots, held = self._slots.places(), self.tensors()
            before, gradients = copies(held), [value.grad for value in held]
            try:
                for _ in range(TRIALS):  # rounding may turn a draw into another one, but not each time
                    with running():
                        _, differs = self.compared(x, beta, **data)
                    if not differs:
                        break
                else:
                    raise CompileError(f"the pair cannot be compiled: {differs}{WHY}")
            finally:
                put_back(slots, held, before)
                for value, gradient in zip(held, gradients, strict=True):
                    value.grad = gradient

    def compared(self, x: Tensor, beta: float = 1.0, /, **data: Tensor) -> tuple[Tensor, str]:
        """A call, and a run of the programs from the same state beside it, which leaves nothing behind.

        Parameters
        ----------
        x, beta, **data
            As for a call.

        Returns
        -------
        Tensor, str
            The loss; and in words where the programs differ from what was recorded by more than rounding. It is empty
            if they do not.
        """
        inputs, generators = {"x": x, **data}, Generators(x.device)
        weighted = self._key(inputs, beta)[0]  # looks for tensors that have changed
        slots, held, count = self._slots.places(), self.tensors(), len(self._slots.trained())
        before, drawn = copies(held), generators.state()
        loss = self(x, beta, **data)
        after, then, gradients = copies(held), generators.state(), [value.grad for value in held[:count]]
        ours = Result(loss, gradients, after)
        put_back(slots, held, before)
        generators.set(drawn)
        try:
            with full_precision() if x.is_cuda else nullcontext():
                if x.is_cuda:  # another call, since the step itself is as precise as all others
                    again = self(x, beta, **data)
                    ours = Result(again, [value.grad for value in held[:count]], copies(held))
                    put_back(slots, held, before)
                    generators.set(drawn)
                weight = self._arguments(inputs, beta)[len(held)] if weighted else None
                with torch.enable_grad():
                    own = self._step(weight, inputs)
                    theirs = gradients_of(own / len(x) if self._per_row else own, held[:count])
                now = [where[name] for where, name in slots]
                by_programs = Result(own.detach(), theirs, copies(now))
        finally:
            put_back(slots, held, after)
            generators.set(then)
            for value, gradient in zip(held, gradients, strict=False):
                value.grad = gradient
        names = [*self._slots.trained_names, *self._slots.kept_names]
        return loss, difference_of(ours, by_programs, names, count, len(x), x.numel())

    def standing(self, x: Tensor, beta: float | Tensor = 1.0, /, **data: Tensor) -> tuple:
        """Which code a call runs, and where the tensors of the pair lie. Equal ones may differ in values alone."""
        key = self._key({"x": x, **data}, beta)
        return key, tuple(value.data_ptr() for value in self.tensors())

    def seen(self) -> str:
        """What is seen of numbers and words that the programs may look at; a recording holds them as they were."""
        return repr(seen_of(self._step))

    def tensors(self) -> list[Tensor]:
        """The tensors of the pair and of the objective, which calls read and may change."""
        return [*self._slots.trained(), *self._slots.kept()]

    def _key(self, inputs: Mapping[str, Tensor], beta: float | Tensor) -> tuple:
        """What a graph is good for; a weight of exactly 1 needs no handler, unless it is one of several."""
        for name, value in inputs.items():
            if not isinstance(value, Tensor):
                raise CompileError(
                    f"the argument {name!r} is a {type(value).__name__}, and compiled steps take tensors alone; make "
                    "it an attribute of the programs, or train without compilation"
                )
        shapes = tuple((name, value.shape, value.stride(), value.dtype, value.device) for name, value in inputs.items())
        weighted = self._weighted or isinstance(beta, Tensor) or beta != 1
        return weighted, self._step.vae.training, self._slots.signature(), shapes, self._known_labels(inputs.get("y"))

    def _known_labels(self, y: Any) -> tuple[bool, ...]:
        return known_labels(y) if self.labels is None else self.labels

    @contextmanager
    def knowing(self, y: Any) -> Iterator[None]:
        """A context of calls for a batch with these labels, which are then looked at once: a GPU is waited for."""
        before, self.labels = self.labels, self._known_labels(y)
        try:
            yield
        finally:
            self.labels = before

    def _arguments(self, inputs: Mapping[str, Tensor], beta: float | Tensor) -> list[Tensor]:
        """What a graph takes: trained tensors, the other ones, KL weight and data."""
        return [*self.tensors(), self._weight_of(beta, inputs["x"]), *map(_dense, inputs.values())]

    def _weight_of(self, beta: float | Tensor, x: Tensor) -> Tensor:
        """The KL weight as a tensor; the last one is kept."""
        if isinstance(beta, Tensor):
            return beta
        if self._weight is None or self._weight[0] != (beta, x.dtype, x.device):
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            self._weight = (beta, x.dtype, x.device), torch.full((), beta, dtype=dtype, device=x.device)
        return self._weight[1]

    @leaving_no_source()
    def _compile(self, inputs: Mapping[str, Tensor], beta: float | Tensor) -> CompiledStep:
        """Trace and compile for arguments of these shapes; leaves random numbers and buffers as they are."""
        self._key(inputs, beta)  # refuses what is no tensor
        with forked(), pyro.validation_enabled(False):
            self._step.run_once(inputs, beta)
            self._slots.refresh()  # the first run may make what is learned
            example = [value.detach().clone() for value in self._arguments(inputs, beta)]
            found: list[int] = []
            weighted = self._key(inputs, beta)[0]
            run = loss_and_gradients(
                self._step, self._slots, inputs, weighted=weighted, per_row=self._per_row, found=found
            )
            graph = self._recorded(run, example)
            check_constants(graph)
            targets = self._slots.trained()
            copied = must_be_copied(graph, [targets[place] for place in found])
            with torch.no_grad():
                code = compiled(graph, example, self._backend, onednn=self.onednn)
                with running():
                    _, *gradients = code(*example)
            copied = [
                copies or not lies_like(gradient.stride(), targets[place])  # convolutions on a GPU choose the order
                for copies, gradient, place in zip(copied, gradients, found, strict=True)
            ]
        without = [place for place in range(len(targets)) if place not in found]
        made = CompiledStep(code, list(zip(found, copied, strict=True)), without)
        self._compiled[self._key(inputs, beta)] = made
        return made

    def _recorded(self, run: Callable[..., Any], example: list[Tensor]) -> GraphModule:
        """What the step does. It is recorded twice, because a count in Python, say, is another one the second time."""
        try:
            with unchanged_attributes(self._step, deep=True):
                graph = record(run, example)
                if self._backend == "inductor" and all(value.device.type == "cpu" for value in example):
                    prepare_headers()
                again = record(run, example)
            if any(node.op == "get_attr" for node in changed_in_place(graph.graph)):
                raise CompileError("the programs change a tensor in place that is no buffer of theirs")
        except Exception as error:
            raise CompileError(
                f"the pair cannot be compiled{place_of(error)} ({reason_of(error)}); train it without compilation, "
                "or write it without branches on values, and with buffers for what changes"
            ) from error
        if changed := difference(graph, again):
            raise CompileError(
                f"the pair cannot be compiled: a second run of the programs does something else than the first one "
                f"({changed}), as with a count of steps in Python; make it a buffer or an argument, or train without "
                "compilation"
            )
        return graph


def _dense(value: Tensor) -> Tensor:
    """A tensor as its copies lie in memory, for which code is compiled: columns of a wider one, say, have gaps."""
    return value if value.is_contiguous() else value.clone()
