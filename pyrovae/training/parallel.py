"""A training that several processes share: who gets which rows, and what they sum, agree on and complete."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import default_process_message
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae.data.dataset import Rows
from pyrovae.data.fingerprints import is_same
from pyrovae.distributed import Processes
from pyrovae.nn.row_table import RowTable
from pyrovae.rng import generator, mixed
from pyrovae.shared_memory import SharedMemory, shared_memory
from pyrovae.storage import module_tensors
from pyrovae.vae import VAE

_NOISE, _SHARED, _VALIDATION, _WORKERS = range(4)


class Parallel:
    """What a training does beside its steps where several processes share it. One alone passes everything through.

    Parameters
    ----------
    processes : Processes
        The processes.
    vae : VAE
        The pair.
    seed : int or None
        Seed of the training.

    Notes
    -----
    Every process has the whole model. A batch is cut by rank, each process takes the gradient of the sum over its rows,
    and one sum over the processes gives that of the batch. The order of the rows comes from one stream that all have.
    Each step of each process draws from a stream of its own, which seed, rank, epoch and number of the batch tell; so
    a training can be resumed with any number of processes, and repeats itself with the same number. Rows with
    parameters of their own, in a `RowTable`, belong to the process whose rank is the number of the row modulo the
    number of processes. It alone moves them, and `complete` gives them to the others.
    """

    def __init__(self, processes: Processes, vae: VAE, seed: int | None) -> None:
        self.processes, self.several, self.vae = processes, processes.several, vae
        self.seed = 0 if seed is None else seed
        self.stops = self.saves = False
        self.start = 0  # the place of the first row of this process in the present batch of a stream
        self.orders = generator(self.seed) if self.several else None
        self._by_owner = any(isinstance(module, RowTable) for module in vae.modules())
        self._sum: Sum | None = None
        self._on_cpu: bool | None = None

    def part(self, index: Tensor, rows: Rows | None = None) -> Tensor:
        """The numbers of this process among those of the rows of a batch."""
        if not self.several:
            return index
        if self._by_owner and rows is not None and rows.index is not None:
            return index[self._owned(rows.index[index])]
        return index[self.processes.share(len(index))]

    def _owned(self, index: Tensor) -> Tensor:
        return index % self.processes.size == self.processes.rank

    def most(self, count: int) -> int:
        """How many of so many rows this process gets, if no row has an owner."""
        share = self.processes.share(count)
        return share.stop - share.start

    def reseed(self, epoch: int, batch: int) -> None:
        """Begin the stream of random numbers of a step."""
        if self.several:
            seed = mixed(self.seed, _NOISE, self.processes.rank, epoch, batch)
            if self._on_cpu is None:
                self._on_cpu = self.vae.device.type == "cpu"
            # torch.manual_seed takes 80 microseconds to look at devices that nothing is drawn on.
            (torch.default_generator.manual_seed if self._on_cpu else torch.manual_seed)(seed)

    def validation_seed(self) -> int:
        """The seed of the random numbers of each validation."""
        return mixed(0, _VALIDATION, self.processes.rank)

    def validation_orders(self) -> torch.Generator:
        """What one process would shuffle validation rows with."""
        return generator(mixed(0, _VALIDATION, 0))

    def workers_seed(self, epoch: int) -> int:
        """The seed of the workers that read the rows of this process."""
        return mixed(self.seed, _WORKERS, self.processes.rank, epoch)

    def drawing(self, epoch: int, batch: int) -> AbstractContextManager[Any]:
        """A context in which latents of all data are drawn from a stream that all processes share."""
        names = self.vae.sites.shared if self.several else ()
        return SharedDraws(names, mixed(self.seed, _SHARED, epoch, batch), self.vae.device) if names else nullcontext()

    def reduce(
        self, loss: float, count: int, parameters: Sequence[nn.Parameter], learned: nn.Module | None, asked: list[bool]
    ) -> tuple[float, int]:
        """Sum loss, number of rows and gradients over the processes.

        Parameters
        ----------
        loss : float
            Loss of the rows of this process, summed.
        count : int
            Number of these rows.
        parameters : sequence of Parameter
            The parameters whose gradients are summed.
        learned : Module or None
            What the objective learns, whose running means become those of the batch.
        asked : list of bool
            Whether this process was asked to stop, and to save. `stops` and `saves` then say whether any was.

        Returns
        -------
        float, int
            Loss and number of rows of the batch.
        """
        if not self.several:
            return loss, count
        if self._sum is None:
            self._sum = Sum(self.processes, parameters)
        loss, count, (self.stops, self.saves) = self._sum(loss, count, learned, asked)
        return loss, count

    def clip(
        self, parameters: Sequence[Tensor], leaves: Sequence[Tensor], largest: float, *, by_rows: bool = False
    ) -> None:
        """Clip the norm of the gradient, in which rows with parameters of their own count for all processes."""
        if not self.several or not by_rows:
            torch.nn.utils.clip_grad_norm_([*parameters, *leaves], largest)
            return
        shared, own = ([p.grad for p in some if p.grad is not None] for some in (parameters, leaves))
        of_rows = sum((g.double().square().sum() for g in own), torch.zeros((), dtype=torch.float64))
        square = self.processes.sum(torch.as_tensor(of_rows).cpu()) + sum(
            float(g.double().square().sum()) for g in shared
        )
        factor = min(1.0, largest / (float(square) ** 0.5 + 1e-6))
        if shared or own:
            torch._foreach_mul_([*shared, *own], factor)

    @torch.no_grad()
    def complete(self, tables: Sequence[RowTable], optimizer: Optimizer | None = None) -> None:
        """Give the rows of each process to the others; with an optimizer, what it keeps of each row too."""
        if not self.several:
            return
        for table in tables:
            parts = [table.values.data]
            if optimizer is not None:
                state = optimizer.state[table.values]
                known: dict[str, tuple[torch.Size, torch.dtype]] = {}
                own = {n: (v.shape, v.dtype) for n, v in state.items() if isinstance(v, Tensor)}
                for of_one in self.processes.gather(own):
                    known |= of_one
                for name, (shape, dtype) in sorted(known.items()):
                    if name not in state:  # of a process that has not had a row yet
                        state[name] = torch.zeros(shape, dtype=dtype, device=table.values.device)
                parts += [
                    state[name]
                    for name in sorted(known)
                    if len(state[name].shape) and len(state[name]) == table.num_rows
                ]
            mine = self._owned(torch.arange(table.num_rows, device=table.values.device))
            for part in parts:
                part[~mine] = 0
                self.processes.sum(part)

    def same(self, *values: Any) -> tuple[Any, ...]:
        """Values of the first process."""
        return self.processes.same(values)

    def total(self, loss: float, rows: int) -> tuple[float, int]:
        """The sums of a loss and of numbers of rows."""
        if not self.several:
            return loss, rows
        summed = self.processes.sum(torch.tensor([loss, rows], dtype=torch.float64)).tolist()
        return summed[0], int(summed[1])

    def first_word(self, text: str) -> str:
        """The first text of a process that has one."""
        return next((found for found in self.processes.gather(text) if found), "")

    def agree(self, facts: Mapping[str, Any], prints: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Refuse processes that were given another seed, other options or other data.

        Parameters
        ----------
        facts : mapping
            Values by what they are.
        prints : mapping
            Fingerprints of rows by what they are, None where there are none.
        settings : mapping
            Options of the training.

        Raises
        ------
        ValueError
            In every process with the same line.
        """
        if not self.several:
            return
        agree = self.processes.agree
        known = self.processes.gather((list(facts), list(prints)))  # one may have validation rows, and another one none
        for name in dict.fromkeys(n for of_one, _ in known for n in of_one):
            agree(name, facts.get(name), "start all of them with the same")
        for name in sorted({n for options in self.processes.gather(list(settings)) for n in options}):
            agree(name, settings.get(name), "start all of them with the same options")
        for name in dict.fromkeys(n for _, of_one in known for n in of_one):
            agree(name, prints.get(name), "let all of them read the same data", same=_same_rows)
        shapes = [(n, tuple(p.shape), str(p.dtype)) for n, p in self.vae.named_parameters()]
        agree("pair", shapes, "build the same pair in all of them")
        devices = self.processes.gather((socket.gethostname(), str(self.vae.device), self.vae.device.type))
        for rank, (host, device, kind) in enumerate(devices):
            if kind != devices[0][2]:
                raise ValueError(
                    f"process {rank} is on {device} and process 0 on {devices[0][1]}; put all of them on devices of "
                    "one kind"
                )
            if kind != "cpu" and (host, device, kind) in devices[:rank]:
                raise ValueError(
                    f"processes {devices.index((host, device, kind))} and {rank} are both on {device} of {host}; give "
                    "each a device of its own, cuda:LOCAL_RANK"
                )

    def align(self, learned: nn.Module | None) -> None:
        """Give all processes the weights of the first one."""
        if self.several:
            for module in (self.vae, learned):
                for tensor in {} if module is None else module_tensors(module).values():
                    with torch.no_grad():
                        self.processes.spread(tensor)


