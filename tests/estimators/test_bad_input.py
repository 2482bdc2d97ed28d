"""Bad input, case by case: the error that comes, what it says, and that nothing has changed afterwards."""

import copy
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from scipy.sparse import (
    bsr_array,
    coo_array,
    coo_matrix,
    csr_array,
    issparse,
    random_array,
)

from fastml import LinearRegressor, LogisticClassifier, SoftmaxClassifier
from fastml.optim import SGD, Adam

N, D = 40, 4
X = np.random.default_rng(0).standard_normal((N, D))
Y = np.repeat([0, 1, 2, 0], 10)
P = np.eye(3)[Y]
W = np.ones(N)

ESTIMATORS = [SoftmaxClassifier, LogisticClassifier, LinearRegressor]
PREDICTIONS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")


def put(array, at, value):
    """A copy of the array with one entry replaced."""
    array = np.array(array, dtype=np.result_type(array, np.asarray(value).dtype))
    array[at] = value
    return array


def broken(kind="csr", **arrays):
    """A sparse X whose arrays are set to something else."""
    X = random_array((N, D), density=0.5, format=kind, rng=np.random.default_rng(0))
    for name, change in arrays.items():
        setattr(X, name, change(getattr(X, name)))
    return X


def bad_coo(axis, value):
    X = broken("coo")
    X.coords[axis][3] = value
    return X


def bad_coo_matrix():
    X = coo_matrix(broken("coo"))
    X.col[3] = 10**8
    return X


def bad_lil(column):
    X = broken("lil")
    X.rows[2].append(column)
    X.data[2].append(1.0)
    return X


def short_lil():
    X = broken("lil")
    X.rows[2].append(1)
    return X


def bad_dok(key):
    X = broken("dok")
    X._dict[key] = 1.0
    return X


def set_at(at, value):
    return lambda array: put(array, at, value).astype(array.dtype)


BROKEN_SPARSE = {
    "column too large": (lambda: broken(indices=set_at(3, D)), r"X is a broken sparse csr .* < 4\. Build it anew"),
    "column huge": (lambda: broken(indices=set_at(3, 2**31 - 1)), "X is a broken sparse csr"),
    "column negative": (lambda: broken(indices=set_at(3, -1)), "X is a broken sparse csr .*indices must be >= 0"),
    "column very negative": (lambda: broken(indices=set_at(3, -(2**31))), "X is a broken sparse csr"),
    "columns are floats": (lambda: broken(indices=lambda a: a + 0.5), "indices and indptr must be integers"),
    "columns in two dimensions": (lambda: broken(indices=lambda a: a[:, None]), "X is a broken sparse csr"),
    "fewer columns than data": (lambda: broken(indices=lambda a: a[:-3]), "indices and data should have the same size"),
    "less data than columns": (lambda: broken(data=lambda a: a[:-3]), "indices and data should have the same size"),
    "indptr falls": (lambda: broken(indptr=set_at(5, 70)), "indptr must be a non-decreasing sequence"),
    "indptr starts below 0": (lambda: broken(indptr=set_at(0, -5)), "index pointer should start with 0"),
    "indptr starts above 0": (lambda: broken(indptr=set_at(0, 1)), "index pointer should start with 0"),
    "indptr ends behind the data": (lambda: broken(indptr=set_at(-1, 10**6)), "X is a broken sparse csr"),
    "indptr too short": (lambda: broken(indptr=lambda a: a[:-3]), "index pointer size 38 should be 41"),
    "indptr too long": (lambda: broken(indptr=lambda a: np.r_[a, a[-1]]), "index pointer size 42 should be 41"),
    "csc row too large": (lambda: broken("csc", indices=set_at(3, 10**8)), "broken sparse csc .*indices must be < 40"),
    "csc row negative": (lambda: broken("csc", indices=set_at(3, -7)), "X is a broken sparse csc"),
    "bsr block too large": (lambda: bsr_with(10**8), "X is a broken sparse bsr"),
    "coo row negative": (lambda: bad_coo(0, -7), r"broken sparse coo .*axis 0 are not all in 0\.\.39"),
    "coo column too large": (lambda: bad_coo(1, 10**8), r"coordinates of axis 1 are not all in 0\.\.3"),
    "coo matrix": (bad_coo_matrix, r"coordinates of axis 1 are not all in 0\.\.3"),
    "coo with less data": (lambda: broken("coo", data=lambda a: a[:-3]), "coordinates and data differ in length"),
    "lil column too large": (lambda: bad_lil(10**8), r"broken sparse lil .*axis 1 are not all in 0\.\.3"),
    "lil column negative": (lambda: bad_lil(-(10**8)), "X is a broken sparse lil"),
    "lil with less data": (short_lil, "rows and data differ in length"),
    "dok column too large": (lambda: bad_dok((2, 10**8)), "exceeds matrix dimension"),
    "dok row negative": (lambda: bad_dok((-(10**8), 1)), "negative axis 0 index"),
}  # fmt: skip


