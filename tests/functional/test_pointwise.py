"""The validated faces of the losses of single outputs."""

import naive
import numpy as np
import pytest
import scipy.sparse

from fastml import functional
from fastml.functional import _pointwise

DTYPES = [np.float32, np.float64]
SHAPES = [(1,), (1, 1), (7,), (255, 507), (300, 3)]
LOSSES = ["binary_cross_entropy", "squared_error", "absolute_error", "huber"]

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
every_loss = pytest.mark.parametrize("name", LOSSES)


def first(name):
    return "logits" if name == "binary_cross_entropy" else "prediction"


def make(name, shape, dtype=np.float64):
    """Predictions, targets and weights."""
    rng = np.random.default_rng(0)
    t = rng.random(shape) if name == "binary_cross_entropy" else rng.standard_normal(shape)
    return 2 * rng.standard_normal(shape).astype(dtype), t.astype(dtype), rng.random(shape[0])


@both_dtypes
@every_loss
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_is_its_definition(name, shape, dtype):
    z, t, w = make(name, shape, dtype)
    cases = [{}, {"sample_weight": w}] + [{"sample_weight": w, "delta": 0.3}] * (name == "huber")
    for options in cases:
        loss = getattr(functional, name)(z, t, **options)
        both = getattr(functional, name + "_grad")(z, t, **options)
        assert both._fields == ("loss", first(name))
        expected = getattr(naive, name)(z, t, **options), getattr(naive, name + "_grad")(z, t, **options)
        for got, right in zip((loss, *both), (expected[0], *expected), strict=True):
            assert got.dtype == dtype
            assert got.shape == shape
            tolerance = 1e-5 if dtype == np.float32 else 1e-12
            np.testing.assert_allclose(got, right, rtol=tolerance, atol=tolerance / 10)


@every_loss
def test_gradient_is_the_gradient_of_the_loss(name):
    z, t, w = make(name, (6, 4))
    expected = naive.finite_differences(lambda z: getattr(functional, name)(z, t, sample_weight=w).sum(), z)
    got = getattr(functional, name + "_grad")(z, t, sample_weight=w)[1]
    np.testing.assert_allclose(got, expected, atol=1e-8)


def variants(z):
    """The same numbers in every shape of memory."""
    read_only = z.copy()
    read_only.setflags(write=False)
    strided = np.zeros((2 * z.shape[0], 3 * z.shape[1]), z.dtype)[::2, ::3]
    strided[...] = z
    return {"read-only": read_only, "fortran": np.asfortranarray(z), "strided": strided, "swapped": z.astype(">f4")}


@every_loss
def test_memory_layout_does_not_matter(name):
    z, t, w = make(name, (50, 7), np.float32)
    function = getattr(functional, name + "_grad")
    expected = function(z, t, sample_weight=w)
    compiled = len(getattr(getattr(_pointwise.kernels, name + "_grad"), "signatures", ()))
    for other_z, other_t in zip(variants(z).values(), variants(t).values(), strict=True):
        before = other_z.copy(), other_t.copy()
        for got, right in zip(function(other_z, other_t, sample_weight=w), expected, strict=True):
            np.testing.assert_array_equal(got, right)
        np.testing.assert_array_equal(other_z, before[0])
        np.testing.assert_array_equal(other_t, before[1])
    assert len(getattr(getattr(_pointwise.kernels, name + "_grad"), "signatures", ())) == compiled


@pytest.mark.parametrize("given", [bool, np.int8, np.uint64, np.float16, np.float64, list])
def test_targets_of_any_type(given):
    z = np.array([[1, -2], [0.5, 3]], np.float32)
    t = [[0, 1], [1, 1]]
    got = functional.binary_cross_entropy_grad(z, t if given is list else np.array(t, given))
    assert got.loss.dtype == np.float32
    np.testing.assert_allclose(got.loss, naive.binary_cross_entropy(z, np.array(t)), rtol=1e-6)


