"""scikit-learn's own checks of both estimators, but for the one that it lists for its own networks too."""

import pytest
from sklearn.utils.estimator_checks import check_estimator

from surefoot.architecture import CompactMLPClassifier, CompactMLPRegressor

# A random split and an iterative solver cannot meet rtol 1e-7.
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "the validation rows are drawn by row number"
}


def failures(estimator):
    found = check_estimator(estimator, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    assert len(found) >= 50
    return [(c["check_name"], c["exception"]) for c in found if c["status"] == "failed"]


@pytest.mark.filterwarnings("ignore")  # several checks are about warnings
@pytest.mark.parametrize(
    "estimator",
    [pytest.param(CompactMLPClassifier, marks=pytest.mark.acceptance), CompactMLPRegressor],
)
def test_passes_with_dense_candidates(estimator):
    assert failures(estimator(steps=8, random_state=0, strategy="dense")) == []


@pytest.mark.acceptance
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strategy", ["portfolio", "direct"])
@pytest.mark.parametrize("estimator", [CompactMLPClassifier, CompactMLPRegressor])
def test_passes_with_searches(estimator, strategy):
    assert failures(estimator(steps=60, random_state=0, strategy=strategy)) == []
