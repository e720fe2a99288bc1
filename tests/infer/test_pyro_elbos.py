"""Pyro's own objectives, compiled: value and gradient are those of Pyro at the same draws."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_pairs import belief_network, gaussian, mixed
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE
from pyrovae.infer import CompiledLoss, CompileError, KLWeightMessenger, make_objective
from pyrovae.infer.pyro_elbos import PyroLoss

DOUBLE = {"dtype": torch.float64}


MASK = torch.tensor([True, True, False, True])


class Words(PyroModule):
    """A plate within the plate over the data, a class for each row and a bit for each word, a weight and a mask."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.4, 0.1], **DOUBLE))
        self.bit = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], **DOUBLE))
        self.loc = nn.Parameter(torch.tensor([[-1.0, 0.5, 1.0], [0.3, 0.2, -0.8]], **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-2), poutine.scale(scale=0.7):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            with pyro.plate("words", 4, dim=-1), poutine.mask(mask=MASK):
                b = pyro.sample("b", dist.Bernoulli(logits=self.bit[y]))
                pyro.sample("x", dist.Normal(self.loc[b.long(), y], 1.0), obs=x)


class WordsGuide(PyroModule):
    def __init__(self, infer, infer_bit):
        super().__init__()
        self.infer, self.infer_bit = infer, infer_bit
        self.net = nn.Linear(4, 3).double()
        self.shift = nn.Parameter(torch.tensor([-0.3, 0.2, 0.9], **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-2), poutine.scale(scale=0.7):
            y = pyro.sample("y", dist.Categorical(logits=self.net(x).unsqueeze(-2)), infer=self.infer)
            with pyro.plate("words", 4, dim=-1), poutine.mask(mask=MASK):
                pyro.sample("b", dist.Bernoulli(logits=self.shift[y] + x), infer=self.infer_bit)


def words(infer=None, infer_bit=None):
    return Words(), WordsGuide(infer or {}, infer_bit or {})


class Baselined(PyroModule):
    """The guide of the mixed pair, whose bit has a baseline that is a net of the data."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(6, 1).double()
        self.critic = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)).double()
        self.shift = nn.Parameter(torch.tensor(0.2, **DOUBLE))

    def forward(self, x):
        baseline = {"nn_baseline": self.critic, "nn_baseline_input": x}
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Bernoulli(logits=self.logits(x).squeeze(-1)), infer={"baseline": baseline})
            pyro.sample("z", dist.Normal(x[:, 0] + self.shift, 0.7))


class Beside(PyroModule):
    """A guide with a factor, an auxiliary draw and a latent that has no divergence in closed form."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3, **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            noise = pyro.sample("noise", dist.Normal(self.loc, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Laplace(self.loc + 0.1 * noise, 0.5))


class Line(PyroModule):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.8, **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), **DOUBLE), 1.0))
            pyro.sample("x", dist.Normal(self.slope * z.unsqueeze(-1).expand(-1, 6), 1.0).to_event(1), obs=x)


