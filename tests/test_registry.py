"""Pairs by name, and what a builder's signature becomes on a command line."""

import functools
import sys
from typing import Annotated, Any, Literal, Optional

import pytest
import torch
from pairs import function_pair, linear_pair

from pyrovae import VAE, data
from pyrovae.data.dataset import Dataset, DataSpec, Rows
from pyrovae.pairs.registry import Option, Pair, find_pair, integers, is_own, pairs


def options_of(builder) -> dict[str, Option]:
    return {option.name: option for option in Pair("mine:f", "", builder, own=True).options}


def every_kind(
    spec: DataSpec,
    depth: int,
    width: Annotated[int, "how wide"] = 3,
    rate: float = 0.5,
    name: str = "x",
    tied: bool = False,
    sizes: tuple[int, ...] = (3, 4),
    kind: Literal["a", "b"] = "a",
    order: Literal[1, 2] = 1,
    maybe: int | None = None,
    perhaps: Optional[float] = None,  # noqa: UP045  users write it so
    bare=7,
    unknown=None,
    listed: list[int] = (),
    words: tuple[str, ...] = (),
    function: Any = None,
    *rest: int,
    last: "int" = 9,
    **further: int,
) -> VAE:
    return function_pair()


def test_options():
    options = options_of(every_kind)
    shown = {
        "depth": (int, None, None, True),
        "width": (int, 3, None, False),
        "rate": (float, 0.5, None, False),
        "name": (str, "x", None, False),
        "tied": (bool, False, None, False),
        "sizes": (integers, (3, 4), None, False),
        "kind": (str, "a", ("a", "b"), False),
        "order": (int, 1, (1, 2), False),
        "maybe": (int, None, None, False),
        "perhaps": (float, None, None, False),
        "bare": (int, 7, None, False),
        "last": (int, 9, None, False),
    }
    assert {name: (o.type, o.default, o.choices, o.required) for name, o in options.items()} == shown
    assert options["width"].help == "how wide"


def test_options_of_partials_and_classes():
    assert {o.name: o.default for o in options_of(functools.partial(linear_pair, data_dim=64)).values()} == {
        "data_dim": 64,
        "latent_dim": 2,
    }
    assert options_of(functools.partial(every_kind, width=5))["width"].default == 5

    class Builder:
        def __init__(self, size: int = 3) -> None: ...

    assert options_of(Builder)["size"].default == 3


def test_annotations_that_cannot_be_read():
    def builder(size: "Nowhere" = 3): ...  # noqa: F821

    with pytest.raises(ValueError, match=r"arguments of mine:f cannot be read: NameError: .*Nowhere"):
        options_of(builder)


class TestBuild:
    def test_data_set_is_given_where_it_is_wanted(self):
        seen = {}

        def with_data(spec, rows=None, size: int = 1):
            seen.update(spec=spec, rows=rows, size=size)
            return function_pair()

        digits = data.load("digits")
        pair = Pair("mine:f", "", with_data)
        vae = pair.build(digits, size=3)
        assert seen == {"spec": digits.spec, "rows": digits.train, "size": 3}
        assert vae.made_by == ("mine:f", {"size": 3}, digits.spec)
        pair.build(digits.spec)
        assert seen == {"spec": digits.spec, "rows": None, "size": 1}
        assert isinstance(Pair("mine:f", "", function_pair).build(digits), VAE)

    def test_unknown_option(self):
        with pytest.raises(ValueError, match="pair 'gaussian' has no option 'latent'; it has latent_dim, net, hidden"):
            find_pair("gaussian").build(data.load("digits"), latent=3)

    def test_further_options_are_handed_over(self):
        seen = {}

        def builder(**options):
            seen.update(options)
            return function_pair()

        Pair("mine:f", "", builder).build(None, anything=3)
        assert seen == {"anything": 3}

    def test_no_vae(self):
        with pytest.raises(TypeError, match=r"mine:f must return a pyrovae\.VAE, got tuple"):
            Pair("mine:f", "", lambda: (1, 2)).build(None)

    @pytest.mark.parametrize("own", [True, False])
    def test_errors_of_a_builder(self, own):
        """Of a user's, any error says whose it is; of ours, it is left as it is."""

        def builder():
            raise KeyError("k")

        expected = (ValueError, "mine:f failed: KeyError: 'k'") if own else (KeyError, "'k'")
        with pytest.raises(expected[0], match=expected[1]):
            Pair("mine:f", "", builder, own=own).build(None)


