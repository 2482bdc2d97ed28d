"""What SoftmaxClassifier takes as rows and labels, and where it is used."""

import copy
import pickle

import numpy as np
import pytest
from scipy.sparse import bsr_array, coo_array, coo_matrix, csc_matrix, csr_array, csr_matrix, dok_array, lil_matrix
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastml import SoftmaxClassifier
from fastml.optim import SGD, Adam

SOLVERS = ["lbfgs", "minibatch"]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def make(solver="lbfgs", **settings):
    defaults = {"max_iter": 300, "tol": 1e-8} if solver == "lbfgs" else {"max_iter": 15, "optimizer": Adam(0.1)}
    return SoftmaxClassifier(solver=solver, random_state=0, **defaults | settings)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def check_same(model, expected, X, rtol=1e-9):
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=rtol, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), rtol=rtol, atol=1e-9)


# ------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "names",
    [
        np.array([7, -3, 0]),
        np.array([2.0, -1.0, 5.0]),
        np.array(["c", "a", "b"]),
        np.array(["long name", "ä", ""], dtype=object),
        np.array([0, 2**63], dtype=np.uint64),
        np.array([True, False]),
        np.array([-(2**62), 2**62]),
        np.array(["2024-01-01", "2023-01-01", "2025-01-01"], dtype="datetime64[D]"),
    ],
)
def test_labels(names, solver, iris):
    X, y = iris
    X, y = X[y < len(names)], y[y < len(names)]
    model, plain = make(solver).fit(X, names[y]), make(solver).fit(X, np.argsort(np.argsort(names))[y])
    np.testing.assert_array_equal(model.classes_, np.sort(names))
    assert model.classes_.dtype == names.dtype
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    assert (model.predict(X) == names[y]).mean() > 0.9
    assert model.predict(X).dtype == names.dtype
    assert model.score(X, names[y]) == plain.score(X, np.argsort(np.argsort(names))[y])
    if names.dtype.kind not in "Mu":  # NumPy would make other types of these
        np.testing.assert_array_equal(make(solver).fit(X.tolist(), names[y].tolist()).coef_, model.coef_)


