"""The face of linear softmax cross-entropy: what it takes, what it refuses, what it costs in memory."""

import subprocess
import sys

import naive
import numpy as np
import pytest
from scipy.sparse import coo_array, csc_array, csr_array, csr_matrix, random_array

from fastml.functional import (
    linear_softmax_cross_entropy,
    linear_softmax_cross_entropy_grad,
    softmax_cross_entropy,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((6, 4))
W = rng.standard_normal((3, 4))
b = rng.standard_normal(3)
y = np.array([0, 1, 2, 2, 1, 0])
NAN, INF = np.nan, np.inf


def changed(array, value, at=(0, 0)):
    array = array.copy()
    array[at] = value
    return array


def broken_csr(**parts):
    matrix = csr_array(X)
    for name, value in parts.items():
        setattr(matrix, name, value)
    return matrix


def entries(matrix, **parts):
    """The arrays of a matrix with one entry of some of them replaced."""
    return {name: changed(getattr(matrix, name), value, 1) for name, value in parts.items()}


def test_gradients_are_those_of_the_loss():
    result = linear_softmax_cross_entropy_grad(X, W, b, y, label_smoothing=0.1, temperature=2.0)

    def total(X, W, b):
        return naive.linear_softmax_cross_entropy(X, W, b, y, label_smoothing=0.1, temperature=2.0).sum()

    np.testing.assert_allclose(result.X, naive.finite_differences(lambda x: total(x, W, b), X), atol=1e-7)
    np.testing.assert_allclose(result.W, naive.finite_differences(lambda w: total(X, w, b), W), atol=1e-7)
    np.testing.assert_allclose(result.b, naive.finite_differences(lambda v: total(X, W, v), b), atol=1e-7)
    np.testing.assert_array_equal(
        result.loss, linear_softmax_cross_entropy(X, W, b, y, label_smoothing=0.1, temperature=2)
    )


def test_without_intercepts():
    result = linear_softmax_cross_entropy_grad(X, W, None, y)
    assert result.b is None
    np.testing.assert_allclose(result.loss, naive.linear_softmax_cross_entropy(X, W, None, y))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_error_budget(scale):
    """Our float32 error is no larger than that of the plain float32 computation, by more than a little."""
    X, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((255, 64), (507, 64)))
    X *= np.float32(scale)
    y = rng.integers(0, 507, 255)
    truth = naive.linear_softmax_cross_entropy(X, W, None, y)
    z = X @ W.T
    top = z.max(axis=1)
    plain = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top - z[np.arange(255), y]
    ours = np.abs(linear_softmax_cross_entropy(X, W, None, y) - truth)
    assert ours.max() <= 1.5 * np.abs(plain - truth).max() + 1e-6 * scale


def test_one_class_and_large_logits():
    np.testing.assert_array_equal(linear_softmax_cross_entropy(X, W[:1], None, np.zeros(6, int)), 0)
    huge = linear_softmax_cross_entropy_grad(1e4 * X, W, b, y)
    np.testing.assert_allclose(huge.loss, naive.linear_softmax_cross_entropy(1e4 * X, W, b, y), rtol=1e-12)
    assert all(np.isfinite(field).all() for field in huge)


@pytest.mark.parametrize("convert", [csr_array, csr_matrix, csc_array, coo_array])
def test_sparse_formats(convert):
    dense = np.where(X > 0, X, 0)
    ours = linear_softmax_cross_entropy_grad(convert(dense), W, b, y)
    expected = linear_softmax_cross_entropy_grad(dense, W, b, y)
    np.testing.assert_allclose(ours.loss, expected.loss)
    np.testing.assert_allclose(ours.W, expected.W, atol=1e-14)
    np.testing.assert_allclose(ours.X.toarray(), np.where(dense > 0, expected.X, 0), atol=1e-14)


