"""Every pair with every objective and every method: the right value, or a refusal in one line; never a crash."""

from __future__ import annotations

import math
import re

import pyro
import pytest
import table_guides
import table_latents
import table_likelihoods
import table_scales
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from table_pairs import PAIRS
from table_refused import refusal

from pyrovae import VAE
from pyrovae.data import Rows
from pyrovae.infer import make_objective, objective_names
from pyrovae.metrics import evaluate
from pyrovae.rng import begin
from pyrovae.training import Trainer
from pyrovae.training.data import TrainingData

pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "RuntimeWarning")]  # of Pyro
SUBJECTS = (table_guides, table_latents, table_likelihoods, table_scales)  # which fill the table
PYRO = ("elbo", "mean-field", "graph", "enum")
OURS = [name for name in objective_names() if name not in PYRO]
LOOPED = ("iwae", "vimco", "wake-wake")  # one objective for each way in which particles are drawn and weighed


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(name):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    return PAIRS[name]()


def attempt(name, cell, call):
    """What a call gives; or None, where it is refused as the table says, in one line with a name in it."""
    expected = refusal(name, cell)
    try:
        value = call()
    except (ValueError, TypeError, NotImplementedError) as error:
        message = str(error)
        assert expected is not None, f"{cell} is refused: {message}"
        assert "\n" not in message
        assert re.search(expected, message), message
        return None
    assert expected is None, f"{cell} is not refused"
    return value


def gradients(objective, pair):
    for program in (pair.model, pair.guide):
        if isinstance(program, torch.nn.Module):
            program.zero_grad()
    loss = objective.loss_and_grads(pair.model, pair.guide, pair.x, **pair.data)
    named = pyro.get_param_store().named_parameters()
    return float(loss), {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named}


def agree(ours, theirs):
    for name in ours.keys() | theirs.keys():  # a program that a site is hidden from has no gradient for it
        first, second = (side.get(name, torch.zeros(())) for side in (ours, theirs))
        torch.testing.assert_close(*torch.broadcast_tensors(first, second), rtol=0, atol=1e-6)


def stock(name):
    """An objective of Pyro that has the exact gradient of the pair."""
    enumerated = "enumerated" in name or "Markov" in name or "discrete guide" in name
    return TraceEnum_ELBO(max_plate_nesting=1) if enumerated else Trace_ELBO()


@pytest.mark.parametrize(
    ("objective", "vectorize"), [*((name, None) for name in OURS), *((name, False) for name in LOOPED)]
)
@pytest.mark.parametrize("name", PAIRS)
def test_objectives_of_this_library(name, objective, vectorize):
    pair = build(name)
    particles = make_objective(objective, num_particles=3, vectorize_particles=vectorize)
    found = attempt(name, objective, lambda: gradients(particles, pair))
    if found is not None:
        assert math.isfinite(found[0])
        assert all(gradient.isfinite().all() for gradient in found[1].values())


@pytest.mark.parametrize("objective", ["iwae", "iwae-stl", "iwae-dreg"])
@pytest.mark.parametrize("name", PAIRS)
def test_one_particle_is_stock_pyro(name, objective):
    pair = build(name)
    found = attempt(name, objective, lambda: gradients(make_objective(objective, num_particles=1), pair))
    if found is None or name.startswith(("no plate", "latent summed")):  # which Pyro refuses, or sums amiss
        return
    if name in ("discrete guide, parallel", "discrete guide, sequential"):  # which Pyro sums out in the guide too
        return
    build(name)
    loss, expected = gradients(stock(name), pair)
    assert found[0] == pytest.approx(loss, abs=1e-6)
    if pair.path and objective == "iwae":
        agree(found[1], expected)