def bsr_with(column):
    X = bsr_array(broken("csr"), blocksize=(2, 2))
    X.indices[2] = column
    return X


ROWS = {
    "NaN": (lambda: put(X, (3, 2), np.nan), ValueError, "Input X contains NaN"),
    "inf": (lambda: put(X, (3, 2), np.inf), ValueError, "Input X contains infinity"),
    "-inf, float32": (lambda: put(X, (3, 2), -np.inf).astype(np.float32), ValueError, "Input X contains infinity"),
    "too large for float64": (lambda: put(X.astype(np.longdouble), 3, np.longdouble("1e999")), ValueError, "X .* inf"),
    "NaN in CSR": (lambda: broken(data=set_at(3, np.nan)), ValueError, "Input X contains NaN"),
    "inf in CSC": (lambda: broken("csc", data=set_at(3, np.inf)), ValueError, "Input X contains infinity"),
    "complex": (lambda: X * 1j, ValueError, "Complex data not supported"),
    "complex CSR": (lambda: csr_array(X * 1j), ValueError, "Complex data not supported"),
    "strings": (lambda: np.full((N, D), "a"), ValueError, "could not convert string to float"),
    "objects": (lambda: np.full((N, D), None), ValueError, "Input X contains NaN"),
    "objects of no number": (lambda: np.full((N, D), {}), TypeError, "argument must be a string or a.* number"),
    "ragged": (lambda: [[1.0, 2.0]] * (N - 1) + [[1.0]], ValueError, "inhomogeneous"),
    "no rows": (lambda: X[:0], ValueError, r"0 sample\(s\)"),
    "no columns": (lambda: X[:, :0], ValueError, r"0 feature\(s\)"),
    "no rows, CSR": (lambda: csr_array((0, D)), ValueError, r"0 sample\(s\)"),
    "no columns, CSR": (lambda: csr_array((N, 0)), ValueError, r"0 feature\(s\)"),
    "one dimension": (lambda: X[:, 0], ValueError, "Expected 2D array, got 1D array"),
    "three dimensions": (lambda: X[:, :, None], ValueError, "Found array with dim 3"),
    "one dimension, sparse": (lambda: coo_array(np.ones(N)), ValueError, "Expected 2D input"),
    "three dimensions, sparse": (lambda: coo_array(np.ones((N, D, 2))), ValueError, "CSR must be 1D or 2D. Got 3D"),
    "nothing": (lambda: None, ValueError, "Expected 2D array, got scalar array"),
    "text": (lambda: "rows", ValueError, "could not convert string to float|Expected 2D array"),
    **{name: (make, ValueError, message) for name, (make, message) in BROKEN_SPARSE.items()},
}  # fmt: skip

