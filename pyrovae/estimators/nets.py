"""Several nets of one table: trained one after the other, averaged, and weighted by what they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyrovae.data.dataset import Dataset
from pyrovae.pairs.registry import find_pair
from pyrovae.rng import forked
from pyrovae.runs import saving
from pyrovae.runs.run import Run
from pyrovae.training import History, Trainer, TrainingData
from pyrovae.training.checkpoint import RunFolder
from pyrovae.vae import VAE

OF_PAIR = {name: name for name in ("hidden", "encoder", "layer", "dropout")} | {"n_components": "latent_dim"}
"""Options in which the nets of a table may differ, and as what the pair knows them."""
_BY_COLUMNS = ("parameterization", "scale_floor")
OF_TRAINING = ("kl_weight", "lr", "epochs")
"""Options of the training in which they may differ."""


class Trained(NamedTuple):
    """A net, and what its training did."""

    vae: VAE
    history: History


def built(dataset: Dataset, options: Mapping[str, Any]) -> VAE:
    """The pair of a table. An estimator is for any table, so options for columns that are not there are left out."""
    pair = find_pair("tabular")
    kept = pair.without_idle(options, dataset.spec)
    return pair.build(dataset, **{n: v for n, v in options.items() if n in kept or n not in _BY_COLUMNS})


def check_variants(variants: Any) -> None:
    """Refuse variants that are no mappings, or name an option in which nets cannot differ.

    Raises
    ------
    TypeError, ValueError
        The message names the option.
    """
    if isinstance(variants, str | Mapping) or not isinstance(variants, Sequence) or not len(variants):
        raise TypeError(f"variants must be a sequence of dictionaries of options, such as ({{}},), got {variants!r}")
    for variant in variants:
        if not isinstance(variant, Mapping):
            raise TypeError(f"variants must hold dictionaries of options, got {variant!r}")
        for name in variant:
            if name not in (*OF_PAIR, *OF_TRAINING):
                known = ", ".join((*OF_PAIR, *OF_TRAINING))
                raise ValueError(f"the nets of a table may differ in {known}; variants names {name!r}")


def train_net(
    dataset: Dataset,
    pair: Mapping[str, Any],
    training: Mapping[str, Any],
    *,
    seed: int,
    device: str | torch.device = "cpu",
    first: VAE | None = None,
    run: Path | None = None,
) -> Trained:
    """Build and train one net.

    Parameters
    ----------
    dataset : Dataset
        The training rows, with validation rows where the training watches them.
    pair, training : mapping
        Options of the pair `tabular`, and of the `Trainer`.
    seed : int
        Seed of the weights and of the training.
    device : str or torch.device, default "cpu"
        Where to train.
    first : VAE, optional
        The first net of the table. The other ones take its cutpoints of ordered columns as they are, so that raw
        parameters of all nets mean the same.
    run : Path, optional
        A folder for the training, which goes on with the one that it holds.

    Returns
    -------
    Trained
        The net in float64, in evaluation mode.
    """
    with forked():
        torch.manual_seed(seed)
        vae = built(dataset, pair).to(device)
    if first is not None:
        theirs: Any = first.model
        own: Any = vae.model
        for name, cuts in theirs.likelihood.cuts.items():
            own.likelihood.cuts[name].data.copy_(cuts.data)
            own.likelihood.cuts[name].requires_grad_(False)
    resume = run is not None and RunFolder(run).state_path.exists()
    history = Trainer(seed=seed, **training).fit(
        vae,
        TrainingData(
            dataset.train, dataset.validation if len(dataset.validation) else None, transform=dataset.transform
        ),
        run=run,
        resume=resume,
        overwrite=run is not None and not resume,
    )
    return Trained(vae.double().eval(), history)


def train_others(
    dataset: Dataset,
    pair: Mapping[str, Any],
    training: Mapping[str, Any],
    first: VAE,
    *,
    num_nets: int,
    variants: Sequence[Mapping[str, Any]],
    seed: int,
    folder: Path | None = None,
) -> tuple[VAE, ...]:
    """Train all nets of a table but the first; the nets take the variants in turn, the first the first one.

    With a folder each is trained in the one that `save_others` writes it to, so that nothing is lost by a stop.
    """
    found = []
    for number in range(1, num_nets):
        own_pair, own_training = varied(pair, training, variants[number % len(variants)])
        device = first.device
        run = None if folder is None else folder / f"net-{number}"
        own_seed = (seed + number) % 2**32
        trained = train_net(dataset, own_pair, own_training, seed=own_seed, device=device, first=first, run=run)
        found.append(trained.vae)
    return tuple(found)


def varied(
    pair: Mapping[str, Any], training: Mapping[str, Any], variant: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of pair and training with those of a variant.

    Examples
    --------
    >>> varied({"latent_dim": 20}, {"lr": 0.1}, {"layer": "residual", "lr": 0.2})
    ({'latent_dim': 20, 'layer': 'residual'}, {'lr': 0.2})
    """
    own = {OF_PAIR[name]: value for name, value in variant.items() if name in OF_PAIR}
    if "hidden" in own:
        own["hidden"] = tuple(int(size) for size in own["hidden"])
    return {**pair, **own}, {**training, **{n: v for n, v in variant.items() if n in OF_TRAINING}}


def save_others(nets: Sequence[VAE], folder: str | Path) -> None:
    """Write the nets after the first into folders `net-1`, `net-2`, ... of the folder of the first."""
    for number, vae in enumerate(nets, 1):
        saving.save(vae, Path(folder) / f"net-{number}", overwrite=True)


def load_others(folder: str | Path, count: int, device: str | torch.device = "cpu") -> tuple[VAE, ...]:
    """Read what `save_others` wrote, in float64.

    Raises
    ------
    CheckpointError
        A folder is missing or damaged.
    """
    found = [Run.open(Path(folder) / f"net-{number}").load_vae(str(device)) for number in range(1, count + 1)]
    return tuple(vae.double().eval() for vae in found)
