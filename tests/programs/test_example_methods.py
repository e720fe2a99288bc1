"""Every method of a VAE, evaluation and pictures on every example program."""

import math

import pyro
import pytest
import torch
from examples import cevae, dmm, scanvi
from examples.catalogue import EXAMPLES, hand_weights, split
from pyro import poutine

from pyrovae import VAE
from pyrovae.data import Dataset, Rows
from pyrovae.metrics import class_probabilities, evaluate
from pyrovae.plotting import run_figures

OUTPUTS = {
    "cvae": {"x": (32,)},
    "dmm": {f"x_{t}": (5,) for t in range(1, 5)},
    "dmm-flow": {f"x_{t}": (5,) for t in range(1, 5)},
    "air": {"x": (24, 24)},
    "prodlda": {"words": (12,)},
    "scanvi": {"y_observed": (3,), "x": (10,)},
    "cevae": {"x": (4,), "t": (), "y": ()},
}
"""The data sites of each, with the shape of a row."""
LOOKS_AT_DATA = ("prodlda", "scanvi")


def prepared(name, num):
    vae, data = EXAMPLES[name].make_vae(), EXAMPLES[name].data(num)
    x, given = split(data)
    return vae.prepare(x, **given).eval(), x, given


def by_site(found, name):
    """What a method returned, as a dictionary by site."""
    return found if isinstance(found, dict) else {next(iter(OUTPUTS[name])): found}


@pytest.mark.parametrize("name", EXAMPLES)
def test_log_likelihood_is_that_of_importance_sampling_by_hand(name):
    vae, x, given = prepared(name, 4)
    vae.vectorizes(x, **given)
    vae._vectorize = False  # so that the same draws come in the same order
    pyro.set_rng_seed(3)
    found = vae.log_likelihood(x, 20, return_details=True, **given)
    pyro.set_rng_seed(3)
    weights = hand_weights(vae, {"x": x, **given}, 20, training=False).double()
    torch.testing.assert_close(found.value.double(), weights.logsumexp(0) - math.log(20), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["cvae", "dmm", "dmm-flow", "prodlda", "scanvi", "cevae"])
def test_log_likelihood_of_many_samples(name):
    """Vectorised and one by one agree within the error."""
    vae, x, given = prepared(name, 3)
    many = vae.log_likelihood(x, 300 if name == "prodlda" else 1000, return_details=True, **given)
    vae._vectorize = False
    single = vae.log_likelihood(x, 150, return_details=True, **given)
    error = (many.standard_error**2 + single.standard_error**2).sqrt()
    assert ((many.value - single.value).abs() < 4 * error + 1e-3).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_outputs(name):
    vae, x, given = prepared(name, 6)
    rows = {"data": x} if name in LOOKS_AT_DATA else {}
    posterior = vae.posterior(x, **given)
    assert set(posterior) == set(vae.sites.latent)
    encoded = vae.encode(x, **given)
    z = {n: q.sample() for n, q in posterior.items()}
    decoded = vae.decode(z if isinstance(encoded, dict) else next(iter(z.values())), **rows, **given)
    shapes = {site: tuple(p.batch_shape + p.event_shape) for site, p in by_site(decoded, name).items()}
    expected = {site: (6, *shape) for site, shape in OUTPUTS[name].items()}
    assert shapes == expected
    forward = vae(x, **given)
    found = {
        "reconstruct": vae.reconstruct(x, **given),
        "forward": forward.reconstruction,
        **{output: vae.sample(6, output, **rows, **given) for output in ("draw", "mean")},
    }
    if name in LOOKS_AT_DATA:
        with pytest.raises(NotImplementedError, match=r"distribution of site '(words|x)' has no mode; take draws"):
            vae.sample(6, "mode", **rows, **given)
    else:
        found["mode"] = vae.sample(6, "mode", **given)
    for values in found.values():
        values = by_site(values, name)
        assert {site: tuple(value.shape) for site, value in values.items()} == expected
        assert all(value.isfinite().all() for value in values.values())
    assert forward.nll.shape == forward.kl.shape == (6,)
    assert (forward.nll + forward.kl).isfinite().all()


@pytest.mark.parametrize("name", LOOKS_AT_DATA)
def test_models_that_look_at_their_data_ask_for_rows(name):
    vae, x, given = prepared(name, 4)
    latents = {site: q.sample() for site, q in vae.posterior(x, **given).items()}
    for call in (lambda: vae.sample(4, **given), lambda: vae.decode(latents, **given)):
        with pytest.raises(ValueError, match="looks at its data beyond obs=, so it needs rows to look at: give data=x"):
            call()


@pytest.mark.parametrize(("name", "argument"), [("cvae", "c"), ("dmm", "lengths")])
def test_missing_arguments_are_named(name, argument):
    vae, x, _ = prepared(name, 4)
    for call in (vae.encode, vae.reconstruct, vae.log_likelihood, vae, lambda x: vae.sample(4)):
        with pytest.raises(TypeError, match=rf"needs the argument {argument!r}; give {argument}="):
            call(x)


