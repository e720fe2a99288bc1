"""The forms in which the Trainer takes data: what the programs get, and that every form trains alike."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LinearGuide, LinearModel, library_pair, linear_pair, pictures, same_weights, weights_of
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split
from training_runs import rows, seeded, trained

from pyrovae import VAE, metrics
from pyrovae.data import Dataset
from pyrovae.data.dataset import Rows
from pyrovae.training import Trainer


class Recorder:
    """A pair whose programs name `inputs` and `c`, and note what they get while in training mode."""

    def __init__(self, notes=True):
        self.calls = [] if notes else None

    def pair(self):
        calls = self.calls

        class Model(LinearModel):
            def forward(self, inputs, c, table=None):
                if self.training and calls is not None:
                    calls.append((len(inputs), None if c is None else tuple(c.shape), table))
                with pyro.plate("data", len(inputs)):
                    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                    loc = z @ self.loadings.T + self.offset + c
                    pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=inputs)

        class Guide(LinearGuide):
            def forward(self, inputs, c, table=None):
                super().forward(inputs - c)

        return VAE(Model(5, 2), Guide(5, 2))


def covariates(num=40):
    return torch.randn(num, 1, generator=torch.Generator().manual_seed(3))


class Batches(IterableDataset):
    """Batches of a dict, of unknown number."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def split(values, size=16):
    return [{name: value[i : i + size] for name, value in values.items()} for i in range(0, 40, size)]


