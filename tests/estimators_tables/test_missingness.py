"""Values missing because of themselves: the bound against quadrature, and a table whose mechanism is known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats

from pyrovae.cli import main
from pyrovae.data.clinic import clinic
from pyrovae.data.dataset import DataSpec
from pyrovae.distributions.selected_normal import SelectedNormal
from pyrovae.estimators import VAEImputer
from pyrovae.infer.imputation import Mixture, mixtures
from pyrovae.likelihoods.missingness import SelfMasking, resolve_mechanisms
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood
from pyrovae.pairs.registry import find_pair

SELECTED = [(0.3, 2.0, 1.5, -1.0), (0.0, 1.0, -40.0, 3.0), (1.0, 0.5, 0.2, -9.0), (0.0, 1.0, 0.0, 0.4)]
MIXED = ColumnFamilies(("normal", "categorical", "bernoulli", "normal"), (0, 3, 2, 0))


def numbers(*values):
    return tuple(torch.tensor(value, dtype=torch.double) for value in values)


@pytest.mark.parametrize("case", SELECTED)
def test_selected_normal_against_quadrature(case):
    loc, scale, slope, intercept = case
    fn = SelectedNormal(*numbers(*case))
    x = np.linspace(loc - 12 * scale, loc + 12 * scale, 200_001)
    density = stats.norm.pdf(x, loc, scale) * stats.norm.cdf(intercept + slope * (x - loc) / scale)
    total = integrate.simpson(density, x=x)
    mean = integrate.simpson(x * density, x=x) / total
    variance = integrate.simpson((x - mean) ** 2 * density, x=x) / total
    assert fn.log_selected.item() == pytest.approx(np.log(total), rel=1e-8)
    assert fn.mean.item() == pytest.approx(mean, abs=1e-7)
    assert fn.variance.item() == pytest.approx(variance, rel=1e-6)
    inside = density > 1e-200
    found = fn.log_prob(torch.tensor(x[inside])).numpy()
    assert np.allclose(found, np.log(density[inside] / total), atol=1e-7)
    cumulative = integrate.cumulative_trapezoid(density, x, initial=0) / total
    assert stats.kstest(fn.sample((4000,)).numpy(), lambda value: np.interp(value, x, cumulative)).pvalue > 1e-3
    assert fn.expand((3,)).sample((2,)).shape == (2, 3)


def pair_of(families, num_levels, missingness, rates=0.4, **options):
    size = len(families)
    schema = {"columns": ColumnFamilies(families, num_levels).to_dict()}
    spec = DataSpec("table", (size,), "table", 10, 0, 0, schema)
    torch.manual_seed(3)
    vae = (
        find_pair("tabular").build(spec, hidden=(4,), missingness=missingness, **{"latent_dim": 1, **options}).double()
    )
    with torch.no_grad():
        vae.model.missingness.slope.copy_(torch.linspace(0.15, 0.3, size))
        vae.model.missingness.intercept.copy_(torch.linspace(-0.05, 0.1, size))
        if vae.model.missingness.levels is not None:
            vae.model.missingness.levels.copy_(torch.linspace(-0.1, 0.15, len(vae.model.missingness.levels)))
    return vae.eval()


@pytest.mark.parametrize("parameterization", ["natural", "canonical"])
@pytest.mark.parametrize("observed", [True, False])
def test_likelihood_of_entry_and_mask_against_quadrature(parameterization, observed):
    vae = pair_of(("normal",), (0,), "self-masking-low", parameterization=parameterization)
    x, mask = torch.tensor([[0.7]]).double(), torch.tensor([[observed]])
    part = vae.model.missingness
    slope, intercept = part.slopes().item(), 10 * part.intercept.item()
    assert slope < 0  # low numbers are missing more often
    z = np.linspace(-8, 8, 801)
    with torch.no_grad():
        fn = vae.model.likelihood.elementwise(vae.model.decoder(torch.tensor(z).unsqueeze(-1))).groups[0].fn
    loc, scale = fn.mean.squeeze(-1).numpy(), fn.variance.sqrt().squeeze(-1).numpy()
    if observed:
        given = stats.norm.pdf(0.7, loc, scale) * stats.norm.cdf(-(intercept + slope * 0.7))
    else:
        values = np.linspace(-12, 12, 6001)
        missing = stats.norm.cdf(intercept + slope * values)
        given = integrate.simpson(stats.norm.pdf(values, loc[:, None], scale[:, None]) * missing, x=values)
    truth = np.log(integrate.simpson(stats.norm.pdf(z) * given, x=z))
    found = vae.log_likelihood(x, 200_000, mask=mask, chunk_size=200_000, return_details=True)
    assert found.value.item() == pytest.approx(truth, abs=max(4 * found.standard_error.item(), 1e-4))


def test_levels_are_summed_over_and_tilted():
    likelihood = TableLikelihood(MIXED, parameterization="canonical").double()
    part = SelfMasking(MIXED, ["self-masking"] * 4, torch.zeros(4), torch.ones(4)).double()
    with torch.no_grad():
        part.levels.copy_(0.1 * torch.randn(5, dtype=torch.double))
        part.slope.copy_(0.1 * torch.randn(4, dtype=torch.double))
    fn = likelihood.elementwise(torch.randn(6, *likelihood.raw_shape, dtype=torch.double))
    x = torch.tensor([0.3, 2.0, 1.0, -0.5]).double().expand(6, 4)
    known = torch.tensor([True, False, False, True]).expand(6, 4)
    chance = (10 * part.levels).detach().numpy()  # of which the probit is taken
    levels = fn.groups[-1].fn.probs[:, 0].detach().numpy() @ stats.norm.cdf(chance[:3])
    second = fn.groups[1].fn.mean[:, 0].detach().numpy()
    binary = (1 - second) * stats.norm.cdf(chance[3]) + second * stats.norm.cdf(chance[4])
    with torch.no_grad():
        probs = part(fn, x, known).base_dist.base_dist.probs.numpy()
        given = part.given(fn, torch.tensor([1.0, 1.0, -1.0, 0.0]).double().expand(6, 4))
    assert np.allclose(probs[:, 1:3], np.stack([1 - levels, 1 - binary], 1))
    slopes = part.slopes().detach().numpy()
    assert np.allclose(probs[:, 0], stats.norm.cdf(-slopes[0] * 0.3))
    tilted = fn.groups[-1].fn.probs[:, 0].detach().numpy() * stats.norm.cdf(chance[:3])
    assert np.allclose(given.groups[-1].fn.probs[:, 0].numpy(), tilted / tilted.sum(1, keepdims=True))
    kept = second * stats.norm.cdf(-chance[4]) / (1 - binary)
    assert np.allclose(given.groups[1].fn.mean[:, 0].numpy(), kept)
    assert torch.allclose(given.mean[:, 3], fn.mean[:, 3])


def test_hidden_entries_are_known_to_be_recorded():
    vae = pair_of(("normal", "normal"), (0, 0), "self-masking-high")
    x, mask = torch.tensor([[0.5, 9.9]]).double(), torch.tensor([[True, False]])
    noise = torch.zeros(1, 1).double()

    def point(missing):
        ((_, mixture),) = mixtures(vae, x, mask, noise, missing=missing)
        return mixture.points(torch.zeros(2, dtype=torch.bool))[0, 1].item()

    lost, recorded = point(None), point(torch.zeros_like(mask))
    with torch.no_grad():
        plain = vae.model.likelihood.elementwise(vae.model.decoder(vae.guide.posterior(x, mask).mean)).mean[0, 1]
    assert recorded < plain.item() < lost
    whole = (
        vae.log_likelihood(x, 20_000, mask=mask).exp()
        + vae.log_likelihood(x, 20_000, mask=mask, recorded=~mask | mask).exp()
    )
    only = find_pair("tabular").build(vae.made_by.spec, latent_dim=1, hidden=(4,)).double().eval()
    only.load_state_dict({n: v for n, v in vae.state_dict().items() if "missingness" not in n})
    seen = stats.norm.cdf(-(10 * vae.model.missingness.intercept[0] + vae.model.missingness.slopes()[0] * 0.5).item())
    # The two events about the second entry add up to what is known of the first one.
    assert whole.item() == pytest.approx(only.log_likelihood(x, 20_000, mask=mask).exp().item() * seen, rel=0.02)


def test_draws_of_missing_entries_have_the_mean_and_the_joint_mask():
    likelihood = TableLikelihood(ColumnFamilies(("normal",), (0,)), parameterization="canonical").double()
    part = SelfMasking(likelihood.columns, ["self-masking-high"], torch.zeros(1), torch.ones(1)).double()
    raw = torch.randn(3, 1, 2, dtype=torch.double)
    mixture = Mixture(likelihood, raw, torch.tensor([[0.2], [0.5], [0.3]]).double(), part, torch.ones(1, 1).double())
    drawn = mixture.draws(torch.rand(40_000, 3, dtype=torch.double))
    expected = mixture.points(torch.zeros(1, dtype=torch.bool)).item()
    assert drawn.mean().item() == pytest.approx(expected, abs=4 * drawn.std().item() / 200)


@pytest.fixture(scope="module")
def incomes():
    """Numbers above 0.3 go missing; the other column tells most of what they were."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(400)
    names = ("income", "rent", "savings")
    whole = pd.DataFrame({name: common + 0.4 * rng.standard_normal(400) for name in names})
    frame = whole.copy()
    frame.loc[whole.income > 0.3, "income"] = np.nan
    return frame, whole