TARGETS = {
    "NaN": (put(Y, 3, np.nan), ValueError, "Input y contains NaN"),
    "inf": (put(Y, 3, np.inf), ValueError, "Input y contains infinity"),
    "too short": (Y[:5], ValueError, "inconsistent numbers of samples"),
    "too long": (np.r_[Y, Y], ValueError, "inconsistent numbers of samples"),
    "none": (None, ValueError, "requires y to be passed"),
    "a scalar": (1, (ValueError, TypeError), "y|dimension"),
    "one class": (0 * Y, ValueError, "y has one class only, 0: a classifier needs samples of at least 2 classes"),
    "one class, a string": (np.full(N, "spam"), ValueError, "y has one class only, 'spam'"),
    "continuous": (Y + 0.5, ValueError, "Unknown label type: continuous"),
    "complex": (Y * 1j, ValueError, "Complex data not supported"),
    "bytes": (Y.astype("S3"), TypeError, "bytes"),
    "mixed objects": (np.array(["a", 1] * 20, object), TypeError, "y mixes strings with other labels"),
    "missing strings": (np.array(["a", None] * 20, object), (ValueError, TypeError), "y mixes strings|NaN"),
    "NaN among strings": (np.array(["a", np.nan] * 20, object), ValueError, "contains NaN"),
    "three dimensions": (P[:, :, None], ValueError, "Found array with dim 3"),
    "probabilities with NaN": (put(P, (0, 0), np.nan), ValueError, "Input y contains NaN"),
    "negative probabilities": (put(P, (0, 0), -0.1), ValueError, r"y: expected probabilities >= 0 .* got -0\.1"),
    "sums above one": (2 * P, ValueError, r"y: expected probabilities .* got a sum of 2\.0 in row 0"),
    "multilabel": (np.ones((N, 3), int), ValueError, r"y: expected probabilities .* got a sum of 3\.0"),
    "probabilities as strings": (P.astype(str), TypeError, "y: expected real numbers"),
    "probabilities as objects": (P.astype(object), TypeError, "y: expected real numbers"),
    "complex probabilities": (P * 1j, ValueError, "Complex data not supported"),
    "sparse probabilities": (csr_array(P), TypeError, r"y must be dense: pass y\.toarray\(\)"),
}  # fmt: skip

LOGISTIC_TARGETS = {
    **{name: case for name, case in TARGETS.items() if not {"probabilities", "sums", "multilabel"} & {*name.split()}},
    "labels with NaN": (put(P, (0, 0), np.nan), ValueError, "Input y contains NaN"),
    "labels below 0": (put(P, (0, 0), -0.1), ValueError, r"y must be 0 or 1 for each label, .* but has -0\.1"),
    "labels above 1": (2 * P, ValueError, r"y must be 0 or 1 for each label, .* but has 2\.0: binarize it"),
    "labels above 1, sparse": (csr_array(2 * P), ValueError, r"y must be 0 or 1 for each label, .* but has 2\.0"),
    "labels as strings": (P.astype(str), TypeError, "y must be numbers, got dtype <U"),
    "labels as objects": (P.astype(object), TypeError, "y must be numbers, got dtype object"),
    "complex labels": (P * 1j, ValueError, "Complex data not supported"),
    "fewer rows of labels": (P[:5], ValueError, "inconsistent numbers of samples"),
    "fewer rows of labels, sparse": (csr_array(P[:5]), ValueError, "inconsistent numbers of samples"),
    "broken sparse labels": (broken(indices=set_at(3, 10**8)), ValueError, "y is a broken sparse csr"),
}  # fmt: skip

REGRESSION_TARGETS = {
    "NaN": (put(Y, 3, np.nan), ValueError, "Input y contains NaN"),
    "inf": (put(Y, 3, np.inf), ValueError, "Input y contains infinity"),
    "NaN in two dimensions": (put(P, (0, 0), np.nan), ValueError, "Input y contains NaN"),
    "too short": (Y[:5], ValueError, "inconsistent numbers of samples"),
    "too long": (np.r_[Y, Y], ValueError, "inconsistent numbers of samples"),
    "none": (None, ValueError, "requires y to be passed"),
    "a scalar": (1, (ValueError, TypeError), "y|dimension"),
    "complex": (Y * 1j, ValueError, "Complex data not supported"),
    "strings": (Y.astype(str), TypeError, "y must be numbers, got dtype <U"),
    "bytes": (Y.astype("S3"), TypeError, "y must be numbers, got dtype .S"),
    "objects": (np.array(["a", 1] * 20, object), TypeError, "y must be numbers, got dtype object"),
    "missing": (np.array([1.0, None] * 20, object), TypeError, "y must be numbers, got dtype object"),
    "NaN among objects": (np.array([1.0, np.nan] * 20, object), ValueError, "contains NaN"),
    "infinity among objects": (np.array([1.0, np.inf] * 20, object), ValueError, "y has values up to inf, too large"),
    "dates": (np.array(["2024-01-01"] * N, "datetime64[D]"), TypeError, "y must be numbers, got dtype datetime64"),
    "three dimensions": (P[:, :, None], ValueError, "Found array with dim 3"),
    "no targets": (P[:, :0], ValueError, r"y has shape \(40, 0\)|0 feature"),
    "sparse": (csr_array(P), TypeError, r"y must be dense: pass y\.toarray\(\)"),
    "too large for float64": (put(Y, 3, 1e308), ValueError, r"y has values up to 1e.308, too large for float64"),
}  # fmt: skip

