"""Compiled steps: the same losses and gradients as without compilation, from the same random numbers."""

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, data_for, linear_pair, pictures, same_weights, weights_of
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import VAE, data
from pyrovae.infer import IWAE, NVIL, CompiledLoss, CompileError, KLWeightMessenger, compiled_code, make_objective
from pyrovae.pairs import find_pair, pairs
from pyrovae.training import Trainer
from pyrovae.training.checkpoint import RunFolder

# torch.compile itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

OBJECTIVES = ("iwae", "iwae-stl", "iwae-dreg", "renyi", "vimco", "nvil", "rws", "wake-sleep")
TRAINED = [name for name in PAIRS if name != "functions"]


def sbn():
    return find_pair("sbn").build(data.load("digits", binarize="static"), sizes=(6, 4))


def prepared(make, x):
    torch.manual_seed(0)
    return make().prepare(x)


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def by_hand(vae, objective, x, beta=1.0, **given):
    """Loss and gradients of a step without compilation, from seed 1."""
    vae.zero_grad()
    with vae.scope(), KLWeightMessenger(beta):
        torch.manual_seed(1)
        loss = objective.loss_and_grads(vae.model, vae.guide, x, **given)
    found = gradients(vae)
    vae.zero_grad()
    return loss, found


def compiled(step, vae, x, beta=1.0, **given):
    vae.zero_grad()
    torch.manual_seed(1)
    loss = step(x, beta, **given)
    return loss.item(), gradients(vae)


def assert_same(first, second):
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TRAINED)
def test_pairs_of_every_form(kind, store):
    x = data_for(kind, 12)
    vae = prepared(PAIRS[kind], x)
    objective = IWAE(3)
    expected = by_hand(vae, objective, x)
    assert_same(compiled(CompiledLoss(vae, objective, backend="eager"), vae, x), expected)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("make", [linear_pair, sbn])
def test_every_objective(make, name):
    x = torch.randn(9, 5) if make is linear_pair else data.load("digits", binarize="static").train.x[:9]
    vae = prepared(make, x)
    if make is sbn and name in ("iwae-stl", "iwae-dreg"):
        with pytest.raises(ValueError, match="has no reparameterised draws"):
            CompiledLoss(vae, make_objective(name, num_particles=3), backend="eager")(x)
        return
    first, second = (make_objective(name, num_particles=3) for _ in range(2))
    for objective in (first, second):  # lazy baselines come to be, with the same weights
        torch.manual_seed(2)
        with vae.scope():
            objective.loss(vae.model, vae.guide, x)
    if first.module is not None:
        second.module.load_state_dict(first.module.state_dict())
    step = CompiledLoss(vae, second, backend="eager")
    for beta in (1.0, 0.3):
        expected = by_hand(vae, first, x, beta)
        assert_same(compiled(step, vae, x, beta), expected)
    if first.module is not None:
        assert_same(dict(second.module.named_buffers()), dict(first.module.named_buffers()))
        assert float(second.module.batches) == 2
        assert gradients(second.module).keys() == gradients(first.module).keys()


def test_a_mask_and_another_shape():
    x, mask = pictures(12), torch.rand(12, 1, 8, 8) < 0.7
    vae = prepared(PAIRS["library"], x)
    objective = IWAE(3)
    step = CompiledLoss(vae, objective, backend="eager")
    for rows in (12, 5):
        expected = by_hand(vae, objective, x[:rows], mask=mask[:rows])
        assert_same(compiled(step, vae, x[:rows], mask=mask[:rows]), expected)