def fitted(frame, missingness, **options):
    given = {"hidden": (16,), "epochs": 80, "batch_size": 200, "lr": 2e-2, "kl_weight": 1.0, "num_particles": 2}
    given["weights"] = "importance"
    options = {**given, "trees": False, "num_nets": 1, "random_state": 0, "missingness": missingness, **options}
    return VAEImputer(2, **options).fit(frame)


def test_bias_of_values_missing_because_of_themselves(incomes, tmp_path):
    frame, whole = incomes
    hidden = frame.income.isna()
    truth = whole.income[hidden].mean()
    ignorable, unknown, imputer = (
        fitted(frame, missingness) for missingness in ("ignorable", "self-masking", {"income": "self-masking-high"})
    )
    found = imputer.transform(frame)
    assert ignorable.transform(frame).income[hidden].mean() < truth - 1
    for completed in (unknown.transform(frame), found):
        assert abs(completed.income[hidden].mean() - truth) < 0.4
        assert completed.income.max() > frame.income.max()  # not cut off at what was observed
    drawn = np.mean([draw.income[hidden].mean() for draw in imputer.impute_draws(frame, 5)])
    assert drawn == pytest.approx(found.income[hidden].mean(), abs=0.1)
    low, high = imputer.intervals(frame)
    assert ((low <= whole) & (whole <= high)).income[hidden].mean() > 0.6
    imputer.save(tmp_path / "run")
    again = VAEImputer.load(tmp_path / "run")
    assert again.missingness == {"income": "self-masking-high"}
    assert again.transform(frame).equals(found)
    assert np.array_equal(again.score_samples(frame.head(5)), imputer.score_samples(frame.head(5)))
    assert len(imputer.sample(3, given={"rent": 1.0})) == 3


