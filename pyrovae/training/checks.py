"""What a training would get wrong without an error, found out on the first batch."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.rows import cut, holds_rows
from pyrovae.infer.density_checks import of_two_kinds
from pyrovae.infer.objective import Objective
from pyrovae.infer.objectives import check_pyro_objective
from pyrovae.rng import forked
from pyrovae.sites import is_local, latent_sites, sample_sites
from pyrovae.storage import CheckpointError
from pyrovae.training.batching import Batches, HeldBatches
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.state import TrainingState
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)


def check_pair(
    vae: VAE,
    objective: Any,
    batches: Batches,
    validation: Batches | None,
    x: Tensor,
    data: Mapping[str, Any],
) -> None:
    """Refuse pairs that these batches would teach something else than is meant.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    objective : ELBO
        The objective.
    batches : Batches
        The training data.
    validation : Batches or None
        The validation data.
    x, data : Tensor and mapping
        The first batch.

    Raises
    ------
    ValueError
        For a pair that learns something of each row of a batch by its place, and for `BatchNorm` where its statistics
        would be those of one row or of several particles; and if the pair fails on validation rows.
    """
    if batches.num_batches != 1 or validation is not None:
        found = by_row(vae, x, data)
        if found is not None:
            all_rows = "batch_size=" + (str(batches.total) if batches.total else "ROWS OF ALL DATA")
            way_out = f"train on one batch of all rows ({all_rows})" if batches.num_batches != 1 else "leave them out"
            fault = "cannot learn from minibatches" if batches.num_batches != 1 else "says nothing of validation rows"
            raise ValueError(
                f"{found} has a value for each of the {len(x)} rows of a batch, by its place in it, so it {fault}; "
                f"{way_out}, or compute it from x or look it up by the argument 'index'"
            )
    if isinstance(batches, HeldBatches) and batches.smallest < len(x):
        _check_last_batch(vae, objective, batches, x, data)
    if validation is not None:
        other, held_out = arguments(vae, validation.first())
        if other.shape[1:] != x.shape[1:]:  # such as longer sequences, or by mistake
            with trying("validation rows", other, held_out), torch.no_grad(), vae.scope():
                objective.loss(vae.model, vae.guide, other, **held_out)
    layers = {name: layer for name, layer in vae.named_modules() if isinstance(layer, _BatchNorm)}
    if layers:
        _check_single_row(vae, layers, batches, x, data)
        _check_particles(vae, objective, layers, x, data)


def check_objective(vae: VAE, objective: Any, x: Tensor, data: Mapping[str, Any]) -> None:
    """Refuse a pair that an objective of Pyro cannot take, within its scope; and tell of a loss that is no bound.

    Raises
    ------
    ValueError
        Naming the site, and an objective that takes the pair.
    """
    if vae.layout.alone:
        logger.warning(
            "the guide draws %r, which the model does not and no latent is a Delta at a function of; its density is a "
            "part of the loss, as in Pyro, so the loss is no bound; held-out figures leave it out",
            vae.layout.alone[0],
        )
    if isinstance(objective, Objective):
        return
    given = programs.keywords(vae.model, vae.guide, **data)
    with programs.trial(vae.model, vae.guide):
        traces = programs.trace_pair(vae.model, vae.guide, (x,), given)
    check_pyro_objective(objective, traces.model, traces.guide)
    if found := of_two_kinds(sample_sites(traces.model), latent_sites(traces.guide)):
        logger.warning("%s, so the loss compares a density with a probability, as in Pyro, and is no bound", found)


@contextmanager
def trying(what: str, x: Tensor, data: Mapping[str, Any]) -> Iterator[None]:
    """A context for the first run on some data, which says in one line what the programs made of them.

    Parameters
    ----------
    what : str
        What the data are, such as "the first batch".
    x, data : Tensor and mapping
        The data, whose shapes are shown.

    Raises
    ------
    ValueError
        For an error of torch or Python in the programs.
    """
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AssertionError) as error:
        one_line = isinstance(error, ValueError) and "\n" not in str(error)
        if one_line or isinstance(error, NotImplementedError | torch.OutOfMemoryError):
            raise
        kind = "" if x.dtype == torch.get_default_dtype() else f" and the type {str(x.dtype).removeprefix('torch.')}"
        shown = [f"the data of shape {tuple(x.shape)}{kind}"]
        for name, value in data.items():
            whole = "" if holds_rows(value, len(x)) else ", passed whole"
            kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"type {type(value).__name__}"
            shown.append(f"{name} of {kind}{whole}")
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # Pyro names the site in a first line that ends with a colon, and the fault in the second.
        reason = textwrap.shorten(" ".join(lines[: 1 + lines[0].endswith(":")]), 190, placeholder=" ...")
        raise ValueError(f"the pair fails on {what}, {', '.join(shown)}: {reason}") from error


def check_resumed(folder: RunFolder, state: TrainingState, batches: Batches, batch_size: int) -> None:
    """Refuse to go on in the middle of an epoch of other batches. The state gets the present batch size.

    Raises
    ------
    CheckpointError
        If the number of rows is another one, or the batch size within an epoch is.
    """
    before, state.batch_size = state.batch_size, batch_size
    if not batches.resumes_within_epochs:
        state.permutation = None
    elif state.permutation is not None and len(state.permutation) != batches.total:
        raise CheckpointError(
            f"{folder.state_path} is of a training on {len(state.permutation)} rows, and the data have {batches.total}"
        )
    elif state.batch and before != batch_size:
        raise CheckpointError(
            f"{folder.state_path} stopped in the middle of an epoch of batches of {before}; "
            f"go on with batch_size={before}, not {batch_size}"
        )


def by_row(vae: VAE, x: Tensor, data: Mapping[str, Any]) -> str | None:
    """What of a pair has a value for each row of a batch by its place: a parameter or a latent, if there is one.

    A parameter of a param site is one if its shape follows the number of rows when the programs run anew. A latent of
    the guide is one if its draws have the rows of the first batch whatever data are given.
    """
    rows = len(x)
    if rows < 2:
        return None
    fewer, turned = (
        cut({"": x, **data}, part, rows) for part in (slice(rows - 1), torch.arange(rows - 1, -1, -1, device=x.device))
    )
    with forked(), torch.no_grad(), programs.evaluating(vae):
        for label, program in (("guide", vae.guide), ("model", vae.model)):
            name = _grown(vae, label, program, fewer)
            if name is not None:
                return f"parameter {name!r}"
    with vae.scope(), programs.trial(vae.guide):
        drawn = [_drawn(vae, batch) for batch in ({"": x, **data}, turned)]
        try:
            left = _drawn(vae, fewer)
        except Exception:  # it is written for one number of rows
            left = {}
    sizes = {part for p in vae.parameters() for part in (p.numel(),) if part >= rows and part % rows == 0}
    known = vae.sites.latent  # before sites of the guide alone
    for name, value in sorted(drawn[0].items(), key=lambda item: item[0] not in known):
        same = name in drawn[1] and drawn[1][name].shape == value.shape and torch.equal(drawn[1][name], value)
        stays = name not in left or left[name].shape == value.shape
        if sizes and same and stays:
            return f"latent {name!r}"
    return None


def _grown(vae: VAE, label: str, program: programs.Program, fewer: Mapping[str, Any]) -> str | None:
    """A param site that has another shape where there are fewer rows."""
    data = dict(fewer)
    x = data.pop("")
    if label == "model":
        with vae.scope():
            try:
                drawn = programs.trace(vae.guide, (x,), data)
            except Exception:
                return None
        program = poutine.replay(program, trace=drawn)
    try:
        _, state = vae._collect(label, lambda: programs.trace(program, (x,), data))
    except Exception:  # it is written for one number of rows
        return None
    known = {name: vae.param_sites[key] for key, name in vae._site_names.items()}
    return next((n for n, value in state["params"].items() if n in known and known[n].shape != value.shape), None)


def _drawn(vae: VAE, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    data = dict(batch)
    torch.manual_seed(0)
    sites = latent_sites(programs.trace(vae.guide, (data.pop(""),), data))
    return {name: site["value"] for name, site in sites.items() if is_local(site, vae.sites.plates)}


def _check_last_batch(vae: VAE, objective: Any, batches: HeldBatches, x: Tensor, data: Mapping[str, Any]) -> None:
    """Refuse programs that are written for one number of rows, if the last batch has fewer."""
    if batches.data.collate is not None:
        return  # what it gives cannot be cut
    last = cut({"": x, **data}, slice(batches.smallest), len(x))
    first = last.pop("")
    try:
        with torch.no_grad(), programs.evaluating(vae), vae.scope(), vae.minibatch_scale(len(first), batches.total):
            objective.loss(vae.model, vae.guide, first, **last)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"the pair fails on the last batch, which has {batches.smallest} rows of {batches.total}: {reason}; take "
            "the number of rows from the data, len(x), or leave that batch out with drop_last=True"
        ) from error


def _check_single_row(
    vae: VAE, layers: Mapping[str, _BatchNorm], batches: Batches, x: Tensor, data: Mapping[str, Any]
) -> None:
    if not isinstance(batches, HeldBatches) or batches.smallest != 1:
        return
    one = cut({"": x, **data}, slice(1), len(x))
    first = one.pop("")
    try:
        with _in_training(vae, layers), torch.no_grad():
            programs.trace_pair(vae.model, vae.guide, (first,), one)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            return
        raise ValueError(
            f"a batch of one row has no statistics for the BatchNorm layer {next(iter(layers))!r}; choose another "
            f"batch_size for the {batches.total} rows, or leave the last batch out with drop_last=True"
        ) from None


def _check_particles(
    vae: VAE, objective: Any, layers: Mapping[str, _BatchNorm], x: Tensor, data: Mapping[str, Any]
) -> None:
    count = objective.num_particles
    if count < 2:
        return
    seen: dict[str, list[int]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(len(inputs[0])))
        for name, layer in layers.items()
    ]
    try:
        with _in_training(vae, layers), torch.no_grad():
            objective.loss(vae.model, vae.guide, x, **data)
    except Exception:
        return  # the training says it better
    finally:
        for hook in hooks:
            hook.remove()
    for name, sizes in seen.items():
        if len(sizes) >= count or any(size > len(x) for size in sizes):
            raise ValueError(
                f"the BatchNorm layer {name!r} would take its statistics from {count} particles of each row and not "
                "from one; use num_particles=1, or another layer such as LayerNorm"
            )


@contextmanager
def _in_training(vae: VAE, layers: Mapping[str, _BatchNorm]) -> Iterator[None]:
    """A context of training mode whose runs leave running statistics and random numbers as they were."""
    before = {name: value.clone() for layer in layers.values() for name, value in _buffers(layer).items()}
    modes = {part: part.training for part in vae.modules()}
    vae.train()
    try:
        with forked(), vae.scope():
            yield
    finally:
        for layer in layers.values():
            for name, value in _buffers(layer).items():
                value.copy_(before[name])
        for part, mode in modes.items():
            part.training = mode


def _buffers(layer: _BatchNorm) -> dict[str, Tensor]:
    return {f"{id(layer)}.{name}": value for name, value in layer.named_buffers()}
