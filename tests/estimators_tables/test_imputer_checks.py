"""scikit-learn's own checks of the imputer, which use arrays of numbers without holes."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyrovae.estimators.imputer import VAEImputer

SMALL = {"n_components": 2, "hidden": (8,), "epochs": 2, "random_state": 0}


def refused(estimator):
    """Chunks teach one net."""
    if estimator.num_nets == 1:
        return {}
    call_it = ("check_fit_score_takes_y", "check_n_features_in_after_fitting")
    return dict.fromkeys(call_it, "partial_fit trains one net, and says so")


@parametrize_with_checks(
    [VAEImputer(**SMALL, num_nets=1), VAEImputer(**SMALL, trees=False, num_nets=2)], expected_failed_checks=refused
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "options",
    [
        {"encoder": "set", "prior": "vamp"},
        {"prior": "mixture", "parameterization": "natural", "scaling": "normalize"},
        {"weights": "importance", "kl_weight": 1.0, "scaling": "none"},
    ],
    ids=str,
)
def test_rows_stand_alone_with_other_options(options):
    for check in ("check_methods_subset_invariance", "check_methods_sample_order_invariance"):
        getattr(estimator_checks, check)("VAEImputer", VAEImputer(**SMALL, trees=False, num_nets=1, **options))
