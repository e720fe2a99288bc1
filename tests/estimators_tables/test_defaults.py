"""The imputer, the transformer and the pair of the command line have one set of defaults."""

import inspect
import re

import pytest

from pyrovae.estimators import VAEImputer, VAETransformer
from pyrovae.pairs import find_pair

OF_THE_PAIR = {"latent_dim": "n_components"}
OWN = {"n_components", "hidden", "kl_weight", "num_particles"}  # of the transformer, which is for densities


def test_the_imputer_is_the_pair():
    pair, imputer = find_pair("tabular"), VAEImputer().get_params()
    options = {OF_THE_PAIR.get(option.name, option.name): option.default for option in pair.options}
    compared = {name: value for name, value in {**options, **pair.training}.items() if name in imputer}
    assert compared.pop("objective") == "mean-field"
    assert imputer["objective"] is None, "which is that objective for one particle"
    assert compared.keys() >= {"n_components", "hidden", "parameterization", "kl_weight", "lr", "batch_size"}
    assert compared == {name: imputer[name] for name in compared}


def test_the_transformer_is_the_imputer_but_for_what_densities_need():
    imputer, transformer = VAEImputer().get_params(), VAETransformer().get_params()
    shared = imputer.keys() & (transformer.keys() - OWN)
    assert {name: imputer[name] for name in shared} == {name: transformer[name] for name in shared}


@pytest.mark.parametrize("estimator", [VAEImputer, VAETransformer])
def test_docstrings_say_the_defaults(estimator):
    stated = dict(re.findall(r"^(\w+) : .*default (.+)$", inspect.getdoc(estimator), re.MULTILINE))
    defaults = estimator().get_params()
    assert len(stated) > 10
    for name, text in stated.items():
        value = defaults[name]
        assert text in (str(value), repr(value).replace("'", '"'), f'"{value}"'), name