def test_pandas(iris):
    pd = pytest.importorskip("pandas")
    X, y = iris
    names = np.array(["a", "b", "c"])[y]
    frame = pd.DataFrame(X, columns=["w", "x", "y", "z"])
    expected = make().fit(frame, names)
    for labels in pd.Series(names), pd.Series(names, dtype="category"), pd.Series(names, dtype="string"):
        model = make().fit(frame, labels)
        assert model.feature_names_in_.tolist() == ["w", "x", "y", "z"]
        check_same(model, expected, frame)
        assert model.predict(frame[:3]).tolist() == names[:3].tolist()
    weight = pd.Series(np.arange(150.0), index=np.arange(150)[::-1])
    expected_weighted = make().fit(frame, names, weight.to_numpy())
    check_same(make().fit(frame, names, weight), expected_weighted, frame)
    integers = make().fit(frame.astype({"w": "float32"}), pd.Series(y, dtype="Int64"))
    assert integers.classes_.tolist() == [0, 1, 2]
    expected = make().fit(frame, names)
    with pytest.raises(ValueError, match="feature names should match"):
        expected.predict(frame[["x", "w", "y", "z"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        expected.predict(X)
    partial = make("minibatch").partial_fit(frame, names, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="feature names should match"):
        partial.partial_fit(frame.rename(columns={"w": "v"}), names)
    dummies = make().fit(frame, pd.get_dummies(pd.Series(names), dtype=float))
    np.testing.assert_allclose(dummies.coef_, make().fit(X, y).coef_, rtol=1e-9)


def test_column_of_labels_warns(iris):
    X, y = iris
    with pytest.warns(UserWarning, match="column-vector"):
        check_same(make().fit(X, y[:, None]), make().fit(X, y), X)


# ------------------------------------------------------------------------------------------------- rows


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS = {
    "read-only": read_only,
    "Fortran": np.asfortranarray,
    "rows skipped": lambda X: np.repeat(X, 2, axis=0)[::2],
    "columns skipped": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "big endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
    "unaligned": lambda X: np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(X.dtype).reshape(X.shape),
    "lists": lambda X: X.tolist(),
    "objects": lambda X: X.astype(object),
    "matrix": csr_matrix,
    "csc": csc_matrix,
    "coo": coo_array,
    "coo matrix": coo_matrix,
    "lil": lil_matrix,
    "dok": dok_array,
    "bsr": bsr_array,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, solver, dtype, iris):
    X, y = iris[0].astype(dtype), iris[1]
    rows = LAYOUTS[layout](X)
    before = copy.deepcopy(rows)
    single = dtype == np.float32
    if layout in ("lists", "objects", "big endian"):
        X, single = X.astype(np.float64), False
    # Enough of a penalty to tell the optimum from what lies around it in single precision.
    model, expected = (make(solver, alpha=0.01).fit(data, y) for data in (rows, X))
    assert single == (model.coef_.dtype == np.float32)
    np.testing.assert_allclose(
        model.coef_, expected.coef_, rtol=3e-3 if single else 1e-7, atol=1e-4 if single else 1e-10
    )
    np.testing.assert_array_equal(model.predict(rows), model.predict(X))
    for now, then in ((rows, before), (y, iris[1])):
        dense = [m.toarray() if hasattr(m, "toarray") else np.asarray(m) for m in (now, then)]
        np.testing.assert_array_equal(*dense)


@pytest.mark.parametrize("solver", SOLVERS)
def test_memory_mapped_files(solver, iris, tmp_path):
    X, y = iris
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r"), np.load(tmp_path / "y.npy", mmap_mode="r")
    check_same(make(solver).fit(*mapped), make(solver).fit(X, y), mapped[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "sparse"),
    [*((t, s) for t in (np.int64, np.uint8, bool) for s in (False, True)), (np.float16, False), (np.longdouble, False)],
)
def test_other_numbers_become_float64(dtype, sparse, iris):
    X, y = np.abs(np.rint(2 * iris[0])).astype(dtype), iris[1]
    model = make().fit(csr_array(X) if sparse else X, y)
    assert model.coef_.dtype == np.float64
    np.testing.assert_allclose(model.coef_, make().fit(X.astype(np.float64), y).coef_, rtol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_csr_as_it_comes(index, solver):
    """Unsorted, repeated and explicitly zero entries, empty rows and columns, surplus capacity, read-only arrays."""
    rng = np.random.default_rng(0)
    n, d = 90, 12
    counts = rng.integers(0, 9, n)
    counts[[0, 5, 89]] = 0
    indptr = np.r_[0, counts.cumsum()].astype(index)
    indices = rng.integers(0, d - 1, indptr[-1]).astype(index)
    data = rng.standard_normal(indptr[-1])
    data[::7] = 0
    y = rng.integers(0, 3, n)
    dense = np.zeros((n, d))
    np.add.at(dense, (np.repeat(np.arange(n), counts), indices), data)
    for array in indptr, indices, data:
        array.flags.writeable = False
    X = csr_array((data, indices, indptr), shape=(n, d))
    expected = make(solver).fit(dense, y)
    kept = [a.copy() for a in (X.data, X.indices, X.indptr)]
    model = make(solver).fit(X, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X), model.decision_function(dense), atol=1e-12)
    if solver == "minibatch":
        stream = make(solver, shuffle=False).partial_fit(X, y, classes=[0, 1, 2])
        check_same(stream, make(solver, shuffle=False).partial_fit(dense, y, classes=[0, 1, 2]), dense)
    for array, before in zip((X.data, X.indices, X.indptr), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    full = csr_array((np.r_[data, 1.0, 2.0], np.r_[indices, [0, 1]].astype(index), indptr), shape=(n, d), copy=True)
    full.data, full.indices = np.r_[data, 1.0, 2.0], np.r_[indices, [0, 1]].astype(index)
    np.testing.assert_allclose(make(solver).fit(full, y).coef_, model.coef_, rtol=1e-12)
    assert len(full.data) == len(data) + 2


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("n", "d", "n_classes"), [(2, 1, 2), (3, 1, 3), (3, 2, 3), (7, 300, 7), (50, 1, 40), (5, 5000, 2), (300, 2, 2)]
)
def test_odd_shapes(n, d, n_classes, solver):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, d)), np.arange(n) % n_classes
    model = make(solver).fit(X, y)
    rows = 1 if n_classes == 2 else n_classes
    assert model.coef_.shape == (rows, d)
    assert model.intercept_.shape == (rows,)
    assert model.predict_proba(X).shape == (n, n_classes)
    assert model.decision_function(X).shape == ((n,) if n_classes == 2 else (n, n_classes))
    np.testing.assert_allclose(make(solver).fit(csr_array(X), y).coef_, model.coef_, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_constant_and_empty_features(solver):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), np.arange(60) % 3
    X[:, 1], X[:, 2] = 0, 5
    for rows in X, csr_array(X), 0 * X, csr_array((60, 4)):
        model = make(solver, alpha=0.0).fit(rows, y)
        assert np.isfinite(model.coef_).all()
        assert not model.coef_[:, 1].any()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_of_any_scale_fit_or_say_so(dtype, scale, solver, iris):
    X, y = (scale * iris[0]).astype(dtype), iris[1]
    model = make(solver, alpha=0.0, optimizer=SGD(0.1))
    if solver == "minibatch" and scale > 1:
        with pytest.raises(ValueError, match="Lower the learning rate or scale the features"):
            model.fit(X, y)
        return
    model.fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.loss_curve_).all()
    if solver == "lbfgs":
        assert model.score(X, y) > 0.9