FORMS = {
    "dict": lambda x, c: {"inputs": x, "c": c},
    "dict with x for the data": lambda x, c: {"x": x, "c": c},
    "TensorDataset": lambda x, c: TensorDataset(x, c),
    "DataLoader": lambda x, c: DataLoader(TensorDataset(x, c), batch_size=16),
    "DataLoader of dicts": lambda x, c: DataLoader([{"inputs": a, "c": b} for a, b in zip(x, c, strict=True)], 16),
    "IterableDataset": lambda x, c: Batches(split({"inputs": x, "c": c})),
    "unbatched DataLoader": lambda x, c: DataLoader(Batches(split({"inputs": x, "c": c})), batch_size=None),
    "Rows": lambda x, c: Rows(x, more={"c": c}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_cuts_what_holds_rows(form, store):
    recorder = Recorder()
    data, held_out = (FORMS[form](rows(), covariates()) for _ in range(2))
    vae = seeded(recorder.pair)
    size = {} if "DataLoader" in form or form == "IterableDataset" else {"batch_size": 16}
    history = Trainer(epochs=3, progress=False, lr=0.02, **size).fit(vae, data, held_out)
    assert [call[:2] for call in recorder.calls] == [(16, (16, 1)), (16, (16, 1)), (8, (8, 1))] * 3
    assert history.rows[-1]["validation_loss"] < history.rows[0]["validation_loss"]
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_a_stream_in_order_is_the_held_data_in_order():
    """The same batches give the same weights and the same losses per datum, to the last bit."""
    x, c = rows(), covariates()
    order = torch.arange(40)
    streamed, held = (seeded(Recorder().pair) for _ in range(2))
    options = {"epochs": 2, "progress": False, "patience": 5}
    first = Trainer(**options).fit(streamed, Batches(split({"x": x, "c": c}, 40)), Batches(split({"x": x, "c": c})))
    second = Trainer(**options, batch_size=40).fit(held, {"x": x[order], "c": c[order]}, {"x": x, "c": c})
    assert same_weights(weights_of(streamed), weights_of(held))
    assert [row["loss"] for row in first.rows] == [row["loss"] for row in second.rows]


def test_losses_of_a_stream_are_per_datum():
    """At a rate that moves nothing, an analytic loss is the same for batches of any size."""
    found = []
    for data in (rows(), DataLoader(rows(), batch_size=16), DataLoader(rows(), batch_size=7)):
        vae = seeded(linear_pair)
        history = Trainer(objective="mean-field", lr=1e-30, epochs=1, progress=False, kl_weight=1.0).fit(vae, data)
        found.append(history.rows[0]["loss"])
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[2] == pytest.approx(found[0], rel=0.05)


def test_what_holds_no_rows_is_passed_whole():
    """Also a table as long as a batch, and what is no tensor."""
    table = torch.randn(16, 3)
    for passed in (table, {"words": table}, "abc", table.to_sparse()):
        recorder = Recorder()
        data = {"inputs": rows(), "c": covariates(), "table": passed}
        vae = seeded(recorder.pair)
        Trainer(epochs=1, batch_size=16, progress=False, num_particles=3).fit(vae, data, validation=data)
        assert len(recorder.calls) == 3
        for call in recorder.calls:
            assert call[2] is passed or (torch.equal(call[2], table) if passed is table else call[2] == passed)
    rows_of_all = Rows.of(rows(), c=covariates(), table=table)
    figures = metrics.evaluate(vae, rows_of_all, num_samples=20, chunk_size=64, batch_size=16)
    assert figures.num_rows == 40


def test_metrics_hand_further_arguments_on():
    vae, x, c = seeded(Recorder().pair), rows(), covariates()
    Trainer(epochs=60, lr=0.05, batch_size=16, progress=False).fit(vae, {"inputs": x, "c": c})
    means = metrics.latent_means(vae, x, 7, c=c)
    torch.testing.assert_close(means, vae.encode(x, c=c).mean.detach())
    assert metrics.active_units(vae, x, c=c, batch_size=9).variances.shape == (2,)
    exact = vae.log_likelihood(x, 1000, c=c).mean()
    figures = metrics.evaluate(vae, Rows.of(x, c=c), num_samples=1000, batch_size=11)
    assert figures.log_likelihood == pytest.approx(exact.item(), abs=0.1)
    from pyro.infer import Trace_ELBO

    frame = metrics.gradient_variance(vae, {"elbo": Trace_ELBO()}, x, num_draws=3, c=c)
    assert set(frame["program"]) == {"model", "guide"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_compiled_steps_take_covariates(store):
    """The same losses as without compilation, held or streamed; what is no tensor is refused."""
    data = {"inputs": rows(), "c": covariates()}
    losses = []
    for options in ({}, {"compile": True}):
        vae = seeded(Recorder(notes=False).pair)
        trainer = Trainer("iwae", 3, epochs=2, batch_size=16, drop_last=True, progress=False, **options)
        losses.append([row["loss"] for row in trainer.fit(vae, data).rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    trainer = Trainer("iwae", 3, epochs=1, compile=True, progress=False)
    trainer.fit(seeded(Recorder(notes=False).pair), Batches(split(data)))
    trainer = Trainer("iwae", 3, epochs=1, batch_size=16, compile=True, progress=False)
    with pytest.raises(ValueError, match="the argument 'table' is a str, and compiled steps take tensors alone"):
        trainer.fit(seeded(Recorder(notes=False).pair), {**data, "table": "abc"})


def test_nothing_is_passed_because_of_keywords_alone():
    """Case e8: no index and no labels go into `**options`."""

    def model(x, **options):
        assert not options
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(5)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, **options):
        assert not options
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    data = Dataset("mine", Rows(rows(), y=torch.zeros(40, dtype=torch.long)), Rows(rows(8)), Rows(rows(8)), "real")
    Trainer(epochs=1, progress=False).fit(VAE(model, guide), data)
    with pytest.raises(TypeError, match=r"weight= was given, but neither program names it, .* the arguments are x$"):
        Trainer(epochs=1, progress=False).fit(VAE(model, guide), {"x": rows(), "weight": torch.ones(40)})


def test_packed_sequences_by_collate():
    """Sequences of several lengths: cut as a dict, packed batch by batch."""
    lengths = torch.arange(40) % 4 + 2
    x = torch.randn(40, 5, 3)
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Parameter(torch.zeros(3))

        def forward(self, x, lengths, packed):
            seen.append((len(x), len(packed.data), int(lengths.sum())))
            mask = torch.arange(5) < lengths[:, None]
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                each = dist.Normal(z[..., None, :] + self.loc, 1.0).to_event(1)
                pyro.sample("x", each.mask(mask).to_event(1), obs=x)

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.GRU(3, 3, batch_first=True)

        def forward(self, x, lengths, packed):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.net(packed)[1][0], 1.0).to_event(1))

    def collate(batch):
        packed = pack_padded_sequence(batch["x"], batch["lengths"].cpu(), batch_first=True, enforce_sorted=False)
        return {"x": batch["x"], "lengths": batch["lengths"], "packed": packed}

    vae, data = VAE(Model(), Guide()), {"x": x, "lengths": lengths}
    history = Trainer(epochs=12, batch_size=16, lr=0.05, progress=False).fit(vae, data, data, collate)
    assert history.rows[-1]["validation_loss"] < history.rows[0]["validation_loss"]
    assert all(packed == total for _, packed, total in seen)
    assert {call[0] for call in seen} >= {16, 8, 40}


def test_labels_of_a_loader_go_to_a_pair_of_the_library_by_name():
    pairs = TensorDataset(pictures(24), torch.arange(24) % 3)
    with pytest.raises(ValueError, match=r"to the argument 'mask'; give a dict .* with labels as \"y\""):
        Trainer(epochs=1, progress=False).fit(library_pair(), DataLoader(pairs, 8))
    named = DataLoader(pairs, 8)
    Trainer(epochs=1, progress=False).fit(library_pair(), named, collate=lambda batch: {"x": batch[0], "y": batch[1]})
    Trainer(epochs=1, progress=False).fit(library_pair(), named, collate=lambda batch: batch[0])


def test_latents_of_all_data_need_the_number_of_rows():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("mu", dist.Normal(loc, pyro.param("scale", torch.tensor(0.2))))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + loc) / 2, 0.7))

    x = torch.randn(40) + 3
    parts = list(x.split(16))
    with pytest.raises(ValueError, match=r"count by the share of a batch, .* give fit\(\.\.\., num_data=ROWS\)"):
        Trainer(epochs=1, progress=False).fit(VAE(model, guide), Batches(parts))
    Trainer(epochs=1, num_particles=3, progress=False).fit(VAE(model, guide), x)  # looped over, as mu is no row's
    found = []
    for data, options in ((Batches(parts), {"num_data": 40}), (DataLoader(x, 16), {}), (x, {})):
        vae, size = VAE(model, guide, example=x[:3]), {"batch_size": 16} if data is x else {}
        trainer = Trainer("mean-field", 50, epochs=1, lr=1e-30, progress=False, **size)
        history = trainer.fit(vae, data, **options)
        found.append(history.rows[0]["loss"])
    assert found[0] == pytest.approx(found[2], rel=0.05)
    assert found[1] == pytest.approx(found[2], rel=0.05)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            (rows(), torch.zeros(40, dtype=torch.long)),
            ValueError,
            r"got \(\(40, 5\) float32, \(40,\) int64\); give",
        ),
        ((rows(), rows()[:, :2]), ValueError, r"two tensors of one shape and type but for the rows"),
        ((rows(), rows(), rows()), ValueError, r"a tuple is training and validation rows"),
        ({"c": rows()}, ValueError, r"the data hold no data, among 'c'; .* first argument, 'x'"),
        ({}, ValueError, r"the data hold no data"),
        ({"x": "rows"}, TypeError, r"must begin with a tensor that holds a row for each datum, got str"),
        ({"x": torch.tensor(1.0)}, TypeError, r"got a tensor of shape \(\)"),
        (
            {"x": rows(), "c": rows()},
            TypeError,
            r"c= was given, but Linear.* takes no argument 'c'; the arg.* x",
        ),
        ({"x": rows(), "c": rows().numpy()}, TypeError, r"c= was given, but Linear.* takes no argument 'c'"),
        ({"x": rows(), "c": np.array(["a"] * 40)}, TypeError, r"'c' hold <U1, no numbers"),
        ({"x": rows(), "num_samples": 3}, ValueError, r"cannot be called 'num_samples'"),
        (TensorDataset(rows(), rows()), ValueError, r"hold 2 values, and LinearModel takes x by position; give"),
        (random_split(TensorDataset(rows()), [20, 20])[0], TypeError, r"Subset gives single rows; wrap it, DataLoader"),
        (Batches([]), ValueError, r"the stream gave no batch"),
        (np.array([["a"]]), TypeError, r"the data hold <U1, no numbers"),
        (rows().numpy().astype(float) + 1e9, ValueError, r"which 32-bit numbers would blur; subtract its mean"),
        (rows().numpy().astype(float) * 1e300, ValueError, r"which 32-bit numbers cannot; scale them"),
        (
            pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
            TypeError,
            r"the column 'b' of the data holds .*, no num",
        ),
        (iter([rows()]), TypeError, r"data must be .*, got list_iterator"),
    ],
)
def test_what_is_refused(data, error, message):
    with pytest.raises(error, match=message) as caught:
        trained(data)
    assert "\n" not in str(caught.value)