class Awkward(nn.Module):
    """A guide whose gradients are transposed in memory, and shared by two parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 2))
        self.first, self.second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        loc = torch.einsum("bi,io->bo", x, self.weight.tanh()) + (self.first + self.second)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def test_gradients_lie_in_memory_as_their_parameters_do():
    x = torch.randn(6, 5)
    vae = VAE(linear_pair().model, Awkward(), example=x)
    objective = IWAE(3, vectorize_particles=True)
    expected = by_hand(vae, objective, x)
    assert_same(compiled(CompiledLoss(vae, objective, backend="eager"), vae, x), expected)
    given = [p.grad for p in vae.parameters() if p.grad is not None]
    assert len(given) == len(list(vae.parameters())) - 1
    assert len({grad.data_ptr() for grad in given}) == len(given)
    assert all(p.grad.stride() == p.stride() for p in vae.parameters() if p.grad is not None)


def test_parameters_that_are_frozen_or_set_free_later():
    x = pictures(6)
    vae = prepared(PAIRS["plain-modules"], x)  # Pyro itself sets parameters free that it registers
    step = CompiledLoss(vae, IWAE(2), backend="eager")
    everything = compiled(step, vae, x)
    vae.guide.encoder.weight.requires_grad_(False)
    assert len(compiled(step, vae, x)[1]) == len(everything[1]) - 1
    vae.guide.encoder.weight.requires_grad_(True)
    assert_same(compiled(step, vae, x), everything)


# The auto-decoder picks its rows by their index; tests/auto_decoder compiles it.
@pytest.mark.parametrize("pair", [p for p in pairs() if p.name != "auto-decoder"], ids=lambda pair: pair.name)
def test_registered_pairs(pair):
    if pair.name == "landmarks":
        dataset = data.load("landmarks")
    else:
        dataset = data.load("clinic") if pair.data_kind == "table" else data.load("digits", binarize="static")
    vae = pair.build(dataset)
    x = dataset.train.x[:6]
    vae.prepare(x)
    objective = IWAE(2)
    assert_same(compiled(CompiledLoss(vae, objective, backend="eager"), vae, x), by_hand(vae, objective, x))


@pytest.mark.parametrize("name", ["gaussian", "stick-breaking", "semi-supervised", "tabular"])
def test_own_objectives_of_registered_pairs(name):
    """Closed forms of Gaussians and sticks, classes that are summed out and partly known, a table with gaps."""
    pair = find_pair(name)
    dataset = data.load("clinic") if pair.data_kind == "table" else data.load("digits", binarize="static")
    vae, rows = pair.build(dataset), dataset.train.take(slice(6))
    given = {"mask": rows.mask} if rows.mask is not None else {}
    if name == "semi-supervised":
        given["y"] = torch.where(torch.arange(6) % 2 == 0, rows.y, -1)
    vae.prepare(rows.x, **given)
    options = {"max_plate_nesting": max(1, vae.sites.max_plate_nesting)}
    objective = make_objective(pair.training.get("objective", "elbo"), **options)
    step = CompiledLoss(vae, objective, backend="eager")
    for beta in (1.0, 0.4):
        loss, expected = by_hand(vae, objective, rows.x, beta, **given)
        found, ours = compiled(step, vae, rows.x, beta, **given)
        assert found == pytest.approx(loss, rel=1e-5)
        assert_same(ours, expected)


def test_preparing_leaves_everything_as_it_was(caller_rng):
    with torch.random.fork_rng():
        x = torch.randn(6, 5)
        vae, objective = prepared(linear_pair, x), NVIL(2, baseline="input")
    step = CompiledLoss(vae, objective, backend="eager")
    weights = weights_of(vae)
    step.prepare(x)
    assert same_weights(weights_of(vae), weights)
    assert not gradients(vae)
    assert float(objective.module.batches) == 0


def test_draws_are_new_in_every_call():
    x = torch.randn(9, 5)
    step = CompiledLoss(prepared(linear_pair, x), IWAE(2), backend="eager")
    assert len({step(x).item() for _ in range(4)}) == 4


def test_compiling_uses_no_random_numbers():
    x = torch.ones(3, 5)
    step = CompiledLoss(prepared(linear_pair, x), IWAE(2), backend="eager")
    losses = []
    for _ in range(2):  # the first call compiles
        torch.manual_seed(3)
        losses.append(step(x).item())
    assert losses[0] == losses[1]


class Branching(nn.Module):
    """A guide with a branch on values."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x):
        loc = self.net(x)
        if loc.sum() > 0:
            loc = 2 * loc
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def test_what_cannot_be_compiled():
    x = torch.randn(6, 5)
    with pytest.raises(CompileError, match="RenyiELBO cannot be compiled; objectives of this library can"):
        CompiledLoss(linear_pair(), RenyiELBO())
    vae = VAE(linear_pair().model, Branching(), example=x)
    with pytest.raises(CompileError, match=r"cannot be compiled, test_compile.py line \d+: if loc.*without branches"):
        CompiledLoss(vae, IWAE(2), backend="eager")(x)