@both_dtypes
@every_loss
@pytest.mark.parametrize("shape", [(5000,), (1000, 7)])
def test_one_thread_equals_many_bit_for_bit(name, shape, dtype, monkeypatch):
    monkeypatch.setattr(_pointwise, "_BLOCK", 700)
    z, t, w = make(name, shape, dtype)
    results = []
    for n_threads in 1, 2, 16:
        monkeypatch.setattr(_pointwise, "thread_count", lambda n=n_threads: n)
        both = getattr(functional, name + "_grad")(z, t, sample_weight=w)
        results.append([a.tobytes() for a in (*both, getattr(functional, name)(z, t, sample_weight=w))])
    assert results[0] == results[1] == results[2]


def test_overflow_of_finite_numbers_is_no_error():
    big = np.array([3e38, -3e38, 1], np.float32)
    loss, grad = functional.squared_error_grad(big, np.zeros(3, np.float32))
    np.testing.assert_array_equal(loss, [np.inf, np.inf, 0.5])
    np.testing.assert_array_equal(grad, big)
    w = np.array([1e10, 1, 1])
    assert functional.binary_cross_entropy(big, [0, 1, 1], sample_weight=w)[0] == np.inf
    assert functional.absolute_error(big, [0, 3e38, 1])[1] == np.float32(np.inf)


Z = np.linspace(-2, 2, 6).reshape(6, 1).astype(np.float32)
T = np.array([[0.0], [1], [1], [0], [1], [0]])


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_PREDICTIONS = [
    (changed(Z, (2, 0), np.nan), ValueError, r"X: expected finite numbers, got nan at \(2, 0\); drop or impute"),
    (changed(Z, (5, 0), np.inf), ValueError, r"X: expected finite numbers, got inf at \(5, 0\)"),
    (changed(Z, (0, 0), -np.inf), ValueError, r"X: expected finite numbers, got -inf at \(0, 0\)"),
    (np.zeros((6, 1, 1)), ValueError, r"X: expected 1 to 2 dimensions, got shape \(6, 1, 1\); reshape it with X\.res"),
    (3.0, ValueError, r"X: expected 1 to 2 dimensions, got shape \(\); pass a single number as \[X\]"),
    (np.zeros((0, 1)), ValueError, r"X is empty \(shape \(0, 1\)\); pass at least one"),
    (np.zeros((6, 0)), ValueError, r"X is empty"),
    (None, TypeError, r"X: expected real numbers, got dtype object"),
    (Z.astype(complex), TypeError, r"X: expected real numbers, got dtype complex128; take its real part"),
    (Z.astype(str), TypeError, r"X: expected real numbers, got dtype <U\d+"),
    ([[1.0, 2.0], [3.0]], ValueError, r"X: expected an array, got list that NumPy cannot convert"),
    (scipy.sparse.csr_array(Z), TypeError, r"X: expected a dense array, .* X\.toarray\(\)"),
    (np.ma.masked_array(Z, Z > 0), TypeError, r"X: expected a plain array, got a masked one"),
]
BAD_TARGETS = [
    (
        T[:, 0],
        ValueError,
        r"target: expected shape \(6, 1\) as X has, got \(6,\); reshape it with target\.reshape\(X\.sh",
    ),
    (T[:5], ValueError, r"target: expected shape \(6, 1\) as X has, got \(5, 1\); drop or repeat"),
    (1.0, ValueError, r"target: expected shape \(6, 1\) as X has, got \(\)"),
    (T.astype(str), TypeError, r"target: expected real numbers, got dtype <U"),
    (T.astype(object), TypeError, r"target: expected real numbers, got dtype object"),
    (scipy.sparse.csr_array(T), TypeError, r"target: expected a dense array"),
    (changed(T, (3, 0), np.nan), ValueError, r"target: expected .* got nan at \(3, 0\); drop or impute"),
    (changed(T, (3, 0), np.inf), ValueError, r"target: expected .* got inf at \(3, 0\); drop or impute"),
    (changed(T, (3, 0), 1e60), ValueError, r"target: expected .* got (inf|1e\+60) at \(3, 0\)"),
]
BAD_OPTIONS = [
    ({"sample_weight": changed(np.ones(6), 2, -1)}, ValueError, r"sample_weight: .* >= 0, got -1\.0 at row 2"),
    ({"sample_weight": changed(np.ones(6), 2, np.nan)}, ValueError, r"sample_weight: .* got nan at row 2"),
    ({"sample_weight": np.zeros(6)}, ValueError, r"sample_weight: expected at least one weight above 0"),
    ({"sample_weight": np.ones((6, 1))}, ValueError, r"sample_weight: expected shape \(6,\).* got \(6, 1\)"),
]
BAD_DELTAS = [
    (0, ValueError, r"delta: expected a finite number above 0, got 0"),
    (-1.0, ValueError, r"delta: expected a finite number above 0, got -1\.0"),
    (np.nan, ValueError, r"delta: expected a finite number above 0, got nan"),
    (np.inf, ValueError, r"delta: expected a finite number above 0, got inf"),
    (1e60, ValueError, r"delta: 1e\+60 is out of the range of float32; pass float64 arrays"),
    (1e-60, ValueError, r"delta: 1e-60 is out of the range of float32"),
    ("1", TypeError, r"delta: expected a real number, got '1' of type str"),
    (True, TypeError, r"delta: expected a real number, got True of type bool"),
]