# ------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions(n_classes, dtype, sparse, solver, iris):
    X, y = iris[0].astype(dtype)[iris[1] < n_classes], iris[1][iris[1] < n_classes]
    rows = csr_array(X) if sparse else X
    model = make(solver).fit(rows, y)
    logits = model.decision_function(rows)
    z = np.column_stack([0 * logits, logits]) if n_classes == 2 else logits
    proba, log_proba = model.predict_proba(rows), model.predict_log_proba(rows)
    for array in model.coef_, model.intercept_, logits, proba, log_proba, model.predict_proba(rows, temperature=2.0):
        assert array.dtype == dtype
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(logits, np.squeeze(X @ model.coef_.T + model.intercept_), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(proba, softmax(z, axis=1), rtol=rtol)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=rtol)
    np.testing.assert_allclose(log_proba, log_softmax(z, axis=1), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(model.predict_proba(rows, temperature=2.0), softmax(z / 2, axis=1), rtol=rtol)
    np.testing.assert_allclose(
        model.predict_log_proba(rows, temperature=0.5), log_softmax(2 * z, axis=1), rtol=2 * rtol, atol=rtol
    )
    np.testing.assert_array_equal(model.predict(rows), model.classes_[proba.argmax(axis=1)])
    other = np.float64 if dtype == np.float32 else np.float32
    assert model.predict_proba(X.astype(other)).dtype == np.float64


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_probabilities_of_extreme_logits(n_classes, iris):
    X, y = iris[0][iris[1] < n_classes], iris[1][iris[1] < n_classes]
    model = make().fit(X, y)
    far = 1e4 * X
    z = model.decision_function(far)
    z = np.column_stack([0 * z, z]) if n_classes == 2 else z
    got = model.predict_log_proba(far)
    assert np.isfinite(got).all()
    assert got.min() < -1e4
    np.testing.assert_allclose(got, log_softmax(z, axis=1), rtol=1e-12, atol=1e-12)
    assert (model.predict_proba(far) == 0).any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf, "1", None, True])
def test_bad_temperature(temperature, iris):
    model = make().fit(*iris)
    for method in model.predict_proba, model.predict_log_proba:
        with pytest.raises((ValueError, TypeError), match="temperature: expected a"):
            method(iris[0], temperature=temperature)


# ------------------------------------------------------------------------------------------------- company


@pytest.mark.parametrize("solver", SOLVERS)
def test_copies(solver, iris):
    X, y = iris
    model = make(solver, optimizer=Adam(0.05)).fit(X, y)
    for twin in copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model):
        check_same(twin, model, X, rtol=1e-15)
        assert twin.loss_curve_ == model.loss_curve_
    fresh = clone(model)
    assert not hasattr(fresh, "coef_")
    assert fresh.optimizer is not model.optimizer
    check_same(fresh.fit(X, y), model, X, rtol=1e-15)


def test_fit_leaves_parameters_alone(iris):
    model = make("minibatch", optimizer=Adam(0.05), class_weight={0: 2.0}, batch_size=None)
    before = copy.deepcopy(model.get_params())
    model.fit(*iris).partial_fit(*iris)
    after = model.get_params()
    assert repr(after) == repr(before)


def test_grid_search(iris):
    grid = {"optimizer__learning_rate": [1e-6, 0.1], "alpha": [1e-4]}
    search = GridSearchCV(make("minibatch", optimizer=Adam(), max_iter=50), grid, cv=3).fit(*iris)
    assert search.best_params_["optimizer__learning_rate"] == 0.1
    assert search.best_score_ > 0.9
    grid = {"softmaxclassifier__optimizer": [Adam(1e-6), SGD(0.5)]}
    search = GridSearchCV(make_pipeline(StandardScaler(), make("minibatch")), grid, cv=3).fit(
        *load_iris(return_X_y=True)
    )
    assert isinstance(search.best_params_["softmaxclassifier__optimizer"], SGD)
    assert search.score(*load_iris(return_X_y=True)) > 0.8
    weighted = GridSearchCV(make(), {"alpha": [1e-3, 1e-1]}, cv=3).fit(*iris, sample_weight=np.ones(150))
    assert weighted.best_score_ > 0.9


@pytest.mark.parametrize("solver", SOLVERS)
def test_pipeline_and_cross_validation(solver, iris):
    X, y = load_iris(return_X_y=True)
    scores = cross_val_score(make_pipeline(StandardScaler(), make(solver, max_iter=50)), X, y, scoring="neg_log_loss")
    assert scores.mean() > -0.4
    model = make_pipeline(StandardScaler(), make(solver)).fit(X, y, softmaxclassifier__sample_weight=np.ones(150))
    check_same(model[-1], make(solver).fit(*iris), iris[0])
