"""Bad input: an error that names the argument and says what to do, and nothing else happens."""

import numpy as np
import pytest
import scipy.sparse

from fastml import functional
from fastml.functional import _validate

Z = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 0, 1])
P = np.full((6, 4), 0.25)


def changed(array, index, value, dtype=None):
    array = array.astype(dtype or array.dtype)
    array[index] = value
    return array


BAD_LOGITS = [
    (changed(Z, (2, 3), np.nan), ValueError, r"logits: expected numbers or -inf.* got nan at \(2, 3\)"),
    (changed(Z, (5, 0), np.inf), ValueError, r"logits: expected numbers or -inf.* got inf at \(5, 0\)"),
    (changed(Z, 4, -np.inf), ValueError, r"logits: row 4 has no finite entry"),
    (np.zeros((0, 4)), ValueError, r"logits has 0 rows"),
    (np.zeros((6, 0)), ValueError, r"logits has 0 columns"),
    (np.zeros(6), ValueError, r"logits: expected 2 dimensions .* got shape \(6,\); reshape"),
    (np.zeros((6, 4, 1)), ValueError, r"logits: expected 2 dimensions .* got shape \(6, 4, 1\)"),
    (3.0, ValueError, r"logits: expected 2 dimensions .* got shape \(\)"),
    (None, TypeError, r"logits: expected real numbers, got dtype object"),
    (Z.astype(complex), TypeError, r"logits: expected real numbers, got dtype complex128; take its real part"),
    (Z.astype(object), TypeError, r"logits: expected real numbers, got dtype object; convert it to float64"),
    (Z.astype(str), TypeError, r"logits: expected real numbers, got dtype <U\d+"),
    (np.zeros((6, 4), "M8[s]"), TypeError, r"logits: expected real numbers, got dtype datetime64"),
    ([[1.0, 2.0], [3.0]], ValueError, r"logits: expected an array, got list that NumPy cannot convert"),
    (scipy.sparse.csr_array(Z), TypeError, r"logits: expected a dense array, .* logits\.toarray\(\)"),
    (np.ma.masked_array(Z, Z > 0), TypeError, r"logits: expected a plain array, got a masked one"),
]
BAD_TARGETS = [
    (changed(Y, 3, 4), ValueError, r"target: expected labels in 0\.\.3, got 4 at row 3"),
    (changed(Y, 5, -1), ValueError, r"target: expected labels in 0\.\.3, got -1 at row 5"),
    (changed(Y, 1, 2**63 + 1, np.uint64), ValueError, r"target: expected labels in 0\.\.3, got 9223372036854775809 at"),
    (Y.astype(float), TypeError, r"target: expected integer class labels, got dtype float64; cast .*astype"),
    (Y.astype(bool), TypeError, r"target: expected integer class labels, got dtype bool"),
    (Y.astype(str), TypeError, r"target: expected integer class labels, got dtype <U.*; encode"),
    (Y.astype(object), TypeError, r"target: expected integer class labels, got dtype object"),
    (Y[:5], ValueError, r"target: expected shape \(6,\), one label per row, got \(5,\)"),
    (2, ValueError, r"target: expected shape \(6,\), one label per row, got \(\)"),
    (Y[:, None], ValueError, r"target: expected labels \(6,\) or probabilities \(6, 4\), got shape \(6, 1\)"),
    (P[:, :3], ValueError, r"target: expected labels \(6,\) or probabilities \(6, 4\), got shape \(6, 3\)"),
    (P[:, :, None], TypeError, r"target: expected integer class labels"),
    (changed(P, (2, 1), np.nan), ValueError, r"target: expected probabilities .* got a NaN or an infinity in row 2"),
    (changed(P, (2, 1), np.inf), ValueError, r"target: expected probabilities .* got a NaN or an infinity in row 2"),
    (changed(P, 1, [-0.5, 0.5, 0.5, 0.5]), ValueError, r"target: expected probabilities .* got -0\.5 in row 1"),
    (changed(P, 3, 0.3), ValueError, r"target: expected probabilities .* got a sum of 1\.\d+ in row 3"),
    (P * (1 + 0j), TypeError, r"target: expected real numbers, got dtype complex128"),
    (scipy.sparse.csr_array(P), TypeError, r"target: expected a dense array"),
    ([[1, 0, 0, 0], [1]], ValueError, r"target: expected an array, got list"),
]
BAD_OPTIONS = [
    ({"sample_weight": changed(np.ones(6), 2, -1)}, ValueError, r"sample_weight: .* >= 0, got -1\.0 at row 2"),
    ({"sample_weight": changed(np.ones(6), 2, np.nan)}, ValueError, r"sample_weight: .* got nan at row 2"),
    ({"sample_weight": changed(np.ones(6), 2, np.inf)}, ValueError, r"sample_weight: .* got inf at row 2"),
    ({"sample_weight": changed(np.ones(6), 2, 1e60)}, ValueError, r"sample_weight: .* got inf at row 2"),
    ({"sample_weight": np.zeros(6)}, ValueError, r"sample_weight: expected at least one weight above 0, got 6 zeros"),
    ({"sample_weight": np.ones(5)}, ValueError, r"sample_weight: expected shape \(6,\).* got \(5,\)"),
    ({"sample_weight": np.ones((6, 1))}, ValueError, r"sample_weight: expected shape \(6,\).* got \(6, 1\)"),
    ({"sample_weight": 2.0}, ValueError, r"sample_weight: expected shape \(6,\).* got \(\)"),
    ({"sample_weight": ["a"] * 6}, TypeError, r"sample_weight: expected real numbers, got dtype <U1"),
    ({"label_smoothing": 1.0}, ValueError, r"label_smoothing: expected a number in \[0, 1\), got 1\.0"),
    ({"label_smoothing": -0.1}, ValueError, r"label_smoothing: expected a number in \[0, 1\), got -0\.1"),
    ({"label_smoothing": np.nan}, ValueError, r"label_smoothing: expected a number in \[0, 1\), got nan"),
    ({"label_smoothing": 1 - 1e-12}, ValueError, r"label_smoothing: expected a number in \[0, 1\)"),
    ({"label_smoothing": "0.1"}, TypeError, r"label_smoothing: expected a real number, got '0\.1' of type str"),
    ({"temperature": 0}, ValueError, r"temperature: expected a finite number above 0, got 0"),
    ({"temperature": -1.0}, ValueError, r"temperature: expected a finite number above 0, got -1\.0"),
    ({"temperature": np.inf}, ValueError, r"temperature: expected a finite number above 0, got inf"),
    ({"temperature": np.nan}, ValueError, r"temperature: expected a finite number above 0, got nan"),
    ({"temperature": 1e-300}, ValueError, r"temperature: 1e-300 is out of the range of float32"),
    ({"temperature": 1e60}, ValueError, r"temperature: 1e\+60 is out of the range of float32"),
    ({"temperature": 10**400}, ValueError, r"temperature: expected a finite number above 0"),
    ({"temperature": True}, TypeError, r"temperature: expected a real number, got True of type bool"),
    ({"temperature": None}, TypeError, r"temperature: expected a real number, got None"),
    ({"temperature": 1j}, TypeError, r"temperature: expected a real number, got 1j"),
]
LOSSES = [functional.softmax_cross_entropy, functional.softmax_cross_entropy_grad]


