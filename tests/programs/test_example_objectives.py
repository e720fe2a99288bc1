"""Every objective on every example program: a loss of Pyro at the same draws, or one clear line."""

import pyro
import pytest
import torch
from examples.catalogue import EXAMPLES, hand_weights, split
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from pyrovae.infer import IWAE, functional, make_objective, objective_names
from pyrovae.training import Trainer

PARTICLES = {"elbo": 1, "mean-field": 1, "graph": 1, "enum": 1, "nvil": 1}
STOCK = {"mean-field": TraceMeanField_ELBO, "graph": TraceGraph_ELBO, "enum": TraceEnum_ELBO}
NOT_REPARAMETERISED = r"site '(present_1|y_unobserved)'.* has no reparameterised draws"
SEVERAL_SITES = r"the sleep phase dreams one data site, and the model observes \['.*use sleep_phi=0"
DROPOUT = "the guide draws random numbers beside its sites, dropout perhaps"
REFUSED = {
    **{(name, objective): NOT_REPARAMETERISED for name in ("air", "scanvi") for objective in ("iwae-stl", "iwae-dreg")},
    **{(name, "mean-field"): NOT_REPARAMETERISED for name in ("air", "scanvi")},
    **{
        (n, objective): SEVERAL_SITES
        for n in ("dmm", "dmm-flow", "scanvi", "cevae")
        for objective in ("rws", "wake-sleep")
    },
    ("cevae", "mean-field"): r"site 't'.*(leaves|left) out",
    **{("prodlda", objective): DROPOUT for objective in ("iwae-stl", "iwae-dreg")},
}
HINTS = (  # of Pyro
    "ignore:TraceEnum_ELBO found no sample sites configured",
    "ignore:y_unobserved:UserWarning",  # is marked for enumeration
)
SEVERAL_PARTICLES = (
    "iwae",
    "renyi",
    "vimco",
    "rws",
    "wake-wake",
)  # which BatchNorm of ProdLDA does not take in training


def by_hand(objective, vae, data, num_particles):
    """The loss from Pyro's traces, or of Pyro's own class."""
    if objective in STOCK:
        with vae.scope():
            return STOCK[objective](max_plate_nesting=1).loss(vae.model, vae.guide, **data)
    weights = hand_weights(vae, data, num_particles, training=True)
    bound = functional.renyi(weights, 0.5) if objective == "renyi" else functional.log_mean_exp(weights)
    return -float(bound.sum())


@pytest.mark.filterwarnings(*HINTS)
@pytest.mark.parametrize("objective", objective_names())
@pytest.mark.parametrize("name", EXAMPLES)
def test_loss_is_pyros_at_the_same_draws(name, objective):
    vae, data = EXAMPLES[name].make_vae(), EXAMPLES[name].data(6)
    x, given = split(data)
    vae.prepare(x, **given).train()
    num_particles = PARTICLES.get(objective, 3)
    options = {"vectorize_particles": False} if num_particles > 1 else {}
    ours = make_objective(objective, num_particles=num_particles, max_plate_nesting=1, **options)

    def loss(call):
        pyro.set_rng_seed(1)
        with vae.scope():
            return call(vae.model, vae.guide, x, **given)

    if (name, objective) in REFUSED:
        for call in (ours.loss, ours.loss_and_grads):
            with pytest.raises(ValueError, match=REFUSED[name, objective]):
                loss(call)
        return
    value, trained = loss(ours.loss), loss(ours.loss_and_grads)
    pyro.set_rng_seed(1)
    with torch.no_grad():
        expected = by_hand(objective, vae, data, num_particles)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert trained == pytest.approx(expected, rel=1e-4, abs=1e-3)
    gradients = [parameter.grad for parameter in vae.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.filterwarnings(*HINTS)
@pytest.mark.parametrize("objective", objective_names())
@pytest.mark.parametrize("name", EXAMPLES)
def test_training(name, objective):
    """Two epochs reach every parameter, with validation rows."""
    vae, data, held_out = EXAMPLES[name].make_vae(), EXAMPLES[name].data(12), EXAMPLES[name].data(5)
    trainer = Trainer(objective=objective, epochs=2, batch_size=6, lr=0.01, progress=False)
    before = {key: value.detach().clone() for key, value in vae.named_parameters()}
    refusal = REFUSED.get((name, objective))
    if name == "prodlda" and objective in SEVERAL_PARTICLES:
        refusal = r"the BatchNorm layer '.*norm' would take its statistics from .* particles"
    if refusal is not None:
        with pytest.raises(ValueError, match=refusal):
            trainer.fit(vae, data, validation=held_out)
        return
    history = trainer.fit(vae, data, validation=held_out)
    for row in history.rows:
        assert torch.tensor([row["loss"], row["validation_loss"]]).isfinite().all()
    still = {key for key, value in vae.named_parameters() if torch.equal(value, before[key])}
    if (name, objective) == ("cevae", "graph"):  # Pyro's has no gradient for what is observed and not reparameterised
        still -= {key for key in still if "propensity" in key}
    assert not still


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradients_teach_what_the_guide_observes(gradient):
    """With one particle, STL and the plain gradient differ by the score of the latents, which t has no part in."""
    found = []
    for objective in (IWAE(1), IWAE(1, gradient=gradient)):
        pyro.set_rng_seed(0)
        vae, data = EXAMPLES["cevae"].make_vae(), EXAMPLES["cevae"].data(6)
        x, given = split(data)
        with vae.scope():
            objective.loss_and_grads(vae.model, vae.guide, x, **given)
        found.append([p.grad for n, p in vae.guide.named_parameters() if n.startswith(("propensity", "treated"))])
    assert all(gradient.abs().sum() > 0 for gradient in found[0])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