@pytest.mark.parametrize("name", EXAMPLES)
def test_evaluation_and_figures(name):
    vae, data = EXAMPLES[name].make_vae(), EXAMPLES[name].data(12)
    x, given = split(data)
    rows = Rows.of(x, **given)
    result = evaluate(vae, rows, num_samples=20)
    assert math.isfinite(result.log_likelihood)
    assert math.isfinite(result.bound)
    assert result.bound < result.log_likelihood + 5
    assert math.isfinite(result.reconstruction_error)
    nothing = rows.take(slice(0))
    figures = run_figures(vae, Dataset("examples", rows, nothing, nothing, "real"), [])
    sites = [""] if len(OUTPUTS[name]) == 1 else [f"_{site}" for site in OUTPUTS[name]]
    expected = {f"{kind}{site}" for kind in ("samples", "reconstructions") for site in sites} | {"latent_scatter"}
    assert set(figures) == expected | {"cvae": {"interpolation"}, "scanvi": {"latent_profile", "class_confusion"}}.get(
        name, set()
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_save_and_load(name, tmp_path):
    vae, x, given = prepared(name, 4)
    rows = Rows.of(x, **given)
    nothing = rows.take(slice(0))
    vae.save(tmp_path / "saved", Dataset("examples", rows, nothing, nothing, "real"))
    torch.manual_seed(7)
    again = VAE.load(tmp_path / "saved", EXAMPLES[name].make_vae())
    again.prepare(x, **given).eval()
    found = []
    for each in (vae, again):
        torch.manual_seed(0)
        found.append(each.log_likelihood(x, 5, **given))
    assert torch.equal(*found)


# -- what is special about each ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_flows", [0, 1])
def test_sequences_end_at_their_lengths(num_flows):
    """A padded sequence has the likelihood of the short one; what stands behind its end changes nothing."""
    vae = dmm.make_vae(num_flows)
    x = dmm.melodies(3)["x"]
    lengths = torch.full((3,), 2)
    vae.prepare(x, lengths=lengths).eval()
    noisy = torch.cat([x[:, :2], 1 - x[:, 2:]], 1)
    values = []
    for rows in (x, noisy, x[:, :2]):
        pyro.set_rng_seed(1)
        values.append(vae.log_likelihood(rows, 50, lengths=lengths))
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(values[2], values[0])
    assert list(vae.reconstruct(x[:, :2], lengths=lengths)) == ["x_1", "x_2"]
    if num_flows:  # whose latents have no means, so that draws are decoded
        return
    errors = [
        evaluate(vae, Rows.of(rows, lengths=lengths), num_samples=1).reconstruction_error for rows in (x, x[:, :2])
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    masks = vae.observed_masks(x, lengths=lengths)
    assert masks["x_2"].all()
    assert not masks["x_3"].any()


def test_labels_of_cells():
    """q(y|x) averages over the state that it depends on, and evaluation sees labels in the error alone."""
    vae, x, given = prepared("scanvi", 30)
    assert vae.sites.classes == ("y_unobserved",)
    with torch.no_grad():
        draws = torch.stack([vae.posterior(x)["y_unobserved"].probs for _ in range(500)])
    torch.testing.assert_close(class_probabilities(vae, x), draws.mean(0), rtol=0, atol=0.05)
    labelled = evaluate(vae, Rows.of(x, **given), num_samples=1000)
    unlabelled = float(vae.log_likelihood(x, 1000, y=torch.full((30,), -1)).mean())
    assert labelled.log_likelihood == pytest.approx(unlabelled, abs=0.1)
    assert 0 <= labelled.classification_error <= 1


def test_types_that_are_drawn_are_those_that_the_counts_come_from():
    """`obs_mask=` makes two sites of one; the data come from what was drawn for the unknown ones."""
    vae, x, _ = prepared("scanvi", 5)
    drawn = {}

    def noting(model):
        def run(*args, **kwargs):
            trace = poutine.trace(model).get_trace(*args, **kwargs)
            drawn.update({name: trace.nodes[name]["value"] for name in ("y", "y_observed")})

        return run

    pyro.set_rng_seed(2)
    with vae.scope(), torch.no_grad():
        noting(poutine.uncondition(vae.model))(x)
    pyro.set_rng_seed(2)
    found = vae.sample(5, data=x)["y_observed"]
    assert torch.equal(found, drawn["y"])
    assert not torch.equal(found, drawn["y_observed"])


def test_new_patients_have_no_treatment_and_no_outcome_yet():
    """Treatment and outcome are drawn by the guide then: log p(x) alone, and all data sites in what is given back."""
    vae, x, given = prepared("cevae", 4)
    alone = vae.log_likelihood(x, 5000)
    # Also for a pair that saw new patients first.
    torch.testing.assert_close(VAE(vae.model, vae.guide).log_likelihood(x, 5000), alone, rtol=0, atol=0.3)
    many = torch.logsumexp(hand_weights(vae, {"x": x}, 300, training=False), 0) - math.log(300)
    torch.testing.assert_close(many, alone, rtol=0, atol=0.5)
    assert vae.sample(3).keys() == vae.reconstruct(x).keys() == {"x", "t", "y"}
    assert set(cevae.patients(2)) == {"x", *given}


def test_library_sizes_scale_what_is_sampled():
    vae, _, _ = prepared("scanvi", 4)
    x = torch.full((200, scanvi.GENES), 2.0)
    small, large = (vae.sample(200, "mean", data=rows)["x"].sum(-1).mean() for rows in (x, 10 * x))
    assert float(large / small) == pytest.approx(10, rel=0.15)