@pytest.mark.parametrize(("logits", "error", "message"), BAD_LOGITS)
def test_bad_logits(logits, error, message):
    for function in functional.softmax, functional.log_softmax, functional.log_sum_exp:
        with pytest.raises(error, match=message):
            function(logits)
    for function in LOSSES:
        for target in Y, P:
            with pytest.raises(error, match=message):
                function(logits, target)


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize(("target", "error", "message"), BAD_TARGETS)
def test_bad_target(target, error, message, function):
    with pytest.raises(error, match=message):
        function(Z, target)


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options(options, error, message, function):
    for target in Y, P:
        with pytest.raises(error, match=message):
            function(Z, target, **options)


@pytest.mark.parametrize("function", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_target_on_a_masked_class(function, smoothing):
    logits = changed(Z, (2, 2), -np.inf)
    for target in Y, P:
        with pytest.raises(ValueError, match=r"target: row 2's target class is masked \(logit -inf\)"):
            function(logits, target, label_smoothing=smoothing)
    with pytest.raises(ValueError, match="target: row 2's target class is masked"):
        function(logits, Y, sample_weight=changed(np.ones(6), 2, 0))


def test_bad_logits_are_told_before_overflows():
    """Rows that overflow honestly do not hide the one that is wrong."""
    logits = np.array([[3e38, -3e38], [0, np.nan]], np.float32)
    with pytest.raises(ValueError, match=r"got nan at \(1, 1\)"):
        functional.softmax_cross_entropy(logits, [1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (1999, 299)])
def test_check_finite(bad, at):
    X = np.full((2000, 300), np.finfo(np.float64).max)
    _validate.check_finite(X, "X")
    X[at] = bad
    with pytest.raises(ValueError, match=rf"X: expected finite numbers, got {bad} at \({at[0]}, {at[1]}\)"):
        _validate.check_finite(X, "X")


def test_tolerance_of_probabilities():
    loose = np.full((2, 4), 0.25 + 1e-5)
    with pytest.raises(ValueError, match="a sum of 1"):
        _validate.check_probabilities(loose, (2, 4), np.float64)
    for given, dtype in (np.float32, np.float64), (np.float32, np.float32), (np.float64, np.float32):
        got = _validate.check_probabilities(loose.astype(given), (2, 4), dtype)
        assert got.dtype == dtype
    one_hot = _validate.check_probabilities([[0, 1], [1, 0]], (2, 2), np.float32)
    np.testing.assert_array_equal(one_hot, [[0, 1], [1, 0]])


def test_canonical_copies_only_when_it_must():
    x = np.arange(6.0).reshape(2, 3)
    assert _validate.canonical(x, np.float64) is x
    x.setflags(write=False)
    view = _validate.canonical(x, np.float64)
    assert view.flags.writeable
    assert np.shares_memory(view, x)
    address = x.ctypes.data
    del x
    assert view.ctypes.data == address
    np.testing.assert_array_equal(view, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.dtype(">i4")])
def test_labels_of_any_width(dtype):
    got = _validate.check_labels(Y.astype(dtype), 6, 4)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, Y)
