"""The validated face of the Kullback-Leibler divergence."""

import naive
import numpy as np
import pytest
from scipy.special import rel_entr

from fastml import functional
from fastml.functional import _softmax

DTYPES = [np.float32, np.float64]
SHAPES = [(1, 1), (5, 2), (200, 7), (255, 507)]
BOTH = [functional.kl_divergence, functional.kl_divergence_grad]

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def make(shape, dtype=np.float64):
    rng = np.random.default_rng(0)
    t = rng.random(shape)
    t[:, 1:] *= rng.random(t[:, 1:].shape) > 0.3
    t = (t / t.sum(axis=1, keepdims=True)).astype(dtype)
    return (2 * rng.standard_normal(shape)).astype(dtype), t, rng.random(shape[0])


@both_dtypes
@pytest.mark.parametrize("shape", SHAPES)
def test_divergence_is_its_definition(shape, dtype):
    z, t, w = make(shape, dtype)
    for options in {}, {"temperature": 3.0, "sample_weight": w}:
        loss = functional.kl_divergence(z, t, **options)
        both = functional.kl_divergence_grad(z, t, **options)
        assert both._fields == ("loss", "logits")
        assert loss.dtype == both.loss.dtype == both.logits.dtype == dtype
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-14}
        np.testing.assert_allclose(loss, naive.kl_divergence(z, t, **options), **tolerance)
        np.testing.assert_allclose(both.loss, loss, **tolerance)
        np.testing.assert_allclose(both.logits, naive.kl_divergence_grad(z, t, **options), **tolerance)


def test_it_is_relative_entropy():
    z, t, _ = make((50, 9))
    np.testing.assert_allclose(functional.kl_divergence(z, t), rel_entr(t, naive.softmax(z)).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (3, 40)])
def test_gradient_is_the_gradient_of_the_loss(shape):
    z, t, w = make(shape)
    options = {"sample_weight": w, "temperature": 1.7}
    expected = naive.finite_differences(lambda z: functional.kl_divergence(z, t, **options).sum(), z)
    np.testing.assert_allclose(functional.kl_divergence_grad(z, t, **options).logits, expected, atol=1e-8)


@both_dtypes
def test_gradient_is_that_of_the_cross_entropy(dtype):
    z, t, w = make((60, 8), dtype)
    options = {"sample_weight": w, "temperature": 2.0}
    np.testing.assert_allclose(
        functional.kl_divergence_grad(z, t, **options).logits,
        functional.softmax_cross_entropy_grad(z, t, **options).logits,
        atol=4 * np.finfo(dtype).eps,
    )


def test_masked_classes():
    z = np.array([[0, -np.inf, 1], [5, -np.inf, -np.inf]], np.float32)
    loss, grad = functional.kl_divergence_grad(z, [[0.5, 0, 0.5], [1, 0, 0]])
    np.testing.assert_allclose(loss, [np.log((1 + np.e) / 2) - 0.5, 0], rtol=1e-6)
    assert (grad[np.isneginf(z)] == 0).all()


@pytest.mark.parametrize("n_classes", [5, 40])
def test_layout_and_threads_do_not_matter(n_classes, monkeypatch):
    monkeypatch.setattr(_softmax, "_NARROW_BLOCK", 700)
    monkeypatch.setattr(_softmax, "_LEAST_BLOCK", 1500)
    z, t, w = make((1000, n_classes), np.float32)
    expected = [a.tobytes() for a in functional.kl_divergence_grad(z, t, sample_weight=w)]
    value = functional.kl_divergence(z, t, sample_weight=w).tobytes()
    read_only = z.copy()
    read_only.setflags(write=False)
    for n_threads in 1, 2, 16:
        monkeypatch.setattr(_softmax, "thread_count", lambda n=n_threads: n)
        for other in z, np.asfortranarray(z), read_only:
            got = functional.kl_divergence_grad(other, np.asfortranarray(t), sample_weight=w)
            assert [a.tobytes() for a in got] == expected
        assert functional.kl_divergence(z, t, sample_weight=w).tobytes() == value


Z, P, _ = make((6, 4), np.float32)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD = [
    (changed(Z, (2, 3), np.nan), P, ValueError, r"logits: expected numbers or -inf.* got nan at \(2, 3\)"),
    (changed(Z, (5, 0), np.inf), P, ValueError, r"logits: expected numbers or -inf.* got inf at \(5, 0\)"),
    (changed(Z, 4, -np.inf), P, ValueError, r"logits: row 4 has no finite entry"),
    (changed(Z, (2, 0), -np.inf), P, ValueError, r"target: row 2's target class is masked \(logit -inf\)"),
    (Z[0], P, ValueError, r"logits: expected 2 dimensions"),
    (Z, P[:, :3], ValueError, r"target: expected labels \(6,\) or probabilities \(6, 4\), got shape \(6, 3\)"),
    (Z, np.zeros(6, int), ValueError, r"target: expected labels .* got shape \(6,\)"),
    (Z, changed(P, (2, 1), np.nan), ValueError, r"target: expected probabilities .* got a NaN or an infinity in row 2"),
    (Z, changed(P, 1, [-0.5, 0.5, 0.5, 0.5]), ValueError, r"target: expected probabilities .* got -0\.5 in row 1"),
    (Z, changed(P, 3, 0.3), ValueError, r"target: expected probabilities .* got a sum of 1\.\d+ in row 3"),
    (Z.astype(str), P, TypeError, r"logits: expected real numbers"),
]
BAD_OPTIONS = [
    ({"temperature": 0}, ValueError, r"temperature: expected a finite number above 0, got 0"),
    ({"temperature": "1"}, TypeError, r"temperature: expected a real number"),
    ({"sample_weight": -np.ones(6)}, ValueError, r"sample_weight: expected finite numbers >= 0, got -1\.0 at row 0"),
]


@pytest.mark.parametrize("function", BOTH)
def test_bad_input(function):
    for logits, target, error, message in BAD:
        with pytest.raises(error, match=message):
            function(logits, target)
    for options, error, message in BAD_OPTIONS:
        with pytest.raises(error, match=message):
            function(Z, P, **options)