TARGETS_OF = [
    pytest.param(estimator, *case, id=f"{estimator.__name__}-{name}")
    for estimator, cases in zip(ESTIMATORS, (TARGETS, LOGISTIC_TARGETS, REGRESSION_TARGETS), strict=True)
    for name, case in cases.items()
]

WEIGHTS = {
    "NaN": (put(W, 3, np.nan), ValueError, "sample_weight: expected finite numbers >= 0, got nan at row 3"),
    "inf": (put(W, 3, np.inf), ValueError, "sample_weight: expected finite numbers >= 0, got inf"),
    "negative": (put(W, 3, -0.5), ValueError, r"sample_weight: expected finite numbers >= 0, got -0\.5 at row 3"),
    "all zero": (0 * W, ValueError, "sample_weight: expected at least one weight above 0"),
    "scalar zero": (0.0, ValueError, "sample_weight: expected at least one weight above 0"),
    "scalar negative": (-1, ValueError, "sample_weight: expected finite numbers >= 0"),
    "too short": (W[:5], ValueError, r"sample_weight: expected shape \(40,\), one weight per row, got \(5,\)"),
    "two dimensions": (W[:, None], ValueError, r"sample_weight: expected shape \(40,\)"),
    "strings": (["a"] * N, TypeError, "sample_weight: expected real numbers"),
    "a string": ("balanced", TypeError, "sample_weight: expected real numbers"),
    "complex": (1j * W, TypeError, "sample_weight: expected real numbers, got dtype complex128"),
    "objects": (np.full(N, None), TypeError, "sample_weight: expected real numbers, got dtype object"),
    "sparse": (csr_array(W[:, None]), TypeError, "sample_weight: expected a dense array"),
}  # fmt: skip