@every_loss
@pytest.mark.parametrize("kind", ["", "_grad"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_input(name, kind):
    function = getattr(functional, name + kind)
    for prediction, error, message in BAD_PREDICTIONS:
        target = np.zeros_like(prediction) if isinstance(prediction, np.ndarray) and np.size(prediction) else T
        target = T if np.shape(target) == (6, 1) else target
        with pytest.raises(error, match=message.replace("X", first(name))):
            function(prediction, target)
    for target, error, message in BAD_TARGETS:
        with pytest.raises(error, match=message.replace("X", first(name))):
            function(Z, target)
    for options, error, message in BAD_OPTIONS:
        with pytest.raises(error, match=message):
            function(Z, T, **options)


@pytest.mark.parametrize("kind", ["", "_grad"])
@pytest.mark.parametrize(("delta", "error", "message"), BAD_DELTAS)
def test_bad_delta(delta, error, message, kind):
    with pytest.raises(error, match=message):
        getattr(functional, "huber" + kind)(Z, T, delta=delta)


@pytest.mark.parametrize("kind", ["", "_grad"])
def test_targets_beyond_0_and_1(kind):
    for bad in -0.5, 1.5, -1e-30, 2:
        with pytest.raises(
            ValueError, match=r"target: expected numbers in 0\.\.1, got .* at \(4, 0\); code the classes as"
        ):
            getattr(functional, "binary_cross_entropy" + kind)(Z, changed(T, (4, 0), bad))


def test_a_column_does_not_fit_a_row():
    """NumPy would broadcast them to a square."""
    with pytest.raises(
        ValueError, match=r"target: expected shape \(6,\) .*, got \(6, 1\); reshape it with target\.resh"
    ):
        functional.squared_error(Z[:, 0], T)


def test_a_weight_of_zero_leaves_zeros_where_the_loss_overflows():
    prediction, target = np.float32([3e38, 1]), np.float32([-3e38, 0])
    result = functional.squared_error_grad(prediction, target, sample_weight=[0, 1])
    np.testing.assert_array_equal(result.loss, [0, 0.5])
    np.testing.assert_array_equal(result.prediction, [0, 1])
    np.testing.assert_array_equal(functional.squared_error(prediction, target, sample_weight=[0, 1]), [0, 0.5])
    with pytest.raises(ValueError, match="prediction: expected finite numbers, got nan"):
        functional.squared_error(np.float32([np.nan, 1]), target, sample_weight=[0, 1])
