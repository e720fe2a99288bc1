"""The importance-sampled log-likelihood of rows of data."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.data.rows import cut, refuse_lists
from pyrovae.infer.compared import Generators
from pyrovae.infer.compile_errors import CompileError
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.functional import LogLikelihood, LogWeightSum
from pyrovae.infer.log_weights import weights_of
from pyrovae.infer.recorded import Draw, Recordings, recordings
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout
from pyrovae.programs import conditioned, describe

if TYPE_CHECKING:
    from pyrovae.vae import VAE

_CACHED = 1 << 21  # entries of data that are scored at once on the CPU: what they make then stays in its caches
_FEWEST = 256  # pairs of datum and sample that are evaluated at once, however large a datum is
_SAMPLES = 16  # of a row that are drawn at once where there are many rows: the encoder works for all of them
_HELD = 16  # calls whose log weights are summed together
_WORTH, _FEW_CALLS = 25, 4  # calls of the programs, of all rows and of a group of them, from which on a recording pays


def check_counts(**counts: int) -> None:
    """Check that numbers of samples and rows are whole and at least 1.

    Raises
    ------
    ValueError
        Naming the first that is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_compile(compile: bool | str) -> None:
    """Check the argument of that name.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if compile != "auto" and not isinstance(compile, bool):
        raise ValueError(f"compile must be True, False or 'auto', got {compile!r}")


def log_likelihood(
    vae: VAE,
    layout: Layout,
    x: Tensor,
    num_samples: int,
    chunk_size: int,
    vectorize: bool,
    condition: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    compile: bool | str,
) -> LogLikelihood:
    """Estimate log p(x) of every row with exactly `num_samples` importance samples, in bounded memory.

    Parameters
    ----------
    vae : VAE
        The pair, prepared and within its scope.
    layout : Layout
        Its plates.
    x : Tensor
        Data `[B, ...]`.
    num_samples : int
        Importance samples per datum.
    chunk_size : int
        Pairs of datum and sample evaluated at once, at most.
    vectorize : bool
        Run the samples of a chunk in one call.
    condition : mapping from str to Tensor
        Values of latents outside the plate over the data.
    data : mapping from str to Tensor
        Further arguments by row.
    compile : bool or "auto"
        See `VAE.log_likelihood`.
    """
    pairs = _pairs_at_once(x, chunk_size)
    rows = max(1, min(len(x), pairs // (min(num_samples, _SAMPLES) if vectorize else 1)))
    if rows < len(x) and not vae.takes_few(x, data):
        rows = len(x)
    refuse_lists(data, len(x), rows)
    parts, known = [], recordings(vae)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        fixed = {name: vae.cut_latent(name, value, part, len(x)) for name, value in condition.items()}
        group = _Group(vae, layout, x[part], cut(data, part, len(x)), fixed, known)
        per_call = max(1, pairs // len(x[part])) if vectorize else 1
        calls = num_samples // per_call
        whole = len(x[part]) == rows
        pays = calls >= _FEW_CALLS and calls * (len(x) // rows if whole else 1) >= _WORTH
        how: dict[str, bool] = {"record": pays and compile == "auto"}
        if compile is True:
            how = {"record": calls > 1, "required": True, "inductor": whole}
        parts.append(group.estimate(num_samples, per_call, **how))
    return LogLikelihood(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _pairs_at_once(x: Tensor, chunk_size: int) -> int:
    """How many pairs of datum and sample are evaluated at once: on the CPU so many as its caches hold."""
    if x.device.type != "cpu":
        return chunk_size
    return min(chunk_size, max(_FEWEST, _CACHED // max(1, x[0].numel())))


class _Group:
    """Some rows, whose samples are drawn and scored by the programs, or by a recording of them.

    Parameters
    ----------
    vae : VAE
        The pair.
    layout : Layout
        Its plates.
    x : Tensor
        The rows.
    data : mapping from str to Tensor
        Their further arguments.
    fixed : mapping from str to Tensor
        Values of latents.
    recordings : Recordings
        Those of the groups before.
    """

    def __init__(
        self,
        vae: VAE,
        layout: Layout,
        x: Tensor,
        data: Mapping[str, Any],
        fixed: Mapping[str, Any],
        recordings: Recordings,
    ) -> None:
        self.vae, self.layout, self.recordings = vae, layout, recordings
        self.inputs = {
            "x": x,
            **{f"data {n}": v for n, v in data.items()},
            **{f"fixed {n}": v for n, v in fixed.items()},
        }
        self.generators = Generators(x.device)

    def weights(self, inputs: Mapping[str, Any], count: int) -> Tensor:
        """Run the programs: log weights `[K, B]`.

        Raises
        ------
        ValueError
            If the pair draws a subsample.
        """
        x, data, fixed = inputs["x"], _named(inputs, "data "), _named(inputs, "fixed ")
        model, guide = conditioned(self.vae.model, self.vae.guide, fixed)
        nesting = self.layout.max_plate_nesting if count > 1 else None
        scorer = Scorer(self.layout, fixed=fixed)
        found = weights_of(enumerated(model, self.layout), guide, count, nesting, scorer, (x,), data).log_weight
        if found.shape[1] != len(x):
            raise ValueError(
                f"the plate over the data holds {found.shape[1]} rows for {len(x)} rows of x; a pair "
                "that draws a subsample of its own has no log-likelihood of each row"
            )
        return found

    def estimate(
        self, num_samples: int, per_call: int, *, record: bool = False, required: bool = False, inductor: bool = False
    ) -> LogLikelihood:
        """The estimate from so many samples, `per_call` of them at once; of a recording if it can, or if it must.

        `inductor` compiles the recording.
        """
        before = self.generators.state()
        total, draw, passed = LogWeightSum(), None, None
        held: list[Tensor] = []
        drawn = 0
        while drawn < num_samples:
            count = min(per_call, num_samples - drawn)
            if draw is not None and count == per_call:
                found, fine = draw()
                passed = fine if passed is None else passed & fine
            else:
                begun = self.generators.state()
                found = self.weights(self.inputs, count)
                if record and not drawn:
                    draw = self._recorded(count, found, begun, required=required, inductor=inductor)
            held.append(found)
            drawn += count
            if len(held) == _HELD or drawn == num_samples:  # sums of few samples at a time would take longer
                total.add(torch.cat(held))
                held.clear()
        result = total.result()
        if passed is not None and not (bool(passed) and bool(result.value.isfinite().all())):
            self.generators.set(before)  # the programs say what is wrong
            return self.estimate(num_samples, per_call)
        return LogLikelihood(*(field.to(found.dtype) for field in result))

    def _recorded(
        self, count: int, expected: Tensor, begun: list[Tensor], *, required: bool, inductor: bool
    ) -> Draw | None:
        """What draws and scores by a recording, if it gives what the programs gave from the same random numbers.

        Raises
        ------
        CompileError
            If there is none, and it is required.
        """
        ended = self.generators.state()

        def agrees(draw: Draw) -> bool:
            self.generators.set(begun)
            try:
                found, _ = draw()
                same = all(map(torch.equal, self.generators.state(), ended))
            finally:
                self.generators.set(ended)
            return same and torch.allclose(found, expected, rtol=1e-5, atol=1e-3, equal_nan=True)

        def run(inputs: Mapping[str, Tensor]) -> Tensor:
            return self.weights(inputs, count)

        found = self.recordings.find(run, count, self.inputs, agrees, inductor=inductor)
        if not isinstance(found, str):
            return found
        if required:
            raise CompileError(
                f"{describe(self.vae.model)} and its guide cannot be compiled ({found}); leave compile='auto'"
            )
        return None


def _named(inputs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