PARAMETERS = [
    ("solver", ["saga", None, 1], "'solver' parameter .* must be a str among"),
    ("optimizer", ["rmsprop", None, Adam, 0.1], "'optimizer' parameter .* must be a str among"),
    ("optimizer", [SGD(-1)], r"learning_rate of SGD\(.*must be in \[0, inf\)"),
    ("optimizer", [SGD("fast")], "learning_rate of SGD.* must be a real number"),
    ("optimizer", [SGD(momentum=2)], "momentum of SGD"),
    ("optimizer", [Adam(beta_1=1)], "beta_1 of Adam"),
    ("optimizer", [Adam(epsilon=0)], "epsilon of Adam"),
    ("optimizer", [Adam(max_grad_norm=-1)], "max_grad_norm of Adam"),
    (
        "optimizer",
        [SGD(lambda step, rate=rate: rate) for rate in (np.nan, -1, "0.1", None)],
        "learning_rate of SGD.* must give numbers",
    ),
    ("alpha", [-1e-9, np.nan, np.inf, "1", None], "'alpha' parameter .* must be a float"),
    ("l1_ratio", [-0.1, 1.1, np.nan, "0"], "'l1_ratio' parameter"),
    ("fit_intercept", [2, "yes", None], "'fit_intercept' parameter"),
    ("batch_size", [0, -1, 2.5, "all"], "'batch_size' parameter"),
    ("max_iter", [0, -1, 2.5, None, np.inf], "'max_iter' parameter"),
    ("tol", [-1e-9, np.nan, np.inf, None], "'tol' parameter"),
    ("loss", ["mse", None, 1], "'loss' parameter .* must be a str among"),
    ("delta", [0.0, -1, np.nan, "1", None], "'delta' parameter"),
    ("label_smoothing", [-0.1, 1.0, np.nan, "0"], "'label_smoothing' parameter"),
    ("n_negatives", [0, 1.5, "auto"], "'n_negatives' parameter"),
    ("n_negatives", [3], "n_negatives=3 must be below the number of classes, 3"),
    ("class_weight", ["equal", [1, 2, 3], 2.0], "'class_weight' parameter"),
    (
        "class_weight",
        [{0: v} for v in (-1, np.nan, np.inf, "a", None)],
        r"class_weight\[0\] must be a finite number >= 0",
    ),
    ("class_weight", [{0: 0, 1: 0, 2: 0}], "sample_weight times class_weight is 0 for all rows"),
    ("early_stopping", [2, "yes", None], "'early_stopping' parameter"),
    ("validation_fraction", [0.0, 1.0, np.nan, 5], "'validation_fraction' parameter"),
    ("n_iter_no_change", [0, 1.5, None], "'n_iter_no_change' parameter"),
    ("warm_start", [2, "yes"], "'warm_start' parameter"),
    ("shuffle", [2, "yes"], "'shuffle' parameter"),
    ("random_state", [-1, "seed", 1.5], "'random_state' parameter"),
    ("n_jobs", [0], "n_jobs=0 has no meaning"),
    ("n_jobs", ["2", 1.5], "'n_jobs' parameter"),
    ("verbose", [-1, "yes"], "'verbose' parameter"),
]


def snapshot(value):
    """Bytes of an array, dense or sparse."""
    if issparse(value):
        names = ("data", "indices", "indptr", "rows", "coords", "_dict")
        return [(n, copy.deepcopy(getattr(value, n))) for n in names if hasattr(value, n)]
    return copy.deepcopy(value)


def check(call, error, message, model, *inputs):
    """The call fails with this error; neither the model nor an input is different afterwards."""
    before, kept = dict(vars(model)), [snapshot(v) for v in inputs]
    with pytest.raises(error, match=f"(?s){message}"):
        call()
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    for now, then in zip(inputs, kept, strict=True):
        assert repr(snapshot(now)) == repr(then)


def models(solver="minibatch", estimator=SoftmaxClassifier, **changed):
    """A new one, and a fitted one whose parameters were changed afterwards."""
    fitted = estimator(solver=solver, max_iter=3).fit(X, Y)
    return estimator(**fitted.get_params() | changed), fitted.set_params(**changed)


def first_options(estimator):
    """What the first partial_fit needs."""
    return {} if estimator is LinearRegressor else {"classes": [0, 1, 2]}


def methods(estimator):
    """Those that take rows."""
    return ["predict"] if estimator is LinearRegressor else PREDICTIONS


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", ROWS)
def test_rows(name, estimator):
    make, error, message = ROWS[name]
    rows = make()
    for solver in "minibatch", "lbfgs":
        for model in models(solver, estimator):
            check(lambda m=model: m.fit(rows, Y), error, message, model, rows, Y)
    new, fitted = models(estimator=estimator)
    check(lambda: new.partial_fit(rows, Y, **first_options(estimator)), error, message, new, rows)
    if not issparse(rows) or rows.ndim == 2:
        check(lambda: fitted.partial_fit(rows, Y), error, message, fitted, rows)
    for method in methods(estimator):
        check(lambda m=method: getattr(fitted, m)(rows), error, message, fitted, rows)
    if estimator is not LinearRegressor:
        sparse = fitted.sparsify()
        check(lambda: sparse.predict(rows), error, message, sparse, rows)


def test_broken_rows_in_another_process():
    """No crash, whatever the index: each is tried where a crash would be seen as one."""
    code = """
        import sys
        sys.path.insert(0, {folder!r})
        import test_bad_input as t
        for name, (make, message) in t.BROKEN_SPARSE.items():
            for estimator in t.ESTIMATORS:
                t.test_rows(name, estimator)
        print("all", len(t.BROKEN_SPARSE))
    """
    folder = __file__.rpartition("test_bad_input")[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code.format(folder=folder))], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["all", str(len(BROKEN_SPARSE))]