def test_declared_ranges_stay(incomes):
    frame, _ = incomes
    imputer = fitted(frame, "self-masking-high", ranges={"income": (-5.0, 0.5)}, epochs=5)
    assert imputer.transform(frame).income.max() <= 0.5


def test_few_effective_draws_are_told(caplog):
    vae = pair_of(("normal",) * 12, (0,) * 12, "self-masking", latent_dim=8)
    x, mask = torch.randn(20, 12).double(), torch.rand(20, 12) < 0.7
    for weights, spread in (("none", 5.0), ("importance", 0.01), ("importance", 5.0)):
        list(mixtures(vae, x, mask, spread * torch.randn(50, 8).double(), weights=weights))
    told = [record.getMessage() for record in caplog.records if "importance weights" in record.getMessage()]
    assert len(told) == 1
    assert "of 50" in told[0]


REFUSED = [
    ({"missingness": "unknown"}, "missingness must be one of ignorable, self-masking"),
    ({"missingness": 3}, "missingness must be a text, or a dictionary"),
    ({"missingness": {"wage": "self-masking"}}, "missingness names 'wage'"),
    ({"missingness": {"income": "high"}}, "missingness of column 'income': it must be one of"),
    ({"missingness": {"rent": "self-masking"}}, "nothing is missing in the training rows"),
    ({"missingness": "self-masking", "trees": True}, "give trees=False"),
    ({"missingness": "self-masking", "num_nets": 2}, "give num_nets=1"),
    ({"missingness": "self-masking", "patience": 3}, "give patience=None"),
    ({"missingness": "self-masking", "likelihoods": {"income": "student-t"}}, "take the likelihood 'normal'"),
    ({"objective": "mean-field", "num_particles": 2}, "take 'iwae-dreg'"),
    ({"objective": "elbo"}, "objective must be one of"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused(incomes, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fitted(incomes[0], **{"missingness": "ignorable", "epochs": 1, **options})


def test_mechanisms_by_name():
    names = ["a", "b", "c", "d"]
    assert resolve_mechanisms("self-masking-high", names, MIXED)[1:3] == ("self-masking", "self-masking")
    for text, message in {"a": "got 'a'", "a=": "got ''", "a=self-masking,b": "between commas"}.items():
        with pytest.raises(ValueError, match=message):
            resolve_mechanisms(text, names, MIXED)
    with pytest.raises(ValueError, match="names 'a' twice"):
        resolve_mechanisms("a=self-masking,a=ignorable", names, MIXED)
    with pytest.raises(ValueError, match="no direction"):
        resolve_mechanisms({"b": "self-masking-high"}, names, MIXED)


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clinic().head(60).to_csv("some.csv", index=False)
    words = ["train", "tabular", "--data", "clinic", "--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--quiet"]
    words += ["--kl-weight", "1", "--objective", "iwae-dreg", "--num-particles", "2", "--out", "run"]
    assert main([*words, "--missingness", "glucose=self-masking-high,pain=self-masking"]) == 0
    schema = json.loads((tmp_path / "run" / "config.json").read_text())["spec"]["schema"]
    assert schema["settings"]["weights"] == "importance"
    assert VAEImputer.load("run").missingness == "glucose=self-masking-high,pain=self-masking"
    capsys.readouterr()
    assert main(["evaluate", "run", "--num-samples", "10", "--baselines", "mean-mode", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imputation"]["vae"]["rmse"] > 0
    assert main(["impute", "run", "--input", "some.csv", "--out", "whole.csv", "--intervals", "0.9"]) == 0
    assert not pd.read_csv("whole.csv")["glucose"].isna().any()
    assert main(["sample", "run", "--num", "3", "--out", "new.csv", "--given", "smoking=never"]) == 0
    capsys.readouterr()
    assert main([*words[:-1], "other", "--missingness", "glucose=high"]) == 2
    assert "missingness of column 'glucose': it must be one of ignorable" in capsys.readouterr().err


def test_a_level_that_training_did_not_see_was_recorded():
    generator = np.random.default_rng(0)
    sort = generator.choice(["a", "b"], 300)
    frame = pd.DataFrame({"sort": sort, "size": (sort == "b") + generator.normal(size=300)})
    frame.loc[(sort == "b") & (generator.uniform(size=300) < 0.6), "sort"] = None
    imputer = fitted(frame, {"sort": "self-masking"})
    rows = pd.DataFrame({"sort": ["a", "b", "unseen", None], "size": 0.5})
    first, second, unseen, missing = imputer.score_samples(rows, 20_000)
    assert unseen == pytest.approx(np.logaddexp(first, second), abs=0.05)
    assert abs(unseen - missing) > 0.1
    empty = pd.DataFrame({"sort": ["a", "b", None], "size": np.nan})
    assert np.exp(imputer.score_samples(empty, 20_000)).sum() == pytest.approx(1, abs=0.05)
