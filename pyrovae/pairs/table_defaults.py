"""Defaults of the pair of tables. The command line, `VAEImputer` and `VAETransformer` read them here."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

PARAMETERIZATION: Final = "canonical"
"""Which parameters of its families the decoder gives."""
LATENT_DIM: Final = 20
"""Size of the latent of the pair and the imputer."""
HIDDEN: Final = (256, 256)
"""Hidden layers of the pair and the imputer."""
ENCODER: Final = "dense"
"""The encoder."""
PRIOR: Final = "standard-normal"
"""The prior of the latent."""
SCALE_FLOOR: Final = 0.02
"""Smallest standard deviation of a column, in units of the column's."""
KL_WEIGHT: Final = 0.02
"""Weight of the KL divergence in the training of the pair and the imputer."""
LR: Final = 2e-3
"""Learning rate at the start."""
LR_SCHEDULE: Final = "cosine"
"""How it falls."""
BATCH_SIZE: Final = 256
"""Rows per step."""
LAYER: Final = "plain"
"""Kind of the hidden layers."""
DROPOUT: Final = 0.0
"""Probability of dropping a hidden unit of the encoder in training."""
NUM_NETS: Final[int | None] = None
"""Nets of the imputer; None: by the number of steps."""
VARIANTS: Final[tuple[dict[str, object], ...]] = ({}, {"dropout": 0.2}, {"layer": "residual", "dropout": 0.2})
"""Options in which its nets differ."""
STEPS: Final = 5000
"""Steps of a training whose length nobody chose, within 20 and 300 epochs."""
STEPS_OF_NETS: Final = 7000
"""Steps of all nets together whose number nobody chose."""
MOST_NETS: Final = 5
"""The most nets whose number nobody chose."""


def default_nets(rows: int, batch_size: int, epochs: int) -> int:
    """Nets of a table: about `STEPS_OF_NETS` steps for all of them, at most `MOST_NETS`."""
    steps = epochs * math.ceil(rows / batch_size)
    return int(np.clip(round(STEPS_OF_NETS / steps), 1, MOST_NETS))


def default_epochs(rows: int, batch_size: int) -> int:
    """Epochs of a training of about `STEPS` steps, at least 20 and at most 300."""
    return int(np.clip(round(STEPS * batch_size / rows), 20, 300))