class Sum:
    """One sum over the processes of all that a step gives: gradients, running means, loss, rows and what was asked.

    Parameters
    ----------
    processes : Processes
        The processes.
    parameters : sequence of Parameter
        The parameters that have gradients.
    """

    def __init__(self, processes: Processes, parameters: Sequence[nn.Parameter]) -> None:
        self.processes, self.parameters = processes, list(parameters)
        dtype = torch.float32
        for parameter in self.parameters:
            dtype = torch.promote_types(dtype, parameter.dtype)
        self._dtype, self._device = dtype, self.parameters[0].device if parameters else torch.device("cpu")
        self._sizes: list[int] = []
        self._memory: SharedMemory | None = None
        self._flats: list[_Flat] = []

    @torch.no_grad()
    def __call__(
        self, loss: float, count: int, learned: nn.Module | None, asked: list[bool]
    ) -> tuple[float, int, list[bool]]:
        """The loss and rows of the batch, and whether any process was asked; gradients become those of the batch."""
        has = [parameter.grad is not None for parameter in self.parameters]
        means = [] if learned is None else [b for b in learned.buffers() if b.is_floating_point()]
        tail = [loss, count, *asked, *has]
        sizes = [*(p.numel() for p in self.parameters), *(b.numel() for b in means), len(tail)]
        if self._sizes != sizes:
            self._make(sizes)
        _, parts, places = self._flats[0 if self._memory is None else self._memory.turn]
        filled = [(place, p.grad) for place, p in zip(places, self.parameters, strict=True) if p.grad is not None]
        if filled:
            torch._foreach_copy_([place for place, _ in filled], [grad for _, grad in filled])
        for place, known in zip(places, has, strict=True):
            if not known:
                place.zero_()
        of_means = parts[len(places) : -1]
        for part, mean in zip(of_means, means, strict=True):
            part.copy_(mean.reshape(-1)).mul_(count)
        parts[-1].copy_(torch.tensor(tail, dtype=torch.float64))
        parts, places = self._summed()
        of_means = parts[len(places) : -1]
        loss, rows, *said = parts[-1].tolist()
        any_has = said[len(asked) :]
        for place, parameter, number in zip(places, self.parameters, any_has, strict=True):
            parameter.grad = place.to(parameter.dtype) if number else None
        for part, mean in zip(of_means, means, strict=True):
            mean.copy_((part / max(rows, 1)).view(mean.shape))
        return loss, int(rows), [number > 0 for number in said[: len(asked)]]

    def _make(self, sizes: list[int]) -> None:
        """Take memory for so many numbers: what this process gives, and the sum."""
        self._sizes, count = sizes, sum(sizes)
        self._memory = shared_memory(self.processes, count, self._dtype) if self._device.type == "cpu" else None
        if self._memory is None:
            tensors = [torch.empty(count, dtype=self._dtype, device=self._device)]
        else:
            tensors = [*self._memory.own, self._memory.total]
        self._flats = []
        for flat in tensors:
            parts = flat.split(sizes)
            places = [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=False)]
            self._flats.append(_Flat(flat, parts, places))

    def _summed(self) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The parts of the sum, and those of them that are gradients."""
        if self._memory is None:
            self.processes.sum(self._flats[0].numbers)
        else:
            self._memory.sum()
        return self._flats[-1].parts, self._flats[-1].places


class _Flat(NamedTuple):
    """Numbers in one piece, and the parts of it."""

    numbers: Tensor
    parts: tuple[Tensor, ...]
    places: list[Tensor]


class SharedDraws(Messenger):
    """Draws some sites of both programs from a stream that all processes share; the others draw as always.

    Parameters
    ----------
    names : sequence of str
        The sites.
    seed : int
        Seed of the stream.
    device : device
        Where draws are made.
    """

    def __init__(self, names: Sequence[str], seed: int, device: torch.device) -> None:
        super().__init__()
        self.names, self.device = frozenset(names), device
        self._seeds = _seeds_from(seed)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.names or msg["done"] or msg["is_observed"] or msg["value"] is not None:
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(next(self._seeds))
            default_process_message(msg)


def _seeds_from(seed: int) -> Iterator[int]:
    number = 0
    while True:
        yield mixed(seed, number)
        number += 1


def _same_rows(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return is_same(first, second)