def test_unsorted_and_duplicate_entries_are_valid_and_stay_as_they_are():
    indices, data = np.array([2, 0, 0, 3, 1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    matrix = csr_array((data.copy(), indices.astype(np.int32), np.array([0, 3, 5], np.int32)), shape=(2, 4))
    ours = linear_softmax_cross_entropy_grad(matrix, W, b, y[:2])
    expected = linear_softmax_cross_entropy_grad(np.array([[5.0, 0, 1, 0], [0, 5, 0, 4]]), W, b, y[:2])
    np.testing.assert_allclose(ours.loss, expected.loss)
    np.testing.assert_allclose(ours.W, expected.W, atol=1e-14)
    np.testing.assert_array_equal(matrix.data, data)
    np.testing.assert_array_equal(matrix.indices, indices)


@pytest.mark.parametrize("wrap", [np.asfortranarray, lambda a: a[::-1][::-1], lambda a: a.astype(">f8"), "read-only"])
def test_layouts(wrap):
    def laid_out(array):
        if wrap != "read-only":
            return wrap(array)
        array = array.copy()
        array.flags.writeable = False
        return array

    ours = linear_softmax_cross_entropy_grad(laid_out(X), laid_out(W), b, y)
    for got, expected in zip(ours, linear_softmax_cross_entropy_grad(X, W, b, y), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_dtypes():
    single = linear_softmax_cross_entropy_grad(X.astype("f"), W.astype("f"), b.astype("f"), y)
    assert {field.dtype for field in single} == {np.dtype("f")}
    assert linear_softmax_cross_entropy(X.astype("f"), W, b, y).dtype == np.float64
    logits = X.astype(int) @ W.T
    np.testing.assert_allclose(
        linear_softmax_cross_entropy(X.astype(int), W, None, y), softmax_cross_entropy(logits, y)
    )


BAD = [
    ({"X": changed(X, NAN)}, ValueError, "^X: expected finite"),
    ({"X": changed(X, INF)}, ValueError, "^X: expected finite"),
    ({"W": changed(W, NAN)}, ValueError, "^W: expected finite"),
    ({"W": changed(W, -INF)}, ValueError, "^W: expected finite"),
    ({"b": changed(b, -INF, 0)}, ValueError, "^b: expected finite"),
    ({"X": X[:0], "target": y[:0]}, ValueError, "^X has 0 rows"),
    ({"W": W[:0], "b": None}, ValueError, "^W has 0 rows"),
    ({"X": X[:, :0], "W": W[:, :0]}, ValueError, "^W has 0 columns"),
    ({"X": X[:, :3]}, ValueError, "^X: expected 4 columns"),
    ({"X": csr_array(X[:, :3])}, ValueError, "^X: expected 4 columns"),
    ({"X": X[0]}, ValueError, "^X: expected 2 dimensions"),
    ({"b": b[:2]}, ValueError, r"^b: expected shape \(3,\)"),
    ({"b": 1.0}, ValueError, "^b: expected 1 dimensions"),
    ({"X": X + 1j}, TypeError, "^X: expected real numbers"),
    ({"X": csr_array(X + 1j)}, TypeError, "^X: expected real numbers"),
    ({"W": W.astype(object)}, TypeError, "^W: expected real numbers"),
    ({"W": csr_array(W)}, TypeError, "^W: expected a dense array"),
    ({"target": changed(y, 3, 0)}, ValueError, r"^target: expected labels in 0\.\.2"),
    ({"target": changed(y, -1, 0)}, ValueError, r"^target: expected labels in 0\.\.2"),
    ({"target": y.astype(float)}, TypeError, "^target: expected integer"),
    ({"target": y[:5]}, ValueError, "^target: expected shape"),
    ({"target": np.full((6, 3), 0.5)}, ValueError, "^target: expected probabilities"),
    ({"sample_weight": -np.ones(6)}, ValueError, "^sample_weight"),
    ({"sample_weight": np.zeros(6)}, ValueError, "^sample_weight"),
    ({"sample_weight": np.ones(5)}, ValueError, "^sample_weight: expected shape"),
    ({"temperature": 0.0}, ValueError, "^temperature"),
    ({"temperature": NAN}, ValueError, "^temperature"),
    ({"label_smoothing": 1.0}, ValueError, "^label_smoothing"),
    ({"X": 1e200 * X, "W": 1e200 * W}, ValueError, "^X, W: the logits of row 0 overflow"),
    ({"X": broken_csr(**entries(csr_array(X), indices=4))}, ValueError, "^X is a broken sparse csr"),
    ({"X": broken_csr(**entries(csr_array(X), indices=-1))}, ValueError, "^X is a broken sparse csr"),
    ({"X": broken_csr(**entries(csr_array(X), indptr=99))}, ValueError, "^X is a broken sparse csr"),
    ({"X": broken_csr(data=np.ones(3))}, ValueError, "^X is a broken sparse csr"),
    ({"X": broken_csr(**entries(csr_array(X), data=NAN))}, ValueError, "^X: expected finite"),
]


@pytest.mark.parametrize("function", [linear_softmax_cross_entropy, linear_softmax_cross_entropy_grad])
@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input(function, arguments, error, message):
    with pytest.raises(error, match=message):
        function(**{"X": X, "W": W, "b": b, "target": y, **arguments})


def test_broken_coo():
    matrix = coo_array(X)
    matrix.coords[1][0] = 99
    with pytest.raises(ValueError, match="^X is a broken sparse coo"):
        linear_softmax_cross_entropy(matrix, W, b, y)


MEMORY = """
import numpy as np
from pathlib import Path
from scipy.sparse import random_array
from fastml.functional import linear_softmax_cross_entropy, linear_softmax_cross_entropy_grad


def status(name):
    return next(int(row.split()[1]) / 1024 for row in open("/proc/self/status") if row.startswith(name))


n, d, n_classes = {shape}
rng = np.random.default_rng(0)
X = rng.standard_normal((n, d), dtype=np.float32)
if {is_sparse}:
    X = random_array((n, d), density=20 / d, format="csr", dtype=np.float32, rng=rng)
W, y = rng.standard_normal((n_classes, d), dtype=np.float32), rng.integers(0, n_classes, n)
b = np.zeros(n_classes, np.float32)
for rows, classes in (2, 5), (300, 5000):  # what compiling, the threads and BLAS take
    classes = min(classes, n_classes)
    {function}(X[:rows], W[:classes], b[:classes], y[:rows] % classes)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
result = {function}(X, W, b, y)
fields = result if isinstance(result, tuple) else [result]
returned = sum(part.nbytes for f in fields for part in ([f.data, f.indices, f.indptr] if hasattr(f, "indptr") else [f]))
print(status("VmHWM") - before - returned / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("function", ["linear_softmax_cross_entropy", "linear_softmax_cross_entropy_grad"])
@pytest.mark.parametrize(
    ("shape", "is_sparse"),
    [
        ((900, 64, 100_000), False),
        ((40_000, 64, 900), False),
        ((300, 8, 700_000), False),
        ((20_000, 50_000, 300), True),
    ],
)
def test_extra_memory_is_at_most_64_mib(shape, is_sparse, function):
    """The peak of the process's resident memory over what it was before, beside what is returned."""
    script = MEMORY.format(shape=shape, is_sparse=is_sparse, function=function)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert float(run.stdout) <= 64


def test_sparse_gradient_has_the_pattern_of_its_rows():
    matrix = random_array((50, 30), density=0.1, format="csr", rng=rng)
    result = linear_softmax_cross_entropy_grad(matrix, rng.standard_normal((5, 30)), None, rng.integers(0, 5, 50))
    assert isinstance(result.X, csr_array)
    np.testing.assert_array_equal(result.X.indices, matrix.indices)
    assert not np.shares_memory(result.X.indices, matrix.indices)
