"""Data that a pair cannot have observed are refused before training and before any figure, whatever row they are in."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import library_pair, pictures
from pyro.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import VAE
from pyrovae.data import Dataset, Rows
from pyrovae.metrics import evaluate
from pyrovae.pairs import find_pair
from pyrovae.support import SupportCheck
from pyrovae.training import Trainer

QUICK = {"epochs": 1, "batch_size": 16, "progress": False}


def own_pair(make, make_value=lambda x: x):
    """A pair of one's own whose model observes what it makes of x by a distribution that it makes of a latent."""

    def model(x, mask=None):
        rate = pyro.param("rate", torch.tensor(1.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            fn = make(rate + 0 * z.sum(-1, keepdim=True))
            pyro.sample("x", (fn if mask is None else fn.mask(mask)).to_event(1), obs=make_value(x))

    def guide(x, mask=None):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    return VAE(model, guide)


def grey_dataset(split="train", row=37, value=255.0, kind="unit"):
    parts = {name: torch.rand(50, 1, 4, 4) for name in ("train", "validation", "test")}
    parts[split][row, 0, 1, 2] = value
    return Dataset("grey", *(Rows(part) for part in parts.values()), kind)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_late_row_of_any_split_against_its_kind(split):
    dataset = grey_dataset(split)
    vae = find_pair("gaussian").build(dataset, latent_dim=2)
    with pytest.raises(ValueError, match=rf"{split} row 37, entry \(0, 1, 2\) is 255, and kind 'unit'.*0 to 1; scale"):
        Trainer(**QUICK).fit(vae, dataset)


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        ("binary", 0.5, "0 or 1; binarise"),
        ("symmetric", -1.5, "from -1 to 1; scale"),
        ("8-bit", 0.3, "multiples of 1/255"),
        ("real", torch.inf, "finite numbers; leave"),
    ],
)
def test_every_kind(kind, value, what):
    x = torch.zeros(40, 3)
    x[29, 1] = value
    rows = Rows(x)
    dataset = Dataset("mine", rows, rows.take(slice(0)), rows.take(slice(0)), kind)
    with pytest.raises(ValueError, match=f"train row 29, entry 1 is {value:g}, and kind '{kind}' means .*{what}"):
        Trainer(**QUICK).fit(find_pair("gaussian").build(dataset, latent_dim=2), dataset)


def test_training_rows_are_looked_at_as_their_transform_leaves_them():
    rows = Rows(torch.rand(40, 1, 4, 4))
    none = rows.take(slice(0))
    binary = Dataset("b", rows, none, none, "binary", transform=lambda r: r.replace(x=r.x.bernoulli()))
    Trainer(**QUICK).fit(find_pair("gaussian").build(binary, latent_dim=2), binary)
    wrong = Dataset("b", rows, none, none, "binary", transform=lambda r: r.replace(x=r.x * 2))
    with pytest.raises(ValueError, match="kind 'binary'"):
        Trainer(**QUICK).fit(find_pair("gaussian").build(wrong, latent_dim=2), wrong)


def test_grey_values_of_bytes_for_a_library_pair_without_a_data_set():
    x = pictures(48)
    x[40, 0, 3, 5] = 200.0
    with pytest.raises(ValueError, match=r"train row 40, entry \(0, 3, 5\) is 200, and Bernoulli is .*of 0 and 1"):
        Trainer(**QUICK).fit(library_pair(), x)
    with pytest.raises(ValueError, match="validation row 40"):
        Trainer(**QUICK).fit(library_pair(), (pictures(48), x))
    with pytest.raises(ValueError, match=r"row 40, entry \(0, 3, 5\) is 200"):
        evaluate(library_pair(), Rows(x), num_samples=2)
    with pytest.raises(ValueError, match=r"row 40 .*entry \(0, 3, 5\) is 200"):
        library_pair().log_likelihood(x, 2)


def test_masked_entries_may_hold_anything():
    x = pictures(48)
    mask = torch.ones_like(x, dtype=torch.bool)
    x[40, 0, 3, 5], mask[40, 0, 3, 5] = torch.nan, False
    x[41, 0, 3, 5], mask[41, 0, 3, 5] = 200.0, False
    vae = library_pair()
    Trainer(**QUICK).fit(vae, {"x": x, "mask": mask})
    assert vae.log_likelihood(x, 2, mask=mask).isfinite().all()