@pytest.mark.parametrize("solver", ["minibatch", "lbfgs"])
@pytest.mark.parametrize(("estimator", "y", "error", "message"), TARGETS_OF)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_targets(estimator, y, error, message, solver):
    for rows in X, csr_array(X):
        for model in models(solver, estimator):
            check(lambda m=model, rows=rows: m.fit(rows, y), error, message, model, y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name, estimator):
    weight, error, message = WEIGHTS[name]
    for solver in "minibatch", "lbfgs":
        for model in models(solver, estimator):
            check(lambda m=model: m.fit(X, Y, weight), error, message, model, weight)
    new, fitted = models(estimator=estimator)
    options = first_options(estimator)
    check(lambda: new.partial_fit(X, Y, sample_weight=weight, **options), error, message, new, weight)
    check(lambda: fitted.partial_fit(X, Y, sample_weight=weight), error, message, fitted, weight)


def changed(parameter, value, estimator):
    """``models`` with one parameter."""
    fitted = estimator(max_iter=3).fit(X, Y)
    return estimator(**{"max_iter": 3, parameter: value}), fitted.set_params(**{parameter: value})


PARAMETERS_OF = [(e, *case) for e in ESTIMATORS for case in PARAMETERS if case[0] in e().get_params()]


@pytest.mark.parametrize(("estimator", "parameter", "values", "message"), PARAMETERS_OF)
def test_parameters(estimator, parameter, values, message):
    options = first_options(estimator)
    for value in values:
        for model in changed(parameter, value, estimator):
            check(lambda m=model: m.fit(X, Y), (ValueError, TypeError), message, model)
            if not hasattr(model, "partial_fit") or parameter in ("max_iter", "tol", "n_iter_no_change"):
                continue
            check(lambda m=model: m.partial_fit(X, Y, **options), (ValueError, TypeError), message, model)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_combinations(estimator):
    options = first_options(estimator)
    for model in models("lbfgs", estimator, l1_ratio=0.5):
        check(lambda m=model: m.fit(X, Y), ValueError, "l1_ratio must be 0 with solver='lbfgs'", model)
    for model in models(estimator=estimator, early_stopping=True, validation_fraction=0.999):
        check(lambda m=model: m.fit(X, Y), ValueError, "early_stopping holds out 40 of 40 rows", model)
        check(lambda m=model: m.partial_fit(X, Y, **options), ValueError, "set early_stopping=False", model)
    with pytest.raises(TypeError, match="unexpected keyword"):
        estimator(C=1.0)
    with pytest.raises(TypeError, match="positional"):
        estimator("lbfgs")


def test_class_weight_of_a_matrix():
    for model in models(estimator=LogisticClassifier, class_weight="balanced"):
        check(lambda m=model: m.fit(X, P), ValueError, "class_weight needs labels", model)


def test_targets_too_large_for_single_precision():
    rows = X.astype(np.float32)
    for model in models(estimator=LinearRegressor):
        check(lambda m=model: m.fit(rows, Y * 1e38), ValueError, "y has values up to 2e.38, too large for", model)


PARTIAL = {
    "no classes": (Y, None, "classes must be passed to the first call"),
    "one class": (0 * Y, [0], r"classes has 1 label\(s\), \[0\]: a classifier needs at least 2"),
    "no class at all": (Y, [], r"classes has 0 label\(s\)"),
    "a label too many": (Y, [0, 1], r"y has labels that are not among the classes .*\[2\]"),
    "a label in between": (Y * 2, [0, 1, 3, 4], r"y has labels that are not among"),
    "strings for numbers": (Y.astype(str), [0, 1, 2], "y has labels of type <U.*, but the classes are"),
    "numbers for strings": (Y, ["0", "1", "2"], "y has labels of type int64, but the classes are"),
    "classes with NaN": (Y, [0, 1, np.nan], "classes contains NaN"),
    "classes in two dimensions": (Y, [[0, 1, 2]], "classes must be one-dimensional"),
    "classes as a set": (Y, {0, 1, 2}, "classes must be one-dimensional"),
    "more probabilities": (P, [0, 1], "y has probabilities of 3 classes, but there are 2 classes"),
    "fewer probabilities": (P[:20, :2], [0, 1, 2], "y has probabilities of 2 classes, but there are 3 classes"),
}


