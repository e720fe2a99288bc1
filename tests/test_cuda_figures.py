"""Every pair has the figures on a GPU that it has on the CPU, trains by compiled steps, and seldom waits there."""

import warnings

import pyro
import pytest
import torch
from pairs import LinearModel, function_pair
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import VAE, data
from pyrovae.cli import main
from pyrovae.data.dataset import Rows
from pyrovae.distributed import Processes
from pyrovae.estimators import VAEClassifier, VAETransformer
from pyrovae.guides import GradientGuide
from pyrovae.infer.compile_errors import CompileError
from pyrovae.metrics import evaluate
from pyrovae.pairs import find_pair, pairs
from pyrovae.training import Callback, Trainer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of inductor
]

DEVICE = "cuda"
DIGITS = {"name": "digits", "binarize": "static"}
PAIRS = {
    "auto-decoder": ({"latent_dim": 2, "hidden": (8,)}, DIGITS),
    "categorical": ({"num_variables": 3, "num_classes": 4, "hidden": (8,)}, DIGITS),
    "gaussian": ({"latent_dim": 3, "net": "conv", "hidden": (8,), "prior": "vamp", "num_components": 10}, DIGITS),
    "hierarchical": ({"latent_dims": (3, 2), "hidden": (8,), "hidden_between": (8,)}, DIGITS),
    "landmarks": ({"hidden": (8,), "encoder_hidden": (8,)}, {"name": "landmarks"}),
    "sbn": ({"sizes": (4,)}, DIGITS),
    "semi-supervised": ({"hidden": (8,)}, {**DIGITS, "labels": 0.2}),
    "stick-breaking": ({"truncation": 6, "hidden": (8,)}, DIGITS),
    "tabular": ({"latent_dim": 2, "hidden": (8,)}, {"name": "clinic"}),
}
DRAWN = ("categorical", "sbn", "semi-supervised")  # a reconstruction draws discrete latents
SPREAD = ("auto-decoder", "landmarks", "tabular")  # the weights of importance samples vary too much for their errors


def made(name, device=DEVICE):
    options, given = PAIRS[name]
    dataset = data.load(**given)
    torch.manual_seed(0)
    return find_pair(name).build(dataset, **options).to(device), dataset


def trained(name, device=DEVICE, **options):
    vae, dataset = made(name, device)
    settings = {"epochs": 2, "batch_size": 100, "progress": False, **find_pair(name).training, **options}
    return vae, dataset, Trainer(**settings).fit(vae, dataset)


def test_every_pair_is_here():
    assert set(PAIRS) == {pair.name for pair in pairs()}


@pytest.mark.filterwarnings("ignore:the scale of the posterior is fixed")  # of the auto-decoder
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_figures_of_a_pair(name, tmp_path):
    vae, dataset, _ = trained(name)
    assert {value.device.type for value in vae.state_dict().values()} == {DEVICE}
    vae.eval()
    rows = (dataset.train if name == "auto-decoder" else dataset.test).take(slice(40))
    folder = tmp_path / "kept"
    vae.save(folder, dataset)
    here, again = VAE.load(folder), VAE.load(folder, device=DEVICE)
    for key, value in vae.state_dict().items():
        assert torch.equal(here.state_dict()[key], value.cpu()), key
        assert torch.equal(again.state_dict()[key], value), key
    here.eval()
    again.eval()
    there = rows.to(DEVICE)
    given, given_there = ({k: v for k, v in r.fields().items() if k in ("mask", "index")} for r in (rows, there))
    if name != "auto-decoder":
        given.pop("index", None), given_there.pop("index", None)
    torch.testing.assert_close(again.sample(3, "mean").shape, here.sample(3, "mean").shape)
    assert vae.sample(5).device.type == DEVICE
    assert vae.sample(5).isfinite().all()
    if name not in DRAWN:
        reconstructed = again.reconstruct(there.x, **given_there)
        torch.testing.assert_close(reconstructed.cpu(), here.reconstruct(rows.x, **given), rtol=1e-3, atol=1e-3)
    for compiled in (False, "auto"):
        how = {"return_details": True, "compile": compiled}
        found = again.log_likelihood(there.x, num_samples=1500, **how, **given_there)
        expected = here.log_likelihood(rows.x, num_samples=1500, **how, **given)
        assert found.value.device.type == DEVICE
        error = (found.standard_error.cpu() ** 2 + expected.standard_error**2).sum().sqrt() / len(rows)
        most = 5 * float(error) + (0.02 * abs(float(expected.value.mean())) if name in SPREAD else 0.02)
        assert abs(float(found.value.mean()) - float(expected.value.mean())) < most
    figures = [evaluate(v, rows, dataset=dataset, num_samples=300, baselines=()) for v in (here, again)]
    for figure in ("log_likelihood", "bound", "kl"):
        if figure in figures[0]:
            assert figures[1][figure] == pytest.approx(figures[0][figure], rel=0.1, abs=0.5), figure
    assert figures[1].keys() == figures[0].keys()


