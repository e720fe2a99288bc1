"""The data and the trainings of missing.py.

* mnist, fashion-mnist: 50 000 training images, complete.
* mnist-20k: the first 20 000 training images of MNIST, of which a share is missing in training too.
* synthetic: z ~ N(0, I_2), a fixed random two-layer tanh net of z, each of the 100 columns scaled to [0, 1]; 50 000
  training rows.

Methods, all with the same decoder:

* vad: the auto-decoder, without an encoder;
* zero: a VAE whose encoder takes a missing entry for a zero, trained on the data as they are;
* masked: a VAE whose encoder gets the mask, trained with a random share of the entries hidden from the encoder and
  scored all the same;
* semi: as "zero", trained with the answers of its encoder refined by 20 gradient steps in every step (semi-amortised).

Each of them with "-half" behind it is trained with a KL weight of one half, so that more latents stay in use.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from table_tasks import Cell, Task, make_task

from pyrovae import data
from pyrovae.data import Dataset, Rows
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.patterns import hide_from_encoder, hide_in_training
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.training import RunFolder, Trainer

DATA = ("mnist", "fashion-mnist", "mnist-20k", "synthetic")
METHODS = tuple(name + weight for name in ("vad", "zero", "masked", "semi") for weight in ("", "-half"))
HIDE = (0.0, 0.95)
"""The range of the share that is hidden from the encoder of "masked", in each row."""
REFINE_STEPS = 20
"""Steps by which the training of "semi" refines the answers of the encoder."""
COLUMNS, LATENTS, ROWS = 100, 2, 50_000
VALIDATION = 2000


class Training(NamedTuple):
    """One training."""

    data: str
    trained_missing: float
    method: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of the run folder."""
        return f"{self.data}-{self.trained_missing:g}-{self.method}-{self.seed}"


def synthetic(seed: int = 0) -> Dataset:
    """The synthetic set. The net is one of width 50; its weights are drawn from the seed, as the rows are."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    first, bias, second = normal(LATENTS, 50), normal(50), normal(50, COLUMNS) / 50**0.5
    z = normal(ROWS + 2 * VALIDATION, LATENTS)
    x = torch.tanh(torch.tanh(z @ first + bias) @ second)
    low, high = x[:ROWS].amin(0), x[:ROWS].amax(0)
    x = ((x - low) / (high - low)).clamp(0, 1)
    parts = x.split([ROWS, VALIDATION, VALIDATION])
    return Dataset("synthetic", *(Rows(part) for part in parts), kind="unit")


def dataset(training: Training) -> Dataset:
    """The data of a training; its test rows are complete."""
    name = training.data
    if name == "synthetic":
        found = synthetic()
    else:
        found = data.load(name.removesuffix("-20k"), seed=training.seed)
        validation = found.validation.take(slice(VALIDATION))  # enough to find the best epoch
        train = found.train.take(slice(20_000)) if name.endswith("-20k") else found.train
        found = replace(found, name=name, train=train, validation=validation, kind="unit", options={})
    if training.trained_missing:
        found = hide_in_training(found, training.trained_missing, seed=training.seed)
    return hide_from_encoder(found, HIDE) if training.method.startswith("masked") else found


def settings(training: Training) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The pair, its options, and those of the Trainer."""
    pictures = training.data != "synthetic"
    options: dict[str, Any] = {
        "latent_dim": 50 if pictures else LATENTS,
        "hidden": [200] if pictures else [100, 100],
        "likelihood": "bernoulli" if pictures else "normal",
    }
    if not pictures:
        options["likelihood_scale"] = 0.05
    epochs = {"mnist": 25, "fashion-mnist": 15, "mnist-20k": 30, "synthetic": 15}[training.data]
    trainer = {"epochs": epochs, "batch_size": 256, "lr": 2e-3, "lr_schedule": "cosine", "seed": training.seed}
    method, half, _ = training.method.partition("-half")
    if half:
        trainer["kl_weight"] = 0.5
    if method == "vad":
        options |= {"posterior_scale": "learned", "log_var": -3.0, "init": "pca"}
        return "auto-decoder", options, {**trainer, "lr": {"model": 2e-3, "guide": 0.1}}
    options |= {"layer": "plain", "sees_mask": method == "masked"}
    if method == "semi":
        trainer["refine_steps"] = REFINE_STEPS
    return "gaussian", options, {**trainer, "objective": "mean-field"}