def hidden_pair():
    """A guide whose encoder nothing from outside leads to."""
    encoders = [nn.Linear(5, 2)]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 5), 1.0).to_event(1), obs=x)

    def guide(x):
        encoder = pyro.module("encoder", encoders[0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return VAE(model, guide)


def test_hidden_modules_are_refused():
    vae = hidden_pair().prepare(torch.randn(6, 5))
    with pytest.raises(CompileError, match="work with modules that cannot be found from outside"):
        CompiledLoss(vae, IWAE(2))


def test_a_parameter_that_nobody_knows_is_refused():
    """It would stay as it is now."""
    kept = {"scale": nn.Parameter(torch.ones(()))}

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, 5), kept["scale"].exp()).to_event(1), obs=x)

    x = torch.randn(6, 5)
    vae = VAE(model, linear_pair().guide, example=x)
    with pytest.raises(CompileError, match=r"a parameter of shape \(\) that the VAE does not know"):
        CompiledLoss(vae, IWAE(2), backend="eager")(x)


def test_another_kind_of_parameter_is_compiled_anew():
    """Compiled code checks nothing of what it is given."""
    x = torch.randn(6, 5)
    vae = prepared(linear_pair, x)
    step = CompiledLoss(vae, IWAE(3), backend="eager")
    step(x)
    first = {*step._compiled}
    vae.double()
    step(x.double())
    vae.model.loadings.data = vae.model.loadings.data.T.contiguous().T
    step(x.double())
    assert len({*step._compiled} - first) == 2


def test_gradients_of_the_mean():
    x = torch.randn(6, 5)
    vae = prepared(linear_pair, x)
    loss, expected = compiled(CompiledLoss(vae, IWAE(3), backend="eager"), vae, x)
    mean = compiled(CompiledLoss(vae, IWAE(3), per_row=True, backend="eager"), vae, x)
    assert_same(mean, (loss, {name: gradient / 6 for name, gradient in expected.items()}))


def test_without_a_compiler():
    x = torch.randn(7, 5)
    step = CompiledLoss(prepared(linear_pair, x), IWAE(2))
    with (
        torch._inductor.config.patch({"cpp.cxx": ("/no/such/compiler",), "force_disable_caches": True}),
        pytest.raises(CompileError, match="needs a C\\+\\+ compiler"),
    ):
        step(x)