@pytest.mark.parametrize("name", [name for name in PAIRS if "one row" in name or name.startswith("1 rows")])
def test_of_one_row_iwae_is_renyi_elbo(name):
    pair = build(name)
    loop = {"num_particles": 3, "vectorize_particles": False}
    found = attempt(name, "iwae", lambda: gradients(make_objective("iwae", **loop), pair))
    # Pyro draws latents of all data for each particle anew, and the objectives of this library once.
    if found is None or name.startswith(("no plate", "Markov")) or "global" in name:
        return
    build(name)
    assert found[0] == pytest.approx(RenyiELBO(alpha=0, **loop).loss(pair.model, pair.guide, pair.x), abs=1e-6)


@pytest.mark.parametrize("objective", [*PYRO, "iwae"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_step_of_the_trainer_is_one_of_stock_svi(name, objective):
    pair = build(name)
    if not set(pair.data) <= {"y"}:
        return
    vae = VAE(pair.model, pair.guide)
    if attempt(name, "prepare", lambda: vae.prepare(pair.x, **pair.data)) is None:
        return
    rows = TrainingData(Rows(pair.x, **pair.data))
    one = 1 if objective == "iwae" else None
    trainer = Trainer(objective, one, optimizer="sgd", lr=0.1, epochs=1, batch_size=len(pair.x), progress=False, seed=7)
    if attempt(name, f"fit-{objective}", lambda: trainer.fit(vae, rows)) is None or name == "full size":
        return
    vae.to_param_store()
    trained = {key: value.detach().clone() for key, value in pyro.get_param_store().named_parameters()}
    pair = build(name)
    poutine.trace(pair.guide).get_trace(pair.x, **pair.data)  # automatic guides draw their initial values
    options = {"max_plate_nesting": 3} if objective == "enum" else {"num_particles": 1}
    svi = SVI(pair.model, pair.guide, pyro.optim.SGD({"lr": 0.1 / len(pair.x)}), make_objective(objective, **options))
    begin(7)
    svi.step(pair.x, **pair.data)
    stepped = dict(pyro.get_param_store().named_parameters())
    for key, value in trained.items():
        if key in stepped:
            torch.testing.assert_close(stepped[key].detach(), value, rtol=0, atol=1e-6)


def rows_of(value):
    return [v.shape[0] for v in (value.values() if isinstance(value, dict) else [value])]


@pytest.mark.parametrize("name", PAIRS)
def test_methods(name):
    pair = build(name)
    x, data, count = pair.x, pair.data, len(pair.x)
    vae = VAE(pair.model, pair.guide)
    if attempt(name, "prepare", lambda: vae.prepare(x, **data)) is None:
        return
    vae.eval()
    figure = attempt(
        name, "log_likelihood", lambda: vae.log_likelihood(x, 1000, condition=pair.condition or None, **data)
    )
    exact = None if pair.exact is None else pair.exact(x, **data)
    if figure is not None and exact is not None:
        torch.testing.assert_close(figure, exact, rtol=0, atol=pair.atol)
    terms = attempt(name, "bound", lambda: torch.stack([sum(vae.bound_terms(x, **data)[1:]) for _ in range(100)]))
    if terms is not None and exact is not None and not pair.condition:
        bound, error = -terms.mean(0), terms.std(0) / 100**0.5
        assert (bound <= exact + 4 * error + 1e-6).all()
    forward = attempt(name, "forward", lambda: vae(x, **data))
    if forward is not None:
        assert forward.nll.shape == forward.kl.shape == (count,)
        assert set(rows_of(forward.reconstruction)) == {count}
    for method, call in {
        "reconstruct": lambda: vae.reconstruct(x, **data),
        "sample": lambda: vae.sample(count, data=x, **data),
    }.items():
        value = attempt(name, method, call)
        assert value is None or set(rows_of(value)) == {count}
    attempt(name, "encode", lambda: vae.encode(x, **data))
    drawn = attempt(name, "posterior", lambda: {key: q.sample() for key, q in vae.posterior(x, **data).items()})
    if drawn:
        attempt(name, "decode", lambda: vae.decode(drawn, data=x, **data))
    if set(data) <= {"y"} and not pair.condition:
        result = attempt(name, "evaluate", lambda: evaluate(vae, Rows(x, **data), num_samples=20))
        assert result is None or math.isfinite(result.bound)