def open_run(training: Training, root: Path, found: Dataset | None = None) -> Run:
    """The finished run of a training."""
    return Run.open(root / training.folder, data=dataset(training) if found is None else found)


def train(training: Training, root: Path, progress: bool = True) -> None:
    """Train, or go on with a training that broke off. One that is finished is left alone."""
    folder = root / training.folder
    if (folder / "finished").exists():
        return
    pair, options, trainer = settings(training)
    found = dataset(training)
    if RunFolder(folder).config_path.exists():
        Run.open(folder, data=found).train(resume=True, progress=progress)
    else:
        Run.create(folder, pair, options, found, trainer).train(progress=progress)
    (folder / "finished").touch()


def table_task(name: str, seed: int, most_rows: int) -> Task:
    """A table of VAEM with half of its entries hidden, with at most so many rows to fit on."""
    task = make_task(Cell("vaem", name, 50, seed))
    return task._replace(train=task.train[:most_rows])


def impute_table(method: str, task: Task, seed: int) -> np.ndarray:
    """Fill the rows of a task.

    "imputer" is `VAEImputer` without trees, "guide" the pair `tabular` alone, as its training leaves it, "guide+20" the
    same with its answers refined by 20 steps on the objective of the training, "vad" the auto-decoder with the same
    decoder.
    """
    import pandas as pd

    from pyrovae.data import Schema
    from pyrovae.data.tables import TableCodec
    from pyrovae.estimators import VAEImputer
    from pyrovae.estimators.baselines import impute_with
    from pyrovae.pairs.table_defaults import default_epochs

    if method == "mean-mode":
        return impute_with(method, task.train, task.rows, task.kinds, seed)
    names = [f"x{number}" for number in range(task.train.shape[1])]
    frame, rows = (pd.DataFrame(values, columns=names) for values in (task.train, task.rows))
    kinds = {name: kind for name, kind in zip(names, task.kinds, strict=True) if frame[name].nunique() > 2}
    if method == "imputer":
        return VAEImputer(random_state=seed, kinds=kinds, trees=False).fit(frame).transform(rows).to_numpy(dtype=float)
    codec = TableCodec.fit(Schema.infer(frame, kinds=kinds), frame)
    auto = method == "vad"
    found = codec.dataset(codec.rows(frame).numbered(), transform=None if auto else HideLikeOtherRows())
    pair = find_pair("auto-decoder" if auto else "tabular")
    torch.manual_seed(seed)
    latents = {"posterior_scale": "learned", "init": "pca"} if auto else {}
    vae = pair.build(found, latent_dim=min(10, len(names)), **latents)
    settings: dict[str, Any] = {**pair.training, "batch_size": 256, "lr_schedule": "cosine", "seed": seed}
    settings |= {"lr": {"model": 2e-3, "guide": 0.05}} if auto else {}
    Trainer(**settings, epochs=default_epochs(len(frame), 256), progress=False).fit(vae, found)
    hidden = codec.rows(rows, unseen="missing")
    if auto:
        vae = vae.fit_posterior(hidden.x, hidden.mask, steps=300, progress=False)
    elif steps := int(method.partition("+")[2] or 0):
        weight = settings.get("kl_weight", 1.0)
        vae = vae.fit_posterior(hidden.x, hidden.mask, steps=steps, start="guide", kl_weight=weight, progress=False)
    filled = codec.complete(vae.impute(hidden.x, hidden.mask, num_samples=200).double().numpy())
    return codec.schema.decode(filled).to_numpy(dtype=float)