class TestFind:
    def test_registered(self):
        assert [pair.name for pair in pairs()] == sorted(pair.name for pair in pairs())
        assert find_pair("gaussian").summary
        assert not find_pair("gaussian").own

    def test_unknown(self):
        with pytest.raises(ValueError, match="unknown pair 'gausian'; known are auto-decoder, categorical, gaussian"):
            find_pair("gausian")

    @pytest.mark.parametrize(
        ("name", "own"),
        [
            ("m:f", True),
            ("pack.age:make_vae", True),
            ("warm-up:3", False),
            ("cuda:1", False),
            ("a/b:f", False),
            (":f", False),
            ("m:", False),
            ("gaussian", False),
            ("größe:über", True),
        ],
    )
    def test_form_of_an_own_pair(self, name, own):
        assert is_own(name) == own

    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        (tmp_path / "some_vaes.py").write_text(
            "from pyrovae import VAE\nvalue = 3\ndef _hidden(): ...\ndef first():\n    '''One line.\n\n    More.'''\n"
        )
        (tmp_path / "wrong.py").write_text("1 / 0\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield
        for name in ("some_vaes", "wrong"):
            sys.modules.pop(name, None)

    def test_own_pair_from_the_working_directory(self, module):
        pair = find_pair("some_vaes:first")
        assert (pair.name, pair.summary, pair.own) == ("some_vaes:first", "One line.", True)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("some_vaes:second", "module 'some_vaes' has no function 'second'; it has first$"),
            ("some_vaes:value", "has no function 'value'; it has first$"),
            ("nowhere:f", "there is no module 'nowhere' in the working directory or installed"),
            ("some_vaes.py:f", r"there is no module 'some_vaes\.py'"),
            ("wrong:f", "module 'wrong' cannot be imported: ZeroDivisionError: division by zero"),
            ("a b:f", "'a b:f' is no pair; one of your own is written module:function"),
        ],
    )
    def test_own_pair_that_cannot_be_had(self, name, message, module):
        with pytest.raises(ValueError, match=message):
            find_pair(name)


def test_integers():
    assert integers("300") == (300,)
    with pytest.raises(ValueError, match="expected whole numbers separated by commas, got '3,x'"):
        integers("3,x")


class TestGaussian:
    """The builder: what it makes of the kind of the data, and what it refuses."""

    def dataset(self, kind="binary", shape=(1, 8, 8), rows=3):
        split = Rows(torch.zeros(rows, *shape))
        return Dataset("some", split, split, split, kind)

    @pytest.mark.parametrize(
        ("kind", "likelihood"),
        [
            ("binary", "BernoulliLikelihood"),
            ("unit", "BernoulliLikelihood"),
            ("symmetric", "NormalLikelihood"),
            ("8-bit", "DiscretizedLogisticLikelihood"),
            ("real", "NormalLikelihood"),
        ],
    )
    def test_likelihood_goes_by_the_kind_of_values(self, kind, likelihood):
        vae = find_pair("gaussian").build(self.dataset(kind))
        assert type(vae.model.likelihood).__name__ == likelihood

    @pytest.mark.parametrize("pair", ["stick-breaking", "semi-supervised"])
    @pytest.mark.parametrize(
        ("kind", "likelihood"), [("8-bit", "Bernoulli"), ("unit", "Bernoulli"), ("real", "Normal")]
    )
    def test_sticks_take_bytes_as_grey_values(self, pair, kind, likelihood):
        split = Rows(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1]))
        vae = find_pair(pair).build(Dataset("some", split, split, split, kind))
        assert type(vae.model.likelihood).__name__ == f"{likelihood}Likelihood"

    def test_grey_values_are_taken_but_binary_ones_are_checked(self):
        grey = torch.full((2, 1, 8, 8), 0.5)
        assert find_pair("gaussian").build(self.dataset("unit")).log_likelihood(grey, 2).isfinite().all()
        with pytest.raises(ValueError, match="Bernoulli is a distribution of 0 and 1"):
            find_pair("gaussian").build(self.dataset("binary")).log_likelihood(grey, 2)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"layer": "plain", "activation": "tanh"},
            {"layer": "residual", "hidden": (20,)},
            {"layer": "plain", "tied": True},
            {"net": "conv", "channels": (2, 4)},
            {"net": "conv", "tied": True},
            {"prior": "mixture", "num_components": 3},
            {"prior": "vamp", "num_components": 3},
            {"likelihood": "normal", "likelihood_scale": 0.1},
        ],
        ids=str,
    )
    def test_options_make_a_pair_that_works(self, options):
        vae = find_pair("gaussian").build(self.dataset(), latent_dim=4, **options)
        x = torch.zeros(5, 1, 8, 8)
        assert vae.encode(x).mean.shape == (5, 4)
        assert vae.sample(2).shape == (2, 1, 8, 8)
        assert vae.log_likelihood(x, 3).isfinite().all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
            ({"prior": "vamp", "num_components": 0}, "num_components must be at least 1, got 0"),
            ({"activation": "rleu"}, "unknown activation 'rleu'; known are"),
            ({"net": "conv", "channels": (3,)}, "two numbers of channels"),
            ({"likelihood": "discretized-logistic"}, "for 8-bit data, and some is binary"),
            ({"tied": True}, "tied"),
        ],
        ids=str,
    )
    def test_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            find_pair("gaussian").build(self.dataset(), **options)
