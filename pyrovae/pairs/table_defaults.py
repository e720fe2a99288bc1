"""Defaults of the pair of tables. The command line, `VAEImputer` and `VAETransformer` read them here."""

from __future__ import annotations

from typing import Final

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
