"""scikit-learn's own checks of the transformer, which use arrays of numbers without holes."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from pyrovae.estimators.transformer import VAETransformer


@parametrize_with_checks([VAETransformer(2, hidden=(8,), epochs=2, random_state=0)])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)
