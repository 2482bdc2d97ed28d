"""Every check of scikit-learn's own."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastml import (
    WALS,
    ContrastiveEmbedding,
    DistilledClassifier,
    LinearRegressor,
    LogisticClassifier,
    MLPClassifier,
    MLPRegressor,
    SampledMF,
    SoftmaxClassifier,
    TwoTower,
)
from fastml.optim import SGD, Adam

MOMENTUM = SGD(0.001, momentum=0.9, max_grad_norm=10.0)  # the features of some checks are not scaled
ESTIMATORS = [
    *(
        estimator(**settings)
        for estimator in (SoftmaxClassifier, LogisticClassifier, LinearRegressor)
        for settings in ({}, {"solver": "lbfgs"}, {"optimizer": MOMENTUM}, {"batch_size": 16})
    ),
    SoftmaxClassifier(optimizer=Adam(0.01), l1_ratio=0.5, class_weight="balanced"),
    SoftmaxClassifier(n_negatives=1),
    LogisticClassifier(optimizer=Adam(0.01), l1_ratio=0.5),
    *(LinearRegressor(loss=loss, solver=solver) for loss in ("absolute", "huber") for solver in ("lbfgs", "minibatch")),
    TwoTower(n_components=3, hidden_layer_sizes=(8,), max_iter=5),
    TwoTower(n_components=3, temperature="learn", correct_sampling_bias=True, max_iter=5),
    ContrastiveEmbedding(n_components=3, hidden_layer_sizes=(8,), max_iter=5),
    *(
        estimator(**{"hidden_layer_sizes": (8,), "learning_rate_init": 0.02, "max_iter": 100, **settings})
        for estimator in (MLPClassifier, MLPRegressor)
        for settings in ({"batch_size": None}, {"batch_norm": True, "dropout": 0.1, "solver": "sgd"})
    ),
    DistilledClassifier(SoftmaxClassifier(solver="lbfgs"), LogisticRegression()),
    *(WALS(n_factors=3, feedback=feedback, max_iter=3) for feedback in ("implicit", "explicit")),
    *(SampledMF(n_factors=3, loss=loss, max_iter=3) for loss in ("sampled_softmax", "bpr")),
]
RECOMMENDER = {
    "check_fit_score_takes_y": "the second argument of partial_fit is the users' ids, and y has repeated ones",
    "check_n_features_in_after_fitting": "partial_fit folds users in to the items of a fitted model",
    **dict.fromkeys(
        ["check_estimator_sparse_array", "check_estimator_sparse_matrix"], "predict has n_recommendations ids a row"
    ),
}


def expected_failures(estimator):
    """Check -> why it cannot hold."""
    if isinstance(estimator, WALS | SampledMF):
        return RECOMMENDER
    if isinstance(estimator, TwoTower):
        return {"check_n_features_in_after_fitting": "it passes y by name to score, whose second argument is Y"}
    batch_size = getattr(estimator, "batch_size", None)
    if not getattr(estimator, "dropout", 0) and (batch_size is None or batch_size > 100):
        return {}  # one batch holds all rows of these checks
    reason = "a row that is repeated fills other batches than one of twice the weight, so the steps differ"
    return {f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in ("dense", "sparse")}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_checks(estimator, check):
    check(estimator)
