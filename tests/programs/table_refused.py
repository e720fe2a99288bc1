"""What is refused of the table: which pairs, where, and what the line says."""

from __future__ import annotations

import re

WEIGHTS = "iwae iwae-stl iwae-dreg renyi nvil vimco rws wake-wake wake-sleep fit-iwae"
DREAMS = "rws wake-sleep"
PATH = "iwae-stl iwae-dreg"
SINGLE = f"{PATH} rws wake-wake wake-sleep"
ALL = f"{WEIGHTS} fit-elbo fit-mean-field fit-graph fit-enum prepare"
FIGURES = "log_likelihood evaluate"
MEAN = "forward reconstruct"

RULES = [
    # Plates.
    ("sequential plate over the rows", f"{WEIGHTS} {FIGURES}", "the plate 'steps' over the data is sequential"),
    ("sequential plate over the rows", f"{MEAN} bound encode posterior sample", "site '[xz]_0' is of a single row"),
    ("no plate$", "fit-elbo fit-mean-field fit-graph fit-enum", 'fails on the first batch, .*: at site "z", invalid'),
    # Latents of all data.
    (".*global", SINGLE, "latent site '(mu|_Auto.*)' lies outside the plate over the data"),
    ("EasyGuide", SINGLE, "latent site 'mu' lies outside the plate over the data"),
    ("Bayesian decoder", SINGLE, "latent site 'net.weight' lies outside the plate over the data"),
    ("only a global", "encode", "no latent of this pair belongs to a datum"),
    ("factor: outside the model", f"{WEIGHTS} bound forward {FIGURES}", "observed site 'f' lies outside the plate"),
    ("factor: outside the guide", WEIGHTS, "observed site 'f' lies outside the plate"),
    # Guides.
    ("Auto(Diag|Multi|Low|Lap)[a-zA-Z]*$", SINGLE, "site '_Auto.*' lies outside .*; the guide alone draws it"),
    ("Auto(Diag|Multi|Low)", "bound forward", "site '_Auto.*' lies outside .*; the guide alone draws it"),
    ("Auto(?!Normal)|likelihood: point", FIGURES, "site 'z' of the guide is a Delta that is no function of"),
    ("(AutoNormal|AutoDelta|likelihood: point)$", DREAMS, "site 'z' of the guide is a Delta"),
    ("Auto.* and a global", "evaluate", "lies outside the plate"),
    (
        "(Auto(Diag|Multi|Low)|EasyGuide)",
        "encode posterior",
        "'z' of the guide is a Delta at a function of the auxiliary",
    ),
    ("draw of the guide alone", "fit-mean-field", "which is no site of the model"),
    ("latent that the guide lacks", f"{WEIGHTS} {FIGURES} bound forward", "'u' of the model is missing from the guide"),
    ("latent that the guide lacks", "fit-mean-field fit-graph", "'u' of the model is missing from the guide"),
    # Enumeration.
    ("latent enumerated seq", ALL, "site 'u', model-side sequential enumeration is not implemented"),
    ("(enumerated latent|latent summed|Markov|discrete)", DREAMS, "latents that are summed out, "),
    ("discrete", "fit-mean-field fit-elbo fit-graph", "does not sum latent site 'y' of the model out"),
    ("(enumerated latent|latent summed|Markov)", "fit-mean-field fit-elbo fit-graph", "does not sum latent site '[uy]"),
    # Gradients along the path of a draw.
    ("(discrete|.*von Mises|.*lkj|.*binary latent)", PATH, "has no reparameterised draws, which gradient='stl'"),
    (
        "(.*von Mises|.*lkj|.*binary latent)",
        "fit-mean-field",
        "All distributions .* fully reparameterized .* site 'z' of",
    ),
    (".*straight through", PATH, "site 'z' draws straight through"),
    ("factor: guide, not rep", "fit-mean-field", "site 'f' of the guide, which has no reparameterised draws"),
    ("deterministic: guide", "fit-mean-field", "site 'w' of the guide, which is no site of the model"),
    ("layers upwards", "fit-mean-field", "the model draws site 'z' after latents that the guide draws after it"),
    # Dreams.
    ("(sequential plate in|pieces|teacher)", DREAMS, r"dreams one data site, and the model observes \['x"),
    ("(bool|log of x|twice x)", DREAMS, "hands dreams of site 'x.*' to the guide as data"),
    ("factor: model", DREAMS, "whose factor 'f' is no draw"),
    # Values and masks.
    (".*wrong support", f"{WEIGHTS} {FIGURES}", "site 'z' has values outside of the support"),
    (".*wrong support", "decode", "the latent 'z' cannot be"),
    (".*wrong support", "fit-elbo fit-mean-field fit-graph fit-enum", "computing log_prob at site 'z'"),
    (".*(categorical|transformed|cauchy)", MEAN, "has no mean; take draws"),
    ("mask of the (prior|guide)", FIGURES, "latent site 'z' is under one mask in the model and another one"),
]


def refusal(pair: str, cell: str) -> str | None:
    """What the refusal of a cell says; None where there is none."""
    return next((text for pairs, cells, text in RULES if re.match(pairs, pair) and cell in cells.split()), None)
