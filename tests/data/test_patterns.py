"""Entries, points and blocks that are hidden; training on incomplete data; encoders that see the mask."""

import pytest
import torch

from pyrovae import data
from pyrovae.cli import main
from pyrovae.data import Dataset, Rows
from pyrovae.data.patterns import PATTERNS, hidden, hide_from_encoder, hide_in_training, points_of, random_mask
from pyrovae.nn import ConvEncoder, DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.training import Trainer


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class TestRandomMask:
    @pytest.mark.parametrize("pattern", PATTERNS)
    @pytest.mark.parametrize("shape", [(3, 20, 20), (40, 2), (2, 40)])
    @pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
    def test_the_share_is_right(self, pattern, shape, rate):
        mask = random_mask(shape, 200, rate, pattern, seeded())
        assert mask.shape == (200, *shape)
        assert mask.dtype == torch.bool
        assert float((~mask).float().mean()) == pytest.approx(rate, abs=0.02)

    def test_entries_are_hidden_on_their_own(self):
        mask = random_mask((2, 3), 20_000, 0.5, generator=seeded()).flatten(1).float()
        assert torch.corrcoef(mask.T).sub(torch.eye(6)).abs().max() < 0.03

    @pytest.mark.parametrize(("shape", "dim"), [((3, 6, 6), 1), ((10, 2), 2), ((10, 3), 2), ((2, 10), 1)])
    def test_numbers_of_a_point_vanish_together(self, shape, dim):
        mask = random_mask(shape, 300, 0.4, "points", seeded())
        assert torch.equal(mask.all(dim), mask.any(dim))
        points = mask.all(dim).flatten(1).float()
        assert torch.corrcoef(points.T).sub(torch.eye(points.shape[1])).abs().max() < 0.3

    @pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
    def test_a_block_is_a_rectangle_of_all_channels_anywhere(self, rate):
        mask = random_mask((3, 16, 12), 400, rate, "block", seeded())
        assert torch.equal(mask.all(1), mask.any(1))
        holes = ~mask[:, 0]
        height, width = holes.any(2).sum(1), holes.any(1).sum(1)
        assert torch.equal(height * width, holes.sum((1, 2)))
        for line in (holes.any(2), holes.any(1)):
            changes = line.float().diff(dim=1, prepend=torch.zeros(400, 1)).clamp(min=0).sum(1)
            assert bool((changes == 1).all()), "the sides of a block are runs"
        assert len(set(holes.any(2).float().argmax(1).tolist())) == 16 - int(height[0]) + 1
        assert float(height[0] / 16) == pytest.approx(float(width[0] / 12), abs=0.1)

    def test_a_block_of_a_vector_is_a_run(self):
        holes = ~random_mask((20,), 100, 0.25, "block", seeded())
        assert holes.sum(1).tolist() == [5] * 100
        assert bool((holes.float().diff(dim=1).abs().sum(1) <= 2).all())

    def test_seeds(self):
        first, again, other = (random_mask((5, 5), 9, 0.5, generator=seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_points(self):
        assert [points_of(shape) for shape in ((7,), (1, 8, 8), (3, 2), (68, 2), (3, 68))] == [
            (7,),
            (1, 8, 8),
            (3, 1),
            (68, 1),
            (1, 68),
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (((4,), 3, 1.5), "from 0 to 1, got 1.5"),
            (((4,), 3, float("nan")), "from 0 to 1, got nan"),
            (((4,), 3, 0.5, "rows"), "one of entries, points, block, got 'rows'"),
            (((4,), 3, 0.5, "points"), r"shape \(4,\) has no points"),
            (((1, 8, 8), 3, 0.5, "points"), r"shape \(1, 8, 8\) has no points"),
        ],
    )
    def test_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            random_mask(*arguments)


class TestIncompleteTraining:
    def test_training_and_validation_rows_lack_entries(self):
        digits = data.load("digits")
        found = data.load("digits", missing=0.4, missing_pattern="block")
        for name in ("train", "validation"):
            rows, whole = found.splits()[name], digits.splits()[name]
            assert float((~rows.mask).float().mean()) == pytest.approx(0.4, abs=0.05)
            assert torch.equal(rows.x, torch.where(rows.mask, whole.x, 0.0))
        assert found.test.mask is None
        assert torch.equal(found.test.x, digits.test.x)
        again = data.load(**found.options)
        assert torch.equal(again.train.mask, found.train.mask)
        assert not torch.equal(data.load("digits", missing=0.4, seed=1).train.mask, found.train.mask)

    def test_what_is_missing_already_stays_missing(self):
        rows = Rows(torch.rand(50, 4), mask=random_mask((4,), 50, 0.5, generator=seeded()))
        found = hidden(rows, random_mask((4,), 50, 0.5, generator=seeded(1)))
        assert not (found.mask & ~rows.mask).any()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"missing": 2.0}, "from 0 to 1, got 2"),
            ({"missing": 1.0}, "leaves no entry of digits"),
            ({"missing_pattern": "block"}, "give missing too"),
            ({"hide": (0.5,)}, "lowest and the highest"),
            ({"hide": (0.9, 0.1)}, "range within 0 and 1"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            data.load("digits", **options)

    @pytest.mark.parametrize("options", [{"missing": 0.5}, {"hide": (0.0, 0.5)}])
    def test_tables_are_refused(self, options):
        with pytest.raises(ValueError, match="not for tables"):
            data.load("clinic", **options)
        with pytest.raises(ValueError, match="table"):
            (hide_in_training if "missing" in options else hide_from_encoder)(data.load("clinic"), (0.1, 0.2))


class TestEncoders:
    @pytest.mark.parametrize(
        "encoder",
        [
            lambda: DenseEncoder((2, 8, 8), (5,), sees_mask=True),
            lambda: ConvEncoder((2, 8, 8), (3, 4), 5, sees_mask=True),
        ],
    )
    def test_a_missing_entry_is_no_zero(self, encoder):
        net, x = encoder(), torch.rand(3, 4, 2, 8, 8)
        mask = torch.rand(x.shape) > 0.5
        zeros = torch.where(mask, x, 0.0)
        assert net(x, mask).shape == (3, 4, 5)
        assert torch.equal(net(x, mask), net(torch.where(mask, x, torch.nan), mask))
        assert not torch.allclose(net(zeros, mask), net(zeros))
        assert torch.equal(net(x), net(x, torch.ones_like(mask)))

    def test_hidden_entries_are_scored_and_not_seen(self):
        digits = data.load("digits")
        vae = find_pair("gaussian").build(digits, latent_dim=2, hidden=(8,), layer="plain", likelihood="bernoulli")
        x = digits.train.x[:5]
        vae.prepare(x)
        nothing = torch.zeros_like(x, dtype=torch.bool)
        posterior = vae.encode(x, seen=nothing)
        assert torch.equal(posterior.mean, vae.encode(x, mask=nothing).mean)
        torch.manual_seed(0)
        scored = vae(x, seen=nothing).nll
        assert (scored > 10).all(), "all pixels count"
        torch.manual_seed(0)
        assert torch.equal(vae(x, mask=nothing).nll, torch.zeros(5))

    def test_training_with_hidden_entries(self):
        digits = data.load("digits", hide=(0.0, 0.9))
        vae = find_pair("gaussian").build(digits, latent_dim=2, hidden=(8,), layer="plain", sees_mask=True)
        history = Trainer(epochs=2, progress=False).fit(vae, digits)
        assert history.rows[1]["loss"] < history.rows[0]["loss"]

    def test_pairs_that_cannot_hide(self):
        digits = data.load("digits", hide=(0.0, 0.9), binarize="static")
        with pytest.raises((TypeError, ValueError), match="takes no argument 'seen'"):
            Trainer(epochs=1, progress=False).fit(find_pair("sbn").build(digits, sizes=(4,)), digits)

    def test_tied_nets_do_not_see_the_mask(self):
        with pytest.raises(ValueError, match="tied must be off"):
            find_pair("gaussian").build(data.load("digits"), tied=True, layer="plain", hidden=(8,), sees_mask=True)

    def test_binarisation_comes_before(self):
        found = data.load("digits", binarize="dynamic", hide=(0.2, 0.2))
        seen = found.seen("train")
        assert set(seen.x.unique().tolist()) == {0.0, 1.0}
        assert float(seen.more["seen"].float().mean()) == pytest.approx(0.8, abs=0.01)


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--quiet", "--out", "run"]
    more = [
        "--missing",
        "0.3",
        "--missing-pattern",
        "block",
        "--hide",
        "0:0.5",
        "--sees-mask",
        "--likelihood",
        "bernoulli",
    ]
    assert main(["train", "gaussian", *words, *more]) == 0
    dataset = Run.open("run").dataset()
    assert float((~dataset.train.mask).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert dataset.transform is not None
    assert main(["train", "gaussian", *words[:-1], "other", "--hide", "half"]) == 2
    assert main(["train", "gaussian", *words[:-1], "other", "--missing-pattern", "block"]) == 2


def test_a_dataset_of_ones_own():
    rows = Rows(torch.rand(40, 6, 2))
    mine = Dataset("mine", rows, rows, rows, "unit")
    found = hide_in_training(mine, 0.5, "points")
    assert torch.equal(found.train.mask[..., 0], found.train.mask[..., 1])
    assert not torch.equal(found.train.mask, found.validation.mask)