@pytest.mark.parametrize("compile", [False, "recorded", True])
@pytest.mark.parametrize("name", sorted(PAIRS))
def test_steps_of_a_pair(name, compile):
    """Losses of compiled steps on the GPU are near those of ordinary steps on the CPU."""
    found = trained(name, compile=compile)[2].rows
    expected = trained(name, device="cpu")[2].rows
    for row, other in zip(found, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=0.3 if name == "landmarks" else 0.1)


@pytest.mark.parametrize(
    "objective", ["elbo", "mean-field", "graph", "renyi", "iwae", "iwae-stl", "iwae-dreg", "vimco"]
)
def test_the_same_loss(objective):
    """Eager, recorded and compiled steps from the same random numbers."""
    name = "sbn" if objective == "vimco" else "gaussian"
    particles = {"num_particles": 4} if objective in ("renyi", "iwae", "iwae-stl", "iwae-dreg", "vimco") else {}
    try:
        losses = [
            [row["loss"] for row in trained(name, objective=objective, compile=how, **particles)[2].rows]
            for how in (False, "recorded", True)
        ]
    except CompileError:
        assert objective == "renyi"
        return
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[2] == pytest.approx(losses[0], rel=2e-3)


@pytest.mark.parametrize("compile", [False, "auto", True])
def test_exact_evidence(compile):
    """The guide is the exact posterior, so that one importance sample is enough."""
    x = torch.randn(40, 1, 8, 8, device=DEVICE)
    covariance = torch.eye(32, device=DEVICE) + 1
    normal = torch.distributions.MultivariateNormal(torch.zeros(32, device=DEVICE), covariance)
    exact = normal.log_prob(x.reshape(40, 2, 32)).sum(-1)
    found = function_pair().log_likelihood(x, num_samples=600, compile=compile)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-3)


def test_imputed_mean():
    """The exact conditional mean of a linear model."""

    class Masked(LinearModel):
        def forward(self, x, mask):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(2), 1.0).to_event(1))
                p = pyro.distributions.Normal(z @ self.loadings.T + self.offset, self.noise).mask(mask).to_event(1)
                pyro.sample("x", p, obs=torch.where(mask, x, 0.0))

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(x.new_zeros(2), 1.0).to_event(1))

    torch.manual_seed(3)
    vae = VAE(Masked(5, 2), guide).to(DEVICE)
    x, mask = torch.randn(10, 5, device=DEVICE), torch.ones(10, 5, dtype=torch.bool, device=DEVICE)
    mask[:, 2] = False
    w = vae.model.loadings.detach()
    covariance = w @ w.T + vae.model.noise.detach() ** 2 * torch.eye(5, device=DEVICE)
    seen = [0, 1, 3, 4]
    expected = (covariance[2, seen] @ torch.linalg.inv(covariance[seen][:, seen])) @ x[:, seen].T
    found = vae.impute(x, mask, num_samples=20_000)
    torch.testing.assert_close(found[:, 2], expected, rtol=0.05, atol=0.05)
    assert torch.equal(found[mask], x[mask])
    assert vae.impute(x, mask, num_draws=3).shape == (3, 10, 5)


class Waits(Callback):
    """Counts how often the processor waits for the GPU, from the third epoch on."""

    def __init__(self):
        self.messages, self.steps, self.catching = [], 0, None

    def on_epoch(self, progress):
        if progress.epoch == 2:
            torch.cuda.set_sync_debug_mode("warn")

    def on_batch(self, progress):
        self.steps += progress.epoch >= 2


@pytest.mark.parametrize(
    ("compile", "objective", "most"),
    [(True, "elbo", 0.1), (True, "iwae", 0.1), ("recorded", "elbo", 0.1), (False, "elbo", 0.1), (False, "iwae", 0.1)],
)
def test_waits(compile, objective, most):
    """Losses are read for many steps together."""
    dataset, waits = data.load("digits", binarize="static"), Waits()
    vae = find_pair("gaussian").build(dataset, latent_dim=3, hidden=(8,)).to(DEVICE)
    settings = {"batch_size": 2, "epochs": 5, "objective": objective, "compile": compile, "progress": False}
    settings |= {"num_particles": 3} if objective == "iwae" else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            Trainer(callbacks=[waits], **settings).fit(vae, dataset.train.x[:1000])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing" in str(one.message) for one in caught)
    print(f"waits: {compile} {objective} {count} in {waits.steps} steps")
    assert count < most * waits.steps