LIKELIHOODS = {
    "counts": (lambda z: dist.Poisson(z), 2.5, "Poisson is a distribution of whole numbers from 0"),
    "positive": (lambda z: dist.LogNormal(z, 1.0), 0.0, "LogNormal is a distribution of positive numbers"),
    "real": (lambda z: dist.Normal(z, 1.0), torch.nan, "Normal is a distribution of finite numbers"),
    "cross-entropy": (lambda z: dist.Bernoulli(logits=z, validate_args=False), 3.0, r"values in \[0, 1\]"),
    "of-parameters": (lambda z: dist.Uniform(0 * z, 10 * z.abs()), 99.0, "Uniform is a distribution of"),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_own_pairs(name):
    make, wrong, what = LIKELIHOODS[name]
    x = torch.ones(60, 3)
    Trainer(**QUICK).fit(own_pair(make), x)
    x[51, 2] = wrong
    with pytest.raises(ValueError, match=f"train row 51, entry 2 is {wrong:g}, and .*{what}"):
        Trainer(**QUICK).fit(own_pair(make), x)
    with pytest.raises(ValueError, match="row 51, entry 2 is"):
        evaluate(own_pair(make), Rows(x), num_samples=2)


def test_what_the_model_makes_of_the_data_is_what_counts():
    pair = own_pair(lambda z: dist.Normal(z, 1.0), make_value=torch.log)
    x = torch.full((40, 3), 2.0)
    Trainer(**QUICK).fit(pair, x)
    x[33, 1] = 0.0
    with pytest.raises(ValueError, match="train row 33, entry 1 is -inf"):
        Trainer(**QUICK).fit(own_pair(lambda z: dist.Normal(z, 1.0), make_value=torch.log), x)
    clamped = own_pair(lambda z: dist.Bernoulli(logits=z), make_value=lambda x: (x > 0.5).to(x))
    x = torch.ones(40, 3)
    x[33] = 7.0  # which the program makes a 1 of
    Trainer(**QUICK).fit(clamped, x)


def test_a_fixed_support_is_compared_without_running_the_programs():
    vae = library_pair()
    x = pictures(20)
    vae.prepare(x)
    check = SupportCheck(vae, x, {})
    runs = []
    hook = vae.guide.register_forward_hook(lambda *_: runs.append(1))
    assert check.find(pictures(20), {}) is None
    assert not runs
    hook.remove()


def test_a_stream_is_looked_at_as_it_comes():
    x = pictures(48)
    x[40] = 9.0
    with pytest.raises(ValueError, match=r"row 8 of batch 3 of the stream, entry .* is 9"):
        Trainer(epochs=1, progress=False).fit(library_pair(), DataLoader(TensorDataset(x), batch_size=16))


def test_labels():
    rows = Rows(torch.rand(30, 4), y=torch.arange(30) % 3)
    bad = Rows(torch.rand(30, 4), y=torch.arange(30) % 4)
    for validation, what in ((bad, "validation row 3 has the label 3;.*from 0 to 2"), (rows, "train row 29 has")):
        train = rows if validation is bad else rows.replace(y=torch.tensor([0, 1, 2] * 9 + [0, 1, -2]))
        dataset = Dataset("labelled", train, validation, rows, "unit")
        with pytest.raises(ValueError, match=what):
            Trainer(**QUICK).fit(find_pair("gaussian").build(dataset, latent_dim=2), dataset)


def test_covariates():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + c, 1.0).to_event(1), obs=x)

    def guide(x, c):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    c = torch.zeros(40, 2)
    c[35, 1] = torch.nan
    with pytest.raises(ValueError, match=r"train rows 32 to 39|c of train row 35, entry 1 is nan"):
        Trainer(**QUICK).fit(VAE(model, guide), {"x": torch.zeros(40, 2), "c": c})

    def careful(x, c):
        model(x, c.nan_to_num())

    Trainer(**QUICK).fit(VAE(careful, guide), {"x": torch.zeros(40, 2), "c": c})