@pytest.mark.parametrize("estimator", [SoftmaxClassifier, LogisticClassifier])
@pytest.mark.parametrize("name", PARTIAL)
def test_first_partial_fit(name, estimator):
    y, classes, message = PARTIAL[name]
    model = estimator()
    if estimator is LogisticClassifier and "probabilities" in name:
        message = message.replace("probabilities of ", "").replace(" classes, but", " labels in its columns, but")
    check(lambda: model.partial_fit(X[: len(y)], y, classes=classes), (ValueError, TypeError), message, model, y)
    assert model.partial_fit(X, Y, classes=[0, 1, 2]).classes_.tolist() == [0, 1, 2]


LATER = {
    "an unknown class": ((X, Y + 1), {}, r"y has labels that are not among the classes .*\[3\]"),
    "other classes": ((X, Y), {"classes": [0, 1]}, "are not those of the first partial_fit"),
    "more classes": ((X, Y), {"classes": [0, 1, 2, 3]}, "are not those of the first partial_fit"),
    "fewer features": ((X[:, :3], Y), {}, "X has 3 features, but SoftmaxClassifier is expecting 4"),
    "more features": ((csr_array(np.c_[X, X]), Y), {}, "X has 8 features, but SoftmaxClassifier is expecting 4"),
    "fewer probabilities": ((X[:20], P[:20, :2]), {}, "y has probabilities of 2 classes, but there are 3"),
    "no rows": ((X[:0], Y[:0]), {}, r"0 sample\(s\)"),
}


@pytest.mark.parametrize("name", LATER)
def test_later_partial_fit(name):
    arguments, options, message = LATER[name]
    for model in SoftmaxClassifier().partial_fit(X, Y, classes=[0, 1, 2]), SoftmaxClassifier().fit(X, Y):
        check(lambda m=model: m.partial_fit(*arguments, **options), ValueError, message, model)
        model.partial_fit(X, Y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_predictions_need_a_fit_and_its_features(estimator):
    new, fitted = models(estimator=estimator)
    for method in methods(estimator):
        check(lambda m=method: getattr(new, m)(X), ValueError, "not fitted yet", new)
        for rows in X[:, :3], csr_array(X[:, :3]), X[:1, :2]:
            check(
                lambda m=method, r=rows: getattr(fitted, m)(r),
                ValueError,
                f"features, but {estimator.__name__} is expecting 4",
                fitted,
            )
    for method in () if estimator is LinearRegressor else ("sparsify", "densify"):
        check(getattr(new, method), ValueError, "not fitted yet", new)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("solver", ["minibatch", "lbfgs"])
def test_huge_numbers_cost_nothing(solver, estimator):
    """No array grows with ``max_iter``, ``batch_size`` or the patience; seen in the memory of another process."""
    code = f"""
        import resource, warnings
        import numpy as np
        from fastml import {estimator.__name__} as Estimator
        warnings.simplefilter("ignore")
        X, y = np.random.default_rng(0).standard_normal((40, 4)), np.arange(40) % 3
        settings = dict(solver={solver!r}, alpha=0.1)
        Estimator(**settings).fit(X, y)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for huge in 10**12, 10**30:
            model = Estimator(max_iter=huge, batch_size=huge, tol=1e-3, **settings).fit(X, y)
            assert 0 < model.n_iter_ < 10_000
        model = Estimator(max_iter=5, n_iter_no_change=10**30, tol=0, **settings).fit(X, y)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000  # KiB


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_more_features_than_memory_is_a_memory_error(estimator):
    for model in models(estimator=estimator):
        rows = csr_array((N, 2**45))
        check(lambda m=model, r=rows: m.fit(r, Y), MemoryError, "Unable to allocate", model)