def test_loaders():
    """Batches that a loader makes in main memory, with and without pinned memory."""
    x = data.load("digits", binarize="static").train.x
    found = []
    for pinned in (False, True):
        torch.manual_seed(0)
        vae = find_pair("gaussian").build(data.load("digits", binarize="static"), latent_dim=3, hidden=(8,)).to(DEVICE)
        loader = DataLoader(TensorDataset(x), batch_size=100, pin_memory=pinned)
        found.append([row["loss"] for row in Trainer(epochs=2, progress=False).fit(vae, loader).rows])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_fitted_posterior():
    vae, dataset, _ = trained("gaussian")
    x = dataset.test.x[:30].to(DEVICE)
    fitted = vae.fit_posterior(x, steps=30, progress=False)
    assert fitted.device.type == DEVICE
    better = fitted.log_likelihood(x, num_samples=500).mean() - vae.log_likelihood(x, num_samples=500).mean()
    assert better > -0.5
    plain = find_pair("gaussian").build(dataset, latent_dim=3, hidden=(8,)).model
    searching = VAE(plain, GradientGuide(plain, 3, steps=5)).to(DEVICE)
    assert searching.log_likelihood(x, num_samples=200).isfinite().all()
    refining = Trainer(epochs=1, refine_steps=2, progress=False).fit(made("gaussian")[0], dataset.train.x[:300])
    assert torch.isfinite(torch.tensor(refining.rows[-1]["loss"]))


def test_estimators():
    digits = data.load("digits")
    x, y = digits.train.x[:300].flatten(1).numpy(), digits.train.y[:300].numpy()
    classifier = VAEClassifier(device=DEVICE, epochs=3, hidden=(16,), random_state=0).fit(x, y)
    assert classifier.predict(x[:10]).shape == (10,)
    transformer = VAETransformer(device=DEVICE, epochs=3, hidden=(16,), random_state=0).fit(x)
    assert transformer.transform(x[:10]).shape[0] == 10
    assert transformer.score(x[:10]) == transformer.score(x[:10])


def test_command_line(tmp_path, monkeypatch, capsys):
    """A run of the GPU goes on and is used on either device."""
    monkeypatch.chdir(tmp_path)
    small = "--latent-dim 3 --hidden 8 --batch-size 100"
    lines = [
        f"train gaussian --data digits --binarize static --out run {small} --epochs 2 --device cuda --compile",
        "resume run --epochs 3 --device cuda",
        "evaluate run --num-samples 50 --device cuda",
        "evaluate run --num-samples 50 --device cpu",
        "sample run --num 4 --out samples.npz --device cuda",
        "encode run --out codes.npz --device cuda",
        "resume run --epochs 4 --device cpu",
        "train tabular --data clinic --out table --latent-dim 2 --hidden 8 --epochs 2 --device cuda",
        "evaluate table --num-samples 50 --device cuda",
    ]
    for line in lines:
        status = main(line.split())
        shown = capsys.readouterr()
        assert status == 0, (line, shown.out[-2000:], shown.err[-2000:])


def test_nccl_with_itself(tmp_path, monkeypatch):
    """Operations of several processes on the tensors of a GPU, as far as one of them can do them."""
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    try:
        monkeypatch.setattr(Processes, "several", property(lambda self: True))
        here = Processes(0, 1)
        values = torch.arange(3.0, device=DEVICE)
        assert here.sum(values.clone()).tolist() == [0, 1, 2]
        flags = torch.tensor([True, False], device=DEVICE)
        for tensor in (values, flags, torch.eye(3, device=DEVICE).T[:, 1:]):
            before = tensor.clone()
            here.spread(tensor)
            assert torch.equal(tensor, before)
        assert here.gather({"a": 1}) == [{"a": 1}]
        assert torch.equal(here.gather(values)[0], values)
    finally:
        dist.destroy_process_group()


def test_rows_stay_where_they_are():
    """Rows of another device are taken, and the answer is where the pair is, or the call is refused in one line."""
    vae, dataset, _ = trained("gaussian", epochs=1)
    x = dataset.test.x[:5]
    for call in (lambda: vae.log_likelihood(x, num_samples=3), lambda: vae.reconstruct(x), lambda: vae.encode(x)):
        try:
            call()
        except (ValueError, RuntimeError) as error:
            print("other device:", str(error).splitlines()[0])
    assert evaluate(vae, Rows(x), num_samples=5).num_rows == 5