class Mixture(PyroModule):
    """A class for each row and one for each word, both summed out by the model."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.4, -0.3], **DOUBLE))
        self.loc = nn.Parameter(torch.tensor([[-1.0, 1.5], [0.5, 0.0]], **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros((), **DOUBLE), 1.0))
            y = pyro.sample("y", dist.Categorical(logits=self.logits), infer=PARALLEL)
            with pyro.plate("words", 3, dim=-1), poutine.mask(mask=torch.tensor([True, False, True])):
                w = pyro.sample("w", dist.Categorical(logits=self.loc[y]), infer=PARALLEL)
                pyro.sample("x", dist.Normal(z + self.loc[w, y], 1.0), obs=x)


class Near(PyroModule):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5, **DOUBLE))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(self.slope * x.mean(1, keepdim=True), 0.8))


PARALLEL, SEQUENTIAL = {"enumerate": "parallel"}, {"enumerate": "sequential"}
SEVERAL = {"enumerate": "parallel", "num_samples": 5}


def bits(rows=7, width=6):
    return torch.bernoulli(torch.full((rows, width), 0.5, **DOUBLE))


CASES = {
    "reparameterised": (gaussian, bits, ("elbo", "mean-field", "graph", "enum")),
    "score function": (belief_network, bits, ("elbo", "graph", "enum")),
    "mixed": (mixed, bits, ("elbo", "graph", "enum")),
    "subsampled": (partial(mixed, 30), bits, ("elbo", "graph", "enum")),
    "two plates": (words, partial(bits, 5, 4), ("elbo", "graph", "enum")),
    "enumerated": (partial(words, PARALLEL, PARALLEL), partial(bits, 5, 4), ("enum",)),
    "one after the other": (partial(words, SEQUENTIAL), partial(bits, 1, 4), ("enum",)),
    "several draws": (partial(words, SEVERAL, SEVERAL), partial(bits, 5, 4), ("enum",)),
    "baseline": (lambda: (mixed()[0], Baselined()), bits, ("graph",)),
    "beside": (lambda: (Line(), Beside()), bits, ("mean-field",)),
    "summed out": (lambda: (Mixture(), Near()), lambda: torch.randn(5, 3, **DOUBLE), ("enum",)),
}
POINTS = [(case, name, 1, False) for case, (_, _, names) in CASES.items() for name in names]
POINTS += [("mixed", "graph", 3, True), ("enumerated", "enum", 3, True), ("mixed", "elbo", 3, False)]


def gradients(vae):
    return {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}


def both(case, name, beta, particles, vectorize):
    """Loss and gradients of Pyro and those of the compiled step, from the same seed."""
    make, data, _ = CASES[case]
    torch.manual_seed(3)
    x = data()
    vae = VAE(*make(), example=x)
    nesting = max(1, vae.sites.max_plate_nesting)
    options = {"num_particles": particles, "vectorize_particles": vectorize, "max_plate_nesting": nesting}
    objective = make_objective(name, **options)
    torch.manual_seed(1)
    with pyro.validation_enabled(False), vae.scope(), KLWeightMessenger(beta):
        loss = objective.loss_and_grads(vae.model, vae.guide, x)
    expected = gradients(vae)
    vae.zero_grad()
    step = CompiledLoss(vae, make_objective(name, **options), backend="eager")
    torch.manual_seed(1)
    return (loss, expected), (step(x, beta).item(), gradients(vae))


@pytest.mark.parametrize(("case", "name", "particles", "vectorize"), POINTS)
def test_value_and_gradient_are_those_of_pyro(case, name, particles, vectorize):
    beta = 1.0 if case == "summed out" or particles > 1 else 0.6
    (loss, expected), (found, ours) = both(case, name, beta, particles, vectorize)
    assert found == pytest.approx(loss, abs=1e-6)
    assert ours.keys() == expected.keys() != set()
    for parameter, gradient in expected.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-6, atol=1e-6)


def test_objects_of_pyro_are_recognised_and_others_are_not():
    class Changed(Trace_ELBO):
        """One whose estimator nobody knows."""

    x = bits()
    vae = VAE(*gaussian(), example=x)
    for objective in (Trace_ELBO(), TraceMeanField_ELBO(), TraceGraph_ELBO(), TraceEnum_ELBO()):
        CompiledLoss(vae, objective, backend="eager")(x)
    for objective in (Changed(), RenyiELBO()):
        with pytest.raises(
            CompileError, match=f"{type(objective).__name__} cannot be compiled; .*not their subclasses"
        ):
            CompiledLoss(vae, objective)


def test_a_decaying_average_is_refused():
    def guide(x):
        level = pyro.param("level", torch.zeros((), **DOUBLE))
        with pyro.plate("data", len(x)):
            b = {"use_decaying_avg_baseline": True}
            pyro.sample("b", dist.Bernoulli(logits=level), infer={"baseline": b})
            pyro.sample("z", dist.Normal(x[:, 0], 0.7))

    x = bits()
    vae = VAE(mixed()[0], guide, example=x)
    with pytest.raises(ValueError, match="decaying-average baseline of site 'b' stands in Pyro's parameter store"):
        CompiledLoss(vae, TraceGraph_ELBO(), backend="eager")(x)


def test_what_is_downstream_is_found():
    """The bit of a word reaches the data of the words alone, and the class of a row all that is drawn after it."""
    x = bits(5, 4)
    vae = VAE(*words(), example=x)
    loss = PyroLoss(TraceGraph_ELBO(max_plate_nesting=2))
    with vae.scope():
        loss.look(vae.model, vae.guide, x)
    assert loss._influence["model"] == {"y": ("y",), "b": ("b", "y"), "x": ("b", "y")}
    assert loss._influence["guide"] == {"y": ("y",), "b": ("b", "y")}