def test_what_cannot_be_compiled_leaves_no_run(tmp_path):
    x = torch.randn(16, 5)
    vae = VAE(linear_pair().model, Branching(), example=x)
    trainer = Trainer(objective=IWAE(2), compile=True, batch_size=8, epochs=1, progress=False)
    with pytest.raises(CompileError, match="cannot be compiled"):
        trainer.fit(vae, x, run=RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training_compiled_is_the_same_training(tmp_path):
    """With real compiled code: full batches and a rest, a KL warm-up, a baseline that learns, a resumption."""
    x = torch.randn(40, 5)

    def train(epochs=(3,), **options):
        for number, stop in enumerate(epochs):
            vae = prepared(linear_pair, x)  # whose seed is the baseline's too
            trainer = Trainer(
                objective=NVIL(2, baseline="input"),
                epochs=stop,
                batch_size=16,
                kl_weight="warm-up:2",
                progress=False,
                **options,
            )
            run = RunFolder(tmp_path) if len(epochs) > 1 else None
            history = trainer.fit(vae, (x, x[:10]), run=run, resume=number > 0)
        return weights_of(vae), [row["validation_loss"] for row in history.rows]

    straight = train(compile=True)
    assert_same(straight, train())
    weights, losses = train((2, 3), compile=True)
    assert losses == straight[1]
    assert same_weights(weights, straight[0])


class OfTheUser(Trace_ELBO):
    """An objective whose estimator nobody knows."""


def test_trainer_names_objectives_that_cannot_be_compiled():
    with pytest.raises(CompileError, match="OfTheUser cannot be compiled"):
        Trainer(objective=OfTheUser(), compile=True, epochs=1, progress=False).fit(linear_pair(), torch.randn(8, 5))


def test_library_that_a_killed_compiler_left_half_written_is_compiled_anew(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "from torch.fx.experimental.proxy_tensor import make_fx\n"
        "from pyrovae.infer.compiled_code import compiled\n"
        "x = torch.arange(3.0)\n"
        "graph = make_fx(lambda x: (x + 1,))(x)\n"
        "print(compiled(graph, [x], 'inductor')(x)[0].tolist())\n"
    )
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or done.stderr

    assert run() == "[1.0, 2.0, 3.0]"
    (library,) = tmp_path.rglob("*.main.so")
    whole = library.read_bytes()
    library.write_bytes(whole[:100])
    assert run() == "[1.0, 2.0, 3.0]"
    assert len(library.read_bytes()) == len(whole)


def test_only_libraries_of_the_cache_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    own, other = tmp_path / "cache" / "a.main.so", tmp_path / "libgomp.so"
    for library, gone in ((own, True), (other, False)):
        library.write_bytes(b"")
        assert compiled_code.forgets_broken_library(ImportError(f"{library}: cannot read file data")) is gone
        assert library.exists() is not gone


def test_views_of_recorded_tensors_that_lie_otherwise():
    """A `cat` of one tensor keeps the strides of it in a run, and has others when its shape is told beforehand."""
    x = torch.randn(3, 4, 5)
    graph = make_fx(lambda x: (torch.cat([x.transpose(0, 1)]).reshape(4, 15) + 1,))(x)
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.reshape.default:
            node.target = torch.ops.aten.view.default
    (found,) = compiled_code.compiled(graph, [x], "inductor")(x)
    torch.testing.assert_close(found, x.transpose(0, 1).reshape(4, 15) + 1)


RUNS = {"count": 0}


def stateful_pair(kind):
    """A guide that decides something in Python, another thing in each run."""
    calls = itertools.count()
    net = nn.Linear(5, 2)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls, self.held, self.best = net, 0, {"calls": []}, float("nan")
            self.generator, self.constant = torch.Generator(), torch.zeros(())
            self.register_buffer("buffer", torch.zeros(()))

        def forward(self, x):
            loc = self.net(x)
            if kind == "attribute":
                self.calls += 1
                loc = loc * min(1.0, self.calls / 100)
            elif kind == "list":
                self.held["calls"].append(0)
                loc = loc if len(self.held["calls"]) < 100 else 2 * loc
            elif kind == "closure":
                loc = loc * min(1.0, next(calls) / 100)
            elif kind == "global":
                RUNS["count"] += 1
                loc = loc if RUNS["count"] < 100 else 2 * loc
            elif kind == "time":
                loc = loc * torch.tensor(time.monotonic())
            elif kind == "buffer":
                self.buffer = self.buffer + 1
                loc = loc / self.buffer
            elif kind == "constant":
                self.constant.add_(1)
                loc = loc + self.constant
            elif kind == "generator":
                loc = loc + torch.randn(len(x), 2, generator=self.generator)
            elif kind == "tolist":
                loc = loc if x.sum().tolist() > 0 else 2 * loc
            elif kind == "packed":
                lengths = (x > 0).sum(-1).clamp(min=1)
                packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                loc = loc * packed.data.mean()
            elif kind == "random":
                loc = loc if random.random() < 0.5 else 2 * loc
            elif kind == "numpy":
                loc = loc * float(x.numpy().mean())
            elif kind == "mask":
                loc = loc / len(x[x[:, 0] > 0])
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return VAE(linear_pair().model, Guide(), example=torch.randn(6, 5))


@pytest.mark.parametrize(
    ("kind", "reason"),
    {
        "attribute": "the programs change 'calls' in their run",
        "list": "the programs change 'held' in their run",
        "closure": "the programs change 'calls' in their run",
        "global": "the programs change 'RUNS' in their run",
        "time": "a second run of the programs does something else .*another number",
        "buffer": "'vae.owners.guide.buffer' is left with other values by the programs than as recorded",
        "constant": "the programs change a tensor in place that is no buffer of theirs",
        "generator": "the programs draw from a generator of their own",
        "tolist": "a value of a tensor is needed in Python",
        "packed": "the shape of a tensor depends on values, by aten._pack_padded_sequence",
        "random": "the programs draw random numbers of Python's or NumPy's",
        "numpy": "a value of a tensor is needed in Python",
        "mask": "the shape of a tensor depends on values, by aten.index",
    }.items(),
)
def test_what_python_decides_anew_is_refused(kind, reason):
    """A recording would hold it as it was in one run."""
    with pytest.raises(CompileError, match=rf"^the pair cannot be compiled.*{reason}"):
        CompiledLoss(stateful_pair(kind), IWAE(2), backend="eager").prepare(torch.randn(6, 5))


def test_constants_that_are_not_numbers_are_the_same_in_both_recordings():
    pair = linear_pair()

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = pair.guide

        def forward(self, x):
            hole = torch.tensor([float("nan")])
            return self.inner(torch.where(hole.isnan(), x, hole))

    assert CompiledLoss(VAE(pair.model, Guide(), example=torch.randn(6, 5)), IWAE(2), backend="eager")(
        torch.randn(6, 5)
    )


def test_what_does_not_run_once_it_is_recorded_is_one_line():
    """An LSTM of one layer on the CPU, which torch's oneDNN cannot repeat."""

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                loc = self.head(self.net(x.unsqueeze(-1))[0][:, -1])
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = torch.randn(6, 5)
    vae = VAE(linear_pair().model, Guide(), example=x)
    before = weights_of(vae)
    with pytest.raises(CompileError, match=r"^the pair cannot be compiled: what was recorded does not run \([^\n]*$"):
        CompiledLoss(vae, IWAE(2), backend="eager").prepare(x)
    assert same_weights(weights_of(vae), before)


def test_compared_with_the_programs():
    """Nothing is left behind by the run beside it, and a number that was changed since is found."""

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.norm, self.factor = nn.Linear(5, 2), nn.BatchNorm1d(5), 1.0

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(self.norm(x)) * self.factor, 1.0).to_event(1))

    x, made = torch.randn(6, 5), []
    for run in ("call", "compared"):
        torch.manual_seed(0)
        vae = VAE(linear_pair().model, Guide(), example=x)
        step = CompiledLoss(vae, make_objective("elbo", max_plate_nesting=1), backend="eager")
        step.prepare(x)
        torch.manual_seed(1)
        loss, differs = step.compared(x) if run == "compared" else (step(x), "")
        assert not differs
        made.append((loss, gradients(vae), {**vae.state_dict()}, torch.get_rng_state()))
    for first, second in zip(*made, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    vae.guide.factor = 0.5
    assert "the loss is" in step.compared(x)[1]


@pytest.mark.parametrize("known", ["none", "some", "all"])
def test_labels_are_followed_whichever_batch_came_first(known):
    """Which labels are known decides what the guide does; one recording does not stand for another."""
    digits = data.load("digits")
    x, y = digits.train.x[:12], digits.train.y[:12]
    torch.manual_seed(0)
    vae = find_pair("semi-supervised").build(digits, latent_dim=2, hidden=(6,))
    step = CompiledLoss(vae, make_objective("enum", max_plate_nesting=1), backend="eager")
    batches = {"none": torch.full_like(y, -1), "some": torch.where(torch.arange(12) < 3, y, -1), "all": y}
    step.prepare(x, y=batches[known])
    for labels in batches.values():
        assert not step.compared(x, y=labels)[1]