def test_what_the_programs_fail_on_is_said_in_one_line():
    fit = Trainer(epochs=1, batch_size=16, progress=False).fit
    for c, message in (
        (covariates(39), r"fails on the first batch, .* c of shape \(39, 1\), passed whole: The size"),
        ("no", r"fails on the first batch, the data of shape \(16, 5\), c of type str, passed whole: "),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(Recorder().pair(), {"inputs": rows(), "c": c})
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"fails on validation rows, the data of shape \(8, 3\): ") as caught:
        fit(linear_pair(), rows(), rows(8)[:, :3])
    assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"what collate gives must begin with a tensor .*, got NoneType"):
        fit(linear_pair(), rows(), collate=lambda batch: None)


def test_arguments_that_are_refused():
    fit = Trainer(epochs=1, progress=False).fit
    with pytest.raises(ValueError, match="needs the argument 'c', which the data do not have"):
        fit(Recorder().pair(), rows())
    with pytest.raises(ValueError, match="validation rows are given twice"):
        fit(linear_pair(), (rows(), rows(8)), rows(8))
    with pytest.raises(ValueError, match="num_data=3 was given, and the data have 40 rows"):
        fit(linear_pair(), rows(), num_data=3)
    with pytest.raises(ValueError, match=r"give it to the loader, DataLoader\(\.\.\., drop_last=True\)"):
        Trainer(epochs=1, drop_last=True, progress=False).fit(linear_pair(), DataLoader(rows(), 8))

    def model(x, c):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x, covariate):
        pass

    with pytest.raises(ValueError, match="the model calls an argument 'c' and the guide 'covariate'"):
        fit(VAE(model, guide), TensorDataset(rows(), rows()))


def test_a_stream_that_is_used_up_is_refused():
    class Once(IterableDataset):
        left = 4

        def __iter__(self):
            while self.left:
                self.left -= 1
                yield rows(8)

    with pytest.raises(ValueError, match="no batch in epoch 2; a loader must begin anew whenever it is iterated"):
        Trainer(epochs=3, progress=False).fit(linear_pair(), Once())
