"""DistilledClassifier: what the student is fitted to, what its probabilities are, and whom it takes as a teacher."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fastml import DistilledClassifier, LogisticClassifier, SoftmaxClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def rows(n_classes=3, n=300):
    X, y = make_classification(
        n, 6, n_informative=4, n_redundant=0, n_classes=n_classes, n_clusters_per_class=1, class_sep=0.7, random_state=0
    )
    return X, np.array(["ant", "bee", "cat", "dog"])[y]


def exact(**settings):
    """A student that goes to its optimum."""
    return SoftmaxClassifier(solver="lbfgs", alpha=0.0, tol=1e-9, max_iter=5000, **settings)


def expected_targets(teacher, X, y, temperature, hard_weight):
    p = teacher.predict_proba(X) ** (1 / temperature)
    return hard_weight * (y[:, None] == teacher.classes_) + (1 - hard_weight) * p / p.sum(axis=1, keepdims=True)


class Listener(SoftmaxClassifier):
    """Remembers what it was fitted to."""

    def fit(self, X, y, sample_weight=None):
        self.seen_ = y, sample_weight
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_a_student_that_can_be_the_teacher_has_its_probabilities(temperature, n_classes):
    X, y = rows(n_classes)
    teacher = LogisticRegression(C=1.0).fit(X, y)
    model = DistilledClassifier(exact(), teacher, temperature=temperature, hard_weight=0.0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), teacher.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(model.predict_log_proba(X), teacher.predict_log_proba(X), atol=1e-4)
    shape = (len(X),) if n_classes == 2 else (len(X), n_classes)
    assert model.decision_function(X).shape == shape
    np.testing.assert_array_equal(model.predict(X), model.classes_[model.predict_proba(X).argmax(axis=1)])
    assert model.score(X, y) == np.mean(model.predict(X) == y)
    softer = model.student_.predict_proba(X)
    np.testing.assert_allclose(softer, expected_targets(teacher, X, y, temperature, 0.0), atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X, temperature=temperature), softer, atol=1e-12)


@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_targets(temperature, hard_weight):
    X, y = rows()
    teacher = RandomForestClassifier(5, random_state=0).fit(X, y)
    assert (teacher.predict_proba(X) == 0).any()
    model = DistilledClassifier(Listener(max_iter=2), teacher, temperature=temperature, hard_weight=hard_weight)
    target, weight = model.fit(X, y).student_.seen_
    np.testing.assert_allclose(target, expected_targets(teacher, X, y, temperature, hard_weight), atol=1e-12)
    assert weight is None


def test_labels_alone_are_a_plain_fit():
    X, y = rows()
    model = DistilledClassifier(exact(), GaussianNB(), temperature=1.0, hard_weight=1.0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), exact().fit(X, y).predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    "teacher", [SVC(), RidgeClassifier(), KNeighborsClassifier(), make_pipeline(StandardScaler(), LogisticRegression())]
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_teachers_with_logits_or_probabilities(n_classes, teacher):
    X, y = rows(n_classes)
    model = DistilledClassifier(exact(), teacher, hard_weight=0.0).fit(X, y)
    assert np.mean(model.predict(X) == model.teacher_.predict(X)) > 0.8
    if not hasattr(teacher, "predict_proba"):
        logits = model.teacher_.decision_function(X).reshape(len(X), -1)
        logits = np.hstack([np.zeros_like(logits), logits]) if n_classes == 2 else logits
        own = np.exp(logits - logits.max(axis=1, keepdims=True))
        assert np.abs(model.predict_proba(X) - own / own.sum(axis=1, keepdims=True)).mean() < 0.1


def test_what_was_passed_stays_as_it_is():
    X, y = rows()
    student, teacher, fitted = exact(), GaussianNB(), GaussianNB().fit(X, y)
    model = DistilledClassifier(student, teacher).fit(X, y)
    for one in student, teacher:
        with pytest.raises(NotFittedError):
            one.predict(X)
    assert model.teacher_ is not teacher
    before = pickle.dumps(fitted)
    assert DistilledClassifier(student, fitted).fit(X[:200], y[:200]).teacher_ is fitted
    assert pickle.dumps(fitted) == before
    frozen = clone(DistilledClassifier(student, FrozenEstimator(fitted))).fit(X, y)
    assert frozen.teacher_.estimator is fitted
    assert pickle.loads(pickle.dumps(model)).predict(X).tolist() == model.predict(X).tolist()


def test_weights_go_to_both():
    X, y = rows()
    weight = np.random.default_rng(0).random(len(y))
    model = DistilledClassifier(Listener(max_iter=2), LogisticRegression()).fit(X, y, sample_weight=weight)
    assert model.student_.seen_[1] is weight
    np.testing.assert_array_equal(model.teacher_.coef_, LogisticRegression().fit(X, y, weight).coef_)
    twice = np.repeat(np.arange(len(y)), 1 + (weight > 0.5))
    fits = [
        DistilledClassifier(make_pipeline(StandardScaler(with_std=False), exact()), LogisticRegression())
        for _ in range(2)
    ]
    fits[0].fit(X, y, sample_weight=1.0 + (weight > 0.5))
    fits[1].fit(X[twice], y[twice])
    np.testing.assert_allclose(fits[0].predict_proba(X), fits[1].predict_proba(X), atol=1e-3)
    with pytest.raises(ValueError, match="teacher KNeighborsClassifier takes no sample_weight"):
        DistilledClassifier(exact(), KNeighborsClassifier()).fit(X, y, weight)


def test_parameters_of_both_are_searched():
    X, y = rows()
    grid = {"temperature": [1.0, 3.0], "student__alpha": [1e-4, 10.0], "teacher__n_estimators": [1, 20]}
    model = DistilledClassifier(exact().set_params(tol=1e-4), RandomForestClassifier(random_state=0))
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_params_["student__alpha"] == 1e-4
    assert search.best_estimator_.teacher_.n_estimators == search.best_params_["teacher__n_estimators"]


def test_sparse_rows_single_precision_and_names():
    pandas = pytest.importorskip("pandas")
    X, y = load_iris(return_X_y=True)
    model = DistilledClassifier(exact(), LogisticRegression(max_iter=1000))
    dense, sparse = clone(model).fit(X, y), clone(model).fit(csr_array(X), y)
    np.testing.assert_allclose(sparse.predict_proba(csr_array(X)), dense.predict_proba(X), atol=1e-4)
    assert dense.n_features_in_ == 4
    assert not hasattr(dense, "feature_names_in_")
    assert clone(model).fit(X.astype(np.float32), y).predict_proba(X.astype(np.float32)).dtype == np.float32
    frame = pandas.DataFrame(X, columns=list("abcd"))
    assert model.fit(frame, y).feature_names_in_.tolist() == list("abcd")
    np.testing.assert_allclose(model.predict_proba(frame), dense.predict_proba(X), atol=1e-12)


def test_bad_input():
    X, y = rows()
    fitted = GaussianNB().fit(X, y)
    model = DistilledClassifier(exact(), fitted).fit(X, y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"teacher has the classes .*'cat'.*, but y has .*'ant', 'bee'\]"):
        model.fit(X[y != "cat"], y[y != "cat"])
    with pytest.raises(ValueError, match=r"teacher has the classes .*, but y has .*'emu'"):
        model.fit(X, np.where(y == "cat", "emu", y))
    with pytest.raises(ValueError, match="one class only"):
        model.fit(X, np.full(len(y), "ant"))
    with pytest.raises(ValueError, match=r"y must be labels \(n_samples,\), got shape \(300, 2\)"):
        model.fit(X, np.ones((300, 2)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:5])
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="6 features"):
        model.fit(X[:, :5], y)
    for name, value in ("temperature", 0), ("temperature", np.inf), ("hard_weight", -0.1), ("hard_weight", 1.5):
        with pytest.raises(ValueError, match=f"The '{name}' parameter .* must be"):
            clone(model).set_params(**{name: value}).fit(X, y)
    with pytest.raises(ValueError, match="student LogisticClassifier takes a matrix as independent labels"):
        model.set_params(student=LogisticClassifier()).fit(X, y)
    model.set_params(student=before["student"])
    assert vars(model) == before
